//! What was written while a member of S3 was away is completed on it before another one may be given up, although the
//! servers that took it were killed and remember nothing of it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_model::view::{Liveness, OperationState, OperationView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use super::s3::name;
use crate::clock::{now_ms, wait};
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
    let returned = now_ms();
    let heal = wait("the heal", WHOLE, || healed_since(platform, returned))?;
    let healed = (now_ms() - returned) / 1_000;
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
        "heal": heal.step,
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

/// The heal that began after this time, milliseconds since 1970, and is done.
fn healed_since(platform: &Platform, since: u64) -> Result<OperationView> {
    let all: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
    let heal =
        all.into_iter().find(|op| op.kind == "heal" && op.started.0 > since).context("no heal began")?;
    ensure!(heal.state == OperationState::Done, "operation {}: {}", heal.id, heal.step);
    Ok(heal)
}
