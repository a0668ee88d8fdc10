//! Replaces one member: takes it away when that is safe, and waits until the new one in its slot serves.

use muster_model::ids::{MemberId, Name};
use muster_model::time::{Millis, Timestamp};

use super::step::Turn;
use super::{spare, switchover};
use crate::command::{Act, Advance};
use crate::facts::{brake, kind_of, layout_of, service_facts};
use crate::kinds::{Kind, MemberFacts, ServiceFacts, Wait};
use crate::scheduler::choose;
use crate::state::{Outcome, State, Step};

/// Time for a new member to copy its data and to catch up.
const COPY_SPAN: Millis = Millis::seconds(3_600);

/// The operation `replace`. What is still to be taken away is in `todo`.
pub fn replace(
    turn: &Turn<'_>,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
    slot: u32,
    confirm_lost: bool,
) -> Option<Advance> {
    let old = facts.members.iter().find(|member| turn.operation.todo.contains(&member.member));
    let Some(old) = old else { return refilled(turn, facts, kind, slot) };
    let span = turn.policy().deadline.0;
    if must_switch(facts, kind, old) {
        let heir = kind.heir(facts, slot);
        return if turn.rested() { switchover::begin(turn, facts, kind, heir) } else { None };
    }
    let allowed = may_replace(turn.state, facts, kind, old.member, confirm_lost);
    if let Err(Wait(why)) = allowed.and_then(|()| spare::may_take(turn, facts.name, old.member)) {
        return turn.wait(span, &why);
    }
    let lost = confirm_lost && !old.host_up;
    let retire = Act::Retire { member: old.member, why: "it is replaced".to_owned(), destroy: false, lost };
    let status = format!("{}/{slot} on {} is taken away", facts.name, old.host_name);
    let next = turn.to(Step::Choose, Some(span), status).with_acts(facts.name, vec![retire]);
    Some(Advance { todo: Some(Vec::new()), ..next })
}

/// The old member is on its way out: waits for the new one, then until it serves.
fn refilled(turn: &Turn<'_>, facts: &ServiceFacts<'_>, kind: &dyn Kind, slot: u32) -> Option<Advance> {
    let title = format!("{}/{slot}", facts.name);
    let Some(new) = facts.members.iter().find(|member| member.slot == slot) else {
        return turn.wait(turn.policy().deadline.0, &why_empty(turn.state, facts.name, kind, slot, turn.now));
    };
    if new.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up) {
        return Some(
            turn.end(Outcome::Done, format!("{title} is member {} on {}", new.member, new.host_name)),
        );
    }
    let step = Step::Settle { member: new.member, good_since: None };
    Some(turn.to(step, Some(COPY_SPAN), format!("{title} comes up on {}", new.host_name)))
}

fn why_empty(state: &State, name: &Name, kind: &dyn Kind, slot: u32, now: Timestamp) -> String {
    let title = format!("{name}/{slot}");
    let row = state.services.get(name);
    let layout = row.map(|row| kind.layout(name, &row.spec));
    let why = layout.and_then(|layout| choose(state, name, &layout, slot).err());
    let order = || service_facts(state, name, now).and_then(|facts| kind.may_place(&facts).err());
    match brake(state).or_else(|| why.map(|why| why.to_string())).or_else(|| order().map(|wait| wait.0)) {
        Some(why) => format!("waits for a place for {title}: {why}"),
        None => format!("waits until {title} is placed"),
    }
}

/// It leads, and another one can: the role moves before the member goes.
fn must_switch(facts: &ServiceFacts<'_>, kind: &dyn Kind, member: &MemberFacts) -> bool {
    kind.leads(facts, member.slot) && kind.switchover(facts, kind.heir(facts, member.slot)).is_ok()
}

/// Why an operator's wish to replace this slot is refused now; asked before the operation is started.
#[must_use]
pub fn refusal(state: &State, name: &Name, slot: u32, confirm_lost: bool, now: Timestamp) -> Option<String> {
    let kind = kind_of(state.services.get(name)?)?;
    let facts = service_facts(state, name, now)?;
    let Some(old) = facts.members.iter().find(|member| member.slot == slot) else {
        return Some(format!("`{name}` has no member in slot {slot}"));
    };
    if must_switch(&facts, kind, old) {
        return None;
    }
    may_replace(state, &facts, kind, old.member, confirm_lost).err().map(|wait| wait.0)
}

/// Whether a member may be taken away for a new one: there is a place for that, and the others carry the service.
fn may_replace(
    state: &State,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
    id: MemberId,
    confirm_lost: bool,
) -> Result<(), Wait> {
    let wait = |why: String| Err(Wait(why));
    if let Some(why) = brake(state) {
        return wait(why);
    }
    let layout = state.services.get(facts.name).and_then(|row| layout_of(facts.name, row));
    let (Some(layout), Some(row)) = (layout, state.members.get(&id)) else {
        return wait("it is gone".to_owned());
    };
    let host_up = facts.members.iter().any(|member| member.member == id && member.host_up);
    let host = state.host_name(&row.host);
    if layout.exclusive && host_up {
        return wait(format!(
            "{} keeps data that is nowhere else: it stays while host {host} is up",
            row.slot
        ));
    }
    if layout.exclusive && !confirm_lost {
        return wait(format!(
            "{} may still run on host {host}, which is silent: say --confirm-lost if it never comes back",
            row.slot
        ));
    }
    if layout.has_data && !layout.exclusive && !facts.formed {
        return wait(format!("{} is not formed yet", facts.name));
    }
    let other = facts.members.iter().find(|m| m.member != id && !m.seen.as_ref().is_some_and(|s| s.ready));
    if let Some(other) = other {
        return wait(format!("{}/{} on {} is not ready", facts.name, other.slot, other.host_name));
    }
    if let Err(why) = choose(state, facts.name, &layout, row.slot.index) {
        return wait(why.to_string());
    }
    let serves = facts.members.iter().any(|m| m.member == id && m.seen.as_ref().is_some_and(|s| s.ready));
    if serves {
        kind.may_stop(facts, id)?;
    }
    kind.may_replace(facts, id)
}
