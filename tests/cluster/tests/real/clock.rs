//! A platform that was off until every certificate had run out.

use std::sync::Arc;
use std::time::Duration;

use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::Operator;
use muster_cluster_tests::programs;
use muster_cluster_tests::wait::{bounded, until};
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::dial::{Endpoints, probe};
use muster_runtime::tls::{PinnedKeys, Tls, Trust};
use tonic::Code;

const DAYS: u64 = 60;

/// The machine's clock, as far ahead as the coordinators'.
#[derive(Debug)]
struct Ahead(Arc<dyn Clock>);

impl Clock for Ahead {
    fn now_ms(&self) -> u64 {
        self.0.now_ms() + DAYS * 86_400_000
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_two_months_off_it_elects_renews_and_serves() {
    if programs::faketime().is_none() {
        println!("\nSKIPPED: expired coordinators form a quorum: needs the package faketime");
        return;
    }
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        for node in &mut cluster.nodes {
            assert!(node.terminate().await.success(), "{}", node.said());
            node.clock = Some("+60d");
            node.start();
        }
        cluster.clock = Arc::new(Ahead(SystemClock::shared()));
        let context =
            until("root makes an administrator", async || cluster.issue(2, "rescue", "admin").await);
        let context = context.await;
        for node in &cluster.nodes {
            let operator = Operator::new(&context, node.address, &cluster.clock);
            let view = until("it serves", async || operator.status().await).await;
            assert_eq!(view.coordinators.iter().filter(|one| one.voter).count(), 3);
            operator.token("host", 0).await.expect("changes are agreed on");
        }
        let old = cluster.operator(0);
        let denied = old.status().await.expect_err("the first administrator's certificate has run out");
        assert_eq!(denied.code(), Code::Unauthenticated, "{denied}");

        // Somebody who pins no key believes them again: they have renewed themselves.
        let trust = Arc::new(Trust::new(old.context.platform.clone(), &[&old.context.ca_pem]).expect("a CA"));
        let tls = Tls::new(None, trust, Arc::new(PinnedKeys::default()), cluster.clock());
        let tls = tls.client_config().expect("TLS");
        for node in &cluster.nodes {
            let endpoints = Endpoints::new([node.address.to_string()]);
            until("it shows a new certificate", async || probe(&endpoints, &tls).await).await;
        }
        let seen = cluster.cli(&context, &["-o", "json", "status"]).await;
        assert!(seen.ok, "{seen:?}");
        // The expired one renews itself: nobody took it back.
        let seen = cluster.cli(&cluster.context, &["-o", "json", "status"]).await;
        assert!(seen.ok, "{seen:?}");
    }))
    .await;
}
