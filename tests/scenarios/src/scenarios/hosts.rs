//! A host lost for good, members replaced, a service made larger and smaller, hosts emptied.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, Liveness, MemberView, ServiceView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::postgres;
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::specs;
use crate::writer::{Writer, connections, connections_of, judge_losses};

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
        name: "host-remove",
        what: "a dead host is taken off the platform once nothing is left on it; late, it is refused and does no harm",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: host_remove,
    },
    Scenario {
        name: "scale",
        what: "one more member and back, under writes",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: scale,
    },
    Scenario {
        name: "drain",
        what: "the primary's host emptied by command, under writes",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: drain,
    },
    Scenario {
        name: "whatif",
        what: "each host killed in turn: what was predicted is what happened",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: what_if,
    },
    Scenario {
        name: "single-to-ha",
        what: "a single database with rows in it becomes a cluster on the same data",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: single_to_ha,
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
    let ours =
        |s: &ServiceView| s.name.as_str() == name || s.owner.as_ref().is_some_and(|o| o.as_str() == name);
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
    let new =
        after.members.iter().find(|m| m.slot == leader.slot && m.state != "retiring").context("no member")?;
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

/// The service with that; gives the usual spec back.
fn impatient(platform: &Platform, name: &str) -> Result<String> {
    let usual = postgres::spec(platform, specs::IMAGE)?;
    let line = "    mode: ha\n";
    platform.apply(&usual.replace(line, &format!("{line}    replace_after: {REPLACE_AFTER}s\n")))?;
    wait_whole(platform, name, None, WHOLE)?;
    Ok(usual)
}

fn host_lost(platform: &Platform) -> Result<Value> {
    spare_needed(platform)?;
    let name = platform.settings.service.as_str();
    let usual = impatient(platform, name)?;
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
        let left =
            family(platform, name)?.iter().flat_map(|s| s.members.clone()).find(|m| m.state == "retiring");
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

/// Refused while it is up and while anything on it is wanted; booted late, its agent is refused.
fn host_remove(platform: &Platform) -> Result<Value> {
    spare_needed(platform)?;
    let name = platform.settings.service.as_str();
    let usual = impatient(platform, name)?;
    let host = victim(platform, name)?;
    let remove = ["--yes", "host", "remove", host.name()];
    let up = platform.cli.output(&remove)?;
    ensure!(up.status.code() == Some(3), "a host with members was removed: {}", up.status);
    let writer = writer(platform, host.name())?;
    host.kill()?;
    wait("the host down", WHOLE, || {
        let status = platform.status()?;
        let row = status.hosts.iter().find(|row| row.name.as_str() == host.name()).context("no host")?;
        ensure!(row.liveness == Liveness::Down, "{:?}", row.liveness);
        Ok(())
    })?;
    let down = platform.cli.output(&remove)?;
    let said = String::from_utf8_lossy(&down.stderr).into_owned();
    ensure!(down.status.code() == Some(3) && said.contains("service replace"), "{}: {said}", down.status);
    wait_whole(platform, name, Some(host.name()), Duration::from_secs(300))?;
    platform.cli.run(&remove)?;
    platform.testbed.start(host.name())?;
    sleep(Duration::from_secs(20));
    let status = platform.status()?;
    ensure!(
        status.hosts.iter().all(|row| row.name.as_str() != host.name()),
        "it is back: {:?}",
        status.hosts
    );
    wait_whole(platform, name, None, WHOLE)?;
    let audit = platform.cli.run(&["audit"])?;
    ensure!(audit.contains("revoked"), "the late agent was not refused: {audit}");
    let (gap, acked) = end(writer)?;
    platform.apply(&usual)?;
    Ok(json!({ "refused": said.lines().next(), "max_gap_ms": gap, "acked": acked }))
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
            lead_from_the_top(platform, name, before + 1)?;
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

/// Makes the member in the highest slot lead, so that it has to give its role away before it leaves.
fn lead_from_the_top(platform: &Platform, name: &str, top: usize) -> Result<()> {
    let slot = format!("{name}/{top}");
    wait("the highest slot leads", WHOLE, || {
        if platform.leader(name)?.0.slot.to_string() == slot {
            return Ok(());
        }
        // Only the synchronous standby can: until it is this one, another one is made to lead.
        let roles = platform.service(name)?.members;
        let standby =
            roles.iter().find(|m| m.role.as_deref() == Some("sync_standby")).context("no standby")?;
        platform.cli.run(&["--yes", "service", "switchover", name, "--to", &standby.slot.to_string()])?;
        wait_whole(platform, name, None, WHOLE)?;
        anyhow::bail!("{} leads", standby.slot)
    })
}

fn drain(platform: &Platform) -> Result<Value> {
    spare_needed(platform)?;
    let name = platform.settings.service.as_str();
    wait_whole(platform, name, None, WHOLE)?;
    let host = victim(platform, name)?;
    let writer = writer(platform, host.name())?;
    let begin = Instant::now();
    let out = platform.cli.output(&["--yes", "host", "drain", host.name()])?;
    let took = begin.elapsed().as_secs_f64();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let whole = wait_whole(platform, name, Some(host.name()), WHOLE);
    platform.cli.run(&["host", "uncordon", host.name()])?;
    whole.with_context(|| said.clone())?;
    // An application with a member on every other host may have to stay, and says so.
    ensure!(out.status.success() || said.contains("stays:"), "{said}");
    let stays = said.lines().filter(|line| line.contains("stays:")).count();
    let (gap, acked) = end(writer)?;
    Ok(json!({ "drained_s": took, "stays": stays, "max_gap_ms": gap, "acked": acked }))
}

/// Time in which a prediction must have come true: twice the lock's time, and a few seconds.
const TRUE_AFTER: Duration = Duration::from_secs(45);

fn what_if(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    let mut cells = Vec::new();
    for host in platform.hosts()? {
        wait_whole(platform, name, None, WHOLE)?;
        let predicted: Value = platform.cli.json(&["whatif", "host", "down", host.name()])?;
        let services = predicted["services"].as_array().context("no services")?;
        let cell =
            services.iter().find(|s| s["service"] == name).context("the service is not predicted")?.clone();
        let writer = writer(platform, host.name())?;
        host.kill()?;
        sleep(TRUE_AFTER);
        let before = writer.acknowledged()?.len();
        sleep(Duration::from_secs(3));
        let writes = writer.acknowledged()?.len() > before;
        let left = platform.service(name)?.members.iter().filter(|m| m.ready).count();
        platform.testbed.start(host.name())?;
        let seen = json!({ "host": host.name(), "writes": writes, "copies_left": left });
        ensure!(cell["writes"] == writes && cell["copies_left"] == left, "predicted {cell}, seen {seen}");
        wait_whole(platform, name, None, WHOLE)?;
        end(writer)?;
        cells.push(seen);
    }
    Ok(json!({ "cells": cells, "wrong": 0 }))
}

/// A second service: the first one is not touched.
fn single_to_ha(platform: &Platform) -> Result<Value> {
    let name = "grows";
    let usual = postgres::spec(platform, specs::IMAGE)?;
    let etcd = platform.etcd_image()?;
    let service = |mode: &str| {
        let image = specs::IMAGE;
        format!(
            "  {name}:\n    kind: postgres\n    mode: {mode}\n    image: {image}\n    etcd_image: {etcd}\n"
        )
    };
    platform.apply(&format!("{usual}{}", service("single")))?;
    wait_whole(platform, name, None, WHOLE)?;
    let first = platform.service(name)?.members.first().context("no member")?.clone();
    let host = platform.testbed.host(first.host.as_str())?;
    let urls = connections_of(platform, name, "write")?;
    let writer = Writer::start(host, "grows", &urls, WRITER_PORT + 1)?;
    writer.wait_steady()?;
    let begin = Instant::now();
    platform.apply(&format!("{usual}{}", service("ha")))?;
    wait_whole(platform, name, None, WHOLE)?;
    let took = begin.elapsed().as_secs_f64();
    let after = platform.service(name)?.members;
    let same = after.iter().find(|m| m.slot == first.slot).context("the first member is gone")?;
    ensure!(
        same.member == first.member && same.running_since == first.running_since,
        "{first:?} became {same:?}"
    );
    ensure!(after.len() == 3, "{after:?}");
    let (gap, acked) = end(writer)?;
    platform.cli.run(&["--yes", "service", "remove", name, "--destroy-data"])?;
    platform.apply(&usual)?;
    Ok(json!({ "took_s": took, "max_gap_ms": gap, "acked": acked }))
}
