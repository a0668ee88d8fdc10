//! What an agent saw of its members.

use muster_model::ids::{Generation, MemberId, Name};

use super::host::of_present_boot;
use super::{event, unknown};
use crate::command::{LogMeta, Observation, Rejected};
use crate::kinds::Observed;
use crate::state::{Member, Phase, State};

pub fn observe(state: &mut State, seen: &Observation, meta: LogMeta) -> Result<(), Rejected> {
    let host = state.hosts.get(&seen.host).ok_or_else(|| unknown("host", &seen.host))?;
    of_present_boot(host, &seen.boot)?;
    for (id, observed) in &seen.members {
        note_member(state, seen, *id, observed.as_ref(), meta);
    }
    for id in &seen.gone {
        forget_gone(state, seen, *id, meta);
    }
    for answer in &seen.answers {
        let row = state.tasks.get_mut(&answer.id).filter(|row| row.host == seen.host);
        if let Some(row) = row.filter(|row| row.answer.is_none()) {
            // By the agent's clock, which may be wrong: never later than now.
            row.answer = Some((answer.at.min(meta.at), answer.outcome.clone()));
        }
    }
    Ok(())
}

fn note_member(
    state: &mut State,
    seen: &Observation,
    id: MemberId,
    observed: Option<&Observed>,
    meta: LogMeta,
) {
    // Plans of another incarnation were counted by another control plane.
    let same = state.platform.as_ref().is_some_and(|p| p.incarnation == seen.generation.incarnation);
    let under = if same { seen.generation.counter } else { 0 };
    let Some(member) = state.members.get_mut(&id).filter(|m| m.host == seen.host) else { return };
    if member.observed.as_ref() == observed && member.seen_under == under {
        return;
    }
    member.seen_under = under;
    let text = difference(member, observed);
    member.observed = observed.cloned();
    member.observed_at = meta.at;
    let service: Name = member.slot.service.clone();
    let about = member.slot.to_string();
    if let Some(service) = state.services.get_mut(&service) {
        service.version = meta.index;
    }
    if let Some(text) = text {
        event(state, meta, &about, text);
    }
}

/// What of a change is worth a line in the history.
fn difference(member: &Member, new: Option<&Observed>) -> Option<String> {
    let new = new?;
    let old = member.observed.as_ref();
    let was = |f: fn(&Observed) -> bool| old.is_some_and(f);
    let mut parts = Vec::new();
    if new.running && (!was(|o| o.running) || old.is_some_and(|o| o.started_at != new.started_at)) {
        parts.push("running".to_owned());
    }
    if !new.running && was(|o| o.running) {
        parts.push(if new.stopped { "stopped" } else { "not running" }.to_owned());
    }
    if old.is_some_and(|o| new.releases > o.releases) {
        parts.push("handed its leading role over".to_owned());
    }
    if let Some(role) = new.role.as_ref().filter(|_| old.is_none_or(|o| o.role != new.role)) {
        parts.push(format!("role {role}"));
    }
    if new.ready != was(|o| o.ready) {
        parts.push(if new.ready { "ready" } else { "not ready" }.to_owned());
    }
    if new.writes == Some(false) && old.is_none_or(|o| o.writes != new.writes) {
        parts.push("writes do not get through".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Only the word of the host's own agent, acting on a plan without the member, lets its row go.
fn forget_gone(state: &mut State, seen: &Observation, id: MemberId, meta: LogMeta) {
    let Some(member) = state.members.get(&id).filter(|m| m.host == seen.host) else { return };
    let Phase::Retiring { dropped_at: Some(dropped), .. } = member.phase else { return };
    let incarnation = state.platform.as_ref().map_or(0, |p| p.incarnation);
    if seen.generation < (Generation { incarnation, counter: dropped }) {
        return;
    }
    let about = member.slot.to_string();
    let service = member.slot.service.clone();
    state.members.remove(&id);
    if let Some(service) = state.services.get_mut(&service) {
        service.version = meta.index;
    }
    let host = state.host_name(&seen.host);
    event(state, meta, &about, format!("member {id} is gone from {host}"));
}
