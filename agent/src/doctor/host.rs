//! Checks of the host itself: programs, kernel settings, addresses, coordinators, clock, disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::finding::Finding;
use crate::network::command::run;
use crate::network::engine::EngineNetwork;
use crate::network::names::DEVICE;
use crate::network::routes;

/// Longest time until a coordinator must accept.
const CONNECT: Duration = Duration::from_secs(3);

/// A clock before this moment (2026-01-01) was never set.
const YEAR_MIN_S: u64 = 1_767_225_600;

/// A clock after this moment (2100-01-01) is wrong too.
const YEAR_MAX_S: u64 = 4_102_444_800;

/// Free space below which a host gets no new work, and below which nothing can be written safely, in percent.
const FREE_WARN: u64 = 15;
const FREE_FAIL: u64 = 5;

/// `nft` and `iptables`.
pub async fn programs() -> Vec<Finding> {
    let nft = match run("nft", &["list", "tables"], "").await {
        Ok(_) => Finding::ok("nftables", "usable"),
        Err(error) => Finding::fail(
            "nftables",
            error.to_string(),
            "install the package nftables; run the doctor as root",
        ),
    };
    let iptables = match run("iptables", &["-V"], "").await {
        Ok(version) => Finding::ok("iptables", version.trim().to_owned()),
        Err(error) => Finding::fail("iptables", error.to_string(), "install the package iptables"),
    };
    vec![nft, iptables]
}

/// Bridge filtering and forwarding.
pub async fn kernel() -> Vec<Finding> {
    let table = "table bridge muster-doctor { chain c { type filter hook forward priority 0; ip frag-off 0 accept; }; }";
    let frames = run("nft", &["-c", "-f", "-"], table).await.is_ok();
    let bridged = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").ok();
    let bridge = match (bridged.as_deref().map(str::trim), frames) {
        (Some("1"), true) => {
            Finding::ok("bridge filter", "nftables family bridge, and bridge-nf-call-iptables = 1")
        }
        (Some("1"), false) => Finding::ok("bridge filter", "bridge-nf-call-iptables = 1"),
        (_, true) => Finding::ok("bridge filter", "nftables family bridge"),
        (Some(_), false) => Finding::ok("bridge filter", "bridge-nf-call-iptables is 0; the agent sets it"),
        (None, false) => Finding::fail(
            "bridge filter",
            "members on one bridge cannot be kept apart",
            "`modprobe br_netfilter`, or a kernel with nftables for family bridge",
        ),
    };
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    let forward = if forward.trim() == "1" {
        Finding::ok("ip_forward", "1")
    } else {
        Finding::warn(
            "ip_forward",
            "0; Docker and the agent set it",
            "look for a sysctl file that sets it back to 0",
        )
    };
    vec![bridge, forward]
}

/// Routes and Docker networks of others inside the platform's subnets.
pub async fn overlaps(subnets: &[Ipv4Net], networks: &[EngineNetwork]) -> Vec<Finding> {
    let check = "subnets";
    let routes = match routes::read().await {
        Ok(routes) => routes,
        Err(error) => return vec![Finding::fail(check, error.to_string(), "install the package iproute2")],
    };
    let mine = |network: &&EngineNetwork| network.platform().is_some();
    let bridges = networks.iter().filter(mine).filter_map(EngineNetwork::bridge).map(str::to_owned);
    let ours: BTreeSet<String> = bridges.chain([DEVICE.to_owned()]).collect();
    let remedy = "remove it, or give the platform other subnets in its spec before members are placed";
    let mut findings = Vec::new();
    for subnet in subnets {
        if let Some((net, device)) = routes::overlap(&routes, *subnet, &ours) {
            findings.push(Finding::fail(
                check,
                format!("{subnet} overlaps the route to {net} through {device}"),
                remedy,
            ));
        }
        let touches = |net: &Ipv4Net| net.contains(subnet) || subnet.contains(net);
        for other in networks.iter().filter(|network| !mine(network) && network.subnets.iter().any(touches)) {
            findings.push(Finding::fail(
                check,
                format!("{subnet} overlaps Docker network {}", other.name),
                remedy,
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            format!("{} subnets, no other route or network in them", subnets.len()),
        ));
    }
    findings
}

/// Whether a coordinator accepts connections.
pub async fn coordinator(address: &str) -> Finding {
    let start = Instant::now();
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => {
            Finding::ok("coordinator", format!("{address} answers in {} ms", start.elapsed().as_millis()))
        }
        Ok(Err(error)) => {
            Finding::fail("coordinator", format!("{address}: {error}"), "start it, or open its port")
        }
        Err(_) => Finding::fail(
            "coordinator",
            format!("{address} does not answer within {} s", CONNECT.as_secs()),
            "open its TCP port in the firewalls between",
        ),
    }
}

/// Certificates are refused when the clock is wrong.
pub async fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !(YEAR_MIN_S..YEAR_MAX_S).contains(&now) {
        let remedy = "set it (`date -s`) and keep it with systemd-timesyncd or chrony";
        return Finding::fail("clock", format!("{now} s since 1970 cannot be now"), remedy);
    }
    let kept = run("timedatectl", &["show", "-p", "NTPSynchronized", "--value"], "").await;
    if kept.is_ok_and(|text| text.trim() == "yes") {
        return Finding::ok("clock", "synchronised");
    }
    Finding::warn(
        "clock",
        "plausible, but nothing says that it is kept",
        "install systemd-timesyncd or chrony: a clock that is off by an hour makes certificates invalid",
    )
}

/// Free space where the agent keeps its state and the members' data.
pub fn disk(dir: &Path) -> Finding {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("/"));
    let stat = match rustix::fs::statvfs(existing) {
        Ok(stat) if stat.f_blocks > 0 => stat,
        Ok(_) => {
            return Finding::warn("disk", format!("{} has no size", existing.display()), "use a real disk");
        }
        Err(error) => {
            return Finding::fail("disk", format!("{}: {error}", existing.display()), "check the mount");
        }
    };
    let free = stat.f_bavail.saturating_mul(100) / stat.f_blocks;
    let gib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 30;
    let text = format!("{free} % ({gib} GiB) free at {}", existing.display());
    match free {
        ..FREE_FAIL => Finding::fail("disk", text, "free space: nothing new starts here"),
        FREE_FAIL..FREE_WARN => {
            Finding::warn("disk", text, "free space: below 15 % the host gets no new work")
        }
        _ => Finding::ok("disk", text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[tokio::test]
    async fn a_closed_port_of_a_coordinator_is_a_failure_and_an_open_one_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(coordinator(&address).await.verdict, Verdict::Ok);
        drop(listener);
        assert_eq!(coordinator(&address).await.verdict, Verdict::Fail);
    }

    #[test]
    fn the_disk_of_a_directory_that_is_not_made_yet_is_that_of_its_parent() {
        let found = disk(Path::new("/tmp/no/such/dir"));
        assert!(found.finding.ends_with("free at /tmp"), "{}", found.finding);
    }
}
