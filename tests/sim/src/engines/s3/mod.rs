//! The fake MinIO: one erasure set over the drives of all members, its quorums, formatting, healing, the half-blind start
//! and the comparison of configurations. Ground truth: an acknowledged object stays readable, the set is formatted once, an
//! emptied drive is never taken as new, and no stop of ours takes the quorum for writes away.

mod calls;
mod heal;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use muster_model::ids::MemberId;

use super::{Moment, S3, file, runs};
use crate::host::FakeHost;
use crate::plant::Plant;

/// A restarted server refuses writes for this long at most: milliseconds.
const BLIND: u64 = 6_000;
/// Filling a fresh drive.
const HEALING: (u64, u64) = (2_000, 8_000);
/// Objects that a stale drive gets back in one step.
const HEALED: usize = 50;

/// The drive of one member.
#[derive(Debug, Clone, Default)]
struct Drive {
    objects: BTreeSet<u32>,
    heals_until: Option<u64>,
}

/// One server.
#[derive(Debug, Clone)]
struct Process {
    host: usize,
    slot: u32,
    at: Ipv4Addr,
    /// Image, command and environment, which all compare at their start.
    config: String,
    /// It met enough others that are as it is.
    online: bool,
    sees_at: u64,
    over: bool,
}

/// One deployment.
#[derive(Debug, Default)]
pub struct Minio {
    plant: Option<Plant>,
    drives: BTreeMap<MemberId, Drive>,
    slots: BTreeMap<MemberId, u32>,
    processes: BTreeMap<MemberId, Process>,
    formatted: bool,
    had_data: BTreeSet<MemberId>,
    /// Told to stop, and not back yet.
    stopped: BTreeSet<MemberId>,
    /// What each server was started as last, running or not.
    configs: BTreeMap<MemberId, String>,
    objects: u32,
    hosts: usize,
    lost: Option<String>,
}

impl Minio {
    /// With a planted bug, or without.
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// Drives whose loss every object survives.
    const fn parity(&self) -> usize {
        match self.hosts {
            0 | 1 => 0,
            2 | 3 => 1,
            _ => 2,
        }
    }

    const fn read_quorum(&self) -> usize {
        self.hosts - self.parity()
    }

    const fn write_quorum(&self) -> usize {
        let data = self.read_quorum();
        if data == self.parity() { data + 1 } else { data }
    }

    /// One moment.
    pub fn tick(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        let running = runs(moment.hosts, S3, moment.now);
        if running.is_empty() && self.drives.is_empty() {
            return Ok(());
        }
        let has_data = |id: &MemberId| {
            moment.hosts.iter().any(|host| host.volumes.get(id).is_some_and(|volume| volume.data))
        };
        let before = self.drives.len();
        self.drives.retain(|id, _| has_data(id));
        self.stopped.retain(|id| has_data(id));
        if self.drives.len() < before {
            self.judge_objects()?;
        }
        self.processes.retain(|id, process| {
            running.iter().any(|(member, at)| member == id && *at == process.host && !process.over)
        });
        for (member, at) in &running {
            if !self.processes.contains_key(member) {
                self.begin(moment, *member, *at);
            }
        }
        self.meet(moment);
        self.format(moment)?;
        self.heal(moment);
        self.put(moment);
        self.lost.take().map_or(Ok(()), Err)
    }

    fn begin(&mut self, moment: &mut Moment<'_>, member: MemberId, at: usize) {
        let host = &moment.hosts[at];
        let Some(container) = host.containers.get(&member) else { return };
        let Some(address) = container.seen.addresses.values().next().copied() else { return };
        let rendered = &container.made_of.rendered;
        let names = file(host, member, "/etc/hosts");
        self.hosts = names.lines().filter(|line| !line.ends_with("localhost")).count().max(1);
        let slot = container.seen.slot.index;
        let process = Process {
            host: at,
            slot,
            at: address,
            config: format!("{} {:?} {:?}", rendered.image, rendered.command, rendered.env),
            online: false,
            sees_at: moment.now + moment.rng.between(500, BLIND),
            over: false,
        };
        self.slots.insert(member, slot);
        self.configs.insert(member, process.config.clone());
        self.processes.insert(member, process);
    }

    /// The members that a member finds under the names it was given.
    fn peers(&self, hosts: &[FakeHost], member: MemberId, now: u64) -> Vec<MemberId> {
        let Some(me) = self.processes.get(&member) else { return Vec::new() };
        let names = file(&hosts[me.host], member, "/etc/hosts");
        let addresses: Vec<Ipv4Addr> =
            names.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        let near = |other: &Process| {
            addresses.contains(&other.at) && super::reach(&hosts[me.host], &hosts[other.host], now)
        };
        self.processes.iter().filter(|(id, other)| **id != member && near(other)).map(|(id, _)| *id).collect()
    }

    /// Members whose drives a member reaches, its own among them.
    fn reaches(&self, hosts: &[FakeHost], member: MemberId, now: u64) -> Vec<MemberId> {
        let mut all = self.peers(hosts, member, now);
        all.push(member);
        all.retain(|id| self.processes[id].online && self.drives.contains_key(id));
        all
    }

    /// A server begins to serve once enough others are as it is; later it looks no more.
    fn meet(&mut self, moment: &Moment<'_>) {
        let waiting: Vec<MemberId> =
            self.processes.iter().filter(|(_, process)| !process.online).map(|(id, _)| *id).collect();
        for member in waiting {
            let config = &self.processes[&member].config;
            let peers = self.peers(moment.hosts, member, moment.now);
            let same = peers.iter().filter(|id| self.processes[id].config == *config).count();
            if same >= (self.hosts - 1) / 2
                && let Some(process) = self.processes.get_mut(&member)
            {
                process.online = true;
                self.stopped.remove(&member);
            }
        }
    }

    /// The set is formatted when all are there; a fresh drive of a formatted set is filled from the others.
    fn format(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        let fresh: Vec<MemberId> = self
            .processes
            .iter()
            .filter(|(id, process)| process.online && !self.drives.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        let Some(first) = fresh.first().copied() else { return Ok(()) };
        let all = self.peers(moment.hosts, first, moment.now).len() + 1 >= self.hosts;
        let whole_set = fresh.len() >= self.hosts && all;
        if whole_set && self.formatted {
            return Err("the drives were formatted a second time".to_owned());
        }
        for member in fresh {
            let filled = self.reaches(moment.hosts, member, moment.now).len() >= self.read_quorum();
            if !(whole_set || self.formatted && filled) {
                continue;
            }
            if !self.had_data.insert(member) {
                return Err(format!("the emptied drive of member {member} was taken as a new one"));
            }
            let until = moment.now + moment.rng.between(HEALING.0, HEALING.1);
            let heals_until = (!whole_set).then_some(until);
            self.drives.insert(member, Drive { heals_until, ..Drive::default() });
            let host = self.processes[&member].host;
            moment.hosts[host].volumes.entry(member).or_default().data = true;
        }
        self.formatted |= whole_set;
        Ok(())
    }

    /// What a drive lacks comes back from the others.
    fn heal(&mut self, moment: &Moment<'_>) {
        let members: Vec<MemberId> = self.drives.keys().copied().collect();
        for member in members {
            let near = match self.processes.get(&member) {
                Some(process) if process.online => self.reaches(moment.hosts, member, moment.now),
                _ => continue,
            };
            let due = self.drives[&member].heals_until.is_none_or(|until| until <= moment.now);
            if near.len() < self.read_quorum() || !due {
                continue;
            }
            let copies =
                |object: u32| near.iter().filter(|id| self.drives[id].objects.contains(&object)).count();
            let lacks = (0..self.objects).filter(|object| !self.drives[&member].objects.contains(object));
            let lacks: Vec<u32> = lacks.filter(|object| copies(*object) >= self.read_quorum()).collect();
            let fresh = self.drives[&member].heals_until.is_some();
            let count = if fresh { lacks.len() } else { HEALED };
            if let Some(drive) = self.drives.get_mut(&member) {
                drive.objects.extend(lacks.into_iter().take(count));
                drive.heals_until = None;
            }
        }
    }

    /// One object is written through the first member that takes it.
    fn put(&mut self, moment: &Moment<'_>) {
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        let through = members.into_iter().find(|member| self.takes(moment.hosts, *member, moment.now));
        let Some(through) = through else { return };
        let object = self.objects;
        self.objects += 1;
        for member in self.reaches(moment.hosts, through, moment.now) {
            if let Some(drive) = self.drives.get_mut(&member) {
                drive.objects.insert(object);
            }
        }
    }

    /// Whether a canary passes through the member.
    fn takes(&self, hosts: &[FakeHost], member: MemberId, now: u64) -> bool {
        let Some(process) = self.processes.get(&member) else { return false };
        let spared = usize::from(self.plant == Some(Plant::WeakQuorum));
        process.online
            && process.sees_at <= now
            && self.reaches(hosts, member, now).len() + spared >= self.write_quorum()
    }

    /// Every acknowledged object must be on as many drives as a read needs, wherever they are.
    fn judge_objects(&self) -> Result<(), String> {
        for object in 0..self.objects {
            let slots: BTreeSet<u32> = self
                .drives
                .iter()
                .filter(|(_, drive)| drive.objects.contains(&object))
                .filter_map(|(id, _)| self.slots.get(id).copied())
                .collect();
            if slots.len() < self.read_quorum() {
                let (left, need) = (slots.len(), self.read_quorum());
                return Err(format!("object {object} is on {left} drives, {need} are needed to read it"));
            }
        }
        Ok(())
    }

    /// A container is told to stop: never more of them, by our own doing, than there may be missing. What hosts take down
    /// meanwhile is not ours: an agent that was cut off carries out late what was decided while all served.
    pub fn stop(&mut self, member: MemberId) {
        let Some(process) = self.processes.get_mut(&member) else { return };
        process.over = true;
        let config = process.config.clone();
        // A changed server serves only together with a second one: the first two are changed back to back.
        // The first of them may be down with its host by then.
        let changed = |id: &MemberId| self.configs.get(id).is_some_and(|other| *other != config);
        let lone = self.processes.values().any(|process| !process.online && process.config != config)
            || self.stopped.iter().any(changed);
        if self.drives.contains_key(&member) {
            self.stopped.insert(member);
        }
        let (stopped, parity) = (self.stopped.len(), self.parity());
        if self.hosts > 1 && stopped > parity && !lone {
            self.lost =
                Some(format!("with member {member} {stopped} servers are stopped, {parity} may be missing"));
        }
    }

    /// Whether every object is on enough other drives.
    pub fn spares(&self, member: MemberId) -> bool {
        let others = self.drives.iter().filter(|(id, _)| **id != member);
        let full = |drive: &Drive| drive.objects.len() as u32 == self.objects && drive.heals_until.is_none();
        self.hosts > 1
            && self.formatted
            && others.filter(|(_, drive)| full(drive)).count() >= self.read_quorum()
    }

    /// Whether it serves as its role asks.
    pub fn ready(&self, hosts: &[FakeHost], member: MemberId, now: u64) -> bool {
        self.takes(hosts, member, now)
    }

    /// What is still missing when everything should be right.
    pub fn missing(&self) -> Option<String> {
        self.judge_objects().err().or_else(|| {
            let heals = self.drives.values().any(|drive| drive.heals_until.is_some());
            heals.then(|| "s3: a drive heals".to_owned())
        })
    }
}
