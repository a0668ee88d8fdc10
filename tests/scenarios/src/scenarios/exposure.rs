//! Every listening port of every member and host, and ports at random, tried from clients in every network: what answers
//! is exactly what the plans declare.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use muster_model::network::{Audience, Protocol};
use muster_model::plan::HostPlan;
use muster_model::view::PlatformView;
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use super::together::{spec, wait_whole};
use crate::clock::now_ms;
use crate::connects::{from_network_of, listener_in_network_of};
use crate::platform::Platform;
use crate::run::Scenario;

pub const EXPOSURE: Scenario = Scenario {
    name: "exposure",
    what: "from clients in every network, every port that anybody listens on and ports at random, at every member and host: only declared ones answer",
    runs: 3,
    in_ci: false,
    medians: &[("wrong", 0.0)],
    act: exposure,
};

/// Networks, and whether members in them may open connections that leave the network.
const NETWORKS: &[(&str, bool)] =
    &[("dbnet", false), ("cachenet", false), ("stornet", false), ("proxy", true)];
const AT_RANDOM: u64 = 200;
/// Nobody declares it; a listener of ours in every member's network shows that the filter is what keeps it shut.
const PLANTED: u16 = 47_001;

/// What a member declares, and where.
struct Target {
    of: String,
    address: IpAddr,
    /// Network of the address.
    network: String,
    /// TCP ports that clients in the network may reach.
    open: BTreeSet<u16>,
}

/// A client in one network.
struct Source {
    name: String,
    network: &'static str,
    leaves: bool,
    /// `/proc/...` of one of its processes.
    process: String,
}

fn exposure(platform: &Platform) -> Result<Value> {
    let own = spec(platform)?;
    let clients: String = NETWORKS.iter().map(|(network, _)| client(network)).collect();
    platform.apply(&format!("{own}{clients}"))?;
    let shown = wait_whole(platform).and_then(|status| tried(platform, &status));
    for (network, _) in NETWORKS {
        platform.cli.run(&[
            "--yes",
            "service",
            "remove",
            &format!("exposure-{network}"),
            "--destroy-data",
        ])?;
    }
    platform.apply(&own)?;
    wait_whole(platform)?;
    shown
}

fn client(network: &str) -> String {
    format!(
        "  exposure-{network}:
    kind: app
    image: muster/busybox:1.35
    command: [sleep, \"1000000\"]
    networks: [{network}]
    replicas: 2
    stop: {{ timeout: 1s }}
"
    )
}

fn tried(platform: &Platform, status: &PlatformView) -> Result<Value> {
    let begin = Instant::now();
    let targets = targets(platform)?;
    let sources = sources(platform, status)?;
    let mut ports = listening(platform)?;
    let heard = ports.len();
    ensure!(heard > 10, "only {heard} listening ports were found");
    ports.extend(targets.iter().flat_map(|target| target.open.iter().copied()));
    ports.extend(at_random());
    ports.insert(PLANTED);
    let planted = plant(platform, status)?;
    let hosts: BTreeMap<IpAddr, String> =
        platform.hosts()?.iter().map(|host| (host.address().into(), host.name().to_owned())).collect();
    let endpoints = status.coordinators.iter().map(|one| one.endpoint.parse());
    let coordinators: Vec<SocketAddr> = endpoints.collect::<Result<_, _>>()?;
    let mut wrong = Vec::new();
    let (mut tries, mut open) = (0, 0);
    thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = sources
            .iter()
            .map(|source| scope.spawn(|| from(source, &targets, &ports, &coordinators, &hosts)))
            .collect();
        for one in running {
            let (count, answered, faults) = one.join().map_err(|_| anyhow!("a source panicked"))??;
            (tries, open) = (tries + count, open + answered);
            wrong.extend(faults);
        }
        Ok(())
    })?;
    drop(planted);
    ensure!(wrong.is_empty(), "{} of {tries} are wrong: {wrong:#?}", wrong.len());
    ensure!(open > 20, "only {open} declared ports answered");
    Ok(json!({
        "sources": sources.len(), "targets": targets.len() + hosts.len(), "ports": ports.len(), "listening": heard,
        "tries": tries, "open": open, "wrong": wrong.len(), "took_s": begin.elapsed().as_secs_f64(),
    }))
}

/// All from one source: how many tries, how many answers, what is wrong.
fn from(
    source: &Source,
    targets: &[Target],
    ports: &BTreeSet<u16>,
    coordinators: &[SocketAddr],
    hosts: &BTreeMap<IpAddr, String>,
) -> Result<(usize, usize, Vec<String>)> {
    let mut must = BTreeSet::new();
    let mut names = hosts.clone();
    for target in targets {
        names.insert(target.address, target.of.clone());
        if target.network == source.network {
            must.extend(target.open.iter().map(|port| SocketAddr::new(target.address, *port)));
        }
    }
    if source.leaves {
        must.extend(coordinators.iter().copied());
    }
    let all: BTreeSet<SocketAddr> = names
        .keys()
        .flat_map(|address| ports.iter().map(|port| SocketAddr::new(*address, *port)))
        .chain(must.iter().copied())
        .collect();
    let found = from_network_of(&source.process, &all, &must)?;
    let told = |word: &'static str| {
        let names = &names;
        move |to: &SocketAddr| format!("{} {word} {to} of {}", source.name, names[&to.ip()])
    };
    let mut wrong: Vec<String> = found.difference(&must).map(told("reaches")).collect();
    wrong.extend(must.difference(&found).map(told("does not reach")));
    Ok((all.len(), found.len(), wrong))
}

/// What the hosts' plans declare, of all members but our clients.
fn targets(platform: &Platform) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    for host in platform.hosts()? {
        let text = fs::read_to_string(host.dir().join("muster/agent/plan.json"))?;
        let plan: HostPlan = serde_json::from_str(&text).context("the stored plan")?;
        for member in plan.members.iter().filter(|one| !one.slot.service.as_str().starts_with("exposure-")) {
            for place in &member.addresses {
                let reachable = member.rendered.ports.iter().filter(|port| {
                    port.protocol == Protocol::Tcp
                        && port.audience != Audience::Members
                        && port.only.as_ref().is_none_or(|only| *only == place.network)
                });
                all.push(Target {
                    of: format!("{} on {}", member.slot, host.name()),
                    address: place.address.into(),
                    network: place.network.to_string(),
                    open: reachable.map(|port| port.port).collect(),
                });
            }
        }
    }
    ensure!(all.len() > 10, "only {} targets", all.len());
    Ok(all)
}

fn sources(platform: &Platform, status: &PlatformView) -> Result<Vec<Source>> {
    let mut all = Vec::new();
    for (network, leaves) in NETWORKS {
        let name = format!("exposure-{network}");
        let service = status.services.iter().find(|one| one.name.as_str() == name);
        for member in &service.with_context(|| format!("no service {name}"))?.members {
            let host = platform.testbed.host(member.host.as_str())?;
            all.push(Source {
                name: format!("{} on {}", member.slot, host.name()),
                network,
                leaves: *leaves,
                process: process(&host, &container(&host, member)?)?,
            });
        }
    }
    Ok(all)
}

/// The first process of a container, as this machine sees it.
fn process(host: &Host, container: &str) -> Result<String> {
    let words = ["inspect", "-f", "{{.State.Pid}}", container];
    let inside = host.docker(&words, std::time::Duration::from_secs(20))?;
    let root = host.pid().with_context(|| format!("{} is off", host.name()))?;
    Ok(format!("/proc/{root}/root/proc/{}", inside.trim()))
}

/// Every TCP port that anybody listens on, in the hosts and in all their containers.
fn listening(platform: &Platform) -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for host in platform.hosts()? {
        let root = host.pid().with_context(|| format!("{} is off", host.name()))?;
        let processes = fs::read_dir(format!("/proc/{root}/root/proc"))?;
        for entry in
            processes.flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        {
            for table in ["net/tcp", "net/tcp6"] {
                let text = fs::read_to_string(entry.path().join(table)).unwrap_or_default();
                ports.extend(text.lines().skip(1).filter_map(listener));
            }
        }
    }
    Ok(ports)
}

/// The port of a line of `/proc/net/tcp` that is a listener's.
fn listener(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    (state == "0A").then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok()).flatten()
}

/// Ports that nobody chose.
fn at_random() -> BTreeSet<u16> {
    let mut seed = now_ms() | 1;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        u16::try_from(1 + seed % 65_535).unwrap_or(1)
    };
    (0..AT_RANDOM).map(|_| next()).collect()
}

/// Listeners that nobody declared; they end when dropped.
struct Planted(Vec<std::process::Child>);

impl Drop for Planted {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn plant(platform: &Platform, status: &PlatformView) -> Result<Planted> {
    let mut planted = Planted(Vec::new());
    for service in status.services.iter().filter(|one| !one.name.as_str().starts_with("exposure-")) {
        for member in &service.members {
            let host = platform.testbed.host(member.host.as_str())?;
            let process = process(&host, &container(&host, member)?)?;
            planted.0.push(listener_in_network_of(&process, PLANTED)?);
        }
    }
    ensure!(!planted.0.is_empty(), "no listener was planted");
    Ok(planted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read() {
        let line =
            "   0: 0100007F:1CE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(listener(line), Some(7_400));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert!(at_random().len() > 100);
    }
}
