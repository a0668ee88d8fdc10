//! The signature: a fault on purpose, measured from the client's side by the drill's ledger.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

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

/// No acknowledged row is lost, enough were acknowledged for that to mean something, and the gap ended in time.
fn judge(report: &Value, rto_max_ms: u64, acked_min: u64) -> Result<Value> {
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
