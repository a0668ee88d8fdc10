//! Dead-host reset: a host goes dark, and clients of its members are told so at once; a silent agent alone resets nothing.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{EventView, Liveness, MemberView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use crate::clock::{now_ms, wait};
use crate::platform::{Platform, exec};
use crate::run::Scenario;

const WHOLE: Duration = Duration::from_secs(180);
const DOCKER: Duration = Duration::from_secs(30);
/// Longest time from *down* until an idle connection is gone and new ones are refused.
const RESET_MAX_MS: u64 = 1_000;
/// How long only the agent is away.
const SPELL: Duration = Duration::from_secs(20);

/// What this file shows.
pub const DEAD_HOST: Scenario = Scenario {
    name: "dead-host",
    what: "a host goes dark: connections to its members are gone within 1 s after down; a silent agent resets nothing",
    runs: 5,
    in_ci: false,
    medians: &[("gone_after_down_ms", 1_000.0)],
    act: dead_host,
};

/// An idle connection from inside a member to a port of another one.
struct Idle {
    child: Child,
    ended: String,
    host: Host,
}

impl Idle {
    fn open(host: &Host, from: &MemberView, to: &str, name: &str) -> Result<Self> {
        let process = process_of(host, from)?;
        let ended = format!("/tmp/{name}-{}", now_ms());
        let script = format!(
            "exec 3<>/dev/tcp/{to}/5432 && echo open > {ended}.open && {{ read -r -n 1 -u 3 _; date +%s%3N > {ended}; }}"
        );
        let words = ["nsenter", "-t", &process, "-n", "bash", "-c", &script];
        let child = host.spawn(&words, &format!("{name}.log"))?;
        let idle = Self { child, ended, host: host.clone() };
        wait("an idle connection", Duration::from_secs(5), || {
            exec(&idle.host, &["cat", &format!("{}.open", idle.ended)]).map(drop)
        })?;
        Ok(idle)
    }

    /// When it ended, milliseconds since 1970.
    fn ended(&self) -> Result<Option<u64>> {
        let out = self.host.exec(&["cat", &self.ended])?;
        Ok(out.stdout.trim().parse().ok())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn process_of(host: &Host, member: &MemberView) -> Result<String> {
    let id = container(host, member)?;
    Ok(host.docker(&["inspect", "-f", "{{.State.Pid}}", &id], DOCKER)?.trim().to_owned())
}

/// How a new connection from inside a member ends, and after how long.
fn connect(host: &Host, from: &MemberView, to: &str) -> Result<(bool, u64)> {
    let process = process_of(host, from)?;
    let script = format!("exec 3<>/dev/tcp/{to}/5432");
    let begin = Instant::now();
    let out = host.exec(&["nsenter", "-t", &process, "-n", "timeout", "5", "bash", "-c", &script])?;
    Ok((out.success(), u64::try_from(begin.elapsed().as_millis())?))
}

fn went_down(platform: &Platform, host: &str, after: u64) -> Result<u64> {
    let events: Vec<EventView> = platform.cli.json(&["events", "--tail", "200"])?;
    let down = events.iter().find(|e| e.about == host && e.at.0 >= after && e.text.starts_with("down"));
    Ok(down.context("not down yet")?.at.0)
}

fn wait_ready(platform: &Platform, host: &str) -> Result<()> {
    wait(&format!("{host} ready again"), Duration::from_secs(30), || {
        let status = platform.status()?;
        let row = status.hosts.iter().find(|h| h.name.as_str() == host).context("no host")?;
        ensure!(row.liveness == Liveness::Ready, "{:?}", row.liveness);
        Ok(())
    })
}

/// The one who looks (a member of the leader's host) and the one whose host goes dark, which leads nothing.
fn pair(platform: &Platform) -> Result<(MemberView, Host, MemberView, Host)> {
    let name = platform.settings.service.as_str();
    let service = platform.wait_healthy(name, WHOLE)?;
    let (leader, leader_host) = platform.leader(name)?;
    let coordinator = platform.leading_coordinator()?;
    let other = service
        .members
        .iter()
        .find(|m| m.slot != leader.slot && m.host.as_str() != coordinator.name())
        .context("this needs a member on a host that leads nothing")?;
    let dark = platform.testbed.host(other.host.as_str())?;
    Ok((leader, leader_host, other.clone(), dark))
}

/// Cut off, then only its agent stopped.
fn dead_host(platform: &Platform) -> Result<Value> {
    let (leader, near, other, dark) = pair(platform)?;
    let address = other.addresses.values().next().context("no address")?.to_string();
    let idle = Idle::open(&near, &leader, &address, "idle-dark")?;
    let cut = now_ms();
    platform.testbed.isolate(&dark)?;
    let shown = darkness(platform, &near, &leader, &address, &idle, (dark.name(), cut));
    platform.testbed.heal()?;
    let mut samples = shown?;
    let begin = Instant::now();
    wait("the reset lifted", Duration::from_secs(20), || {
        ensure!(connect(&near, &leader, &address)?.0, "still refused");
        Ok(())
    })?;
    samples["lifted_after_ms"] = json!(u64::try_from(begin.elapsed().as_millis())?);
    wait_ready(platform, dark.name())?;
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    silent_agent(platform)?;
    Ok(samples)
}

fn darkness(
    platform: &Platform,
    near: &Host,
    leader: &MemberView,
    address: &str,
    idle: &Idle,
    (dark, cut): (&str, u64),
) -> Result<Value> {
    let down = wait("host down", Duration::from_secs(30), || went_down(platform, dark, cut))?;
    let gone = wait("the idle connection gone", Duration::from_secs(10), || {
        idle.ended()?.context("the idle connection is still open")
    })?;
    let after = gone.saturating_sub(down);
    ensure!(gone >= down, "gone {} ms before down: nothing was shown", down - gone);
    ensure!(after <= RESET_MAX_MS, "gone only {after} ms after down");
    let (open, took) = connect(near, leader, address)?;
    ensure!(!open && took < 1_000, "a new connection: open {open} after {took} ms");
    let text = serde_json::to_string(&platform.status()?)?;
    ensure!(text.contains("dark from here"), "status does not say that it is dark");
    Ok(json!({ "down_after_cut_ms": down - cut, "gone_after_down_ms": after, "refused_in_ms": took }))
}

/// The agent of a host is away, the host is not: an open connection stays open, and no role moves.
fn silent_agent(platform: &Platform) -> Result<()> {
    let name = platform.settings.service.as_str();
    let (leader, near, other, quiet) = pair(platform)?;
    let address = other.addresses.values().next().context("no address")?.to_string();
    let idle = Idle::open(&near, &leader, &address, "idle-quiet")?;
    let stopped = now_ms();
    quiet.unit_stop("muster-agent")?;
    let shown = (|| {
        wait("host down", Duration::from_secs(30), || went_down(platform, quiet.name(), stopped))?;
        sleep(SPELL);
        ensure!(idle.ended()?.is_none(), "a connection was reset although the host answers");
        ensure!(connect(&near, &leader, &address)?.0, "a new connection was refused");
        let text = serde_json::to_string(&platform.status()?)?;
        ensure!(text.contains("agent silent, host answers"), "status does not say so");
        Ok(())
    })();
    quiet.unit_start("muster-agent")?;
    shown?;
    wait_ready(platform, quiet.name())?;
    platform.wait_healthy(name, WHOLE)?;
    let (after, _) = platform.leader(name)?;
    ensure!(after.slot == leader.slot, "the leading role moved from {} to {}", leader.slot, after.slot);
    Ok(())
}
