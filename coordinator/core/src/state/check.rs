//! Invariants of State as code: run after every apply in tests and simulation, and counted in production.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Phase, State};

/// Something that must never be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl State {
    /// What is wrong with this state; empty = nothing.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_members(&mut found);
        self.check_addresses(&mut found);
        self.check_services(&mut found);
        self.check_operations(&mut found);
        if let Some(index) = self.audit.broken_at() {
            found.push(Violation(format!("the audit chain breaks at entry {index}")));
        }
        found
    }

    fn check_members(&self, found: &mut Vec<Violation>) {
        let mut slots = BTreeSet::new();
        for (id, member) in &self.members {
            if member.phase == Phase::Active && !slots.insert(&member.slot) {
                found.push(Violation(format!("two active members in slot {}", member.slot)));
            }
            if !self.hosts.contains_key(&member.host) {
                found.push(Violation(format!("member {id} is on unknown host {}", member.host)));
            }
            if !self.services.contains_key(&member.slot.service) {
                found.push(Violation(format!("member {id} is of unknown service {}", member.slot.service)));
            }
            if *id >= self.next_member {
                found.push(Violation(format!("member {id} is not below the next number")));
            }
            if member.started && member.rendering.is_none() {
                found.push(Violation(format!("member {id} is started but not rendered")));
            }
        }
    }

    fn check_addresses(&self, found: &mut Vec<Violation>) {
        let mut taken = BTreeMap::new();
        for (id, member) in &self.members {
            for place in &member.addresses {
                if let Some(other) = taken.insert((&place.network, place.address), id) {
                    found.push(Violation(format!("members {other} and {id} share {}", place.address)));
                }
                let own = self.blocks_of(&place.network, &member.host);
                if !own.iter().any(|net| net.contains(&place.address)) {
                    let host = self.host_name(&member.host);
                    found.push(Violation(format!(
                        "{} of member {id} is in no block of {host}",
                        place.address
                    )));
                }
                if self.gateway(&place.network, &member.host) == Some(place.address) {
                    found.push(Violation(format!("member {id} has the gateway's address {}", place.address)));
                }
            }
        }
        let mut mesh = BTreeSet::new();
        for host in self.hosts.values() {
            if !mesh.insert(host.mesh_address) {
                found.push(Violation(format!("two hosts have mesh address {}", host.mesh_address)));
            }
        }
        for (network, blocks) in &self.blocks {
            let mut last: Option<ipnet::Ipv4Net> = None;
            for net in blocks.keys() {
                if last.is_some_and(|last| last.broadcast() >= net.network()) {
                    found.push(Violation(format!("blocks of {network} overlap at {net}")));
                }
                last = Some(*net);
            }
        }
    }

    fn check_services(&self, found: &mut Vec<Violation>) {
        for (name, service) in &self.services {
            if let Some(parent) = &service.parent {
                let owner = self.services.get(&parent.owner);
                if owner.is_none_or(|owner| owner.parent.is_some()) {
                    found.push(Violation(format!("child {name} has no owner, or its owner is a child")));
                }
            }
            if service.version > self.index {
                found.push(Violation(format!("service {name} is newer than the state")));
            }
        }
    }

    fn check_operations(&self, found: &mut Vec<Violation>) {
        let mut held = BTreeSet::new();
        for (id, operation) in self.operations.iter().filter(|(_, op)| op.outcome.is_none()) {
            if !held.insert(self.root(&operation.service)) {
                found.push(Violation(format!("two operations hold `{}`, one is {id}", operation.service)));
            }
        }
        for (id, task) in &self.tasks {
            let owner = self.operations.get(&task.operation);
            if owner.is_none_or(|op| op.outcome.is_some()) {
                found.push(Violation(format!("task {id} belongs to no running operation")));
            }
        }
    }
}
