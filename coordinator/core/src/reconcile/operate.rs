//! Advances operations: update and rollback here, the other kinds in files of their own.

use muster_model::ids::MemberId;
use muster_model::time::{Millis, Timestamp};

use super::step::Turn;
use super::{drill, procedure, replace, restart, spare, switchover};
use crate::apply::apply;
use crate::command::{Act, Advance, Command, LogMeta};
use crate::draft::Source;
use crate::facts::{kind_of, service_facts};
use crate::kinds::{Kind, MemberFacts, Observed, ServiceFacts, UpdateStep, others_tell};
use crate::state::{OperationKind, Outcome, State, Step};

/// At most one command per running operation.
///
/// Safety of this order: each step is tried on a copy, so that the next operation sees what the ones before it take away.
pub fn operate(state: &State, now: Timestamp) -> Vec<Command> {
    let running = state.operations.iter().filter(|(_, op)| op.outcome.is_none());
    let mut running = running.peekable();
    let mut copy: Option<State> = None;
    let mut commands = Vec::new();
    while let Some((id, operation)) = running.next() {
        let turn = Turn { state: copy.as_ref().unwrap_or(state), id: *id, operation, now };
        let Some(command) = next(&turn).map(Advance::command) else { continue };
        if running.peek().is_some() {
            let mut after = turn.state.clone();
            // Its fence is that of the real state: other families' steps do not move it.
            if apply(&mut after, &command, LogMeta { index: state.index, at: now }).is_ok() {
                copy = Some(after);
            }
        }
        commands.push(command);
    }
    commands
}

/// One that waits for an operator still lets its service be helped up.
fn next(turn: &Turn<'_>) -> Option<Advance> {
    if turn.operation.cancel {
        return turn_of(turn);
    }
    let helped = procedure::interlude(turn);
    match turn.operation.needs_operator {
        Some(_) => helped.or_else(|| procedure::changed(turn)),
        None => helped.or_else(|| turn_of(turn)),
    }
}

fn turn_of(turn: &Turn<'_>) -> Option<Advance> {
    let service = turn.state.services.get(&turn.operation.service);
    if turn.operation.kind == OperationKind::Remove {
        return removal(turn);
    }
    let facts = service_facts(turn.state, &turn.operation.service, turn.now);
    let (Some(facts), Some(kind)) = (facts, service.and_then(kind_of)) else {
        return Some(turn.end(Outcome::Failed, "the service is gone"));
    };
    if let (Step::Procedure { .. }, false) = (&turn.operation.step, turn.operation.cancel) {
        return procedure::procedure(turn);
    }
    if let OperationKind::Drill(spec) = &turn.operation.kind {
        return drill::drill(turn, spec, &facts, kind);
    }
    if service.is_some_and(|service| service.removing.is_some()) {
        return Some(turn.end(Outcome::Failed, "the service is being removed"));
    }
    if turn.operation.cancel {
        return Some(cancelled(turn));
    }
    match (&turn.operation.step, &turn.operation.kind) {
        (Step::Settle { member, good_since }, _) => settle(turn, &facts, kind, *member, *good_since),
        (Step::Switching { from, to }, _) => switchover::switching(turn, &facts, kind, *from, *to),
        (_, OperationKind::Update | OperationKind::Rollback) => update(turn, &facts, kind),
        (_, OperationKind::Switchover { to }) => switchover::switchover(turn, &facts, kind, *to),
        (_, OperationKind::Restart { .. }) => restart::restart(turn, &facts, kind),
        (_, OperationKind::Replace { slot, confirm_lost }) => {
            replace::replace(turn, &facts, kind, *slot, *confirm_lost)
        }
        (_, OperationKind::Remove | OperationKind::Drill(_) | OperationKind::Procedure(_)) => None,
    }
}

/// An operator ended it: what is done stays done, and an update does not begin again by itself.
fn cancelled(turn: &Turn<'_>) -> Advance {
    let end = turn.end(Outcome::Cancelled, "cancelled by an operator");
    let revision = turn.state.services.get(&turn.operation.service).map(|service| service.revision);
    match turn.operation.kind {
        OperationKind::Update | OperationKind::Rollback => {
            end.with_acts(&turn.operation.service, vec![Act::Hold { revision }])
        }
        _ => end,
    }
}

/// Update and rollback: one member at a time, in the order of the kind.
fn update(turn: &Turn<'_>, facts: &ServiceFacts<'_>, kind: &dyn Kind) -> Option<Advance> {
    let policy = turn.policy();
    if !rendered(turn.state, facts) {
        return turn.wait(policy.deadline.0, "members are being rendered");
    }
    let crossed = kind.line().and_then(|line| line.crossed(facts));
    if let Some(why) = crossed.filter(|_| turn.operation.kind == OperationKind::Update) {
        return Some(turn.fail(&why));
    }
    match kind.next_update(facts) {
        UpdateStep::Done => Some(turn.end(Outcome::Done, "every member is at the newest revision")),
        UpdateStep::Wait(why) => turn.wait(policy.deadline.0, &why),
        UpdateStep::Fail(why) => Some(turn.fail(&why)),
        UpdateStep::Recreate(member) => match kind.may_stop(facts, member) {
            Err(why) if !serves_not(turn.state, facts, member) => turn.wait(policy.deadline.0, &why.0),
            Ok(()) => match spare::may_take(turn, facts.name, member) {
                Err(why) => turn.wait(policy.deadline.0, &why.0),
                Ok(()) => recreate(turn, facts, member, policy.deadline.0),
            },
            Err(_) => recreate(turn, facts, member, policy.deadline.0),
        },
        UpdateStep::Switch { to, .. } if turn.rested() => {
            let slot = facts.members.iter().find(|m| m.member == to).map(|m| m.slot);
            switchover::begin(turn, facts, kind, slot)
        }
        UpdateStep::Switch { .. } => None,
    }
}

/// Evidence that a member does not serve, of whatever container, and that it waits for nobody: then nothing is taken away
/// by stopping it. Not to be known is no evidence.
fn serves_not(state: &State, facts: &ServiceFacts<'_>, member: MemberId) -> bool {
    let row = state.members.get(&member);
    let seen = row.and_then(|row| row.observed.as_ref());
    seen.is_some_and(|seen| !seen.running || (!seen.ready && others_tell(facts, member)))
}

fn recreate(turn: &Turn<'_>, facts: &ServiceFacts<'_>, member: MemberId, span: Millis) -> Option<Advance> {
    let slot = facts.members.iter().find(|m| m.member == member)?.slot;
    let row = turn.state.members.get(&member)?;
    let step = Step::Settle { member, good_since: None };
    let next = turn.to(step, Some(span), format!("{}/{slot} is re-created", facts.name));
    // Refused so far by its guard: its agent is to do it already.
    let under_way =
        row.pending.is_none() && row.observed.as_ref().is_some_and(|seen| !seen.refused.is_empty());
    if under_way {
        return Some(next);
    }
    let act = if row.pending.is_some() { Act::Adopt { member } } else { Act::Restart { member } };
    Some(next.with_acts(facts.name, vec![act]))
}

/// Whether every member's newest rendering is stored: before that nobody knows what is new.
fn rendered(state: &State, facts: &ServiceFacts<'_>) -> bool {
    let Some(newest) = Source::new(state, facts.name, facts.revision) else { return false };
    state.members_of(facts.name).values().all(|(id, member)| {
        let inputs = newest.draft(*id, member).map(|draft| draft.inputs());
        let stored = member.pending.as_ref().or(member.rendering.as_ref()).map(|r| &r.inputs);
        inputs.as_ref() == stored
    })
}

/// Waits until a member serves again and stays so.
fn settle(
    turn: &Turn<'_>,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
    member: MemberId,
    good_since: Option<Timestamp>,
) -> Option<Advance> {
    let policy = turn.policy();
    let Some(row) = facts.members.iter().find(|m| m.member == member) else {
        return Some(turn.to(Step::Choose, None, format!("member {member} was taken away")));
    };
    let title = format!("{}/{} on {}", facts.name, row.slot, row.host_name);
    let good = kind.settled(facts, member);
    match (good, good_since) {
        (true, Some(since)) if turn.now.since(since) >= policy.soak.0 => {
            Some(turn.to(Step::Choose, None, format!("{title} is ready")))
        }
        (true, Some(_)) => None,
        (true, None) => Some(mark(turn, member, Some(turn.now), format!("{title} is ready, soaks"))),
        (false, Some(_)) => Some(mark(turn, member, None, waits_for(&title, row))),
        (false, None) => {
            let observed = turn.state.members.get(&member).and_then(|m| m.observed.as_ref());
            match observed.filter(|seen| !seen.refused.is_empty()) {
                Some(seen) => refused(turn, facts, kind, row, seen),
                None => {
                    let successor =
                        observed.map(|seen| seen.successor.as_str()).filter(|why| !why.is_empty());
                    let kept = successor.map(|why| format!("waits for {title}: {why}; it serves as before"));
                    turn.wait(policy.deadline.0, &kept.unwrap_or_else(|| waits_for(&title, row)))
                }
            }
        }
    }
}

/// Its agent did not stop it, because its guard did not hold, and asks again by itself. Only a leading role that it got
/// meanwhile must be moved away first.
fn refused(
    turn: &Turn<'_>,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
    row: &MemberFacts,
    seen: &Observed,
) -> Option<Advance> {
    // What runs is of an older revision, which counts for nothing else.
    let mut facts = facts.clone();
    for member in facts.members.iter_mut().filter(|other| other.member == row.member) {
        member.seen = Some(seen.clone());
        member.current = false;
    }
    if kind.leads(&facts, row.slot) {
        return switchover::begin(turn, &facts, kind, kind.heir(&facts, row.slot));
    }
    let why = format!("{}/{} is not stopped: {}: does not hold", facts.name, row.slot, seen.refused);
    turn.wait(turn.policy().deadline.0, &why)
}

fn mark(turn: &Turn<'_>, member: MemberId, good_since: Option<Timestamp>, status: String) -> Advance {
    Advance { step: Some(Step::Settle { member, good_since }), status, ..turn.same() }
}

/// What a member is waited for, in words.
fn waits_for(title: &str, row: &MemberFacts) -> String {
    let what = match &row.seen {
        _ if !row.host_up => "its host is down".to_owned(),
        None => "its container is not there yet, or was not seen yet".to_owned(),
        Some(seen) if !seen.running => because("it does not run", &seen.detail),
        Some(seen) if !seen.ready => because("it is not ready", &seen.detail),
        Some(seen) => because("it has not caught up", &seen.detail),
    };
    format!("waits for {title}: {what}")
}

fn because(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what} ({detail})") }
}

/// A removal only watches: `retire` takes the members away.
fn removal(turn: &Turn<'_>) -> Option<Advance> {
    if !turn.state.services.contains_key(&turn.operation.service) {
        return Some(turn.end(Outcome::Done, "removed"));
    }
    let family: Vec<_> = turn.state.family(&turn.operation.service).map(|(name, _)| name).collect();
    let left = turn.state.members.values().filter(|m| family.contains(&&m.slot.service));
    let places: Vec<String> =
        left.map(|m| format!("{} on {}", m.slot, turn.state.host_name(&m.host))).collect();
    let status = format!("waits until these are gone: {}", places.join(", "));
    (status != turn.operation.status).then(|| Advance { status, ..turn.same() })
}
