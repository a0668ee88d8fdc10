//! What only the leader does. It all lives inside [`Leader`], and ends with its leadership.
//!
//! A leader that was cut off believes for a moment that it still leads; whatever it then proposes is not agreed on, so
//! nothing here needs to know better.

mod agents;
mod coordinators;
mod images;
mod keepsakes;
mod liveness;
mod observe;
mod reconcile;

pub use liveness::Heard;

use std::time::Duration;

use muster_core::command::{Command, What};
use muster_model::time::Timestamp;

use crate::group;
use crate::proposer::ChangeError;
use crate::run::Parts;

/// Between two looks when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// Longest wait for a state that reflects everything agreed on before.
const CATCH_UP: Duration = Duration::from_secs(10);

/// A coordinator while it leads.
pub struct Leader {
    parts: Parts,
}

impl Leader {
    /// Leads with these parts.
    #[must_use]
    pub const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Leads until the leadership is lost.
    pub async fn lead_until(self, lost: impl Future<Output = ()>) {
        let duties = Box::pin(self.duties());
        tokio::select! {
            () = duties => {}
            () = lost => {}
        }
        self.parts.heard.clear();
        self.parts.sessions.close(group::leader_endpoint(&self.parts.consensus));
    }

    async fn duties(&self) {
        // What the leaders before agreed on must be applied before anything is decided or any agent welcomed.
        while let Err(error) = self.parts.consensus.linearizable(CATCH_UP).await {
            tracing::warn!(%error, "not caught up yet");
        }
        self.parts.sessions.open();
        tokio::join!(
            self.reconcile(),
            self.watch_liveness(),
            self.observe(),
            self.tend_agents(),
            self.tend_coordinators(),
            self.offer_images(),
            self.give_keepsakes()
        );
    }

    /// The time for decisions: never before what was decided already.
    fn now(&self) -> Timestamp {
        self.parts.replica.state().at.max(Timestamp(self.parts.clock.now_ms()))
    }

    /// Proposes something of the platform's own. False = it was not agreed on; the next look decides again.
    async fn propose(&self, what: What) -> bool {
        self.propose_command(&Command::internal(what)).await
    }

    async fn propose_command(&self, command: &Command) -> bool {
        match self.parts.proposer.propose(command).await {
            Ok(_) => true,
            Err(ChangeError::Rejected(rejected)) => {
                tracing::debug!(%rejected, "decided on an older state");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a decision was not agreed on");
                false
            }
        }
    }
}
