//! Moves the leading role by a guarded task, and believes it only when the new leader was seen.

use muster_model::observed::TaskOutcome;
use muster_model::time::Millis;

use super::step::Turn;
use crate::apply::PLATFORM;
use crate::command::{Act, Advance, TaskDraft};
use crate::kinds::{Kind, ServiceFacts};
use crate::state::{OperationKind, Outcome, Step};

/// Time for the task and for the new leader to be seen.
const SWITCH_SPAN: Millis = Millis::seconds(60);

/// The operation `switchover`.
pub fn switchover(
    turn: &Turn<'_>,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
    to: Option<u32>,
) -> Option<Advance> {
    if let Some(slot) = to.filter(|slot| kind.leads(facts, *slot)) {
        return Some(turn.end(Outcome::Done, format!("{}/{slot} leads", facts.name)));
    }
    let leading = facts.members.iter().filter(|member| kind.leads(facts, member.slot)).count();
    if to.is_none()
        && leading > 1
        && let Err(why) = kind.switchover(facts, None)
    {
        return Some(turn.end(Outcome::Failed, why.0));
    }
    if turn.rested() { begin(turn, facts, kind, to) } else { None }
}

/// Gives the task to the agent.
pub fn begin(turn: &Turn<'_>, facts: &ServiceFacts<'_>, kind: &dyn Kind, to: Option<u32>) -> Option<Advance> {
    match kind.switchover(facts, to) {
        Err(why) => turn.wait(SWITCH_SPAN, &why.0),
        Ok(task) => {
            let from = kind.leader(facts);
            let target =
                to.map_or_else(|| "the best member".to_owned(), |slot| format!("{}/{slot}", facts.name));
            let status = format!("switchover to {target}");
            let next = turn.to(Step::Switching { from, to }, Some(SWITCH_SPAN), status);
            let draft = TaskDraft {
                member: task.member,
                guard: task.guard,
                what: task.what,
                timeout_ms: task.timeout_ms,
            };
            Some(Advance { attempts: turn.operation.attempts, ..next.with_task(draft) })
        }
    }
}

/// Waits for the answer, then for the role.
pub fn switching(
    turn: &Turn<'_>,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
    from: Option<u32>,
    to: Option<u32>,
) -> Option<Advance> {
    let leader = kind.leader(facts);
    let moved = match to {
        Some(to) => Some(to).filter(|to| kind.leads(facts, *to)),
        None => leader.filter(|leader| Some(*leader) != from),
    };
    if let Some(leader) = moved {
        return Some(arrived(turn, facts, kind, leader));
    }
    match turn.answer() {
        Some(Some(TaskOutcome::Refused { why })) => {
            Some(turn.retry(Step::Choose, &format!("refused: {why}")))
        }
        Some(Some(TaskOutcome::Failed { why })) => Some(turn.retry(Step::Choose, &format!("failed: {why}"))),
        Some(Some(TaskOutcome::Interrupted)) => {
            Some(turn.retry(Step::Choose, "interrupted, whether it took effect is not known"))
        }
        Some(Some(TaskOutcome::Done { .. })) => turn.wait(SWITCH_SPAN, "waits until the new leader is seen"),
        Some(None) | None => turn.wait(SWITCH_SPAN, "waits for the agent's answer to the switchover"),
    }
}

fn arrived(turn: &Turn<'_>, facts: &ServiceFacts<'_>, kind: &dyn Kind, leader: u32) -> Advance {
    let status = format!("{}/{leader} leads", facts.name);
    if matches!(turn.operation.kind, OperationKind::Switchover { .. }) {
        // What the platform itself moved out of the way may move back.
        let asked = turn.operation.actor != PLATFORM;
        let chosen = asked.then(|| kind.operators_choice(facts, leader)).flatten();
        let acts = chosen.into_iter().map(|(key, value)| Act::Record { key, value }).collect();
        return turn.end(Outcome::Done, status).with_acts(facts.name, acts);
    }
    turn.to(Step::Choose, None, status)
}
