//! The fake Redis: a cluster with its table of nodes, gossip, failure by majority, elections and asynchronous copies; or one
//! server alone. Ground truth: an acknowledged value is lost by an election only, and there no more than the copy could lack.

mod calls;
mod cluster;
mod node;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::MemberId;

use self::node::{Id, KEYS, Node, Process, Row};
use super::{Moment, REDIS, file, runs};
use crate::host::FakeHost;
use crate::plant::Plant;

/// A full copy from the master.
const COPY: u64 = 1_500;
/// Two masters may acknowledge for one key only while a claim is on its way.
const BOTH_MAX: u32 = 2;

/// One cluster, or one server.
#[derive(Debug, Default)]
pub struct Redis {
    plant: Option<Plant>,
    nodes: BTreeMap<MemberId, Node>,
    processes: BTreeMap<MemberId, Process>,
    made: u32,
    timeout: u64,
    alone: bool,
    /// The newest acknowledged value of each key, and when it was.
    acknowledged: [(u64, u64); KEYS],
    both: [u32; KEYS],
    lost: Option<String>,
}

/// The value after a word of the configuration.
fn setting<'a>(config: &'a str, word: &str) -> Option<&'a str> {
    config.lines().find_map(|line| line.strip_prefix(word)).map(str::trim)
}

fn address(host: &FakeHost, member: MemberId) -> Option<Ipv4Addr> {
    host.containers.get(&member)?.seen.addresses.values().next().copied()
}

impl Redis {
    /// With a planted bug, or without.
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// One moment.
    pub fn tick(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        let running = runs(moment.hosts, REDIS, moment.now);
        if running.is_empty() && self.nodes.is_empty() {
            return Ok(());
        }
        let has_data = |id: &MemberId| {
            moment.hosts.iter().any(|host| host.volumes.get(id).is_some_and(|volume| volume.data))
        };
        self.nodes.retain(|id, _| has_data(id));
        self.processes.retain(|id, process| {
            running.iter().any(|(member, at)| member == id && *at == process.host && !process.over)
        });
        for (member, at) in &running {
            if !self.processes.contains_key(member) {
                self.begin(moment, *member, *at);
            }
        }
        self.release_held(moment);
        let seen = self.seen(moment);
        self.notice(&seen, moment.now);
        self.gossip(&seen, moment.now);
        self.copy(&seen, moment);
        self.elect(&seen, moment);
        self.judge(moment.now);
        self.write(moment.now)?;
        self.lost.take().map_or(Ok(()), Err)
    }

    /// A process starts: with what is on its disk, or as a new node.
    fn begin(&mut self, moment: &mut Moment<'_>, member: MemberId, at: usize) {
        let Some(address) = address(&moment.hosts[at], member) else { return };
        let config = file(&moment.hosts[at], member, "/muster/redis.conf");
        self.alone = setting(config, "cluster-enabled").is_none();
        self.timeout =
            setting(config, "cluster-node-timeout").and_then(|ms| ms.parse().ok()).unwrap_or(5_000);
        moment.hosts[at].volumes.entry(member).or_default().data = true;
        let made = &mut self.made;
        let node = self.nodes.entry(member).or_insert_with(|| {
            *made += 1;
            Node::new(Id(*made), address)
        });
        node.own_mut().at = address;
        let guarded = file(&moment.hosts[at], member, "/muster/start.sh").contains("was_replaced");
        let held = node.leads() && !node.has_log && guarded && self.plant != Some(Plant::EmptyMaster);
        if !held {
            node.has_log = true;
        }
        let process = Process {
            host: at,
            at: address,
            held,
            silent: BTreeMap::new(),
            failed: BTreeMap::new(),
            banned: BTreeMap::new(),
            link: None,
            coming: node.data,
            // A link that was never up is as old as time: such a replica is no candidate.
            heard: 0,
            since: moment.now,
            ok_since: None,
            over: false,
        };
        self.processes.insert(member, process);
    }

    /// What the start script waits for: somebody says that the hash slots are another's.
    fn release_held(&mut self, moment: &Moment<'_>) {
        let held: Vec<MemberId> = self.processes.iter().filter(|(_, p)| p.held).map(|(id, _)| *id).collect();
        for member in held {
            let (own, host) = (&self.nodes[&member], self.processes[&member].host);
            let claim = own.own();
            let Some((first, _)) = claim.slots.first().copied() else { continue };
            let peers = file(&moment.hosts[host], member, "/muster/peers");
            let replaced = self.processes.iter().any(|(other, process)| {
                let asked = peers.lines().any(|line| line.parse() == Ok(process.at));
                let later = |id: &Id, row: &Row| {
                    *id != own.id && row.epoch > claim.epoch && node::has(&row.slots, first)
                };
                let gone = self.nodes[other].table.iter().any(|(id, row)| later(id, row));
                asked && !process.held && gone && moment.reach(host, process.host)
            });
            if replaced {
                if let Some(process) = self.processes.get_mut(&member) {
                    process.held = false;
                }
                if let Some(node) = self.nodes.get_mut(&member) {
                    node.has_log = true;
                }
            }
        }
    }

    /// Every master that believes so acknowledges one write of each key of its hash slots.
    fn write(&mut self, now: u64) -> Result<(), String> {
        for key in 0..KEYS {
            let mut owners = Vec::new();
            for (member, process) in self.processes.iter().filter(|(_, process)| process.ok_since.is_some()) {
                let node = &self.nodes[member];
                if self.alone || (node.leads() && node::has(&node.own().slots, node::slot_of(key))) {
                    owners.push((*member, process.host));
                }
            }
            self.both[key] = if owners.len() > 1 { self.both[key] + 1 } else { 0 };
            if self.both[key] > BOTH_MAX {
                return Err(format!("members {owners:?} acknowledge writes of one hash slot"));
            }
            for (member, _) in owners {
                let Some(node) = self.nodes.get_mut(&member) else { continue };
                let value = node.data[key] + 1;
                let (newest, _) = self.acknowledged[key];
                if value <= newest {
                    let slot = node::slot_of(key);
                    return Err(format!(
                        "member {member} serves hash slot {slot} with {} of {newest} acknowledged writes",
                        node.data[key]
                    ));
                }
                node.data[key] = value;
                self.acknowledged[key] = (value, now);
            }
        }
        Ok(())
    }

    /// A container is told to stop: its replicas get what they lack first.
    pub fn stop(&mut self, member: MemberId) {
        let Some(process) = self.processes.get_mut(&member) else { return };
        process.over = true;
        let Some(node) = self.nodes.get(&member) else { return };
        let (id, data) = (node.id, node.data);
        for (other, process) in &mut self.processes {
            let Some(node) = self.nodes.get_mut(other) else { continue };
            if node.own().master == Some(id) && process.link.is_some_and(|until| until <= process.heard) {
                node.data = data;
                process.coming = data;
            }
        }
    }

    /// Whether a member's data is on another member too, in sync.
    pub fn spares(&self, member: MemberId) -> bool {
        let Some(node) = self.nodes.get(&member) else { return false };
        let copies = self.processes.iter().any(|(other, process)| {
            *other != member
                && self.nodes[other].own().master == Some(node.id)
                && process.link.is_some_and(|until| until <= process.heard)
                && process.ok_since.is_some()
        });
        self.processes.contains_key(&member) && !self.alone && (!node.leads() || copies)
    }

    /// Empties the data of a member and leaves its identity.
    pub fn empty(&mut self, member: MemberId) {
        if let Some(node) = self.nodes.get_mut(&member) {
            node.has_log = false;
            node.data = [0; KEYS];
        }
        self.processes.remove(&member);
    }

    /// Whether it serves as its role asks.
    pub fn ready(&self, member: MemberId) -> bool {
        let (Some(node), Some(process)) = (self.nodes.get(&member), self.processes.get(&member)) else {
            return false;
        };
        let linked = node.own().master.is_some() && process.link.is_some_and(|until| until <= process.heard);
        if node.own().master.is_some() {
            linked
        } else {
            process.ok_since.is_some() && (self.alone || node.leads())
        }
    }

    /// What is still missing when everything should be right.
    pub fn missing(&self) -> Option<String> {
        let mut ids: Vec<Id> = self.processes.keys().map(|member| self.nodes[member].id).collect();
        ids.sort_unstable();
        for member in self.processes.keys().filter(|_| !self.alone) {
            let node = &self.nodes[member];
            if !node.table.keys().eq(ids.iter()) {
                return Some(format!("redis: member {member} knows other nodes than there are"));
            }
            if node.own().master.is_none() && node.own().slots.is_empty() {
                return Some(format!("redis: member {member} has neither hash slots nor a master"));
            }
        }
        None
    }
}
