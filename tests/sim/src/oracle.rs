//! What must never happen, judged from what fake hosts really run. It trusts nothing that the core says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use muster_core::command::{Act, Command, What};
use muster_core::facts::{kind_of, layout_of, service_facts};
use muster_core::state::{Member, Phase, State};
use muster_model::ids::{Generation, HostId, MemberId, Name, Slot};
use muster_model::time::Timestamp;

use crate::world::World;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Containers (member, hash, restarts) that truly served at some time.
    served: BTreeSet<(MemberId, String, u64)>,
    /// Newest plan that each host acted on.
    generations: BTreeMap<usize, Generation>,
    /// What was found while entries were applied.
    found: Option<String>,
    /// Services that were formed.
    formed: BTreeSet<Name>,
}

/// What an entry would take down, judged before it is applied.
#[derive(Debug, Default)]
pub struct Judged(Vec<String>);

impl Oracle {
    /// Judges an entry on the state that it meets. What it says counts only if the entry takes effect.
    #[must_use]
    pub fn before(&self, state: &State, command: &Command, now: Timestamp) -> Judged {
        let mut judged = Judged::default();
        match &command.what {
            What::Service { service, acts, .. } => self.stops(state, service, acts, now, &mut judged),
            What::Advance(advance) => {
                for (service, acts) in &advance.acts {
                    self.stops(state, service, acts, now, &mut judged);
                }
            }
            What::RestHost { host, .. } => self.rests(state, host, &mut judged),
            _ => {}
        }
        judged
    }

    /// A host's members that serve are stopped: every member elsewhere must truly have served in the container that it has
    /// to have now.
    fn rests(&self, state: &State, host: &HostId, judged: &mut Judged) {
        let here = |row: &Member| row.host == *host;
        for service in state.services.keys() {
            let members = state.members_of(service);
            let serves = |row: &Member| row.seen().is_some_and(|seen| seen.ready);
            if !members.values().any(|(_, row)| here(row) && serves(row)) {
                continue;
            }
            for (other, row) in members.into_values().filter(|(_, row)| !here(row)) {
                let Some(rendering) = &row.rendering else { continue };
                let container = (other, rendering.container_hash.clone(), row.restarts);
                if !serves(row) || !self.served.contains(&container) {
                    let name = state.host_name(host);
                    judged.0.push(format!(
                        "host {name} was put to rest while {other} of {service} did not serve"
                    ));
                }
            }
        }
    }

    /// A stop that we choose: every other member must be ready in the state that the entry meets, and must truly have
    /// served in the container that it has to have now.
    fn stops(&self, state: &State, service: &Name, acts: &[Act], now: Timestamp, judged: &mut Judged) {
        for act in acts {
            let (Act::Adopt { member } | Act::Restart { member }) = act else { continue };
            let seen = state.members.get(member).and_then(|row| row.observed.as_ref());
            if seen.is_some_and(|seen| !(seen.running && seen.ready)) {
                // What was seen not to serve takes nothing with it.
                continue;
            }
            let Some(facts) = service_facts(state, service, now) else { continue };
            let Some(kind) = state.services.get(service).and_then(kind_of) else { continue };
            if let Err(why) = kind.may_stop(&facts, *member) {
                judged.0.push(format!("member {member} was taken down although {}", why.0));
            }
            for (other, row) in state.members_of(service).into_values() {
                let Some(rendering) = &row.rendering else { continue };
                let container = (other, rendering.container_hash.clone(), row.restarts);
                // A changed server of S3 serves only together with a second one.
                let waits = kind.settled(&facts, other) && !row.seen().is_some_and(|seen| seen.ready);
                if other != *member && row.started && !waits && !self.served.contains(&container) {
                    judged.0.push(format!("member {member} was taken down while {other} had not served yet"));
                }
            }
        }
    }

    /// Takes in an entry that took effect.
    pub fn after(&mut self, state: &State, judged: Judged) {
        let found = judged.0.into_iter().next();
        let violation = state.check().into_iter().next().map(|v| format!("state: {v}"));
        self.found = self.found.take().or(found).or(violation);
        for (name, service) in &state.services {
            if service.formed {
                self.formed.insert(name.clone());
            } else if self.formed.contains(name) {
                self.found = Some(format!("{name} was formed and is not any more"));
            }
        }
    }

    /// Looks at what really runs.
    pub fn look(mut self, world: &World) -> (Self, Result<(), String>) {
        let verdict = self.see(world);
        (self, verdict)
    }

    fn see(&mut self, world: &World) -> Result<(), String> {
        if let Some(found) = self.found.take() {
            return Err(found);
        }
        for host in &world.hosts {
            let generation = host.agent.ledger.generation();
            let newest = self.generations.entry(host.number).or_default();
            if generation < *newest {
                return Err(format!("host {} went back from plan {newest} to {generation}", host.number));
            }
            *newest = generation;
            for (id, container) in &host.containers {
                if world.engines.ready(&world.hosts, host, *id, world.now) {
                    self.served.insert((*id, container.seen.hash.clone(), container.seen.restarts));
                }
            }
        }
        running_twice(world)?;
        addresses_twice(world)
    }
}

/// Two members in one slot of a kind that may run in one place only.
fn running_twice(world: &World) -> Result<(), String> {
    let mut slots: BTreeMap<&Slot, MemberId> = BTreeMap::new();
    for host in &world.hosts {
        for (id, container) in host.containers.iter().filter(|(_, c)| c.seen.running()) {
            let slot = &container.seen.slot;
            let service = world.state.services.get(&slot.service);
            let layout = service.and_then(|row| layout_of(&slot.service, row));
            let exclusive = layout.is_some_and(|layout| layout.exclusive);
            if let Some(other) = slots.insert(slot, *id).filter(|other| exclusive && other != id) {
                return Err(format!("members {other} and {id} run in slot {slot}"));
            }
        }
    }
    Ok(())
}

fn addresses_twice(world: &World) -> Result<(), String> {
    let mut taken: BTreeMap<Ipv4Addr, MemberId> = BTreeMap::new();
    for host in &world.hosts {
        for (id, container) in host.containers.iter().filter(|(_, c)| c.seen.running()) {
            for address in container.seen.addresses.values() {
                if let Some(other) = taken.insert(*address, *id).filter(|other| other != id) {
                    return Err(format!("members {other} and {id} run with address {address}"));
                }
            }
        }
    }
    Ok(())
}

/// What is still missing after all faults have ended; absent = everything is as it should be.
#[must_use]
pub fn unfinished(world: &World) -> Option<String> {
    let now = world.now;
    let ruined = |id: &MemberId| world.hosts.iter().any(|host| host.ruined.contains(id));
    let any_ruined = world.hosts.iter().any(|host| !host.ruined.is_empty());
    if let Some(host) = world.state.hosts.values().find(|host| !host.is_up()) {
        return Some(format!("host {} is down", host.name));
    }
    for (name, service) in &world.state.services {
        let slots = layout_of(name, service).map_or(0, |layout| layout.slots as usize);
        let members = world.state.members_of(name);
        if members.len() != slots && !any_ruined {
            return Some(format!("{name} has {} of {slots} members", members.len()));
        }
        for (slot, (id, row)) in &members {
            if ruined(id) || any_ruined && !row.seen().is_some_and(|s| s.ready) {
                // What lost data needs an operator's word: a cluster that stopped as a whole begins without no volume.
                continue;
            }
            if row.pending.is_some() && !any_ruined {
                return Some(format!("{name}/{slot} waits for its turn"));
            }
            if !row.seen().is_some_and(|seen| seen.ready) {
                return Some(format!("{name}/{slot} (member {id}) is not seen ready: {:?}", row.observed));
            }
            let host = world.hosts.iter().find(|host| host.id == row.host)?;
            if !world.engines.ready(&world.hosts, host, *id, now) {
                return Some(format!("{name}/{slot} is seen ready and is not"));
            }
        }
    }
    if let Some((id, row)) = world.state.members.iter().find(|(_, m)| m.phase != Phase::Active) {
        return Some(format!("member {id} of {} is not gone", row.slot));
    }
    let strays = world
        .hosts
        .iter()
        .filter(|h| !h.removed)
        .flat_map(|h| h.containers.keys())
        .find(|id| !world.state.members.contains_key(id));
    if let Some(stray) = strays {
        return Some(format!("a container of member {stray} is left over"));
    }
    if let Some(missing) = world.engines.missing(any_ruined) {
        return Some(missing);
    }
    (!world.at_rest() && !any_ruined).then(|| {
        let open = world.state.operations.iter().filter(|(_, op)| op.outcome.is_none());
        let open: Vec<String> = open.map(|(id, op)| format!("operation {id}: {}", op.status)).collect();
        open.join("; ")
    })
}
