//! What peers may say: nothing without Hello, nothing from another platform, nothing forged. A node
//! must survive all of it.

use muster_proto::raft::raft_client::RaftClient;
use muster_proto::raft::{HelloRequest, Message, ProposeRequest, SnapshotChunk};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::harness::{Cluster, WAIT};
use super::sim_disk::SimDisk;
use crate::history::{
    self, AppendMessage, SnapshotHead, SnapshotVote, WireBody, WireEntry, WireLogId, WireMembership,
    WireNode, WireVote,
};
use crate::snapshot::Snapshots;

struct Stranger {
    client: RaftClient<Channel>,
    session: u64,
}

fn hello() -> HelloRequest {
    HelloRequest {
        protocol_min: 1,
        protocol_max: 9,
        features: vec!["later".into()],
        platform: "test".into(),
        node: 9,
        target: 1,
    }
}

async fn stranger(cluster: &Cluster) -> Stranger {
    let endpoint = format!("http://{}", cluster.nodes[&1].node.endpoint);
    let mut client = RaftClient::connect(endpoint).await.unwrap();
    let session = client.hello(hello()).await.unwrap().into_inner();
    assert_eq!(session.protocol, 1);
    Stranger { client, session: session.session }
}

impl Stranger {
    fn message(&self, payload: Vec<u8>) -> Message {
        Message { session: self.session, payload: payload.into() }
    }

    async fn snapshot(&mut self, vote: WireVote, head: &SnapshotHead, damage: bool) -> Status {
        let snapshots = Snapshots::open(std::sync::Arc::new(SimDisk::default())).unwrap();
        let body = postcard::to_allocvec(&Vec::<(u64, Vec<u8>)>::new()).unwrap();
        let written = snapshots.write(head, &body).unwrap();
        let mut data = crate::disk::read_all(&*written.file).unwrap();
        if damage {
            data[40] ^= 1;
        }
        let header = history::encode(&SnapshotVote { vote }).unwrap().into();
        let first = SnapshotChunk { session: self.session, header, data: bytes::Bytes::new() };
        let rest = SnapshotChunk { session: 0, header: bytes::Bytes::new(), data: data.into() };
        self.client.snapshot(futures::stream::iter([first, rest])).await.unwrap_err()
    }
}

fn head(term: u64, index: u64) -> SnapshotHead {
    let last = WireLogId { term, node: 1, index };
    let node = WireNode { id: 1, endpoint: "127.0.0.1:1".into(), key: String::new() };
    let membership = WireMembership { configs: vec![vec![1]], nodes: vec![node] };
    SnapshotHead { platform: "test".into(), last, membership_at: Some(last), membership, at_ms: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_comes_first_and_names_platform_node_and_protocol() {
    let cluster = Cluster::of(1).await;
    let mut stranger = stranger(&cluster).await;
    let foreign = HelloRequest { platform: "other".into(), ..hello() };
    assert_eq!(stranger.client.hello(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let wrong = HelloRequest { target: 2, ..hello() };
    assert_eq!(stranger.client.hello(wrong).await.unwrap_err().code(), Code::FailedPrecondition);
    let future = HelloRequest { protocol_min: 2, protocol_max: 3, ..hello() };
    assert_eq!(stranger.client.hello(future).await.unwrap_err().code(), Code::FailedPrecondition);

    let unknown = ProposeRequest { session: stranger.session + 1, payload: "x".into(), wait_ms: 1000 };
    assert_eq!(stranger.client.propose(unknown).await.unwrap_err().code(), Code::Unauthenticated);
    let known = ProposeRequest { session: stranger.session, payload: "x".into(), wait_ms: 1000 };
    stranger.client.propose(known).await.unwrap();
    assert_eq!(cluster.nodes[&1].lines(), ["x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_forged_messages_change_nothing() {
    let cluster = Cluster::of(1).await;
    cluster.propose(1, "kept").await;
    let mut stranger = stranger(&cluster).await;
    let vote = WireVote { term: 99, node: 9, committed: true };
    let at = |term, index| WireEntry { id: WireLogId { term, node: 9, index }, body: WireBody::Blank };
    let forged =
        |vote, entries| history::encode(&AppendMessage { vote, prev: None, commit: None, entries }).unwrap();
    let hole = forged(vote, vec![at(99, 0), at(99, 2)]);
    let newer = forged(vote, vec![at(100, 0)]);
    let not_leader = forged(WireVote { committed: false, ..vote }, Vec::new());
    for payload in [Vec::new(), vec![7, 1, 2], vec![1; 40], hole, newer, not_leader] {
        let message = stranger.message(payload);
        let error = stranger.client.append(message).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    let huge = stranger.message(vec![0; 5 << 20]);
    assert_eq!(stranger.client.append(huge).await.unwrap_err().code(), Code::OutOfRange);

    cluster.propose(1, "still here").await;
    assert_eq!(cluster.nodes[&1].lines(), ["kept", "still here"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_snapshots_are_refused_and_leave_no_file() {
    let cluster = Cluster::of(1).await;
    for number in 0..5 {
        cluster.propose(1, &number.to_string()).await;
    }
    let mut stranger = stranger(&cluster).await;
    let vote = WireVote { term: 99, node: 9, committed: true };
    let expect = |status: Status, why: &str| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(why), "{status}");
    };
    let foreign = SnapshotHead { platform: "other".into(), ..head(50, 50) };
    expect(stranger.snapshot(vote, &foreign, false).await, "another platform");
    expect(stranger.snapshot(vote, &head(100, 50), false).await, "newer than its leader");
    expect(stranger.snapshot(vote, &head(50, 2), false).await, "contradicts");
    let nobody = SnapshotHead { membership_at: None, ..head(50, 50) };
    expect(stranger.snapshot(vote, &nobody, false).await, "no membership");
    expect(stranger.snapshot(vote, &head(50, 50), true).await, "checksum");

    cluster.propose(1, "5").await;
    assert_eq!(cluster.nodes[&1].lines().len(), 6);
    cluster.nodes[&1].consensus.linearizable(WAIT).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(cluster.path(1)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}
