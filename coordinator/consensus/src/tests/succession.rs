//! A leader whose process is gone is followed at once; one that is only silent keeps its lease.

use std::time::{Duration, Instant};

use super::harness::{Cluster, WAIT};
use crate::Timings;

/// A lease of six seconds and an election three to six later: what happens before that did not wait for it.
const SLOW: Timings = Timings {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_secs(3),
    election_max: Duration::from_secs(6),
    snapshot: Duration::from_secs(15),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_is_gone_is_followed_before_its_lease_is_over() {
    let mut cluster = Cluster::timed(3, SLOW).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "before").await;
    let killed = cluster.nodes.remove(&leader).unwrap();
    let started = Instant::now();
    killed.kill().await;
    let survivor = *cluster.nodes.keys().next().unwrap();
    cluster.propose(survivor, "after").await;
    assert!(started.elapsed() < SLOW.election_min, "{:?}", started.elapsed());
    assert_eq!(cluster.same_lines().await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_only_silent_keeps_its_lease() {
    let cluster = Cluster::timed(3, SLOW).await;
    let leader = cluster.leader().await;
    let follower = &cluster.nodes[&cluster.follower().await].consensus;
    let term = follower.status().term;
    cluster.nodes[&leader].set_dark(true);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((follower.leader(), follower.status().term), (Some(leader), term));
    cluster.nodes[&leader].set_dark(false);
    let read = follower.linearizable(WAIT).await;
    assert!(read.is_ok(), "{read:?}");
}
