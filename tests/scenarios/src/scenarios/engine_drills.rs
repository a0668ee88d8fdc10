//! Every drill that there is against each engine beside PostgreSQL: what is broken by agents, measured by the drill's own ledger,
//! and undone.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use super::{drills, redis_replicated, s3};
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;

const WHOLE: Duration = Duration::from_secs(300);

/// Name, fault with its settings, longest RTO in ms.
const DRILLS: [(&str, &str, u64); 5] = [
    ("kill-primary", "target: leader\nfault: kill-container\n", 20_000),
    ("kill-replica", "target: replica\nfault: kill-container\n", 10_000),
    ("freeze", "target: leader\nfault: freeze\nhold: 15s\n", 40_000),
    ("full-outage", "fault: full-outage\nhold: 10s\n", 120_000),
    ("kill-host", "target: leader\nfault: kill-host\nhold: 40s\n", 60_000),
];

pub const MARIADB: Scenario = Scenario {
    name: "mariadb-drills",
    what: "all five drills against MariaDB, one after the other",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: |platform| all(platform, platform.settings.mariadb.as_str()),
};

pub const REDIS: Scenario = Scenario {
    name: "redis-drills",
    what: "all five drills against a Redis cluster, one after the other",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: |platform| all(platform, platform.settings.cache_service.as_str()),
};

pub const REDIS_REPLICATED: Scenario = Scenario {
    name: "redis-replicated-drills",
    what: "all five drills against one Redis master and its replicas, one after the other",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: |platform| all(platform, &redis_replicated::name(platform)),
};

pub const S3: Scenario = Scenario {
    name: "s3-drills",
    what: "all five drills against S3, one after the other",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: |platform| all(platform, s3::name(platform)),
};

fn all(platform: &Platform, service: &str) -> Result<Value> {
    let mut reports = Map::new();
    for (name, fault, rto_max_ms) in DRILLS {
        platform.wait_healthy(service, WHOLE)?;
        let rest = "writes_per_second: 50\nwarmup: 8s\nobserve: 180s\nthresholds: { lost: 0 }\n";
        let file = drills::file_for(platform, service, name, &format!("{fault}{rest}"))?;
        let report: Value = platform.cli.json(&["--yes", "drill", "run", &file])?;
        reports.insert(name.to_owned(), drills::judge(&report, rto_max_ms, 200)?);
        platform.wait_healthy(service, WHOLE)?;
        // What heals afterwards may take its time.
        wait("nothing left", WHOLE, || nothing_left(platform))?;
    }
    Ok(Value::Object(reports))
}

/// No writer, no operation.
fn nothing_left(platform: &Platform) -> Result<()> {
    let status = platform.status()?;
    let writer = status.services.iter().find(|service| service.kind.as_str() == "writer");
    ensure!(
        writer.is_none() && status.operations.is_empty(),
        "left behind: {writer:?}, {:?}",
        status.operations
    );
    Ok(())
}
