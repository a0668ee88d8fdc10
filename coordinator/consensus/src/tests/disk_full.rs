//! Disks that are full, that fail, and that lose what was not synced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::harness::{Cluster, Running, WAIT, config, listen, node_at, start, start_on};
use super::sim_disk::SimDisk;
use crate::{ProposeError, SnapshotPolicy};

/// A node alone on a simulated disk, its snapshots far away.
pub async fn alone(disk: &SimDisk) -> Running {
    let listener = listen().await;
    let node = node_at(1, listener.local_addr().unwrap());
    let mut config = config(1, Arc::new(disk.clone()), false);
    config.snapshots = SnapshotPolicy { bytes: u64::MAX, ..SnapshotPolicy::default() };
    let running = start(config, node, listener).await.unwrap();
    running.consensus.initialize(running.node.clone()).await.unwrap();
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_keeps_leading_and_resumes() {
    let disk = SimDisk::default();
    let running = alone(&disk).await;
    running.consensus.propose("first", WAIT).await.unwrap();
    disk.set_full(true);
    let mut accepted = 1;
    let refused = loop {
        match running.consensus.propose(vec![b'x'; 400 << 10], WAIT).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 40, "8 MiB of log cannot hold this");
    };
    assert_eq!(refused, ProposeError::DiskFull);
    let status = running.consensus.status();
    assert!(status.disk_full && status.am_leader, "{status:?}");
    running.consensus.linearizable(WAIT).await.unwrap();
    // Long enough for several elections, had the leader stopped beating itself.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(running.consensus.status().term, status.term);

    disk.set_full(false);
    let deadline = Instant::now() + WAIT;
    while running.consensus.propose("again", WAIT).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(running.lines().len(), accepted + 1);
    let seen = running.lines();
    running.kill().await;

    let listener = listen().await;
    let again = start_on(node_at(1, listener.local_addr().unwrap()), Arc::new(disk.clone()), listener).await;
    again.consensus.linearizable(WAIT).await.unwrap();
    assert_eq!(again.lines(), seen);
    again.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_cut_at_any_moment() {
    let disk = SimDisk::default();
    let running = alone(&disk).await;
    let mut cuts = Vec::new();
    for number in 0..12 {
        running.consensus.propose(number.to_string(), WAIT).await.unwrap();
        cuts.push((disk.after_power_cut(), number + 1));
    }
    running.kill().await;
    for (cut, acknowledged) in cuts {
        let listener = listen().await;
        let node = node_at(1, listener.local_addr().unwrap());
        let again = start(config(1, Arc::new(cut), true), node, listener).await.unwrap();
        again.consensus.linearizable(WAIT).await.unwrap();
        let expected: Vec<String> = (0..acknowledged).map(|number| number.to_string()).collect();
        assert_eq!(again.lines()[..acknowledged], expected);
        again.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_node_and_names_the_file() {
    let disk = SimDisk::default();
    let running = alone(&disk).await;
    running.consensus.propose("kept", WAIT).await.unwrap();
    disk.fail_syncs();
    running.consensus.propose("lost", Duration::from_secs(2)).await.unwrap_err();
    let reason = tokio::time::timeout(WAIT, running.consensus.failed()).await.unwrap();
    assert!(reason.contains("sim/log-000000000001.seg at offset"), "{reason}");
    assert!(reason.contains("simulated sync failure"), "{reason}");
    assert_eq!(running.lines(), ["kept"]);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_wait_together_share_a_sync() {
    let disk = SimDisk::default();
    let running = alone(&disk).await;
    running.consensus.propose("warm", WAIT).await.unwrap();
    let before = disk.syncs();
    let all = (0..200).map(|number| running.consensus.propose(format!("{number}"), WAIT));
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    let used = disk.syncs() - before;
    assert!(used < 150, "200 proposals took {used} syncs");
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_space_waits_and_catches_up() {
    let mut cluster = Cluster::of(2).await;
    let disk = SimDisk::default();
    let listener = listen().await;
    let node = node_at(3, listener.local_addr().unwrap());
    let third = start_on(node.clone(), Arc::new(disk.clone()), listener).await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].consensus.add_learner(node, WAIT).await.unwrap();
    cluster.nodes[&leader].consensus.promote([3], WAIT).await.unwrap();
    cluster.nodes.insert(3, third);
    disk.set_full(true);
    // Of the leader: the new member may not have heard of it yet.
    let term = cluster.nodes[&leader].consensus.status().term;
    for _ in 0..20 {
        let line = vec![b'x'; 500 << 10];
        cluster.nodes[&leader].consensus.propose(line, WAIT).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let status = cluster.nodes[&3].consensus.status();
    let ahead = cluster.nodes[&leader].consensus.status().last_log;
    assert!(status.disk_full && status.term == term && status.leader == Some(leader), "{status:?}");
    // Refused before they are in the log, so that its memory does not grow either.
    assert!(status.last_log + 2 < ahead, "{status:?} while the leader has {ahead}");
    disk.set_full(false);
    assert_eq!(cluster.same_lines().await.len(), 20);
}
