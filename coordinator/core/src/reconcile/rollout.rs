//! Starts an update when members have something new to become, one service of a family at a time.

use muster_model::ids::Name;
use muster_model::time::Timestamp;

use crate::command::{Command, What};
use crate::kinds::ChildOrder;
use crate::state::{OperationKind, Service, State};

/// At most one command per family.
pub fn rollout(state: &State, _now: Timestamp) -> Vec<Command> {
    let roots =
        state.services.iter().filter(|(_, service)| service.parent.is_none() && service.internal.is_none());
    let free = roots.filter(|(name, root)| root.removing.is_none() && state.holder(name).is_none());
    free.filter_map(|(name, root)| {
        let service = next_in_family(state, name)?;
        let back = root.rolled_back == Some(root.revision);
        let kind = if back { OperationKind::Rollback } else { OperationKind::Update };
        let seen = Some(state.fence(name));
        Some(Command::internal(What::StartOperation { service: service.clone(), kind, seen }))
    })
    .collect()
}

/// The first service with something new, in the order in which the family starts.
fn next_in_family<'a>(state: &'a State, root: &'a Name) -> Option<&'a Name> {
    let mut family: Vec<(u8, &Name)> = state
        .family(root)
        .filter(|(name, service)| waits(state, name, service))
        .map(|(name, service)| {
            let order = match service.parent.as_ref().map(|parent| parent.order) {
                Some(ChildOrder::BeforeOwner) => 0,
                None => 1,
                Some(ChildOrder::AfterOwner) => 2,
            };
            (order, name)
        })
        .collect();
    family.sort();
    family.first().map(|(_, name)| *name)
}

fn waits(state: &State, name: &Name, service: &Service) -> bool {
    service.removing.is_none()
        && service.held != Some(service.revision)
        && state.members_of(name).values().any(|(_, member)| member.pending.is_some())
}
