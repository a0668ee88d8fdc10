//! Hosts that are stopped in order, rebooted and taken back, one by one, under writes to every service.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{Liveness, PlatformView};
use serde_json::{Value, json};

use super::together::{end, wait_whole, writers};
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;

pub const REBOOT: Scenario = Scenario {
    name: "reboot-all",
    what: "every host but the writers' own prepared, stopped in order, rebooted and taken back, one by one, under writes to every engine",
    runs: 3,
    in_ci: false,
    medians: &[("max_gap_ms", 8_000.0)],
    act: reboot_all,
};

pub const MAINTENANCE: Scenario = Scenario {
    name: "maintenance",
    what: "a host rests and then loses power: nothing is replaced, a second host is refused, all comes back",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: maintenance,
};

const SOON: Duration = Duration::from_secs(30);

fn members_of(status: &PlatformView) -> Vec<String> {
    let members = status.services.iter().flat_map(|service| &service.members);
    let mut all: Vec<String> = members.map(|m| format!("{} {} on {}", m.slot, m.member, m.host)).collect();
    all.sort();
    all
}

fn reboot_all(platform: &Platform) -> Result<Value> {
    let before = members_of(&wait_whole(platform)?);
    let hosts = platform.hosts()?;
    // The writers run there, so that host is not rebooted.
    let quiet = hosts.last().context("no host")?;
    let others: Vec<&str> = hosts.iter().filter(|h| h.name() != quiet.name()).map(|h| h.name()).collect();
    let all = writers(platform, quiet)?;
    let testbed = platform.testbed.config().bin_dir.join("testbed");
    let command = format!("{0} kill {{host}} && {0} start {{host}}", testbed.display());
    let begin = Instant::now();
    let words = [&["--yes", "host", "reboot"], others.as_slice(), &["--command", &command]].concat();
    let took: Value = platform.cli.json(&words)?;
    let all_took = begin.elapsed().as_secs_f64();
    let after = members_of(&wait_whole(platform)?);
    ensure!(before == after, "members moved: {before:?} became {after:?}");
    let writes = end(all, &[])?;
    let gaps = writes.as_object().into_iter().flatten().filter_map(|(_, one)| one["max_gap_ms"].as_u64());
    let longest = gaps.max().context("nothing was written")?;
    Ok(json!({ "hosts": took, "took_s": all_took, "writes": writes, "max_gap_ms": longest }))
}

fn maintenance(platform: &Platform) -> Result<Value> {
    let before = members_of(&wait_whole(platform)?);
    let hosts = platform.hosts()?;
    let [host, other, ..] = hosts.as_slice() else { anyhow::bail!("two hosts are needed") };
    let begin = Instant::now();
    platform.cli.run(&["--yes", "host", "maintenance", host.name()])?;
    let rests = begin.elapsed().as_secs_f64();
    let running = exec(host, &["docker", "ps", "-q"])?;
    ensure!(running.trim().is_empty(), "containers run on {}: {running}", host.name());
    let refused = platform.cli.output(&["--yes", "host", "maintenance", other.name()])?;
    ensure!(refused.status.code() == Some(3), "a second host was taken: {}", refused.status);
    let said = String::from_utf8_lossy(&refused.stderr).trim().to_owned();
    host.kill()?;
    let is = |wanted: Liveness| -> Result<()> {
        let status = platform.status()?;
        let row = status.hosts.iter().find(|row| row.name.as_str() == host.name()).context("no host")?;
        ensure!(row.liveness == wanted && row.rests, "{:?}, rests: {}", row.liveness, row.rests);
        Ok(())
    };
    wait("the host down", SOON, || is(Liveness::Down))?;
    platform.testbed.start(host.name())?;
    wait("the host back and at rest", SOON, || is(Liveness::Ready))?;
    platform.cli.run(&["host", "uncordon", host.name()])?;
    let after = members_of(&wait_whole(platform)?);
    ensure!(before == after, "members moved: {before:?} became {after:?}");
    Ok(json!({ "rests_after_s": rests, "second_host": said }))
}
