//! A majority of the coordinators lost for good, and a control plane set back to a saved snapshot.

use std::os::unix::fs::PermissionsExt as _;

use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::node::Ended;
use muster_cluster_tests::wait::{bounded, until};
use muster_model::view::Scheduling;

async fn recover(cluster: &Cluster, node: usize, more: &[&str]) -> Ended {
    cluster.nodes[node].once(&[&["recover"], more].concat()).await
}

async fn cordon(cluster: &Cluster, node: usize, word: &str) {
    until("a change", async || cluster.operator(node).schedule(None, "h1", word).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_survivor_that_knows_most_goes_on_alone_and_the_others_are_shut_out() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        let token = cluster.token("host").await;
        let at = cluster.nodes[0].address;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let running = recover(&cluster, 0, &["--i-have-compared"]).await;
        assert!(!running.ok && running.err.contains("another process"), "{running:?}");

        // The third one falls behind.
        cluster.nodes[2].kill().await;
        cordon(&cluster, 0, "cordoned").await;
        cluster.nodes[0].kill().await;
        let living = recover(&cluster, 0, &["--i-have-compared"]).await;
        assert!(!living.ok && living.err.contains("a majority"), "{living:?}");
        cluster.nodes[1].kill().await;
        let dirs: Vec<String> = cluster.nodes.iter().map(|node| node.dir.display().to_string()).collect();
        let alone = recover(&cluster, 2, &[]).await;
        assert!(!alone.ok && alone.err.contains("--i-have-compared"), "{alone:?}");
        assert!(alone.err.contains("last index"), "{alone:?}");
        let stale = recover(&cluster, 2, &["--others", &dirs[0], "--others", &dirs[1]]).await;
        assert!(!stale.ok && stale.err.contains("knows more than this one"), "{stale:?}");
        // Of the two that had a majority either may have the last entry.
        let first = recover(&cluster, 0, &["--others", &dirs[1], "--others", &dirs[2]]).await;
        let (best, done) = if first.ok {
            (0, first)
        } else {
            (1, recover(&cluster, 1, &["--others", &dirs[0], "--others", &dirs[2]]).await)
        };
        assert!(done.ok, "{done:?}");
        println!("{}", done.out);

        cluster.nodes[best].start();
        let view = cluster.status(best).await;
        assert_eq!(view.coordinators.len(), 1, "{:?}", view.coordinators);
        assert_eq!(view.hosts[0].scheduling, Scheduling::Cordoned);
        assert!(
            view.notices.iter().any(|notice| notice.contains("inventory is awaited")),
            "{:?}",
            view.notices
        );
        let audit = cluster.operator(best).audit().await.expect("the audit log");
        assert!(
            audit.iter().any(|line| line.contains("the control plane was recovered: incarnation 2")),
            "{audit:?}"
        );

        // Both others come back as they were: a majority of the group before, and still nothing.
        let others: Vec<usize> = (0..3).filter(|at| *at != best).collect();
        for at in &others {
            cluster.nodes[*at].start();
        }
        for at in &others {
            assert_eq!(cluster.nodes[*at].ended().await, Some(78), "{}", cluster.nodes[*at].said());
        }
        let session =
            until("a session", async || agent.session(cluster.nodes[best].address, "boot").await).await;
        let plan = until("a plan of the new incarnation", async || {
            let plan = session.heard().plan.ok_or("none")?;
            if plan.generation.incarnation == 2 { Ok(plan) } else { Err("an old one") }
        })
        .await;
        assert!(plan.additive_only);
        session.report(plan.generation, Vec::new()).await;
        until("the inventory is taken", async || {
            let told = session.heard().plan.ok_or("none")?;
            if told.additive_only { Err("still only adding") } else { Ok(()) }
        })
        .await;
        for name in ["fourth", "fifth"] {
            cluster.join(name).await;
        }
        cluster.voters(3).await;
        cordon(&cluster, best, "open").await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_snapshot_is_whole_private_and_restored_only_when_meant() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::single().await;
        let token = cluster.token("host").await;
        let at = cluster.nodes[0].address;
        drop(Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins"));
        let file = cluster.path().join("saved");
        let path = file.display().to_string();
        let saved = cluster.cli(&cluster.context, &["snapshot", "save", &path]).await;
        assert!(saved.ok && saved.err.contains("0600"), "{saved:?}");
        println!("{}{}", saved.out, saved.err);
        let mode = std::fs::metadata(&file).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = cluster.cli(&cluster.context, &["snapshot", "save", &path]).await;
        assert!(!again.ok && again.err.contains("is there already"), "{again:?}");
        let viewer = cluster.issue(0, "eve", "operator").await.expect("an operator");
        let other = cluster.path().join("other").display().to_string();
        let refused = cluster.cli(&viewer, &["snapshot", "save", &other]).await;
        assert!(!refused.ok, "{refused:?}");
        let audit = cluster.operator(0).audit().await.expect("the audit log");
        assert!(audit.iter().any(|line| line.ends_with("save a snapshot of the state")), "{audit:?}");
        let kept = cluster.nodes[0].dir.join("snapshots");
        until("one is kept", async || {
            let count = std::fs::read_dir(&kept).map_or(0, Iterator::count);
            if count == 1 { Ok(()) } else { Err(count) }
        })
        .await;

        cordon(&cluster, 0, "cordoned").await;
        cluster.nodes[0].kill().await;
        let newer = cluster.nodes[0].once(&["restore", "--from", &path]).await;
        assert!(!newer.ok && newer.err.contains("--older"), "{newer:?}");
        let bytes = std::fs::read(&file).expect("the file");
        std::fs::write(&other, &bytes[..bytes.len() - 1]).expect("a file");
        let damaged = cluster.nodes[0].once(&["restore", "--older", "--from", &other]).await;
        assert!(!damaged.ok && damaged.err.contains("damaged"), "{damaged:?}");
        let stranger = Cluster::single().await;
        let theirs = stranger.cli(&stranger.context, &["snapshot", "save", &format!("{other}.2")]).await;
        assert!(theirs.ok, "{theirs:?}");
        let foreign = cluster.nodes[0].once(&["restore", "--older", "--from", &format!("{other}.2")]).await;
        assert!(!foreign.ok && foreign.err.contains("is of platform shop"), "{foreign:?}");

        let restored = cluster.nodes[0].once(&["restore", "--older", "--from", &path]).await;
        assert!(restored.ok, "{restored:?}");
        println!("{}", restored.out);
        cluster.nodes[0].start();
        let view = cluster.status(0).await;
        assert_eq!(view.hosts[0].scheduling, Scheduling::Open);
        cordon(&cluster, 0, "cordoned").await;
        // A second time from the same file, now of an earlier incarnation.
        cluster.nodes[0].kill().await;
        let restored = cluster.nodes[0].once(&["restore", "--older", "--from", &path]).await;
        assert!(restored.ok && restored.out.contains("incarnation 3"), "{restored:?}");
    }))
    .await;
}
