//! Three coordinators as processes, agents of so many hosts with real sessions that report what their plans ask for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use muster_cluster_tests::agent::{Agent, Session};
use muster_cluster_tests::cluster::Cluster;
use muster_model::ids::Generation;
use muster_model::view::HealthWord;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fleet;

/// Longest time from the spec to every member reported.
const FILLED_MAX: Duration = Duration::from_secs(300);
/// Without changes, before memory and processor are read.
const REST: Duration = Duration::from_secs(30);

/// What was measured.
pub struct Fleet {
    /// From `apply` to a status in which every service is healthy.
    pub filled: Duration,
    /// Resident memory of each coordinator, MiB, the leader's first.
    pub memory_mib: Vec<f64>,
    /// The leader's share of one core while nothing changes, percent.
    pub idle_percent: f64,
}

/// An agent that does what its plans ask for at once.
async fn follow(agent: Agent, at: std::net::SocketAddr) -> Result<()> {
    let session: Session = agent.session(at, "first").await.map_err(|status| anyhow!("{status}"))?;
    let mut done = None;
    loop {
        let heard = session.heard();
        ensure!(heard.ended.is_none(), "{}: {:?}", agent.name, heard.ended);
        let generation = heard.plan.as_ref().map_or_else(Generation::default, |plan| plan.generation);
        if done != Some(generation) {
            done = Some(generation);
            session.report(generation, heard.plan.as_ref().map(fleet::done).unwrap_or_default()).await;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// # Errors
/// A coordinator, a session or a service does not come right.
pub async fn run(hosts: usize, members: usize) -> Result<Fleet> {
    let cluster = Cluster::three().await;
    let leader = cluster.leader().await;
    let at = cluster.nodes[leader].address;
    let mut agents = JoinSet::new();
    for number in 1..=hosts {
        let token = cluster.token("host").await;
        let name = format!("vps-{number}");
        let agent = Agent::join(at, &token, &name, &Arc::clone(&cluster.clock)).await;
        agents.spawn(follow(agent.map_err(|status| anyhow!("{status}"))?, at));
    }
    let began = Instant::now();
    let operator = cluster.operator(leader);
    // Refused until every host has told its size.
    while let Err(status) = operator.apply(None, fleet::spec(hosts, members), 0).await {
        ensure!(began.elapsed() < FILLED_MAX, "the spec is refused: {status}");
        sleep(Duration::from_millis(500)).await;
    }
    let began = Instant::now();
    loop {
        let view = operator.status().await.map_err(|status| anyhow!("{status}"))?;
        if !view.services.is_empty()
            && view.services.iter().all(|service| service.health.word == HealthWord::Healthy)
        {
            break;
        }
        ensure!(began.elapsed() < FILLED_MAX, "not every service is healthy");
        if let Some(ended) = agents.try_join_next() {
            ended??;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let filled = began.elapsed();
    sleep(REST / 2).await;
    let before = ticks(&cluster, leader)?;
    sleep(REST).await;
    let used = ticks(&cluster, leader)? - before;
    let mut memory_mib = vec![resident(&cluster, leader)?];
    for node in (0..cluster.nodes.len()).filter(|node| *node != leader) {
        memory_mib.push(resident(&cluster, node)?);
    }
    // The kernel counts in hundredths of a second.
    Ok(Fleet { filled, memory_mib, idle_percent: used / REST.as_secs_f64() })
}

fn proc(cluster: &Cluster, node: usize, file: &str) -> Result<String> {
    let pid = cluster.nodes[node].pid().context("it runs")?;
    Ok(std::fs::read_to_string(format!("/proc/{pid}/{file}"))?)
}

fn resident(cluster: &Cluster, node: usize) -> Result<f64> {
    let text = proc(cluster, node, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kib / 1024.0)
}

/// Processor time so far, in hundredths of a second.
fn ticks(cluster: &Cluster, node: usize) -> Result<f64> {
    let text = proc(cluster, node, "stat")?;
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a field")?.parse()?) };
    Ok(field(11)? + field(12)?)
}
