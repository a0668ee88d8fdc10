//! Decides when a snapshot is taken and how much log is kept behind it. Must not build it.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::Instant;

use crate::config::SnapshotPolicy;
use crate::log::LogStore;
use crate::node::Raft;

/// Short, because large entries fill the memory quickly.
const TICK: Duration = Duration::from_millis(100);

/// Triggers snapshots by count, bytes and time until Raft ends.
pub(crate) async fn snapshots(raft: Raft, log: LogStore, policy: SnapshotPolicy) {
    let mut taken_at = Instant::now();
    let mut taken = None;
    let mut triggered = None;
    loop {
        tokio::time::sleep(TICK.min(policy.interval)).await;
        let (applied, snapshot, stopped) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
            (index(&metrics.last_applied), index(&metrics.snapshot), metrics.running_state.is_err())
        };
        if stopped {
            return;
        }
        if taken != Some(snapshot) {
            taken = Some(snapshot);
            taken_at = Instant::now();
        }
        let new = applied.saturating_sub(snapshot);
        let age = taken_at.elapsed();
        let due = new >= policy.entries && age >= policy.min_interval
            || new > 0 && age >= policy.interval
            || log.bytes_after(snapshot) >= policy.bytes / 2;
        // One that is under way is not asked for again before something changes.
        if due && triggered != Some((snapshot, applied)) {
            triggered = Some((snapshot, applied));
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        // `keep` counts entries; a few large ones must not fill the memory.
        if let Some(excess) = log.excess(policy.bytes)
            && raft.trigger().purge_log(excess.min(snapshot)).await.is_err()
        {
            return;
        }
    }
}
