//! New passwords under load, for each engine: who is cut off, which login is good afterwards.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{MemberView, OperationState, OperationView, SecretView};
use muster_testbed::Host;
use serde_json::{Value, json};

use crate::platform::Platform;
use crate::writer::{Writer, connections_of, judge_losses};

const WHOLE: Duration = Duration::from_secs(180);
/// How long a login that must be refused is watched.
const WATCH: Duration = Duration::from_secs(4);
/// Longest gap of a client that was connected before: nobody cuts it off, but members read files and run programs meanwhile.
const GAP_MAX_MS: u64 = 3_000;

/// PostgreSQL: every password of the service; the client that is connected goes on, the leader of the coordinators dies in it.
pub fn postgres(platform: &Platform) -> Result<Value> {
    let killed = platform.leading_coordinator()?;
    let shown = open_sessions(platform, "postgres", platform.settings.service.as_str(), Some(&killed))?;
    killed.unit_start("muster-coordinator")?;
    Ok(shown)
}

/// MariaDB.
pub fn mariadb(platform: &Platform) -> Result<Value> {
    open_sessions(platform, "mariadb", platform.settings.mariadb.as_str(), None)
}

/// Redis.
pub fn redis(platform: &Platform) -> Result<Value> {
    open_sessions(platform, "redis", platform.settings.cache_service.as_str(), None)
}

/// S3: each request is signed, so a client goes on with the new key or not at all; then the login of the deployment, by
/// one announced interruption.
pub fn s3(platform: &Platform) -> Result<Value> {
    let service = platform.settings.s3.as_str();
    let before = ready(platform, service)?;
    let old = connections_of(platform, service, "write")?;
    let begin = Instant::now();
    rotated(platform, service)?;
    let took = begin.elapsed().as_millis();
    let new = connections_of(platform, service, "write")?;
    ensure!(new != old, "conn still shows the old key");
    let host = platform.hosts()?.pop().context("no host")?;
    refused(Writer::of("s3", host.clone(), "rotate-old", &old, 9_351)?)?;
    let writer = Writer::of("s3", host, "rotate-new", &new, 9_352)?;
    writer.wait_steady()?;
    untouched(&before, &ready(platform, service)?)?;
    sleep(Duration::from_secs(2));
    let root = format!("{service}/root");
    let listed: Vec<SecretView> = platform.cli.json(&["secret", "ls", service])?;
    let said = listed.iter().find(|one| one.name == root).context("the login is not listed")?;
    ensure!(said.stops, "an interruption that is not said: {}", said.rotation);
    let begin = Instant::now();
    platform.cli.run(&["--yes", "secret", "rotate", &root])?;
    let root_took = begin.elapsed().as_millis();
    ready(platform, service)?;
    sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    Ok(json!({ "took_ms": took, "root_took_ms": root_took, "root_gap_ms": summary["max_gap_ms"],
               "acked": summary["acked"], "acked_lost": summary["acked_lost_count"], "said": said.rotation }))
}

fn ready(platform: &Platform, service: &str) -> Result<Vec<MemberView>> {
    Ok(platform.wait_healthy(service, WHOLE)?.members)
}

/// A client with an open session, over the change of every password that interrupts nothing.
fn open_sessions(platform: &Platform, engine: &str, service: &str, dies: Option<&Host>) -> Result<Value> {
    let before = ready(platform, service)?;
    let old = connections_of(platform, service, "write")?;
    let host = platform.hosts()?.pop().context("no host")?;
    let writer = Writer::of(engine, host.clone(), "rotate", &old, 9_351)?;
    writer.wait_steady()?;
    sleep(Duration::from_secs(2));
    let begin = Instant::now();
    match dies {
        None => rotated(platform, service)?,
        Some(coordinator) => {
            platform.cli.run(&["--yes", "secret", "rotate", service, "--detach"])?;
            coordinator.unit_kill("muster-coordinator")?;
            ended(platform, service)?;
        }
    }
    let took = begin.elapsed().as_millis();
    let new = connections_of(platform, service, "write")?;
    ensure!(new != old, "conn still shows the old password");
    sleep(Duration::from_secs(3));
    untouched(&before, &ready(platform, service)?)?;
    let other = Writer::of(engine, host.clone(), "rotate-new", &new, 9_352)?;
    other.wait_steady()?;
    judge_losses(&other.finish()?, 20)?;
    refused(Writer::of(engine, host, "rotate-old", &old, 9_353)?)?;
    let summary = writer.with_endpoints(&new)?.finish()?;
    judge_losses(&summary, 100)?;
    let longest = summary["max_gap_ms"].as_u64().context("no max_gap_ms")?;
    ensure!(longest <= GAP_MAX_MS, "the connected client saw a gap of {longest} ms: {summary}");
    Ok(json!({ "took_ms": took, "acked": summary["acked"], "acked_lost": summary["acked_lost_count"],
               "max_gap_ms": longest, "connections": summary["connections"] }))
}

/// Changes all that interrupts nothing; versions must grow.
fn rotated(platform: &Platform, service: &str) -> Result<()> {
    let list = || -> Result<Vec<SecretView>> { platform.cli.json(&["secret", "ls", service]) };
    let before = list()?;
    platform.cli.run(&["--yes", "secret", "rotate", service])?;
    for (old, new) in before.iter().zip(list()?) {
        let grown = new.version == old.version + u64::from(!old.stops && !old.refused);
        ensure!(old.name == new.name && grown, "{} went from {} to {}", old.name, old.version, new.version);
    }
    Ok(())
}

/// Waits for the end of the newest change of passwords, whoever leads.
fn ended(platform: &Platform, service: &str) -> Result<()> {
    crate::clock::wait("the end of the change", Duration::from_secs(60), || {
        let all: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
        let newest =
            all.iter().rev().find(|op| op.kind == "rotate-secrets" && op.service.as_str() == service);
        let newest = newest.context("no change of passwords")?;
        ensure!(newest.state == OperationState::Done, "{:?}: {}", newest.state, newest.step);
        Ok(())
    })
}

/// A client with the old password gets nowhere.
pub fn refused(writer: Writer) -> Result<()> {
    sleep(WATCH);
    let acknowledged = writer.acknowledged()?.len();
    writer.stop()?;
    ensure!(acknowledged == 0, "the old password is still good: {acknowledged} writes");
    Ok(())
}

/// No member was started again.
pub fn untouched(before: &[MemberView], after: &[MemberView]) -> Result<()> {
    let since =
        |all: &[MemberView]| all.iter().map(|m| (m.slot.clone(), m.running_since)).collect::<Vec<_>>();
    ensure!(since(before) == since(after), "members were started again: {after:?}");
    Ok(())
}
