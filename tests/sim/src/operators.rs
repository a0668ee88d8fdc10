//! What simulated operators do: specs, operations, words for what the platform asks, hosts that leave for good.

use std::collections::BTreeMap;

use muster_core::command::{Verb, What};
use muster_core::reconcile::maintenance_refusal;
use muster_core::state::{Operation, OperationKind};
use muster_model::ids::OperationId;
use muster_model::view::Scheduling;

use crate::engines::{REDIS, REPLICATED};
use crate::spec::Platform;
use crate::world::{World, host_id, name, stamp};

/// A host that was said to be off stays so: another one must lead before it is back.
const KEPT_OFF: u64 = 45_000;
/// A question about a member whose host answers is answered after so long: what it has does not matter then.
const PATIENCE: u64 = 60_000;

/// Does one thing by chance, good or bad.
pub fn meddle(world: &mut World, version: u32, platform: &Platform) {
    let services = platform.services();
    let service = world.rng.pick(&services).cloned().unwrap_or_else(|| name("web"));
    match world.rng.below(8) {
        0 | 1 => {
            let replicas = world.rng.between(1, 3) as u32;
            world.apply_spec(platform.spec(&format!("good-{version}"), replicas));
        }
        2 => world.apply_spec(platform.spec(&format!("bad-{version}"), 2)),
        3 => {
            let to = Some(world.rng.between(1, 3) as u32);
            world.enter(What::StartOperation { service, kind: OperationKind::Switchover { to }, seen: None });
        }
        4 => {
            world.enter(What::StartOperation {
                service,
                kind: OperationKind::Restart { slot: None },
                seen: None,
            });
        }
        5 => world.enter(What::StartOperation { service, kind: OperationKind::Rollback, seen: None }),
        6 => {
            let host = host_id(world.rng.between(1, world.hosts.len() as u64) as usize);
            let scheduling = match world.rng.below(1_000) {
                0..=249 => Scheduling::Cordoned,
                250..=499 => Scheduling::Maintenance,
                _ => Scheduling::Open,
            };
            let asked = scheduling == Scheduling::Maintenance;
            if !asked || maintenance_refusal(&world.state, &host, false, &[], stamp(world.now)).is_none() {
                world.enter(What::SetScheduling { host, scheduling, outage: false });
            }
        }
        _ => {
            let open: BTreeMap<OperationId, Verb> = world
                .state
                .operations
                .iter()
                .filter(|(_, op)| op.outcome.is_none())
                .map(|(id, op)| {
                    (*id, if op.needs_operator.is_some() { Verb::Continue } else { Verb::Cancel })
                })
                .collect();
            for (operation, verb) in open {
                if verb == Verb::Cancel || may_continue(world, operation, None) {
                    world.enter(What::SteerOperation { operation, verb });
                }
            }
        }
    }
}

/// What an attentive operator says: an update that paused goes on, a held one begins again, other things are given up.
pub fn advise(world: &mut World, fair_since: u64) {
    let waiting: Vec<(OperationId, Verb)> = world
        .state
        .operations
        .iter()
        .filter(|(_, op)| op.outcome.is_none() && op.needs_operator.is_some())
        .map(|(id, op)| match op.kind {
            OperationKind::Update | OperationKind::Rollback | OperationKind::Procedure(_) => {
                (*id, Verb::Continue)
            }
            _ => (*id, Verb::Cancel),
        })
        .collect();
    for (operation, verb) in waiting {
        if verb == Verb::Cancel || may_continue(world, operation, Some(fair_since)) {
            world.enter(What::SteerOperation { operation, verb });
        }
    }
    let held: Vec<_> = world
        .state
        .services
        .iter()
        .filter(|(_, service)| service.held == Some(service.revision))
        .map(|(name, _)| name.clone())
        .collect();
    for service in held {
        world.enter(What::StartOperation { service, kind: OperationKind::Update, seen: None });
    }
}

/// Answers what a Redis asks in the time of faults: its questions are few, and not to be missed.
pub fn answer(world: &mut World) {
    let asks = |op: &Operation| op.outcome.is_none() && op.needs_operator.is_some();
    let here = |op: &Operation| [REDIS, REPLICATED].contains(&op.service.as_str());
    let open = world.state.operations.iter().filter(|(_, op)| asks(op) && here(op));
    let open: Vec<OperationId> = open.map(|(id, _)| *id).collect();
    for operation in open {
        if may_continue(world, operation, None) {
            world.enter(What::SteerOperation { operation, verb: Verb::Continue });
        }
    }
}

/// Whether an operator who keeps their word continues. To say that a host is off is to switch it off first.
fn may_continue(world: &mut World, operation: OperationId, fair_since: Option<u64>) -> bool {
    let Some(op) = world.state.operations.get(&operation) else { return false };
    let Some(asked) = &op.needs_operator else { return false };
    if ![REDIS, REPLICATED].contains(&op.service.as_str()) {
        return true;
    }
    let is_word = asked.reason.contains("does not answer:") || asked.remedy.contains("is off");
    if !is_word {
        return true;
    }
    let replicated = op.service.as_str() == REPLICATED;
    let named = |name: &str| asked.reason.contains(&format!(" on {name} "));
    let rows = world.state.hosts.iter().filter(|(_, row)| named(row.name.as_str()));
    let hosts: Vec<(usize, bool)> = rows
        .filter_map(|(id, row)| Some((world.hosts.iter().position(|host| host.id == *id)?, row.is_up())))
        .collect();
    let now = world.now;
    for (at, up) in &hosts {
        match (up, fair_since) {
            (false, None) => {
                let host = &mut world.hosts[*at];
                host.kept_off = now + KEPT_OFF;
                if host.on(now) {
                    host.power_cut(host.kept_off);
                }
                host.power_at = host.power_at.max(host.kept_off);
            }
            // It is about to be back.
            (false, Some(_)) => return false,
            (true, None) if replicated => return false,
            (true, Some(since)) if replicated && now - since < PATIENCE => return false,
            (true, _) => {}
        }
    }
    for (at, _) in hosts {
        world.engines.word(at, now);
    }
    world.words += 1;
    true
}

/// A host leaves for good: it is emptied, then removed. True = it is gone.
pub fn remove(world: &mut World, at: usize) -> bool {
    let host = host_id(world.hosts[at].number);
    let Some(row) = world.state.hosts.get(&host) else { return true };
    if row.scheduling != Scheduling::Draining {
        world.enter(What::SetScheduling { host, scheduling: Scheduling::Draining, outage: false });
        return false;
    }
    let up = row.is_up();
    let empty = world.state.members_on(&host).next().is_none();
    if up && !empty || !up && world.hosts[at].on(world.now) {
        return false;
    }
    world.enter(What::RemoveHost { host: host.clone() });
    let gone = !world.state.hosts.contains_key(&host);
    if gone {
        world.hosts[at].power_cut(u64::MAX);
        world.hosts[at].removed = true;
    }
    gone
}

/// A host that cannot be spared stays. What was begun to empty it is given up: a replacement with a bad image waits for its
/// member, and holds the update to a good one, until an operator ends it.
pub fn keep(world: &mut World, at: usize) {
    let host = host_id(world.hosts[at].number);
    world.enter(What::SetScheduling { host, scheduling: Scheduling::Open, outage: false });
    let begun = world.state.operations.iter().filter(|(_, op)| op.outcome.is_none());
    let begun: Vec<OperationId> =
        begun.filter(|(_, op)| op.kind.name() == "replace").map(|(id, _)| *id).collect();
    for operation in begun {
        world.enter(What::SteerOperation { operation, verb: Verb::Cancel });
    }
}
