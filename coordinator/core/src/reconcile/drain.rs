//! Empties hosts that are to be emptied: leading roles move away, and what another host can take is replaced there, one
//! member at a time for each service. What cannot go stays, with its reason.

use muster_model::ids::{HostId, Name};
use muster_model::time::{Millis, Timestamp};
use muster_model::view::Scheduling;

use super::replace;
use crate::command::{Command, What};
use crate::facts::{brake, kind_of, layout_of, service_facts};
use crate::scheduler::choose;
use crate::state::{OperationKind, Outcome, State};

/// After a step that failed or was cancelled, the same one is not begun again before this.
const PAUSE: Millis = Millis::seconds(600);

/// At most one command per family that no operation holds.
pub fn drain(state: &State, now: Timestamp) -> Vec<Command> {
    if brake(state).is_some() {
        return Vec::new();
    }
    let roots = state.services.iter().filter(|(_, s)| s.parent.is_none() && s.internal.is_none());
    let free = roots.filter(|(name, s)| s.removing.is_none() && state.holder(name).is_none());
    free.filter_map(|(root, _)| {
        let (service, kind) =
            state.family(root).find_map(|(name, _)| Some((name, next(state, name, now)?)))?;
        let seen = Some(state.fence(service));
        Some(Command::internal(What::StartOperation { service: service.clone(), kind, seen }))
    })
    .collect()
}

/// The next member of a service that leaves a draining host, or the role that does.
fn next(state: &State, name: &Name, now: Timestamp) -> Option<OperationKind> {
    let draining = |host: &HostId| {
        state.hosts.get(host).is_some_and(|row| row.is_up() && row.scheduling == Scheduling::Draining)
    };
    let here: Vec<u32> = state
        .members_of(name)
        .into_iter()
        .filter(|(_, (_, m))| draining(&m.host))
        .map(|(slot, _)| slot)
        .collect();
    let wanted = here.iter().find_map(|slot| {
        let host = &state.members_of(name).get(slot)?.1.host.clone();
        match stays(state, name, *slot, host, now) {
            None => Some(OperationKind::Replace { slot: *slot, confirm_lost: false }),
            Some(_) => role(state, name, *slot, &here, now),
        }
    })?;
    (!failed_lately(state, name, &wanted, now)).then_some(wanted)
}

/// A member that stays gives at least its leading role away.
pub fn role(state: &State, name: &Name, slot: u32, here: &[u32], now: Timestamp) -> Option<OperationKind> {
    let (facts, kind) = (service_facts(state, name, now)?, kind_of(state.services.get(name)?)?);
    if !kind.leads(&facts, slot) {
        return None;
    }
    let heirs = kind.heir(&facts, slot).into_iter().chain(facts.members.iter().map(|m| m.slot));
    let mut heirs = heirs.filter(|to| !here.contains(to));
    let to = heirs.find(|to| kind.switchover(&facts, Some(*to)).is_ok())?;
    Some(OperationKind::Switchover { to: Some(to) })
}

/// Why a member stays on its host although that is to be emptied; absent = it can leave.
#[must_use]
pub fn stays(state: &State, name: &Name, slot: u32, host: &HostId, now: Timestamp) -> Option<String> {
    let Some(layout) = state.services.get(name).and_then(|row| layout_of(name, row)) else {
        return Some("this version does not know its kind".to_owned());
    };
    match choose(state, name, &layout, slot) {
        Err(why) => return Some(why.to_string()),
        Ok(choice) if choice.host == *host => return Some("no other host fits".to_owned()),
        Ok(_) => {}
    }
    replace::refusal(state, name, slot, false, now)
}

pub fn failed_lately(state: &State, name: &Name, wanted: &OperationKind, now: Timestamp) -> bool {
    let same = state.operations.values().filter(|op| op.service == *name && op.kind == *wanted);
    same.filter_map(|op| op.outcome).any(|(at, outcome)| outcome != Outcome::Done && now.since(at) < PAUSE)
}
