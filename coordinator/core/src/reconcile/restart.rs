//! Restarts members one after the other, the leader last and after a switchover where there is one.

use muster_model::ids::MemberId;

use super::step::Turn;
use super::{spare, switchover};
use crate::command::{Act, Advance};
use crate::kinds::{Kind, ServiceFacts};
use crate::state::{Outcome, Step};

/// The operation `restart`.
pub fn restart(turn: &Turn<'_>, facts: &ServiceFacts<'_>, kind: &dyn Kind) -> Option<Advance> {
    let policy = turn.policy();
    let leads = |slot: u32| kind.leads(facts, slot);
    let known = facts.members.iter().filter(|m| turn.operation.todo.contains(&m.member));
    let Some(next) = known.min_by_key(|m| (leads(m.slot), m.slot)) else {
        return Some(turn.end(Outcome::Done, "every member was restarted"));
    };
    let others = facts.members.len() > 1;
    let heir = kind.heir(facts, next.slot);
    if leads(next.slot) && others && kind.switchover(facts, heir).is_ok() {
        return if turn.rested() { switchover::begin(turn, facts, kind, heir) } else { None };
    }
    if let Err(why) = kind.may_stop(facts, next.member) {
        return turn.wait(policy.deadline.0, &why.0);
    }
    if let Err(why) = spare::may_take(turn, facts.name, next.member) {
        return turn.wait(policy.deadline.0, &why.0);
    }
    let todo: Vec<MemberId> =
        turn.operation.todo.iter().copied().filter(|member| *member != next.member).collect();
    let step = Step::Settle { member: next.member, good_since: None };
    let status = format!("{}/{} is restarted", facts.name, next.slot);
    let advance = turn.to(step, Some(policy.deadline.0), status);
    let act = Act::Restart { member: next.member };
    Some(Advance { todo: Some(todo), ..advance.with_acts(facts.name, vec![act]) })
}
