//! The control plane's own disasters: what runs on the hosts must not notice.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::faults::starts;
use super::postgres;
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::specs;
use crate::writer::{Writer, connections, judge_losses};

/// Three hosts with a coordinator each. The first one survives, since joiners are sent to it.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "coordinator-replace",
        what: "a coordinator lost for good is removed while it is down, and another joins in its place, under writes",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: replace,
    },
    Scenario {
        name: "recover",
        what: "two of three coordinators lost for good: the third goes on alone, two join anew, no container restarts",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: recover,
    },
    Scenario {
        name: "rebuild",
        what: "all three coordinators and their disks lost under writes: rebuilt from the agents, no container restarts",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: rebuild,
    },
    Scenario {
        name: "snapshot-restore",
        what: "set back to a snapshot from before a service was made: it is found, not stopped, until an operator says so",
        runs: 1,
        in_ci: false,
        medians: &[],
        act: restore,
    },
];

const WHOLE: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);
const WRITER_PORT: u16 = 9_421;
const DIR: &str = "/var/lib/muster/coordinator";
const CONTEXT: &str = "/var/lib/muster/coordinator/admin.context.json";
/// The service that the snapshot does not know.
const LATE: &str = "latecomer";
const UNIT: &str = "muster-coordinator";

type Starts = BTreeMap<String, BTreeMap<String, String>>;

fn all_starts(hosts: &[Host]) -> Result<Starts> {
    hosts.iter().map(|host| Ok((host.name().to_owned(), starts(host)?))).collect()
}

/// Kills a coordinator and takes everything that it had.
fn lose(host: &Host) -> Result<()> {
    host.unit_stop(UNIT)?;
    exec(host, &["rm", "-rf", DIR]).map(drop)
}

fn writer(platform: &Platform, host: &Host) -> Result<Writer> {
    let writer = Writer::start(host.clone(), "control-plane", &connections(platform, "write")?, WRITER_PORT)?;
    writer.wait_steady()?;
    Ok(writer)
}

/// Acknowledged rows, and the longest gap in milliseconds; none may be lost.
fn end(writer: Writer) -> Result<(Value, u64)> {
    let gaps = writer.acknowledged()?;
    let gap = gaps.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default();
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    Ok((summary["acked"].clone(), gap))
}

fn three(platform: &Platform) -> Result<[Host; 3]> {
    let hosts = platform.hosts()?;
    let three: Option<[Host; 3]> = hosts.get(..3).and_then(|three| three.to_vec().try_into().ok());
    three.context("this needs three hosts")
}

fn settled(platform: &Platform) -> Result<()> {
    wait("inventories", SOON, || {
        let waits =
            platform.status()?.notices.into_iter().find(|notice| notice.contains("inventory is awaited"));
        ensure!(waits.is_none(), "{waits:?}");
        Ok(())
    })
}

fn replace(platform: &Platform) -> Result<Value> {
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE)?;
    let hosts = three(platform)?;
    let before = all_starts(&hosts)?;
    let writer = writer(platform, &hosts[0])?;
    let begin = Instant::now();
    lose(&hosts[2])?;
    wait("its removal", SOON, || platform.cli.run(&["--yes", "coordinator", "remove", hosts[2].name()]))?;
    let removed = begin.elapsed().as_secs_f64();
    platform.join_coordinator(&hosts[2])?;
    platform.wait_for_voters(3)?;
    let whole = begin.elapsed().as_secs_f64();
    let (acked, gap) = end(writer)?;
    ensure!(all_starts(&hosts)? == before, "containers were restarted");
    Ok(json!({ "removed_after_s": removed, "three_after_s": whole, "acked": acked, "gap_ms": gap }))
}

fn recover(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    platform.wait_healthy(service, WHOLE)?;
    let hosts = three(platform)?;
    let before = all_starts(&hosts)?;
    let writer = writer(platform, &hosts[0])?;
    let begin = Instant::now();
    lose(&hosts[1])?;
    lose(&hosts[2])?;
    hosts[0].unit_stop(UNIT)?;
    let said = exec(&hosts[0], &["muster-coordinator", "recover", "--i-have-compared"])?;
    ensure!(said.contains("incarnation"), "{said}");
    hosts[0].unit_start(UNIT)?;
    wait("the recovered platform", SOON, || platform.status())?;
    let back = begin.elapsed().as_secs_f64();
    whole_again(platform, &hosts)?;
    let whole = begin.elapsed().as_secs_f64();
    let (acked, gap) = end(writer)?;
    let after = all_starts(&hosts)?;
    ensure!(after == before, "containers were restarted: {before:?} became {after:?}");
    let containers: usize = before.values().map(BTreeMap::len).sum();
    Ok(json!({
        "answers_after_s": back, "three_and_healthy_after_s": whole, "containers": containers, "acked": acked, "gap_ms": gap
    }))
}

/// From one coordinator to three, and the database healthy.
fn whole_again(platform: &Platform, hosts: &[Host]) -> Result<()> {
    settled(platform)?;
    platform.join_coordinator(&hosts[1])?;
    platform.join_coordinator(&hosts[2])?;
    platform.wait_for_voters(3)?;
    platform.wait_healthy(platform.settings.service.as_str(), WHOLE).map(drop)
}

/// As `scp` would.
fn put(host: &Host, file: &str, content: &str) -> Result<()> {
    let mut command = host.command(&["sh", "-c", "umask 077; cat > \"$0\"", file])?;
    let mut child = command.stdin(Stdio::piped()).spawn().context("writing inside")?;
    child.stdin.take().context("no way in")?.write_all(content.as_bytes())?;
    ensure!(child.wait()?.success(), "{file} could not be written");
    Ok(())
}

fn rebuild(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    platform.wait_healthy(service, WHOLE)?;
    let hosts = three(platform)?;
    let all = platform.hosts()?;
    let members = |platform: &Platform| -> Result<Vec<String>> {
        let services = platform.status()?.services;
        let lines = services.iter().flat_map(|one| &one.members);
        let mut lines: Vec<String> =
            lines.map(|m| format!("{} {} {} {}", m.slot, m.member, m.host, m.revision)).collect();
        lines.sort();
        Ok(lines)
    };
    let (before, known) = (all_starts(&all)?, members(platform)?);
    let writer = writer(platform, &hosts[0])?;
    let begin = Instant::now();
    hosts.iter().try_for_each(lose)?;
    let mut words = ["muster-coordinator", "rebuild", "--name", hosts[0].name()].map(str::to_owned).to_vec();
    words.extend(["--advertise".to_owned(), platform.endpoint(&hosts[0])]);
    for host in &all {
        let (file, name) = (format!("/root/{}.bundle", host.name()), host.name());
        exec(host, &["rm", "-f", &file])?;
        print!(
            "{name}$ muster-agent bundle --out {file}\n{}",
            exec(host, &["muster-agent", "bundle", "--out", &file])?
        );
        let there = exec(host, &["cat", &file])?;
        exec(host, &["rm", "-f", &file])?;
        put(&hosts[0], &file, &there)?;
        words.extend(["--from".to_owned(), file]);
    }
    let typed: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = exec(&hosts[0], &typed)?;
    println!("$ {}\n{said}", words.join(" "));
    platform.rejoin(&hosts[0])?;
    let back = begin.elapsed().as_secs_f64();
    for host in &all {
        host.unit_stop("muster-agent")?;
        println!("{}", platform.adopt(host)?);
        host.unit_start("muster-agent")?;
    }
    whole_again(platform, &hosts)?;
    let whole = begin.elapsed().as_secs_f64();
    let (acked, gap) = end(writer)?;
    let after = all_starts(&all)?;
    ensure!(after == before, "containers were restarted: {before:?} became {after:?}");
    let now = members(platform)?;
    ensure!(now == known, "other members: {known:?} became {now:?}");
    platform.apply(&postgres::spec(platform, specs::NEXT)?)?;
    platform.wait_healthy(service, WHOLE)?;
    ensure!(all_starts(&all)? != before, "the update changed nothing");
    let containers: usize = before.values().map(BTreeMap::len).sum();
    Ok(json!({
        "answers_after_s": back, "three_and_healthy_after_s": whole, "containers": containers, "acked": acked, "gap_ms": gap
    }))
}

fn restore(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    platform.wait_healthy(service, WHOLE)?;
    let hosts = three(platform)?;
    let file = "/var/lib/muster/before.snapshot";
    exec(&hosts[0], &["rm", "-f", file])?;
    let program = "/usr/local/lib/muster/muster";
    exec(&hosts[0], &[program, "--context", CONTEXT, "snapshot", "save", file])?;
    let more = specs::client(LATE, &platform.settings, "proxy", 3, false);
    platform.apply(&(postgres::spec(platform, specs::IMAGE)? + &more))?;
    platform.wait_healthy(LATE, SOON)?;
    let before = all_starts(&hosts)?;
    let writer = writer(platform, &hosts[0])?;
    let begin = Instant::now();
    lose(&hosts[1])?;
    lose(&hosts[2])?;
    hosts[0].unit_stop(UNIT)?;
    exec(&hosts[0], &["muster-coordinator", "restore", "--older", "--from", file])?;
    hosts[0].unit_start(UNIT)?;
    let told = wait("the service is found", SOON, || {
        let status = platform.status()?;
        let unknown = status.services.iter().all(|one| one.name.as_str() != LATE);
        ensure!(unknown, "the snapshot has {LATE}");
        let found = format!("not in the spec: {LATE}/");
        let told = status.notices.iter().filter(|notice| notice.contains(&found)).count();
        ensure!(told > 0, "{:?}", status.notices);
        Ok(told)
    })?;
    whole_again(platform, &hosts)?;
    let whole = begin.elapsed().as_secs_f64();
    let after = all_starts(&hosts)?;
    ensure!(after == before, "containers were stopped or restarted: {before:?} became {after:?}");
    for host in &hosts {
        // One on which nothing was found has settled by itself.
        platform.cli.output(&["--yes", "host", "settle", host.name()])?;
    }
    wait("what was found goes when an operator says so", SOON, || {
        let left = all_starts(&hosts)?;
        let found = left.values().flat_map(BTreeMap::keys).filter(|name| name.contains(LATE)).count();
        ensure!(found == 0, "{found} are left");
        Ok(())
    })?;
    let (acked, gap) = end(writer)?;
    let kept = |all: &Starts| -> Vec<String> {
        let lines = all.values().flatten().filter(|(name, _)| !name.contains(LATE));
        lines.map(|(name, at)| format!("{name} {at}")).collect()
    };
    ensure!(kept(&all_starts(&hosts)?) == kept(&before), "others were restarted");
    Ok(json!({ "hosts_with_finds": told, "whole_after_s": whole, "acked": acked, "gap_ms": gap }))
}
