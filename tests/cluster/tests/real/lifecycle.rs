//! Coordinators that die, end and start again.

use std::time::Duration;

use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::node::Node;
use muster_cluster_tests::operator::Operator;
use muster_cluster_tests::wait::{bounded, until};
use muster_model::view::PlatformView;
use tokio::time::Instant;

/// Tries through any of these coordinators until it is done.
async fn cordon_anywhere(operators: &[Operator], scheduling: &str) {
    until("a change", async || {
        let mut last = None;
        for operator in operators {
            match operator.schedule(None, "h1", scheduling).await {
                Ok(_) => return Ok(()),
                Err(status) => last = Some(status),
            }
        }
        Err(last)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platform_outlives_its_leader_and_a_stop_of_all() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        let token = cluster.token("host").await;
        // A follower takes hosts in as well.
        let leader = cluster.leader().await;
        let follower = (leader + 1) % 3;
        let at = cluster.nodes[follower].address;
        Agent::join(at, &token, "h1", &cluster.clock()).await.expect("a follower lets a host join");

        // The first context knows one coordinator; the CLI learns the others.
        let seen = cluster.cli(&cluster.context, &["-o", "json", "status"]).await;
        assert!(seen.ok, "{seen:?}");
        cluster.nodes[leader].kill().await;
        let killed = Instant::now();
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        let operators: Vec<Operator> = others.iter().map(|at| cluster.operator(*at)).collect();
        cordon_anywhere(&operators, "cordoned").await;
        println!("leader killed: next change agreed on after {:?}", killed.elapsed());
        let seen = cluster.cli(&cluster.context, &["-o", "json", "status"]).await;
        assert!(seen.ok, "{seen:?}");
        let view: PlatformView = serde_json::from_str(&seen.out).expect("a platform");
        let leads = view.coordinators.iter().find(|one| one.leader).expect("somebody leads");
        assert_ne!(leads.endpoint, cluster.nodes[leader].address.to_string());
        assert_eq!(view.coordinators.iter().filter(|one| one.voter).count(), 3);

        for at in others {
            cluster.nodes[at].kill().await;
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        for at in 0..3 {
            let again = cluster.status(at).await;
            assert!(again.index >= view.index, "{} after {}", again.index, view.index);
            assert_eq!(again.platform, view.platform);
            let known = |view: &PlatformView| -> Vec<_> {
                view.hosts.iter().map(|h| (h.id.clone(), h.name.clone(), h.scheduling)).collect()
            };
            assert_eq!(known(&again), known(&view));
            let voters = |view: &PlatformView| -> Vec<_> {
                view.coordinators.iter().map(|c| (c.id, c.endpoint.clone(), c.voter)).collect()
            };
            assert_eq!(voters(&again), voters(&view));
        }
        cluster.fresh_operator(1).await.schedule(None, "h1", "open").await.expect("changes go on");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        let token = cluster.token("host").await;
        let leader = cluster.leader().await;
        let at = cluster.nodes[leader].address;
        Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let operator = cluster.operator((leader + 1) % 3);

        let changes = async {
            let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
            let end = last + Duration::from_secs(6);
            let mut acked = 0;
            while Instant::now() < end {
                let word = if acked % 2 == 0 { "cordoned" } else { "open" };
                if operator.schedule(None, "h1", word).await.is_ok() {
                    acked += 1;
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (acked, gap.max(last.elapsed()))
        };
        let node = &mut cluster.nodes[leader];
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            node.terminate().await
        };
        let ((acked, gap), ended) = tokio::join!(changes, stop);
        assert!(ended.success(), "{ended:?}: {}", cluster.nodes[leader].said());
        println!("leader asked to end: {acked} changes, longest gap {gap:?}");
        assert!(acked > 5, "{acked}");
        assert!(gap < Duration::from_secs(3), "{gap:?}");
        assert_ne!(cluster.leader().await, leader);
    }))
    .await;
}

/// Waits until the CA's key is only in the log, sealed.
async fn secured(cluster: &Cluster) {
    until("the CA's key is gone", async || {
        if cluster.nodes[0].dir.join("bootstrap").exists() { Err("still there") } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_first_run_is_finished_by_the_next_one() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::single().await;
        // As it is when the power fails before the last step: all is recorded, but `init`'s files are still there.
        secured(&cluster).await;
        cluster.nodes[0].kill().await;
        let other = Node::new(cluster.path(), "other", None);
        let (own, file) = (other.address.to_string(), cluster.path().join("x.json").display().to_string());
        let made = other.once(&["init", "--platform", "shop", "--advertise", &own, "--context", &file]).await;
        assert!(made.ok, "{made:?}");
        let to = cluster.nodes[0].dir.join("bootstrap");
        std::fs::rename(other.dir.join("bootstrap"), to).expect("files of an unfinished run");
        cluster.nodes[0].start();
        cluster.status(0).await;
        secured(&cluster).await;
        // The recorded key is the one in use, not the one that was found.
        let token = cluster.token("host").await;
        let at = cluster.nodes[0].address;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        drop(agent.session(at, "boot").await.expect("the certificate is believed"));
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_one_process_and_an_empty_log_is_refused() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::single().await;
        let second = cluster.nodes[0].run_to_end().await;
        assert!(!second.ok && second.err.contains("in use by another process"), "{second:?}");
        cluster.status(0).await;

        let again = cluster.nodes[0]
            .once(&["init", "--platform", "shop", "--advertise", "127.0.0.1:1", "--context", "/nonexistent"])
            .await;
        assert!(
            !again.ok && again.err.contains("belongs to coordinator first of platform shop at"),
            "{again:?}"
        );

        // A coordinator that joined, was stopped before it heard anything, and starts again.
        let mut joiner = Node::new(cluster.path(), "joiner", None);
        let (own, asked) = (joiner.address.to_string(), cluster.nodes[0].address.to_string());
        let token = cluster.token("coordinator").await;
        let joined =
            joiner.once(&["join", "--coordinator", &asked, "--token", &token, "--advertise", &own]).await;
        assert!(joined.ok, "{joined:?}");
        for _ in 0..2 {
            joiner.start();
            until(
                "it serves",
                async || {
                    if joiner.said().contains("serving") { Ok(()) } else { Err(joiner.said()) }
                },
            )
            .await;
            joiner.kill().await;
        }
        assert!(!joiner.said().contains("lost"), "{}", joiner.said());

        cluster.nodes[0].kill().await;
        let log = cluster.nodes[0].dir.join("log");
        std::fs::remove_dir_all(&log).expect("the log is there");
        let refused = cluster.nodes[0].run_to_end().await;
        println!("empty log: {}", refused.err.trim());
        assert!(!refused.ok, "{refused:?}");
        assert!(refused.err.contains(&log.display().to_string()), "{refused:?}");
    }))
    .await;
}
