//! Commands about operations.

use std::sync::Arc;

use muster_model::ids::{MemberId, Name, OperationId};
use muster_model::observed::TaskOutcome;
use muster_model::plan::Task;

use super::{PLATFORM, acts, event, fresh, unfit, unknown};
use crate::command::{Act, Advance, LogMeta, Rejected, TaskDraft, Verb};
use crate::drill::{DrillProgress, DrillStep};
use crate::kinds::{OPERATORS_WORD, ProcedureProgress};
use crate::state::{
    DrillReport, OPERATIONS_KEPT, Operation, OperationKind, Outcome, State, Step, TaskRow, restarted_key,
};

/// Reports of drills kept.
const DRILLS_KEPT: usize = 200;
/// Answers kept per operation.
const ANSWERS_KEPT: usize = 16;

/// Starts an operation, if no other one holds the service's family.
///
/// A rollback, or a removal, takes the place of an update or a procedure that waits for an operator; whatever an operator
/// asks for takes the place of work that can wait.
pub fn start(
    state: &mut State,
    service: &Name,
    kind: &OperationKind,
    actor: &str,
    meta: LogMeta,
) -> Result<OperationId, Rejected> {
    if !state.services.contains_key(service) {
        return Err(unknown("service", service));
    }
    if let Some((id, holder)) = state.holder(service) {
        let may_yield = matches!(holder.kind, OperationKind::Update | OperationKind::Procedure(_));
        let stuck = may_yield && holder.needs_operator.is_some();
        let takes = matches!(kind, OperationKind::Rollback | OperationKind::Remove);
        if !(stuck && takes || holder.is_housekeeping() && actor != PLATFORM) {
            let (operation, kind) = (id, holder.kind.name().to_owned());
            return Err(Rejected::Held { service: service.clone(), operation, kind });
        }
        end(state, id, Outcome::Cancelled, &format!("a {} took its place", kind.name()), meta);
    }
    let todo = begin(state, service, kind, meta)?;
    note_restart(state, service, kind, actor);
    let id = state.next_operation.next();
    state.next_operation = id;
    let (step, drill) = match kind {
        OperationKind::Remove => (Step::Removing, None),
        OperationKind::Drill(_) => (Step::Drill(DrillStep::Writer), Some(Box::<DrillProgress>::default())),
        OperationKind::Procedure(procedure) => {
            let (service, procedure) = (service.clone(), procedure.clone());
            (
                Step::Procedure {
                    service,
                    procedure,
                    then: Box::new(Step::Choose),
                    until: None,
                    paused: None,
                },
                None,
            )
        }
        _ => (Step::Choose, None),
    };
    let operation = Operation {
        service: service.clone(),
        kind: kind.clone(),
        epoch: 0,
        step,
        step_since: meta.at,
        todo,
        answers: Vec::new(),
        attempts: 0,
        deadline: None,
        cancel: false,
        needs_operator: None,
        drill,
        procedure: None,
        actor: actor.to_owned(),
        started: meta.at,
        outcome: None,
        status: "begins".to_owned(),
        log: Vec::new(),
        result: None,
    };
    state.operations.insert(id, operation);
    forget_oldest(state);
    bump(state, service, meta);
    event(state, meta, service.as_str(), format!("operation {id} ({}) started by {actor}", kind.name()));
    Ok(id)
}

/// The platform restarts a slot because its engine asked for it: not a second time at the same revision.
fn note_restart(state: &mut State, service: &Name, kind: &OperationKind, actor: &str) {
    if let (OperationKind::Restart { slot: Some(slot) }, PLATFORM, Some(row)) =
        (kind, actor, state.services.get_mut(service))
    {
        row.records.insert(restarted_key(*slot), row.revision.to_string());
    }
}

/// What an operation does to State at its beginning, and the members that it works through.
fn begin(
    state: &mut State,
    service: &Name,
    kind: &OperationKind,
    meta: LogMeta,
) -> Result<Vec<MemberId>, Rejected> {
    match kind {
        OperationKind::Restart { slot } => {
            let members = state.members_of(service).into_iter();
            let wanted = members.filter(|(index, _)| slot.is_none_or(|slot| slot == *index));
            let todo: Vec<MemberId> = wanted.map(|(_, (id, _))| id).collect();
            if todo.is_empty() { Err(unfit(format!("`{service}` has no such member"))) } else { Ok(todo) }
        }
        OperationKind::Replace { slot, .. } => {
            let found = state.members_of(service).remove(slot);
            let (id, _) = found.ok_or_else(|| unfit(format!("`{service}` has no member in slot {slot}")))?;
            Ok(vec![id])
        }
        OperationKind::Rollback => {
            let row = state.services.get(service).ok_or_else(|| unknown("service", service))?;
            if let Some(parent) = &row.parent {
                let owner = state.services.get(&parent.owner);
                if owner.is_none_or(|owner| owner.rolled_back != Some(owner.revision)) {
                    return Err(unfit(format!("`{service}` belongs to `{}`: roll that back", parent.owner)));
                }
            } else if row.rolled_back != Some(row.revision) {
                acts::all(state, &[(service.clone(), vec![Act::GoBack])], meta)?;
            }
            Ok(Vec::new())
        }
        OperationKind::Update => {
            let row = state.services.get_mut(service).ok_or_else(|| unknown("service", service))?;
            row.held = None;
            Ok(Vec::new())
        }
        OperationKind::Switchover { .. }
        | OperationKind::Remove
        | OperationKind::Drill(_)
        | OperationKind::Procedure(_) => Ok(Vec::new()),
    }
}

/// Removal: marks the whole family, then an operation watches it go.
pub fn remove_service(
    state: &mut State,
    service: &Name,
    destroy: bool,
    actor: &str,
    meta: LogMeta,
) -> Result<OperationId, Rejected> {
    let row = state.services.get(service).ok_or_else(|| unknown("service", service))?;
    if let Some(parent) = &row.parent {
        return Err(unfit(format!("`{service}` belongs to `{}`: remove that", parent.owner)));
    }
    let id = start(state, service, &OperationKind::Remove, actor, meta)?;
    let family: Vec<Name> = state.family(service).map(|(name, _)| name.clone()).collect();
    let marks: Vec<(Name, Vec<Act>)> =
        family.into_iter().map(|name| (name, vec![Act::MarkRemoved { destroy }])).collect();
    acts::all(state, &marks, meta)?;
    // The file in force no longer holds the service: else the next plan would show it as unchanged.
    if let Some(platform) = &mut state.platform {
        let mut whole = (*platform.spec).clone();
        if whole.services.remove(service).is_some() {
            platform.spec = Arc::new(whole);
            platform.spec_index = meta.index;
        }
    }
    Ok(id)
}

pub fn advance(state: &mut State, new: &Advance, meta: LogMeta) -> Result<(), Rejected> {
    let operation =
        state.operations.get(&new.operation).ok_or_else(|| unknown("operation", new.operation))?;
    if operation.outcome.is_some() || operation.epoch != new.epoch {
        return Err(unfit(format!("operation {} has moved on", new.operation)));
    }
    let service = operation.service.clone();
    fresh(state, &service, new.seen)?;
    acts::all(state, &new.acts, meta)?;
    take_back_tasks(state, new);
    for draft in new.task.iter().chain(&new.more_tasks) {
        give_task(state, new.operation, draft)?;
    }
    let Some(operation) = state.operations.get_mut(&new.operation) else { return Ok(()) };
    operation.epoch += 1;
    let was = matches!(operation.step, Step::Procedure { .. });
    if let Some(step) = &new.step {
        if *step != operation.step {
            operation.step_since = meta.at;
        }
        operation.step = step.clone();
    }
    let leaves_procedure = was && !matches!(operation.step, Step::Procedure { .. });
    operation.deadline = new.deadline;
    operation.attempts = new.attempts;
    operation.status.clone_from(&new.status);
    operation.needs_operator.clone_from(&new.needs_operator);
    if let Some(todo) = &new.todo {
        operation.todo.clone_from(todo);
    }
    if new.drill.is_some() {
        operation.drill.clone_from(&new.drill);
    }
    if new.procedure.is_some() {
        operation.procedure.clone_from(&new.procedure);
    }
    if new.result.is_some() {
        operation.result.clone_from(&new.result);
    }
    if let Some(note) = &new.note {
        operation.note(meta.at, note);
        event(state, meta, service.as_str(), format!("operation {}: {note}", new.operation));
    }
    if leaves_procedure {
        unpark(state, &service);
    }
    bump(state, &service, meta);
    if let Some(outcome) = new.outcome {
        end(state, new.operation, outcome, &new.status, meta);
    }
    Ok(())
}

fn take_back_tasks(state: &mut State, new: &Advance) {
    if !new.clear_tasks && new.task.is_none() {
        return;
    }
    let done: Vec<_> =
        state.tasks.iter().filter(|(_, row)| row.operation == new.operation).map(|(id, _)| *id).collect();
    for id in done {
        let answer = state.tasks.remove(&id).and_then(|row| row.answer);
        let operation = state.operations.get_mut(&new.operation);
        if let (Some((_, outcome)), Some(operation)) = (answer, operation) {
            operation.answers.push((id, outcome));
            if operation.answers.len() > ANSWERS_KEPT {
                operation.answers.remove(0);
            }
        }
    }
}

fn give_task(state: &mut State, operation: OperationId, draft: &TaskDraft) -> Result<(), Rejected> {
    let member = state.members.get(&draft.member).ok_or_else(|| unknown("member", draft.member))?;
    let host = member.host.clone();
    let id = state.next_task.next();
    state.next_task = id;
    let task = Task {
        id,
        member: draft.member,
        guard: draft.guard.clone(),
        what: draft.what.clone(),
        timeout_ms: draft.timeout_ms,
    };
    state.tasks.insert(id, TaskRow { host, task, operation, answer: None });
    Ok(())
}

/// Words of operators that a procedure keeps.
const WORDS_MAX: usize = 8;

pub fn steer(
    state: &mut State,
    id: OperationId,
    verb: Verb,
    actor: &str,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let operation = state.operations.get_mut(&id).ok_or_else(|| unknown("operation", id))?;
    if operation.outcome.is_some() {
        return Err(unfit(format!("operation {id} has ended")));
    }
    match verb {
        Verb::Continue => {
            let Some(asked) = operation.needs_operator.take() else {
                return Err(unfit(format!("operation {id} does not wait for an operator")));
            };
            operation.attempts = 0;
            operation.deadline = None;
            // The kind judges afresh: old answers may be what it stopped for. What an operator said stays said.
            let mut answers = operation.procedure.take().map(|progress| progress.answers).unwrap_or_default();
            answers.retain(|(label, _)| label == OPERATORS_WORD);
            answers.drain(..answers.len().saturating_sub(WORDS_MAX - 1));
            answers.push((OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: asked.reason }));
            let procedure = matches!(operation.step, Step::Procedure { .. });
            operation.procedure = procedure.then(|| Box::new(ProcedureProgress { asked: None, answers }));
            if matches!(operation.step, Step::Settle { .. } | Step::Switching { .. }) {
                operation.step = Step::Choose;
                operation.step_since = meta.at;
            }
        }
        Verb::Cancel if matches!(operation.kind, OperationKind::Remove) => {
            return Err(unfit("a removal cannot be cancelled: its members are going already"));
        }
        Verb::Cancel => operation.cancel = true,
        Verb::FaultDone => match &mut operation.drill {
            Some(drill) if operation.step == Step::Drill(DrillStep::AwaitFault) => {
                drill.fault_said = Some(meta.at);
            }
            _ => return Err(unfit(format!("operation {id} does not wait for a fault"))),
        },
    }
    operation.epoch += 1;
    let service = operation.service.clone();
    operation.note(meta.at, &format!("{actor} said {}", word(verb)));
    bump(state, &service, meta);
    event(state, meta, service.as_str(), format!("operation {id}: {actor} said {}", word(verb)));
    Ok(())
}

const fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Continue => "continue",
        Verb::Cancel => "cancel",
        Verb::FaultDone => "fault-done",
    }
}

fn end(state: &mut State, id: OperationId, outcome: Outcome, status: &str, meta: LogMeta) {
    state.tasks.retain(|_, row| row.operation != id);
    let Some(operation) = state.operations.get_mut(&id) else { return };
    operation.outcome = Some((meta.at, outcome));
    operation.epoch += 1;
    operation.needs_operator = None;
    status.clone_into(&mut operation.status);
    operation.note(meta.at, status);
    let (service, kind) = (operation.service.clone(), operation.kind.name().to_owned());
    let report = operation.result.clone().filter(|_| operation.drill.is_some());
    if let Some(report) = report {
        let row =
            DrillReport { operation: id, service: service.clone(), index: meta.index, at: meta.at, report };
        state.drills.push_back(Arc::new(row));
        if state.drills.len() > DRILLS_KEPT {
            state.drills.pop_front();
        }
    }
    unpark(state, &service);
    bump(state, &service, meta);
    let ending = match outcome {
        Outcome::Done => "is done",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "was cancelled",
        Outcome::RolledBack => "rolled back",
    };
    let text = format!("operation {id} ({kind}) {ending}: {status}");
    event(state, meta, service.as_str(), text);
}

/// Members that a procedure stopped and did not start again are free to start in their usual order.
fn unpark(state: &mut State, service: &Name) {
    let family: Vec<Name> = state.family(state.root(service)).map(|(name, _)| name.clone()).collect();
    for member in state.members.values_mut().filter(|m| m.parked && family.contains(&m.slot.service)) {
        member.parked = false;
    }
}

fn bump(state: &mut State, service: &Name, meta: LogMeta) {
    if let Some(row) = state.services.get_mut(service) {
        row.version = meta.index;
    }
}

fn forget_oldest(state: &mut State) {
    while state.operations.len() > OPERATIONS_KEPT {
        let ended = state.operations.iter().find(|(_, op)| op.outcome.is_some()).map(|(id, _)| *id);
        let Some(id) = ended else { return };
        state.operations.remove(&id);
    }
}
