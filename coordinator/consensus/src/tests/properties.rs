//! What arrives from peers and what lies on the disk: any bytes are an error or a value, never a panic, and every value
//! survives the way out and back.

use std::sync::Arc;

use muster_property::{Target, bytes};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fixtures::{LOG, fixture};
use super::sim_disk::SimDisk;
use crate::Disk;
use crate::convert;
use crate::history::{self, *};
use crate::identity::Identity;
use crate::log::{self, Memory, Sizes};
use crate::snapshot::Snapshots;
use crate::types::Payload;

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, any::<u64>(), Just(u64::MAX)]
}

fn id() -> impl Strategy<Value = WireLogId> {
    (number(), number(), number()).prop_map(|(term, node, index)| WireLogId { term, node, index })
}

fn vote() -> impl Strategy<Value = WireVote> {
    (number(), number(), any::<bool>()).prop_map(|(term, node, committed)| WireVote { term, node, committed })
}

/// As a coordinator makes them: sorted, each number once, every voter known.
fn membership() -> impl Strategy<Value = WireMembership> {
    let node = ("[a-z0-9.:]{0,20}", "[a-f0-9:]{0,12}");
    proptest::collection::btree_map(number(), node, 1..5).prop_map(|nodes| {
        let ids: Vec<u64> = nodes.keys().copied().collect();
        let nodes = nodes.into_iter().map(|(id, (endpoint, key))| WireNode { id, endpoint, key });
        WireMembership { configs: vec![ids[..1].to_vec(), ids], nodes: nodes.collect() }
    })
}

fn body() -> impl Strategy<Value = WireBody> {
    let normal = (number(), vec(any::<u8>(), 0..40))
        .prop_map(|(at_ms, bytes)| WireBody::Normal { at_ms, payload: Payload(bytes.into()) });
    prop_oneof![Just(WireBody::Blank), normal, membership().prop_map(WireBody::Membership)]
}

fn record() -> impl Strategy<Value = Record> {
    let entry = (id(), body()).prop_map(|(id, body)| Record::Entry(WireEntry { id, body }));
    let checkpoint = (option::of(vote()), option::of(id()), option::of(id()))
        .prop_map(|(vote, committed, purged)| Record::Checkpoint { vote, committed, purged });
    prop_oneof![
        4 => entry,
        1 => checkpoint,
        1 => vote().prop_map(Record::Vote),
        1 => id().prop_map(Record::Committed),
        1 => option::of(number()).prop_map(|after| Record::Truncate { after }),
        1 => id().prop_map(Record::Purge),
    ]
}

/// An append that follows all rules.
fn append() -> impl Strategy<Value = AppendMessage> {
    let small = 0..1_000_u64;
    (small.clone(), small, 1..9_u64, vec(body(), 0..5), option::of(id())).prop_map(
        |(term, index, node, bodies, commit)| {
            let id = |index| WireLogId { term, node, index };
            let entries = (index + 1..).zip(bodies).map(|(index, body)| WireEntry { id: id(index), body });
            let vote = WireVote { term, node, committed: true };
            AppendMessage { vote, prev: Some(id(index)), commit, entries: entries.collect() }
        },
    )
}

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Vec<u8> {
    let bytes = history::encode(value).unwrap();
    assert_eq!(&history::decode::<T>(&bytes).unwrap(), value);
    bytes
}

#[test]
fn messages_survive_the_way_to_a_peer_and_through_openraft() {
    target("raft-round-trip").holds((append(), record(), vote(), option::of(id())), |all| {
        let (append, record, vote, last) = all;
        same(&record);
        same(&append);
        let there = convert::to_append(append.clone()).unwrap();
        assert_eq!(convert::append(&there), append);
        let ask = VoteMessage { pre: true, vote, last, transfer: last.is_some() };
        assert_eq!(convert::vote_message(&convert::to_vote_request(&ask), true), ask);
        let answer = VoteAnswer { vote, granted: vote.committed, last };
        same(&answer);
        assert_eq!(convert::vote_answer(&convert::to_vote_answer(&answer)), answer);
    });
}

/// As the node reads what a peer sends.
fn read_message(bytes: &[u8]) {
    if let Ok(append) = history::decode::<AppendMessage>(bytes)
        && let Ok(request) = convert::to_append(append.clone())
    {
        assert_eq!(convert::append(&request).entries.len(), append.entries.len());
        let follows = |(at, entry): (usize, &WireEntry)| {
            append.prev.map_or(Some(0), |prev| prev.index.checked_add(1)).unwrap() + at as u64
                == entry.id.index
        };
        assert!(append.entries.iter().enumerate().all(follows), "{append:?}");
    }
    if let Ok(answers) = history::decode::<Vec<AppendAnswer>>(bytes) {
        for answer in answers {
            assert_eq!(convert::append_answer(&convert::to_append_answer(answer.clone())), answer);
        }
    }
    if let Ok(ask) = history::decode::<VoteMessage>(bytes) {
        assert_eq!(convert::vote_message(&convert::to_vote_request(&ask), ask.pre), ask);
    }
    if let Ok(answer) = history::decode::<VoteAnswer>(bytes) {
        assert_eq!(convert::vote_answer(&convert::to_vote_answer(&answer)), answer);
    }
    for error in [
        history::decode::<SnapshotVote>(bytes).err(),
        history::decode::<TransferMessage>(bytes).err(),
        history::decode::<TransferAnswer>(bytes).err(),
    ] {
        assert!(error.is_none_or(|error| !error.to_string().is_empty()));
    }
}

fn messages() -> Vec<Vec<u8>> {
    let names =
        ["append", "append-answers", "vote", "vote-answer", "snapshot-vote", "transfer", "transfer-answer"];
    names.iter().map(|name| fixture(&format!("payload-1-{name}.bin"))).collect()
}

#[test]
fn any_bytes_of_a_peer_are_an_error_or_a_message() {
    target("raft-message").holds(bytes::any_of(messages()), |bytes| read_message(&bytes));
    target("raft-message").replay(read_message);
}

fn disk_with(name: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn Disk>) {
    let disk = SimDisk::default();
    disk.create(name).unwrap().write_at(bytes, 0).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    (disk, shared)
}

/// As the node reads it at start: reading alone, reading with repair and reading again agree.
fn read_segment(bytes: &[u8]) {
    let (_, disk) = disk_with("log-000000000001.seg", bytes);
    let before = log::read(&disk, LOG);
    let opened = log::open(&disk, LOG, Sizes { segment: 4096, reserve: 64 });
    match (before, opened) {
        (Ok(Some(before)), Ok(Some((opened, _writer)))) => {
            assert!(alike(&before, &opened));
            let again = log::read(&disk, LOG).unwrap().unwrap();
            assert!(alike(&again, &opened), "repaired once and for all");
        }
        (Err(before), Err(opened)) => assert_eq!(before.to_string(), opened.to_string()),
        (before, opened) => panic!("{:?}, then {:?}", before.is_ok(), opened.is_ok()),
    }
    drop(log::wipe_unfinished(&*disk));
}

pub fn alike(a: &Memory, b: &Memory) -> bool {
    (a.vote, a.committed, a.purged) == (b.vote, b.committed, b.purged) && a.all().eq(b.all())
}

/// A segment of these records, a frame for each group; checksums and chain are right.
fn segment_of(groups: &[Vec<Record>]) -> Vec<u8> {
    let frame = |group: &Vec<Record>| {
        group.iter().fold(Vec::new(), |body, record| history::put(record, body).unwrap())
    };
    log::segment(1, LOG, &groups.iter().map(frame).collect::<Vec<_>>())
}

#[test]
fn a_log_of_any_bytes_and_of_any_records_is_read_or_refused() {
    let seeds = [vec![fixture("segment-1.seg")], target("log-segment").seeds()].concat();
    target("log-segment").holds(bytes::any_of(seeds), |bytes| read_segment(&bytes));
    target("log-segment").replay(read_segment);
    target("log-records").holds(vec(vec(record(), 1..4), 1..6), |groups| read_segment(&segment_of(&groups)));
}

fn read_snapshot(bytes: &[u8]) {
    let (_, disk) = disk_with("snap-00000000000000000013-3-1.snap", bytes);
    let snapshots = Snapshots::open(disk).unwrap();
    if let Ok(Some(newest)) = snapshots.newest() {
        let body = newest.body().unwrap();
        let written = snapshots.write(&newest.head, &body).unwrap();
        assert_eq!(written.body().unwrap(), body);
        assert_eq!(written.head, newest.head);
        drop(convert::to_membership(newest.head.membership));
    }
    let arriving = snapshots.begin().unwrap();
    arriving.file.write_at(bytes, 0).unwrap();
    drop(Snapshots::verify(arriving));
}

/// With a checksum that fits, so that what is behind it is reached.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len().saturating_sub(4);
    bytes.truncate(content);
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_snapshot_of_any_bytes_is_read_or_refused() {
    let seeds = || vec![fixture("snapshot-1.snap")];
    target("raft-snapshot").holds(bytes::any_of(seeds()), |bytes| read_snapshot(&bytes));
    target("raft-snapshot-sealed").holds(bytes::any_of(seeds()), |bytes| read_snapshot(&sealed(bytes)));
    target("raft-snapshot").replay(read_snapshot);
}

#[test]
fn a_node_file_of_any_bytes_is_read_or_refused() {
    target("node-file").holds(bytes::any_of(vec![fixture("node-1.json")]), |bytes| {
        let (_, disk) = disk_with("node.json", &bytes);
        if let Ok(Some(identity)) = Identity::load(&*disk) {
            assert!(identity.log_id().is_some());
            identity.store(&*disk).unwrap();
            assert_eq!(Identity::load(&*disk).unwrap().unwrap(), identity);
        }
    });
}
