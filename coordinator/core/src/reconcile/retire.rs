//! Takes members away: of removed services, of surplus slots, and those lost with their host.

use muster_model::ids::{MemberId, Name};
use muster_model::time::{Millis, Timestamp};

use super::fenced;
use crate::command::{Act, Command, What};
use crate::facts::{brake, kind_of, layout_of, service_facts};
use crate::kinds::{ChildOrder, Layout, REPLACE_DATA_AFTER, Wait};
use crate::scheduler::{beside, choose};
use crate::state::{Member, OperationKind, Service, State};

/// At most one command per service.
pub fn retire(state: &State, now: Timestamp) -> Vec<Command> {
    let mut commands = Vec::new();
    for (name, service) in &state.services {
        let calm = brake(state).is_none() && state.holder(name).is_none();
        if service.removing.is_none()
            && calm
            && let Some(switch) = surplus_leads(state, name, service, now)
        {
            commands.push(switch);
            continue;
        }
        let acts = match service.removing {
            Some(removal) => removed(state, name, service, removal.destroy),
            None if !calm => Vec::new(),
            None => surplus(state, name, service, now)
                .or_else(|| lost(state, name, service, now))
                .or_else(|| astray(state, name, service))
                .into_iter()
                .collect(),
        };
        commands.extend(fenced(state, name, acts));
    }
    commands
}

/// Safety of this order: what connects to a service goes before it, so that nothing is left behind half alive.
fn removed(state: &State, name: &Name, service: &Service, destroy: bool) -> Vec<Act> {
    let busy = |wanted: ChildOrder, owner: &Name| {
        state.children(owner).any(|(child, row)| {
            row.parent.as_ref().is_some_and(|p| p.order == wanted)
                && state.members.values().any(|m| m.is_of(child))
        })
    };
    let first = match &service.parent {
        Some(parent) if parent.order == ChildOrder::BeforeOwner => {
            let owner_leaves =
                state.services.get(&parent.owner).is_some_and(|owner| owner.removing.is_some());
            owner_leaves && state.members.values().any(|m| m.is_of(&parent.owner))
        }
        Some(_) => false,
        None => busy(ChildOrder::AfterOwner, name),
    };
    if first {
        return Vec::new();
    }
    let members = state.members_of(name);
    if members.is_empty() {
        let any_left = state.members.values().any(|m| m.is_of(name)) || state.children(name).next().is_some();
        return if any_left { Vec::new() } else { vec![Act::Forget] };
    }
    let retire = |member: &MemberId| Act::Retire {
        member: *member,
        why: "the service is removed".to_owned(),
        destroy,
        lost: false,
    };
    members.values().map(|(id, _)| retire(id)).collect()
}

/// The member in the highest slot that is no longer wanted.
pub fn surplus_member(state: &State, name: &Name) -> Option<(u32, MemberId)> {
    let wanted = layout_of(name, state.services.get(name)?)?.indexes();
    let surplus = state.members_of(name).into_iter().rfind(|(slot, _)| !wanted.contains(slot));
    surplus.map(|(slot, (member, _))| (slot, member))
}

/// Why it stays for now.
pub fn surplus_waits(state: &State, name: &Name, now: Timestamp) -> Option<String> {
    let (slot, member) = surplus_member(state, name)?;
    let facts = service_facts(state, name, now)?;
    let why = kind_of(state.services.get(name)?)?.may_retire(&facts, member).err();
    Some(match why {
        Some(Wait(why)) => format!("{name}/{slot} is no longer wanted, but stays: {why}"),
        None => format!("{name}/{slot} is no longer wanted and leaves"),
    })
}

/// It goes, if it may.
fn surplus(state: &State, name: &Name, service: &Service, now: Timestamp) -> Option<Act> {
    let (_, member) = surplus_member(state, name)?;
    let facts = service_facts(state, name, now)?;
    kind_of(service)?.may_retire(&facts, member).ok()?;
    let slots = layout_of(name, service)?.slots;
    Some(Act::Retire {
        member,
        why: format!("the service has {slots} slots now"),
        destroy: false,
        lost: false,
    })
}

/// It leads: its role moves to a slot that stays, as an operation of its own.
fn surplus_leads(state: &State, name: &Name, service: &Service, now: Timestamp) -> Option<Command> {
    let (slot, _) = surplus_member(state, name)?;
    let (facts, kind) = (service_facts(state, name, now)?, kind_of(service)?);
    if !kind.leads(&facts, slot) {
        return None;
    }
    // With several leaders, another slot's rise takes nothing away from this one: only its own heir does.
    let several = facts.members.iter().filter(|m| kind.leads(&facts, m.slot)).count() > 1;
    let wanted = layout_of(name, service)?.indexes();
    let others = if several { Vec::new() } else { wanted.clone() };
    // One that leaves, too, would gain nothing by it; and a hash slot of Redis that is on its way at that moment is nobody's then.
    let mut heirs = kind.heir(&facts, slot).into_iter().chain(others).filter(|to| wanted.contains(to));
    let heir = heirs.find(|to| kind.switchover(&facts, Some(*to)).is_ok())?;
    let kind = OperationKind::Switchover { to: Some(heir) };
    let seen = Some(state.fence(name));
    Some(Command::internal(What::StartOperation { service: name.clone(), kind, seen }))
}

/// The first member that was lost with its host and may be replaced.
fn lost(state: &State, name: &Name, service: &Service, now: Timestamp) -> Option<Act> {
    let layout = layout_of(name, service)?;
    let members = state.members_of(name);
    let (member, row) = members
        .values()
        .find(|(id, row)| may_replace(state, name, service, &layout, *id, row, now).is_ok())?;
    let why = format!("host {} is down, it is replaced", state.host_name(&row.host));
    Some(Act::Retire { member: *member, why, destroy: false, lost: false })
}

/// The first member that could be beside its owner's member and is not, because that one came after it or moved; or whose
/// service has other networks than it has. Only of what keeps nothing and nobody depends on.
fn astray(state: &State, name: &Name, service: &Service) -> Option<Act> {
    kind_of(service).filter(|kind| kind.beside_owner())?;
    let layout = layout_of(name, service)?;
    let why = |slot: u32, row: &Member| {
        if !row.addresses.iter().map(|address| &address.network).eq(&layout.networks) {
            return Some("its service has other networks now".to_owned());
        }
        let best = beside(state, service, slot).filter(|best| **best != row.host)?;
        let choice = choose(state, name, &layout, slot).ok()?;
        let host = state.host_name(best);
        (choice.host == *best).then(|| format!("it moves to {host}, beside the member that it is for"))
    };
    let members = state.members_of(name);
    let found = members.iter().find_map(|(slot, (member, row))| Some((*member, why(*slot, row)?)));
    found.map(|(member, why)| Act::Retire { member, why, destroy: false, lost: false })
}

/// Why a member whose host is down is not replaced.
///
/// Unreachable is not stopped: an exclusive member is never replaced on suspicion, however long its host is silent.
fn may_replace(
    state: &State,
    name: &Name,
    service: &Service,
    layout: &Layout,
    id: MemberId,
    row: &Member,
    now: Timestamp,
) -> Result<(), Wait> {
    let wait = |why: &str| Err(Wait(why.to_owned()));
    let Some(host) = state.hosts.get(&row.host).filter(|host| !host.is_up()) else {
        return wait("its host is up");
    };
    if host.is_in_maintenance() {
        return wait("its host is in maintenance");
    }
    if host.boot.is_none() && host.inventory.is_some() {
        return wait("the control plane was rebuilt, and its host has not joined it yet: it may run");
    }
    if layout.exclusive {
        return wait("it may run in one place only, and its stop is not confirmed");
    }
    let default = if layout.has_data { REPLACE_DATA_AFTER } else { Millis(0) };
    let after = service.spec.replace_after.map_or(default, |span| span.0);
    if now.since(host.since) < after {
        return wait("its host may return");
    }
    if layout.has_data && !service.formed {
        return wait("the service is not formed yet");
    }
    if choose(state, name, layout, row.slot.index).is_err() {
        return wait("no other host fits");
    }
    let facts = service_facts(state, name, now).zip(kind_of(service));
    let Some((facts, kind)) = facts else { return wait("this version does not know its kind") };
    kind.may_replace(&facts, id)
}
