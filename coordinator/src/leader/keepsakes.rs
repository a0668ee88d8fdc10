//! Gives every connected agent what a rebuild of the control plane would need, whenever it changed: not with the host
//! plan, so that what changes on one host makes no new plan for all others.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use muster_core::keepsake::Keepsake;
use muster_core::state::State;
use muster_model::ids::{HostId, LogIndex};
use muster_proto::agents as pb;
use muster_proto::agents::to_agent;

use super::Leader;

/// Between two looks; so much of the newest changes a rebuild may not know.
const LOOK: Duration = Duration::from_secs(2);
/// Larger than this it is not sent, in bytes: a message of a session must stay below its limit.
const SIZE_MAX: usize = 3 << 20;

/// The newest one, and who has it.
#[derive(Default)]
struct Newest {
    looked: Option<LogIndex>,
    /// Present once there is a platform.
    message: Option<pb::Keepsake>,
    /// Session and entry, by host.
    given: BTreeMap<HostId, (u64, u64)>,
}

impl Newest {
    fn look(&mut self, state: &State) {
        if self.looked == Some(state.index) {
            return;
        }
        self.looked = Some(state.index);
        let incarnation = state.platform.as_ref().map_or(0, |platform| platform.incarnation);
        let Some(body) = Keepsake::of(state).map(|keepsake| Bytes::from(keepsake.encode())) else { return };
        if self.message.as_ref().is_some_and(|known| known.body == body) {
            return;
        }
        if body.len() > SIZE_MAX {
            tracing::warn!(
                bytes = body.len(),
                "too large for agents to keep: a rebuild would go back to an older state"
            );
            return;
        }
        self.message = Some(pb::Keepsake { incarnation, index: state.index.0, body });
    }
}

impl Leader {
    pub(super) async fn give_keepsakes(&self) {
        let mut newest = Newest::default();
        loop {
            newest.look(&self.parts.replica.state());
            self.give(&mut newest);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn give(&self, newest: &mut Newest) {
        let Some(message) = &newest.message else { return };
        for (host, session) in self.parts.sessions.views() {
            let now = (session.number, message.index);
            if newest.given.get(&host) != Some(&now)
                && self.parts.sessions.send(&host, to_agent::Message::Keepsake(message.clone()))
            {
                newest.given.insert(host, now);
            }
        }
    }
}
