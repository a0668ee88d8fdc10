//! A drill's writer: sends rows, keys or objects, keeps a ledger, verifies it. Only reads the command line; decides nothing.

mod config;
mod engine;
mod ledger;
mod run;
mod secured;
mod status;
mod time;
mod verify;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::Config;

/// Writes rows, keys or objects to a service, remembers what was acknowledged, and compares afterwards.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Args)]
struct Which {
    /// The configuration, as JSON.
    #[arg(long)]
    config: PathBuf,
    /// Only the server at this place of the configuration's list (from 0), whatever it is, with a ledger of its own.
    #[arg(long, value_name = "PLACE")]
    member_direct: Option<usize>,
}

#[derive(Subcommand)]
enum Verb {
    /// Writes until SIGTERM.
    Run {
        #[command(flatten)]
        which: Which,
    },
    /// Reads everything back and prints what became of the acknowledged writes, as JSON.
    Verify {
        #[command(flatten)]
        which: Which,
    },
    /// Prints a part of the ledger, as JSON, at most 4,000 bytes of rows.
    Samples {
        #[command(flatten)]
        which: Which,
        /// The first row, by its number.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many rows.
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
}

fn load(which: &Which) -> anyhow::Result<Config> {
    let config = Config::load(&which.config).with_context(|| which.config.display().to_string())?;
    match which.member_direct {
        Some(place) => config.member_direct(place),
        None => Ok(config),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().verb {
        Verb::Run { which } => run::run(&load(&which)?).await,
        Verb::Verify { which } => {
            println!("{}", verify::verify(&load(&which)?).await?);
            Ok(())
        }
        Verb::Samples { which, from, count } => {
            println!("{}", verify::samples(&load(&which)?, from, count)?);
            Ok(())
        }
    }
}
