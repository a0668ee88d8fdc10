//! Makes and updates the child services that a service brings along, and clears away what nobody owns any more.

use std::sync::Arc;

use muster_model::ids::Name;
use muster_model::time::Timestamp;

use super::fenced;
use crate::command::{Act, Command, What};
use crate::facts::kind_of;
use crate::state::{ServiceParent, State};

/// One command per child that is missing, differs, or is no longer wanted.
pub fn expand(state: &State, _now: Timestamp) -> Vec<Command> {
    let mut commands = Vec::new();
    for (name, service) in &state.services {
        if service.parent.is_none() && service.removing.is_none() {
            children(state, name, &mut commands);
        }
        let drill_ended = service
            .internal
            .is_some_and(|id| state.operations.get(&id).is_none_or(|operation| operation.outcome.is_some()));
        if drill_ended && service.removing.is_none() {
            commands.extend(fenced(state, name, vec![Act::MarkRemoved { destroy: true }]));
        }
    }
    commands
}

fn children(state: &State, owner: &Name, commands: &mut Vec<Command>) {
    let Some(service) = state.services.get(owner) else { return };
    let Some(kind) = kind_of(service) else { return };
    let mut wanted = Vec::new();
    for child in kind.children(owner, &service.spec) {
        let Ok(name) = Name::new(format!("{owner}-{}", child.role)) else { continue };
        let spec = Arc::new(child.spec);
        let acts = match state.services.get(&name) {
            None => {
                let parent = ServiceParent { owner: owner.clone(), role: child.role, order: child.order };
                vec![Act::Create { spec, parent: Some(parent), internal: None }]
            }
            // A name that is taken by a service of the operator's own is refused by the dry run, never taken over.
            Some(row) if row.parent.is_some() && *row.spec != *spec => vec![Act::SetSpec { spec }],
            Some(_) => Vec::new(),
        };
        let what = What::Service { service: name.clone(), seen: state.fence(owner), acts };
        if !matches!(&what, What::Service { acts, .. } if acts.is_empty()) {
            commands.push(Command::internal(what));
        }
        wanted.push(name);
    }
    for (name, row) in state.children(owner) {
        if !wanted.contains(name) && row.removing.is_none() {
            commands.extend(fenced(state, name, vec![Act::MarkRemoved { destroy: false }]));
        }
    }
}
