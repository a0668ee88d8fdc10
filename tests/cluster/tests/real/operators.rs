//! Operators' certificates: one for a call however often it is repeated; taken back over the wire, streams and all.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::{ANSWER, Operator};
use muster_cluster_tests::wait::{bounded, until};
use muster_model::view::OperatorView;
use muster_proto::control as pb;
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::context::Context;
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc::within;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::certificates::{follow, refusal};

/// What is promised is 2 s; the rest is for a machine that does other things too.
const WITHIN: Duration = Duration::from_millis(2_500);

async fn issue(at: &Operator, serial: u64, key: &NodeKey, role: &str) -> Result<String, Status> {
    let name = muster_model::ids::Name::new("eve").expect("a name");
    let request = pb::IssueOperatorRequest {
        caller: Some(pb::Caller { client: "a-client".to_owned(), serial }),
        csr_pem: key.csr(&name).expect("a request can be signed"),
        role: role.to_owned(),
        name: name.to_string(),
    };
    Ok(within(ANSWER, at.control().issue_operator(request)).await?.into_inner().certificate_pem)
}

async fn revoke(at: &Operator, host: &str, operator: &str) -> Result<usize, Status> {
    let (host, operator) = (host.to_owned(), operator.to_owned());
    let request = pb::RevokeRequest { host, operator, why: "stolen".to_owned() };
    Ok(within(ANSWER, at.control().revoke(request)).await?.into_inner().serials.len())
}

fn read(pem: &str) -> PeerCertificate {
    PeerCertificate::from_pem(pem).expect("a certificate")
}

/// A context file of somebody else.
fn store(own: &Context, key: &NodeKey, certificate_pem: String, to: &Path) {
    let context = Context { certificate_pem, key_pem: key.pem(), ..own.clone() };
    context.store(to).expect("the context can be written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_call_is_one_certificate_and_another_key_is_refused() {
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        let operators: Vec<Operator> = (0..3).map(|node| cluster.operator(node)).collect();
        let key = NodeKey::generate().expect("a key");

        let first = read(&issue(&operators[0], 1, &key, "viewer").await.expect("a certificate"));
        // Certificates count in seconds: a new one would end later.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        for operator in &operators {
            let again = issue(operator, 1, &key, "viewer").await.expect("the certificate of before");
            assert_eq!(read(&again), first);
        }
        let other = NodeKey::generate().expect("a key");
        for (key, role) in [(&other, "viewer"), (&key, "admin")] {
            let refused = issue(&operators[1], 1, key, role).await.expect_err("this call was another one");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        }
        let next = read(&issue(&operators[1], 2, &key, "viewer").await.expect("a certificate"));
        assert_ne!(next.serial, first.serial);

        let race = join_all(operators.iter().map(|operator| issue(operator, 3, &key, "viewer"))).await;
        let raced: Vec<PeerCertificate> =
            race.into_iter().map(|pem| read(&pem.expect("a certificate"))).collect();
        assert!(raced.iter().all(|one| *one == raced[0]), "{raced:?}");

        let audit = operators[0].audit().await.expect("the audit log");
        for one in [&first, &next, &raced[0]] {
            let written = audit.iter().filter(|line| line.contains(&one.serial)).count();
            assert_eq!(written, 1, "{}: {audit:#?}", one.serial);
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_admin_revokes_is_cut_on_every_coordinator() {
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        let leader = cluster.leader().await;
        let (at, admin) = (cluster.nodes[leader].address, cluster.operator((leader + 1) % 3));
        let token = cluster.token("host").await;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let session = agent.session(at, "boot").await.expect("a session");

        let key = NodeKey::generate().expect("a key");
        let file = cluster.path().join("eve.json");
        let certificate = issue(&admin, 1, &key, "operator").await.expect("a certificate");
        store(&admin.context, &key, certificate, &file);
        let eve: Vec<Operator> =
            cluster.nodes.iter().map(|n| Operator::new(&file, n.address, &cluster.clock)).collect();
        let mut streams = Vec::new();
        for one in &eve {
            streams.push(follow(one).await);
        }
        let beside = follow(&admin).await;
        let denied = revoke(&eve[0], "", "ada").await.expect_err("not an admin");
        assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");

        assert_eq!(revoke(&admin, "", "eve").await.expect("revoked"), 1);
        let revoked = Instant::now();
        for (at, ended) in join_all(streams).await.into_iter().enumerate() {
            let took = ended.saturating_duration_since(revoked);
            println!("coordinator {at}: the revoked operator's stream ended after {took:?}");
            assert!(took < WITHIN, "{took:?}");
        }
        for one in &eve {
            let denied = refusal(async || one.status().await.map(drop)).await;
            assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
        }
        assert_eq!(revoke(&admin, "", "eve").await.expect("known"), 0, "to say it again changes nothing");
        assert!(session.heard().ended.is_none(), "{:?}", session.heard());

        assert_eq!(revoke(&admin, "h1", "").await.expect("revoked"), 1);
        let revoked = Instant::now();
        let ended = until("the agent's session ends", async || session.heard().ended.ok_or("open")).await;
        let took = ended.0.saturating_duration_since(revoked);
        println!("the revoked agent's session ended after {took:?}");
        assert!(took < WITHIN, "{took:?}");

        let me = PeerCertificate::from_pem(&admin.context.certificate_pem).expect("ours").identity.id;
        let code =
            async |host: &str, operator: &str| revoke(&admin, host, operator).await.map_err(|s| s.code());
        assert_eq!(code("", me.as_str()).await, Err(Code::FailedPrecondition), "nobody revokes himself");
        assert_eq!(code("", "nobody").await, Err(Code::NotFound));
        assert_eq!(code("nowhere", "").await, Err(Code::NotFound));
        assert_eq!(code("h1", "eve").await, Err(Code::InvalidArgument));

        let listed = cluster.cli(&cluster.context, &["-o", "json", "operator", "ls"]).await;
        let all: Vec<OperatorView> =
            serde_json::from_str(&listed.out).unwrap_or_else(|e| panic!("{e}: {listed:?}"));
        let eve = all.iter().find(|one| one.name == "eve").expect("listed");
        assert_eq!((eve.role.as_str(), eve.revoked.as_deref()), ("operator", Some("stolen")));
        let audit = admin.audit().await.expect("the audit log");
        assert_eq!(
            audit.iter().filter(|l| l.contains("revoke certificate") && l.ends_with(": stolen")).count(),
            2
        );
        assert!(beside.now_or_never().is_none(), "nobody else is cut");
    }))
    .await;
}
