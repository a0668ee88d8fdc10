//! Bugs of a log store, planted: a sync that is left out, a vote that is lost, a tail that was there and is taken for
//! unwritten. What the other tests look at must notice each.

use std::sync::Arc;

use super::disk_full::alone;
use super::harness::{WAIT, config, listen, node_at, start};
use super::sim_disk::SimDisk;
use crate::identity::Identity;
use crate::{Disk, log};

const SEGMENT: &str = "log-000000000001.seg";

/// Whether a node that starts from this disk has these lines at first.
async fn has_lines(disk: SimDisk, expected: &[&str]) -> Result<(), String> {
    let listener = listen().await;
    let node = node_at(1, listener.local_addr().unwrap());
    let again = start(config(1, Arc::new(disk), true), node, listener).await.map_err(|e| e.to_string())?;
    let read = again.consensus.linearizable(WAIT.min(std::time::Duration::from_secs(3))).await;
    let lines = again.lines();
    again.kill().await;
    read.map_err(|error| error.to_string())?;
    if lines == expected { Ok(()) } else { Err(format!("{lines:?} instead of {expected:?}")) }
}

/// The term of the vote that a disk holds.
fn term_on(disk: &SimDisk) -> Option<u64> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let id = Identity::load(&*disk).unwrap().unwrap().log_id().unwrap();
    log::read(&disk, id).unwrap().unwrap().vote.map(|vote| vote.term)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_is_left_out_is_noticed() {
    for skipped in [false, true] {
        let disk = SimDisk::default();
        let running = alone(&disk).await;
        running.consensus.propose("first", WAIT).await.unwrap();
        if skipped {
            disk.skip_syncs();
        }
        running.consensus.propose("second", WAIT).await.unwrap();
        let cut = disk.after_power_cut();
        running.kill().await;
        let kept = has_lines(cut, &["first", "second"]).await;
        assert_eq!(kept.is_err(), skipped, "{kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_is_lost_is_noticed() {
    for skipped in [false, true] {
        let disk = SimDisk::default();
        let first = alone(&disk).await;
        first.consensus.propose("first", WAIT).await.unwrap();
        let before = first.consensus.status().term;
        first.kill().await;
        if skipped {
            disk.skip_syncs();
        }
        let listener = listen().await;
        let node = node_at(1, listener.local_addr().unwrap());
        let second = start(config(1, Arc::new(disk.clone()), true), node, listener).await.unwrap();
        second.consensus.linearizable(WAIT).await.unwrap();
        let term = second.consensus.status().term;
        let kept = term_on(&disk.after_power_cut());
        second.kill().await;
        assert!(term > before, "it voted again");
        assert_eq!(kept < Some(term), skipped, "voted in {term}, kept {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_there_is_not_taken_for_unwritten() {
    let disk = SimDisk::default();
    let running = alone(&disk).await;
    for line in ["first", "second", "third"] {
        running.consensus.propose(line, WAIT).await.unwrap();
    }
    running.kill().await;
    let file = disk.open(SEGMENT).unwrap();
    let bytes = crate::disk::read_all(&*file).unwrap();
    let place = |text: &str| bytes.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    // All but the last commit: a whole one behind the hole tells that it was there.
    let (from, to) = (place("second") - 8, place("third") - 40);
    file.write_at(&vec![0; to.saturating_sub(from).max(16)], from as u64).unwrap();
    file.sync().unwrap();
    let error = has_lines(disk, &["first"]).await.unwrap_err();
    assert!(error.contains("damaged frame") && error.contains(SEGMENT), "{error}");
}
