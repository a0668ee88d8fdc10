//! A host of a platform that was lost joins the rebuilt one: the same host, with everything that it had.

use std::path::Path;

use muster_agent::enroll::{Wish, join};
use muster_agent::identity_dir::IdentityDir;
use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::wait::{bounded, until};
use muster_model::ids::Generation;
use muster_model::observed::{Condition, FOUND_MEMBERS};
use muster_proto::control as pb;
use muster_runtime::rpc::within;

use muster_cluster_tests::operator::ANSWER;

const SPEC: &str = "
muster: 1
platform: shop
services:
  pg-main: { kind: postgres, mode: single }
";

async fn wish(cluster: &Cluster, adopt: bool) -> Wish {
    Wish {
        coordinators: vec![cluster.nodes[0].address.to_string()],
        token: cluster.token("host").await,
        name: Some("h1".to_owned()),
        advertise: Some("127.0.0.1".to_owned()),
        zone: None,
        labels: Default::default(),
        adopt,
    }
}

fn read(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_a_lost_platform_is_adopted_by_the_rebuilt_one() {
    bounded(Box::pin(async {
        let lost = Cluster::single().await;
        let state = lost.path().join("agent");
        let first = join(&state, wish(&lost, false).await).await.expect("joins");
        let kept = ["plan.json", "ledger.json", "wg.key"].map(|file| state.join(file));
        for file in &kept[..2] {
            std::fs::write(file, format!("what {} held", file.display())).expect("a file");
        }
        let before = kept.each_ref().map(|file| read(file));

        let rebuilt = Cluster::single().await;
        let refused = join(&state, wish(&rebuilt, false).await).await.expect_err("joined already");
        assert!(refused.to_string().contains("--adopt"), "{refused:#}");
        let second = join(&state, wish(&rebuilt, true).await).await.expect("is adopted");
        assert_eq!(second.host, first.host, "the key is the host");
        assert_ne!(second.platform_id, first.platform_id);
        assert!(second.adopted);
        assert_eq!(kept.each_ref().map(|file| read(file)), before);
        assert!(state.join("identity.before/host.json").exists());

        // What the agent then says of what it runs: `agent/src/worker_tests.rs`.
        let (key, at) = (IdentityDir::new(&state).key().expect("the key"), rebuilt.nodes[0].address);
        let token = rebuilt.token("host").await;
        let agent = Agent::join_with(key, at, &token, "h1", &rebuilt.clock()).await.expect("the same key");
        let session = agent.session(at, "boot").await.expect("a session");
        let text = "found here, not in the spec: pg-main/1".to_owned();
        let found = Condition { code: FOUND_MEMBERS.to_owned(), text };
        session.report_with(Generation::default(), Vec::new(), vec![found]).await;
        until("the members that were found are told", async || {
            let view = rebuilt.status(0).await;
            let told = view.notices.iter().any(|notice| notice.contains("not in the spec: pg-main/1"));
            if told { Ok(()) } else { Err(format!("{:?}", view.notices)) }
        })
        .await;
        let request = pb::SpecRequest { caller: None, yaml: SPEC.to_owned(), at: 0 };
        let plan =
            within(ANSWER, rebuilt.operator(0).control().plan(request)).await.expect("a plan").into_inner();
        let plan = String::from_utf8_lossy(&plan.plan).into_owned();
        assert!(plan.contains("h1 with members of another platform"), "{plan}");
    }))
    .await;
}
