//! The only way in which State changes. Checks that a command still fits, writes, bumps versions; contains no policy.
//!
//! Safety of rolling a new version out over running coordinators: old and new ones apply the same entries, so nothing
//! here may ask a kind, the scheduler or a reconciler.

mod acts;
mod coordinator;
mod host;
mod observe;
mod operation;
mod platform;
mod security;
mod summary;

use std::sync::Arc;

use muster_model::ids::{HostId, LogIndex, Name};
use muster_model::view::EventView;

use crate::command::{Caller, Command, LogMeta, Rejected, Reply, What};
use crate::state::{EVENTS_KEPT, State};

/// Who acts when nobody asked.
pub const PLATFORM: &str = "muster";

/// Replies kept per client.
const REPLIES_KEPT: usize = 64;
/// Clients remembered.
const CLIENTS_KEPT: usize = 256;
/// Longest `client` text.
const CLIENT_LEN_MAX: usize = 128;

/// Applies one entry. A rejected command has no effect, but for its line in the audit log.
pub fn apply(state: &mut State, command: &Command, meta: LogMeta) -> Result<Reply, Rejected> {
    let meta = LogMeta { index: meta.index, at: state.at.max(meta.at) };
    state.index = meta.index;
    state.at = meta.at;
    if let Some(earlier) = command.caller.as_ref().and_then(|caller| remembered(state, caller)) {
        return Ok(earlier);
    }
    let result = dispatch(state, command, meta);
    if let Some(actor) = &command.actor {
        let ending = result.as_ref().err().map(|why| format!(": refused, {why}")).unwrap_or_default();
        let action = format!("{}{ending}", summary::of(&command.what));
        state.audit.append(meta.index, meta.at, actor, &action);
    }
    if let (Ok(reply), Some(caller)) = (&result, &command.caller) {
        remember(state, caller, reply, meta);
    }
    result
}

fn dispatch(state: &mut State, command: &Command, meta: LogMeta) -> Result<Reply, Rejected> {
    if state.platform.is_none() && !matches!(command.what, What::Init { .. }) {
        return Err(Rejected::NotInitialised);
    }
    let done = Reply { index: meta.index, operation: None, mesh_address: None };
    let actor = command.actor.as_deref().unwrap_or(PLATFORM);
    match &command.what {
        What::Init { id, name } => platform::init(state, id, name, meta)?,
        What::RegisterHost(host) => {
            let mesh_address = host::register(state, host, meta)?;
            return Ok(Reply { mesh_address: Some(mesh_address), ..done });
        }
        What::HostLiveness { host, liveness, boot } => {
            host::liveness(state, host, *liveness, boot.as_ref(), meta)?;
        }
        What::HostFacts { host, boot, facts, engine, conditions } => {
            host::facts(state, host, boot, facts, *engine, conditions, meta)?;
        }
        What::HostInventory { host, found } => host::inventory(state, host, found.as_deref(), meta)?,
        What::SetScheduling { host, scheduling, outage } => {
            host::scheduling(state, host, *scheduling, *outage, meta)?;
        }
        What::RestHost { host, seen } => host::rest(state, host, *seen, meta)?,
        What::RemoveHost { host } => host::remove(state, host, meta)?,
        What::ApplySpec { spec, yaml, at } => platform::apply_spec(state, spec, yaml, *at, meta)?,
        What::Service { service, seen, acts } => {
            fresh(state, service, *seen)?;
            acts::all(state, &[(service.clone(), acts.clone())], meta)?;
        }
        What::Observe(observation) => observe::observe(state, observation, meta)?,
        What::PublishPlan { host, counter, hash, dropped, told } => {
            host::publish(state, host, *counter, hash, (dropped, told))?;
        }
        What::StartOperation { service, kind, seen } => {
            if let Some(seen) = seen {
                fresh(state, service, *seen)?;
            }
            let id = operation::start(state, service, kind, actor, meta)?;
            return Ok(Reply { operation: Some(id), ..done });
        }
        What::Advance(advance) => operation::advance(state, advance, meta)?,
        What::SteerOperation { operation, verb } => operation::steer(state, *operation, *verb, actor, meta)?,
        What::PutSecret { name, sealed, replaces, certificate } => {
            security::put_secret(state, name, sealed, *replaces, certificate.as_ref(), meta)?;
        }
        What::CreateToken { hash, role, expires } => {
            security::create_token(state, hash, *role, *expires, meta)?;
        }
        What::UseToken { hash, role, user } => security::use_token(state, hash, *role, user, meta)?,
        What::RecordCertificate { serial, subject, key_digest, expires } => {
            security::record_certificate(state, serial, subject, key_digest, *expires, meta)?;
        }
        What::RevokeCertificate { serial, why } => security::revoke(state, serial, why, meta)?,
        What::NameCoordinator { node, name } => coordinator::name(state, *node, name),
        What::RemoveCoordinator { node } => coordinator::remove(state, *node, meta)?,
        What::RemoveService { service, destroy } => {
            let id = operation::remove_service(state, service, *destroy, actor, meta)?;
            return Ok(Reply { operation: Some(id), ..done });
        }
        What::ReleaseBrake => {
            state.brake_released = Some(meta.at);
            event(state, meta, "platform", "the brake was released by an operator");
        }
        What::Audit { .. } => {}
    }
    Ok(done)
}

fn remembered(state: &State, caller: &Caller) -> Option<Reply> {
    let row = state.clients.get(&caller.client)?;
    row.replies.iter().find(|(serial, _)| *serial == caller.serial).map(|(_, reply)| reply.clone())
}

fn remember(state: &mut State, caller: &Caller, reply: &Reply, meta: LogMeta) {
    if caller.client.len() > CLIENT_LEN_MAX {
        return;
    }
    if state.clients.len() >= CLIENTS_KEPT && !state.clients.contains_key(&caller.client) {
        let oldest = state.clients.iter().min_by_key(|(name, row)| (row.used, *name));
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            state.clients.remove(&oldest);
        }
    }
    let row = state.clients.entry(caller.client.clone()).or_default();
    row.used = meta.at;
    row.replies.push_back((caller.serial, reply.clone()));
    if row.replies.len() > REPLIES_KEPT {
        row.replies.pop_front();
    }
}

/// Refuses a decision that was taken on an older state of the service's family.
fn fresh(state: &State, service: &Name, seen: LogIndex) -> Result<(), Rejected> {
    let now = state.fence(service);
    if now > seen {
        return Err(Rejected::Stale { about: format!("service {service}"), seen, now });
    }
    Ok(())
}

/// Adds a line to the history.
fn event(state: &mut State, meta: LogMeta, about: &str, text: impl Into<String>) {
    let line = EventView { index: meta.index, at: meta.at, about: about.to_owned(), text: text.into() };
    state.events.push_back(Arc::new(line));
    while state.events.len() > EVENTS_KEPT {
        state.events.pop_front();
    }
}

/// Writes down what happened outside of the log: an event, and a line in the audit log.
pub fn record(state: &mut State, meta: LogMeta, actor: &str, about: &str, text: &str) {
    state.audit.append(meta.index, meta.at, actor, text);
    event(state, meta, about, text);
}

/// Decisions about the services with members on this host, taken before, no longer hold.
fn touch_services_on(state: &mut State, host: &HostId, index: LogIndex) {
    let names: Vec<Name> = state.members_on(host).map(|(_, m)| m.slot.service.clone()).collect();
    for name in names {
        if let Some(service) = state.services.get_mut(&name) {
            service.version = index;
        }
    }
}

fn unknown(what: &str, name: impl ToString) -> Rejected {
    Rejected::Unknown { what: what.to_owned(), name: name.to_string() }
}

fn unfit(why: impl Into<String>) -> Rejected {
    Rejected::Unfit { why: why.into() }
}
