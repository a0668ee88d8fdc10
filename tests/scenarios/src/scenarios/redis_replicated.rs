//! One Redis master with replicas and proxies, from one YAML file: broken, moved, changed, and what a client saw of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, OperationState, OperationView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use crate::clock::{now_ms, wait};
use crate::platform::Platform;
use crate::run::Scenario;
use crate::writer::{Writer, connections_of, judge_losses};

/// Longest time until the service is as its spec says.
const WHOLE: Duration = Duration::from_secs(120);
const DOCKER: Duration = Duration::from_secs(20);
/// Longer than anything would need to happen by itself.
const SPELL: Duration = Duration::from_secs(20);
pub const IMAGE: &str = "muster/redis:7.0";
const NEXT: &str = "muster/redis:7.0-next";

/// Every one of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "redis-replicated-create",
        what: "one master and its replica form behind two proxies",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: create,
    },
    Scenario {
        name: "redis-replicated-kill",
        what: "the master's container killed: restarted in place, leads again",
        runs: 5,
        in_ci: false,
        medians: &[],
        act: kill,
    },
    Scenario {
        name: "redis-replicated-held",
        what: "the same with its restart held back: its stop is confirmed, the replica leads",
        runs: 5,
        in_ci: false,
        medians: &[],
        act: kill_held,
    },
    Scenario {
        name: "redis-replicated-switchover",
        what: "the role moves by command, and back",
        runs: 5,
        in_ci: false,
        medians: &[("max_gap_ms", 2_000.0)],
        act: switchover,
    },
    Scenario {
        name: "redis-tls",
        what: "clients check Redis' certificate; it changes under load, and TLS becomes a must, without a gap",
        runs: 3,
        in_ci: false,
        medians: &[("max_gap_ms", 500.0)],
        act: super::tls_direct::redis,
    },
    Scenario {
        name: "redis-replicated-update",
        what: "a new image under load: the replica, the role, the old master",
        runs: 3,
        in_ci: false,
        medians: &[("max_gap_ms", 2_000.0)],
        act: rolling_update,
    },
    Scenario {
        name: "redis-replicated-dark",
        what: "the master's host is silent: nobody leads before an operator's word; the old master returns without coordinators and does no harm",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: dark,
    },
    Scenario {
        name: "redis-replicated-scale",
        what: "one more replica and one less again; the replica replaced on another host",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: scale,
    },
    super::engine_drills::REDIS_REPLICATED,
];

/// Its own name: a cluster of the same name could not become this.
pub fn name(platform: &Platform) -> String {
    format!("{}-one", platform.settings.cache_service)
}

/// One master with so many replicas.
pub fn spec(platform: &Platform, image: &str, replicas: u32) -> String {
    let settings = &platform.settings;
    format!(
        "muster: 1
platform: {}
networks:
  cachenet: {{ subnet: {} }}
services:
  {}:
    kind: redis
    mode: replicated
    image: {image}
    replicas: {replicas}
    resources: {{ memory: 128MiB }}
    update: {{ deadline: 60s, soak: 2s }}
",
        settings.platform,
        settings.cachenet,
        name(platform)
    )
}

/// A platform with the service, healthy; one with other services is taken down first.
///
/// # Errors
/// It does not come up.
pub fn prepare(platform: &Platform) -> Result<()> {
    let name = name(platform);
    if platform
        .status()
        .is_ok_and(|status| status.services.iter().any(|s| !s.name.as_str().starts_with(&name)))
    {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    platform.apply(&spec(platform, IMAGE, 1))?;
    members(platform).map(drop)
}

fn members(platform: &Platform) -> Result<Vec<MemberView>> {
    Ok(platform.wait_healthy(&name(platform), WHOLE)?.members)
}

fn is_master(member: &MemberView) -> bool {
    member.role.as_deref() == Some("master")
}

/// The master and its host.
fn master(platform: &Platform) -> Result<(MemberView, Host)> {
    let masters: Vec<MemberView> = members(platform)?.into_iter().filter(is_master).collect();
    ensure!(masters.len() == 1, "{} masters", masters.len());
    let host = platform.testbed.host(masters[0].host.as_str())?;
    Ok((masters[0].clone(), host))
}

/// A writer on a host without the master.
fn writer(platform: &Platform, run: &str) -> Result<Writer> {
    let (_, busy) = master(platform)?;
    let host =
        platform.hosts()?.into_iter().find(|host| host.name() != busy.name()).context("no other host")?;
    let endpoints = connections_of(platform, &name(platform), "write")?;
    let writer = Writer::of("redis", host, &format!("one-{run}"), &endpoints, 9_342)?;
    writer.wait_steady()?;
    sleep(Duration::from_secs(3));
    Ok(writer)
}

fn samples(summary: &Value) -> Value {
    json!({ "acked": summary["acked"], "acked_lost": summary["acked_lost_count"], "gaps": summary["gaps"],
            "max_gap_ms": summary["max_gap_ms"] })
}

fn finish(platform: &Platform, writer: Writer, acked_min: u64) -> Result<Value> {
    members(platform)?;
    sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge_losses(&summary, acked_min)?;
    Ok(samples(&summary))
}

fn create(platform: &Platform) -> Result<Value> {
    if platform.status().is_ok_and(|status| !status.services.is_empty()) {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    let begin = Instant::now();
    platform.apply(&spec(platform, IMAGE, 1))?;
    members(platform)?;
    let healthy = begin.elapsed().as_secs_f64();
    let writer = writer(platform, "create")?;
    let mut samples = finish(platform, writer, 100)?;
    samples["healthy_after_s"] = json!(healthy);
    Ok(samples)
}

fn kill(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "kill")?;
    let (before, host) = master(platform)?;
    host.docker(&["kill", &container(&host, &before)?], DOCKER)?;
    sleep(Duration::from_secs(6));
    let mut samples = finish(platform, writer, 200)?;
    samples["moved"] = json!(before.slot != master(platform)?.0.slot);
    Ok(samples)
}

fn kill_held(platform: &Platform) -> Result<Value> {
    let (before, _) = master(platform)?;
    let yaml = format!(
        "drill: 1\nname: one-held\nservice: {}\ntarget: leader\nfault: kill-container\nhold: 20s\nwrites_per_second: 40\n\
         warmup: 5s\nobserve: 60s\nthresholds: {{ rto: 60s, lost: 1000 }}\n",
        name(platform)
    );
    let path = platform.write_spec("one-held.yaml", &yaml)?.to_string_lossy().into_owned();
    let report: Value = platform.cli.json(&["--yes", "drill", "run", &path])?;
    let (after, _) = master(platform)?;
    ensure!(before.slot != after.slot, "{} still leads", before.slot);
    let lost = report["lost"].as_u64().context("no losses in the report")?;
    Ok(json!({ "rto_ms": report["rto_ms"], "acked": report["writer"]["acked"], "acked_lost": lost,
               "gaps": report["writer"]["gaps"] }))
}

fn switchover(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "switchover")?;
    let (before, _) = master(platform)?;
    let service = name(platform);
    platform.cli.run(&["--yes", "service", "switchover", &service])?;
    wait("another master", WHOLE, || {
        let (now, _) = master(platform)?;
        ensure!(now.slot != before.slot, "{} leads", now.slot);
        Ok(())
    })?;
    let to = before.slot.index.to_string();
    wait("the way back", WHOLE, || {
        platform.cli.run(&["--yes", "service", "switchover", &service, "--to", &to])
    })?;
    let samples = finish(platform, writer, 200)?;
    ensure!(master(platform)?.0.slot == before.slot, "it did not go back");
    Ok(samples)
}

fn rolling_update(platform: &Platform) -> Result<Value> {
    let from = platform.service(&name(platform))?.revision;
    let writer = writer(platform, "update")?;
    let begin = Instant::now();
    platform.apply(&spec(platform, NEXT, 1))?;
    let took = begin.elapsed().as_secs_f64();
    let now = members(platform)?;
    ensure!(now.iter().all(|member| member.revision > from), "old members are left: {now:?}");
    let mut samples = finish(platform, writer, 300)?;
    samples["update_s"] = json!(took);
    platform.apply(&spec(platform, IMAGE, 1))?;
    members(platform)?;
    Ok(samples)
}

/// What the member's own server says of its role, asked inside its container.
fn role(host: &Host, member: &MemberView) -> Result<String> {
    let script =
        "REDISCLI_AUTH=$(cat /muster/secrets/admin) redis-cli --user muster-admin --no-auth-warning role";
    let said = host.docker(&["exec", &container(host, member)?, "sh", "-c", script], DOCKER)?;
    Ok(said.lines().next().unwrap_or_default().trim().to_owned())
}

fn dark(platform: &Platform) -> Result<Value> {
    let service = name(platform);
    let writer = writer(platform, "dark")?;
    let (old, host) = master(platform)?;
    host.kill()?;
    let shown = silent_spell(platform, &service, &old);
    let back = returned(platform, &host, &old);
    let (operation, led_after) = shown?;
    let said = back?;
    members(platform)?;
    let (now, _) = master(platform)?;
    ensure!(now.slot != old.slot, "the old master leads again");
    sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    let mut samples = samples(&summary);
    samples["reason"] = json!(operation);
    samples["writes_after_word_ms"] = json!(led_after);
    samples["old_master_says"] = json!(said);
    Ok(samples)
}

/// Nobody leads while the host is silent; then the operator's word. The reason shown, and the time from word to writes.
fn silent_spell(platform: &Platform, service: &str, old: &MemberView) -> Result<(String, u64)> {
    let paused = wait("an operation that asks", Duration::from_secs(60), || {
        let operations: Vec<OperationView> = platform.cli.json(&["op", "ls"])?;
        let asks =
            |op: &OperationView| op.state == OperationState::NeedsOperator && op.service.as_str() == service;
        operations.into_iter().find(asks).context("none waits for an operator")
    })?;
    sleep(SPELL);
    let now = platform.service(service)?;
    ensure!(
        !now.members.iter().any(|m| m.slot != old.slot && is_master(m)),
        "somebody leads: {:?}",
        now.members
    );
    ensure!(now.health.word == HealthWord::Down, "health {:?}", now.health);
    let begin = now_ms();
    platform.cli.run(&["--yes", "op", "continue", &paused.id.to_string()])?;
    wait("another master", WHOLE, || {
        let now = platform.service(service)?;
        ensure!(
            now.members.iter().any(|m| is_master(m) && m.ready && m.slot != old.slot),
            "{:?}",
            now.members
        );
        Ok(())
    })?;
    Ok((paused.step, now_ms() - begin))
}

/// The host comes back while no coordinator can be reached: what the old master's server says of itself.
fn returned(platform: &Platform, host: &Host, old: &MemberView) -> Result<String> {
    for other in platform.hosts()?.iter().filter(|other| other.name() != host.name()) {
        other.unit_stop("muster-coordinator")?;
    }
    platform.testbed.start(host.name())?;
    host.unit_stop("muster-coordinator")?;
    let said = wait("the old master's server", Duration::from_secs(60), || role(host, old));
    sleep(Duration::from_secs(10));
    let later = role(host, old);
    for host in platform.hosts()? {
        host.unit_start("muster-coordinator")?;
    }
    let (said, later) = (said?, later?);
    ensure!(said == "slave" && later == "slave", "it says that it is {said}, then {later}");
    Ok(later)
}

fn scale(platform: &Platform) -> Result<Value> {
    let service = name(platform);
    let writer = writer(platform, "scale")?;
    let begin = Instant::now();
    platform.apply(&spec(platform, IMAGE, 2))?;
    ensure!(members(platform)?.len() == 3, "no third member");
    let out = begin.elapsed().as_secs_f64();
    platform.apply(&spec(platform, IMAGE, 1))?;
    wait("two members", WHOLE, || {
        let count = members(platform)?.len();
        ensure!(count == 2, "{count} members");
        Ok(())
    })?;
    let (_, host) = master(platform)?;
    let replica = members(platform)?.into_iter().find(|m| !is_master(m)).context("no replica")?;
    let begin = Instant::now();
    platform.cli.run(&["--yes", "service", "replace", &format!("{service}/{}", replica.slot.index)])?;
    let now = members(platform)?;
    let new = now.iter().find(|m| m.slot == replica.slot).context("the slot is empty")?;
    ensure!(new.host != replica.host && new.host.as_str() != host.name(), "it is on {}", new.host);
    let replaced = begin.elapsed().as_secs_f64();
    let mut samples = finish(platform, writer, 300)?;
    samples["out_s"] = json!(out);
    samples["replaced_s"] = json!(replaced);
    Ok(samples)
}
