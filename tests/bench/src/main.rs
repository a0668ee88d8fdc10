//! Muster beside its peers: the same machine, the same run, taking turns.

mod control;
mod etcd;
mod gap;
mod load;
mod muster;
mod scale;
mod side;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Muster beside its peers
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Committed writes of the control plane and the death of its leader, beside etcd
    Control {
        /// The program `etcd`
        #[arg(long, value_name = "FILE", default_value = "etcd")]
        etcd: PathBuf,
        /// Rounds; both sides in each
        #[arg(long, value_name = "COUNT", default_value_t = 7)]
        rounds: usize,
        /// Seconds of each load
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        seconds: u64,
    },
    /// Memory of coordinators and length of a decision with many hosts; simulated agents with real sessions
    Scale {
        /// Hosts
        #[arg(long, value_name = "COUNT", default_value_t = 36)]
        hosts: usize,
        /// Members on each
        #[arg(long, value_name = "COUNT", default_value_t = 30)]
        members: usize,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let missed = match Arguments::parse().what {
        What::Control { etcd, rounds, seconds } => {
            control::control(control::Wish { etcd, rounds, span: Duration::from_secs(seconds) }).await?
        }
        What::Scale { hosts, members } => scale::scale(hosts, members).await?,
    };
    println!("{missed} bars missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
