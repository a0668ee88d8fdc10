//! The beginning of a new incarnation of the platform, after its control plane was recovered or restored from a
//! snapshot: what is on the hosts may be newer than what is known here. Pure.

use std::collections::BTreeSet;

use muster_model::ids::{HostId, LogIndex, MemberId, OperationId, TaskId};
use muster_model::time::Timestamp;

use crate::apply::record;
use crate::command::LogMeta;
use crate::state::State;

/// Numbers that are left out: those behind the known ones may be in use on hosts, and none is ever used twice.
const MEMBERS_SKIPPED: u64 = 1_000;
const OPERATIONS_SKIPPED: u64 = 1_000;
const TASKS_SKIPPED: u64 = 1_000_000;

/// Who begins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The coordinator that goes on; the keys of all others are revoked.
    pub node: u64,
    /// The new incarnation: greater than any before.
    pub incarnation: u64,
    /// Position in the log.
    pub index: LogIndex,
    /// When.
    pub at: Timestamp,
    /// For the history and the audit log: `recovered`, `restored from a snapshot of ...`.
    pub how: String,
}

/// Begins it. False = there is no platform in this state. Hosts that are `lost` for good are not waited for.
#[must_use]
pub fn begin(state: &mut State, beginning: &Beginning, lost: &BTreeSet<HostId>) -> bool {
    let Some(platform) = state.platform.as_mut() else { return false };
    platform.incarnation = beginning.incarnation;
    state.index = state.index.max(beginning.index);
    state.at = state.at.max(beginning.at);
    let meta = LogMeta { index: state.index, at: state.at };
    state.next_member = MemberId(state.next_member.0 + MEMBERS_SKIPPED);
    state.next_operation = OperationId(state.next_operation.0 + OPERATIONS_SKIPPED);
    state.next_task = TaskId(state.next_task.0 + TASKS_SKIPPED);
    state.coordinators.retain(|node, _| *node == beginning.node);
    let own = format!("/coordinator/{}", beginning.node);
    for row in state.certificates.values_mut() {
        if row.subject.contains("/coordinator/") && !row.subject.ends_with(&own) {
            row.revoked.get_or_insert_with(|| "left behind by a recovery".to_owned());
        }
    }
    // Nothing on a host is stopped or removed until its agent has said what is there.
    for (id, host) in &mut state.hosts {
        host.inventory = (!lost.contains(id)).then(Vec::new);
        host.version = meta.index;
    }
    let text = format!("the control plane was {}: incarnation {}", beginning.how, beginning.incarnation);
    record(state, meta, "root on a coordinator", "platform", &text);
    true
}
