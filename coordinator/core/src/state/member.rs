//! A member's row: what must be, and what was seen, each with one writer.

use std::sync::Arc;

use muster_model::ids::{HostId, MemberId, Name, Revision, Slot};
use muster_model::plan::{Attachment, Guard, Rendered, hash_of};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::kinds::Observed;

/// A stored rendering. A new coordinator version alone never changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendering {
    /// The revision that it was rendered from.
    pub revision: Revision,
    /// Hash of everything that it was rendered from.
    pub inputs: String,
    /// [`Rendered::container_hash`].
    pub container_hash: String,
    /// Hash of the whole result, so that plans are compared without writing it out again and again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The result.
    pub rendered: Arc<Rendered>,
    /// Must hold immediately before the member is stopped for a restart or for a new container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Arc<Guard>>,
}

impl Rendering {
    /// Hash of the whole result; what was stored without one is written out.
    #[must_use]
    pub fn content_hash(&self) -> String {
        if self.hash.is_empty() { Self::hash(&self.rendered, None) } else { self.hash.clone() }
    }

    /// Hash of a whole result.
    #[must_use]
    pub fn hash(rendered: &Rendered, guard: Option<&Guard>) -> String {
        match guard {
            Some(guard) => hash_of(&(rendered, guard)),
            None => hash_of(rendered),
        }
    }
}

/// Where a member is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Fills its slot.
    Active,
    /// No longer wanted; its row stays until its host's own agent confirmed that the container is gone.
    Retiring {
        /// Since when.
        since: Timestamp,
        /// Its data may be deleted instead of quarantined.
        destroy: bool,
        /// Counter of the first plan that leaves it out; written by `PublishPlan`.
        dropped_at: Option<u64>,
        /// An operator said that it never comes back: its slot is free although its stop is not confirmed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lost: bool,
    },
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its slot.
    pub slot: Slot,
    /// Its host, for life.
    pub host: HostId,
    /// Its addresses, the first one for probes.
    pub addresses: Vec<Attachment>,
    /// It joins a cluster that was formed before it was placed.
    pub joins_existing: bool,
    /// Active or retiring.
    pub phase: Phase,
    /// What its host plan says. Written by `Render` and `Adopt`.
    pub rendering: Option<Rendering>,
    /// The newest rendering, which needs a new container and waits for its turn in an operation.
    pub pending: Option<Rendering>,
    /// Its host plan says *run*.
    pub started: bool,
    /// An operation stopped it; nothing starts it before that operation says so or ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parked: bool,
    /// Restarts asked for so far.
    pub restarts: u64,
    /// It was seen running with data: an empty directory is a loss from now on.
    pub has_data: bool,
    /// What was seen last in the present boot of its host; absent = unknown.
    pub observed: Option<Observed>,
    /// When that was.
    pub observed_at: Timestamp,
    /// Counter of the plan that its agent acted on then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seen_under: u64,
    /// Counter of the first plan that says of it what is said now; absent = none was published yet, or it is not known.
    /// Written by `PublishPlan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
    /// When it was placed.
    pub placed_at: Timestamp,
}

impl Member {
    /// What was seen, if it belongs to what must run now: the present container, after the last restart asked for.
    #[must_use]
    pub fn seen(&self) -> Option<&Observed> {
        let rendering = self.rendering.as_ref()?;
        self.observed
            .as_ref()
            .filter(|o| o.container_hash == rendering.container_hash && o.restarts_done >= self.restarts)
    }

    /// What was seen was seen by an agent that acted on what is asked of it now, or on something newer.
    ///
    /// Safety: without this, a container that had ended by itself just before its stop was ordered would confirm that
    /// order, although its agent, which does not know of it yet, starts it again.
    #[must_use]
    pub fn obeys(&self) -> bool {
        self.observed.is_some() && self.told.is_some_and(|told| self.seen_under >= told)
    }

    /// Its agent stands by it that nothing of it runs, and that nothing will be started: also if no container is there at
    /// all, which has no revision to be of.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        let rests = self.observed.as_ref().is_some_and(|seen| seen.stopped && !seen.running);
        !self.started && rests && self.obeys()
    }

    /// Of a host that rests: its agent, knowing that, said that nothing of it runs.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.obeys() && self.observed.as_ref().is_some_and(|seen| seen.stopped && !seen.running)
    }

    /// It is to run, and its agent has no container of it and says why it makes none.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let refused = |seen: &Observed| seen.container_hash.is_empty() && !seen.running && !seen.stopped;
        self.started
            && self.obeys()
            && self.observed.as_ref().is_some_and(|seen| refused(seen) && !seen.detail.is_empty())
    }

    /// What it runs and what serves is an earlier container: its agent says why it cannot make the present one.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let serves = |seen: &Observed| seen.running && seen.ready && !seen.successor.is_empty();
        self.seen().is_none() && self.obeys() && self.observed.as_ref().is_some_and(serves)
    }

    /// Its container name, for messages.
    #[must_use]
    pub fn title(&self, id: MemberId) -> String {
        format!("{} (member {id})", self.slot)
    }

    /// Whether it belongs to `service`.
    #[must_use]
    pub fn is_of(&self, service: &Name) -> bool {
        self.slot.service == *service
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(counter: &u64) -> bool {
    *counter == 0
}
