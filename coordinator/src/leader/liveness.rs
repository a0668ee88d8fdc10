//! Feeds beats to the core's tracker and proposes what it concludes. Beats themselves never enter Raft.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_core::liveness::Tracker;
use muster_core::state::State;
use muster_model::ids::HostId;
use muster_model::time::Timestamp;
use muster_model::view::Liveness;
use muster_runtime::clock::SharedClock;

use super::Leader;
use crate::sessions::Sessions;

/// Between two looks; adds at most this much to the time until a host counts as down.
const LOOK: Duration = Duration::from_millis(100);

/// The tracker of this node's present leadership, for views; empty while it does not lead.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Option<Tracker>>>);

/// The monotonic clock as the tracker wants it: a jump of the wall clock takes no host down.
fn monotonic(clock: &SharedClock) -> Timestamp {
    Timestamp(u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX))
}

impl Heard {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Tracker>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a host is shown; absent = this node does not lead.
    #[must_use]
    pub fn shown(&self, state: &State, host: &HostId, clock: &SharedClock) -> Option<Liveness> {
        self.with(|tracker| tracker.as_ref().map(|tracker| tracker.shown(state, host, monotonic(clock))))
    }

    /// Forgets everything: the leadership is over.
    pub fn clear(&self) {
        self.with(|tracker| *tracker = None);
    }

    fn hear(&self, sessions: &Sessions, now: Timestamp) {
        let views = sessions.views();
        self.with(|tracker| {
            let tracker = tracker.get_or_insert_with(|| Tracker::new(now));
            for (host, session) in &views {
                let at = u64::try_from(session.beat.as_millis()).unwrap_or(u64::MAX);
                tracker.beat(host, &session.boot, Timestamp(at));
            }
            tracker.close_all_but(|host| views.contains_key(host));
        });
    }
}

impl Leader {
    pub(super) async fn watch_liveness(&self) {
        let (heard, clock) = (&self.parts.heard, &self.parts.clock);
        heard.clear();
        loop {
            heard.hear(&self.parts.sessions, monotonic(clock));
            let state = self.parts.replica.state();
            let changes = heard.with(|tracker| {
                tracker
                    .as_ref()
                    .map(|tracker| tracker.transitions(&state, monotonic(clock)))
                    .unwrap_or_default()
            });
            drop(state);
            for change in &changes {
                self.propose_command(change).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
