//! The fake Redis in mode `replicated`: one master and its replicas, asynchronous copies, streams with offsets, the start
//! script that looks around, the hand-over of the engine. Ground truth: at most one takes writes, and an acknowledged row is lost
//! only when another one takes over from a lost master, or with its host's power; then no more than that can explain.

mod calls;
mod process;
mod rows;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::MemberId;

use self::process::{Disk, HandOver, Process, Role};
use self::rows::{Content, Row, Rows};
use super::{Moment, REPLICATED, file, runs};
use crate::plant::Plant;
use crate::world::TICK;

/// A full copy from the master.
const COPY: u64 = 1_500;
/// A replica that said nothing for longer does not count for `min-replicas-to-write`.
const LAG_MAX: u64 = 5_000;
/// What a log may lack after its host's power was cut.
const UNSYNCED: u64 = 1_000;
/// Time between two heartbeats of a master's agent.
const BEAT: u64 = 2_000;
/// An operator's word that a host is off or does not matter counts for so long.
const WORD: u64 = 60_000;

/// One service.
#[derive(Debug, Default)]
pub struct Replicated {
    plant: Option<Plant>,
    rows: Rows,
    disks: BTreeMap<MemberId, Disk>,
    processes: BTreeMap<MemberId, Process>,
    streams: u64,
    min_replicas: usize,
    /// The newest acknowledged row that counts, and who acknowledged it.
    newest: Option<Row>,
    last: Option<MemberId>,
    /// Who may lead in which term, as it was written.
    terms: BTreeMap<u64, MemberId>,
    /// Hosts that an operator spoke of, and when.
    words: BTreeMap<usize, u64>,
    wrong: Option<String>,
}

impl Replicated {
    /// With a planted bug, or without.
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// One moment.
    pub fn tick(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        let running = runs(moment.hosts, REPLICATED, moment.now);
        if running.is_empty() && self.disks.is_empty() {
            return Ok(());
        }
        let has_data = |id: &MemberId| {
            moment.hosts.iter().any(|host| host.volumes.get(id).is_some_and(|volume| volume.data))
        };
        self.disks.retain(|id, _| has_data(id));
        self.end(moment, &running);
        for (member, at) in &running {
            if !self.processes.contains_key(member) {
                self.begin(moment, *member, *at);
            }
        }
        self.settle(moment);
        self.copy(moment);
        self.hand_over(moment);
        self.write(moment)?;
        self.wrong.take().map_or(Ok(()), Err)
    }

    /// Processes that do not run any more. Power that was cut takes what the log had not on the disk yet.
    fn end(&mut self, moment: &mut Moment<'_>, running: &[(MemberId, usize)]) {
        let is_over = |id: &MemberId, process: &Process| {
            let runs = running.iter().any(|(member, at)| member == id && *at == process.host);
            !runs || process.over || moment.hosts[process.host].cuts != process.cuts
        };
        let over: Vec<MemberId> =
            self.processes.iter().filter(|(id, p)| is_over(id, p)).map(|(id, _)| *id).collect();
        for member in over {
            let Some(process) = self.processes.remove(&member) else { continue };
            let Some(disk) = self.disks.get_mut(&member) else { continue };
            if moment.hosts[process.host].cuts == process.cuts {
                continue;
            }
            disk.cuts.push(moment.now);
            for _ in 0..moment.rng.below(3) {
                let unsynced =
                    |row: &Row| self.rows.at(*row) + UNSYNCED > moment.now && disk.synced != Some(*row);
                let Some(row) = disk.head.filter(unsynced) else { break };
                disk.head = self.rows.before(row);
            }
        }
    }

    fn begin(&mut self, moment: &mut Moment<'_>, member: MemberId, at: usize) {
        let host = &mut moment.hosts[at];
        let address = host.containers.get(&member).and_then(|c| c.seen.addresses.values().next().copied());
        let Some(address) = address else { return };
        let config = file(host, member, "/muster/redis.conf");
        let least = config.lines().find_map(|line| line.strip_prefix("min-replicas-to-write "));
        self.min_replicas = least.and_then(|count| count.parse().ok()).unwrap_or(0);
        host.volumes.entry(member).or_default().data = true;
        self.disks.entry(member).or_default();
        self.streams += 1;
        let mut process = Process::new(at, address, host.cuts, self.streams);
        if self.plant == Some(Plant::StartsFree) {
            process.lead(self.streams, false);
        }
        self.processes.insert(member, process);
    }

    /// The start script, as in `replica.sh`: looks around, and does a moment later what it decided then.
    fn settle(&mut self, moment: &Moment<'_>) {
        let settling = |p: &Process| p.settles && p.role == Role::Follows(Ipv4Addr::LOCALHOST);
        let members: Vec<MemberId> =
            self.processes.iter().filter(|(_, p)| settling(p)).map(|(id, _)| *id).collect();
        for member in members {
            let seen = self.look_around(moment, member);
            let Some(process) = self.processes.get_mut(&member) else { continue };
            match std::mem::replace(&mut process.resolved, seen) {
                Some(Role::Master) => {
                    self.streams += 1;
                    process.lead(self.streams, false);
                }
                Some(Role::Follows(master)) => process.follow(master),
                None => {}
            }
        }
    }

    fn look_around(&self, moment: &Moment<'_>, member: MemberId) -> Option<Role> {
        let (epoch, leads) = self.rows.term(self.disks.get(&member)?.head)?;
        let own = self.processes.get(&member)?;
        let peers = file(&moment.hosts[own.host], member, "/muster/peers");
        let (mut silent, mut other, mut lead) = (peers.is_empty(), false, None);
        for line in peers.lines() {
            let address: Ipv4Addr = line.parse().ok()?;
            let Some((peer, process)) = self.at(moment, own.host, address) else {
                silent = true;
                continue;
            };
            let said = self.rows.term(self.disks[&peer].head).map_or(0, |(epoch, _)| epoch);
            other |= said > epoch;
            match process.role {
                Role::Master if said < epoch => other = true,
                Role::Master => lead = Some(address),
                Role::Follows(whom) => other |= whom != Ipv4Addr::LOCALHOST && whom != own.at,
            }
        }
        match lead {
            Some(address) => Some(Role::Follows(address)),
            None => (leads == member && !silent && !other).then_some(Role::Master),
        }
    }

    /// Who answers at an address, as seen from a host.
    fn at(&self, moment: &Moment<'_>, from: usize, address: Ipv4Addr) -> Option<(MemberId, &Process)> {
        let near = |p: &Process| p.at == address && moment.reach(from, p.host);
        self.processes.iter().find(|(_, process)| near(process)).map(|(id, process)| (*id, process))
    }

    /// Replicas take what their master has, one step behind it; what cannot be continued is copied as a whole.
    fn copy(&mut self, moment: &Moment<'_>) {
        let now = moment.now;
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        for member in members {
            let Role::Follows(address) = self.processes[&member].role else { continue };
            let own = &self.processes[&member];
            let master = self.at(moment, own.host, address).filter(|(id, _)| *id != member);
            // Replicas of replicas get what those have.
            let source = master.map(|(id, p)| {
                let continues = p.can_continue(own.stream, own.offset) && own.offset > 1;
                (self.disks[&id].head, p.offset, p.stream, p.leads() || p.linked(now), continues)
            });
            let Some(process) = self.processes.get_mut(&member) else { continue };
            let Some((head, offset, stream, _, continues)) = source.filter(|source| source.3) else {
                (process.link, process.coming) = (None, None);
                continue;
            };
            let until = *process.link.get_or_insert(if continues { now } else { now + COPY });
            if until > now {
                continue;
            }
            let disk = self.disks.entry(member).or_default();
            let first = process.coming.is_none();
            // At first the rest of a stream is only asked for.
            let came =
                process.coming.replace((head, offset)).or_else(|| (!continues).then_some((head, offset)));
            if let Some((row, offset)) = came {
                (disk.head, process.offset, disk.taken) = (row, offset, now);
            }
            if first {
                (process.stream, process.earlier) = (stream, None);
            }
            process.heard = now;
        }
    }

    /// The engine's own hand-over: writes are held until the replica has everything, then the master follows it.
    fn hand_over(&mut self, moment: &mut Moment<'_>) {
        let now = moment.now;
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        for member in members {
            let (host, own) = (self.processes[&member].host, self.processes[&member].at);
            let (offset, stream) = (self.processes[&member].offset, self.processes[&member].stream);
            match self.processes[&member].hand_over {
                None => {}
                Some(HandOver::Waits { to, until }) => {
                    let early = self.plant == Some(Plant::HandsOverEarly);
                    let has_all = self.processes.get(&to).filter(|p| {
                        let complete = p.offset == offset || early;
                        complete
                            && p.role == Role::Follows(own)
                            && p.linked(now)
                            && moment.reach(host, p.host)
                    });
                    let address = has_all.map(|p| p.at);
                    let Some(process) = self.processes.get_mut(&member) else { continue };
                    if let Some(address) = address {
                        process.follow(address);
                        process.hand_over = Some(HandOver::Asks { to });
                    } else if until <= now {
                        process.hand_over = None;
                    }
                }
                Some(HandOver::Asks { to }) => {
                    let Some(heir) = self.processes.get(&to).filter(|p| moment.reach(host, p.host)) else {
                        continue;
                    };
                    // Only a replica in the same stream takes over; another one refuses, and the old master goes on.
                    let takes = heir.stream == stream && heir.role == Role::Follows(own);
                    self.streams += 1;
                    let next = self.streams;
                    if takes && let Some(heir) = self.processes.get_mut(&to) {
                        heir.lead(next, true);
                    }
                    let Some(process) = self.processes.get_mut(&member) else { continue };
                    process.hand_over = None;
                    if !takes {
                        process.lead(next, true);
                    }
                }
            }
        }
    }

    /// Whether it acknowledges a write now.
    fn takes_writes(&self, member: MemberId, now: u64) -> bool {
        let Some(process) = self.processes.get(&member).filter(|p| p.leads() && !p.holds()) else {
            return false;
        };
        let good =
            |p: &&Process| p.role == Role::Follows(process.at) && p.linked(now) && now - p.heard <= LAG_MAX;
        self.processes.values().filter(good).count() >= self.min_replicas
    }

    /// Every master that may acknowledges one row.
    fn write(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let now = moment.now;
        let masters: Vec<MemberId> =
            self.processes.iter().filter(|(_, p)| p.leads()).map(|(id, _)| *id).collect();
        let unknown = |id: &&MemberId| !self.is_spoken_of(self.processes[*id].host, now);
        if masters.iter().filter(unknown).count() > 1 {
            return Err(format!("members {masters:?} are masters at the same time"));
        }
        for member in masters {
            if !self.takes_writes(member, now) {
                continue;
            }
            let head = self.disks[&member].head;
            if let Some(planned) = self.processes.get_mut(&member).and_then(|p| p.made.take()) {
                self.account(moment, member, planned)?;
            } else if let Some(newest) = self.newest.filter(|newest| !self.rows.contains(head, *newest)) {
                let (has, of) = (head.map_or(0, |row| self.rows.number(row)), self.rows.number(newest));
                return Err(format!("member {member} takes writes with {has} rows, {of} were acknowledged"));
            }
            let content = if now.is_multiple_of(BEAT) { Content::Beat } else { Content::Value };
            let row = self.rows.write(head, now, content);
            self.put(member, row);
            (self.newest, self.last) = (Some(row), Some(member));
        }
        Ok(())
    }

    fn put(&mut self, member: MemberId, row: Row) {
        self.disks.entry(member).or_default().head = Some(row);
        if let Some(process) = self.processes.get_mut(&member) {
            process.offset += 1;
        }
    }

    fn is_spoken_of(&self, host: usize, now: u64) -> bool {
        self.words.get(&host).is_some_and(|at| now - at <= WORD)
    }

    /// What a new master may lack: nothing after a hand-over; what it had not received yet of a master that was lost, and nothing
    /// that another replica has; after a restart nothing but what its host's power took.
    fn account(&mut self, moment: &Moment<'_>, member: MemberId, planned: bool) -> Result<(), String> {
        let now = moment.now;
        let disk = &self.disks[&member];
        let lost = self.rows.lacking(disk.head, self.newest);
        let torn = |row: &Row| self.is_torn(member, self.rows.at(*row));
        if disk.head.is_none() && !lost.iter().all(torn) {
            return Err(format!("member {member} leads and is empty"));
        }
        for row in lost {
            let (at, number) = (self.rows.at(row), self.rows.number(row));
            let torn = |id: MemberId| self.is_torn(id, at);
            if planned {
                return Err(format!("member {member} was handed the role without acknowledged row {number}"));
            }
            if self.last == Some(member) {
                if !torn(member) {
                    return Err(format!("member {member} leads again without acknowledged row {number}"));
                }
                continue;
            }
            if at + 2 * TICK < disk.taken && !torn(member) && !self.last.is_some_and(torn) {
                return Err(format!("member {member} leads without row {number}, which it had received"));
            }
            let better = self.processes.iter().find(|(other, process)| {
                let readable = moment.hosts[process.host].engine(now)
                    && moment.reach(self.processes[&member].host, process.host)
                    && !self.is_spoken_of(process.host, now);
                let has = self.rows.contains(self.disks[*other].head, row);
                Some(**other) != self.last && readable && has && !self.looks_alike(member, **other)
            });
            if let Some((other, _)) = better {
                return Err(format!("member {member} leads without row {number}, which member {other} has"));
            }
        }
        self.newest = disk.head;
        Ok(())
    }

    /// Whether nothing tells that the other one has more than a new master had: as many heartbeats, and its place in the stream is
    /// forgotten since its start, or of another stream.
    fn looks_alike(&self, member: MemberId, other: MemberId) -> bool {
        let beats = |member: MemberId| self.rows.beats(self.disks[&member].head);
        let place = &self.processes[&other];
        let own = self.processes[&member].earlier;
        let apart = own.is_some_and(|(stream, offset)| offset > 1 && stream != place.stream);
        beats(member) == beats(other) && (place.offset <= 1 || apart)
    }

    /// Whether power that was cut may have taken what was written then. A replica copies what its master has left.
    fn is_torn(&self, member: MemberId, at: u64) -> bool {
        let cuts = self.disks.get(&member).map(|disk| disk.cuts.as_slice()).unwrap_or_default();
        cuts.iter().any(|cut| at <= *cut && *cut <= at + UNSYNCED + TICK)
    }

    /// An operator says that this host is off, or that what it has does not matter.
    pub fn word(&mut self, host: usize, now: u64) {
        self.words.insert(host, now);
    }

    /// A container is told to stop: its replicas get what they lack first.
    pub fn stop(&mut self, member: MemberId, now: u64) {
        let Some(process) = self.processes.get_mut(&member) else { return };
        process.over = true;
        let (at, offset) = (process.at, process.offset);
        let head = self.disks[&member].head;
        for (other, process) in &mut self.processes {
            if process.role == Role::Follows(at) && process.linked(now) && process.coming.is_some() {
                process.coming = Some((head, offset));
                process.offset = offset;
                if let Some(disk) = self.disks.get_mut(other) {
                    disk.head = head;
                }
            }
        }
    }

    /// Whether a member's data is on another member too, in sync.
    pub fn spares(&self, member: MemberId) -> bool {
        let Some(process) = self.processes.get(&member) else { return false };
        let follows = |of: &Process, whom: &Process| of.role == Role::Follows(whom.at) && of.coming.is_some();
        match process.role {
            Role::Master => self.processes.values().any(|other| follows(other, process)),
            Role::Follows(_) => self.processes.values().any(|other| other.leads() && follows(process, other)),
        }
    }

    /// Empties the data of a stopped member. Not before the first term is in it: until then nobody can tell it from a new one.
    pub fn empty(&mut self, member: MemberId) -> bool {
        if self.rows.term(self.disks.get(&member).and_then(|disk| disk.head)).is_none() {
            return false;
        }
        let cuts = self.disks.remove(&member).map(|disk| disk.cuts).unwrap_or_default();
        self.disks.insert(member, Disk { cuts, ..Disk::default() });
        self.processes.remove(&member);
        true
    }

    /// Whether it serves as its role asks.
    pub fn ready(&self, member: MemberId, now: u64) -> bool {
        let Some(process) = self.processes.get(&member) else { return false };
        if process.leads() { self.takes_writes(member, now) || process.holds() } else { process.linked(now) }
    }

    /// What is still missing when everything should be right.
    pub fn missing(&self) -> Option<String> {
        let masters: Vec<&Process> = self.processes.values().filter(|process| process.leads()).collect();
        let [master] = masters.as_slice() else {
            return (!self.processes.is_empty())
                .then(|| format!("{REPLICATED}: {} masters instead of one", masters.len()));
        };
        let astray = |p: &&Process| !p.leads() && p.role != Role::Follows(master.at);
        let astray = self.processes.values().find(astray);
        astray.map(|process| format!("{REPLICATED}: the server at {} follows another one", process.at))
    }
}
