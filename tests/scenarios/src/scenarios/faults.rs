//! Trouble without warning: no control plane, a frozen engine, a host that is cut off.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::writer::{Writer, connections, judge_losses};

const DOCKER: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(120);
/// How long the control plane stays away, an engine frozen, a host cut off.
const SPELL: Duration = Duration::from_secs(60);

/// Start times of all containers of ours on a host.
pub fn starts(host: &Host) -> Result<BTreeMap<String, String>> {
    let ids = host.docker(&["ps", "-q", "--filter", "label=muster.member"], DOCKER)?;
    let mut found = BTreeMap::new();
    for id in ids.split_whitespace() {
        let text = host.docker(&["inspect", "-f", "{{.Name}} {{.State.StartedAt}}", id], DOCKER)?;
        if let Some((name, at)) = text.trim().split_once(' ') {
            found.insert(name.to_owned(), at.to_owned());
        }
    }
    ensure!(!found.is_empty(), "{} runs nothing of ours", host.name());
    Ok(found)
}

/// All coordinators stop; a replica's container is killed and another host power-cycled; everything comes back alone.
pub fn headless(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    let service = platform.wait_healthy(name, WHOLE)?;
    let (leader, leader_host) = platform.leader(name)?;
    let others: Vec<_> = service.members.iter().filter(|m| m.slot != leader.slot).cloned().collect();
    let [killed, cycled] = others.as_slice() else { anyhow::bail!("this needs three members: {others:?}") };
    let (killed_host, cycled_host) =
        (platform.testbed.host(killed.host.as_str())?, platform.testbed.host(cycled.host.as_str())?);
    let untouched = starts(&leader_host)?;
    let begin = Instant::now();
    for host in platform.hosts()? {
        host.unit_stop("muster-coordinator")?;
    }
    killed_host.docker(&["kill", &container(&killed_host, killed)?], DOCKER)?;
    cycled_host.kill()?;
    platform.testbed.start(cycled_host.name())?;
    // Units start by themselves at boot; the coordinator must not, for this spell.
    cycled_host.unit_stop("muster-coordinator")?;
    for (host, member) in [(&killed_host, killed), (&cycled_host, cycled)] {
        wait(&format!("{} streams without a coordinator", member.slot), SPELL, || streams(host, member))?;
    }
    let back = begin.elapsed().as_secs_f64();
    sleep(SPELL.saturating_sub(begin.elapsed()));
    for host in platform.hosts()? {
        host.unit_start("muster-coordinator")?;
    }
    platform.wait_healthy(name, WHOLE)?;
    sleep(Duration::from_secs(5));
    ensure!(
        starts(&leader_host)? == untouched,
        "untouched containers were restarted on {}",
        leader_host.name()
    );
    Ok(json!({ "all_back_after_s": back, "untouched": untouched.len() }))
}

/// Patroni's own word, asked on the member's host.
fn streams(host: &Host, member: &muster_model::view::MemberView) -> Result<()> {
    let address = member.addresses.values().next().context("no address")?;
    let url = format!("http://{address}:8008/patroni");
    let body: Value = serde_json::from_str(&exec(host, &["curl", "-fsS", "-m", "2", &url])?)?;
    ensure!(body["replication_state"] == "streaming", "{body}");
    Ok(())
}

/// The engine of the primary's host is frozen: no failover, no restart, and status says what is wrong.
pub fn engine_frozen(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    platform.wait_healthy(name, WHOLE)?;
    let (before, host) = platform.leader(name)?;
    let containers = starts(&host)?;
    host.engine_pause()?;
    let told = frozen_spell(platform, &host, name, &before.slot.to_string());
    host.engine_resume()?;
    let told = told?;
    platform.wait_healthy(name, WHOLE)?;
    let (after, _) = platform.leader(name)?;
    ensure!(after.slot == before.slot, "the leading role moved from {} to {}", before.slot, after.slot);
    ensure!(starts(&host)? == containers, "containers were restarted");
    Ok(json!({ "told_after_s": told, "leader": after.slot.to_string() }))
}

fn frozen_spell(platform: &Platform, host: &Host, service: &str, leader: &str) -> Result<f64> {
    let begin = Instant::now();
    let mut told = None;
    while begin.elapsed() < SPELL {
        let status = platform.status()?;
        let text = serde_json::to_string(&status)?;
        if told.is_none() && text.contains("ngine") && text.contains("not answer") {
            told = Some(begin.elapsed().as_secs_f64());
        }
        let now = status.services.iter().find(|s| s.name.as_str() == service).context("no service")?;
        let leads: Vec<String> = now
            .members
            .iter()
            .filter(|m| m.role.as_deref() == Some("leader"))
            .map(|m| m.slot.to_string())
            .collect();
        ensure!(leads.is_empty() || leads == [leader], "leaders {leads:?} while the engine was frozen");
        sleep(Duration::from_secs(1));
    }
    told.with_context(|| format!("status never said that the engine of {} does not answer", host.name()))
}

/// The primary's host is cut off for a minute, with one writer per member at its own address, on the member's host.
pub fn partition(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    let service = platform.wait_healthy(name, WHOLE)?;
    let (leader, cut) = platform.leader(name)?;
    let login = connections(platform, "write")?.into_iter().next().context("no connection string")?;
    let mut writers = Vec::new();
    for (at, member) in service.members.iter().enumerate() {
        let host = platform.testbed.host(member.host.as_str())?;
        let address = member.addresses.values().next().context("no address")?;
        let port = 9_321 + u16::try_from(at)?;
        writers.push(Writer::start(host, &format!("direct-{at}"), &[direct(&login, address)?], port)?);
    }
    sleep(Duration::from_secs(5));
    platform.testbed.isolate(&cut)?;
    sleep(SPELL);
    platform.testbed.heal()?;
    let begin = Instant::now();
    wait("the host ready again", Duration::from_secs(10), || {
        let status = platform.status()?;
        let host = status.hosts.iter().find(|h| h.name.as_str() == cut.name()).context("no host")?;
        ensure!(host.liveness == muster_model::view::Liveness::Ready, "{:?}", host.liveness);
        Ok(())
    })?;
    let ready = begin.elapsed().as_secs_f64();
    platform.wait_healthy(name, Duration::from_secs(60))?;
    let healthy = begin.elapsed().as_secs_f64();
    let (mut windows, mut acked) = (Vec::new(), 0);
    for writer in writers {
        windows.push(writer.acknowledged()?);
        let summary = writer.finish()?;
        judge_losses(&summary, 0)?;
        acked += summary["acked"].as_u64().unwrap_or_default();
    }
    judge_overlap(&windows)?;
    ensure!(acked > 500, "only {acked} rows acknowledged");
    Ok(
        json!({ "old_leader": leader.slot.to_string(), "acked": acked, "host_ready_s": ready, "healthy_s": healthy }),
    )
}

/// The connection string with one member's own address in place of the proxies'.
fn direct(url: &str, address: &str) -> Result<String> {
    let (login, rest) = url.split_once('@').context("a connection string without login")?;
    let (_, path) = rest.split_once('/').context("a connection string without database")?;
    let database = path.split('?').next().unwrap_or_default();
    Ok(format!("{login}@{address}:5432/{database}?connect_timeout=2"))
}

/// No two members may acknowledge in the same 100 ms.
fn judge_overlap(acknowledged: &[Vec<u64>]) -> Result<()> {
    let mut taken: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, times) in acknowledged.iter().enumerate() {
        for window in times.iter().map(|time| time / 100) {
            if let Some(other) = taken.insert(window, at) {
                ensure!(
                    other == at,
                    "members {other} and {at} both acknowledged in the 100 ms window {window}"
                );
            }
        }
    }
    let members = acknowledged.iter().filter(|times| !times.is_empty()).count();
    ensure!(members >= 2, "only {members} members ever acknowledged: nothing was shown");
    Ok(())
}

/// Killed while no synchronous standby streams: restarted in place, never released, nothing acknowledged is lost.
pub fn kill_primary_alone(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    let service = platform.wait_healthy(name, WHOLE)?;
    let (leader, host) = platform.leader(name)?;
    let others: Vec<_> = service.members.iter().filter(|m| m.slot != leader.slot).collect();
    let writer = Writer::start(
        platform.testbed.host(others[0].host.as_str())?,
        "alone",
        &connections(platform, "write")?,
        9_331,
    )?;
    writer.wait_steady()?;
    for member in &others {
        freeze(platform, member, "STOP")?;
    }
    let shown = alone(platform, &writer, name, &host, &leader);
    for member in &others {
        freeze(platform, member, "CONT")?;
    }
    let began = shown?;
    platform.wait_healthy(name, WHOLE)?;
    let (after, _) = platform.leader(name)?;
    ensure!(after.slot == leader.slot, "the leading role moved from {} to {}", leader.slot, after.slot);
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    Ok(
        json!({ "writes_again_s": began, "acked": summary["acked"], "acked_lost": summary["acked_lost_count"] }),
    )
}

/// Every process of a member's container stands still, or goes on.
fn freeze(platform: &Platform, member: &muster_model::view::MemberView, signal: &str) -> Result<()> {
    let host = platform.testbed.host(member.host.as_str())?;
    let id = container(&host, member)?;
    let script = format!("docker top {id} -o pid | tail -n +2 | xargs kill -{signal}");
    exec(&host, &["sh", "-ec", &script]).map(drop)
}

fn alone(
    platform: &Platform,
    writer: &Writer,
    name: &str,
    host: &Host,
    leader: &muster_model::view::MemberView,
) -> Result<f64> {
    // The frozen standbys' keys expire with Patroni's ttl; then the leader goes on alone and says so.
    wait("writes without a standby", Duration::from_secs(90), || {
        let critical = platform.service(name)?.health.word == muster_model::view::HealthWord::Critical;
        ensure!(critical, "not critical yet");
        writer.wait_steady()
    })?;
    let before = writer.acknowledged()?.len();
    host.docker(&["kill", &container(host, leader)?], DOCKER)?;
    let begin = Instant::now();
    wait("writes again", Duration::from_secs(60), || {
        let now = writer.acknowledged()?.len();
        ensure!(now > before + 20, "{now} rows acknowledged, {before} before the fault");
        Ok(())
    })?;
    Ok(begin.elapsed().as_secs_f64())
}
