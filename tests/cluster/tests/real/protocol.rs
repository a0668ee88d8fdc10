//! The first words on a connection, and messages that are too long.

use muster_cluster_tests::agent::{Agent, said};
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::ANSWER;
use muster_cluster_tests::wait::{bounded, until};
use muster_proto::agents::agents_client::AgentsClient;
use muster_proto::agents::{AgentHello, Beat, FromAgent, ToAgent, from_agent};
use muster_proto::control as pb;
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::identity::{HelloRequest, JoinRequest};
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::rpc::within;
use tonic::{Code, Status};

/// Opens a session with this first message.
async fn open(agent: &Agent, cluster: &Cluster, first: FromAgent) -> Result<Option<ToAgent>, Status> {
    let outbound = tokio_stream::iter([first]);
    let mut client = AgentsClient::new(agent.channel(cluster.nodes[0].address));
    let mut inbound = within(ANSWER, client.session(outbound)).await?.into_inner();
    within(ANSWER, inbound.message()).await
}

fn names_both(status: &Status) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    for range in [format!("{PROTOCOL_MIN} to {PROTOCOL_MAX}"), "98 to 99".to_owned()] {
        assert!(status.message().contains(&range), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_common_protocol_or_hello_nothing_is_said() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let at = cluster.nodes[0].address;
        let token = cluster.token("host").await;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let mut identity = IdentityClient::new(agent.channel(at));
        let range = |protocol_min, protocol_max| HelloRequest {
            protocol_min,
            protocol_max,
            ..HelloRequest::default()
        };
        names_both(&within(ANSWER, identity.hello(range(98, 99))).await.expect_err("no overlap"));
        let agreed = within(ANSWER, identity.hello(range(0, 99))).await.expect("an overlap").into_inner();
        assert_eq!((agreed.protocol, agreed.platform_name.as_str()), (PROTOCOL_MAX, "shop"));

        let hello = |protocol_min, protocol_max, boot: &str| {
            let boot = boot.to_owned();
            let hello = AgentHello { protocol_min, protocol_max, boot, ..AgentHello::default() };
            said(from_agent::Message::Hello(hello))
        };
        names_both(&open(&agent, &cluster, hello(98, 99, "boot")).await.expect_err("no overlap"));
        let long = "b".repeat(65);
        let denied = open(&agent, &cluster, hello(1, 1, &long)).await.expect_err("a long name of a boot");
        assert_eq!(denied.code(), Code::InvalidArgument, "{denied}");
        let beat = said(from_agent::Message::Beat(Beat::default()));
        let denied = open(&agent, &cluster, beat).await.expect_err("no Hello");
        assert_eq!(denied.code(), Code::InvalidArgument, "{denied}");
        assert!(denied.message().contains("must be Hello"), "{denied}");
        assert!(open(&agent, &cluster, hello(1, 1, "boot")).await.expect("a session").is_some());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_too_long_are_refused_and_harm_nobody() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let at = cluster.nodes[0].address;
        let operator = cluster.operator(0);
        for (length, code) in [(300 << 10, Code::InvalidArgument), (2 << 20, Code::OutOfRange)] {
            let request = pb::SpecRequest { caller: None, yaml: "#".repeat(length), at: 0 };
            let refused = within(ANSWER, operator.control().plan(request)).await.expect_err("too long");
            assert_eq!(refused.code(), code, "{length}: {refused}");
        }
        let token = cluster.token("host").await;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let join = JoinRequest { name: "h".repeat(300 << 10), ..JoinRequest::default() };
        let refused = within(ANSWER, IdentityClient::new(agent.channel(at)).join(join)).await;
        assert_eq!(refused.expect_err("too long").code(), Code::OutOfRange);

        let session = agent.session(at, "boot").await.expect("a session");
        let report = vec![b' '; (4 << 20) + 1];
        session.send(from_agent::Message::Report(report.into())).await;
        until("the session ends", async || session.heard().ended.ok_or("open")).await;
        // What cannot be read ends nothing: a newer agent may say more than this coordinator knows.
        let session = agent.session(at, "boot").await.expect("a session");
        session.send(from_agent::Message::Report(b"{]".to_vec().into())).await;
        until("beats go on", async || {
            let heard = session.heard();
            assert!(heard.ended.is_none(), "{heard:?}");
            if heard.acks >= 4 { Ok(()) } else { Err(heard.acks) }
        })
        .await;
        operator.status().await.expect("it serves");
    }))
    .await;
}
