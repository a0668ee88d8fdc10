//! Commands about hosts.

use std::net::Ipv4Addr;
use std::sync::Arc;

use muster_model::ids::{BootId, HostId, LogIndex, MemberId, Name};
use muster_model::observed::{Condition, HostFacts};
use muster_model::time::Timestamp;
use muster_model::view::Scheduling;

use super::{event, fresh, touch_services_on, unfit, unknown};
use crate::command::{HostRegistration, LogMeta, Rejected};
use crate::holders;
use crate::state::{Host, Liveness, Member, Phase, State};

/// Most hosts of one platform.
const HOSTS_MAX: usize = 256;

pub fn register(state: &mut State, new: &HostRegistration, meta: LogMeta) -> Result<Ipv4Addr, Rejected> {
    if state.hosts.iter().any(|(id, host)| *id != new.id && host.name == new.name) {
        return Err(Rejected::Exists { what: "host".to_owned(), name: new.name.to_string() });
    }
    if let Some(known) = state.hosts.get_mut(&new.id) {
        known.name = new.name.clone();
        known.address = new.address;
        known.zone.clone_from(&new.zone);
        known.labels = new.labels.clone();
        known.key_digest.clone_from(&new.key_digest);
        known.version = meta.index;
        let address = known.mesh_address;
        touch_services_on(state, &new.id, meta.index);
        event(state, meta, new.name.as_str(), format!("joined again at {}", new.address));
        return Ok(address);
    }
    if state.hosts.len() >= HOSTS_MAX {
        return Err(unfit(format!("a platform has at most {HOSTS_MAX} hosts")));
    }
    let mesh_address = free_mesh_address(state)?;
    let host = Host {
        name: new.name.clone(),
        address: new.address,
        zone: new.zone.clone(),
        labels: new.labels.clone(),
        key_digest: new.key_digest.clone(),
        mesh_address,
        liveness: Liveness::Down,
        since: meta.at,
        boot: None,
        scheduling: Scheduling::Open,
        outage_accepted: false,
        resting: false,
        facts: Arc::default(),
        engine: (false, meta.at),
        conditions: Vec::new(),
        plan_counter: 0,
        plan_hash: String::new(),
        inventory: None,
        version: meta.index,
    };
    state.hosts.insert(new.id.clone(), host);
    event(state, meta, new.name.as_str(), format!("joined at {}, mesh address {mesh_address}", new.address));
    Ok(mesh_address)
}

/// What its agent has after a recovery; `None` = all of it is known, and its plans are whole again.
pub fn inventory(
    state: &mut State,
    id: &HostId,
    found: Option<&[String]>,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let host = state.hosts.get_mut(id).ok_or_else(|| unknown("host", id))?;
    if host.inventory.is_none() {
        return Err(unfit(format!("the inventory of host {} was taken already", host.name)));
    }
    host.inventory = found.map(<[String]>::to_vec);
    host.version = meta.index;
    let name = host.name.clone();
    let text = match found {
        None => "its inventory is taken: its plans are whole again".to_owned(),
        Some(found) => format!("found here, not in the spec: {}", found.join(", ")),
    };
    event(state, meta, name.as_str(), text);
    Ok(())
}

fn free_mesh_address(state: &State) -> Result<Ipv4Addr, Rejected> {
    let subnet = state.spec().ok_or(Rejected::NotInitialised)?.mesh.subnet;
    let taken = |address: &Ipv4Addr| state.hosts.values().any(|host| host.mesh_address == *address);
    subnet
        .hosts()
        .take(HOSTS_MAX + 1)
        .find(|address| !taken(address))
        .ok_or_else(|| unfit(format!("the mesh's subnet {subnet} has no address left")))
}

pub fn liveness(
    state: &mut State,
    id: &HostId,
    liveness: Liveness,
    boot: Option<&BootId>,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let host = state.hosts.get_mut(id).ok_or_else(|| unknown("host", id))?;
    if host.liveness == liveness && (boot.is_none() || host.boot.as_ref() == boot) {
        return Ok(());
    }
    let changed = host.liveness != liveness;
    if changed {
        host.liveness = liveness;
        host.since = meta.at;
    }
    let other_boot = boot.is_some() && host.boot.as_ref() != boot;
    if let Some(boot) = boot {
        host.boot = Some(boot.clone());
    }
    host.version = meta.index;
    let name = host.name.to_string();
    // What was seen before belongs to another boot or may be old: nothing is known until the agent reports.
    for member in state.members.values_mut().filter(|m| m.host == *id) {
        member.observed = None;
    }
    touch_services_on(state, id, meta.index);
    let text = match (liveness, other_boot) {
        (Liveness::Down, _) => "down: its agent is silent",
        (Liveness::Up, true) => "up: its agent started",
        (Liveness::Up, false) => "up: its agent beats again",
    };
    event(state, meta, &name, text);
    Ok(())
}

pub fn facts(
    state: &mut State,
    id: &HostId,
    boot: &BootId,
    facts: &Arc<HostFacts>,
    engine: (bool, Timestamp),
    conditions: &[Condition],
    meta: LogMeta,
) -> Result<(), Rejected> {
    let host = state.hosts.get_mut(id).ok_or_else(|| unknown("host", id))?;
    of_present_boot(host, boot)?;
    let was = (host.engine.0, host.conditions.clone());
    host.facts = Arc::clone(facts);
    host.engine = engine;
    host.conditions = conditions.to_vec();
    host.version = meta.index;
    let name = host.name.to_string();
    if was.0 != engine.0 {
        let text = if engine.0 { "the Docker Engine answers" } else { "the Docker Engine does not answer" };
        event(state, meta, &name, text);
    }
    for condition in conditions.iter().filter(|c| !was.1.contains(c)) {
        event(state, meta, &name, format!("{}: {}", condition.code, condition.text));
    }
    Ok(())
}

/// Refuses the word of an agent that has been started again since.
pub fn of_present_boot(host: &Host, boot: &BootId) -> Result<(), Rejected> {
    if host.boot.as_ref() == Some(boot) {
        Ok(())
    } else {
        Err(unfit(format!("host {} is in another boot", host.name)))
    }
}

pub fn scheduling(
    state: &mut State,
    id: &HostId,
    scheduling: Scheduling,
    outage: bool,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let host = state.hosts.get_mut(id).ok_or_else(|| unknown("host", id))?;
    let rested = host.resting && scheduling != Scheduling::Maintenance;
    host.outage_accepted = outage && scheduling == Scheduling::Maintenance;
    if host.scheduling != scheduling {
        host.scheduling = scheduling;
        host.version = meta.index;
        let name = host.name.to_string();
        event(state, meta, &name, format!("scheduling is now {scheduling:?}").to_lowercase());
        touch_services_on(state, id, meta.index);
    }
    if rested {
        set_resting(state, id, false, meta);
    }
    Ok(())
}

/// Every member of a host in maintenance is stopped by its plan.
pub fn rest(state: &mut State, id: &HostId, seen: LogIndex, meta: LogMeta) -> Result<(), Rejected> {
    let host = state.hosts.get(id).ok_or_else(|| unknown("host", id))?;
    if !host.is_in_maintenance() || !host.works() {
        return Err(unfit(format!("host {} is not being prepared for maintenance", host.name)));
    }
    let name = host.name.to_string();
    let services: Vec<Name> = state.members_on(id).map(|(_, m)| m.slot.service.clone()).collect();
    for service in &services {
        fresh(state, service, seen)?;
    }
    set_resting(state, id, true, meta);
    event(state, meta, &name, "its members are stopped for maintenance");
    Ok(())
}

/// Safety: what an agent said of its members before it heard of this confirms nothing.
fn set_resting(state: &mut State, id: &HostId, resting: bool, meta: LogMeta) {
    if let Some(host) = state.hosts.get_mut(id) {
        host.resting = resting;
        host.version = meta.index;
    }
    for member in state.members.values_mut().filter(|m| m.host == *id) {
        member.told = None;
    }
    touch_services_on(state, id, meta.index);
}

/// The host's keys are revoked with its row: an agent that comes back is refused, and so is what it says. Members that
/// were to leave it and whose stop it never confirmed are given up with it; that is the operator's word.
pub fn remove(state: &mut State, id: &HostId, meta: LogMeta) -> Result<(), Rejected> {
    let host = state.hosts.get(id).ok_or_else(|| unknown("host", id))?;
    let (name, up) = (host.name.to_string(), host.is_up());
    let stays = |member: &Member| up || member.phase == Phase::Active;
    let left: Vec<String> =
        state.members_on(id).filter(|(_, m)| stays(m)).map(|(_, m)| m.slot.to_string()).collect();
    if !left.is_empty() {
        return Err(unfit(format!("host {name} still has {}", left.join(", "))));
    }
    for serial in holders::of_host(state, id).unwrap_or_default() {
        super::security::revoke(state, &serial, "its host was removed", meta)?;
    }
    touch_services_on(state, id, meta.index);
    let given_up: Vec<MemberId> = state.members_on(id).map(|(member, _)| member).collect();
    for member in given_up {
        state.members.remove(&member);
    }
    for blocks in state.blocks.values_mut() {
        blocks.retain(|_, block| block.host != *id);
    }
    state.hosts.remove(id);
    event(state, meta, &name, "removed from the platform");
    Ok(())
}

/// The counter of a host's plan grows here and nowhere else, one per published content: two leaders can never send
/// different content under one generation, because only one of their `PublishPlan`s has the next counter.
pub fn publish(
    state: &mut State,
    id: &HostId,
    counter: u64,
    hash: &str,
    (dropped, told): (&[MemberId], &[MemberId]),
) -> Result<(), Rejected> {
    let host = state.hosts.get_mut(id).ok_or_else(|| unknown("host", id))?;
    if counter != host.plan_counter + 1 {
        return Err(unfit(format!("plan {counter} of host {id} does not follow {}", host.plan_counter)));
    }
    host.plan_counter = counter;
    hash.clone_into(&mut host.plan_hash);
    for member in dropped {
        let row = state.members.get_mut(member).filter(|m| m.host == *id);
        if let Some(Phase::Retiring { dropped_at: at @ None, .. }) = row.map(|m| &mut m.phase) {
            *at = Some(counter);
        }
    }
    for member in told {
        // What was changed since this was decided makes the content another one: it is never sent under this counter.
        if let Some(row) = state.members.get_mut(member).filter(|m| m.host == *id) {
            row.told.get_or_insert(counter);
        }
    }
    Ok(())
}
