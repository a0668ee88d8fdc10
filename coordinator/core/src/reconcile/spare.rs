//! Keeps operations of different services from taking their last spares at the same time: one lost host would then stop
//! both. Decides nothing about one service alone.

use muster_model::ids::{MemberId, Name};
use muster_model::time::Timestamp;
use muster_model::view::HealthWord;

use super::step::Turn;
use crate::facts::{kind_of, service_facts};
use crate::kinds::Wait;
use crate::state::{Operation, OperationKind, State, Step};

/// Whether `member` may be taken away for a moment although operations of other services have members away.
pub fn may_take(turn: &Turn<'_>, service: &Name, member: MemberId) -> Result<(), Wait> {
    if !is_last(turn.state, service, Some(member), turn.now) {
        return Ok(());
    }
    let root = turn.root();
    let others = turn.state.operations.iter().filter(|(_, op)| {
        // One that waits for an operator may wait for days.
        op.outcome.is_none() && op.needs_operator.is_none() && turn.state.root(&op.service) != root
    });
    for (id, other) in others {
        if let Some(away) = away(other)
            && is_last(turn.state, &other.service, away, turn.now)
        {
            return Err(Wait(format!(
                "operation {id} ({}) has taken the last spare of {}: one at a time",
                other.kind.name(),
                other.service
            )));
        }
    }
    Ok(())
}

/// The member that an operation has taken away for now; the inner option: its slot may be empty.
fn away(operation: &Operation) -> Option<Option<MemberId>> {
    match (&operation.step, &operation.kind) {
        (Step::Settle { member, .. }, _) => Some(Some(*member)),
        (_, OperationKind::Replace { .. }) if operation.todo.is_empty() => Some(None),
        _ => None,
    }
}

/// Whether a service of several members is without any spare while `member` is away.
fn is_last(state: &State, service: &Name, member: Option<MemberId>, now: Timestamp) -> bool {
    let kind = state.services.get(service).and_then(kind_of);
    let facts = service_facts(state, service, now);
    let (Some(kind), Some(mut facts)) = (kind, facts) else { return false };
    for row in facts.members.iter_mut().filter(|row| Some(row.member) == member) {
        row.seen = None;
    }
    facts.slots > 1 && kind.health(&facts).word >= HealthWord::Critical
}
