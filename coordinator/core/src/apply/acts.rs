//! Steps on services: all of a command or none.

use std::sync::Arc;

use ipnet::Ipv4Net;
use muster_model::ids::{HostId, MemberId, Name, OperationId, Slot};
use muster_model::plan::Attachment;
use muster_model::spec::ServiceSpec;

use super::{event, platform, security, unfit, unknown};
use crate::command::{Act, LogMeta, NewBlock, Rejected};
use crate::state::{
    Block, Member, Phase, RECORD_LEN_MAX, RECORDS_MAX, Removal, Rendering, Service, ServiceParent, State,
};

/// Most services, and most members, of a platform.
const SERVICES_MAX: usize = 500;
const MEMBERS_MAX: usize = 5_000;

/// Applies the steps in order. Works on a copy, so that a refused step undoes the ones before it.
pub fn all(state: &mut State, acts: &[(Name, Vec<Act>)], meta: LogMeta) -> Result<(), Rejected> {
    let mut next = state.clone();
    for (name, acts) in acts {
        for act in acts {
            one(&mut next, name, act, meta)?;
        }
        if let Some(service) = next.services.get_mut(name) {
            service.version = meta.index;
        }
    }
    *state = next;
    Ok(())
}

fn one(state: &mut State, name: &Name, act: &Act, meta: LogMeta) -> Result<(), Rejected> {
    match act {
        Act::Create { spec, parent, internal } => create(state, name, spec, parent.as_ref(), *internal, meta),
        Act::SetSpec { spec } => {
            platform::set_spec(service(state, name)?, spec, meta.index);
            Ok(())
        }
        Act::MarkRemoved { destroy } => {
            service(state, name)?.removing = Some(Removal { destroy: *destroy });
            Ok(())
        }
        Act::Forget => forget(state, name, meta),
        Act::Place { slot, member, host, addresses, blocks, joins_existing } => {
            let slot = Slot { service: name.clone(), index: *slot };
            take_blocks(state, host, blocks)?;
            place(state, slot, *member, host, addresses, *joins_existing, meta)
        }
        Act::Render { member, rendering } => render(state, name, *member, rendering),
        Act::Pend { member, rendering } => {
            self::member(state, name, *member)?.pending.clone_from(rendering);
            Ok(())
        }
        Act::Adopt { member } => adopt(state, name, *member, meta),
        Act::Start { member } => {
            let row = self::member(state, name, *member)?;
            if row.rendering.is_none() {
                return Err(unfit(format!("{} is not rendered", row.slot)));
            }
            row.started = true;
            row.parked = false;
            row.told = None;
            let about = row.slot.to_string();
            event(state, meta, &about, "start");
            Ok(())
        }
        Act::Stop { member } => {
            let row = self::member(state, name, *member)?;
            row.started = false;
            row.parked = true;
            row.told = None;
            let about = row.slot.to_string();
            event(state, meta, &about, "stop");
            Ok(())
        }
        Act::Restart { member } => {
            let row = self::member(state, name, *member)?;
            row.restarts += 1;
            row.told = None;
            let about = row.slot.to_string();
            event(state, meta, &about, "restart asked for");
            Ok(())
        }
        Act::Retire { member, why, destroy, lost } => {
            retire(state, name, *member, why, (*destroy, *lost), meta)
        }
        Act::Formed => {
            service(state, name)?.formed = true;
            event(state, meta, name.as_str(), "formed: nothing will initialise it a second time");
            Ok(())
        }
        Act::Record { key, value } => record(service(state, name)?, key, value),
        Act::PromoteSecrets { names } => {
            names.iter().try_for_each(|secret| security::promote_secret(state, name, secret, meta))
        }
        Act::ForgetPrevious { names } => {
            names.iter().for_each(|secret| security::forget_previous(state, secret));
            Ok(())
        }
        Act::HasData { member } => {
            self::member(state, name, *member)?.has_data = true;
            Ok(())
        }
        Act::Hold { revision } => {
            service(state, name)?.held = *revision;
            Ok(())
        }
        Act::GoBack => go_back(state, name, meta),
    }
}

fn service<'a>(state: &'a mut State, name: &Name) -> Result<&'a mut Service, Rejected> {
    state.services.get_mut(name).ok_or_else(|| unknown("service", name))
}

fn member<'a>(state: &'a mut State, name: &Name, id: MemberId) -> Result<&'a mut Member, Rejected> {
    let row = state.members.get_mut(&id).filter(|m| m.is_of(name) && m.phase == Phase::Active);
    row.ok_or_else(|| unknown("member", id))
}

fn record(service: &mut Service, key: &str, value: &str) -> Result<(), Rejected> {
    let full = service.records.len() >= RECORDS_MAX && !service.records.contains_key(key);
    if full || key.len() > RECORD_LEN_MAX || value.len() > RECORD_LEN_MAX {
        return Err(unfit(format!("`{key}` is too long, or one record too many")));
    }
    service.records.insert(key.to_owned(), value.to_owned());
    Ok(())
}

fn create(
    state: &mut State,
    name: &Name,
    spec: &Arc<ServiceSpec>,
    parent: Option<&ServiceParent>,
    internal: Option<OperationId>,
    meta: LogMeta,
) -> Result<(), Rejected> {
    if state.services.contains_key(name) {
        return Err(Rejected::Exists { what: "service".to_owned(), name: name.to_string() });
    }
    if state.services.len() >= SERVICES_MAX {
        return Err(unfit(format!("a platform has at most {SERVICES_MAX} services")));
    }
    let mut row = platform::new_service(Arc::clone(spec), meta.index);
    row.parent = parent.cloned();
    row.internal = internal;
    state.services.insert(name.clone(), row);
    Ok(())
}

fn forget(state: &mut State, name: &Name, meta: LogMeta) -> Result<(), Rejected> {
    if state.members.values().any(|m| m.is_of(name)) {
        return Err(unfit(format!("service `{name}` still has members")));
    }
    let row = state.services.remove(name).ok_or_else(|| unknown("service", name))?;
    if row.internal.is_none() {
        event(state, meta, name.as_str(), "removed");
    }
    Ok(())
}

fn take_blocks(state: &mut State, host: &HostId, blocks: &[NewBlock]) -> Result<(), Rejected> {
    for block in blocks {
        let rows = state.blocks.entry(block.network.clone()).or_default();
        let overlaps = |net: &Ipv4Net| net.contains(&block.net) || block.net.contains(net);
        if rows.keys().any(overlaps) {
            return Err(unfit(format!("block {} of {} is taken", block.net, block.network)));
        }
        let first = !rows.values().any(|b| b.host == *host);
        rows.insert(block.net, Block { host: host.clone(), first });
    }
    Ok(())
}

fn place(
    state: &mut State,
    slot: Slot,
    id: MemberId,
    host: &HostId,
    addresses: &[Attachment],
    joins_existing: bool,
    meta: LogMeta,
) -> Result<(), Rejected> {
    if id != state.next_member {
        return Err(unfit(format!("the next member is {}, not {id}", state.next_member)));
    }
    if state.members.len() >= MEMBERS_MAX {
        return Err(unfit(format!("a platform has at most {MEMBERS_MAX} members")));
    }
    let row = state.hosts.get(host).ok_or_else(|| unknown("host", host))?;
    if !row.is_up() {
        return Err(unfit(format!("host {} is down", row.name)));
    }
    let host_name = row.name.to_string();
    if state.members.values().any(|m| m.slot == slot && m.phase == Phase::Active) {
        return Err(unfit(format!("{slot} is taken")));
    }
    for new in addresses {
        let owned = |net: &Ipv4Net| net.contains(&new.address);
        if !state.blocks_of(&new.network, host).iter().any(owned) {
            return Err(unfit(format!("{} is in no block of host {host_name}", new.address)));
        }
        if state.members.values().flat_map(|m| &m.addresses).any(|a| a == new) {
            return Err(unfit(format!("{} is taken", new.address)));
        }
    }
    let about = slot.to_string();
    let member = Member {
        slot,
        host: host.clone(),
        addresses: addresses.to_vec(),
        joins_existing,
        phase: Phase::Active,
        rendering: None,
        pending: None,
        started: false,
        parked: false,
        restarts: 0,
        has_data: false,
        observed: None,
        observed_at: meta.at,
        seen_under: 0,
        told: None,
        placed_at: meta.at,
    };
    state.members.insert(id, member);
    state.next_member = id.next();
    event(state, meta, &about, format!("member {id} placed on {host_name}"));
    Ok(())
}

fn render(state: &mut State, name: &Name, id: MemberId, rendering: &Rendering) -> Result<(), Rejected> {
    let row = member(state, name, id)?;
    let present = row.rendering.as_ref().filter(|_| row.started);
    if present.is_some_and(|p| p.container_hash != rendering.container_hash) {
        return Err(unfit(format!("{} runs: a new container needs its turn", row.slot)));
    }
    if row.pending.as_ref().is_some_and(|p| p.inputs == rendering.inputs) {
        row.pending = None;
    }
    if row.rendering.as_ref().is_none_or(|p| p.container_hash != rendering.container_hash) {
        row.told = None;
    }
    row.rendering = Some(rendering.clone());
    Ok(())
}

fn adopt(state: &mut State, name: &Name, id: MemberId, meta: LogMeta) -> Result<(), Rejected> {
    let row = member(state, name, id)?;
    let pending = row.pending.take().ok_or_else(|| unfit(format!("{} has nothing new", row.slot)))?;
    let text = format!("re-created at revision {}", pending.revision);
    row.rendering = Some(pending);
    row.told = None;
    let about = row.slot.to_string();
    event(state, meta, &about, text);
    Ok(())
}

fn retire(
    state: &mut State,
    name: &Name,
    id: MemberId,
    why: &str,
    (destroy, lost): (bool, bool),
    meta: LogMeta,
) -> Result<(), Rejected> {
    let row = member(state, name, id)?;
    row.phase = Phase::Retiring { since: meta.at, destroy, dropped_at: None, lost };
    row.pending = None;
    let about = row.slot.to_string();
    event(state, meta, &about, format!("member {id} is retired: {why}"));
    Ok(())
}

/// Safety of this order: the platform's spec changes with the service, so that the next `plan` shows the difference
/// to the operator's file instead of hiding it.
fn go_back(state: &mut State, name: &Name, meta: LogMeta) -> Result<(), Rejected> {
    let row = service(state, name)?;
    let (_, spec) =
        row.previous.last_key_value().ok_or_else(|| unfit(format!("`{name}` has no earlier revision")))?;
    let spec = Arc::clone(spec);
    platform::set_spec(row, &spec, meta.index);
    let revision = row.revision;
    row.rolled_back = Some(revision);
    if let Some(platform) = &mut state.platform {
        let mut whole = (*platform.spec).clone();
        if let Some(written) = whole.services.get_mut(name) {
            *written = (*spec).clone();
            platform.spec = Arc::new(whole);
            platform.spec_index = meta.index;
        }
    }
    event(state, meta, name.as_str(), format!("went back to the previous spec, as revision {revision}"));
    Ok(())
}
