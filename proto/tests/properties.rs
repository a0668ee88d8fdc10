//! Any bytes as any message: an error or a message, never a panic; a message that was read is the same when it is
//! written and read again.

use bytes::Bytes;
use muster_property::{Target, bytes as damage};
use muster_proto::{agents, control, identity, raft};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use prost::Message;

/// Deepest nesting that is generated; deeper than any message of ours.
const DEEP: u32 = 4;

fn read<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        let written = message.encode_to_vec();
        assert_eq!(written.len(), message.encoded_len());
        assert_eq!(M::decode(Bytes::from(written)).expect("what was written can be read"), message);
    }
}

type Read = fn(&[u8]);

macro_rules! readers {
    ($($module:ident: $($message:ident)*;)*) => {
        /// Every message by its name.
        fn readers() -> Vec<(&'static str, Read)> {
            vec![$($((concat!(stringify!($module), ".", stringify!($message)), read::<$module::$message> as Read)),*),*]
        }
    };
}

readers! {
    agents: FromAgent ToAgent AgentHello Welcome Beat Ack DownHost PlanUpdate Keepsake NotLeader LogRequest LogChunk ImageOffer
        ImagePartRequest ImagePartReply ImageStateRequest ImageStateReply;
    control: StatusRequest View Caller SpecRequest PlanReply EventsRequest LogsRequest ExecRequest ExecReply LogData
        SetSchedulingRequest RemoveHostRequest Changed StartOperationRequest Started SteerOperationRequest
        OperationRequest OperationsRequest RemoveServiceRequest ConnRequest SecretsRequest CreateTokenRequest Token
        IssueOperatorRequest OperatorsRequest RevokeRequest Revoked Issued ExplainRequest WhatIfRequest
        CoordinatorsRequest RemoveCoordinatorRequest SaveSnapshotRequest SnapshotData SettleHostRequest
        BeginImageRequest SendImageRequest ImagePushRequest ImageUpload ImagesRequest
        NetRequest;
    identity: HelloRequest HelloReply JoinRequest JoinReply Endpoint RenewRequest RenewReply;
    raft: HelloRequest HelloReply Message SnapshotChunk ProposeRequest ProposeReply Applied NotLeader ReadIndexRequest
        ReadIndexReply;
}

#[test]
fn no_message_is_left_out() {
    let files = [
        ("agents", include_str!("../proto/agents.proto")),
        ("control", include_str!("../proto/control.proto")),
        ("identity", include_str!("../proto/identity.proto")),
        ("raft", include_str!("../proto/raft.proto")),
    ];
    let mut written: Vec<String> = Vec::new();
    for (package, text) in files {
        let messages = text.lines().filter_map(|line| line.trim().strip_prefix("message "));
        let name = |line: &str| line.split([' ', '{']).next().unwrap_or_default().to_owned();
        written.extend(messages.map(|line| format!("{package}.{}", name(line))));
    }
    let mut known: Vec<String> = readers().iter().map(|(name, _)| (*name).to_owned()).collect();
    written.sort();
    known.sort();
    assert_eq!(known, written);
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
    out
}

/// Fields in protobuf's encoding, nested, with numbers that our messages have.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        3 => (any::<u64>(), 0..40_u32).prop_map(|(number, shift)| (0, varint(number >> shift))),
        1 => any::<u64>().prop_map(|number| (1, number.to_le_bytes().to_vec())),
        1 => any::<u32>().prop_map(|number| (5, number.to_le_bytes().to_vec())),
        1 => (3..5_u64).prop_map(|group| (group, Vec::new())),
        3 => "[a-z0-9/.:]{0,12}".prop_map(|text| (2, [varint(text.len() as u64), text.into_bytes()].concat())),
        1 => vec(any::<u8>(), 0..12).prop_map(|raw| (2, [varint(raw.len() as u64), raw].concat())),
        // A length without the bytes.
        1 => prop_oneof![Just(1_000), Just(u64::MAX), Just(1 << 31)].prop_map(|length| (2, varint(length))),
    ];
    let message = |fields: Vec<(u64, (u64, Vec<u8>))>| -> Vec<u8> {
        fields
            .into_iter()
            .flat_map(|(number, (wire, body))| [varint(number << 3 | wire), body].concat())
            .collect()
    };
    let field = leaf.prop_recursive(DEEP, 24, 6, move |inner| {
        vec((1..9_u64, inner), 0..6)
            .prop_map(message)
            .prop_map(|bytes| (2, [varint(bytes.len() as u64), bytes].concat()))
    });
    vec((prop_oneof![9 => 1..9_u64, 1 => any::<u64>().prop_map(|n| n >> 3)], field), 0..8).prop_map(message)
}

fn read_all(bytes: &[u8]) {
    readers().iter().for_each(|(_, read)| read(bytes));
}

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn fields_of_any_kind_are_an_error_or_a_message() {
    target("wire-fields").holds(fields(), |bytes| read_all(&bytes));
}

#[test]
fn any_bytes_are_an_error_or_a_message() {
    let target = target("wire");
    target.holds(damage::any_of(target.seeds()), |bytes| read_all(&bytes));
    target.replay(read_all);
}
