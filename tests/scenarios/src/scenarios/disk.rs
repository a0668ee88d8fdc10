//! Disks that fill up: what is placed, what goes on, what comes back by itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{Liveness, PlatformView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::postgres;
use crate::clock::{step, wait};
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::specs;
use crate::writer::{Writer, connections, judge_losses};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "disk-pressure",
    what: "disks of two hosts filled to 85 % and to the brim at once: said, nothing placed, nothing moved, writes go on, all resumes",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: pressure,
}];

const SOON: Duration = Duration::from_secs(60);
/// Nothing may happen for so long.
const STAYS: Duration = Duration::from_secs(30);
/// The disk of everything of ours: state of agent and coordinator, data of members.
const DISK_MIB: u64 = 1536;
const DISK: &str = "/var/lib/muster";
const FILLER: &str = "/var/lib/muster/filler";
const BALLAST: &str = "/var/lib/muster/agent/ballast";
const SPREAD: &str = "spread";
const PINNED: &str = "pinned";
const WRITER_PORT: u16 = 9_431;

pub fn prepare(platform: &Platform) -> Result<()> {
    platform.up()?;
    for host in platform.hosts()? {
        step(&format!("a disk of {DISK_MIB} MiB for {}", host.name()), || small_disk(&host))?;
    }
    platform.wait_for_voters(platform.hosts()?.len().min(3))?;
    postgres::bootstrap(platform).map(drop)
}

/// Moves everything of ours to a file system of its own, before there are any members.
fn small_disk(host: &Host) -> Result<()> {
    if exec(host, &["cat", "/proc/mounts"])?
        .lines()
        .any(|line| line.starts_with("/dev/loop") && line.contains(DISK))
    {
        return Ok(());
    }
    let units = ["muster-agent", "muster-coordinator"];
    for unit in units {
        host.unit_stop(unit)?;
    }
    let script = format!(
        "set -e; image=/var/lib/docker/muster-disk.img; test -e $image || {{ truncate -s {DISK_MIB}M $image; \
         mkfs.ext4 -q -m 0 $image; }}; mkdir -p /run/new-disk; mount -o loop $image /run/new-disk; \
         cp -a {DISK}/. /run/new-disk/; umount /run/new-disk; mount -o loop $image {DISK}"
    );
    exec(host, &["sh", "-c", &script])?;
    for unit in units {
        host.unit_start(unit)?;
    }
    Ok(())
}

/// Fills the disk to so many percent, with the ballast as it is now.
fn fill(host: &Host, percent: u64) -> Result<()> {
    let script = format!(
        "set -e; rm -f {FILLER}; set -- $(df -B1 --output=used,avail {DISK} | tail -1); \
         want=$(( ($1 + $2) * {percent} / 100 - $1 )); fallocate -l $want {FILLER}; df -h {DISK} | tail -1"
    );
    println!("   {}: {}", host.name(), exec(host, &["sh", "-c", &script])?.trim());
    Ok(())
}

fn has(host: &Host, path: &str) -> Result<bool> {
    Ok(host.exec(&["test", "-e", path])?.success())
}

fn members(status: &PlatformView) -> Vec<String> {
    let all = status.services.iter().flat_map(|service| &service.members);
    let mut all: Vec<String> =
        all.map(|m| format!("{} {} on {}, {:?}", m.slot, m.member, m.host, m.role)).collect();
    all.sort();
    all
}

fn wait_condition(platform: &Platform, host: &Host, code: Option<&str>) -> Result<String> {
    wait(&format!("{code:?} of {}", host.name()), SOON, || {
        let status = platform.status()?;
        let row = status.hosts.iter().find(|row| row.name.as_str() == host.name()).context("no host")?;
        let about_disk = row.conditions.iter().find(|condition| condition.code.starts_with("disk-"));
        ensure!(about_disk.map(|condition| condition.code.as_str()) == code, "{about_disk:?}");
        Ok(about_disk.map(|condition| condition.text.clone()).unwrap_or_default())
    })
}

/// The usual services, and two applications that are new: one that would be spread over all hosts, and one that may run
/// on one host only.
fn with_more(platform: &Platform, only: Option<&Host>) -> Result<String> {
    let settings = &platform.settings;
    let app = |name, count| specs::app(settings, count, name).replacen(settings.app.as_str(), name, 1);
    let mut all = postgres::spec(platform, specs::IMAGE)? + &app(SPREAD, 2);
    if let Some(host) = only {
        all += &format!("{}    place: {{ hosts: [{}] }}\n", app(PINNED, 1), host.name());
    }
    Ok(all)
}

fn pressure(platform: &Platform) -> Result<Value> {
    let hosts = platform.hosts()?;
    let [one, two, quiet, ..] = hosts.as_slice() else { anyhow::bail!("three hosts are needed") };
    platform.wait_healthy(platform.settings.service.as_str(), SOON)?;
    wait("ballast on both", SOON, || {
        ensure!(has(one, BALLAST)? && has(two, BALLAST)?, "not yet");
        Ok(())
    })?;
    let writer = Writer::start(quiet.clone(), "disk", &connections(platform, "write")?, WRITER_PORT)?;
    writer.wait_steady()?;

    fill(one, 88)?;
    let said_85 = wait_condition(platform, one, Some("disk-nearly-full"))?;
    platform.apply(&with_more(platform, None)?)?;
    let spread = platform.wait_healthy(SPREAD, SOON)?;
    let placed: Vec<&str> = spread.members.iter().map(|member| member.host.as_str()).collect();
    ensure!(!placed.contains(&one.name()), "placed on {placed:?}");

    let before = members(&platform.status()?);
    let begin = Instant::now();
    fill(one, 98)?;
    fill(two, 98)?;
    let said_95 = wait_condition(platform, one, Some("disk-full"))?;
    wait_condition(platform, two, Some("disk-full"))?;
    let told = begin.elapsed().as_secs_f64();
    ensure!(!has(one, BALLAST)? && !has(two, BALLAST)?, "the ballast is still there");
    let looks = nothing_happens(platform, &before)?;
    let refused = refused_there(platform, one)?;

    for host in [one, two] {
        exec(host, &["rm", FILLER])?;
    }
    let begin = Instant::now();
    for host in [one, two] {
        wait_condition(platform, host, None)?;
    }
    let back = begin.elapsed().as_secs_f64();
    wait("ballast back", SOON, || {
        ensure!(has(one, BALLAST)? && has(two, BALLAST)?, "not yet");
        Ok(())
    })?;
    ensure!(members(&platform.status()?) == before, "{before:?} became {:?}", members(&platform.status()?));
    // What was refused is placed there now.
    platform.apply(&with_more(platform, Some(one))?)?;
    platform.wait_healthy(PINNED, SOON)?;
    for service in [SPREAD, PINNED] {
        platform.cli.run(&["--yes", "service", "remove", service, "--destroy-data"])?;
    }
    let acknowledged = writer.acknowledged()?;
    let gap = acknowledged.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default();
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    ensure!(gap < 5_000, "no write for {gap} ms");
    Ok(json!({
        "said_at_85": said_85, "said_at_95": said_95, "told_after_s": told, "resumed_after_s": back,
        "looks": looks, "refused": refused, "acked": summary["acked"], "max_gap_ms": gap,
    }))
}

/// Beats go on and no member moves, restarts elsewhere or changes its role.
fn nothing_happens(platform: &Platform, before: &[String]) -> Result<u32> {
    let begin = Instant::now();
    let mut looks = 0;
    while begin.elapsed() < STAYS {
        let status = platform.status()?;
        let silent = status.hosts.iter().find(|host| host.liveness != Liveness::Ready);
        ensure!(silent.is_none(), "{silent:?}");
        let now = members(&status);
        ensure!(now == before, "{before:?} became {now:?}");
        looks += 1;
        sleep(Duration::from_millis(200));
    }
    Ok(looks)
}

/// What `plan` says of an application that may run on the full host only.
fn refused_there(platform: &Platform, host: &Host) -> Result<String> {
    let path = platform.write_spec("full.yaml", &with_more(platform, Some(host))?)?;
    let out = platform.cli.output(&["plan", &path.to_string_lossy()])?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let line = said.lines().find(|line| line.contains("nearly full"));
    Ok(line.with_context(|| format!("the plan says nothing of the disk: {said}"))?.trim().to_owned())
}
