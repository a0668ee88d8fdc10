//! Turns an agent's report into commands: only what changed, quantised by the kinds, so that Raft is not flooded.

use std::sync::Arc;

use muster_model::ids::{Generation, HostId, MemberId};
use muster_model::observed::{ContainerState, MemberStatus, Report, TaskAnswer};

use crate::command::{Command, Observation, What};
use crate::kinds::{self, Observed};
use crate::state::{Host, Member, Phase, State};

/// What a report changes; empty = nothing. Nothing is said for a host that is unknown, down, or in another boot.
#[must_use]
pub fn from_report(state: &State, id: &HostId, report: &Report) -> Vec<Command> {
    let present = |host: &&Host| host.is_up() && host.boot.as_ref() == Some(&report.boot);
    let Some(host) = state.hosts.get(id).filter(present) else { return Vec::new() };
    let mut commands = Vec::new();
    commands.extend(facts(id, host, report));
    commands.extend(observation(state, id, report));
    commands.extend(inventory(state, id, host, report));
    commands
}

/// After a recovery: what is there by the word of an agent that acts on a plan of this incarnation.
fn inventory(state: &State, id: &HostId, host: &Host, report: &Report) -> Option<Command> {
    let known = host.inventory.as_ref()?;
    let incarnation = state.platform.as_ref()?.incarnation;
    if report.generation.incarnation != incarnation || !report.engine.answering {
        return None;
    }
    let row = |status: &MemberStatus| state.members.get(&status.member).filter(|m| m.host == *id);
    // Made anew as it is known here, it would be stopped without any order or guard.
    let as_known = |status: &MemberStatus, row: &Member| {
        let runs = matches!(status.state, ContainerState::Running { .. });
        !runs || row.rendering.as_ref().is_some_and(|r| r.container_hash == status.container_hash)
    };
    let found = report.members.iter().filter_map(|status| match row(status) {
        None => Some(format!("{} (member {})", status.slot, status.member)),
        Some(row) if as_known(status, row) => None,
        Some(_) => Some(format!("{} (member {}, of another revision)", status.slot, status.member)),
    });
    let found: Vec<String> = found.collect();
    let found = (!found.is_empty()).then_some(found);
    (found.as_ref() != Some(known))
        .then(|| Command::internal(What::HostInventory { host: id.clone(), found }))
}

fn facts(id: &HostId, host: &Host, report: &Report) -> Option<Command> {
    let engine = (report.engine.answering, report.engine.since);
    let same = *host.facts == report.facts && host.engine == engine && host.conditions == report.conditions;
    (!same).then(|| {
        Command::internal(What::HostFacts {
            host: id.clone(),
            boot: report.boot.clone(),
            facts: Arc::new(report.facts.clone()),
            engine,
            conditions: report.conditions.clone(),
        })
    })
}

fn observation(state: &State, id: &HostId, report: &Report) -> Option<Command> {
    let known = |status: &&MemberStatus| state.members.get(&status.member).is_some_and(|m| m.host == *id);
    let members: Vec<(MemberId, Option<Observed>)> = report
        .members
        .iter()
        .filter(known)
        .filter_map(|status| {
            let row = state.members.get(&status.member)?;
            let seen = interpret(state, row, status, report.engine.answering)?;
            let changed = row.observed.as_ref() != Some(&seen) || confirms(state, row, report.generation);
            changed.then_some((status.member, Some(seen)))
        })
        .collect();
    let gone = gone(state, id, report);
    let wanted = |answer: &&TaskAnswer| {
        let row = state.tasks.get(&answer.id);
        row.is_some_and(|row| row.host == *id && row.answer.is_none())
    };
    let answers: Vec<TaskAnswer> = report.answers.iter().filter(wanted).cloned().collect();
    if members.is_empty() && gone.is_empty() && answers.is_empty() {
        return None;
    }
    Some(Command::internal(What::Observe(Observation {
        host: id.clone(),
        boot: report.boot.clone(),
        generation: report.generation,
        members,
        gone,
        answers,
    })))
}

/// The same as before, but now from an agent that knows what is asked of the member.
fn confirms(state: &State, row: &Member, generation: Generation) -> bool {
    let incarnation = state.platform.as_ref().map_or(0, |platform| platform.incarnation);
    let knows = |told: u64| generation >= Generation { incarnation, counter: told } && row.seen_under < told;
    row.told.is_some_and(knows)
}

/// What the member's kind makes of its status.
///
/// An engine that does not answer says nothing about its containers: what ran before counts as running, and the
/// probes, which do not need the engine, still tell.
fn interpret(state: &State, row: &Member, status: &MemberStatus, engine: bool) -> Option<Observed> {
    let service = state.services.get(&row.slot.service)?;
    let revision = row.rendering.as_ref().map_or(service.revision, |r| r.revision);
    let spec = service.spec_at(revision).unwrap_or(&service.spec);
    let kind = kinds::kind(spec.kind.as_str())?;
    let mut status = status.clone();
    if let (false, Some(last)) = (engine, row.observed.as_ref().filter(|last| last.running)) {
        status.state = ContainerState::Running { since: last.started_at.unwrap_or_default() };
        status.container_hash.clone_from(&last.container_hash);
        status.restarts_done = last.restarts_done;
        status.restarts = last.restarts;
    }
    Some(kind.interpret(spec, &status))
}

/// Retiring members of which the host's own agent, acting on a plan without them, lists nothing any more.
fn gone(state: &State, id: &HostId, report: &Report) -> Vec<MemberId> {
    if !report.engine.answering {
        return Vec::new();
    }
    let left = |member: MemberId| report.members.iter().any(|status| status.member == member);
    // Plans of another incarnation were counted by another control plane.
    let incarnation = state.platform.as_ref().map_or(0, |platform| platform.incarnation);
    let dropped = state.members_on(id).filter(|(member, row)| match row.phase {
        Phase::Retiring { dropped_at: Some(counter), .. } => {
            report.generation >= Generation { incarnation, counter } && !left(*member)
        }
        Phase::Retiring { dropped_at: None, .. } | Phase::Active => false,
    });
    dropped.map(|(member, _)| member).collect()
}
