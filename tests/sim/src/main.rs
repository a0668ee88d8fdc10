//! `muster-sim`: runs seeds, counts them, and says how to repeat the one that failed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use clap::Parser;
use muster_sim::plant::Plant;
use muster_sim::scenario::{self, Failure, Tally};

/// Seeded simulation of the coordinator's core and the agent's decisions.
#[derive(Debug, Parser)]
#[command(name = "muster-sim")]
struct Arguments {
    /// Fixed seeds, `A..B` without B.
    #[arg(long, value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// One seed, with its history.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds that were never run before, from the clock.
    #[arg(long)]
    fresh: Option<u64>,
    /// Goes on after a failure, and counts them all.
    #[arg(long)]
    all: bool,
    /// A bug in the harness, to see that it is caught.
    #[arg(long, hide = true, value_parser = plant)]
    plant: Option<Plant>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("write for example 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|e| e.to_string());
    Ok((number(from)?, number(to)?))
}

fn plant(text: &str) -> Result<Plant, String> {
    let found = Plant::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, plant)| *plant).ok_or_else(|| "no such bug".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut seeds: Vec<u64> = arguments.seed.into_iter().collect();
    if let Some((from, to)) = arguments.seeds {
        seeds.extend(from..to);
    }
    if let Some(count) = arguments.fresh {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let base = clock.map_or(1, |since| since.as_secs()) * 100_000;
        seeds.extend(base..base + count);
    }
    let begun = std::time::Instant::now();
    let (tally, failures) = run_all(&seeds, &arguments);
    for (seed, failure) in &failures {
        println!("seed {seed} failed at {} ms: {}", failure.at, failure.what);
        if arguments.seed.is_some() {
            failure.history.iter().for_each(|line| println!("  {line}"));
        }
        println!("repeat: cargo run -q --release -p muster-sim -- --seed {seed}");
    }
    println!(
        "seeds {} failures {} entries {} refused {} operations {} words {} hosts removed {} slowest repair {} ms wall {:.1} s",
        seeds.len(),
        failures.len(),
        tally.entries,
        tally.refused,
        tally.operations,
        tally.words,
        tally.removed,
        tally.repaired_ms,
        begun.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds on all cores. Without `--all` no new seed is begun after a failure.
fn run_all(seeds: &[u64], arguments: &Arguments) -> (Tally, Vec<(u64, Failure)>) {
    let next = AtomicU64::new(0);
    let (sender, results) = mpsc::channel();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut total = Tally::default();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    let Some(seed) = seeds.get(at).copied() else { return };
                    let result = scenario::run(seed, arguments.plant);
                    if result.is_err() && !arguments.all {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                    }
                    if sender.send((seed, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, result) in results {
            match result {
                Ok(tally) => add(&mut total, &tally),
                Err(failure) => failures.push((seed, failure)),
            }
        }
    });
    failures.sort_by_key(|(seed, _)| *seed);
    (total, failures)
}

fn add(total: &mut Tally, one: &Tally) {
    total.entries += one.entries;
    total.refused += one.refused;
    total.operations += one.operations;
    total.words += one.words;
    total.removed += one.removed;
    total.repaired_ms = total.repaired_ms.max(one.repaired_ms);
}
