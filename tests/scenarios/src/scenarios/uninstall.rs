//! A host that joins, carries a member with data, leaves, and is as it was before.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::Liveness;
use muster_testbed::Host;
use serde_json::{Value, json};

use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;

/// It boots one host more than the platform has.
pub const UNINSTALL: Scenario = Scenario {
    name: "uninstall",
    what: "a host joins, carries a member, is removed, uninstalled, and is as it was before; refused while it belongs",
    runs: 3,
    in_ci: false,
    medians: &[("differences", 0.0)],
    act: uninstall,
};

const WHOLE: Duration = Duration::from_secs(180);
const READY: Duration = Duration::from_secs(60);
const SETTLES: Duration = Duration::from_secs(5);

/// What is compared, each line by line: its name and the command that lists it.
const TRACES: &[(&str, &str)] = &[
    ("containers", "docker ps -a --format '{{.Names}}'"),
    ("volumes", "docker volume ls -q"),
    ("networks", "docker network ls --format '{{.Name}}'"),
    ("packet filter", "nft -s list ruleset"),
    ("devices", "ip -o link show | cut -d: -f2 | cut -d@ -f1"),
    ("routes", "ip route show table all"),
    ("mounts", "cut -d' ' -f2 /proc/self/mounts"),
    ("files", "find /var/lib/muster /run/muster /run/wireguard /etc/muster 2>/dev/null || true"),
    ("settings", "sysctl net.ipv4.ip_forward"),
];

/// Lines by what they are of.
type Traces = BTreeMap<&'static str, BTreeSet<String>>;

fn uninstall(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    let members = platform.wait_healthy(name, WHOLE)?.members.len();
    let booted = platform.testbed.up(platform.settings.hosts + 1)?;
    let host = booted.last().context("no host")?;
    // Addresses of its own come a moment after a device does.
    sleep(SETTLES);
    let before = traces(host)?;
    platform.join_agent(host)?;
    wait("the new host", READY, || {
        let status = platform.status()?;
        let row = status.hosts.iter().find(|row| row.name.as_str() == host.name()).context("no host")?;
        ensure!(row.liveness == Liveness::Ready && row.facts.memory_bytes > 0, "{:?}", row.liveness);
        Ok(())
    })?;
    scale(platform, host, name, members + 1, 1)?;
    let during = differences(&before, &traces(host)?).len();
    ensure!(during > 20, "only {during} traces while it carries a member: what is compared is too little");
    host.unit_stop("muster-agent")?;
    let refused = host.exec_within(&words(&["--yes", "--volumes"]), READY)?;
    ensure!(
        !refused.success() && refused.stderr.contains("muster host remove"),
        "not refused while it belongs: {}{}",
        refused.stdout,
        refused.stderr
    );
    host.unit_start("muster-agent")?;
    scale(platform, host, name, members, 0)?;
    platform.cli.run(&["--yes", "host", "remove", host.name()])?;
    for unit in ["muster-agent", "muster-mesh"] {
        host.unit_stop(unit)?;
    }
    let begin = Instant::now();
    let dry = exec(host, &words(&[]))?;
    ensure!(dry.contains("nothing was done"), "a dry run says {dry}");
    println!("{dry}");
    let done = exec(host, &words(&["--yes", "--volumes"]))?;
    println!("{done}");
    let took = begin.elapsed().as_secs_f64();
    let left = differences(&before, &traces(host)?);
    ensure!(left.is_empty(), "{} differences: {left:#?}", left.len());
    let again = exec(host, &words(&["--yes", "--volumes"]))?;
    ensure!(again.contains("nothing of ours"), "a second time it says {again}");
    Ok(json!({ "differences": left.len(), "while_it_served": during, "took_s": took }))
}

fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["muster-agent", "uninstall"].into_iter().chain(more.iter().copied()).collect()
}

/// Until the service has so many members, so many of them on the host.
fn scale(platform: &Platform, host: &Host, name: &str, members: usize, here: usize) -> Result<()> {
    platform.cli.run(&["--yes", "service", "scale", name, &members.to_string()])?;
    wait("the number of members", WHOLE, || {
        let service = platform.service(name)?;
        let found = service.members.iter().filter(|member| member.host.as_str() == host.name()).count();
        ensure!(service.members.len() == members && found == here, "{found} on {}", host.name());
        Ok(())
    })?;
    platform.wait_healthy(name, WHOLE).map(drop)
}

fn traces(host: &Host) -> Result<Traces> {
    let mut all = Traces::new();
    for (what, command) in TRACES {
        let text = exec(host, &["sh", "-ec", command])?;
        all.insert(what, text.lines().map(|line| line.trim().to_owned()).collect());
    }
    Ok(all)
}

/// What is there and was not, and what is not there any more.
fn differences(before: &Traces, after: &Traces) -> Vec<String> {
    let mut found = Vec::new();
    for (what, now) in after {
        let was = &before[what];
        found.extend(now.difference(was).map(|line| format!("{what}: new: {line}")));
        found.extend(was.difference(now).map(|line| format!("{what}: gone: {line}")));
    }
    found
}
