//! The fake PostgreSQL: a model of Patroni's lock in etcd, and of its synchronous standby.

use std::collections::BTreeMap;

use muster_model::ids::MemberId;
use muster_model::observed::{Answer, ProbeResult, TaskOutcome};
use muster_model::plan::HttpAsk;
use serde_json::{Value, json};

use super::etcd::{Locks, is_etcd};
use super::{reach, serves};
use crate::host::{Container, FakeHost};
use crate::plant::Plant;
use crate::world::stamp;

/// The lock's time to live, and how long a leader acts without having reached it.
const TTL: u64 = 20_000;
const ACTS_ALONE: u64 = 10_000;
/// Time that a replica needs to copy its leader.
const COPY: u64 = 2_000;
/// A standby that does not stream is given up after this.
const STANDBY_PATIENCE: u64 = 2_000;

/// What one database process knows.
#[derive(Debug, Clone, Default)]
struct Process {
    acting: bool,
    streaming: bool,
    reached_lock: u64,
    copies_since: Option<u64>,
}

/// The database cluster, as it is in etcd and in the processes.
#[derive(Debug, Default)]
pub struct Database {
    plant: Option<Plant>,
    locks: Locks,
    holder: Option<MemberId>,
    expires: u64,
    standby: Option<MemberId>,
    sync_leader: Option<MemberId>,
    standby_lost: Option<u64>,
    initialised: Option<MemberId>,
    timeline: u64,
    acknowledged: u64,
    processes: BTreeMap<MemberId, Process>,
}

/// Where a container belongs, by the name of its service.
fn is_postgres(container: &Container) -> bool {
    container.seen.slot.service.as_str() == super::POSTGRES
}

impl Database {
    /// With a planted bug, or without.
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// One moment. Returns what must never happen, if it did.
    pub fn tick(&mut self, hosts: &mut [FakeHost], now: u64) -> Result<(), String> {
        self.start_etcd(hosts, now)?;
        let quorum: Vec<bool> = hosts.iter().map(|host| self.locks.quorum(hosts, host, now)).collect();
        let running: Vec<(MemberId, usize, bool)> = hosts
            .iter()
            .enumerate()
            .flat_map(|(at, host)| {
                let here = host.containers.iter().filter(|(_, c)| is_postgres(c) && serves(c, now));
                here.map(move |(id, c)| (*id, at, joins(c)))
            })
            .collect();
        self.processes.retain(|id, _| running.iter().any(|(member, ..)| member == id));
        if self.holder.is_some() && now >= self.expires {
            self.holder = None;
        }
        for (member, at, joins) in &running {
            self.step(hosts, *member, *at, *joins, quorum[*at], now)?;
        }
        self.elect(hosts, &running, &quorum, now)?;
        self.replicate(hosts, &running, &quorum, now);
        let acting = self.processes.values().filter(|p| p.acting).count();
        if acting > 1 {
            return Err(format!("{acting} members acknowledge writes"));
        }
        Ok(())
    }

    fn start_etcd(&mut self, hosts: &mut [FakeHost], now: u64) -> Result<(), String> {
        for host in hosts.iter_mut().filter(|host| host.on(now)) {
            let starting: Vec<MemberId> = host
                .containers
                .iter()
                .filter(|(_, c)| is_etcd(c) && serves(c, now))
                .map(|(id, _)| *id)
                .collect();
            for id in starting {
                let volume = host.volumes.entry(id).or_default();
                if !volume.data && host.ruined.contains(&id) {
                    return Err(format!(
                        "etcd member {id} was initialised a second time after its data was lost"
                    ));
                }
                if !volume.data {
                    let container = &host.containers[&id];
                    volume.data = self.locks.start(container)?;
                }
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        hosts: &mut [FakeHost],
        member: MemberId,
        at: usize,
        joins: bool,
        quorum: bool,
        now: u64,
    ) -> Result<(), String> {
        let leader = self.leader(hosts);
        let linked = leader.is_some_and(|(_, on)| reach(&hosts[on], &hosts[at], now));
        let position = leader.and_then(|(id, on)| hosts[on].volumes.get(&id)).map(|volume| volume.position);
        let host = &mut hosts[at];
        let volume = host.volumes.entry(member).or_default();
        let process = self.processes.entry(member).or_default();
        if !volume.data {
            if host.ruined.contains(&member) {
                return Err(format!("member {member} was started although its data was lost"));
            }
            if self.initialised.is_none() && quorum && !joins {
                self.initialised = Some(member);
                volume.data = true;
                (self.holder, self.expires, self.timeline) = (Some(member), now + TTL, 1);
            } else if linked && leader.is_some_and(|(id, _)| id != member) {
                let since = *process.copies_since.get_or_insert(now);
                if now - since >= COPY {
                    volume.data = true;
                    volume.position = position.unwrap_or_default();
                }
            }
            return Ok(());
        }
        if self.holder == Some(member) {
            if quorum {
                self.expires = now + TTL;
                process.reached_lock = now;
                process.acting = true;
            } else if now - process.reached_lock >= ACTS_ALONE && self.plant != Some(Plant::ActsOn) {
                process.acting = false;
            }
            process.streaming = false;
        } else {
            process.acting &= self.plant == Some(Plant::ActsOn);
            process.streaming = linked && leader.is_some_and(|(id, _)| id != member);
            if process.streaming {
                volume.position = position.unwrap_or_default();
            }
        }
        Ok(())
    }

    /// The member that acts as leader, and the host that it is on.
    fn leader(&self, hosts: &[FakeHost]) -> Option<(MemberId, usize)> {
        let (id, _) = self.processes.iter().find(|(_, process)| process.acting)?;
        let at = hosts.iter().position(|host| host.containers.contains_key(id))?;
        Some((*id, at))
    }

    fn elect(
        &mut self,
        hosts: &[FakeHost],
        running: &[(MemberId, usize, bool)],
        quorum: &[bool],
        now: u64,
    ) -> Result<(), String> {
        if self.holder.is_some() || self.initialised.is_none() {
            return Ok(());
        }
        let may = |id: &MemberId| {
            self.sync_leader.is_none() || self.sync_leader == Some(*id) || self.standby == Some(*id)
        };
        let data = |id: &MemberId, at: &usize| hosts[*at].volumes.get(id).is_some_and(|v| v.data);
        let winner = running.iter().find(|(id, at, _)| quorum[*at] && data(id, at) && may(id));
        let Some((member, at, _)) = winner else { return Ok(()) };
        let position = hosts[*at].volumes.get(member).map_or(0, |v| v.position);
        if position < self.acknowledged {
            return Err(format!(
                "member {member} leads with {position} of {} acknowledged writes",
                self.acknowledged
            ));
        }
        (self.holder, self.expires) = (Some(*member), now + TTL);
        (self.sync_leader, self.standby) = (Some(*member), None);
        self.timeline += 1;
        if let Some(process) = self.processes.get_mut(member) {
            process.reached_lock = now;
        }
        Ok(())
    }

    fn replicate(
        &mut self,
        hosts: &mut [FakeHost],
        running: &[(MemberId, usize, bool)],
        quorum: &[bool],
        now: u64,
    ) {
        let Some((leader, at)) = self.leader(hosts) else { return };
        let streams =
            |id: &MemberId, all: &BTreeMap<MemberId, Process>| all.get(id).is_some_and(|p| p.streaming);
        if quorum[at] {
            match self.standby {
                Some(standby) if !streams(&standby, &self.processes) => {
                    let since = *self.standby_lost.get_or_insert(now);
                    if now - since >= STANDBY_PATIENCE {
                        self.standby = None;
                    }
                }
                Some(_) => self.standby_lost = None,
                None => {
                    self.standby_lost = None;
                    self.standby = running.iter().map(|(id, ..)| *id).find(|id| streams(id, &self.processes));
                }
            }
            self.sync_leader = Some(leader);
        }
        let alone = self.plant == Some(Plant::AcksAlone);
        let commits = alone || self.standby.is_none_or(|standby| streams(&standby, &self.processes));
        let Some(volume) = hosts[at].volumes.get_mut(&leader) else { return };
        volume.position += 1;
        let position = volume.position;
        for (id, on, _) in running {
            if streams(id, &self.processes)
                && let Some(volume) = hosts[*on].volumes.get_mut(id)
            {
                volume.position = position;
            }
        }
        if commits && self.sync_leader == Some(leader) {
            self.acknowledged = position;
        }
    }

    /// Gives the lock of a stopped member away; without `anyway` only if its standby streams.
    pub fn release(&mut self, member: MemberId, anyway: bool) -> bool {
        let streams = self.standby.is_some_and(|id| self.processes.get(&id).is_some_and(|p| p.streaming));
        let may = self.holder == Some(member) && (anyway || (streams && self.sync_leader == Some(member)));
        if may {
            self.holder = None;
        }
        may
    }

    /// Moves the lock, if the candidate is good.
    fn switch(&mut self, from: MemberId, to: MemberId, now: u64) -> Result<(), String> {
        let good = self.standby == Some(to) && self.processes.get(&to).is_some_and(|p| p.streaming);
        if self.holder != Some(from) || !good {
            return Err("the candidate does not stream".to_owned());
        }
        (self.holder, self.expires) = (Some(to), now + TTL);
        (self.sync_leader, self.standby) = (Some(to), None);
        self.timeline += 1;
        for (id, process) in &mut self.processes {
            process.acting = false;
            if *id == to {
                process.reached_lock = now;
            }
        }
        Ok(())
    }

    /// Whether a container truly does what its role asks.
    #[must_use]
    pub fn ready(&self, hosts: &[FakeHost], host: &FakeHost, member: MemberId, now: u64) -> bool {
        let Some(container) = host.containers.get(&member).filter(|c| serves(c, now)) else { return false };
        if is_etcd(container) {
            return self.locks.votes(container) && self.locks.quorum(hosts, host, now);
        }
        self.processes.get(&member).is_some_and(|p| p.acting || p.streaming)
    }

    /// What the probes of a container say.
    #[must_use]
    pub fn probes(
        &self,
        hosts: &[FakeHost],
        host: &FakeHost,
        member: MemberId,
        now: u64,
    ) -> Vec<ProbeResult> {
        let Some(container) = host.containers.get(&member).filter(|c| serves(c, now)) else {
            return Vec::new();
        };
        let ready = self.ready(hosts, host, member, now);
        let bodies: Vec<(&str, bool, Value)> = if is_etcd(container) {
            let id = member.to_string();
            let learns = self.locks.learns(container) && self.locks.quorum(hosts, host, now);
            vec![
                ("health", ready, json!({ "health": if ready { "true" } else { "false" } })),
                (
                    "status",
                    ready || learns,
                    json!({
                        "header": { "member_id": id },
                        "leader": if ready || learns { "1" } else { "0" },
                        "isLearner": learns,
                    }),
                ),
                ("alarm", true, json!({})),
            ]
        } else {
            self.patroni(member, container, ready, host.volumes.get(&member).is_some_and(|v| v.data))
        };
        let result = |(name, ok, body): (&str, bool, Value)| ProbeResult {
            name: name.to_owned(),
            at: stamp(now),
            took_ms: 1,
            answer: Answer { ok, code: Some(if ok { 200 } else { 503 }), body: body.to_string() },
        };
        bodies.into_iter().map(result).collect()
    }

    fn patroni(
        &self,
        member: MemberId,
        container: &Container,
        ready: bool,
        has_data: bool,
    ) -> Vec<(&'static str, bool, Value)> {
        let process = self.processes.get(&member).cloned().unwrap_or_default();
        let role = if process.acting { "primary" } else { "replica" };
        let slot = &container.seen.slot;
        let name = format!("{}-{}-{member}", slot.service, slot.index);
        let mut body = json!({
            "state": if ready || process.acting { "running" } else { "starting" },
            "role": role,
            "timeline": self.timeline,
        });
        if has_data {
            body["database_system_identifier"] = json!("7301");
        }
        if process.streaming {
            body["replication_state"] = json!("streaming");
        }
        if self.standby == Some(member) {
            body["sync_standby"] = json!(true);
        }
        vec![
            ("patroni", true, body),
            ("cluster", true, json!({ "members": [{ "name": name, "lag": 0 }] })),
            ("write", true, json!([if process.acting { "7" } else { "replica" }])),
        ]
    }

    /// Whether the data of this member is on others too, by the promise of the synchronous mode.
    #[must_use]
    pub fn spares(&self, member: MemberId) -> bool {
        self.initialised.is_some()
            && self.whole()
            && self.holder != Some(member)
            && self.sync_leader != Some(member)
            && self.standby != Some(member)
    }

    /// Whether a synchronous standby streams from a leader, if there is a cluster at all.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.initialised.is_none() || (self.holder.is_some() && self.standby.is_some())
    }

    /// A task: a call to etcd, or a switchover by Patroni.
    pub fn task(
        &mut self,
        hosts: &[FakeHost],
        at: usize,
        member: MemberId,
        ask: &HttpAsk,
        now: u64,
    ) -> TaskOutcome {
        if ask.path.starts_with("/v3/cluster/") {
            return match self.locks.call(hosts, at, member, ask, now) {
                Ok(answer) => TaskOutcome::Done { answer },
                Err(why) => TaskOutcome::Failed { why },
            };
        }
        let body: Value = serde_json::from_str(ask.body.as_deref().unwrap_or("{}")).unwrap_or_default();
        let member = |key: &str| {
            let number = body[key].as_str()?.rsplit_once('-')?.1.parse().ok()?;
            Some(MemberId(number))
        };
        match member("leader").zip(member("candidate")) {
            Some((from, to)) => match self.switch(from, to, now) {
                Ok(()) => TaskOutcome::Done { answer: String::new() },
                Err(why) => TaskOutcome::Refused { why },
            },
            None => TaskOutcome::Failed { why: "no candidate".to_owned() },
        }
    }
}

fn joins(container: &Container) -> bool {
    container.made_of.rendered.files.iter().any(|file| file.content.contains("method: never"))
}
