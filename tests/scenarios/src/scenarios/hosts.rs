//! A host lost for good, members replaced, a service made larger and smaller, hosts emptied.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, ServiceView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::postgres;
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::specs;
use crate::writer::{Writer, connections, judge_losses};

/// They need a fourth host: MUSTER_SHOW_HOSTS=4.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "replace",
        what: "the leading member replaced by command, its etcd member too; nothing acknowledged is lost",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: replace,
    },
    Scenario {
        name: "host-lost",
        what: "the primary's host lost for good: everything on it is rebuilt on a spare host, without operator",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: host_lost,
    },
    Scenario {
        name: "scale",
        what: "one more member and back, under writes",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: scale,
    },
];

const WHOLE: Duration = Duration::from_secs(180);
const WRITER_PORT: u16 = 9_411;

fn spare_needed(platform: &Platform) -> Result<()> {
    ensure!(platform.hosts()?.len() >= 4, "this needs a fourth host: set MUSTER_SHOW_HOSTS=4");
    Ok(())
}

/// The service and everything that belongs to it.
fn family(platform: &Platform, name: &str) -> Result<Vec<ServiceView>> {
    let status = platform.status()?;
    let ours = |s: &ServiceView| s.name.as_str() == name || s.owner.as_ref().is_some_and(|o| o.as_str() == name);
    Ok(status.services.into_iter().filter(ours).collect())
}

/// Everything as the spec says, nothing on its way, nothing on `without`.
fn wait_whole(platform: &Platform, name: &str, without: Option<&str>, deadline: Duration) -> Result<()> {
    wait("the whole family healthy", deadline, || {
        for service in family(platform, name)? {
            ensure!(
                service.health.word == HealthWord::Healthy,
                "{} is {}: {}",
                service.name,
                service.health.word,
                service.health.reasons.join("; ")
            );
            let still = |m: &&MemberView| Some(m.host.as_str()) == without && m.state != "retiring";
            ensure!(!service.members.iter().any(|m| still(&m)), "{} is still on {without:?}", service.name);
        }
        let running = platform.status()?.operations;
        ensure!(running.is_empty(), "operation {} runs: {}", running[0].id, running[0].step);
        Ok(())
    })
}

/// A writer on a host that stays.
fn writer(platform: &Platform, avoid: &str) -> Result<Writer> {
    let host = platform.hosts()?.into_iter().find(|host| host.name() != avoid).context("no other host")?;
    let writer = Writer::start(host, "hosts", &connections(platform, "write")?, WRITER_PORT)?;
    writer.wait_steady()?;
    Ok(writer)
}

/// Longest time between two acknowledged writes, in milliseconds.
fn longest_gap(acknowledged: &[u64]) -> u64 {
    acknowledged.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

fn end(writer: Writer) -> Result<(u64, Value)> {
    let gap = longest_gap(&writer.acknowledged()?);
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    Ok((gap, summary["acked"].clone()))
}

/// One member and its etcd member, one after the other.
fn replace(platform: &Platform) -> Result<Value> {
    spare_needed(platform)?;
    let name = platform.settings.service.as_str();
    wait_whole(platform, name, None, WHOLE)?;
    let (leader, host) = platform.leader(name)?;
    let writer = writer(platform, host.name())?;
    let begin = Instant::now();
    platform.cli.run(&["--yes", "service", "replace", &leader.slot.to_string()])?;
    let member_s = begin.elapsed().as_secs_f64();
    let after = platform.service(name)?;
    let new = after.members.iter().find(|m| m.slot == leader.slot && m.state != "retiring").context("no member")?;
    ensure!(new.member != leader.member && new.host != leader.host, "{leader:?} became {new:?}");
    let locks = format!("{name}-etcd");
    let old = platform.service(&locks)?.members.first().context("no etcd member")?.clone();
    let begin = Instant::now();
    platform.cli.run(&["--yes", "service", "replace", &old.slot.to_string()])?;
    let etcd_s = begin.elapsed().as_secs_f64();
    wait_whole(platform, name, None, WHOLE)?;
    let (gap, acked) = end(writer)?;
    Ok(json!({ "member_s": member_s, "etcd_s": etcd_s, "max_gap_ms": gap, "acked": acked }))
}

/// The host of the primary, with a member of etcd on it if there is such a member.
fn victim(platform: &Platform, name: &str) -> Result<Host> {
    let locks = platform.service(&format!("{name}-etcd"))?;
    let with_lock: BTreeSet<&str> = locks.members.iter().map(|m| m.host.as_str()).collect();
    let (leader, host) = platform.leader(name)?;
    if with_lock.contains(host.name()) {
        return Ok(host);
    }
    let service = platform.service(name)?;
    let heir = service
        .members
        .iter()
        .find(|m| m.role.as_deref() == Some("sync_standby") && with_lock.contains(m.host.as_str()))
        .with_context(|| format!("neither {} nor its standby shares a host with etcd", leader.slot))?;
    platform.cli.run(&["--yes", "service", "switchover", name, "--to", &heir.slot.to_string()])?;
    wait_whole(platform, name, None, WHOLE)?;
    platform.testbed.host(heir.host.as_str())
}

/// How long a lost host is waited for here, in seconds; an operator's spec says more.
const REPLACE_AFTER: u64 = 20;

fn host_lost(platform: &Platform) -> Result<Value> {
    spare_needed(platform)?;
    let name = platform.settings.service.as_str();
    let usual = postgres::spec(platform, specs::IMAGE)?;
    let line = "    mode: ha\n";
    platform.apply(&usual.replace(line, &format!("{line}    replace_after: {REPLACE_AFTER}s\n")))?;
    wait_whole(platform, name, None, WHOLE)?;
    let host = victim(platform, name)?;
    let on_it = family(platform, name)?;
    let on_it = on_it.iter().flat_map(|s| &s.members).filter(|m| m.host.as_str() == host.name());
    let lost: Vec<String> = on_it.map(|m| m.slot.to_string()).collect();
    let writer = writer(platform, host.name())?;
    sleep(Duration::from_secs(5));
    let begin = Instant::now();
    host.kill()?;
    let whole = wait_whole(platform, name, Some(host.name()), Duration::from_secs(300));
    let whole_after = begin.elapsed().as_secs_f64();
    // What comes back late must do no harm: its members are nobody any more.
    platform.testbed.start(host.name())?;
    whole?;
    wait("the late host's members gone", WHOLE, || {
        let left = family(platform, name)?.iter().flat_map(|s| s.members.clone()).find(|m| m.state == "retiring");
        ensure!(left.is_none(), "{left:?}");
        Ok(())
    })?;
    sleep(Duration::from_secs(5));
    wait_whole(platform, name, None, WHOLE)?;
    let (gap, acked) = end(writer)?;
    platform.apply(&usual)?;
    Ok(json!({
        "lost": lost, "replace_after_s": REPLACE_AFTER, "whole_after_s": whole_after, "max_gap_ms": gap, "acked": acked,
    }))
}

fn scale(platform: &Platform) -> Result<Value> {
    spare_needed(platform)?;
    let name = platform.settings.service.as_str();
    wait_whole(platform, name, None, WHOLE)?;
    let before = platform.service(name)?.members.len();
    let writer = writer(platform, "")?;
    let mut spans = Vec::new();
    for count in [before + 1, before] {
        if count == before {
            // The surplus member leads: its role moves first.
            let top = format!("{name}/{}", before + 1);
            let moved = platform.cli.run(&["--yes", "service", "switchover", name, "--to", &top]);
            ensure!(moved.is_ok() || count > 0, "{moved:?}");
        }
        let begin = Instant::now();
        let said = platform.cli.run(&["--yes", "service", "scale", name, &count.to_string()])?;
        ensure!(said.contains(&format!("members: {count}")), "no advice in {said}");
        wait_whole(platform, name, None, WHOLE)?;
        wait("the number of members", WHOLE, || {
            let found = platform.service(name)?.members.len();
            ensure!(found == count, "{found} members, not {count}");
            Ok(())
        })?;
        spans.push(begin.elapsed().as_secs_f64());
    }
    let (gap, acked) = end(writer)?;
    Ok(json!({ "out_s": spans[0], "in_s": spans[1], "max_gap_ms": gap, "acked": acked }))
}
