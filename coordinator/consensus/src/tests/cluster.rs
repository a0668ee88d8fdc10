//! What a group of nodes promises. Must not look into files.

use std::time::{Duration, Instant};

use super::harness::{Cluster, FAST, WAIT};
use crate::{ChangeError, ProposeError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_forward_and_read_their_own_writes() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let node = &cluster.nodes[&follower].consensus;
    let first = node.propose(b"one".to_vec(), WAIT).await.unwrap();
    assert_eq!(first.reply, b"1");
    let index = cluster.nodes[&follower].consensus.linearizable(WAIT).await.unwrap();
    assert!(index >= first.index);
    assert_eq!(cluster.nodes[&follower].lines(), ["one"]);
    let too_large = node.propose(vec![0; 3 << 20], WAIT).await.unwrap_err();
    assert!(matches!(too_large, ProposeError::TooLarge { .. }), "{too_large}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_follows_a_killed_one_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let mut expected = Vec::new();
    for number in 0..20 {
        cluster.propose(1 + number % 3, &number.to_string()).await;
        expected.push(number.to_string());
    }
    let killed = cluster.nodes.remove(&leader).unwrap();
    let node = killed.node.clone();
    let started = Instant::now();
    killed.kill().await;
    let survivor = *cluster.nodes.keys().next().unwrap();
    cluster.propose(survivor, "after").await;
    expected.push("after".into());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    cluster.restart(node).await;
    assert_eq!(cluster.same_lines().await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged() {
    let mut cluster = Cluster::of(3).await;
    let survivor = cluster.leader().await;
    let others: Vec<_> = cluster.nodes.keys().copied().filter(|id| *id != survivor).collect();
    for id in others {
        cluster.nodes.remove(&id).unwrap().kill().await;
    }
    let node = &cluster.nodes[&survivor].consensus;
    let short = Duration::from_millis(400);
    let error = node.propose(b"lost".to_vec(), short).await.unwrap_err();
    assert!(matches!(error, ProposeError::Unknown | ProposeError::NoLeader), "{error}");
    node.linearizable(short).await.unwrap_err();
    assert!(cluster.nodes[&survivor].lines().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stopped_at_once_come_back_from_disk() {
    let mut cluster = Cluster::of(3).await;
    let expected: Vec<String> = (0..70).map(|number| format!("line {number}")).collect();
    for line in &expected {
        cluster.propose(1, line).await;
    }
    let mut nodes = Vec::new();
    while let Some((_, running)) = cluster.nodes.pop_first() {
        nodes.push(running.node.clone());
        running.kill().await;
    }
    for node in nodes {
        cluster.restart(node).await;
    }
    assert_eq!(cluster.same_lines().await, expected);
    cluster.propose(2, "more").await;
    assert_eq!(cluster.same_lines().await.len(), 71);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_learner_gets_a_snapshot_and_becomes_a_voter() {
    let mut cluster = Cluster::of(1).await;
    for number in 0..100 {
        cluster.propose(1, &number.to_string()).await;
    }
    // The log before it must be gone, or the snapshot would not be needed.
    let deadline = Instant::now() + WAIT;
    while cluster.nodes[&1].consensus.status().snapshot < 50 {
        assert!(Instant::now() < deadline, "{:?}", cluster.nodes[&1].consensus.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.join(2).await;
    assert!(cluster.nodes[&2].consensus.status().snapshot >= 50);
    assert_eq!(cluster.same_lines().await.len(), 100);
    let status = cluster.nodes[&1].consensus.status();
    assert!(status.members.iter().all(|member| member.voter && member.matched.is_some()), "{status:?}");
    assert_eq!(status.members[1].node, cluster.nodes[&2].node);

    let node = cluster.nodes[&2].node.clone();
    cluster.nodes.remove(&2).unwrap().kill().await;
    cluster.restart(node).await;
    assert_eq!(cluster.same_lines().await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request_and_on_shutdown() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let target = cluster.follower().await;
    let refused = cluster.nodes[&target].consensus.transfer_leader(None, WAIT).await.unwrap_err();
    assert_eq!(refused, ChangeError::NotLeader { leader: Some(leader) });
    let started = Instant::now();
    let new = cluster.nodes[&leader].consensus.transfer_leader(Some(target), WAIT).await.unwrap();
    assert_eq!(new, target);
    // Not by waiting for the lease to end and an election.
    assert!(started.elapsed() < FAST.election_max, "{:?}", started.elapsed());
    cluster.propose(leader, "after transfer").await;

    cluster.nodes.remove(&new).unwrap().consensus.shutdown(WAIT).await;
    let survivor = cluster.leader().await;
    cluster.propose(survivor, "after shutdown").await;
    assert_eq!(cluster.same_lines().await, ["after transfer", "after shutdown"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_has_no_vote_any_more() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let removed = cluster.follower().await;
    cluster.nodes[&leader].consensus.remove(removed, WAIT).await.unwrap();
    cluster.nodes.remove(&removed).unwrap().kill().await;
    let members = cluster.nodes[&leader].consensus.status().members;
    assert!(members.iter().all(|member| member.node.id != removed) && members.len() == 2);
    cluster.propose(leader, "two left").await;
    let gone = cluster.nodes[&leader].consensus.remove(removed, WAIT).await.unwrap_err();
    assert!(matches!(gone, ChangeError::Refused(_)), "{gone}");

    // The leader goes after it has handed over.
    let itself = cluster.nodes[&leader].consensus.remove(leader, WAIT).await.unwrap_err();
    assert!(matches!(itself, ChangeError::Refused(_)), "{itself}");
    let last = cluster.nodes[&leader].consensus.transfer_leader(None, WAIT).await.unwrap();
    assert_eq!(cluster.leader().await, last);
    cluster.nodes[&last].consensus.linearizable(WAIT).await.unwrap();
    cluster.nodes[&last].consensus.remove(leader, WAIT).await.unwrap();
    cluster.nodes.remove(&leader).unwrap().kill().await;
    cluster.propose(last, "one left").await;
    assert_eq!(cluster.same_lines().await, ["two left", "one left"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_proposal_does_not_wait_for_a_leader_that_went_dark() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    cluster.propose(follower, "warm").await;
    let dark = cluster.nodes.remove(&leader).unwrap();
    dark.set_dark(true);
    let started = Instant::now();
    let node = &cluster.nodes[&follower].consensus;
    let long = Duration::from_secs(30);
    let outcome = node.propose("asked", long).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(matches!(outcome, Ok(_) | Err(ProposeError::Unknown)), "{outcome:?}");
    node.propose("repeated", long).await.unwrap();
    node.linearizable(WAIT).await.unwrap();
    assert_eq!(cluster.nodes[&follower].lines().last().unwrap(), "repeated");

    // The old leader could not have anything acknowledged, and follows when it is back.
    assert!(dark.consensus.linearizable(Duration::from_millis(100)).await.is_err());
    let early = dark.consensus.propose("in the dark", Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(early, ProposeError::NoLeader | ProposeError::Unknown), "{early}");
    dark.set_dark(false);
    let back = Instant::now();
    cluster.nodes.insert(leader, dark);
    let lines = cluster.same_lines().await;
    assert!(lines.contains(&"repeated".into()) && !lines.contains(&"in the dark".into()), "{lines:?}");
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_never_goes_back() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(500));
    let clock = Arc::clone(&now);
    let notebook = super::harness::Notebook::default();
    let seen = Arc::clone(&notebook.seen);
    let node = crate::Consensus::start(
        super::harness::config(1, super::harness::disk(dir.path()), false),
        Box::new(notebook),
        super::harness::dialer(tokio::sync::watch::channel(false).1),
        Arc::new(move || clock.load(Ordering::Relaxed)),
    )
    .await
    .unwrap();
    node.initialize(crate::Node { id: 1, endpoint: "127.0.0.1:1".into(), key: String::new() }).await.unwrap();
    node.propose("a", WAIT).await.unwrap();
    now.store(100, Ordering::Relaxed);
    node.propose("b", WAIT).await.unwrap();
    now.store(700, Ordering::Relaxed);
    node.propose("c", WAIT).await.unwrap();
    let times: Vec<u64> = seen.lock().unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 500, 700]);
    node.halt().await;
}
