//! Restarts members whose engine asks for it: a changed parameter takes effect only so. One at a time, as an operation that
//! anybody can see, and each at most once for one revision of the spec: one that asks again gets nothing by it.

use muster_model::time::Timestamp;

use crate::command::{Command, What};
use crate::facts::{kind_of, service_facts};
use crate::state::{OperationKind, Service, State, restarted_key};

/// At most one command per family that no operation holds.
pub fn asked(state: &State, now: Timestamp) -> Vec<Command> {
    let roots = state.services.iter().filter(|(_, row)| row.parent.is_none() && row.internal.is_none());
    let free = roots.filter(|(name, row)| row.removing.is_none() && state.holder(name).is_none());
    free.filter_map(|(root, _)| {
        let (service, slot) = state.family(root).find_map(|(name, row)| {
            let slots = kind_of(row)?.asks_for_restart(&service_facts(state, name, now)?);
            Some((name, slots.into_iter().find(|slot| !had_it(row, *slot))?))
        })?;
        let kind = OperationKind::Restart { slot: Some(slot) };
        let seen = Some(state.fence(service));
        Some(Command::internal(What::StartOperation { service: service.clone(), kind, seen }))
    })
    .collect()
}

fn had_it(service: &Service, slot: u32) -> bool {
    service.records.get(&restarted_key(slot)) == Some(&service.revision.to_string())
}
