//! Coordinators that come, go, die for good, and directories that are used twice.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::node::{Ended, Node};
use muster_cluster_tests::wait::{bounded, until};
use muster_model::view::GroupView;

async fn remove(cluster: &Cluster, name: &str) -> Ended {
    cluster.cli(&cluster.context, &["--yes", "coordinator", "remove", name]).await
}

async fn group(cluster: &Cluster) -> GroupView {
    let seen = cluster.cli(&cluster.context, &["-o", "json", "coordinator", "ls"]).await;
    assert!(seen.ok, "{seen:?}");
    serde_json::from_str(&seen.out).expect("a group")
}

/// A host to make changes with.
async fn with_host(cluster: &Cluster) {
    let token = cluster.token("host").await;
    Agent::join(cluster.nodes[0].address, &token, "h1", &cluster.clock()).await.expect("joins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_becomes_three_and_five_and_one_again_while_changes_go_on() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::single().await;
        with_host(&cluster).await;
        let spec = cluster.path().join("shop.yaml");
        std::fs::write(&spec, "muster: 1\nplatform: shop\nservices: {}\n").expect("a spec");
        let (done, acked) = (AtomicBool::new(false), AtomicU32::new(0));
        let context = cluster.path().join("busy.json");
        std::fs::copy(&cluster.context, &context).expect("a context");
        let home = cluster.path().to_owned();
        let changes = async {
            while !done.load(Ordering::Relaxed) {
                for words in [
                    &["--yes", "host", "cordon", "h1"][..],
                    &["--yes", "host", "uncordon", "h1"],
                    &["--yes", "apply", &spec.display().to_string()],
                ] {
                    let changed = cli(&home, &context, words).await;
                    assert!(changed.ok, "{words:?}: {changed:?}");
                    acked.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let moves = async {
            for name in ["second", "third"] {
                cluster.join(name).await;
            }
            cluster.voters(3).await;
            for name in ["fourth", "fifth"] {
                cluster.join(name).await;
            }
            cluster.voters(5).await;
            let all = group(&cluster).await;
            assert!(all.agreed && all.coordinators.iter().all(|one| one.reachable && one.voter), "{all:?}");
            let told =
                |one: &muster_model::view::CoordinatorDetail| one.version.is_some() && one.lag.is_some();
            assert!(all.coordinators.iter().all(told), "{all:?}");
            let names: Vec<_> = all.coordinators.iter().filter_map(|one| one.name.clone()).collect();
            assert_eq!(names.len(), 5, "{all:?}");
            let shown = cluster.cli(&cluster.context, &["coordinator", "ls"]).await;
            println!("{}", shown.out);
            // The first one leads: leadership moves before it goes.
            for (at, name) in [(0, "first"), (1, "second"), (2, "third"), (3, "fourth")] {
                let removed = remove(&cluster, name).await;
                assert!(removed.ok, "{name}: {removed:?}");
                let code = cluster.nodes[at].ended().await;
                let said = cluster.nodes[at].said();
                assert_eq!(code, Some(78), "{said}");
                assert!(said.contains("was removed from platform shop"), "{said}");
                let again = cluster.nodes[at].run_to_end().await;
                assert!(
                    again.code == Some(78) && again.err.contains("was removed from platform shop"),
                    "{again:?}"
                );
            }
            cluster.voters(1).await;
            let last = remove(&cluster, "fifth").await;
            assert!(!last.ok && last.err.contains("the last one"), "{last:?}");
            assert_eq!(last.code, Some(3), "{last:?}");
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(moves, changes);
        println!("{} changes went through meanwhile", acked.load(Ordering::Relaxed));
        assert!(acked.load(Ordering::Relaxed) >= 6);
        let audit = cluster.operator(4).audit().await.expect("the audit log");
        let removals = audit.iter().filter(|line| line.contains("remove coordinator")).count();
        assert_eq!(removals, 4, "{audit:?}");
    }))
    .await;
}

/// The CLI with a context of its own: two programs do not write one file.
async fn cli(home: &Path, context: &Path, words: &[&str]) -> Ended {
    let mut command = tokio::process::Command::new(muster_cluster_tests::programs::cli());
    command.arg("--context").arg(context).args(words).env("HOME", home).kill_on_drop(true);
    muster_cluster_tests::node::finish(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_coordinator_is_replaced_and_its_ghost_stops_by_itself() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        let leader = cluster.leader().await;
        let names = ["first", "second", "third"];
        let dead = (leader + 1) % 3;
        let other = (leader + 2) % 3;
        group(&cluster).await;
        cluster.nodes[dead].kill().await;
        // At once: a removal that is begun cannot be taken back, and would need the dead one's word.
        let refused = remove(&cluster, names[other]).await;
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.err.contains("must answer, or be removed first"), "{refused:?}");
        let removed = remove(&cluster, names[dead]).await;
        assert!(removed.ok, "{removed:?}");
        let left = group(&cluster).await;
        assert_eq!(left.coordinators.len(), 2, "{left:?}");
        cluster.join("fresh").await;
        cluster.voters(3).await;

        // The lost host comes back as it was.
        cluster.nodes[dead].start();
        assert_eq!(cluster.nodes[dead].ended().await, Some(78), "{}", cluster.nodes[dead].said());
        let again = cluster.nodes[dead].run_to_end().await;
        assert!(again.code == Some(78) && again.err.contains("was removed"), "{again:?}");
        assert_eq!(group(&cluster).await.coordinators.len(), 3);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_list_is_still_there() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        group(&cluster).await;
        for at in 1..3 {
            cluster.nodes[at].kill().await;
        }
        let left = until("the loss is noticed", async || {
            let seen = group(&cluster).await;
            if seen.agreed { Err(seen) } else { Ok(seen) }
        })
        .await;
        assert_eq!(left.coordinators.iter().filter(|one| one.reachable).count(), 1, "{left:?}");
        let shown = cluster.cli(&cluster.context, &["coordinator", "ls"]).await;
        assert!(shown.ok && shown.err.contains("no majority answers"), "{shown:?}");
        let refused = remove(&cluster, "second").await;
        assert!(!refused.ok && refused.err.contains("no majority"), "{refused:?}");
    }))
    .await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().is_file() {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
    let mode = std::fs::metadata(from).expect("a directory").permissions();
    std::fs::set_permissions(to, mode).expect("ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_on_two_machines_and_another_address_are_named() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        // Its own directory elsewhere, at another address, while the first one runs.
        let twin = Node::new(cluster.path(), "twin", None);
        copy(&cluster.nodes[2].dir, &twin.dir);
        let refused = twin.run_to_end().await;
        assert!(refused.code == Some(78) && refused.err.contains("in use on two machines"), "{refused:?}");
        // Started while the first one was down: it notices when that comes back.
        cluster.nodes[2].kill().await;
        let mut twin = twin;
        twin.start();
        until("it serves", async || if twin.said().contains("serving") { Ok(()) } else { Err(twin.said()) })
            .await;
        cluster.nodes[2].start();
        assert_eq!(twin.ended().await, Some(78), "{}", twin.said());
        assert!(twin.said().contains("in use on two machines"), "{}", twin.said());

        cluster.nodes[1].kill().await;
        let own = cluster.nodes[1].address.to_string();
        let moved = cluster.nodes[1].once(&["run", "--advertise", "127.0.0.9:7400"]).await;
        assert!(moved.code == Some(78) && moved.err.contains(&own), "{moved:?}");
        assert!(moved.err.contains("docs/tasks/coordinators.md"), "{moved:?}");
        let words =
            ["init", "--platform", "shop", "--advertise", "127.0.0.9:7400", "--context", "/nonexistent"];
        let made = cluster.nodes[1].once(&words).await;
        assert!(!made.ok && made.err.contains(&own) && made.err.contains("docs/tasks"), "{made:?}");
    }))
    .await;
}
