//! A Galera cluster from one YAML file: made, broken in several ways, changed, and what a client saw of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, OperationState, OperationView, ServiceView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::members;
use super::network::container;
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::writer::{Writer, connections_of, judge_losses};

/// Longest time until the service is as its spec says.
const WHOLE: Duration = Duration::from_secs(240);
const DOCKER: Duration = Duration::from_secs(200);
const IMAGE: &str = "muster/mariadb:10.11";
const NEXT: &str = "muster/mariadb:10.11-next";
const BROKEN: &str = "muster/mariadb:10.11-broken";
/// Where a member says how it is.
const CHECK_PORT: u16 = 9200;

/// Every one of them, in the order of the test run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "mariadb-create",
        what: "a Galera cluster forms: one member begins, the others copy it one by one, one history",
        runs: 3,
        in_ci: true,
        medians: &[],
        act: create,
    },
    Scenario {
        name: "mariadb-kill-member",
        what: "a member that clients do not write to is killed: restarted in place",
        runs: 5,
        in_ci: false,
        medians: &[("max_gap_ms", 8_000.0)],
        act: kill_member,
    },
    Scenario {
        name: "mariadb-kill-writer",
        what: "the member that clients write to is killed: another takes the writing",
        runs: 5,
        in_ci: true,
        medians: &[("max_gap_ms", 8_000.0)],
        act: kill_writer,
    },
    Scenario {
        name: "mariadb-kill-host",
        what: "the host of the member that clients write to loses power and returns",
        runs: 5,
        in_ci: false,
        medians: &[("max_gap_ms", 8_000.0)],
        act: kill_host,
    },
    Scenario {
        name: "mariadb-switchover",
        what: "the writing moves by command",
        runs: 5,
        in_ci: false,
        medians: &[("max_gap_ms", 2_000.0)],
        act: switchover,
    },
    Scenario {
        name: "mariadb-rolling-update",
        what: "a new image under load, the member that clients write to last",
        runs: 3,
        in_ci: true,
        medians: &[("max_gap_ms", 2_000.0)],
        act: rolling_update,
    },
    Scenario {
        name: "mariadb-broken-image",
        what: "an image that never becomes healthy pauses the update; rollback works",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: broken_image,
    },
    Scenario {
        name: "mariadb-kill-all",
        what: "all members killed at once under writes: back with one history and every acknowledged row",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: kill_all,
    },
    Scenario {
        name: "mariadb-cold-start",
        what: "all members stopped in an orderly way, one after another: begun anew by the platform where the most was written",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: cold_start,
    },
    members::MARIADB_REPLACE,
    members::MARIADB_SCALE,
    super::engine_drills::MARIADB,
    Scenario {
        name: "mariadb-secret-rotate",
        what: "all passwords change under load; open sessions stay",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: super::rotate::mariadb,
    },
    Scenario {
        name: "mariadb-foreign-volume",
        what: "a member's data is exchanged for another cluster's: it says so and is not overwritten; with its own data it joins",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: foreign_volume,
    },
    Scenario {
        name: "mariadb-tls",
        what: "clients check MariaDB's certificate; it changes under load, and TLS becomes a must",
        runs: 3,
        in_ci: false,
        medians: &[("max_gap_ms", 500.0)],
        act: super::tls::mariadb,
    },
];

/// A platform with the service, healthy; one with other services is taken down first.
///
/// # Errors
/// It does not come up.
pub fn prepare(platform: &Platform) -> Result<()> {
    let name = &platform.settings.mariadb;
    // What it brings along is called after it, and after nobody else.
    let ours = |s: &ServiceView| s.name == *name || s.owner.as_ref() == Some(name);
    if platform.status().is_ok_and(|status| !status.services.iter().all(ours)) {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    platform.apply(&spec(platform, IMAGE))?;
    healthy(platform).map(drop)
}

/// The spec of a run without changes of its own.
pub fn usual(platform: &Platform) -> String {
    spec(platform, IMAGE)
}

fn spec(platform: &Platform, image: &str) -> String {
    let settings = &platform.settings;
    format!(
        "muster: 1
platform: {}
networks:
  dbnet: {{ subnet: {} }}
services:
  {}:
    kind: mariadb
    mode: ha
    image: {image}
    resources: {{ memory: 512MiB }}
    update: {{ deadline: 90s, soak: 2s }}
",
        settings.platform, settings.dbnet, settings.mariadb
    )
}

pub fn healthy(platform: &Platform) -> Result<ServiceView> {
    platform.wait_healthy(platform.settings.mariadb.as_str(), WHOLE)
}

/// What a member says of itself, asked on its host.
fn said(platform: &Platform, member: &MemberView) -> Result<Value> {
    let host = platform.testbed.host(member.host.as_str())?;
    let address = member.addresses.values().next().context("no address")?;
    let url = format!("http://{address}:{CHECK_PORT}/status");
    let out = exec(&host, &["curl", "-fsS", "-m", "2", &url])?;
    serde_json::from_str(&out).with_context(|| format!("{} said {out}", member.slot))
}

/// The one history and view size that all members are in.
pub fn history(platform: &Platform, service: &ServiceView) -> Result<String> {
    let mut found = Vec::new();
    for member in &service.members {
        let said = said(platform, member)?;
        ensure!(said["synced"] == true && said["size"] == service.members.len(), "{}: {said}", member.slot);
        found.push(said["uuid"].as_str().context("no uuid")?.to_owned());
    }
    found.dedup();
    ensure!(found.len() == 1 && !found[0].starts_with("00000000"), "histories {found:?}");
    Ok(found.remove(0))
}

/// One `apply`, then healthy: one writer, all in step and in one history.
fn create(platform: &Platform) -> Result<Value> {
    platform.testbed.down(false, false)?;
    platform.up()?;
    let begin = Instant::now();
    platform.apply(&spec(platform, IMAGE))?;
    let service = healthy(platform)?;
    let took = begin.elapsed().as_secs_f64();
    let writers = service.members.iter().filter(|m| m.role.as_deref() == Some("leader")).count();
    ensure!(writers == 1 && service.members.len() == 3, "{:?}", service.members);
    Ok(json!({ "healthy_after_s": took, "history": history(platform, &service)? }))
}

/// A writer on a host that clients' writes do not go to, the member that they go to, and its host.
pub fn writing(platform: &Platform, name: &str) -> Result<(Writer, MemberView, Host)> {
    healthy(platform)?;
    let service = platform.settings.mariadb.as_str();
    let (leader, at) = platform.leader(service)?;
    let hosts = platform.hosts()?;
    let host = hosts.into_iter().find(|host| host.name() != at.name()).context("no other host")?;
    let writer = Writer::of("mariadb", host, name, &connections_of(platform, service, "write")?, 9_341)?;
    writer.wait_steady()?;
    sleep(Duration::from_secs(3));
    Ok((writer, leader, at))
}

/// Stops the writer and judges what it saw: nothing acknowledged is lost, and no gap was longer.
pub fn judged(writer: Writer, acked_min: u64, gap_max_ms: u64) -> Result<Value> {
    sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge_losses(&summary, acked_min)?;
    let longest = summary["max_gap_ms"].as_u64().context("no max_gap_ms")?;
    ensure!(longest <= gap_max_ms, "a gap of {longest} ms, at most {gap_max_ms} ms: {summary}");
    Ok(json!({
        "acked": summary["acked"],
        "acked_lost": summary["acked_lost_count"],
        "unacknowledged_present": summary["unacknowledged_present"],
        "gaps": summary["gaps"],
        "max_gap_ms": longest,
    }))
}

fn kill(platform: &Platform, members: &[MemberView]) -> Result<()> {
    for member in members {
        let host = platform.testbed.host(member.host.as_str())?;
        host.docker(&["kill", &container(&host, member)?], DOCKER)?;
    }
    Ok(())
}

fn kill_member(platform: &Platform) -> Result<Value> {
    let (writer, leader, _) = writing(platform, "kill-member")?;
    let service = healthy(platform)?;
    let other = service.members.iter().find(|m| m.slot != leader.slot).context("no other member")?;
    kill(platform, std::slice::from_ref(other))?;
    let begin = Instant::now();
    sleep(Duration::from_secs(4));
    let service = healthy(platform)?;
    let whole = begin.elapsed().as_secs_f64();
    let mut samples = judged(writer, 100, 12_000)?;
    samples["healthy_after_s"] = json!(whole);
    history(platform, &service)?;
    Ok(samples)
}

fn kill_writer(platform: &Platform) -> Result<Value> {
    let (writer, leader, _) = writing(platform, "kill-writer")?;
    kill(platform, std::slice::from_ref(&leader))?;
    let begin = Instant::now();
    let name = platform.settings.mariadb.as_str();
    let (after, _) = wait("another writer", WHOLE, || {
        let (member, host) = platform.leader(name)?;
        ensure!(member.slot != leader.slot, "{} still", member.slot);
        Ok((member, host))
    })?;
    let service = healthy(platform)?;
    let whole = begin.elapsed().as_secs_f64();
    let mut samples = judged(writer, 100, 12_000)?;
    samples["healthy_after_s"] = json!(whole);
    samples["moved"] = json!([leader.slot.to_string(), after.slot.to_string()]);
    history(platform, &service)?;
    Ok(samples)
}

fn kill_host(platform: &Platform) -> Result<Value> {
    let (writer, leader, host) = writing(platform, "kill-host")?;
    host.kill()?;
    let name = platform.settings.mariadb.as_str();
    wait("another writer", WHOLE, || {
        let (member, _) = platform.leader(name)?;
        ensure!(member.slot != leader.slot, "{} still", member.slot);
        Ok(())
    })?;
    sleep(Duration::from_secs(8));
    platform.testbed.start(host.name())?;
    let begin = Instant::now();
    let service = healthy(platform)?;
    let whole = begin.elapsed().as_secs_f64();
    let mut samples = judged(writer, 100, 15_000)?;
    samples["healthy_after_return_s"] = json!(whole);
    history(platform, &service)?;
    Ok(samples)
}

fn switchover(platform: &Platform) -> Result<Value> {
    let (writer, before, _) = writing(platform, "switchover")?;
    let service = platform.settings.mariadb.as_str();
    platform.cli.run(&["--yes", "service", "switchover", service])?;
    let (after, _) = wait("a new writer", Duration::from_secs(30), || platform.leader(service))?;
    ensure!(before.slot != after.slot, "clients still write to {}", before.slot);
    healthy(platform)?;
    judged(writer, 100, 3_000)
}

fn rolling_update(platform: &Platform) -> Result<Value> {
    let before = healthy(platform)?;
    let (writer, leader, _) = writing(platform, "update")?;
    let begin = Instant::now();
    platform.apply(&spec(platform, NEXT))?;
    let took = begin.elapsed().as_secs_f64();
    let after = healthy(platform)?;
    ensure!(
        after.members.iter().all(|m| m.revision > before.revision),
        "old ones are left: {:?}",
        after.members
    );
    let (now, _) = platform.leader(platform.settings.mariadb.as_str())?;
    ensure!(now.slot != leader.slot, "the writing never left {}", leader.slot);
    let mut samples = judged(writer, 300, 5_000)?;
    samples["update_s"] = json!(took);
    history(platform, &after)?;
    // The next run goes on from the everyday image.
    platform.apply(&spec(platform, IMAGE))?;
    healthy(platform)?;
    Ok(samples)
}

fn broken_image(platform: &Platform) -> Result<Value> {
    let (writer, ..) = writing(platform, "broken")?;
    let service = platform.settings.mariadb.as_str();
    let path = platform.write_spec("broken.yaml", &spec(platform, BROKEN))?;
    let out = platform.cli.output(&["--yes", "apply", &path.to_string_lossy()])?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.code() == Some(4), "apply ended with {}: {text}", out.status);
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls"])?;
    let paused = operations.iter().find(|op| op.service.as_str() == service).context("no operation")?;
    ensure!(paused.state == OperationState::NeedsOperator, "the operation is {:?}", paused.state);
    let reason = paused.step.clone();
    ensure!(!reason.is_empty(), "no reason is told");
    let now = platform.service(service)?;
    ensure!(
        now.members.iter().filter(|m| !m.ready).count() == 1,
        "more than one was touched: {:?}",
        now.members
    );
    ensure!(
        now.health.word != HealthWord::Down && now.health.word != HealthWord::Healthy,
        "{:?}",
        now.health
    );
    platform.cli.run(&["--yes", "service", "rollback", service])?;
    healthy(platform)?;
    let mut samples = judged(writer, 300, 12_000)?;
    samples["reason"] = json!(reason);
    platform.apply(&spec(platform, IMAGE))?;
    healthy(platform)?;
    Ok(samples)
}

fn kill_all(platform: &Platform) -> Result<Value> {
    let (writer, ..) = writing(platform, "kill-all")?;
    let service = healthy(platform)?;
    let before = history(platform, &service)?;
    let mut commands = Vec::new();
    for member in &service.members {
        let host = platform.testbed.host(member.host.as_str())?;
        let id = container(&host, member)?;
        commands.push(host.docker_command(&["kill", &id]).spawn()?);
    }
    for mut command in commands {
        ensure!(command.wait()?.success(), "a member was not killed");
    }
    let begin = Instant::now();
    sleep(Duration::from_secs(4));
    let service = healthy(platform)?;
    let whole = begin.elapsed().as_secs_f64();
    let after = history(platform, &service)?;
    ensure!(before == after, "the history was {before}, is {after}");
    let mut samples = judged(writer, 100, 120_000)?;
    samples["healthy_after_s"] = json!(whole);
    Ok(samples)
}

/// No member keeps its last view after an orderly stop, so that they would wait for each other for good.
fn cold_start(platform: &Platform) -> Result<Value> {
    let (writer, ..) = writing(platform, "cold-start")?;
    let service = healthy(platform)?;
    let before = history(platform, &service)?;
    for host in platform.hosts()? {
        host.unit_stop("muster-agent")?;
    }
    for member in &service.members {
        let host = platform.testbed.host(member.host.as_str())?;
        host.docker(&["stop", "-t", "120", &container(&host, member)?], DOCKER)?;
    }
    let begin = Instant::now();
    for host in platform.hosts()? {
        host.unit_start("muster-agent")?;
    }
    let service = healthy(platform)?;
    let whole = begin.elapsed().as_secs_f64();
    let after = history(platform, &service)?;
    ensure!(before == after, "the history was {before}, is {after}");
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
    let name = &platform.settings.mariadb;
    let text = serde_json::to_string(&operations)?;
    ensure!(text.contains("cold-start") && text.contains(name.as_str()), "no cold start in {text}");
    let mut samples = judged(writer, 100, 240_000)?;
    samples["healthy_after_s"] = json!(whole);
    Ok(samples)
}

/// Puts the database of another cluster into a stopped member's volume, its own aside.
const EXCHANGE: &str = "set -e
mv /data/mysql /data/kept
mv /data/history /data/kept-history
mariadb-install-db --defaults-file=/muster/mariadb.cnf --skip-test-db --wsrep-on=OFF >/dev/null
timeout -s TERM 15 mariadbd --defaults-file=/muster/mariadb.cnf --wsrep-new-cluster --wsrep-node-address=127.0.0.1 \
  --wsrep-provider-options='gmcast.listen_addr=tcp://127.0.0.1:4567' || true
grep -q '^seqno: *[0-9]' /data/mysql/grastate.dat";
const BACK: &str = "rm -r /data/mysql && mv /data/kept /data/mysql && mv /data/kept-history /data/history";

/// Runs a command on the volume of a member whose container is stopped, by its own image and user.
fn on_volume(host: &Host, container: &str, command: &str) -> Result<String> {
    let from = ["run", "--rm", "--network", "none", "--user", "3306:3306", "--volumes-from", container];
    let memory = ["--tmpfs", "/run/mysqld:uid=3306,gid=3306", "--tmpfs", "/tmp"];
    host.docker(&[&from[..], &memory, &[IMAGE, "sh", "-c", command]].concat(), DOCKER)
}

fn foreign_volume(platform: &Platform) -> Result<Value> {
    let (writer, leader, _) = writing(platform, "foreign-volume")?;
    let service = healthy(platform)?;
    let ours = history(platform, &service)?;
    let member = service.members.iter().find(|m| m.slot != leader.slot).context("no other member")?.clone();
    let host = platform.testbed.host(member.host.as_str())?;
    let stopped = |command: &str| -> Result<String> {
        let id = container(&host, &member)?;
        host.unit_stop("muster-agent")?;
        host.docker(&["stop", "-t", "120", &id], DOCKER)?;
        let said = on_volume(&host, &id, command)?;
        host.unit_start("muster-agent")?;
        Ok(said)
    };
    let uuid = "sed -n 's/^uuid: *//p' /data/mysql/grastate.dat";
    let theirs =
        stopped(&format!("{EXCHANGE}\n{uuid}"))?.split_whitespace().last().unwrap_or_default().to_owned();
    ensure!(theirs.len() == 36 && theirs != ours, "the data that was put there has the history {theirs:?}");
    let name = platform.settings.mariadb.as_str();
    let detail = wait("a refusal", WHOLE, || {
        let now = platform.service(name)?;
        let now = now.members.iter().find(|m| m.slot == member.slot).context("no member")?;
        ensure!(!now.ready && now.detail.contains("holds data of the cluster"), "{}", now.detail);
        Ok(now.detail.clone())
    })?;
    ensure!(detail.contains(&theirs) && detail.contains(&ours), "{detail}");
    sleep(Duration::from_secs(10));
    // What is there is what was put there.
    let kept = stopped(&format!("{uuid}; {BACK}"))?;
    ensure!(kept.trim() == theirs, "overwritten: it has {kept}");
    let service = healthy(platform)?;
    ensure!(history(platform, &service)? == ours, "another history");
    let mut samples = judged(writer, 100, 12_000)?;
    samples["detail"] = json!(detail);
    Ok(samples)
}
