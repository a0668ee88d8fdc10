//! Reads the committed bytes of every format ever released, and checks that today's encoder still
//! writes the newest. Must never be made to pass by rewriting a released fixture.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sim_disk::SimDisk;
use crate::history::{self, *};
use crate::identity::Identity;
use crate::log::{self, Sizes};
use crate::snapshot::Snapshots;
use crate::types::Payload;
use crate::{Disk, DiskFile};

pub const LOG: [u8; 16] = *b"0123456789abcdef";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn id(term: u64, node: u64, index: u64) -> WireLogId {
    WireLogId { term, node, index }
}

fn membership() -> WireMembership {
    let node =
        |id: u64| WireNode { id, endpoint: format!("10.0.0.{id}:7400"), key: format!("sha256:{id:02}") };
    WireMembership { configs: vec![vec![1, 2], vec![1, 2, 3]], nodes: vec![node(1), node(2), node(3)] }
}

fn entries() -> Vec<WireEntry> {
    let normal = WireBody::Normal { at_ms: 1_790_000_000_000, payload: Payload("payload".into()) };
    vec![
        WireEntry { id: id(3, 1, 11), body: WireBody::Blank },
        WireEntry { id: id(3, 1, 12), body: normal },
        WireEntry { id: id(3, 1, 13), body: WireBody::Membership(membership()) },
    ]
}

fn vote() -> WireVote {
    WireVote { term: 3, node: 1, committed: true }
}

fn head() -> SnapshotHead {
    SnapshotHead {
        platform: "platform-1".into(),
        last: id(3, 1, 13),
        membership_at: Some(id(3, 1, 13)),
        membership: membership(),
        at_ms: 1_790_000_000_000,
    }
}

fn append() -> AppendMessage {
    AppendMessage { vote: vote(), prev: Some(id(2, 2, 10)), commit: Some(id(2, 2, 9)), entries: entries() }
}

fn ask() -> VoteMessage {
    VoteMessage { pre: true, vote: vote(), last: Some(id(2, 2, 10)), transfer: false }
}

fn transfer() -> TransferMessage {
    TransferMessage { from: vote(), to: 2, last: Some(id(3, 1, 13)) }
}

fn answers() -> Vec<AppendAnswer> {
    vec![
        AppendAnswer::Success,
        AppendAnswer::Partial(Some(id(3, 1, 12))),
        AppendAnswer::Conflict,
        AppendAnswer::HigherVote(vote()),
    ]
}

fn records() -> Vec<Record> {
    let mut records = vec![
        Record::Checkpoint { vote: Some(vote()), committed: Some(id(2, 2, 9)), purged: Some(id(2, 2, 10)) },
        Record::Vote(vote()),
        Record::Committed(id(3, 1, 12)),
        Record::Truncate { after: Some(13) },
        Record::Truncate { after: None },
        Record::Purge(id(3, 1, 11)),
    ];
    records.extend(entries().into_iter().map(Record::Entry));
    records
}

fn holds<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = fixture(name);
    assert_eq!(&history::decode::<T>(&bytes).unwrap(), value, "{name}");
    assert_eq!(history::encode(value).unwrap(), bytes, "{name}");
}

#[test]
fn payload_format_1() {
    holds("payload-1-append.bin", &append());
    holds("payload-1-append-answers.bin", &answers());
    holds("payload-1-vote.bin", &ask());
    let granted = VoteAnswer { vote: vote(), granted: true, last: None };
    holds("payload-1-vote-answer.bin", &granted);
    holds("payload-1-snapshot-vote.bin", &SnapshotVote { vote: vote() });
    holds("payload-1-transfer.bin", &transfer());
    holds("payload-1-transfer-answer.bin", &TransferAnswer { accepted: true });
    holds("records-1.bin", &records());
}

#[test]
fn an_unknown_format_and_damaged_payloads_are_errors() {
    let bytes = fixture("payload-1-append.bin");
    let mut newer = bytes.clone();
    newer[0] = 2;
    let error = history::decode::<AppendMessage>(&newer).unwrap_err();
    assert!(matches!(error, FormatError::Unknown(2)), "{error}");
    for length in 0..bytes.len() {
        history::decode::<AppendMessage>(&bytes[..length]).unwrap_err();
    }
    let longer = [bytes, vec![0]].concat();
    history::decode::<AppendMessage>(&longer).unwrap_err();
}

fn put(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(name).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

#[test]
fn node_file_format_1() {
    let disk = SimDisk::default();
    put(&disk, "node.json", &fixture("node-1.json"));
    let identity = Identity::load(&disk).unwrap().unwrap();
    assert_eq!(identity, Identity::new("platform-1", 2, LOG));
}

#[test]
fn segment_format_1() {
    let disk = SimDisk::default();
    put(&disk, "log-000000000001.seg", &fixture("segment-1.seg"));
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let (memory, _writer) = log::open(&disk, LOG, Sizes::default()).unwrap().unwrap();
    assert_eq!(memory.vote, Some(vote()));
    assert_eq!(memory.committed, Some(id(3, 1, 12)));
    assert_eq!(memory.purged, Some(id(3, 1, 11)));
    let kept: Vec<WireEntry> = memory.read(0, u64::MAX, u64::MAX).iter().map(crate::convert::entry).collect();
    assert_eq!(kept, entries()[1..]);
}

#[test]
fn snapshot_format_1() {
    let disk = SimDisk::default();
    put(&disk, "snap-00000000000000000013-3-1.snap", &fixture("snapshot-1.snap"));
    let snapshots = Snapshots::open(Arc::new(disk)).unwrap();
    let newest = snapshots.newest().unwrap().unwrap();
    assert_eq!(newest.head, head());
    assert_eq!(newest.body().unwrap(), b"state");
    let written = snapshots.write(&head(), b"state").unwrap();
    assert_eq!(crate::disk::read_all(&*written.file).unwrap(), fixture("snapshot-1.snap"));
}

/// Writes what is missing; run by hand for a new format only.
#[test]
#[ignore = "writes into the source tree"]
fn write_missing_fixtures() {
    let keep = |name: &str, bytes: Vec<u8>| {
        if !path(name).exists() {
            std::fs::write(path(name), bytes).unwrap();
        }
    };
    keep("payload-1-append.bin", history::encode(&append()).unwrap());
    keep("payload-1-append-answers.bin", history::encode(&answers()).unwrap());
    keep("payload-1-vote.bin", history::encode(&ask()).unwrap());
    let granted = VoteAnswer { vote: vote(), granted: true, last: None };
    keep("payload-1-vote-answer.bin", history::encode(&granted).unwrap());
    keep("payload-1-snapshot-vote.bin", history::encode(&SnapshotVote { vote: vote() }).unwrap());
    keep("payload-1-transfer.bin", history::encode(&transfer()).unwrap());
    keep("payload-1-transfer-answer.bin", history::encode(&TransferAnswer { accepted: true }).unwrap());
    keep("records-1.bin", history::encode(&records()).unwrap());
    let disk = SimDisk::default();
    Identity::new("platform-1", 2, LOG).store(&disk).unwrap();
    let whole = |name: &str| crate::disk::read_all(&*disk.open(name).unwrap()).unwrap();
    keep("node-1.json", whole("node.json"));
    let frames = [&records()[..1], &records()[1..3], &records()[6..], &records()[5..6]];
    let frames =
        frames.map(|group| group.iter().fold(Vec::new(), |body, record| history::put(record, body).unwrap()));
    keep("segment-1.seg", log::segment(1, LOG, &frames));
    let snapshots = Snapshots::open(Arc::new(disk.clone())).unwrap();
    let written = snapshots.write(&head(), b"state").unwrap();
    keep("snapshot-1.snap", crate::disk::read_all(&*written.file).unwrap());
}
