//! A Redis Cluster from one YAML file: made, broken in several ways, changed, and what a client saw of it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, OperationState, OperationView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::members;
use super::network::container;
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::writer::{Writer, connections_of, judge_losses};

/// Longest time until the service is as its spec says.
const WHOLE: Duration = Duration::from_secs(180);
const DOCKER: Duration = Duration::from_secs(20);
const IMAGE: &str = "muster/redis:7.0";
const NEXT: &str = "muster/redis:7.0-next";
const BROKEN: &str = "muster/redis:7.0-broken";

/// Every one of them, in the order of the test run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "redis-create",
        what: "a Redis Cluster forms: masters on hosts of their own, no shard on one host",
        runs: 3,
        in_ci: true,
        medians: &[],
        act: create,
    },
    Scenario {
        name: "redis-kill-master",
        what: "a master's container killed: restarted in place",
        runs: 5,
        in_ci: true,
        medians: &[("rto_ms", 8_500.0)],
        act: kill_master,
    },
    Scenario {
        name: "redis-kill-master-held",
        what: "the same with its restart held back: a replica is elected; masters spread again",
        runs: 5,
        in_ci: false,
        medians: &[("rto_ms", 8_500.0)],
        act: kill_master_held,
    },
    Scenario {
        name: "redis-kill-host",
        what: "a master's host loses power and returns; masters spread again by themselves",
        runs: 5,
        in_ci: false,
        medians: &[("rto_ms", 8_500.0)],
        act: kill_host,
    },
    Scenario {
        name: "redis-secret-rotate",
        what: "all passwords change under load: both are good until every member takes the new one",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: super::rotate::redis,
    },
    Scenario {
        name: "redis-switchover",
        what: "a shard's master moves by command, stays there, and goes back by command",
        runs: 5,
        in_ci: false,
        medians: &[("max_gap_ms", 500.0)],
        act: switchover,
    },
    Scenario {
        name: "redis-rolling-update",
        what: "a new image under load: replicas first, each master after it gave its role away",
        runs: 3,
        in_ci: true,
        medians: &[("max_gap_ms", 500.0)],
        act: rolling_update,
    },
    Scenario {
        name: "redis-broken-image",
        what: "an image that never becomes healthy pauses the update; rollback works",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: broken_image,
    },
    Scenario {
        name: "redis-emptied-master",
        what: "a master that lost its data waits for an election: its replica keeps every key",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: emptied_master,
    },
    Scenario {
        name: "redis-replicas",
        what: "one more replica for each shard under load, and one less again",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: replicas,
    },
    super::redis_torn::TORN,
    members::REDIS_REPLACE,
    members::REDIS_KILL_ALL,
    super::engine_drills::REDIS,
    Scenario {
        name: "redis-reshard",
        what: "a fourth shard under load, the leading coordinator killed in the middle, and three shards again (4 hosts)",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: reshard,
    },
];

fn spec(platform: &Platform, image: &str, replicas: u32) -> String {
    sharded(platform, image, 3, replicas)
}

fn sharded(platform: &Platform, image: &str, shards: u32, replicas: u32) -> String {
    let settings = &platform.settings;
    format!(
        "muster: 1
platform: {}
networks:
  cachenet: {{ subnet: {} }}
services:
  {}:
    kind: redis
    mode: cluster
    image: {image}
    shards: {shards}
    replicas: {replicas}
    resources: {{ memory: 128MiB }}
    update: {{ deadline: 60s, soak: 2s }}
",
        settings.platform, settings.cachenet, settings.cache_service
    )
}

fn name(platform: &Platform) -> &str {
    platform.settings.cache_service.as_str()
}

/// A platform with the service, healthy; one with other services is taken down first.
///
/// # Errors
/// It does not come up.
pub fn prepare(platform: &Platform) -> Result<()> {
    let others = platform
        .status()
        .is_ok_and(|status| status.services.iter().any(|s| s.name.as_str() != name(platform)));
    if others {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    platform.apply(&spec(platform, IMAGE, 1))?;
    platform.wait_healthy(name(platform), WHOLE).map(drop)
}

pub fn members(platform: &Platform) -> Result<Vec<MemberView>> {
    Ok(platform.wait_healthy(name(platform), WHOLE)?.members)
}

fn is_master(member: &MemberView) -> bool {
    member.role.as_deref() == Some("master")
}

/// Shard of a slot, as its number says.
fn shard(member: &MemberView) -> u32 {
    member.slot.index / 10
}

/// No host has two masters, and no shard two members on one host.
pub fn judge_placement(members: &[MemberView]) -> Result<()> {
    let mut masters = BTreeSet::new();
    let mut shards = BTreeSet::new();
    for member in members {
        ensure!(!is_master(member) || masters.insert(&member.host), "{} has two masters", member.host);
        ensure!(
            shards.insert((shard(member), &member.host)),
            "{} has shard {} twice",
            member.host,
            shard(member)
        );
    }
    ensure!(masters.len() == 3, "{} masters", masters.len());
    Ok(())
}

/// The master of a shard.
pub fn master_of(members: &[MemberView], of: u32) -> Result<&MemberView> {
    let found = members.iter().find(|member| is_master(member) && shard(member) == of);
    found.with_context(|| format!("shard {of} has no master"))
}

/// The master of the first shard and its host.
pub fn master(platform: &Platform) -> Result<(MemberView, Host)> {
    let member = master_of(&members(platform)?, 1)?.clone();
    let host = platform.testbed.host(member.host.as_str())?;
    Ok((member, host))
}

/// A writer on a host that does not have the master of the first shard.
pub fn writer(platform: &Platform, run: &str) -> Result<Writer> {
    let (_, busy) = master(platform)?;
    let host =
        platform.hosts()?.into_iter().find(|host| host.name() != busy.name()).context("no other host")?;
    let writer = Writer::of("redis", host, run, &connections_of(platform, name(platform), "write")?, 9_341)?;
    writer.wait_steady()?;
    Ok(writer)
}

fn samples(summary: &Value) -> Value {
    json!({ "acked": summary["acked"], "acked_lost": summary["acked_lost_count"], "gaps": summary["gaps"],
            "max_gap_ms": summary["max_gap_ms"], "rto_ms": summary["max_gap_ms"] })
}

pub fn finish(platform: &Platform, writer: Writer, acked_min: u64, gap_max_ms: u64) -> Result<Value> {
    members(platform)?;
    sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge_losses(&summary, acked_min)?;
    let longest = summary["max_gap_ms"].as_u64().context("no max_gap_ms")?;
    ensure!(longest <= gap_max_ms, "a gap of {longest} ms, at most {gap_max_ms} ms: {summary}");
    Ok(samples(&summary))
}

/// One `apply` on an empty platform, then healthy.
fn create(platform: &Platform) -> Result<Value> {
    if platform.status().is_ok_and(|status| !status.services.is_empty()) {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    let begin = Instant::now();
    platform.apply(&spec(platform, IMAGE, 1))?;
    let members = members(platform)?;
    let healthy = begin.elapsed().as_secs_f64();
    judge_placement(&members)?;
    let writer = writer(platform, "create")?;
    sleep(Duration::from_secs(5));
    let mut samples = finish(platform, writer, 100, 1_000)?;
    samples["healthy_after_s"] = json!(healthy);
    Ok(samples)
}

fn kill_master(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "kill")?;
    let (before, host) = master(platform)?;
    host.docker(&["kill", &container(&host, &before)?], DOCKER)?;
    sleep(Duration::from_secs(12));
    let mut samples = finish(platform, writer, 200, 20_000)?;
    let (after, _) = master(platform)?;
    samples["moved"] = json!(before.slot != after.slot);
    judge_placement(&members(platform)?)?;
    Ok(samples)
}

/// The report of a drill.
fn drill(platform: &Platform, run: &str, body: &str, more: &[&str]) -> Result<Value> {
    members(platform)?;
    let yaml = format!("drill: 1\nname: {run}\nservice: {}\ntarget: leader\n{body}", name(platform));
    let path = platform.write_spec(&format!("{run}.yaml"), &yaml)?.to_string_lossy().into_owned();
    let mut words = vec!["--yes", "drill", "run", &path];
    words.extend(more);
    platform.cli.json(&words)
}

/// The samples of a drill, once the members are where they should be.
fn samples_of(platform: &Platform, report: &Value) -> Result<Value> {
    let begin = Instant::now();
    let members = members(platform)?;
    judge_placement(&members)?;
    let lost = report["lost"].as_u64().context("no losses in the report")?;
    ensure!(report["rto_ms"].is_u64(), "no rto_ms: {report}");
    Ok(json!({ "rto_ms": report["rto_ms"], "acked": report["writer"]["acked"], "acked_lost": lost,
               "gaps": report["writer"]["gaps"], "spread_again_s": begin.elapsed().as_secs_f64() }))
}

fn kill_master_held(platform: &Platform) -> Result<Value> {
    samples_of(platform, &kill_held(platform)?)
}

/// The report of a drill that kills the first shard's master and holds its restart back.
pub fn kill_held(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-container\nhold: 20s\nwrites_per_second: 40\nwarmup: 5s\nobserve: 120s\nthresholds: { rto: 60s, lost: 1000 }\n";
    drill(platform, "redis-held", body, &[])
}

fn kill_host(platform: &Platform) -> Result<Value> {
    let body = "fault: kill-host\nwrites_per_second: 40\nwarmup: 5s\nobserve: 120s\nthresholds: { rto: 60s, lost: 1000 }\n";
    let testbed = platform.testbed.config().bin_dir.join("testbed");
    let cut = format!("{} kill {{host}}", testbed.display());
    let power = format!("{} start {{host}}", testbed.display());
    let report = drill(platform, "redis-host", body, &["--fault-command", &cut, "--undo-command", &power])?;
    samples_of(platform, &report)
}

fn switchover(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "switchover")?;
    let (before, _) = master(platform)?;
    let all = members(platform)?;
    let heir = all.iter().find(|m| shard(m) == 1 && !is_master(m)).context("no replica")?.slot.index;
    let refused = platform.cli.output(&["--yes", "service", "switchover", name(platform)])?;
    ensure!(!refused.status.success(), "a switchover without a shard was accepted");
    let go = |slot: u32| {
        platform.cli.run(&["--yes", "service", "switchover", name(platform), "--to", &slot.to_string()])
    };
    go(heir)?;
    // An operator's choice is not undone, although one host has two masters now.
    sleep(Duration::from_secs(20));
    let now = platform.service(name(platform))?;
    let leads = |slot: u32| now.members.iter().any(|m| m.slot.index == slot && is_master(m));
    ensure!(leads(heir), "the choice was undone: {:?}", now.members);
    let at = |slot: u32| now.members.iter().find(|m| m.slot.index == slot).map(|m| &m.host);
    let shared =
        now.members.iter().any(|m| m.slot.index != heir && is_master(m) && at(heir) == Some(&m.host));
    let told = now.health.word != HealthWord::Healthy;
    ensure!(told == shared, "two masters on one host: {shared}, and health is {}", now.health.word);
    go(before.slot.index)?;
    let samples = finish(platform, writer, 200, 3_000)?;
    judge_placement(&members(platform)?)?;
    Ok(samples)
}

fn rolling_update(platform: &Platform) -> Result<Value> {
    let from = platform.service(name(platform))?.revision;
    let writer = writer(platform, "update")?;
    let begin = Instant::now();
    platform.apply(&spec(platform, NEXT, 1))?;
    let took = begin.elapsed().as_secs_f64();
    let now = members(platform)?;
    ensure!(now.iter().all(|member| member.revision > from), "old members are left: {now:?}");
    judge_placement(&now)?;
    let mut samples = finish(platform, writer, 300, 3_000)?;
    samples["update_s"] = json!(took);
    platform.apply(&spec(platform, IMAGE, 1))?;
    members(platform)?;
    Ok(samples)
}

fn broken_image(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "broken")?;
    let path = platform.write_spec("broken.yaml", &spec(platform, BROKEN, 1))?;
    let out = platform.cli.output(&["--yes", "apply", &path.to_string_lossy()])?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.code() == Some(4), "apply ended with {}: {said}", out.status);
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls"])?;
    let paused = operations.iter().find(|op| op.state == OperationState::NeedsOperator);
    let reason = paused.context("no operation waits for an operator")?.step.clone();
    let now = platform.service(name(platform))?;
    let broken = now.members.iter().filter(|member| !member.ready).count();
    ensure!(broken == 1, "{broken} members were touched: {:?}", now.members);
    platform.cli.run(&["--yes", "service", "rollback", name(platform)])?;
    let samples = finish(platform, writer, 300, 3_000)?;
    platform.apply(&spec(platform, IMAGE, 1))?;
    members(platform)?;
    Ok(json!({ "reason": reason, "writes": samples }))
}

/// Keys of a member, asked inside its container.
fn keys(host: &Host, member: &MemberView) -> Result<u64> {
    let id = container(host, member)?;
    let script =
        "REDISCLI_AUTH=$(cat /muster/secrets/admin) redis-cli --user muster-admin --no-auth-warning dbsize";
    let said = host.docker(&["exec", &id, "sh", "-c", script], DOCKER)?;
    said.trim().trim_start_matches("(integer) ").parse().with_context(|| format!("dbsize said {said}"))
}

/// The data of a master is removed and the server killed in the same moment: as after a disk that came back empty.
fn emptied_master(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "emptied")?;
    sleep(Duration::from_secs(5));
    let (before, host) = master(platform)?;
    let all = members(platform)?;
    let replica = all.iter().find(|m| shard(m) == 1 && !is_master(m)).context("no replica")?;
    let replica_host = platform.testbed.host(replica.host.as_str())?;
    let had = keys(&replica_host, replica)?;
    let id = container(&host, &before)?;
    let data = format!("/var/lib/muster/agent/members/{}/data/data", before.member);
    exec(
        &host,
        &[
            "sh",
            "-ec",
            &format!(
                "ls {data}/appendonlydir >/dev/null; docker kill {id}; rm -rf {data}/appendonlydir {data}/dump.rdb"
            ),
        ],
    )?;
    sleep(Duration::from_secs(15));
    let mut samples = finish(platform, writer, 200, 20_000)?;
    let kept = keys(&replica_host, replica)?;
    ensure!(had > 100 && kept >= had, "the replica has {kept} keys, it had {had}");
    judge_placement(&members(platform)?)?;
    samples["keys_before"] = json!(had);
    samples["keys_after"] = json!(kept);
    Ok(samples)
}

/// Keys of all masters together.
pub fn keys_of_all(platform: &Platform, members: &[MemberView]) -> Result<u64> {
    let masters = members.iter().filter(|member| is_master(member));
    masters.map(|member| keys(&platform.testbed.host(member.host.as_str())?, member)).sum()
}

/// Kills all servers in the same moment.
pub fn kill_at_once(platform: &Platform, members: &[MemberView]) -> Result<()> {
    let mut kills = Vec::new();
    for member in members {
        let host = platform.testbed.host(member.host.as_str())?;
        let id = container(&host, member)?;
        kills.push(host.docker_command(&["kill", &id]).spawn()?);
    }
    for mut kill in kills {
        ensure!(kill.wait()?.success(), "a member was not killed");
    }
    Ok(())
}

/// Every member knows all the others and nobody who left.
pub fn judge_known(platform: &Platform, members: &[MemberView]) -> Result<()> {
    let known: BTreeMap<String, usize> = members
        .iter()
        .map(|member| {
            let host = platform.testbed.host(member.host.as_str())?;
            let id = container(&host, member)?;
            let script = "REDISCLI_AUTH=$(cat /muster/secrets/admin) redis-cli --user muster-admin --no-auth-warning cluster nodes | wc -l";
            let said = host.docker(&["exec", &id, "sh", "-c", script], DOCKER)?;
            Ok((member.slot.to_string(), said.trim().parse()?))
        })
        .collect::<Result<_>>()?;
    ensure!(known.values().all(|count| *count == members.len()), "nodes known by each: {known:?}");
    Ok(())
}

fn replicas(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "replicas")?;
    let begin = Instant::now();
    platform.apply(&spec(platform, IMAGE, 2))?;
    let more = members(platform)?;
    let out = begin.elapsed().as_secs_f64();
    ensure!(more.len() == 9, "{} members", more.len());
    judge_placement(&more)?;
    platform.apply(&spec(platform, IMAGE, 1))?;
    let fewer = wait("six members", WHOLE, || {
        let now = members(platform)?;
        ensure!(now.len() == 6, "{} members", now.len());
        Ok(now)
    })?;
    judge_placement(&fewer)?;
    judge_known(platform, &fewer)?;
    let mut samples = finish(platform, writer, 300, 3_000)?;
    samples["out_s"] = json!(out);
    Ok(samples)
}

/// Waits until so many masters have hash slots and all is well.
fn spread_over(platform: &Platform, masters: usize) -> Result<()> {
    wait(&format!("{masters} shards"), WHOLE, || {
        let service = platform.service(name(platform))?;
        ensure!(service.health.word == HealthWord::Healthy, "{}", service.health.reasons.join("; "));
        let leads = |m: &&MemberView| is_master(m) && m.ready;
        let count = service.members.iter().filter(leads).count();
        ensure!(count == masters && service.members.len() == masters * 2, "{count} masters");
        Ok(())
    })
}

/// Hash slots move to a new shard while the writer writes, and the coordinators' leader dies while they do; then back.
fn reshard(platform: &Platform) -> Result<Value> {
    ensure!(platform.settings.hosts >= 4, "this needs MUSTER_SHOW_HOSTS=4");
    let writer = writer(platform, "reshard")?;
    sleep(Duration::from_secs(10));
    let begin = Instant::now();
    let path = platform.write_spec("four.yaml", &sharded(platform, IMAGE, 4, 1))?;
    platform.cli.run(&["--yes", "apply", "--detach", &path.to_string_lossy()])?;
    // Whatever the operation is called: it may have begun with the new members.
    wait("hash slots that move", WHOLE, || {
        let operations: Vec<OperationView> = platform.cli.json(&["op", "ls"])?;
        ensure!(operations.iter().any(|op| op.step.contains("hash slots move")), "{operations:?}");
        Ok(())
    })?;
    let killed = platform.leading_coordinator()?;
    killed.unit_kill("muster-coordinator")?;
    sleep(Duration::from_secs(3));
    killed.unit_start("muster-coordinator")?;
    spread_over(platform, 4)?;
    let out = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let path = platform.write_spec("three.yaml", &sharded(platform, IMAGE, 3, 1))?;
    platform.cli.run(&["--yes", "apply", "--detach", &path.to_string_lossy()])?;
    spread_over(platform, 3)?;
    let back = begin.elapsed().as_secs_f64();
    let mut samples = finish(platform, writer, 300, 10_000)?;
    samples["out_s"] = json!(out);
    samples["in_s"] = json!(back);
    Ok(samples)
}
