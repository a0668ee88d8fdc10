//! What decisions read: State seen through one service, its members and its kind. Decides nothing.

use std::collections::BTreeMap;

use crate::kinds::tls::{self, Tls};
use crate::kinds::{self, Kind, Layout, MemberFacts, Peer, ServiceFacts, rotate};
use crate::state::{Member, OperationKind, Phase, Service, State};
use muster_model::ids::{MemberId, Name, Revision};
use muster_model::time::{Millis, Timestamp};
use muster_model::view::Scheduling;

/// Window in which several hosts going down count as one event.
const BRAKE_WINDOW: Millis = Millis::seconds(60);

/// Kind of a service. Absent only if this version does not know it (an older coordinator after a downgrade).
#[must_use]
pub fn kind_of(service: &Service) -> Option<&'static dyn Kind> {
    kinds::kind(service.spec.kind.as_str())
}

/// What a service's members need.
#[must_use]
pub fn layout_of(name: &Name, service: &Service) -> Option<Layout> {
    Some(kind_of(service)?.layout(name, &service.spec))
}

/// A service as decisions see it.
#[must_use]
pub fn service_facts<'a>(state: &'a State, name: &'a Name, now: Timestamp) -> Option<ServiceFacts<'a>> {
    let service = state.services.get(name)?;
    let layout = layout_of(name, service)?;
    let members = state.members_of(name);
    let children = state.children(name).filter_map(|(child, row)| {
        let role = row.parent.as_ref()?.role.clone();
        Some((role, service_facts(state, child, now)?))
    });
    let owner = service.parent.as_ref().map(|parent| state.members_of(&parent.owner)).unwrap_or_default();
    Some(ServiceFacts {
        name,
        spec: &service.spec,
        revision: service.revision,
        slots: layout.slots,
        members: members.values().map(|(id, member)| member_facts(state, *id, member, now)).collect(),
        children: children.collect(),
        owner_members: owner.values().map(|(id, member)| member_facts(state, *id, member, now)).collect(),
        formed: service.formed,
        records: &service.records,
        secrets: &state.secrets,
        hosts_up: state.hosts.values().filter(|host| host.works()).count(),
        now,
    })
}

fn member_facts(state: &State, id: MemberId, member: &Member, now: Timestamp) -> MemberFacts {
    let host = state.hosts.get(&member.host);
    let host_up = host.is_some_and(|host| host.works());
    MemberFacts {
        slot: member.slot.index,
        member: id,
        host: member.host.clone(),
        host_name: host.map_or_else(|| member.slot.service.clone(), |host| host.name.clone()),
        host_up,
        host_since: host.map_or(now, |host| host.since),
        scheduling: host.map_or(Scheduling::Open, |host| host.scheduling),
        addresses: member.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
        joins_existing: member.joins_existing,
        seen_since: member.observed_at,
        started: member.started,
        revision: member.rendering.as_ref().map_or(Revision(0), |r| r.revision),
        current: member.pending.is_none() && member.rendering.is_some(),
        variant: variant(state, member),
        seen: member.seen().filter(|_| host_up).cloned(),
        stopped: host_up && member.is_halted(),
        missing: host_up && member.is_missing(),
        kept: host_up && member.is_kept(),
    }
}

fn variant(state: &State, member: &Member) -> String {
    let kind = state.services.get(&member.slot.service).and_then(kind_of);
    let rendering = member.rendering.as_ref();
    kind.zip(rendering).map(|(kind, rendering)| kind.variant(&rendering.rendered)).unwrap_or_default()
}

/// Placed members of a service as their peers see them.
#[must_use]
pub fn peers_of(state: &State, service: &Name) -> Vec<Peer> {
    state.members_of(service).values().filter_map(|(id, member)| peer(state, *id, member)).collect()
}

/// A member as its peers see it; absent if its host is not known.
#[must_use]
pub fn peer(state: &State, id: MemberId, member: &Member) -> Option<Peer> {
    Some(Peer {
        slot: member.slot.index,
        member: id,
        host: state.hosts.get(&member.host)?.name.clone(),
        addresses: member.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
        tls: member.rendering.as_ref().is_some_and(|r| r.rendered.files.iter().any(|f| f.path == tls::FILE)),
    })
}

/// Placed members of a service's children, by role.
#[must_use]
pub fn child_peers(state: &State, service: &Name) -> BTreeMap<Name, Vec<Peer>> {
    state
        .children(service)
        .filter_map(|(name, row)| Some((row.parent.as_ref()?.role.clone(), peers_of(state, name))))
        .collect()
}

/// Secrets that must exist and do not: the coordinator makes them.
#[must_use]
pub fn needed_secrets(state: &State) -> Vec<String> {
    let wanted = state.services.iter().filter(|(_, service)| service.removing.is_none());
    let mut names: Vec<String> =
        wanted.flat_map(|(name, service)| missing_secrets(state, name, service)).collect();
    names.extend(state.operations.values().filter(|op| op.outcome.is_none()).flat_map(|operation| {
        let OperationKind::Procedure(procedure) = &operation.kind else { return Vec::new() };
        rotate::to_make(procedure, &state.secrets)
    }));
    names.sort();
    names.dedup();
    names
}

fn missing_secrets(state: &State, name: &Name, service: &Service) -> impl Iterator<Item = String> {
    let kind = kind_of(service);
    let needs = kind.map(|kind| kind.secrets(name, &service.spec)).unwrap_or_default();
    let shown = kind.filter(|kind| kind.tls(&service.spec) != Tls::None).map(|_| tls::secret(name));
    let names = needs.into_iter().map(|need| need.name).chain(shown);
    names.filter(|name| !state.secrets.contains_key(name))
}

/// Whether the secrets of a service's family, and of what it uses, exist.
#[must_use]
pub fn has_secrets(state: &State, name: &Name) -> bool {
    let has = |name: &Name, service: &Service| missing_secrets(state, name, service).next().is_none();
    let uses = state.services.get(name).and_then(|s| Some(kind_of(s)?.uses(&s.spec))).unwrap_or_default();
    state.family(name).all(|(name, service)| has(name, service))
        && uses.iter().all(|used| state.services.get(used).is_none_or(|service| has(used, service)))
}

/// Why nothing is retired or replaced now: too many hosts went down at about the same time.
#[must_use]
pub fn brake(state: &State) -> Option<String> {
    let allowed = (state.hosts.len() / 3).max(1);
    let mut down: Vec<Timestamp> = state
        .hosts
        .values()
        .filter(|host| !host.is_up() && host.boot.is_some() && !host.resting)
        .map(|host| host.since)
        .filter(|since| state.brake_released.is_none_or(|released| *since > released))
        .collect();
    down.sort();
    let together =
        |first: &Timestamp| down.iter().filter(|t| **t >= *first && t.since(*first) <= BRAKE_WINDOW).count();
    let most = down.iter().map(together).max().unwrap_or(0);
    (most > allowed).then(|| {
        format!("{most} hosts went down within a minute: nothing is retired or replaced until they return")
    })
}

/// Whether a slot is free to be filled: exclusive members only after the confirmed stop of the one before, or after an
/// operator's word that it never comes back.
#[must_use]
pub fn slot_is_clear(state: &State, service: &Name, slot: u32, layout: &Layout) -> bool {
    let mut in_slot = state.members.values().filter(|m| m.is_of(service) && m.slot.index == slot);
    in_slot.all(|m| match m.phase {
        Phase::Active => false,
        Phase::Retiring { lost, .. } => lost || !layout.exclusive,
    })
}
