//! Starts members, in the order that their kind asks for.

use muster_model::ids::Name;
use muster_model::time::Timestamp;

use super::fenced;
use crate::command::{Act, Command};
use crate::draft::Source;
use crate::facts::{has_secrets, kind_of, service_facts};
use crate::kinds::{ChildOrder, Wait};
use crate::state::{Member, Service, State};

/// One command per service with members that may start.
pub fn start(state: &State, now: Timestamp) -> Vec<Command> {
    let commands = state.services.keys().filter_map(|name| {
        let members = state.members_of(name);
        let waiting = members.values().filter(|(_, member)| !member.started && !member.parked);
        let ready = waiting.filter(|(_, member)| may_start(state, name, member, now).is_ok());
        let acts = ready.map(|(member, _)| Act::Start { member: *member }).collect();
        fenced(state, name, acts)
    });
    commands.collect()
}

/// Why a member is not started.
pub fn may_start(state: &State, name: &Name, member: &Member, now: Timestamp) -> Result<(), Wait> {
    let wait = |why: String| Err(Wait(why));
    let Some(service) = state.services.get(name).filter(|service| service.removing.is_none()) else {
        return wait("the service is being removed".to_owned());
    };
    if !state.hosts.get(&member.host).is_some_and(|host| host.is_up()) {
        return wait(format!("host {} is down", state.host_name(&member.host)));
    }
    if !has_secrets(state, name) {
        return wait("its secrets are being made".to_owned());
    }
    let Some((id, _)) = state.members_of(name).remove(&member.slot.index) else {
        return wait("it is being retired".to_owned());
    };
    let newest = Source::new(state, name, service.revision);
    let inputs = newest.and_then(|source| Some(source.draft(id, member)?.inputs()));
    if member.rendering.as_ref().map(|r| &r.inputs) != inputs.as_ref() {
        return wait("it is being rendered".to_owned());
    }
    in_order(state, name, service)?;
    let facts = service_facts(state, name, now).zip(kind_of(service));
    let Some((facts, kind)) = facts else { return wait("this version does not know its kind".to_owned()) };
    kind.may_start(&facts, member.slot.index)
}

/// Children before their owner, or after it.
fn in_order(state: &State, name: &Name, service: &Service) -> Result<(), Wait> {
    if let Some(parent) = service.parent.as_ref().filter(|p| p.order == ChildOrder::AfterOwner) {
        let owner = state.members_of(&parent.owner);
        if !owner.values().any(|(_, member)| member.started) {
            return Err(Wait(format!("{} starts first", parent.owner)));
        }
    }
    let expected = kind_of(service).map(|kind| kind.children(name, &service.spec)).unwrap_or_default();
    for child in expected.into_iter().filter(|child| child.order == ChildOrder::BeforeOwner) {
        let found =
            state.children(name).find(|(_, c)| c.parent.as_ref().is_some_and(|p| p.role == child.role));
        let started = found.is_some_and(|(child, _)| {
            let members = state.members_of(child);
            !members.is_empty() && members.values().all(|(_, member)| member.started)
        });
        if !started {
            return Err(Wait(format!("{name}-{} starts first", child.role)));
        }
    }
    Ok(())
}
