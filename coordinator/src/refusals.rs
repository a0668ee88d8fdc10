//! Refused calls, written to the audit log at a bounded rate: outsiders can cause any number of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_core::command::{Command, What};
use muster_runtime::audit::{Audit, Refusal};
use muster_runtime::tasks::{OnError, TaskGroup};
use tokio::sync::mpsc;

use crate::proposer::Proposer;

/// Refusals that wait to be written.
const WAITING: usize = 32;
/// Between two entries.
const PACE: Duration = Duration::from_millis(500);
/// Longest entry, in characters.
const TEXT_MAX: usize = 300;

/// Passes refusals on without blocking; counts those for which there was no room.
#[derive(Debug)]
pub struct RefusalLog {
    to: mpsc::Sender<String>,
    dropped: std::sync::Arc<AtomicU64>,
}

impl RefusalLog {
    /// The log, and the task that writes it.
    #[must_use]
    pub fn start(tasks: &TaskGroup, proposer: Proposer) -> Self {
        let (to, from) = mpsc::channel(WAITING);
        let dropped = std::sync::Arc::new(AtomicU64::new(0));
        let stop = tasks.token();
        let write = write(from, proposer, std::sync::Arc::clone(&dropped));
        tasks.spawn("refusals", OnError::Log, async move {
            stop.run_until_cancelled(write).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Self { to, dropped }
    }
}

impl Audit for RefusalLog {
    fn refused(&self, refusal: &Refusal) {
        tracing::warn!(%refusal, "refused");
        let text = refusal.to_string().chars().take(TEXT_MAX).collect();
        if self.to.try_send(text).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write(mut from: mpsc::Receiver<String>, proposer: Proposer, dropped: std::sync::Arc<AtomicU64>) {
    while let Some(mut action) = from.recv().await {
        let missed = dropped.swap(0, Ordering::Relaxed);
        if missed > 0 {
            action.push_str(&format!(" (and {missed} refusals before it that are not listed)"));
        }
        let command =
            Command::from_actor("access", None, What::Audit { action: format!("refused: {action}") });
        if let Err(error) = proposer.propose(&command).await {
            tracing::warn!(%error, "a refusal is missing from the audit log");
        }
        tokio::time::sleep(PACE).await;
    }
}
