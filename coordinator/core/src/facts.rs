//! What decisions read: State seen through one service, its members and its kind. Decides nothing.

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name, Revision};
use muster_model::plan::hash_of;
use muster_model::spec::ServiceSpec;
use muster_model::time::{Millis, Timestamp};
use serde::Serialize;

use crate::kinds::{self, Kind, Layout, MemberFacts, Peer, RenderContext, ServiceFacts, Used};
use crate::state::{Member, Phase, Rendering, Service, State};

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
    Some(ServiceFacts {
        name,
        spec: &service.spec,
        revision: service.revision,
        slots: layout.slots,
        members: members.values().map(|(id, member)| member_facts(state, *id, member)).collect(),
        children: children.collect(),
        formed: service.formed,
        hosts_up: state.hosts.values().filter(|host| host.is_up()).count(),
        now,
    })
}

fn member_facts(state: &State, id: MemberId, member: &Member) -> MemberFacts {
    let host = state.hosts.get(&member.host);
    let host_up = host.is_some_and(|host| host.is_up());
    MemberFacts {
        slot: member.slot.index,
        member: id,
        host: member.host.clone(),
        host_name: host.map_or_else(|| member.slot.service.clone(), |host| host.name.clone()),
        host_up,
        started: member.started,
        revision: member.rendering.as_ref().map_or(Revision(0), |r| r.revision),
        current: member.pending.is_none() && member.rendering.is_some(),
        seen: member.seen().filter(|_| host_up).cloned(),
    }
}

/// Placed members of a service as their peers see them.
#[must_use]
pub fn peers_of(state: &State, service: &Name) -> Vec<Peer> {
    state.members_of(service).values().filter_map(|(id, member)| peer(state, *id, member)).collect()
}

fn peer(state: &State, id: MemberId, member: &Member) -> Option<Peer> {
    Some(Peer {
        slot: member.slot.index,
        member: id,
        host: state.hosts.get(&member.host)?.name.clone(),
        addresses: member.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
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

/// Spec, members and children's members of a service that another one connects to.
type UsedInputs<'a> = (&'a ServiceSpec, &'a [Peer], &'a BTreeMap<Name, Vec<Peer>>);

/// Everything that a member is rendered from, hashed: the same inputs are never rendered a second time.
#[derive(Serialize)]
struct Inputs<'a> {
    platform_id: &'a str,
    networks: BTreeMap<&'a Name, Option<muster_model::spec::NetworkSpec>>,
    mtu: u16,
    service: &'a Name,
    spec: &'a ServiceSpec,
    me: &'a Peer,
    peers: &'a [Peer],
    children: &'a BTreeMap<Name, Vec<Peer>>,
    owner: Option<(&'a Name, &'a ServiceSpec, &'a [Peer])>,
    uses: BTreeMap<&'a Name, UsedInputs<'a>>,
    joins_existing: bool,
}

/// A member about to be rendered from one revision of its service's spec.
pub struct Draft<'a> {
    state: &'a State,
    service: &'a Name,
    kind: &'static dyn Kind,
    spec: &'a ServiceSpec,
    revision: Revision,
    me: Peer,
    peers: Vec<Peer>,
    children: BTreeMap<Name, Vec<Peer>>,
    owner: Option<(&'a Name, &'a ServiceSpec, Vec<Peer>)>,
    uses: BTreeMap<Name, Used<'a>>,
    joins_existing: bool,
}

impl<'a> Draft<'a> {
    /// Collects what the member is rendered from; absent if the revision or the host is no longer known.
    #[must_use]
    pub fn new(state: &'a State, id: MemberId, member: &'a Member, revision: Revision) -> Option<Self> {
        let (service, row) = state.services.get_key_value(&member.slot.service)?;
        let spec: &ServiceSpec = row.spec_at(revision)?;
        let kind = kinds::kind(spec.kind.as_str())?;
        let owner = row.parent.as_ref().and_then(|parent| {
            let (name, owner) = state.services.get_key_value(&parent.owner)?;
            Some((name, &*owner.spec, peers_of(state, name)))
        });
        let uses = kind.uses(spec).into_iter().filter_map(|name| {
            let used = state.services.get(&name)?;
            let row =
                Used { spec: &used.spec, peers: peers_of(state, &name), children: child_peers(state, &name) };
            Some((name, row))
        });
        Some(Self {
            state,
            service,
            kind,
            spec,
            revision,
            me: peer(state, id, member)?,
            peers: peers_of(state, service),
            children: child_peers(state, service),
            owner,
            uses: uses.collect(),
            joins_existing: member.joins_existing,
        })
    }

    /// Hash of everything that the result depends on.
    #[must_use]
    pub fn inputs(&self) -> String {
        let Some(platform) = &self.state.platform else { return String::new() };
        let networks = self.kind.layout(self.service, self.spec).networks;
        let known = networks.iter().map(|name| (name, platform.spec.network(name))).collect();
        let uses = self.uses.iter().map(|(name, u)| (name, (u.spec, u.peers.as_slice(), &u.children)));
        hash_of(&Inputs {
            platform_id: &platform.id,
            networks: known,
            mtu: platform.spec.mesh.mtu,
            service: self.service,
            spec: self.spec,
            me: &self.me,
            peers: &self.peers,
            children: &self.children,
            owner: self.owner.as_ref().map(|(name, spec, peers)| (*name, *spec, peers.as_slice())),
            uses: uses.collect(),
            joins_existing: self.joins_existing,
        })
    }

    /// The rendering.
    #[must_use]
    pub fn render(&self, inputs: String) -> Option<Rendering> {
        let platform = self.state.platform.as_ref()?;
        let rendered = self.kind.render(&RenderContext {
            platform_id: &platform.id,
            platform: &platform.spec,
            service: self.service,
            spec: self.spec,
            me: &self.me,
            peers: &self.peers,
            children: &self.children,
            owner: self.owner.as_ref().map(|(name, spec, peers)| (*name, *spec, peers.as_slice())),
            uses: &self.uses,
            joins_existing: self.joins_existing,
        });
        let container_hash = rendered.container_hash();
        Some(Rendering { revision: self.revision, inputs, container_hash, rendered: rendered.into() })
    }
}

/// Secrets that must exist and do not: the coordinator makes them.
#[must_use]
pub fn needed_secrets(state: &State) -> Vec<String> {
    let needs = state.services.iter().filter(|(_, s)| s.removing.is_none()).flat_map(|(name, service)| {
        kind_of(service).map(|kind| kind.secrets(name, &service.spec)).unwrap_or_default()
    });
    let mut names: Vec<String> =
        needs.map(|need| need.name).filter(|name| !state.secrets.contains_key(name)).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether the secrets of a service's family, and of what it uses, exist.
#[must_use]
pub fn has_secrets(state: &State, name: &Name) -> bool {
    let missing = needed_secrets(state);
    let used = state.services.get(name).and_then(|s| Some(kind_of(s)?.uses(&s.spec))).unwrap_or_default();
    let of = |service: &Name| {
        let prefix = format!("{service}/");
        missing.iter().any(|secret| secret.starts_with(&prefix))
    };
    !state.family(name).any(|(member, _)| of(member)) && !used.iter().any(of)
}

/// Why nothing is retired or replaced now: too many hosts went down at about the same time.
#[must_use]
pub fn brake(state: &State) -> Option<String> {
    let allowed = (state.hosts.len() / 3).max(1);
    let mut down: Vec<Timestamp> = state
        .hosts
        .values()
        .filter(|host| !host.is_up() && host.boot.is_some())
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

/// Whether a slot is free to be filled: exclusive members only after the confirmed stop of the one before.
#[must_use]
pub fn slot_is_clear(state: &State, service: &Name, slot: u32, layout: &Layout) -> bool {
    let mut in_slot = state.members.values().filter(|m| m.is_of(service) && m.slot.index == slot);
    in_slot.all(|m| m.phase != Phase::Active && !layout.exclusive)
}
