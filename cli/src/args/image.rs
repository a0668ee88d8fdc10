//! The grammar of `muster image`.

use clap::{Args, Subcommand};
use muster_model::ids::Name;
use muster_model::spec::Span;

/// `image ...`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Bring an image to all hosts, or to some, without a registry
    ///
    /// Hosts that have it are skipped. An interrupted push goes on where it stopped when the same command is given again.
    /// Exit code 1 if a host did not get it.
    Push(PushArgs),
    /// Images of the platform on each host
    Ls,
}

/// Arguments of `image push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A file as `docker save` writes it, `-` for standard input, or the name of an image of the Docker Engine here
    #[arg(value_name = "FILE|NAME")]
    pub image: String,
    /// Only to this host; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<Name>,
    /// Hosts that do not have it by then are given up
    #[arg(long, default_value = "30m", value_name = "SPAN")]
    pub timeout: Span,
}
