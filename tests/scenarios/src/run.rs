//! The table of scenarios: each once for the test run, each many times for `tests/show`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::platform::Platform;
use crate::scenarios as s;
use crate::tally;

/// One thing that is shown on a real platform. Its samples are what a client saw; an error is a wrong result.
pub struct Scenario {
    /// Its name, also that of its item.
    pub name: &'static str,
    /// One sentence.
    pub what: &'static str,
    /// Runs by which `tests/show` shows it, unless told otherwise.
    pub runs: u32,
    /// Part of the test run.
    pub in_ci: bool,
    /// Largest median over the runs of `tests/show`, by key of the samples. Never judged in the test run: machines
    /// there are shared.
    pub medians: &'static [(&'static str, f64)],
    /// Does it once.
    pub act: fn(&Platform) -> Result<Value>,
}

/// Scenarios on one platform, and what must be there before any of them but the first and the last.
pub struct Table {
    /// In the order of the test run: later ones rely on what earlier ones brought up.
    pub scenarios: &'static [Scenario],
    /// Brings up what they rely on, where it is not there.
    pub prepare: fn(&Platform) -> Result<()>,
}

/// All tables, each on a platform of its own.
pub const TABLES: &[Table] = &[
    Table { scenarios: POSTGRES, prepare: s::postgres::prepare },
    Table { scenarios: s::control_plane::SCENARIOS, prepare: s::postgres::prepare },
    Table { scenarios: s::nats::SCENARIOS, prepare: s::nats::prepare },
    Table { scenarios: s::redis::SCENARIOS, prepare: s::redis::prepare },
    Table { scenarios: s::redis_replicated::SCENARIOS, prepare: s::redis_replicated::prepare },
    Table { scenarios: s::tls_direct::CLUSTER, prepare: s::tls_direct::prepare_cluster },
    Table { scenarios: s::mariadb::SCENARIOS, prepare: s::mariadb::prepare },
    Table { scenarios: s::mariadb_two::SCENARIOS, prepare: s::mariadb_two::prepare },
    Table { scenarios: s::s3::SCENARIOS, prepare: s::s3::prepare },
    Table { scenarios: s::together::SCENARIOS, prepare: s::together::prepare },
    Table { scenarios: s::hosts::SCENARIOS, prepare: s::postgres::prepare },
    Table { scenarios: s::images::SCENARIOS, prepare: s::images::prepare },
    Table { scenarios: s::memory::SCENARIOS, prepare: s::images::prepare },
    Table { scenarios: s::disk::SCENARIOS, prepare: s::disk::prepare },
];

/// Of each of these a test run makes one, chosen by the commit: over many commits each has its turn.
const TURNS: &[&[&str]] = &[
    &["partition", "headless", "engine-frozen", "dead-host"],
    &["switchover", "broken-image", "kill-primary-held", "kill-replica"],
    &[
        "redis-switchover",
        "redis-broken-image",
        "redis-replicas",
        "mariadb-switchover",
        "mariadb-broken-image",
        "mariadb-kill-host",
        "s3-rolling-restart",
        "s3-kill-host",
        "s3-full-stop",
        "s3-heal",
        "nats",
        "redis-kill-all",
        "mariadb-two-kill-host",
    ],
];

/// The scenarios whose turn it is.
///
/// # Errors
/// The commit is no hexadecimal number.
fn turns(commit: &str) -> Result<Vec<&'static str>> {
    let digits = commit.get(..8).unwrap_or(commit);
    let number = usize::from_str_radix(digits, 16).with_context(|| format!("{commit} is no commit"))?;
    Ok(TURNS.iter().map(|names| names[number % names.len()]).collect())
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    TABLES.iter().flat_map(|table| table.scenarios)
}

const POSTGRES: &[Scenario] = &[
    Scenario {
        name: "up",
        what: "hosts, coordinators, agents, an app applied, status and logs",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::first::up,
    },
    Scenario {
        name: "leader-killed-in-apply",
        what: "an apply goes on when the leading coordinator dies",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::first::leader_killed_in_apply,
    },
    Scenario {
        name: "bootstrap",
        what: "PostgreSQL forms and all members stream",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::postgres::bootstrap,
    },
    Scenario {
        name: "audiences",
        what: "only declared audiences reach a port, on the same host and on another",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::network::audiences,
    },
    Scenario {
        name: "repair",
        what: "removed containers, networks, files and rules are back within 10 s",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::repair::repair,
    },
    Scenario {
        name: "nft-flush",
        what: "every packet filter flushed at once under writes, then a firewall that drops what it does not know",
        runs: 3,
        in_ci: false,
        medians: &[("back_s", 10.0)],
        act: s::flush::nft_flush,
    },
    Scenario {
        name: "kill-primary",
        what: "the primary's container killed: gap, losses, who acted",
        runs: 10,
        in_ci: true,
        medians: &[("rto_ms", 2_500.0)],
        act: s::drills::kill_primary,
    },
    Scenario {
        name: "kill-primary-held",
        what: "the same with its restart made impossible",
        runs: 5,
        in_ci: false,
        medians: &[("rto_ms", 2_500.0)],
        act: s::drills::kill_primary_held,
    },
    Scenario {
        name: "kill-primary-alone",
        what: "killed while no standby streams: restarted in place, never released",
        runs: 5,
        in_ci: false,
        medians: &[],
        act: s::faults::kill_primary_alone,
    },
    Scenario {
        name: "secret-rotate",
        what: "all passwords of PostgreSQL change under load, a coordinator dies in it; nobody is cut off",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: s::rotate::postgres,
    },
    Scenario {
        name: "postgres-tls",
        what: "clients check PostgreSQL's certificate; it changes under load, and TLS becomes a must, without a gap",
        runs: 3,
        in_ci: false,
        medians: &[("max_gap_ms", 500.0)],
        act: s::tls::postgres,
    },
    Scenario {
        name: "metrics",
        what: "exporters beside members of PostgreSQL, MariaDB and Redis: who reads them, what they show, and that nobody notices them",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: s::metrics::metrics,
    },
    Scenario {
        name: "switchover",
        what: "the leading role moves by command",
        runs: 5,
        in_ci: false,
        medians: &[("max_gap_ms", 3_000.0)],
        act: s::update::switchover,
    },
    Scenario {
        name: "rolling-update",
        what: "a new image under load, the coordinators' leader killed in the middle",
        runs: 3,
        in_ci: true,
        medians: &[("max_gap_ms", 3_000.0)],
        act: s::update::rolling_update,
    },
    Scenario {
        name: "broken-image",
        what: "an image that never becomes healthy pauses the update; rollback works",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: s::update::broken_image,
    },
    Scenario {
        name: "kill-host",
        what: "the primary's host loses power and returns",
        runs: 5,
        in_ci: true,
        medians: &[("rto_ms", 25_000.0), ("streams_again_s", 60.0)],
        act: s::drills::kill_host,
    },
    Scenario {
        name: "headless",
        what: "no coordinator: a replica killed, a host power-cycled, databases come back",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: s::faults::headless,
    },
    Scenario {
        name: "engine-frozen",
        what: "dockerd of the primary's host frozen: nothing moves, status says it",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: s::faults::engine_frozen,
    },
    Scenario {
        name: "partition",
        what: "the primary's host cut off: never two writers, nothing acknowledged is lost",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: s::faults::partition,
    },
    s::dead::DEAD_HOST,
    s::uninstall::UNINSTALL,
    s::grow::RESTART_ASKED,
    s::grow::ROLLS_BACK,
    s::grow::RECLONE,
    s::drills::KILL_REPLICA,
    s::drills::FULL_OUTAGE,
    s::drills::KILL_HOST_BY_AGENT,
    Scenario {
        name: "identity",
        what: "wrong tokens and certificates are refused and audited",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::identity::identity,
    },
    Scenario {
        name: "down",
        what: "nothing of ours is left",
        runs: 1,
        in_ci: true,
        medians: &[],
        act: s::first::down,
    },
];

/// Lists what can be shown.
pub fn items() {
    for scenario in all() {
        println!("{:<24} {} ({} runs)", scenario.name, scenario.what, scenario.runs);
    }
}

/// Every scenario of the test run once, and those whose turn it is at this commit. True = none failed.
///
/// # Errors
/// The environment is unusable.
pub fn run(names: &[String], commit: Option<&str>, keep: bool) -> Result<bool> {
    let platform = Platform::from_env()?;
    let turns = commit.map(turns).transpose()?.unwrap_or_default();
    if !turns.is_empty() {
        println!("the turn of this commit: {}", turns.join(", "));
    }
    let wanted = |scenario: &&Scenario| match names {
        [] => scenario.in_ci || turns.contains(&scenario.name),
        names => names.iter().any(|name| name == scenario.name),
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for table in TABLES.iter().filter(|table| table.scenarios.iter().any(|scenario| wanted(&scenario))) {
        platform.testbed.down(false, false).context("clearing an earlier platform")?;
        for scenario in table.scenarios.iter().filter(wanted) {
            if attempt(&platform, scenario) {
                passed += 1;
            } else {
                failed.push(scenario.name);
            }
        }
    }
    if !keep {
        platform.testbed.down(false, false)?;
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{passed} passed, {} failed, 0 skipped", failed.len());
    Ok(failed.is_empty() && passed > 0)
}

/// Acts once and says how it went.
fn attempt(platform: &Platform, scenario: &Scenario) -> bool {
    println!("== {}: {}", scenario.name, scenario.what);
    let begin = Instant::now();
    match (scenario.act)(platform) {
        Ok(samples) => println!("   PASSED in {:.1} s {samples}", begin.elapsed().as_secs_f64()),
        Err(error) => {
            println!("   FAILED after {:.1} s: {error:#}", begin.elapsed().as_secs_f64());
            explain(platform);
            return false;
        }
    }
    true
}

/// What a person would look at first after a failure.
pub fn explain(platform: &Platform) {
    for arguments in [&["status"][..], &["events", "--tail", "40"], &["op", "ls"]] {
        match platform.cli.output(arguments) {
            Ok(out) => {
                println!("--- muster {}", arguments.join(" "));
                println!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            }
            Err(error) => println!("--- muster {}: {error:#}", arguments.join(" ")),
        }
    }
}

/// One scenario many times, on a platform that is brought up when it is not there. True = every run was right.
///
/// # Errors
/// The item does not exist, or the platform does not come up.
pub fn show(item: &str, runs: Option<u32>, tally: Option<&Path>, keep: bool) -> Result<bool> {
    let known = |table: &Table| table.scenarios.iter().find(|scenario| scenario.name == item);
    let found = TABLES.iter().find_map(|table| Some((table, known(table)?)));
    let (table, scenario) = found.with_context(|| format!("no item {item}; `tests/show` lists them"))?;
    let platform = Platform::from_env()?;
    if !matches!(item, "up" | "down") {
        (table.prepare)(&platform)?;
    }
    let runs = runs.unwrap_or(scenario.runs);
    let mut wrong = 0;
    let mut all = Vec::new();
    for run in 1..=runs {
        let result = (scenario.act)(&platform);
        wrong += u32::from(result.is_err());
        let samples = recorded(&platform, item, run, tally, &result)?;
        println!("{item} run {run} of {runs}: {samples}");
        if let Err(error) = result {
            println!("   WRONG: {error:#}");
        }
        all.push(samples);
    }
    if !keep {
        platform.testbed.down(false, false)?;
    }
    let late = scenario.medians.iter().filter(|(key, most)| !median_holds(&all, key, *most)).count();
    println!("{} passed, {} failed, 0 skipped", runs - wrong, wrong as usize + late);
    Ok(wrong == 0 && late == 0 && runs > 0)
}

/// The samples of one run, in the tally too.
///
/// # Errors
/// The tally cannot be written.
pub fn recorded(
    platform: &Platform,
    item: &str,
    run: u32,
    tally: Option<&Path>,
    result: &Result<Value>,
) -> Result<Value> {
    let (samples, verdict) = match result {
        Ok(samples) => {
            (serde_json::from_str(&without_folders(platform, &samples.to_string()))?, "ok".to_owned())
        }
        Err(error) => (json!({}), format!("wrong: {}", without_folders(platform, &format!("{error:#}")))),
    };
    if let Some(tally) = tally {
        tally::append(tally, item, run, &samples, &verdict)?;
    }
    Ok(samples)
}

/// The tally is committed: it says nothing about where things lie on the machine that ran it.
fn without_folders(platform: &Platform, text: &str) -> String {
    let config = platform.testbed.config();
    [&config.dir, &config.bin_dir]
        .iter()
        .fold(text.to_owned(), |text, folder| text.replace(&format!("{}/", folder.display()), ""))
}

/// Prints the median of a sample over all runs and compares it with the bar. No sample at all is a failure.
fn median_holds(all: &[Value], key: &str, most: f64) -> bool {
    let mut numbers: Vec<f64> = all.iter().filter_map(|samples| samples[key].as_f64()).collect();
    numbers.sort_by(f64::total_cmp);
    let Some(median) = numbers.get(numbers.len() / 2) else {
        println!("{key}: no samples");
        return false;
    };
    let verdict = if *median <= most { "ok" } else { "MISSED" };
    println!("{key}: median {median} of {numbers:?}, at most {most}: {verdict}");
    *median <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_is_a_scenario_that_is_not_always_run() {
        for name in TURNS.iter().copied().flatten() {
            assert!(all().any(|scenario| scenario.name == *name && !scenario.in_ci), "{name}");
        }
        let of = |commit: &str| turns(commit).ok();
        assert_eq!(of("00000001ffffffff"), Some(vec![TURNS[0][1], TURNS[1][1], TURNS[2][1]]));
        assert_ne!(of("00000002"), of("00000003"));
        assert_eq!(of("main"), None);
    }
}
