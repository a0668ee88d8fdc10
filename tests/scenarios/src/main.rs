//! Runs scenarios on emulated hosts and shows what a client saw.

mod campaign;
mod cli;
mod clock;
mod connects;
mod needles;
mod peers;
mod platform;
mod run;
mod scenarios;
mod settings;
mod specs;
mod summary;
mod tally;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::campaign::Campaign;
use crate::platform::Platform;

/// Scenarios on a real platform of emulated hosts.
#[derive(Debug, Parser)]
#[command(name = "scenarios")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot hosts and bring a platform up, or go on where an earlier call was interrupted.
    Up,
    /// What deploy/quickstart shows a newcomer.
    Quickstart,
    /// Remove the hosts and everything of theirs.
    Down,
    /// Every scenario of the test run once, on a platform of its own; ends with the plain closing line.
    Run {
        /// Only these.
        names: Vec<String>,
        /// Without names: also the scenarios whose turn it is at this commit.
        #[arg(long, value_name = "HASH")]
        turn: Option<String>,
        /// Keep the hosts for a look afterwards.
        #[arg(long)]
        keep: bool,
    },
    /// List what can be shown.
    Items,
    /// Addresses from standard input that answer; for a container's network.
    #[command(hide = true)]
    Connects,
    /// Listen on a port; for a container's network.
    #[command(hide = true)]
    Listens { port: u16 },
    /// Run what the tally still lacks of every item that is counted; goes on where an earlier campaign stopped.
    Campaign {
        /// Only these.
        names: Vec<String>,
        /// Where runs are recorded and counted.
        #[arg(long)]
        tally: PathBuf,
        /// No run begins after so many minutes.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Deploys, updates and faults beside Docker Swarm on engines of its own; three hosts each.
    BesideSwarm {
        /// Rounds; both sides in each.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
    /// What the tally holds, as a table for the docs.
    Summary {
        /// Where runs are recorded.
        #[arg(long)]
        tally: PathBuf,
    },
    /// Show one promise: raw samples, and a wrong result is a failure.
    Show {
        /// Its name.
        item: String,
        /// How often.
        #[arg(long)]
        runs: Option<u32>,
        /// Where each run is recorded.
        #[arg(long)]
        tally: Option<PathBuf>,
        /// Keep the hosts for a look, or for the next item.
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<bool> {
    match command {
        Command::Up => Platform::from_env()?.up().map(|()| true),
        Command::Quickstart => scenarios::quickstart::quickstart(&Platform::from_env()?).map(|()| true),
        Command::Down => Platform::from_env()?.testbed.down(false, false).map(|()| true),
        Command::Run { names, turn, keep } => run::run(&names, turn.as_deref(), keep),
        Command::Items => {
            run::items();
            Ok(true)
        }
        Command::Connects => connects::run().map(|()| true),
        Command::Listens { port } => connects::listen(port).map(|()| true),
        Command::BesideSwarm { rounds } => {
            let missed = peers::beside_swarm(&Platform::from_env()?, rounds)?;
            println!("{missed} bars missed");
            Ok(missed == 0)
        }
        Command::Campaign { names, tally, minutes } => {
            let most = Duration::from_secs(minutes * 60);
            Campaign { tally: &tally, names: &names, most }.run()
        }
        Command::Summary { tally } => {
            print!("{}", summary::table(&tally::read(&tally)?));
            Ok(true)
        }
        Command::Show { item, runs, tally, keep } => run::show(&item, runs, tally.as_deref(), keep),
    }
}
