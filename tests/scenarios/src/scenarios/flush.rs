//! Somebody else's hand in the packet filter: everything flushed at once, and a firewall that drops what it does not know.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{EventView, Liveness};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::faults::starts;
use super::network::{container, reaches};
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::writer::{Writer, connections, judge_losses};

const WHOLE: Duration = Duration::from_secs(120);
/// Time until our own rules must be back.
const BACK: Duration = Duration::from_secs(10);
/// Time until an operator must be able to read what happened.
const TOLD: Duration = Duration::from_secs(30);
/// How long the foreign firewall stays.
const SPELL: Duration = Duration::from_secs(20);
/// A port of a database member that no client may reach.
const FORBIDDEN: u16 = 8_008;

/// What a host says when Docker's own rules are gone, and when ours were.
const DOCKER_LOST: &str = "net-docker-rules-lost";
const OURS_CHANGED: &str = "net-filter-changed";

/// As firewalld or ufw load one: answers pass, the coordinator's port is open, nobody thought of the mesh.
const FIREWALL: &str = "table inet strange {
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		iifname \"lo\" accept
		tcp dport PORT accept
	}
}
";

/// Flushes every host's ruleset at once while rows are written, then lets a firewall in that drops what it does not know.
pub fn nft_flush(platform: &Platform) -> Result<Value> {
    let name = platform.settings.service.as_str();
    platform.wait_healthy(name, WHOLE)?;
    let (leader, host) = platform.leader(name)?;
    let hosts = platform.hosts()?;
    let before: Vec<_> = hosts.iter().map(Rules::read).collect::<Result<_>>()?;
    let running: Vec<_> = hosts.iter().map(starts).collect::<Result<_>>()?;
    let address = leader.addresses.values().next().context("no address")?.clone();
    let outsider = Outsider::find(platform)?;
    ensure!(!outsider.reaches(&address)?, "the forbidden port answers before anything was done");
    let writer = Writer::start(host, "flush", &connections(platform, "write")?, 9_341)?;
    writer.wait_steady()?;
    let begin = Instant::now();
    for host in &hosts {
        exec(host, &["nft", "flush", "ruleset"])?;
    }
    let open = outsider.reaches(&address)?;
    let back = healed(&hosts, &before, begin)?;
    ensure!(!outsider.reaches(&address)?, "rules are back, and the forbidden port answers");
    let told = told(platform, &hosts, begin)?;
    let whole = dockers_rules_return(platform, &hosts)?;
    let firewalled = strange_firewall(platform, &hosts, &writer)?;
    ensure!(!outsider.reaches(&address)?, "the forbidden port answers in the end");
    let now: Vec<_> = hosts.iter().map(starts).collect::<Result<_>>()?;
    ensure!(now == running, "containers were restarted: {running:?}, now {now:?}");
    platform.wait_healthy(name, WHOLE)?;
    let summary = writer.finish()?;
    judge_losses(&summary, 500)?;
    Ok(json!({
        "back_s": back, "told_s": told, "docker_whole_s": whole, "open_while_flushed": open,
        "rows_behind_firewall": firewalled, "acked": summary["acked"], "acked_lost": summary["acked_lost_count"],
        "max_gap_ms": summary["max_gap_ms"],
    }))
}

/// Somebody in another network than the database's.
struct Outsider {
    host: Host,
    container: String,
}

impl Outsider {
    fn find(platform: &Platform) -> Result<Self> {
        let service = platform.service("outsider")?;
        let member = service.members.first().context("outsider has no member")?;
        let host = platform.testbed.host(member.host.as_str())?;
        let container = container(&host, member)?;
        Ok(Self { host, container })
    }

    fn reaches(&self, address: &str) -> Result<bool> {
        reaches(&self.host, &self.container, address, FORBIDDEN)
    }
}

/// Our part of a host's rules, without counters.
#[derive(Debug, PartialEq, Eq)]
struct Rules {
    tables: String,
    accepts: Vec<String>,
}

impl Rules {
    fn read(host: &Host) -> Result<Self> {
        let mut tables = exec(host, &["nft", "-s", "list", "table", "inet", "muster"])?;
        tables.push_str(&exec(host, &["nft", "-s", "list", "table", "bridge", "muster"])?);
        let saved = exec(host, &["iptables-save", "-t", "filter"])?;
        let ours = saved.lines().filter(|line| line.starts_with("-A ") && line.contains("MUSTER-FWD"));
        Ok(Self { tables, accepts: ours.map(str::to_owned).collect() })
    }
}

/// Seconds until the last host has exactly the rules that it had.
fn healed(hosts: &[Host], before: &[Rules], begin: Instant) -> Result<f64> {
    for (host, before) in hosts.iter().zip(before) {
        let left = BACK.saturating_sub(begin.elapsed());
        wait(&format!("{} has its rules again", host.name()), left, || {
            let now = Rules::read(host)?;
            ensure!(now == *before, "they differ: {now:?}, before {before:?}");
            Ok(())
        })?;
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds until status names Docker's loss and its remedy, and events name ours, for every host.
fn told(platform: &Platform, hosts: &[Host], begin: Instant) -> Result<f64> {
    wait("hosts say what was lost", TOLD, || {
        let status = platform.status()?;
        let events: Vec<EventView> = platform.cli.json(&["events", "--tail", "500"])?;
        let events = serde_json::to_string(&events)?;
        for host in hosts {
            let row = status.hosts.iter().find(|row| row.name.as_str() == host.name()).context("no host")?;
            let lost = row.conditions.iter().find(|condition| condition.code == DOCKER_LOST);
            let lost = lost.with_context(|| format!("{} does not say {DOCKER_LOST}", host.name()))?;
            ensure!(lost.text.contains("systemctl restart docker"), "no remedy in {}", lost.text);
        }
        ensure!(events.contains(OURS_CHANGED), "no event {OURS_CHANGED}");
        Ok(())
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

/// The remedy that is told, on every host: seconds until nobody misses anything any more.
fn dockers_rules_return(platform: &Platform, hosts: &[Host]) -> Result<f64> {
    let begin = Instant::now();
    for host in hosts {
        host.engine_kill()?;
        host.engine_start()?;
        host.wait_for_engine()?;
    }
    wait("Docker's rules are back everywhere", TOLD, || {
        let status = platform.status()?;
        let text = serde_json::to_string(&status.hosts)?;
        ensure!(!text.contains(DOCKER_LOST), "still told: {text}");
        Ok(())
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Rows acknowledged while every host has a firewall of somebody else.
fn strange_firewall(platform: &Platform, hosts: &[Host], writer: &Writer) -> Result<usize> {
    let rules = FIREWALL.replace("PORT", &platform.settings.port.to_string());
    let load = format!("nft -f - <<'END'\n{rules}END\n");
    for host in hosts {
        exec(host, &["sh", "-ec", &load])?;
    }
    let before = writer.acknowledged()?.len();
    sleep(SPELL);
    let rows = writer.acknowledged()?.len() - before;
    let status = platform.status();
    for host in hosts {
        exec(host, &["nft", "delete", "table", "inet", "strange"])?;
    }
    let live: BTreeMap<_, _> = status?.hosts.into_iter().map(|row| (row.name, row.liveness)).collect();
    ensure!(live.values().all(|live| *live == Liveness::Ready), "behind the firewall: {live:?}");
    ensure!(rows > 200, "only {rows} rows in {} s behind the firewall", SPELL.as_secs());
    Ok(rows)
}
