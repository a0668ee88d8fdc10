//! The grammar of `audit`.

use std::ops::RangeInclusive;

use clap::{Args, Subcommand};
use muster_model::spec::Span;

/// `audit`, alone: who did what.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    /// Something else than who did what
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// Newest entries only
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub tail: u32,
}

/// `audit ...`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Which TCP ports of the hosts are open from here, and which of them the spec declares
    Exposure(ExposureArgs),
}

/// Arguments of `audit exposure`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  muster audit exposure platform.yaml                     what the spec declares, our own and well-known ports
  muster audit exposure platform.yaml --allow 22          SSH is open on purpose
  muster audit exposure platform.yaml --ports 1-65535     every port

Connects to each port of each host's public address, from where this program runs: run it from outside. UDP is not tried.
Exit code 1: something is open that is not declared.")]
pub struct ExposureArgs {
    /// Spec file; `-` reads standard input. ${VARIABLES} are filled in from the environment.
    pub file: String,
    /// Try these too: 8000 or 8000-8999; may be repeated
    #[arg(long, value_name = "A-B", value_parser = ports)]
    pub ports: Vec<RangeInclusive<u16>>,
    /// Open on purpose, beside the spec: a port or a range; may be repeated
    #[arg(long, value_name = "A-B", value_parser = ports)]
    pub allow: Vec<RangeInclusive<u16>>,
    /// How long one port has to answer, at most 30s
    #[arg(long, default_value = "1s", value_name = "SPAN")]
    pub timeout: Span,
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("write a port or a range of ports, for example 8000-8999".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!(ports("22"), Ok(22..=22));
        assert_eq!(ports("8000-8999"), Ok(8_000..=8_999));
        for wrong in ["0", "9-8", "70000", "a", "", "1-", "-1"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
