//! Every single byte of a small log and of a small snapshot changed, and every cut: refused by name, or cut as it is
//! documented, never read as something else.

use std::sync::Arc;

use super::fixtures::{LOG, fixture};
use super::properties::alike;
use super::sim_disk::SimDisk;
use crate::history::{Record, WireBody, WireEntry, WireLogId, WireVote};
use crate::log::{self, Memory, Sizes};
use crate::snapshot::Snapshots;
use crate::types::Payload;
use crate::{Disk, StartError, history};

const FIRST: &str = "log-000000000001.seg";
const SECOND: &str = "log-000000000002.seg";
/// Length of a segment; what is not written is zeros.
const LENGTH: usize = 1024;

fn entry(index: u64) -> Record {
    let id = WireLogId { term: 2, node: 1, index };
    let payload = Payload(format!("entry number {index}").into());
    Record::Entry(WireEntry { id, body: WireBody::Normal { at_ms: 1_000 + index, payload } })
}

fn vote(term: u64) -> WireVote {
    WireVote { term, node: 1, committed: true }
}

/// The group commits of the first segment.
fn commits() -> Vec<Vec<Record>> {
    vec![
        vec![Record::Checkpoint { vote: Some(vote(1)), committed: None, purged: None }],
        vec![entry(0), entry(1)],
        vec![Record::Vote(vote(2)), Record::Truncate { after: Some(0) }],
        vec![entry(1), entry(2), Record::Committed(WireLogId { term: 2, node: 1, index: 1 })],
        vec![entry(3)],
    ]
}

/// What a log of these commits says.
fn says(commits: &[Vec<Record>]) -> Memory {
    let mut memory = Memory::default();
    commits.iter().flatten().for_each(|record| memory.replay(record.clone()).unwrap());
    memory
}

fn encode(commits: &[Vec<Record>]) -> Vec<Vec<u8>> {
    let frame = |group: &Vec<Record>| {
        group.iter().fold(Vec::new(), |body, record| history::put(record, body).unwrap())
    };
    commits.iter().map(frame).collect()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    assert!(bytes.len() < LENGTH);
    bytes.resize(LENGTH, 0);
    bytes
}

fn disk_of(files: &[(&str, &[u8])]) -> Arc<dyn Disk> {
    let disk = SimDisk::default();
    for (name, bytes) in files {
        disk.create(name).unwrap().write_at(bytes, 0).unwrap();
    }
    Arc::new(disk)
}

/// What is read, by a repair and by reading alone; both must agree.
fn read(files: &[(&str, &[u8])]) -> Result<Memory, StartError> {
    let disk = disk_of(files);
    let alone = log::read(&disk, LOG);
    let opened = log::open(&disk, LOG, Sizes { segment: LENGTH as u64, reserve: 64 });
    match (alone, opened) {
        (Ok(Some(alone)), Ok(Some((opened, writer)))) => {
            assert!(alike(&alone, &opened));
            drop(writer);
            assert!(alike(&log::read(&disk, LOG).unwrap().unwrap(), &opened), "repaired once and for all");
            Ok(opened)
        }
        (Err(_), Err(error)) => Err(error),
        (alone, opened) => panic!("read {:?}, opened {:?}", alone.is_ok(), opened.is_ok()),
    }
}

fn names_file(error: &StartError, file: &str) {
    let StartError::Corrupt { file: named, what, .. } = error else { panic!("{error}") };
    assert!(named.ends_with(file) && !what.is_empty(), "{error}");
}

/// Every other value of a byte.
fn others(byte: u8) -> impl Iterator<Item = u8> {
    (1..=u8::MAX).map(move |change| byte ^ change)
}

#[test]
fn every_changed_byte_of_the_last_segment_is_refused_or_cuts_the_last_commit() {
    let all = commits();
    let whole = padded(log::segment(1, LOG, &encode(&all)));
    let last = log::segment(1, LOG, &encode(&all[..all.len() - 1])).len();
    let end = log::segment(1, LOG, &encode(&all)).len();
    let (full, shorter) = (says(&all), says(&all[..all.len() - 1]));
    let (mut refused, mut cut, mut same) = (0, 0, 0);
    for at in 0..whole.len() {
        for byte in others(whole[at]) {
            let mut changed = whole.clone();
            changed[at] = byte;
            match read(&[(FIRST, &changed)]) {
                Err(error) => {
                    names_file(&error, FIRST);
                    assert!(at < last, "byte {at} is of the last commit, or behind it: {error}");
                    refused += 1;
                }
                Ok(memory) if alike(&memory, &full) => same += 1,
                Ok(memory) => {
                    assert!(alike(&memory, &shorter), "byte {at} = {byte}: another log was read");
                    assert!((last..end).contains(&at), "byte {at} = {byte} cut what was durable");
                    cut += 1;
                }
            }
        }
    }
    println!("{refused} refused, {cut} cut the last commit, {same} changed nothing that is read");
    assert!(refused > 255 * (last - 64) && cut > 255 * 16, "{refused} refused, {cut} cut");
}

#[test]
fn every_cut_of_the_last_segment_loses_whole_commits_or_is_refused() {
    let all = commits();
    let whole = log::segment(1, LOG, &encode(&all));
    let ends: Vec<usize> = (1..=all.len()).map(|n| log::segment(1, LOG, &encode(&all[..n])).len()).collect();
    for length in 0..=whole.len() {
        let left = ends.iter().filter(|end| **end <= length).count();
        match read(&[(FIRST, &whole[..length])]) {
            Err(error) => {
                names_file(&error, FIRST);
                assert!(left == 0, "cut at {length}: {error}");
            }
            // The padding behind a frame is no part of it.
            Ok(memory) => {
                let next = says(&all[..(left + 1).min(all.len())]);
                let whole = left > 0 && alike(&memory, &says(&all[..left]));
                assert!(whole || alike(&memory, &next), "at {length}");
            }
        }
    }
}

#[test]
fn every_changed_byte_and_every_cut_of_an_older_segment_is_refused() {
    let all = commits();
    let (first, chain) = log::segment_after(1, LOG, 0, &encode(&all));
    let checkpoint = vec![Record::Checkpoint { vote: Some(vote(2)), committed: None, purged: None }];
    let newer = vec![checkpoint, vec![entry(4)]];
    let (second, _) = log::segment_after(2, LOG, chain, &encode(&newer));
    let full = says(&[all, newer].concat());
    assert!(alike(&read(&[(FIRST, &first), (SECOND, &second)]).unwrap(), &full));
    for at in 0..first.len() {
        for byte in others(first[at]) {
            let mut changed = first.clone();
            changed[at] = byte;
            if let Ok(memory) = read(&[(FIRST, &changed), (SECOND, &second)]) {
                assert!(alike(&memory, &full), "byte {at} = {byte}: another log was read");
            }
        }
        if let Ok(memory) = read(&[(FIRST, &first[..at]), (SECOND, &second)]) {
            assert!(alike(&memory, &full), "cut at {at}: another log was read");
        }
    }
}

#[test]
fn every_changed_byte_and_every_cut_of_a_snapshot_is_refused() {
    let whole = fixture("snapshot-1.snap");
    let name = "snap-00000000000000000013-3-1.snap";
    let refused = |bytes: &[u8]| {
        let disk = disk_of(&[(name, bytes)]);
        let snapshots = Snapshots::reading(disk);
        let error = snapshots.newest().err().expect("a damaged snapshot was taken");
        names_file(&error, name);
        let arriving = snapshots.begin().unwrap();
        arriving.file.write_at(bytes, 0).unwrap();
        assert!(Snapshots::verify(arriving).is_err(), "taken from a peer");
    };
    for at in 0..whole.len() {
        for byte in others(whole[at]) {
            let mut changed = whole.clone();
            changed[at] = byte;
            refused(&changed);
        }
        refused(&whole[..at]);
    }
    refused(&[&whole[..], &[0]].concat());
}
