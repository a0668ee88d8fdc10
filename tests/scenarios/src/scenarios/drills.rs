//! The signature: a fault on purpose, measured from the client's side by the drill's ledger.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;

/// Longest time until a service is whole again after a drill.
const WHOLE: Duration = Duration::from_secs(120);

/// Drills by agents alone.
pub const KILL_REPLICA: Scenario = Scenario {
    name: "kill-replica",
    what: "a replica's container killed: next to no gap",
    runs: 5,
    in_ci: false,
    medians: &[("rto_ms", 2_500.0)],
    act: kill_replica,
};
pub const FULL_OUTAGE: Scenario = Scenario {
    name: "full-outage",
    what: "all members killed at once and held back for 10 s: they come back by themselves with every acknowledged row",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: full_outage,
};
pub const KILL_HOST_BY_AGENT: Scenario = Scenario {
    name: "kill-host-agent",
    what: "the primary's host lost by its own agent's hand, which is killed meanwhile, and given back",
    runs: 3,
    in_ci: false,
    medians: &[("rto_ms", 25_000.0)],
    act: kill_host_by_agent,
};

fn file(platform: &Platform, name: &str, body: &str) -> Result<String> {
    file_for(platform, platform.settings.service.as_str(), name, body)
}

/// A drill's file for this service.
pub fn file_for(platform: &Platform, service: &str, name: &str, body: &str) -> Result<String> {
    let yaml = format!("drill: 1\nname: {name}\nservice: {service}\n{body}");
    Ok(platform.write_spec(&format!("{name}.yaml"), &yaml)?.to_string_lossy().into_owned())
}

fn report(platform: &Platform, arguments: &[&str]) -> Result<Value> {
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    let report: Value = platform.cli.json(arguments)?;
    Ok(report)
}

/// No acknowledged row is lost, enough were acknowledged for that to mean something, and the gap ended in time.
pub fn judge(report: &Value, rto_max_ms: u64, acked_min: u64) -> Result<Value> {
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_u64);
        value.with_context(|| format!("no {pointer} in the report {report}"))
    };
    let (rto, lost, acked) = (number("/rto_ms")?, number("/lost")?, number("/writer/acked")?);
    ensure!(lost == 0, "{lost} acknowledged rows are lost: {report}");
    ensure!(acked >= acked_min, "only {acked} rows acknowledged: {report}");
    ensure!(rto <= rto_max_ms, "RTO {rto} ms, at most {rto_max_ms} ms: {report}");
    Ok(json!({
        "rto_ms": rto,
        "acked": acked,
        "lost": lost,
        "unacknowledged_present": report["unacknowledged_present"],
        "acted": report["acted"],
        "healthy_after_ms": report["healthy_after_ms"],
        "gaps": report["writer"]["gaps"],
    }))
}

/// The primary's container is killed; its agent is the provider of the fault.
pub fn kill_primary(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-container\nwrites_per_second: 60\nwarmup: 12s\nobserve: 90s\nthresholds: { rto: 60s, lost: 0 }\n";
    let file = file(platform, "kill-primary", body)?;
    let report = report(platform, &["--yes", "drill", "run", &file])?;
    let samples = judge(&report, 15_000, 500)?;
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    Ok(samples)
}

/// The same, and the container is not started again for a minute: only a release can help in time.
pub fn kill_primary_held(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-container\nhold: 40s\nwrites_per_second: 60\nwarmup: 12s\nobserve: 150s\nthresholds: { rto: 60s, lost: 0 }\n";
    let file = file(platform, "kill-primary-held", body)?;
    let report = report(platform, &["--yes", "drill", "run", &file])?;
    let samples = judge(&report, 15_000, 500)?;
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    Ok(samples)
}

/// The primary's host loses power; the testbed is the provider. Patroni's ttl decides, so the bound is ttl + 5 s.
pub fn kill_host(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-host\nwrites_per_second: 40\nwarmup: 8s\nobserve: 120s\nthresholds: { rto: 60s, lost: 0 }\n";
    let file = file(platform, "kill-host", body)?;
    let testbed = platform.testbed.config().bin_dir.join("testbed");
    let cut = format!("{} kill {{host}}", testbed.display());
    let power = format!("{} start {{host}}", testbed.display());
    let report = report(
        platform,
        &["--yes", "drill", "run", &file, "--fault-command", &cut, "--undo-command", &power],
    )?;
    let mut samples = judge(&report, 40_000, 300)?;
    let begin = Instant::now();
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    // The undo command has booted the host when the drill's command returns: this is the time after that.
    samples["streams_again_s"] = json!(begin.elapsed().as_secs_f64());
    Ok(samples)
}

fn kill_replica(platform: &Platform) -> Result<Value> {
    let body = "target: replica\nfault: kill-container\nwrites_per_second: 60\nwarmup: 12s\nobserve: 90s\nthresholds: { rto: 60s, lost: 0 }\n";
    let file = file(platform, "kill-replica", body)?;
    judge(&report(platform, &["--yes", "drill", "run", &file])?, 15_000, 500)
}

fn full_outage(platform: &Platform) -> Result<Value> {
    let body = "fault: full-outage\nhold: 10s\nwrites_per_second: 60\nwarmup: 12s\nobserve: 180s\nthresholds: { lost: 0 }\n";
    let file = file(platform, "full-outage", body)?;
    judge(&report(platform, &["--yes", "drill", "run", &file])?, 90_000, 500)
}

/// The agent that did it is killed in the middle: its successor goes on with the fault and undoes it.
fn kill_host_by_agent(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-host\nhold: 40s\nwrites_per_second: 40\nwarmup: 8s\nobserve: 180s\nthresholds: { lost: 0 }\n";
    let file = file(platform, "kill-host-agent", body)?;
    let (_, host) = platform.leader(platform.settings.service.as_str())?;
    let killed = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_its_agent(platform, &host));
        let report = report(platform, &["--yes", "drill", "run", &file]);
        (report, killer.join())
    });
    let (report, killer) = killed;
    let dark_s = killer.map_err(|_| anyhow::anyhow!("the thread that kills the agent panicked"))??;
    let mut samples = judge(&report?, 60_000, 300)?;
    samples["dark_s"] = json!(dark_s);
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    Ok(samples)
}

/// Waits until the host is down, kills its agent, and says how long the host was away.
fn kill_its_agent(platform: &Platform, host: &muster_testbed::Host) -> Result<f64> {
    let liveness = |wanted: bool| -> Result<()> {
        let status = platform.status()?;
        let row = status.hosts.iter().find(|h| h.name.as_str() == host.name()).context("no host")?;
        let down = row.liveness == muster_model::view::Liveness::Down;
        ensure!(down == wanted, "{:?}", row.liveness);
        Ok(())
    };
    wait("the host down", Duration::from_secs(120), || liveness(true))?;
    let begin = Instant::now();
    host.unit_kill("muster-agent")?;
    // Its unit starts it again at once.
    wait("the host back", Duration::from_secs(90), || liveness(false))?;
    let away = begin.elapsed().as_secs_f64();
    ensure!(away > 15.0, "back after {away} s: the restarted agent did not go on with the fault");
    Ok(away)
}
