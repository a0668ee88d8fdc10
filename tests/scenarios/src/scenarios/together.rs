//! All engines on one platform, two services of one kind among them: do they fit, and is what `whatif` says what happens?

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, PlatformView, ServiceView, WhatIfView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::quickstart::{adapted, examples};
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::writer::{Writer, connections_of, judge_losses};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "all-engines",
        what: "every engine on three hosts from one file, all written to at once: memory",
        runs: 3,
        in_ci: false,
        medians: &[("mib", 6_144.0)],
        act: all_engines,
    },
    Scenario {
        name: "all-engines-whatif",
        what: "each host, then each pair of hosts, killed in turn under writes to every engine: what was predicted is what happened",
        runs: 1,
        in_ci: false,
        medians: &[("wrong", 0.0)],
        act: what_if,
    },
    super::canary::CANARY,
    super::exposure::EXPOSURE,
    super::maintenance::MAINTENANCE,
    super::maintenance::REBOOT,
];

const WHOLE: Duration = Duration::from_secs(420);
/// Time in which a prediction must have come true: longer than the slowest engine's own detection.
const TRUE_AFTER: Duration = Duration::from_secs(45);
const FIRST_PORT: u16 = 9_421;

/// The file: `MUSTER_SHOW_SPEC`, or the example with all engines.
pub fn spec(platform: &Platform) -> Result<String> {
    let path =
        std::env::var_os("MUSTER_SHOW_SPEC").map_or_else(|| examples().join("data-ha.yaml"), PathBuf::from);
    let yaml = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let etcd = platform.etcd_image()?;
    let lines: Vec<String> = yaml.lines().map(|line| adapted(line, platform, &etcd)).collect();
    Ok(lines.join("\n") + "\n")
}

/// Brings the platform and its services up where they are not.
pub fn prepare(platform: &Platform) -> Result<()> {
    platform.up()?;
    platform.apply(&spec(platform)?)?;
    wait_whole(platform).map(drop)
}

/// Everything healthy, nothing on its way.
pub fn wait_whole(platform: &Platform) -> Result<PlatformView> {
    wait("everything healthy", WHOLE, || {
        let status = platform.status()?;
        for service in &status.services {
            let health = &service.health;
            ensure!(
                health.word == HealthWord::Healthy,
                "{} is {}: {}",
                service.name,
                health.word,
                health.reasons.join("; ")
            );
        }
        ensure!(status.operations.is_empty(), "operation {} runs", status.operations[0].id);
        Ok(status)
    })
}

/// The services that the file names.
fn written(status: &PlatformView) -> impl Iterator<Item = &ServiceView> {
    status.services.iter().filter(|service| service.owner.is_none())
}

/// One writer for each service, all on one host.
pub fn writers(platform: &Platform, host: &Host) -> Result<Vec<(String, Writer)>> {
    let status = platform.status()?;
    let mut all = Vec::new();
    for (port, service) in (FIRST_PORT..).zip(written(&status)) {
        let name = service.name.as_str();
        let endpoints = connections_of(platform, name, "write")?;
        let writer =
            Writer::of(service.kind.as_str(), host.clone(), &format!("all-{name}"), &endpoints, port)?;
        all.push((name.to_owned(), writer));
    }
    for (name, writer) in &all {
        writer.wait_steady().with_context(|| name.clone())?;
    }
    Ok(all)
}

/// What was acknowledged, by service; nothing of it may be lost.
pub fn end(writers: Vec<(String, Writer)>, may_lose: &[String]) -> Result<Value> {
    let mut acked = serde_json::Map::new();
    for (name, writer) in writers {
        let summary = writer.finish().with_context(|| name.clone())?;
        if !may_lose.contains(&name) {
            judge_losses(&summary, 20).with_context(|| name.clone())?;
        }
        acked.insert(name, json!({
            "acked": summary["acked"], "lost": summary["acked_lost_count"], "max_gap_ms": summary["max_gap_ms"],
        }));
    }
    Ok(Value::Object(acked))
}

/// Memory of every process of a host, each shared page counted once, without the page cache. MiB.
fn memory_mib(host: &Host) -> Result<f64> {
    let sum = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss_(Anon|Shmem):/ { kib += $2 } END { print kib }'";
    let said = exec(host, &["/bin/sh", "-c", sum])?;
    let kib: f64 = said.trim().parse().with_context(|| format!("memory of {}: {said}", host.name()))?;
    ensure!(kib > 0.0, "no process was seen on {}", host.name());
    Ok(kib / 1_024.0)
}

fn all_engines(platform: &Platform) -> Result<Value> {
    let begin = Instant::now();
    let status = wait_whole(platform)?;
    let kinds: Vec<&str> = written(&status).map(|service| service.kind.as_str()).collect();
    let hosts = platform.hosts()?;
    let members: usize = status.services.iter().map(|service| service.members.len()).sum();
    let writers = writers(platform, hosts.first().context("no host")?)?;
    sleep(Duration::from_secs(20));
    let by_host: Vec<f64> = hosts.iter().map(memory_mib).collect::<Result<_>>()?;
    let acked = end(writers, &[])?;
    Ok(json!({
        "kinds": kinds, "members": members, "mib": by_host.iter().sum::<f64>(), "mib_by_host": by_host,
        "writes": acked, "took_s": begin.elapsed().as_secs_f64(),
    }))
}

/// Hosts killed together: every service's prediction beside what was seen.
fn cells(platform: &Platform, lost: &[Host]) -> Result<Vec<Value>> {
    wait_whole(platform)?;
    let names: Vec<&str> = lost.iter().map(Host::name).collect();
    let words = [&["whatif", "host", "down"], names.as_slice()].concat();
    let predicted: WhatIfView = platform.cli.json(&words)?;
    let hosts = platform.hosts()?;
    let other = hosts.iter().find(|other| !names.contains(&other.name())).context("no other host")?;
    let writers = writers(platform, other)?;
    for host in lost {
        host.kill()?;
    }
    sleep(TRUE_AFTER);
    let count = |writer: &Writer| writer.acknowledged().map(|all| all.len());
    let before: Vec<usize> = writers.iter().map(|(_, writer)| count(writer)).collect::<Result<_>>()?;
    sleep(Duration::from_secs(4));
    let mut cells = Vec::new();
    for ((name, writer), before) in writers.iter().zip(before) {
        let said = predicted.services.iter().find(|s| s.service.as_str() == name).context("not predicted")?;
        let (writes, left) = (count(writer)? > before, left_members(platform, name)?);
        // Without a majority of coordinators nobody says how many are left.
        let right = said.writes == writes && left.is_none_or(|left| said.copies_left as usize == left);
        cells.push(json!({
            "lost": names, "service": name, "predicted": { "writes": said.writes, "copies": said.copies_left },
            "seen": { "writes": writes, "copies": left }, "right": right,
        }));
    }
    for host in lost {
        platform.testbed.start(host.name())?;
    }
    wait_whole(platform)?;
    // Asynchronous replicas: the prediction says so beforehand.
    let may_lose: Vec<String> = predicted
        .services
        .iter()
        .filter(|service| !service.may_lose.is_empty())
        .map(|service| service.service.to_string())
        .collect();
    end(writers, &may_lose)?;
    Ok(cells)
}

/// Members that serve, as the coordinators say; absent while they have no majority.
fn left_members(platform: &Platform, name: &str) -> Result<Option<usize>> {
    if platform.status().is_err() {
        return Ok(None);
    }
    ready_members(platform, name).map(Some)
}

fn ready_members(platform: &Platform, name: &str) -> Result<usize> {
    Ok(platform.service(name)?.members.iter().filter(|member| member.ready).count())
}

fn what_if(platform: &Platform) -> Result<Value> {
    let hosts = platform.hosts()?;
    let mut all = Vec::new();
    for host in &hosts {
        all.extend(cells(platform, std::slice::from_ref(host))?);
    }
    for (first, one) in hosts.iter().enumerate() {
        for two in &hosts[first + 1..] {
            all.extend(cells(platform, &[one.clone(), two.clone()])?);
        }
    }
    let wrong = all.iter().filter(|cell| cell["right"] != true).count();
    Ok(json!({ "cells": all, "wrong": wrong }))
}
