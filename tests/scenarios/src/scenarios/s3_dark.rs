//! A lost host of S3 with and without the reset of connections to it, in one run: what a client waited for.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_model::view::Liveness;
use muster_testbed::Host;
use serde_json::{Value, json};

use super::s3::{name, prepare};
use crate::clock::{now_ms, wait};
use crate::platform::Platform;
use crate::run::Scenario;
use crate::writer::{Writer, connections_of, judge_losses};

pub const COMPARED: Scenario = Scenario {
    name: "s3-dark-compared",
    what: "a member's host loses power: writes again within a second of *down*; the same with the others' agents stopped, so that nobody resets",
    runs: 3,
    in_ci: false,
    medians: &[("writes_after_down_ms", 1_000.0)],
    act: compared,
};

const WHOLE: Duration = Duration::from_secs(240);
/// Servers give up a host by themselves well before.
const ALONE: Duration = Duration::from_secs(75);

/// Times of one loss: its beginning, and the first acknowledged write after the longest pause since.
struct Pause {
    from: u64,
    to: u64,
}

fn longest(writer: &Writer, since: u64) -> Result<Pause> {
    let all = writer.acknowledged()?;
    let pairs = all.windows(2).filter(|pair| pair[1] > since);
    let pair = pairs.max_by_key(|pair| pair[1] - pair[0]).context("nothing was written")?;
    Ok(Pause { from: pair[0], to: pair[1] })
}

fn compared(platform: &Platform) -> Result<Value> {
    prepare(platform)?;
    let service = platform.wait_healthy(name(platform), WHOLE)?;
    let leader = platform.leading_coordinator()?;
    // A coordinators' election in between would be measured too.
    let host_of = |member: &muster_model::view::MemberView| platform.testbed.host(member.host.as_str());
    let hosts: Vec<Host> = service.members.iter().map(host_of).collect::<Result<_>>()?;
    let victim = hosts.iter().find(|host| host.name() != leader.name()).context("no such host")?;
    let quiet = hosts.iter().find(|host| host.name() != victim.name()).context("no other host")?.clone();
    let endpoints = connections_of(platform, name(platform), "write")?;
    let writer = Writer::of("s3", quiet, "s3-dark", &endpoints, 9_341)?;
    writer.wait_steady()?;
    sleep(Duration::from_secs(5));

    let (at, down) = lose(platform, victim)?;
    let down_after = down - at;
    sleep(Duration::from_secs(20));
    let with = longest(&writer, at)?;
    platform.testbed.start(victim.name())?;
    platform.wait_healthy(name(platform), WHOLE)?;
    sleep(Duration::from_secs(5));

    let others: Vec<Host> =
        platform.hosts()?.into_iter().filter(|host| host.name() != victim.name()).collect();
    for host in &others {
        host.unit_stop("muster-agent")?;
    }
    let at = now_ms();
    victim.kill()?;
    sleep(ALONE);
    let without = longest(&writer, at);
    for host in &others {
        host.unit_start("muster-agent")?;
    }
    platform.testbed.start(victim.name())?;
    let without = without?;
    platform.wait_healthy(name(platform), WHOLE)?;
    sleep(Duration::from_secs(5));
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    let pause = |pause: &Pause| pause.to - pause.from;
    ensure!(pause(&with) < pause(&without), "{} ms with, {} ms without", pause(&with), pause(&without));
    Ok(json!({
        "acked": summary["acked"], "acked_lost": summary["acked_lost_count"], "denied_at_first": summary["denied_at_first"],
        "down_after_ms": down_after, "writes_after_down_ms": with.to.saturating_sub(down),
        "max_gap_ms": pause(&with), "gap_without_reset_ms": pause(&without),
    }))
}

/// Cuts the host's power: when, and when the coordinators called it down.
fn lose(platform: &Platform, host: &Host) -> Result<(u64, u64)> {
    let at = now_ms();
    host.kill()?;
    let down = wait("the host down", Duration::from_secs(60), || {
        let status = platform.status()?;
        let seen = status.hosts.iter().find(|h| h.name.as_str() == host.name()).context("no host")?;
        ensure!(seen.liveness == Liveness::Down, "{:?}", seen.liveness);
        Ok(now_ms())
    })?;
    Ok((at, down))
}
