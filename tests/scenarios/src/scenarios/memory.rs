//! What agents need in memory while they work for long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_bench::rounds::median;
use serde_json::{Value, json};

use super::images::resident;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::specs;

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "agent-memory",
    what: "the agents' memory while 1,000 containers are made anew: no more in the second half than in the first",
    runs: 1,
    in_ci: false,
    medians: &[("growth_mib", 1.0)],
    act: agents,
}];

/// Members of the application; each round makes all of them anew.
const MEMBERS: usize = 30;
/// Containers made in all, at least.
const OPERATIONS: usize = 1_000;
/// Rounds in which the memory may still grow: buffers and caches find their size.
const WARM: usize = 4;
const SOON: Duration = Duration::from_secs(180);
const MIB: f64 = 1_048_576.0;

fn app(platform: &Platform, round: usize) -> String {
    let (settings, name) = (&platform.settings, &platform.settings.app);
    let app = format!(
        "  {name}:
    kind: app
    image: muster/busybox:1.35
    command: [sh, -c, \"trap 'exit 0' TERM; : round {round}.; sleep 1000000 & wait\"]
    networks: [proxy]
    replicas: {MEMBERS}
    resources: {{ memory: 64MiB }}
    update: {{ soak: 0s }}
    stop: {{ timeout: 1s }}
"
    );
    specs::platform(settings, &[app])
}

/// Containers of this round.
fn made(platform: &Platform, round: usize) -> Result<usize> {
    let mark = format!("round {round}.");
    let mut count = 0;
    for host in platform.hosts()? {
        let text = host.docker(&["ps", "--no-trunc", "--format", "{{.Command}}"], SOON)?;
        count += text.lines().filter(|line| line.contains(&mark)).count();
    }
    Ok(count)
}

fn agents(platform: &Platform) -> Result<Value> {
    let hosts = platform.hosts()?;
    let (began, mut samples) = (Instant::now(), vec![Vec::new(); hosts.len()]);
    let rounds = OPERATIONS.div_ceil(MEMBERS) + WARM;
    for round in 0..rounds {
        platform.apply(&app(platform, round))?;
        platform.wait_healthy(platform.settings.app.as_str(), SOON)?;
        let made = made(platform, round)?;
        ensure!(made == MEMBERS, "{made} of {MEMBERS} members are of round {round}");
        for (host, samples) in hosts.iter().zip(&mut samples) {
            #[expect(clippy::cast_precision_loss, reason = "bytes of a small program")]
            samples.push(resident(host, "muster-agent")? as f64 / MIB);
        }
    }
    let growth = samples.iter().map(|all| {
        let warm = all.get(WARM..).unwrap_or_default();
        let (first, second) = warm.split_at(warm.len() / 2);
        median(second.iter().copied()) - median(first.iter().copied())
    });
    let growth = growth.max_by(f64::total_cmp).context("no host")?;
    let largest = samples.iter().flatten().copied().fold(0.0, f64::max);
    Ok(json!({
        "operations": rounds * MEMBERS, "took_s": began.elapsed().as_secs_f64(), "growth_mib": growth,
        "largest_mib": largest, "agents_mib": samples,
    }))
}
