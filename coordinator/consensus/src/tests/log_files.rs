//! What is found in the files at start: torn tails are cut, everything else is refused by name.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::harness::{Cluster, Running, WAIT, config, disk, listen, node_at, start};
use crate::{Config, StartError};

/// A stopped single node with ten entries, one group commit each.
async fn written() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::of(1).await;
    for number in 0..10 {
        cluster.propose(1, &format!("entry number {number}")).await;
    }
    cluster.nodes.remove(&1).unwrap().kill().await;
    let path = cluster.path(1);
    (cluster, path)
}

async fn reopen(config: Config) -> Result<Running, StartError> {
    let listener = listen().await;
    let node = node_at(config.node_id, listener.local_addr().unwrap());
    start(config, node, listener).await
}

fn refused(result: Result<Running, StartError>) -> StartError {
    match result {
        Ok(_) => panic!("the node started"),
        Err(error) => error,
    }
}

fn segment(path: &Path) -> PathBuf {
    path.join("log-000000000001.seg")
}

/// Where a text stands in the segment.
fn find(path: &Path, text: &str) -> u64 {
    let bytes = std::fs::read(segment(path)).unwrap();
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() as u64
}

fn overwrite(file: &Path, bytes: &[u8], at: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut_and_the_rest_kept() {
    let (_cluster, path) = written().await;
    let bytes = std::fs::read(segment(&path)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let next = (end + 1).next_multiple_of(8);
    // The start of a frame whose body never arrived, and a stray page behind it.
    overwrite(&segment(&path), b"1rFM\xff\x00\x00\x00 never finished", next);
    overwrite(&segment(&path), b"stray", next + 5000);
    let again = reopen(config(1, disk(&path), true)).await.unwrap();
    again.consensus.linearizable(WAIT).await.unwrap();
    assert_eq!(again.lines().len(), 10);
    again.consensus.propose("eleventh", WAIT).await.unwrap();
    again.kill().await;
    let again = reopen(config(1, disk(&path), true)).await.unwrap();
    again.consensus.linearizable(WAIT).await.unwrap();
    assert_eq!(again.lines().last().unwrap(), "eleventh");
    again.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_middle_is_refused_with_file_and_offset() {
    let (_cluster, path) = written().await;
    let at = find(&path, "entry number 4");
    overwrite(&segment(&path), b"E", at);
    let StartError::Corrupt { file, offset, what } = refused(reopen(config(1, disk(&path), true)).await)
    else {
        panic!("another error");
    };
    assert_eq!(file, segment(&path).display().to_string());
    assert!(offset < at && at - offset < 100, "{offset} for {at}");
    assert!(what.contains("damaged frame"), "{what}");

    // A damaged length must not make the rest look unwritten.
    overwrite(&segment(&path), b"e", at);
    overwrite(&segment(&path), &[0xff, 0xff, 0xff, 0x7f], offset + 4);
    let error = refused(reopen(config(1, disk(&path), true)).await).to_string();
    assert!(error.contains(&format!("corrupt at offset {offset}")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_or_foreign_directory_is_refused() {
    let (cluster, path) = written().await;
    let error = refused(reopen(config(2, disk(&path), true)).await).to_string();
    assert!(error.contains("belongs to node 1"), "{error}");

    let mut other = config(1, disk(&path), true);
    other.platform = "other".into();
    let error = refused(reopen(other).await).to_string();
    assert!(error.contains("platform test") && error.contains("platform other"), "{error}");

    std::fs::remove_file(segment(&path)).unwrap();
    let error = refused(reopen(config(1, disk(&path), false)).await);
    assert!(matches!(error, StartError::LogLost { .. }), "{error}");

    let empty = cluster.dir.path().join("empty");
    let error = refused(reopen(config(1, disk(&empty), true)).await);
    assert!(matches!(error, StartError::LogLost { node: 1, .. }), "{error}");
    assert!(error.to_string().contains("must not vote again"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_interrupted_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    reopen(config(1, disk(dir.path()), false)).await.unwrap().kill().await;
    std::fs::remove_file(dir.path().join("node.json")).unwrap();
    reopen(config(1, disk(dir.path()), false)).await.unwrap().kill().await;

    let (_cluster, path) = written().await;
    std::fs::remove_file(path.join("node.json")).unwrap();
    let error = refused(reopen(config(1, disk(&path), false)).await).to_string();
    assert!(error.contains("a log without node.json"), "{error}");
    std::fs::rename(segment(&path), path.join("snap-00000000000000000001-1-1.snap")).unwrap();
    let error = refused(reopen(config(1, disk(&path), false)).await).to_string();
    assert!(error.contains("a snapshot without node.json"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_segments_go_away_and_a_missing_one_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(1, disk(dir.path()), false);
    settings.snapshots.bytes = u64::MAX;
    settings.snapshots.entries = u64::MAX;
    let running = reopen(settings.clone()).await.unwrap();
    running.consensus.initialize(running.node.clone()).await.unwrap();
    for _ in 0..13 {
        running.consensus.propose(vec![b'x'; 1 << 20], WAIT).await.unwrap();
    }
    running.kill().await;
    drop(settings);
    let second = dir.path().join("log-000000000002.seg");
    let aside = dir.path().join("aside");
    std::fs::rename(&second, &aside).unwrap();
    let error = refused(reopen(config(1, disk(dir.path()), true)).await).to_string();
    assert!(error.contains("segment 2 is missing"), "{error}");
    std::fs::rename(&aside, &second).unwrap();

    let mut settings = config(1, disk(dir.path()), true);
    settings.snapshots.entries = 5;
    settings.snapshots.keep = 1;
    let again = reopen(settings).await.unwrap();
    let deadline = std::time::Instant::now() + WAIT;
    while second.exists() {
        assert!(std::time::Instant::now() < deadline, "{:?}", again.consensus.status());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // The one that holds this start's vote goes, too.
    let newest = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.display().to_string().contains("/log-")).max().unwrap();
    let mut written = 13;
    while newest.exists() {
        assert!(std::time::Instant::now() < deadline, "{:?}", again.consensus.status());
        again.consensus.propose(vec![b'y'; 1 << 20], WAIT).await.unwrap();
        written += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let term = again.consensus.status().term;
    again.kill().await;
    let again = reopen(config(1, disk(dir.path()), true)).await.unwrap();
    again.consensus.linearizable(WAIT).await.unwrap();
    // A vote that is forgotten with its segment could be given twice.
    assert!(again.consensus.status().term > term);
    assert_eq!(again.seen.lock().unwrap().len(), written);
    again.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_by_name() {
    let mut cluster = Cluster::of(1).await;
    for number in 0..60 {
        cluster.propose(1, &number.to_string()).await;
    }
    let deadline = std::time::Instant::now() + WAIT;
    while cluster.nodes[&1].consensus.status().snapshot == 0 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    cluster.nodes.remove(&1).unwrap().kill().await;
    let names = std::fs::read_dir(cluster.path(1)).unwrap().map(|e| e.unwrap().path());
    let snapshot = names.filter(|path| path.extension().is_some_and(|e| e == "snap")).max().unwrap();
    overwrite(&snapshot, b"?", 80);
    let error = refused(reopen(config(1, disk(&cluster.path(1)), true)).await).to_string();
    assert!(error.contains(&snapshot.display().to_string()) && error.contains("checksum"), "{error}");
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = Arc::new(crate::OsDisk::open(dir.path()).unwrap());
    let error = crate::OsDisk::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(first);
    crate::OsDisk::open(dir.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_large_entries_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(1, disk(dir.path()), false);
    settings.snapshots.bytes = 2 << 20;
    let running = reopen(settings).await.unwrap();
    running.consensus.initialize(running.node.clone()).await.unwrap();
    for _ in 0..9 {
        running.consensus.propose(vec![b'x'; 1 << 20], WAIT).await.unwrap();
    }
    let held = || running.consensus.core.log.bytes_after(0);
    let deadline = std::time::Instant::now() + WAIT;
    while held() > 2 << 20 {
        assert!(std::time::Instant::now() < deadline, "{} bytes held", held());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(running.consensus.status().snapshot > 0);
    running.kill().await;
}

#[test]
fn truncation_and_purging_are_replayed() {
    use crate::history::{Record, WireBody, WireEntry, WireLogId};
    let id = |index| WireLogId { term: 1, node: 1, index };
    let entry = |index| Record::Entry(WireEntry { id: id(index), body: WireBody::Blank });
    let mut memory = crate::log::Memory::default();
    let records =
        (0..6).map(entry).chain([Record::Truncate { after: Some(3) }, entry(4), Record::Purge(id(1))]);
    records.for_each(|record| memory.replay(record).unwrap());
    assert_eq!((memory.first(), memory.last()), (Some(2), Some(id(4))));
    memory.check().unwrap();
    memory.replay(entry(6)).unwrap_err();
    memory.replay(Record::Truncate { after: None }).unwrap();
    assert_eq!((memory.first(), memory.last(), memory.bytes_after(0)), (None, Some(id(1)), 0));
}
