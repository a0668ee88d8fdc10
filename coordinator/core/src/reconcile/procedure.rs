//! Begins and advances the procedures of kinds: on their own, or in the middle of an operation that cannot go on
//! without them. Knows no kind.

use muster_model::ids::{MemberId, Name};
use muster_model::observed::TaskOutcome;
use muster_model::time::{Millis, Timestamp};

use super::step::Turn;
use crate::command::{Act, Advance, Command, What};
use crate::drill::DrillStep;
use crate::facts::{kind_of, service_facts};
use crate::kinds::{Procedure, ProcedureProgress, ProcedureStep, rotate};
use crate::state::{NeedsOperator, Operation, OperationKind, Outcome, State, Step};

/// Longest wait of a procedure for something that its kind waits for.
const WAIT_SPAN: Millis = Millis::seconds(900);
/// Time on top of a task's own for its way to the agent and back.
const ANSWER_SPAN: Millis = Millis::seconds(30);
/// What was seen may be older than what was just done: the same procedure is not due again before this.
const PAUSE: Millis = Millis::seconds(5);
/// The same after one that failed or was cancelled.
const PAUSE_FAILED: Millis = Millis::seconds(60);
/// Answers kept of one procedure.
const ANSWERS_KEPT: usize = 64;

/// At most one command per family that no operation holds.
pub fn due(state: &State, now: Timestamp) -> Vec<Command> {
    let roots = state.services.iter().filter(|(_, row)| row.parent.is_none() && row.internal.is_none());
    let free = roots.filter(|(name, row)| row.removing.is_none() && state.holder(name).is_none());
    free.filter_map(|(root, _)| {
        let (service, procedure) = due_in_family(state, root, now)?;
        let kind = OperationKind::Procedure(procedure);
        let seen = Some(state.fence(service));
        Some(Command::internal(What::StartOperation { service: service.clone(), kind, seen }))
    })
    .collect()
}

/// The first procedure that a service of the family asks for and that did not end a moment ago.
fn due_in_family<'a>(state: &'a State, root: &'a Name, now: Timestamp) -> Option<(&'a Name, Procedure)> {
    state.family(root).find_map(|(name, service)| {
        let facts = service_facts(state, name, now)?;
        let procedure = kind_of(service)?.due(&facts)?;
        (!just_ended(state, name, &procedure, now)).then_some((name, procedure))
    })
}

fn just_ended(state: &State, service: &Name, procedure: &Procedure, now: Timestamp) -> bool {
    let same = |operation: &&Operation| {
        let kind = &operation.kind;
        operation.service == *service
            && matches!(kind, OperationKind::Procedure(other) if other.name == procedure.name)
    };
    state.operations.values().filter(same).filter_map(|operation| operation.outcome).any(|(at, outcome)| {
        let pause = match outcome {
            Outcome::Done => PAUSE,
            Outcome::Cancelled if procedure.can_wait => PAUSE,
            _ => PAUSE_FAILED,
        };
        now.since(at) < pause
    })
}

/// The procedure without which the operation of this turn would wait for good, as its next step.
pub fn interlude(turn: &Turn<'_>) -> Option<Advance> {
    let operation = turn.operation;
    let fits = match (&operation.kind, &operation.step) {
        (OperationKind::Remove | OperationKind::Procedure(_), _) | (_, Step::Procedure { .. }) => false,
        (_, Step::Drill(step)) => *step == DrillStep::Observe,
        (_, Step::Choose | Step::Settle { .. }) => true,
        (_, Step::Switching { .. } | Step::Removing) => false,
    };
    if !fits || turn.now.since(operation.step_since) < PAUSE {
        return None;
    }
    let (service, procedure) =
        due_in_family(turn.state, turn.root(), turn.now).filter(|(_, procedure)| !procedure.can_wait)?;
    let status = format!("{}: {}", procedure.name, procedure.why);
    let then = Box::new(operation.step.clone());
    let (until, paused) = (operation.deadline, operation.needs_operator.clone());
    let step = Step::Procedure { service: service.clone(), procedure, then, until, paused };
    let next = turn.to(step, None, status);
    Some(Advance { procedure: Some(Box::default()), ..next })
}

/// The next step of the procedure that runs.
pub fn procedure(turn: &Turn<'_>) -> Option<Advance> {
    let Step::Procedure { service, procedure, .. } = &turn.operation.step else { return None };
    let row = turn.state.services.get(service);
    let known = service_facts(turn.state, service, turn.now).zip(row.and_then(kind_of));
    let Some((facts, kind)) = known else { return Some(over(turn, Outcome::Failed, "the service is gone")) };
    let mut progress = turn.operation.procedure.as_deref().cloned().unwrap_or_default();
    if let Some(label) = progress.asked.take() {
        let Some(outcome) = answer(turn) else {
            return waits(turn, &format!("waits for the answer to {label}"));
        };
        progress.answers.push((label, outcome));
        let surplus = progress.answers.len().saturating_sub(ANSWERS_KEPT);
        progress.answers.drain(..surplus);
    }
    let step = if procedure.name == rotate::NAME {
        rotate::proceed(kind, &facts, procedure, &progress.answers)
    } else {
        kind.proceed(&facts, procedure, &progress.answers)
    };
    step_of(turn, step, progress)
}

/// One that waits for an operator goes on, if its kind says that what it waited for has changed.
pub fn changed(turn: &Turn<'_>) -> Option<Advance> {
    let Step::Procedure { service, procedure, .. } = &turn.operation.step else { return None };
    let facts = service_facts(turn.state, service, turn.now)?;
    let kind = kind_of(turn.state.services.get(service)?).filter(|kind| kind.goes_on_by_itself(&facts))?;
    let progress = turn.operation.procedure.as_deref().cloned().unwrap_or_default();
    match kind.proceed(&facts, procedure, &progress.answers) {
        ProcedureStep::NeedsOperator { .. } => None,
        ProcedureStep::Wait(why) => Some(turn.to(turn.operation.step.clone(), Some(WAIT_SPAN), why)),
        step => step_of(turn, step, progress),
    }
}

/// What a step that the kind named does to the operation.
pub fn step_of(turn: &Turn<'_>, step: ProcedureStep, progress: ProcedureProgress) -> Option<Advance> {
    let Step::Procedure { service, .. } = &turn.operation.step else { return None };
    let same = turn.operation.procedure.as_deref() == Some(&progress);
    let go = |status: String| {
        let next = turn.to(turn.operation.step.clone(), Some(WAIT_SPAN), status);
        Advance { procedure: Some(Box::new(progress.clone())), ..next }
    };
    match step {
        ProcedureStep::Task { label, task } => {
            let span = Millis(task.timeout_ms + ANSWER_SPAN.0);
            let progress = ProcedureProgress { asked: Some(label.clone()), ..progress };
            let next = turn.to(turn.operation.step.clone(), Some(span), label);
            Some(Advance { procedure: Some(Box::new(progress)), ..next.with_task(*task) })
        }
        ProcedureStep::Stop(members) => {
            let acts = acts(turn.state, &members, |row| row.started, |member| Act::Stop { member });
            if acts.is_empty() {
                return waits(turn, "waits until the members have stopped");
            }
            Some(Advance { acts, ..go("members are stopped".to_owned()) })
        }
        ProcedureStep::Start(members) => {
            let acts = acts(turn.state, &members, |row| !row.started, |member| Act::Start { member });
            if acts.is_empty() {
                return waits(turn, "waits until the members have started");
            }
            Some(Advance { acts, ..go("members are started".to_owned()) })
        }
        ProcedureStep::Renew(member) => {
            let Some(row) = turn.state.members.get(&member).filter(|row| row.pending.is_some()) else {
                return waits(turn, "waits for a newer revision of a member");
            };
            let acts = vec![Act::Stop { member }, Act::Adopt { member }];
            Some(go("a member gets its newest revision".to_owned()).with_acts(&row.slot.service, acts))
        }
        ProcedureStep::Record { key, value } => {
            let row = turn.state.services.get(service)?;
            if row.records.get(&key) == Some(&value) {
                return waits(turn, &format!("{key} is recorded already"));
            }
            let status = format!("recorded: {key} is {value}");
            Some(go(status).with_acts(service, vec![Act::Record { key, value }]))
        }
        ProcedureStep::Promote(names) => {
            let status = format!("{} changed", names.join(", "));
            Some(go(status).with_acts(service, vec![Act::PromoteSecrets { names }]))
        }
        ProcedureStep::ForgetPrevious(names) => {
            let status = "the values before are forgotten".to_owned();
            Some(go(status).with_acts(service, vec![Act::ForgetPrevious { names }]))
        }
        ProcedureStep::Wait(why) if same => waits(turn, &why),
        ProcedureStep::Wait(why) => Some(go(why)),
        ProcedureStep::Done(text) => Some(over(turn, Outcome::Done, &text)),
        ProcedureStep::Failed(why) => Some(over(turn, Outcome::Failed, &why)),
        ProcedureStep::NeedsOperator { reason, remedy, word } => {
            Some(stuck(turn, reason, remedy, word, progress))
        }
    }
}

/// The answer of the task that runs. One that never comes may have taken effect or not.
fn answer(turn: &Turn<'_>) -> Option<TaskOutcome> {
    match turn.answer() {
        Some(Some(outcome)) => Some(outcome.clone()),
        Some(None) if turn.operation.deadline.is_none_or(|deadline| turn.now < deadline) => None,
        Some(None) | None => Some(TaskOutcome::Interrupted),
    }
}

fn acts(
    state: &State,
    members: &[MemberId],
    wanted: fn(&crate::state::Member) -> bool,
    act: fn(MemberId) -> Act,
) -> Vec<(Name, Vec<Act>)> {
    let known = members.iter().filter_map(|id| Some((*id, state.members.get(id)?)));
    let fit = known.filter(|(_, row)| wanted(row) && row.rendering.is_some());
    fit.map(|(id, row)| (row.slot.service.clone(), vec![act(id)])).collect()
}

/// Waits; a drill goes on without the procedure once it took too long, other operations ask an operator.
fn waits(turn: &Turn<'_>, why: &str) -> Option<Advance> {
    let late = turn.operation.deadline.is_some_and(|deadline| turn.now >= deadline);
    match &turn.operation.kind {
        OperationKind::Drill(_) if late => Some(over(turn, Outcome::Failed, why)),
        _ => turn.wait(WAIT_SPAN, why),
    }
}

/// The operation goes on where it was, or waits for its operator as before; one that was nothing else ends.
fn over(turn: &Turn<'_>, outcome: Outcome, text: &str) -> Advance {
    let Step::Procedure { then, until, paused, .. } = &turn.operation.step else {
        return turn.end(outcome, text);
    };
    if matches!(turn.operation.kind, OperationKind::Procedure(_)) {
        return turn.end(outcome, text);
    }
    let then = match then.as_ref() {
        Step::Settle { member, .. } => Step::Settle { member: *member, good_since: None },
        other => other.clone(),
    };
    let status = paused.as_ref().map_or_else(|| text.to_owned(), |paused| paused.reason.clone());
    Advance { deadline: *until, status, needs_operator: paused.clone(), ..turn.to(then, None, text) }
}

/// A drill is never left waiting for an operator: it ends by its own deadline. What the question rests on is kept: judged
/// anew without it, the procedure would ask for it again and take its question back.
fn stuck(
    turn: &Turn<'_>,
    reason: String,
    remedy: String,
    word: bool,
    progress: ProcedureProgress,
) -> Advance {
    if matches!(turn.operation.kind, OperationKind::Drill(_)) {
        return over(turn, Outcome::Failed, &reason);
    }
    let id = turn.id;
    let continues = if word { "is that word" } else { "looks again" };
    let remedy =
        format!("{remedy}; `muster op continue {id}` {continues}, `muster op cancel {id}` leaves it");
    Advance {
        deadline: None,
        note: Some(format!("needs an operator: {reason}")),
        status: reason.clone(),
        needs_operator: Some(NeedsOperator { reason, remedy }),
        clear_tasks: true,
        procedure: Some(Box::new(progress)),
        ..turn.same()
    }
}
