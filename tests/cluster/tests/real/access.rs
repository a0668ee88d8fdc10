//! Who may call what, over the wire; the whole table is a unit test. An agent speaks for its own host only.

use muster_cluster_tests::agent::{Agent, Session};
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::{ANSWER, Operator};
use muster_cluster_tests::wait::{bounded, until};
use muster_model::ids::Generation;
use muster_model::observed::{ContainerState, MemberStatus};
use muster_model::plan::{HostPlan, MemberPlan, Run};
use muster_model::time::Timestamp;
use muster_model::view::{Liveness, MemberView};
use muster_proto::control as pb;
use muster_proto::control::control_client::ControlClient;
use muster_proto::identity::RenewRequest;
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::raft;
use muster_proto::raft::raft_client::RaftClient;
use muster_runtime::dial::{Endpoints, channel};
use muster_runtime::rpc::within;
use muster_runtime::tls::{PinnedKeys, Tls, Trust};
use tonic::transport::Channel;
use tonic::{Code, Status};

const SPEC: &str = "
muster: 1
platform: shop
services:
  hello:
    kind: app
    image: muster/busybox:1.35
    command: [/bin/busybox, httpd, -f, -p, '8080']
    networks: [proxy]
    replicas: 2
";

/// How calls of each kind end on a connection.
async fn tried(channel: &Channel) -> Vec<(&'static str, Status)> {
    let mut control = ControlClient::new(channel.clone());
    let mut raft = RaftClient::new(channel.clone());
    let mut answers = Vec::new();
    let mut note = |what, code: Option<Status>| answers.push((what, code.unwrap_or_else(|| Status::ok(""))));
    let spec = || pb::SpecRequest { caller: None, yaml: SPEC.to_owned(), at: 0 };
    note("Status", within(ANSWER, control.status(pb::StatusRequest::default())).await.err());
    note("Conn", within(ANSWER, control.conn(pb::ConnRequest::default())).await.err());
    note("Apply", within(ANSWER, control.apply(spec())).await.err());
    note("CreateToken", within(ANSWER, control.create_token(pb::CreateTokenRequest::default())).await.err());
    note("Audit", within(ANSWER, control.audit(pb::EventsRequest::default())).await.err());
    note("Append", within(ANSWER, raft.append(raft::Message::default())).await.err());
    note("Propose", within(ANSWER, raft.propose(raft::ProposeRequest::default())).await.err());
    answers
}

fn all(answers: &[(&str, Status)], code: Code, but: &[&str]) {
    for (what, status) in answers {
        assert!((status.code() == code) != but.contains(what), "{what}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_calls_its_own_and_nothing_else() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let at = cluster.nodes[0].address;
        let token = cluster.token("host").await;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        all(&tried(&agent.channel(at)).await, Code::PermissionDenied, &[]);

        let viewer = cluster.issue(0, "vera", "viewer").await.expect("root can");
        let viewer = Operator::new(&viewer, at, &cluster.clock);
        all(&tried(&viewer.channel()).await, Code::PermissionDenied, &["Status"]);
        assert!(viewer.status().await.is_ok());
        let operator = cluster.issue(0, "oleg", "operator").await.expect("root can");
        let operator = Operator::new(&operator, at, &cluster.clock);
        // It may ask for connections; there is only no such service.
        all(&tried(&operator.channel()).await, Code::PermissionDenied, &["Status", "Conn"]);

        let context = &cluster.operator(0).context;
        let trust = Trust::new(context.platform.clone(), &[&context.ca_pem]).expect("a CA").into();
        let anonymous = Tls::new(None, trust, PinnedKeys::default().into(), cluster.clock());
        let anonymous = channel(Endpoints::new([at.to_string()]), anonymous.client_config().expect("TLS"));
        all(&tried(&anonymous).await, Code::Unauthenticated, &[]);
        let renew = IdentityClient::new(anonymous).renew(RenewRequest::default()).await;
        assert_eq!(renew.expect_err("nobody").code(), Code::Unauthenticated);

        until("the refusals are in the audit log", async || {
            let audit = cluster.operator(0).audit().await.map_err(|status| vec![status.to_string()])?;
            let wanted = ["agent h1", "viewer vera", "unknown at"];
            let has = |text: &&str| audit.iter().any(|l| l.contains("refused: ") && l.contains(*text));
            if wanted.iter().all(has) { Ok(()) } else { Err(audit) }
        })
        .await;
    }))
    .await;
}

async fn host(cluster: &Cluster, name: &str) -> Session {
    let at = cluster.nodes[0].address;
    let token = cluster.token("host").await;
    let agent = Agent::join(at, &token, name, &cluster.clock()).await.expect("joins");
    let session = agent.session(at, name).await.expect("a session");
    session.report(Generation::default(), Vec::new()).await;
    session
}

/// A plan with a member that must run.
async fn plan(session: &Session) -> (HostPlan, MemberPlan) {
    until("a plan with a member", async || {
        let plan = session.heard().plan.ok_or_else(|| "no plan".to_owned())?;
        let member = plan.members.first().filter(|member| member.run == Run::Running).cloned();
        let saw = format!("{:?}", plan.members);
        member.map(|member| (plan, member)).ok_or(saw)
    })
    .await
}

fn running(member: &MemberPlan) -> MemberStatus {
    MemberStatus {
        member: member.member,
        slot: member.slot.clone(),
        revision: member.revision,
        container_hash: member.rendered.container_hash(),
        state: ContainerState::Running { since: Timestamp(1_700_000_000_000) },
        restarts: 0,
        restarts_done: 0,
        releases: 0,
        system_id: None,
        refused: None,
        successor: None,
        probes: Vec::new(),
    }
}

async fn member(cluster: &Cluster, wanted: &MemberPlan) -> MemberView {
    let view = cluster.status(0).await;
    let all = view.services.into_iter().flat_map(|service| service.members);
    all.into_iter().find(|member| member.member == wanted.member).expect("the member")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_changes_nothing_on_another_host() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let (honest, liar) = (host(&cluster, "h1").await, host(&cluster, "h2").await);
        until("both hosts are known", async || {
            let hosts = cluster.status(0).await.hosts;
            let ready = hosts.iter().all(|h| h.liveness == Liveness::Ready && h.facts.memory_bytes > 0);
            if hosts.len() == 2 && ready { Ok(()) } else { Err(hosts) }
        })
        .await;
        let request = pb::SpecRequest { caller: None, yaml: SPEC.to_owned(), at: 0 };
        let applied = until("the spec is applied", async || {
            within(ANSWER, cluster.operator(0).control().apply(request.clone())).await
        });
        let applied = applied.await.into_inner();
        let why = [applied.diagnostics, applied.plan].map(|json| String::from_utf8_lossy(&json).into_owned());
        assert!(applied.index > 0, "{why:?}");

        let (plan_of_honest, his) = plan(&honest).await;
        let (plan_of_liar, own) = plan(&liar).await;
        assert_ne!(his.member, own.member);
        // It reports its own member and the other host's; only the first is believed.
        liar.report(plan_of_liar.generation, vec![running(&his), running(&own)]).await;
        until("its own member runs", async || {
            let seen = member(&cluster, &own).await;
            if seen.running_since.is_some() { Ok(()) } else { Err(seen) }
        })
        .await;
        let seen = member(&cluster, &his).await;
        assert!(seen.running_since.is_none() && !seen.ready, "{seen:?}");

        honest.report(plan_of_honest.generation, vec![running(&his)]).await;
        until("its own host is believed", async || {
            let seen = member(&cluster, &his).await;
            if seen.running_since.is_some() { Ok(()) } else { Err(seen) }
        })
        .await;
        // And an empty report of the other one takes nothing away.
        liar.report(plan_of_liar.generation, vec![running(&own)]).await;
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        assert!(member(&cluster, &his).await.running_since.is_some());
    }))
    .await;
}
