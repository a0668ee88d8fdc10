//! Prepares hosts for maintenance: leading roles move away, and so do members that keep nothing and without which their
//! service would stop. When every service bears the host's absence, all that is on it is stopped at once.

use muster_model::ids::{HostId, LogIndex, Name};
use muster_model::spec::FailureDomain;
use muster_model::time::Timestamp;
use muster_model::view::CoordinatorView;

use super::drain;
use crate::command::{Command, What};
use crate::facts::{brake, kind_of, layout_of, service_facts};
use crate::kinds::{Kind, MemberFacts, ServiceFacts};
use crate::state::{Host, OperationKind, Phase, State};
use crate::survive;

/// What a host's services need before it can rest; the rest itself once they need nothing more.
pub fn maintenance(state: &State, now: Timestamp) -> Vec<Command> {
    let prepared = state.hosts.iter().filter(|(_, host)| host.is_in_maintenance() && host.works());
    prepared.flat_map(|(id, host)| prepare(state, id, host, now)).collect()
}

fn prepare(state: &State, id: &HostId, host: &Host, now: Timestamp) -> Vec<Command> {
    if brake(state).is_some() {
        return Vec::new();
    }
    let here = services_on(state, id);
    let mut commands = Vec::new();
    for name in &here {
        let begun = |c: &Command| matches!(&c.what, What::StartOperation { service, .. } if state.root(service) == state.root(name));
        if state.holder(name).is_some() || commands.iter().any(begun) {
            continue;
        }
        let Some(kind) = moved(state, name, id, now) else { continue };
        let seen = Some(state.fence(name));
        commands.push(Command::internal(What::StartOperation { service: (*name).clone(), kind, seen }));
    }
    if commands.is_empty() && waits(state, id, host.outage_accepted, now).is_empty() {
        let seen = here.iter().map(|name| state.fence(name)).max().unwrap_or(LogIndex(0));
        commands.push(Command::internal(What::RestHost { host: id.clone(), seen }));
    }
    commands
}

/// Services with members on the host, children among them.
fn services_on<'a>(state: &'a State, id: &'a HostId) -> Vec<&'a Name> {
    let mut names: Vec<&Name> = state.members_on(id).map(|(_, member)| &member.slot.service).collect();
    names.sort();
    names.dedup();
    names
}

/// The next thing of a service that leaves the host: a leading role, or a member that it cannot do without.
fn moved(state: &State, name: &Name, id: &HostId, now: Timestamp) -> Option<OperationKind> {
    let here: Vec<u32> = state
        .members_of(name)
        .into_iter()
        .filter(|(_, (_, m))| m.host == *id)
        .map(|(slot, _)| slot)
        .collect();
    let wanted = here.iter().find_map(|slot| {
        let goes = || {
            can_go(state, name, id, now)
                .then_some(OperationKind::Replace { slot: *slot, confirm_lost: false })
        };
        drain::role(state, name, *slot, &here, now).or_else(goes)
    })?;
    (!drain::failed_lately(state, name, &wanted, now)).then_some(wanted)
}

/// The service would stop without its members here, which keep nothing and have room elsewhere.
fn can_go(state: &State, name: &Name, id: &HostId, now: Timestamp) -> bool {
    let keeps =
        state.services.get(name).and_then(|row| layout_of(name, row)).is_none_or(|layout| layout.has_data);
    let mut here = state.members_of(name).into_iter().filter(|(_, (_, m))| m.host == *id);
    !keeps
        && stops(state, name, id, now).is_some()
        && here.any(|(slot, _)| drain::stays(state, name, slot, id, now).is_none())
}

/// Why the service stops without this host.
fn stops(state: &State, name: &Name, id: &HostId, now: Timestamp) -> Option<String> {
    let mut result = survive::of_service(state, name, now, FailureDomain::Host)?;
    result.stops_writes.remove(id).or_else(|| result.stops_reads.remove(id))
}

/// What keeps the members of a host from being stopped now, one sentence each; nothing if they may be.
#[must_use]
pub fn waits(state: &State, id: &HostId, outage: bool, now: Timestamp) -> Vec<String> {
    let leaving = state.members_on(id).filter(|(_, member)| member.phase != Phase::Active);
    let mut why: Vec<String> = leaving.map(|(_, member)| format!("{} leaves", member.slot)).collect();
    why.extend(services_on(state, id).into_iter().filter_map(|name| waits_for(state, name, id, outage, now)));
    why
}

fn waits_for(state: &State, name: &Name, id: &HostId, outage: bool, now: Timestamp) -> Option<String> {
    if let Some((operation, row)) = state.holder(name) {
        return Some(format!("{name}: operation {operation} ({}) of {} runs", row.kind.name(), row.service));
    }
    let (kind, facts) = (kind_of(state.services.get(name)?)?, service_facts(state, name, now)?);
    if let Some(why) = stops(state, name, id, now) {
        return (!outage).then_some(why);
    }
    let here: Vec<&MemberFacts> = facts.members.iter().filter(|member| member.host == *id).collect();
    if here.is_empty() || kind.beside_owner() {
        return None;
    }
    let leads = |member: &&&MemberFacts| !kind.elects_by_itself() && kind.leads(&facts, member.slot);
    if let Some(leader) = here.iter().find(leads) {
        return Some(format!("{name}/{} leads", leader.slot));
    }
    behind(&facts, id).or_else(|| may_not_stop(kind, &facts, &here))
}

/// A member elsewhere that does not carry the service now.
fn behind(facts: &ServiceFacts<'_>, id: &HostId) -> Option<String> {
    let carries =
        |member: &&MemberFacts| member.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up);
    let other = facts.members.iter().filter(|member| member.host != *id).find(|member| !carries(member))?;
    Some(format!("{}/{} on {} has not caught up", facts.name, other.slot, other.host_name))
}

/// The kind's own guard, which judges the others as they are.
fn may_not_stop(kind: &dyn Kind, facts: &ServiceFacts<'_>, here: &[&MemberFacts]) -> Option<String> {
    here.iter().find_map(|member| {
        let why = kind.may_stop(facts, member.member).err()?;
        Some(format!("{}/{}: {}", facts.name, member.slot, why.0))
    })
}

/// Its agent stands by it that nothing of the platform runs on it, or it is away with everything on it.
#[must_use]
pub fn rests(state: &State, id: &HostId) -> bool {
    let rests =
        |host: &Host| host.resting && (!host.is_up() || state.members_on(id).all(|(_, m)| m.is_at_rest()));
    state.hosts.get(id).is_some_and(rests)
}

/// Why maintenance of this host is refused at once, with everything that would stop.
#[must_use]
pub fn refusal(
    state: &State,
    id: &HostId,
    outage: bool,
    coordinators: &[CoordinatorView],
    now: Timestamp,
) -> Option<String> {
    let host = state.hosts.get(id)?;
    if !host.is_up() {
        return Some(format!("host {} is down: nothing can be stopped on it in order", host.name));
    }
    let away =
        state.hosts.iter().find(|(other, row)| *other != id && (row.is_in_maintenance() || !row.is_up()));
    if let Some((_, other)) = away {
        let how = if other.is_up() { "is in maintenance" } else { "is down" };
        return Some(format!("host {} {how}: one at a time", other.name));
    }
    let stopped = |name: &&Name| {
        !can_go(state, name, id, now) && state.services.get(*name).is_some_and(|s| s.removing.is_none())
    };
    let mut lines: Vec<String> = services_on(state, id)
        .into_iter()
        .filter(stopped)
        .filter_map(|name| stops(state, name, id, now))
        .collect();
    let about_it = format!("losing host {} ", host.name);
    lines.extend(
        survive::coordinator_lines(state, coordinators)
            .into_iter()
            .filter(|line| line.starts_with(&about_it)),
    );
    lines.dedup();
    if outage || lines.is_empty() {
        return None;
    }
    Some(format!("without host {} this stops:\n  {}", host.name, lines.join("\n  ")))
}
