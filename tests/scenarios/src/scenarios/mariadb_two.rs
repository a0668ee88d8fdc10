//! Two members of a Galera cluster and an arbitrator on a third host: what each of the three may lose.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, ServiceView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::mariadb::judged;
use super::network::container;
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::writer::{Writer, connections_of};

const WHOLE: Duration = Duration::from_secs(240);
const IMAGE: &str = "muster/mariadb:10.11";
const NEXT: &str = "muster/mariadb:10.11-next";
/// Longer than the engine's own detection of a lost member.
const DARK: Duration = Duration::from_secs(25);

/// Every one of them, in the order of the test run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "mariadb-two-kill-host",
        what: "two members and an arbitrator: the host that takes the writes loses power and returns, then the arbitrator's",
        runs: 3,
        in_ci: false,
        medians: &[("writer_gap_ms", 8_000.0)],
        act: kill_hosts,
    },
    Scenario {
        name: "mariadb-two-update",
        what: "two members and an arbitrator: a new image under load",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: update,
    },
    Scenario {
        name: "mariadb-two-kill-all",
        what: "two members and an arbitrator, all three killed at once, come back on one history",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: kill_all,
    },
];

/// Its own name: a service of three members would have to shrink.
fn name(platform: &Platform) -> String {
    format!("{}-two", platform.settings.mariadb)
}

fn arbitrator(platform: &Platform) -> String {
    format!("{}-arbitrator", name(platform))
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
    members: 2
    image: {image}
    resources: {{ memory: 512MiB }}
    update: {{ deadline: 90s, soak: 2s }}
",
        settings.platform,
        settings.dbnet,
        name(platform)
    )
}

/// A platform with the service, healthy; one with other services is taken down first.
///
/// # Errors
/// It does not come up.
pub fn prepare(platform: &Platform) -> Result<()> {
    let ours = name(platform);
    let ours =
        |s: &ServiceView| s.name.as_str() == ours || s.owner.as_ref().is_some_and(|o| o.as_str() == ours);
    if platform.status().is_ok_and(|status| !status.services.iter().all(ours)) {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    platform.apply(&spec(platform, IMAGE))?;
    whole(platform).map(drop)
}

/// Both members and the arbitrator, each on a host of its own, one history.
fn whole(platform: &Platform) -> Result<Vec<MemberView>> {
    let members = platform.wait_healthy(&name(platform), WHOLE)?.members;
    let third = platform.wait_healthy(&arbitrator(platform), WHOLE)?.members;
    let mut hosts: Vec<&str> = members.iter().chain(&third).map(|member| member.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    ensure!(members.len() == 2 && third.len() == 1 && hosts.len() == 3, "{members:?}, {third:?}");
    Ok(members.into_iter().chain(third).collect())
}

/// A writer where neither the writing member is nor the arbitrator, and where these two are.
fn writing(platform: &Platform, run: &str) -> Result<(Writer, Host, Host)> {
    let all = whole(platform)?;
    let (leader, at) = platform.leader(&name(platform))?;
    let third = all.last().context("no arbitrator")?;
    let quiet = all.iter().find(|m| m.member != leader.member && m.member != third.member);
    let quiet = platform.testbed.host(quiet.context("no other member")?.host.as_str())?;
    let endpoints = connections_of(platform, &name(platform), "write")?;
    let writer = Writer::of("mariadb", quiet, run, &endpoints, 9_341)?;
    writer.wait_steady()?;
    sleep(Duration::from_secs(3));
    Ok((writer, at, platform.testbed.host(third.host.as_str())?))
}

/// Cuts a host's power for long enough to be noticed; what the longest pause was until it is whole again.
fn dark(platform: &Platform, host: &Host, writer: &Writer) -> Result<u64> {
    let before = writer.acknowledged()?.len();
    host.kill()?;
    let told = wait("health tells it", WHOLE, || {
        let health = platform.service(&name(platform))?.health;
        ensure!(health.word == HealthWord::Critical, "{}: {:?}", health.word, health.reasons);
        Ok(())
    });
    sleep(DARK);
    platform.testbed.start(host.name())?;
    told?;
    whole(platform)?;
    let all = writer.acknowledged()?;
    let since = all.get(before.saturating_sub(1)..).unwrap_or_default();
    since.windows(2).map(|pair| pair[1] - pair[0]).max().context("nothing was written")
}

fn kill_hosts(platform: &Platform) -> Result<Value> {
    ensure!(platform.settings.hosts == 3, "with a spare host the arbitrator only moves: MUSTER_SHOW_HOSTS=3");
    let (writer, at, third) = writing(platform, "two-hosts")?;
    let writer_gap = dark(platform, &at, &writer)?;
    let arbitrator_gap = dark(platform, &third, &writer)?;
    let mut samples = judged(writer, 300, 15_000)?;
    samples["writer_gap_ms"] = json!(writer_gap);
    samples["arbitrator_gap_ms"] = json!(arbitrator_gap);
    Ok(samples)
}

fn update(platform: &Platform) -> Result<Value> {
    let (writer, ..) = writing(platform, "two-update")?;
    let from = platform.service(&name(platform))?.revision;
    let begin = Instant::now();
    platform.apply(&spec(platform, NEXT))?;
    let took = begin.elapsed().as_secs_f64();
    whole(platform)?;
    let now = platform.service(&name(platform))?;
    ensure!(now.members.iter().all(|member| member.revision > from), "old ones are left: {:?}", now.members);
    let mut samples = judged(writer, 300, 5_000)?;
    samples["update_s"] = json!(took);
    platform.apply(&spec(platform, IMAGE))?;
    whole(platform)?;
    Ok(samples)
}

fn kill_all(platform: &Platform) -> Result<Value> {
    let (writer, ..) = writing(platform, "two-all")?;
    let mut kills = Vec::new();
    for member in whole(platform)? {
        let host = platform.testbed.host(member.host.as_str())?;
        let id = container(&host, &member)?;
        kills.push(host.docker_command(&["kill", &id]).spawn()?);
    }
    for mut kill in kills {
        ensure!(kill.wait()?.success(), "one was not killed");
    }
    let begin = Instant::now();
    sleep(Duration::from_secs(4));
    whole(platform)?;
    let healthy = begin.elapsed().as_secs_f64();
    let mut samples = judged(writer, 100, 180_000)?;
    samples["healthy_after_s"] = json!(healthy);
    Ok(samples)
}
