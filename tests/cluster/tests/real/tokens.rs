//! Join tokens: good once, for one role, for a while.

use std::time::Duration;

use futures::future::join_all;
use muster_cluster_tests::agent::ask_to_join;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::node::Node;
use muster_cluster_tests::wait::{bounded, until};
use muster_runtime::keys::NodeKey;
use tonic::Code;

/// Another token of the same form: its last digit is another one.
fn forged(token: &str) -> String {
    let (rest, last) = token.split_at(token.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// A token of another platform: the CA's digest is another one.
fn foreign(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    format!("{}.{}.{}.{}", parts[0], parts[1], forged(parts[2]), parts[3])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_not_good_are_refused_and_noted() {
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        let clock = cluster.clock();
        let (operator, at) = (cluster.operator(0), cluster.nodes[1].address);
        let key = || NodeKey::generate().expect("a key");

        let short = operator.token("host", 1).await.expect("a token");
        let good = operator.token("host", 0).await.expect("a token");
        let unknown = ask_to_join(at, &forged(&good), &key(), "h1", &clock).await.expect_err("forged");
        assert_eq!(unknown.code(), Code::PermissionDenied);
        assert!(unknown.message().contains("is not known"), "{unknown}");

        // A host's token turned into a coordinator's is none.
        let leader = cluster.nodes[cluster.leader().await].address;
        let turned = good.replacen(".h.", ".c.", 1);
        let turned = ask_to_join(leader, &turned, &key(), "h1", &clock).await.expect_err("another role");
        assert_eq!(turned.code(), Code::PermissionDenied);
        assert!(turned.message().contains("is not known"), "{turned}");

        // The connection of a good token, used for one with another CA: the server refuses.
        let read: muster_runtime::token::JoinToken = good.parse().expect("a token");
        let tls = muster_runtime::tls::join_config(read.ca().clone(), cluster.clock()).expect("TLS");
        let endpoints = muster_runtime::dial::Endpoints::new([at.to_string()]);
        let channel = muster_runtime::dial::channel(endpoints, tls);
        let other = muster_cluster_tests::agent::send_join(channel, &foreign(&good), &key(), "h1").await;
        assert_eq!(other.expect_err("another platform's").code(), Code::PermissionDenied);

        let user = key();
        ask_to_join(at, &good, &user, "h1", &clock).await.expect("a good token");
        ask_to_join(at, &good, &user, "h1", &clock).await.expect("the same key may repeat it");
        let reused = ask_to_join(at, &good, &key(), "h2", &clock).await.expect_err("reused");
        assert!(reused.message().contains("was used already"), "{reused}");

        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let expired = ask_to_join(at, &short, &key(), "h2", &clock).await.expect_err("expired");
        assert!(expired.message().contains("has expired"), "{expired}");

        let view = operator.status().await.expect("a read");
        assert_eq!(view.hosts.len(), 1, "{:?}", view.hosts);

        // The operator sees the attempts with the CLI; refusals before the log are written at a bounded pace.
        until("the audit log names them all", async || {
            let seen = cluster.cli(&cluster.context, &["-o", "json", "audit", "--tail", "200"]).await;
            let wanted = ["is not known", "another platform", "was used already", "has expired"];
            match wanted.iter().find(|text| !seen.ok || !seen.out.contains(*text)) {
                None => Ok(()),
                Some(missing) => Err(format!("{missing}: {seen:?}")),
            }
        })
        .await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_refuses_to_join_by_a_wrong_token() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let joiner = Node::new(cluster.path(), "joiner", None);
        let (own, asked) = (joiner.address.to_string(), cluster.nodes[0].address.to_string());
        let join = async |token: &str| {
            joiner.once(&["join", "--coordinator", &asked, "--token", token, "--advertise", &own]).await
        };
        let token = cluster.token("coordinator").await;
        let other = join(&foreign(&token)).await;
        assert!(!other.ok && other.err.contains("another platform"), "{other:?}");
        let host = join(&cluster.token("host").await).await;
        assert!(!host.ok && host.err.contains("lets a agent join"), "{host:?}");
        let unknown = join(&forged(&token)).await;
        assert!(!unknown.ok && unknown.err.contains("is not known"), "{unknown:?}");
        assert!(!joiner.dir.join("identity").exists());
        let good = join(&token).await;
        assert!(good.ok, "{good:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_joiners_with_one_token_exactly_one_gets_in() {
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        for round in 0..3 {
            let token = cluster.token("host").await;
            let joiners = (0..9).map(|number| {
                let (cluster, token) = (&cluster, &token);
                async move {
                    let key = NodeKey::generate().expect("a key");
                    let at = cluster.nodes[number % 3].address;
                    ask_to_join(at, token, &key, &format!("h{round}-{number}"), &cluster.clock()).await
                }
            });
            let answers = join_all(joiners).await;
            let won = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(won, 1, "round {round}");
            for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                assert!(refused.message().contains("was used already"), "{refused}");
            }
        }
        assert_eq!(cluster.status(0).await.hosts.len(), 3);
    }))
    .await;
}
