//! The signature: a fault on purpose, measured from the client's side by the drill's ledger.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::wait;
use crate::platform::Platform;

/// Longest time until a service is whole again after a drill.
const WHOLE: Duration = Duration::from_secs(120);

fn file(platform: &Platform, name: &str, body: &str) -> Result<String> {
    let service = &platform.settings.service;
    let yaml = format!("drill: 1\nname: {name}\nservice: {service}\ntarget: leader\n{body}");
    Ok(platform.write_spec(&format!("{name}.yaml"), &yaml)?.to_string_lossy().into_owned())
}

fn report(platform: &Platform, arguments: &[&str]) -> Result<Value> {
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    let report: Value = platform.cli.json(arguments)?;
    Ok(report)
}

fn judge(report: &Value, rto_max_ms: u64, acked_min: u64) -> Result<Value> {
    let number = |key: &str| report[key].as_u64().with_context(|| format!("no {key} in the report {report}"));
    let (rto, lost, acked) = (number("rto_ms")?, number("acked_lost")?, number("acked")?);
    ensure!(lost == 0, "{lost} acknowledged rows are lost: {report}");
    ensure!(acked >= acked_min, "only {acked} rows acknowledged: {report}");
    ensure!(rto <= rto_max_ms, "RTO {rto} ms, at most {rto_max_ms} ms: {report}");
    Ok(json!({ "rto_ms": rto, "acked": acked, "acked_lost": lost, "acted": report["acted"] }))
}

/// The primary's container is killed; its agent is the provider of the fault.
pub fn kill_primary(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-container\nwrites_per_second: 60\nwarmup: 12s\nobserve: 60s\nthresholds: { rto: 5s, lost: 0 }\n";
    let file = file(platform, "kill-primary", body)?;
    let report = report(platform, &["--yes", "drill", "run", &file])?;
    let samples = judge(&report, 5_000, 500)?;
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    Ok(samples)
}

/// The same, and the container is not started again for a minute: only a release can help in time.
pub fn kill_primary_held(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-container\nhold: 40s\nwrites_per_second: 60\nwarmup: 12s\nobserve: 120s\nthresholds: { rto: 5s, lost: 0 }\n";
    let file = file(platform, "kill-primary-held", body)?;
    let report = report(platform, &["--yes", "drill", "run", &file])?;
    let samples = judge(&report, 5_000, 500)?;
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    Ok(samples)
}

/// The primary's host loses power; the testbed is the provider. Patroni's ttl decides, so the bound is ttl + 5 s.
pub fn kill_host(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-host\nwrites_per_second: 40\nwarmup: 8s\nobserve: 120s\nthresholds: { rto: 25s, lost: 0 }\n";
    let file = file(platform, "kill-host", body)?;
    let testbed = platform.testbed.config().bin_dir.join("testbed");
    let cut = format!("{} kill {{host}}", testbed.display());
    let power = format!("{} start {{host}}", testbed.display());
    let report = report(
        platform,
        &["--yes", "drill", "run", &file, "--fault-command", &cut, "--undo-command", &power],
    )?;
    let samples = judge(&report, 25_000, 300)?;
    let name = platform.settings.service.as_str();
    let healthy = platform.wait_healthy(name, Duration::from_secs(90))?;
    wait("all members ready", Duration::from_secs(30), || {
        ensure!(healthy.members.iter().all(|member| member.ready), "{:?}", healthy.members);
        Ok(())
    })?;
    Ok(samples)
}
