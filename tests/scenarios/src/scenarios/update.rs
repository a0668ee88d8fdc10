//! Planned changes under load: switchover, a new image member by member, an image that never becomes healthy.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use muster_model::view::{HealthWord, OperationState, OperationView};
use serde_json::{Value, json};

use super::postgres;
use crate::clock::wait;
use crate::platform::Platform;
use crate::specs;
use crate::writer::{Writer, connections, judge_losses};

const WHOLE: Duration = Duration::from_secs(180);
/// A gap of writes that a planned change may cause.
const GAP_MAX_MS: u64 = 3_000;

/// A writer on a host that does not run the leader.
pub(super) fn writer(platform: &Platform, name: &str) -> Result<Writer> {
    let service = platform.settings.service.as_str();
    platform.wait_healthy(service, WHOLE)?;
    let (_, leader) = platform.leader(service)?;
    let hosts = platform.hosts()?;
    let host = hosts.into_iter().find(|host| host.name() != leader.name()).context("no other host")?;
    let writer = Writer::start(host, name, &connections(platform, "write")?, 9_311)?;
    writer.wait_steady()?;
    Ok(writer)
}

/// At most so many gaps, none longer than a planned change may cause.
pub(super) fn judge_gaps(summary: &Value, most: usize) -> Result<()> {
    let gaps = summary["gaps"].as_array().context("no gaps in the summary")?;
    ensure!(gaps.len() <= most, "{} gaps, at most {most}: {summary}", gaps.len());
    let longest = summary["max_gap_ms"].as_u64().context("no max_gap_ms")?;
    ensure!(longest <= GAP_MAX_MS, "a gap of {longest} ms, at most {GAP_MAX_MS} ms: {summary}");
    Ok(())
}

fn samples(summary: &Value) -> Value {
    json!({ "acked": summary["acked"], "acked_lost": summary["acked_lost_count"], "gaps": summary["gaps"], "max_gap_ms": summary["max_gap_ms"] })
}

/// The leading role moves by command; clients see one short gap.
pub fn switchover(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    let writer = writer(platform, "switchover")?;
    let (before, _) = platform.leader(service)?;
    platform.cli.run(&["--yes", "service", "switchover", service])?;
    let (after, _) = wait("a new leader", Duration::from_secs(30), || platform.leader(service))?;
    ensure!(before.slot != after.slot, "{} still leads", before.slot);
    platform.wait_healthy(service, WHOLE)?;
    thread::sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    judge_gaps(&summary, 1)?;
    Ok(samples(&summary))
}

/// The spec with another image than the one in force, so that an update can be shown again and again.
fn other_image(platform: &Platform) -> Result<PathBuf> {
    for image in [specs::NEXT, specs::IMAGE] {
        let path = platform.write_spec("next.yaml", &postgres::spec(platform, image)?)?;
        if platform.cli.output(&["plan", &path.to_string_lossy()])?.status.code() == Some(2) {
            return Ok(path);
        }
    }
    bail!("neither image would change anything");
}

/// Replicas first, the leader last after a switchover; the coordinators' leader dies once in the middle.
pub fn rolling_update(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    let from = platform.service(service)?.revision;
    let writer = writer(platform, "update")?;
    let path = other_image(platform)?;
    let cli = platform.cli.clone();
    let apply = thread::spawn(move || cli.run(&["--yes", "apply", &path.to_string_lossy()]));
    wait("the first member of the new revision", Duration::from_secs(90), || {
        let now = platform.service(service)?;
        let new = now.members.iter().filter(|m| m.revision > from).count();
        ensure!(new >= 1, "none yet");
        Ok(())
    })?;
    platform.leading_coordinator()?.unit_kill("muster-coordinator")?;
    apply.join().map_err(|_| anyhow::anyhow!("the apply panicked"))??;
    let now = platform.wait_healthy(service, WHOLE)?;
    ensure!(now.members.iter().all(|m| m.revision > from), "old members are left: {:?}", now.members);
    thread::sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge_losses(&summary, 300)?;
    judge_gaps(&summary, 1)?;
    Ok(samples(&summary))
}

/// The update pauses after one member and says why; rollback brings the old image back; writes never stop.
pub fn broken_image(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    let writer = writer(platform, "broken")?;
    let path = platform.write_spec("broken.yaml", &postgres::spec(platform, specs::BROKEN)?)?;
    let out = platform.cli.output(&["--yes", "apply", &path.to_string_lossy()])?;
    ensure!(
        out.status.code() == Some(4),
        "apply ended with {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stdout)
    );
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls"])?;
    let paused =
        operations.iter().find(|op| op.service.as_str() == service).context("no operation of the service")?;
    ensure!(paused.state == OperationState::NeedsOperator, "the operation is {:?}", paused.state);
    ensure!(!paused.step.is_empty(), "no reason is told");
    let reason = paused.step.clone();
    let now = platform.service(service)?;
    ensure!(
        now.members.iter().filter(|m| !m.ready).count() == 1,
        "more than one member was touched: {:?}",
        now.members
    );
    ensure!(
        now.health.word != HealthWord::Down && now.health.word != HealthWord::Healthy,
        "health {:?}",
        now.health
    );
    platform.cli.run(&["--yes", "service", "rollback", service])?;
    platform.wait_healthy(service, WHOLE)?;
    let summary = writer.finish()?;
    judge_losses(&summary, 300)?;
    judge_gaps(&summary, 1)?;
    // The file that operators keep must say what runs.
    platform.apply(&postgres::spec(platform, specs::IMAGE)?)?;
    platform.wait_healthy(service, WHOLE)?;
    Ok(json!({ "reason": reason, "writes": samples(&summary) }))
}
