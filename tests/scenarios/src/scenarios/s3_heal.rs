//! What was written while a member of S3 was away is completed on it before another one may be given up, although the
//! servers that took it were killed and remember nothing of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{Liveness, OperationState, OperationView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use super::s3::name;
use crate::clock::wait;
use crate::platform::Platform;
use crate::writer::{Writer, connections_of, judge_losses};

const WHOLE: Duration = Duration::from_secs(240);
const DOCKER: Duration = Duration::from_secs(60);
/// Objects are written without the member for this long after its host is down.
const AWAY: Duration = Duration::from_secs(15);

/// A host loses power, the other servers are killed, the host returns; after the heal another host loses power, and every
/// acknowledged object is read from the two that are left.
pub fn heal(platform: &Platform) -> Result<Value> {
    let service = platform.wait_healthy(name(platform), WHOLE)?;
    let before = wait("no operation", WHOLE, || heals(platform))?;
    let hosts: Vec<Host> = service
        .members
        .iter()
        .map(|member| platform.testbed.host(member.host.as_str()))
        .collect::<Result<_>>()?;
    let [first, second, third] = hosts.as_slice() else { anyhow::bail!("{} members, not 3", hosts.len()) };
    let endpoints = connections_of(platform, name(platform), "write")?;
    let writer = Writer::of("s3", first.clone(), "s3-heal", &endpoints, 9_341)?;
    writer.wait_steady()?;
    second.kill()?;
    down(platform, second)?;
    sleep(AWAY);
    for (member, host) in service.members.iter().zip(&hosts).filter(|(_, host)| host.name() != second.name())
    {
        host.docker(&["kill", &container(host, member)?], DOCKER)?;
    }
    platform.testbed.start(second.name())?;
    let begin = Instant::now();
    let healed = wait("the heal", WHOLE, || {
        let done = heals(platform)?;
        ensure!(done.len() > before.len(), "{} heals, as before", done.len());
        Ok(begin.elapsed().as_secs_f64())
    })?;
    platform.wait_healthy(name(platform), WHOLE)?;
    third.kill()?;
    let read = down(platform, third).and_then(|()| {
        writer.wait_steady()?;
        writer.finish()
    });
    platform.testbed.start(third.name())?;
    platform.wait_healthy(name(platform), WHOLE)?;
    let summary = read?;
    judge_losses(&summary, 100)?;
    Ok(json!({
        "acked": summary["acked"], "acked_lost": summary["acked_lost_count"], "healed_after_return_s": healed,
        "heal": heals(platform)?.last().map(|operation| operation.step.clone()),
    }))
}

fn down(platform: &Platform, host: &Host) -> Result<()> {
    wait("the host down", Duration::from_secs(60), || {
        let status = platform.status()?;
        let seen = status.hosts.iter().find(|h| h.name.as_str() == host.name()).context("no host")?;
        ensure!(seen.liveness == Liveness::Down, "{:?}", seen.liveness);
        Ok(())
    })
}

/// The heals that are done; nothing may run.
fn heals(platform: &Platform) -> Result<Vec<OperationView>> {
    let all: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
    let running =
        all.iter().find(|op| op.service.as_str() == name(platform) && op.state == OperationState::Running);
    ensure!(running.is_none(), "operation {} runs", running.map_or(0, |op| op.id.0));
    Ok(all.into_iter().filter(|op| op.kind == "heal" && op.state == OperationState::Done).collect())
}
