//! Certificates that run out, and such as are revoked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::{ANSWER, Operator};
use muster_cluster_tests::wait::{bounded, until};
use muster_proto::control::control_client::ControlClient;
use muster_proto::control::{EventsRequest, StatusRequest};
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::dial::{Endpoints, probe};
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc::within;
use muster_runtime::tls::{PinnedKeys, Tls, Trust};
use tokio::time::Instant;
use tonic::{Code, Status};

/// Certificates that the coordinators show to somebody who pins no keys: each must be in force.
async fn shown(cluster: &Cluster) -> Vec<PeerCertificate> {
    let context = &cluster.operator(0).context;
    let trust = Arc::new(Trust::new(context.platform.clone(), &[&context.ca_pem]).expect("a CA"));
    let tls = Tls::new(None, trust, Arc::new(PinnedKeys::default()), cluster.clock());
    let tls = tls.client_config().expect("TLS");
    let mut all = Vec::new();
    for node in &cluster.nodes {
        let endpoints = Endpoints::new([node.address.to_string()]);
        all.push(until("a certificate in force", async || probe(&endpoints, &tls).await).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lives_are_renewed_and_an_expired_agent_can_only_renew() {
    bounded(Box::pin(async {
        let life = Duration::from_secs(9);
        let cluster = Cluster::three_with_life(Some(life.as_secs())).await;
        let leader = cluster.leader().await;
        let at = cluster.nodes[leader].address;
        let join = async |name: &str| {
            let token = cluster.token("host").await;
            Agent::join(at, &token, name, &cluster.clock()).await.expect("joins")
        };
        let (mut silent, mut careful) = (join("silent").await, join("careful").await);
        let before: BTreeSet<String> = shown(&cluster).await.into_iter().map(|c| c.serial).collect();

        // One agent renews as agents do, the other one does not.
        let started = Instant::now();
        let mut renewed = 0;
        while started.elapsed() < life + Duration::from_secs(2) {
            let certificate = PeerCertificate::from_pem(&careful.joined.certificate_pem).expect("ours");
            if certificate.renew_at_ms() <= cluster.clock.now_ms() {
                let key = NodeKey::from_pem(careful.key.pem().expose()).expect("our key");
                let done = careful.renew(at, &key).await;
                renewed += u32::from(done.is_ok());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(renewed >= 2, "{renewed}");
        let now = shown(&cluster).await;
        assert!(now.iter().all(|certificate| !before.contains(&certificate.serial)), "{now:?}");
        let ids: BTreeSet<_> = now.iter().map(|certificate| certificate.identity.id.clone()).collect();
        assert_eq!(ids.len(), 3);

        let at = cluster.nodes[cluster.leader().await].address;
        until("the careful agent's session", async || careful.session(at, "boot").await.map(drop)).await;

        let denied = silent.session(at, "boot").await.err().expect("an expired certificate opens no session");
        assert_eq!(denied.code(), Code::Unauthenticated, "{denied}");
        assert!(denied.message().contains("expired"), "{denied}");
        let status = ControlClient::new(silent.channel(at)).status(StatusRequest::default()).await;
        assert_eq!(status.expect_err("an agent, and expired").code(), Code::Unauthenticated);

        let own = NodeKey::from_pem(silent.key.pem().expose()).expect("our key");
        let other = NodeKey::generate().expect("a key");
        let denied = silent.renew(at, &other).await.expect_err("another key");
        assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
        assert!(denied.message().contains("same key"), "{denied}");
        until("an expired one is renewed", async || silent.renew(at, &own).await).await;
        silent.session(at, "boot").await.map(drop).expect("a renewed certificate opens a session");

        // Nothing was signed for the other key.
        let audit = cluster.fresh_operator(0).await.audit().await.expect("the audit log");
        let of_silent = format!("/agent/{}", silent.joined.id);
        let signed = audit.iter().filter(|l| l.contains("certificate") && l.ends_with(&of_silent)).count();
        assert_eq!(signed, 2, "{audit:#?}");
    }))
    .await;
}

/// A connection of an operator that stays open; ends when the coordinator ends it.
pub async fn follow(operator: &Operator) -> impl Future<Output = Instant> + use<> {
    let request = EventsRequest { from: 0, tail: 1, follow: true };
    let mut stream = within(ANSWER, operator.control().events(request)).await.expect("events").into_inner();
    async move {
        while let Ok(Some(_)) = stream.message().await {}
        Instant::now()
    }
}

/// Why a revoked caller is refused. The coordinator also cuts its connection, and may do so in the middle of a call:
/// such a call is made again.
pub async fn refusal(mut call: impl AsyncFnMut() -> Result<(), Status>) -> Status {
    for _ in 0..20 {
        let status = call().await.expect_err("revoked");
        if !matches!(status.code(), Code::Cancelled | Code::Unavailable | Code::Unknown) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("cut every time, never refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_cuts_open_streams_on_every_coordinator() {
    const WITHIN: Duration = Duration::from_millis(2_500);
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        let leader = cluster.leader().await;
        let at = cluster.nodes[leader].address;
        let token = cluster.token("host").await;
        let mut agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let session = agent.session(at, "boot").await.expect("a session");
        let context = until("an operator", async || cluster.issue(leader, "eve", "operator").await).await;
        let operators: Vec<Operator> =
            cluster.nodes.iter().map(|n| Operator::new(&context, n.address, &cluster.clock)).collect();
        let mut streams = Vec::new();
        for operator in &operators {
            streams.push(follow(operator).await);
        }
        let beside = follow(&cluster.operator((leader + 1) % 3)).await;

        let revoke = async |serial: &str| {
            // Root on a follower.
            let done = cluster.nodes[(leader + 1) % 3]
                .once(&["admin", "revoke", "--serial", serial, "--why", "stolen"])
                .await;
            assert!(done.ok, "{done:?}");
            Instant::now()
        };
        let revoked = revoke(&Cluster::serial(&context)).await;
        for (at, ended) in futures::future::join_all(streams).await.into_iter().enumerate() {
            let took = ended.saturating_duration_since(revoked);
            println!("coordinator {at}: the revoked operator's stream ended after {took:?}");
            assert!(took < WITHIN, "{took:?}");
        }
        for operator in &operators {
            let denied = refusal(async || operator.status().await.map(drop)).await;
            assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
        }

        assert!(session.heard().ended.is_none(), "{:?}", session.heard());
        let serial = PeerCertificate::from_pem(&agent.joined.certificate_pem).expect("ours").serial;
        let revoked = revoke(&serial).await;
        let ended = until("the agent's session ends", async || session.heard().ended.ok_or("open")).await;
        let took = ended.0.saturating_duration_since(revoked);
        println!("the revoked agent's session ended after {took:?}");
        assert!(took < WITHIN, "{took:?}");
        let own = NodeKey::from_pem(agent.key.pem().expose()).expect("our key");
        let denied = refusal(async || agent.renew(at, &own).await).await;
        assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
        assert!(agent.session(at, "boot").await.is_err());

        // The first administrator's certificate was signed before there was a log, and can be revoked as well.
        revoke(&Cluster::serial(&cluster.context)).await;
        tokio::time::timeout(WITHIN, beside).await.expect("its streams end too");
    }))
    .await;
}
