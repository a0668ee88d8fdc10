//! S3 storage under faults and planned changes, with objects that are written through the proxies and read back whole.

use std::collections::BTreeMap;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, OperationState, OperationView, ServiceView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use crate::clock::{now_ms, wait};
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::specs;
use crate::writer::{Writer, connections_of, judge_losses};

const WHOLE: Duration = Duration::from_secs(240);
const DOCKER: Duration = Duration::from_secs(60);
/// Objects go on being written this long after everything is well again.
const AFTER: Duration = Duration::from_secs(5);
/// Time for which enough was written before a fault.
const BEFORE: Duration = Duration::from_secs(5);

/// What is shown of S3.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "s3-create",
        what: "S3 on three hosts from one file, a user writes",
        runs: 3,
        in_ci: true,
        medians: &[],
        act: create,
    },
    Scenario {
        name: "s3-logins",
        what: "the login that everybody knows is refused, and no login at all is no start",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: logins,
    },
    super::members::S3_REFUSALS,
    Scenario {
        name: "s3-kill-member",
        what: "one member's container is killed: gap, losses",
        runs: 5,
        in_ci: true,
        medians: &[("max_gap_ms", 1_000.0)],
        act: kill_member,
    },
    Scenario {
        name: "s3-rolling-restart",
        what: "all members restarted one by one under load, fewer than 1 % of requests fail",
        runs: 3,
        in_ci: false,
        medians: &[("failed_percent", 1.0)],
        act: rolling_restart,
    },
    Scenario {
        name: "s3-rolling-update",
        what: "another build of the server: two back to back, then the third, fewer than 1 % of requests fail",
        runs: 3,
        in_ci: false,
        medians: &[("failed_percent", 1.0)],
        act: rolling_update,
    },
    Scenario {
        name: "s3-broken-image",
        what: "a server that ends at once pauses the update before any member is touched; rollback works",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: broken_image,
    },
    Scenario {
        name: "s3-full-stop",
        what: "all members killed at once come back with every object",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: full_stop,
    },
    Scenario {
        name: "s3-kill-host",
        what: "a member's host loses power and returns",
        runs: 5,
        in_ci: false,
        medians: &[],
        act: kill_host,
    },
    super::s3_dark::COMPARED,
    super::engine_drills::S3,
    super::s3_metrics::METRICS,
    Scenario {
        name: "s3-replace",
        what: "a lost member is replaced with an empty drive and healed, no other is started again",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: replace,
    },
    Scenario {
        name: "s3-secret-rotate",
        what: "users' keys change without an interruption, the login of the deployment by one that is announced",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: super::rotate::s3,
    },
    Scenario {
        name: "s3-heal",
        what: "a host away while objects are written, the other servers killed: healed before another host goes, nothing is lost",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: super::s3_heal::heal,
    },
    Scenario {
        name: "s3-tls",
        what: "clients check the certificate of S3's proxies; it changes under load, and TLS becomes a must, without a gap",
        runs: 3,
        in_ci: false,
        medians: &[("max_gap_ms", 500.0)],
        act: super::tls_direct::s3,
    },
];

/// A platform with the service on it.
pub fn prepare(platform: &Platform) -> Result<()> {
    let name = name(platform);
    let ours =
        |s: &ServiceView| s.name.as_str() == name || s.owner.as_ref().is_some_and(|o| o.as_str() == name);
    if platform.status().is_ok_and(|status| !status.services.iter().all(ours)) {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    platform.apply(&spec(platform, specs::S3_IMAGE))?;
    platform.wait_healthy(name, WHOLE).map(drop)
}

/// The service with this image.
pub fn spec(platform: &Platform, image: &str) -> String {
    specs::platform(&platform.settings, &[specs::s3(&platform.settings, image)])
}

pub fn name(platform: &Platform) -> &str {
    platform.settings.s3.as_str()
}

/// A writer on a host that is not `avoided`, on an image and a state that are known.
pub fn writer(platform: &Platform, what: &str, avoided: Option<&str>) -> Result<Writer> {
    platform.wait_healthy(name(platform), WHOLE)?;
    let hosts = platform.hosts()?;
    let host = hosts.into_iter().rev().find(|host| Some(host.name()) != avoided).context("no other host")?;
    let endpoints = connections_of(platform, name(platform), "write")?;
    let writer = Writer::of("s3", host, &format!("s3-{what}"), &endpoints, 9_341)?;
    writer.wait_steady()?;
    sleep(BEFORE);
    Ok(writer)
}

fn first_member(platform: &Platform) -> Result<(MemberView, Host)> {
    let service = platform.wait_healthy(name(platform), WHOLE)?;
    let member = service.members.first().context("no member")?.clone();
    let host = platform.testbed.host(member.host.as_str())?;
    Ok((member, host))
}

pub fn finish(platform: &Platform, writer: Writer) -> Result<Value> {
    platform.wait_healthy(name(platform), WHOLE)?;
    sleep(AFTER);
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    let number = |key: &str| summary[key].as_f64().unwrap_or_default();
    Ok(json!({
        "acked": summary["acked"],
        "acked_lost": summary["acked_lost_count"],
        "denied_at_first": summary["denied_at_first"],
        "failed": summary["unknown"],
        "failed_percent": (number("unknown") * 10_000.0 / number("sent").max(1.0)).round() / 100.0,
        "gap_count": summary["gap_count"],
        "max_gap_ms": summary["max_gap_ms"],
    }))
}

/// When each member's container was started.
fn starts(platform: &Platform, service: &ServiceView) -> Result<BTreeMap<String, String>> {
    let mut starts = BTreeMap::new();
    for member in service.members.iter().filter(|member| member.state != "retiring") {
        let host = platform.testbed.host(member.host.as_str())?;
        let id = container(&host, member)?;
        let at = host.docker(&["inspect", "-f", "{{.State.StartedAt}}", &id], DOCKER)?;
        starts.insert(member.slot.to_string(), at.trim().to_owned());
    }
    Ok(starts)
}

/// One `apply`, then healthy with buckets and users; one deployment; the login that everybody knows is refused.
pub fn create(platform: &Platform) -> Result<Value> {
    platform.up()?;
    let begin = Instant::now();
    platform.apply(&spec(platform, specs::S3_IMAGE))?;
    platform.wait_healthy(name(platform), WHOLE)?;
    let healthy = begin.elapsed().as_secs_f64();
    let writer = writer(platform, "create", None)?;
    let declared = begin.elapsed().as_secs_f64() - BEFORE.as_secs_f64();
    let writes = finish(platform, writer)?;
    Ok(json!({ "healthy_after_s": healthy, "user_writes_after_s": declared, "writes": writes }))
}

/// The container of one member is killed; its agent starts it again.
pub fn kill_member(platform: &Platform) -> Result<Value> {
    let (member, host) = first_member(platform)?;
    let writer = writer(platform, "kill-member", Some(host.name()))?;
    host.docker(&["kill", &container(&host, &member)?], DOCKER)?;
    sleep(AFTER);
    finish(platform, writer)
}

/// A host loses power and returns.
pub fn kill_host(platform: &Platform) -> Result<Value> {
    let (_, host) = first_member(platform)?;
    let writer = writer(platform, "kill-host", Some(host.name()))?;
    let at = now_ms();
    host.kill()?;
    let down = wait("the host down", Duration::from_secs(60), || {
        let status = platform.status()?;
        let seen = status.hosts.iter().find(|h| h.name.as_str() == host.name()).context("no host")?;
        ensure!(seen.liveness == muster_model::view::Liveness::Down, "{:?}", seen.liveness);
        Ok(now_ms())
    });
    sleep(Duration::from_secs(40));
    platform.testbed.start(host.name())?;
    let down = down?;
    let acknowledged = writer.acknowledged()?;
    let first = acknowledged.iter().find(|time| **time > down).context("nothing was written after *down*")?;
    let mut samples = finish(platform, writer)?;
    samples["down_after_ms"] = json!(down - at);
    samples["writes_after_down_ms"] = json!(first - down);
    Ok(samples)
}

/// All members restarted one after the other.
pub fn rolling_restart(platform: &Platform) -> Result<Value> {
    let service = platform.wait_healthy(name(platform), WHOLE)?;
    let before = starts(platform, &service)?;
    let writer = writer(platform, "restart", None)?;
    let begin = Instant::now();
    platform.cli.run(&["--yes", "service", "restart", name(platform)])?;
    let took = begin.elapsed().as_secs_f64();
    let after = starts(platform, &platform.wait_healthy(name(platform), WHOLE)?)?;
    ensure!(
        before.iter().all(|(slot, at)| after.get(slot).is_some_and(|now| now != at)),
        "not all restarted"
    );
    let mut samples = finish(platform, writer)?;
    samples["took_s"] = json!(took);
    let failed = samples["failed_percent"].as_f64().context("no failed_percent")?;
    ensure!(failed < 1.0, "{failed} % of the requests failed: {samples}");
    Ok(samples)
}

/// Another build of the server: the first two back to back, then the third; and back again.
pub fn rolling_update(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "update", None)?;
    let from = platform.service(name(platform))?.revision;
    let begin = Instant::now();
    platform.apply(&spec(platform, specs::S3_NEXT))?;
    let took = begin.elapsed().as_secs_f64();
    let now = platform.wait_healthy(name(platform), WHOLE)?;
    ensure!(now.members.iter().all(|m| m.revision > from), "old members are left: {:?}", now.members);
    let mut samples = finish(platform, writer)?;
    samples["took_s"] = json!(took);
    platform.apply(&spec(platform, specs::S3_IMAGE))?;
    platform.wait_healthy(name(platform), WHOLE)?;
    Ok(samples)
}

/// A server that ends at once: the update pauses before any member is touched, rollback works.
pub fn broken_image(platform: &Platform) -> Result<Value> {
    let before = starts(platform, &platform.wait_healthy(name(platform), WHOLE)?)?;
    let writer = writer(platform, "broken", None)?;
    let path = platform.write_spec("broken.yaml", &spec(platform, specs::S3_BROKEN))?;
    let out = platform.cli.output(&["--yes", "apply", &path.to_string_lossy()])?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.code() == Some(4), "apply ended with {}: {said}", out.status);
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls"])?;
    let paused =
        operations.iter().find(|op| op.service.as_str() == name(platform)).context("no operation")?;
    ensure!(paused.state == OperationState::NeedsOperator, "the operation is {:?}", paused.state);
    let reason = paused.step.clone();
    let now = platform.service(name(platform))?;
    // Its throw-away drive told: no member was touched.
    ensure!(now.members.iter().all(|m| m.ready), "members were touched: {:?}", now.members);
    ensure!(starts(platform, &now)? == before, "members were started again");
    ensure!(now.health.word == HealthWord::Healthy, "health {:?}", now.health);
    ensure!(reason.contains("no member is touched"), "the reason is {reason}");
    platform.cli.run(&["--yes", "service", "rollback", name(platform)])?;
    platform.wait_healthy(name(platform), WHOLE)?;
    let samples = finish(platform, writer)?;
    platform.apply(&spec(platform, specs::S3_IMAGE))?;
    platform.wait_healthy(name(platform), WHOLE)?;
    Ok(json!({ "reason": reason, "writes": samples }))
}

/// Every member's container is killed at once and held back by nothing: all come back alone.
pub fn full_stop(platform: &Platform) -> Result<Value> {
    let service = platform.wait_healthy(name(platform), WHOLE)?;
    let writer = writer(platform, "full-stop", None)?;
    let mut kills = Vec::new();
    for member in &service.members {
        let host = platform.testbed.host(member.host.as_str())?;
        let id = container(&host, member)?;
        kills.push(thread::spawn(move || host.docker(&["kill", &id], DOCKER)));
    }
    for kill in kills {
        kill.join().map_err(|_| anyhow::anyhow!("a kill panicked"))??;
    }
    let begin = Instant::now();
    sleep(Duration::from_secs(2));
    platform.wait_healthy(name(platform), WHOLE)?;
    let healthy = begin.elapsed().as_secs_f64();
    let mut samples = finish(platform, writer)?;
    samples["healthy_after_s"] = json!(healthy);
    Ok(samples)
}

/// A host that does not come back: its member is replaced on a spare one with an empty drive, healed, and no other
/// member is started again.
pub fn replace(platform: &Platform) -> Result<Value> {
    let (lost, host) = first_member(platform)?;
    let service = platform.service(name(platform))?;
    let mut before = starts(platform, &service)?;
    before.remove(&lost.slot.to_string());
    let writer = writer(platform, "replace", Some(host.name()))?;
    host.kill()?;
    let begin = Instant::now();
    let shown = replaced(platform, &lost, begin);
    platform.testbed.start(host.name())?;
    let (placed, healed, told) = shown?;
    let mut after = starts(platform, &platform.wait_healthy(name(platform), WHOLE)?)?;
    after.remove(&lost.slot.to_string());
    ensure!(before == after, "other members were started again: {before:?}, {after:?}");
    let mut samples = finish(platform, writer)?;
    samples["placed_after_s"] = json!(placed);
    samples["healed_after_s"] = json!(healed);
    samples["healing_told"] = json!(told);
    Ok(samples)
}

/// Seconds until another host has the slot, and until its drive is full; what status said meanwhile.
fn replaced(platform: &Platform, lost: &MemberView, begin: Instant) -> Result<(f64, f64, Vec<String>)> {
    wait("the member on another host", Duration::from_secs(120), || {
        let now = platform.service(name(platform))?;
        let wanted = |m: &&MemberView| m.slot == lost.slot && m.state != "retiring";
        let there = now.members.iter().find(wanted).context("no member in the slot")?;
        ensure!(there.host != lost.host, "still on {}", there.host);
        Ok(())
    })?;
    let placed = begin.elapsed().as_secs_f64();
    let mut told = Vec::new();
    wait("healthy with the new drive", WHOLE, || {
        let health = platform.service(name(platform))?.health;
        for reason in health.reasons.iter().filter(|reason| reason.contains("heals")) {
            if told.last() != Some(reason) {
                told.push(reason.clone());
            }
        }
        ensure!(health.word == HealthWord::Healthy, "{}: {}", health.word, health.reasons.join("; "));
        Ok(())
    })?;
    Ok((placed, begin.elapsed().as_secs_f64(), told))
}

/// Nothing but the login of the spec lets anybody in, and a member without its login files does not start.
pub fn logins(platform: &Platform) -> Result<Value> {
    let (member, host) = first_member(platform)?;
    let address = member.addresses.values().next().context("no address")?.clone();
    let url = format!("http://{address}:9000/");
    let ask = |user: &str| {
        exec(
            &host,
            &[
                "curl",
                "-s",
                "-m",
                "5",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
                "-u",
                user,
                &url,
            ],
        )
    };
    let known = ask("minioadmin:minioadmin")?;
    ensure!(known == "403", "the login that everybody knows gets {known}");
    let script = format!(
        "docker run --rm --read-only --tmpfs /state:uid=9000,gid=9000 --cap-drop ALL -e MUSTER_READY=:9002 \
         -e MUSTER_SERVER=127.0.0.1:9000 -e MUSTER_STATE=/state -e MUSTER_DRAIN=0s -e MINIO_ROOT_USER_FILE=/muster/none \
         -e MINIO_ROOT_PASSWORD_FILE=/muster/none {} minio server /data; echo rc=$?",
        specs::S3_IMAGE
    );
    let out = exec(&host, &["sh", "-c", &format!("({script}) 2>&1")])?;
    ensure!(out.contains("rc=78"), "a missing login file: {out}");
    Ok(json!({ "known_login": known, "missing_file": out.lines().next() }))
}
