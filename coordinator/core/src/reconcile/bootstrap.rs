//! Records what happens once: a cluster was formed, a member has data. Both stay true for good.

use muster_model::ids::Name;
use muster_model::time::Timestamp;

use super::fenced;
use crate::command::{Act, Command};
use crate::facts::{kind_of, layout_of, service_facts};
use crate::state::{Service, State};

/// One command per service with something to record.
pub fn bootstrap(state: &State, now: Timestamp) -> Vec<Command> {
    let commands = state.services.iter().filter_map(|(name, service)| {
        let mut acts = has_data(state, name, service);
        acts.extend(formed(state, name, service, now));
        fenced(state, name, acts)
    });
    commands.collect()
}

fn has_data(state: &State, name: &Name, service: &Service) -> Vec<Act> {
    if !layout_of(name, service).is_some_and(|layout| layout.has_data) {
        return Vec::new();
    }
    let with_data = state.members_of(name).into_values().filter(|(_, member)| {
        let seen = member.seen().filter(|seen| seen.running);
        !member.has_data && seen.is_some_and(|seen| seen.system_id.is_some() || seen.ready)
    });
    with_data.map(|(member, _)| Act::HasData { member }).collect()
}

fn formed(state: &State, name: &Name, service: &Service, now: Timestamp) -> Option<Act> {
    if service.formed {
        return None;
    }
    let facts = service_facts(state, name, now)?;
    kind_of(service)?.is_formed(&facts).then_some(Act::Formed)
}
