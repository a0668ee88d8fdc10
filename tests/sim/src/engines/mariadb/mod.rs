//! The fake MariaDB with Galera: views and their quorum, positions, histories, joiners and donors, the one row that says
//! who writes, and what the image's program does before a start. Ground truth: an acknowledged row is never lost, two
//! components never both acknowledge, a database is made once.

mod calls;
mod process;
mod rows;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::MemberId;

use self::process::{Process, Stage};
use self::rows::{Row, Rows};
use super::{MARIADB, Moment, file, runs};
use crate::plant::Plant;

/// Silence after which the others put a member out of their view.
const SUSPECT: u64 = 5_000;
/// Longest wait of a returned member until the others have missed it.
const MISSED: u64 = 40_000;
/// Making the database, taking what was missed, taking a whole copy: milliseconds.
const MAKING: u64 = 2_000;
const CATCH_UP: u64 = 1_000;
const COPY: (u64, u64) = (2_000, 6_000);

/// What is in a member's directory.
#[derive(Debug, Clone, Default)]
struct Disk {
    /// How far it is; none = no history, or a copy that was cut off.
    at: Option<Row>,
    /// The last view, as long as it was not left politely: its number and its members.
    view: Option<(u64, BTreeSet<MemberId>)>,
    /// It was taking what it missed when it was there last: it may be behind the rows of its last view.
    joining: bool,
    /// It left last of all, politely.
    last_to_stop: bool,
    /// The next start may begin the cluster anew from here.
    mark: Option<Row>,
}

/// A component with a majority.
#[derive(Debug, Clone)]
struct View {
    members: BTreeSet<MemberId>,
    at: Row,
    missing_since: Option<u64>,
}

/// The cluster.
#[derive(Debug, Default)]
pub struct Galera {
    plant: Option<Plant>,
    rows: Rows,
    disks: BTreeMap<MemberId, Disk>,
    processes: BTreeMap<MemberId, Process>,
    views: BTreeMap<u64, View>,
    last_view: u64,
    histories: u32,
    acknowledged: Option<Row>,
}

impl Galera {
    /// With a planted bug, or without.
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// One moment.
    pub fn tick(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        let running = runs(moment.hosts, MARIADB, moment.now);
        if running.is_empty() && self.disks.is_empty() {
            return Ok(());
        }
        let has_data = |id: &MemberId| {
            moment.hosts.iter().any(|host| host.volumes.get(id).is_some_and(|volume| volume.data))
        };
        self.disks.retain(|id, _| has_data(id));
        let leaving: Vec<MemberId> =
            self.processes.iter().filter(|(_, process)| process.leaving).map(|(id, _)| *id).collect();
        for member in leaving {
            self.leave(member, &running);
            self.processes.remove(&member);
        }
        self.processes.retain(|id, process| running.contains(&(*id, process.host)));
        for (member, at) in &running {
            if !self.processes.contains_key(member) {
                self.begin(moment, *member, *at);
            }
        }
        self.starts(moment)?;
        let groups = self.groups(moment);
        self.split(&groups, moment.now);
        self.recover(&groups);
        self.join(&groups, moment)?;
        self.write(&groups, moment)
    }

    /// What the image's program reads before it starts the server.
    fn begin(&mut self, moment: &Moment<'_>, member: MemberId, at: usize) {
        let host = &moment.hosts[at];
        let Some(container) = host.containers.get(&member) else { return };
        let form = container.seen.first;
        let (cluster, peers) = process::told(file(host, member, "/muster/member.json"));
        let disk = self.disks.get_mut(&member);
        let makes = disk.is_none() && (form || !cluster);
        if let Some(disk) = disk {
            disk.last_to_stop = false;
            if disk.joining {
                disk.view = None;
            }
        }
        let stage = match () {
            () if makes => Stage::Making { until: moment.now + MAKING },
            () if !cluster => Stage::Begins { anew: false },
            () => Stage::Missed,
        };
        let own = container.seen.addresses.values().next().copied();
        let process = Process {
            host: at,
            begun: moment.now,
            own,
            peers,
            cluster,
            stage,
            view: None,
            at: None,
            looked: false,
            beaten: None,
            leaving: false,
        };
        self.processes.insert(member, process);
    }

    /// Databases are made, clusters begun, and returned members wait until they were missed.
    fn starts(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        for member in members {
            let now = moment.now;
            let (stage, begun) = (self.processes[&member].stage, self.processes[&member].begun);
            match stage {
                Stage::Making { until } if until <= now => self.make(moment, member)?,
                Stage::Begins { anew } => {
                    if anew {
                        self.judge_begin(moment, member)?;
                    }
                    let at = self.disks.get(&member).and_then(|disk| disk.at);
                    if let Some(at) = at {
                        self.install([member].into(), at);
                    }
                }
                Stage::Missed if !self.is_missed(moment, member) && now - begun < MISSED => {}
                Stage::Missed => {
                    let anew = self.begins_by_mark(member);
                    if let Some(process) = self.processes.get_mut(&member) {
                        process.stage = if anew { Stage::Begins { anew } } else { Stage::Apart };
                        process.begun = now;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Nobody that it reaches still has it in its view. Meanwhile its own last view is forgotten.
    fn is_missed(&mut self, moment: &Moment<'_>, member: MemberId) -> bool {
        let me = &self.processes[&member];
        let views: Vec<u64> = self
            .processes
            .values()
            .filter(|other| other.own.is_some_and(|address| me.peers.contains(&address)))
            .filter(|other| moment.reach(me.host, other.host) && other.stage.primary())
            .filter_map(|other| other.view)
            .collect();
        if !views.is_empty()
            && let Some(disk) = self.disks.get_mut(&member)
        {
            disk.view = None;
        }
        let there = |view: &u64| self.views.get(view).is_some_and(|view| view.members.contains(&member));
        !views.iter().any(there)
    }

    /// Whether a mark allows it to begin the cluster anew. It is used up in any case.
    fn begins_by_mark(&mut self, member: MemberId) -> bool {
        let lies = self.plant == Some(Plant::PositionLies);
        let Some(disk) = self.disks.get_mut(&member) else { return false };
        disk.mark.take().is_some_and(|mark| Some(mark) == disk.at || lies)
    }

    fn make(&mut self, moment: &mut Moment<'_>, member: MemberId) -> Result<(), String> {
        let cluster = self.processes[&member].cluster;
        if cluster && (self.acknowledged.is_some() || self.disks.values().any(|disk| disk.at.is_some())) {
            return Err(format!("member {member} made a second database"));
        }
        self.histories += 1;
        let at = self.rows.begin(self.histories, member);
        self.disks.insert(member, Disk { at: Some(at), ..Disk::default() });
        let host = self.processes[&member].host;
        moment.hosts[host].volumes.entry(member).or_default().data = true;
        self.install([member].into(), at);
        Ok(())
    }

    /// A cluster is begun anew: never beside another one, never from behind a volume that can be read.
    fn judge_begin(&self, moment: &Moment<'_>, member: MemberId) -> Result<(), String> {
        if self.views.values().any(|view| !view.members.is_empty()) {
            return Err(format!("member {member} begins a second cluster"));
        }
        let at = self.disks.get(&member).and_then(|disk| disk.at);
        let kept = |id: &MemberId| {
            let on = moment.hosts.iter().find(|host| host.volumes.contains_key(id));
            on.is_some_and(|host| host.on(moment.now) && host.agent.member(*id).is_some())
        };
        let ahead = self.disks.iter().find(|(id, disk)| {
            let ahead = disk
                .at
                .is_some_and(|theirs| at.is_none_or(|mine| self.rows.seqno(theirs) > self.rows.seqno(mine)));
            **id != member && ahead && kept(id)
        });
        match ahead {
            Some((id, _)) => {
                Err(format!("the cluster begins from member {member} although {id} is ahead of it"))
            }
            None => Ok(()),
        }
    }

    /// A process is told to stop.
    pub fn stop(&mut self, member: MemberId) {
        if let Some(process) = self.processes.get_mut(&member) {
            process.leaving = true;
        }
    }

    /// One that was told to stop hands the writing over and leaves its view; without the others' answer it is only gone.
    fn leave(&mut self, member: MemberId, running: &[(MemberId, usize)]) {
        let Some(process) = self.processes.get_mut(&member) else { return };
        let Some(id) = process.view.take() else { return };
        let Some(mut view) = self.views.get(&id).cloned() else { return };
        let alive = |other: &MemberId| {
            let process = self.processes.get(other);
            process.is_some_and(|p| running.contains(&(*other, p.host)) && p.view == Some(id))
        };
        if view.members.iter().any(|other| *other != member && !alive(other)) {
            return;
        }
        let heir = self.processes.iter().find(|(other, process)| {
            **other != member
                && process.view == Some(id)
                && process.stage == Stage::Synced
                && !process.leaving
        });
        let heir = heir.map(|(other, _)| *other);
        let synced = self.processes[&member].stage == Stage::Synced;
        if synced
            && view.missing_since.is_none()
            && self.rows.writer(view.at) == member
            && let Some(heir) = heir
        {
            view.at = self.rows.write(view.at, heir);
        }
        if let Some(disk) = self.disks.get_mut(&member) {
            if synced {
                disk.at = Some(view.at);
            }
            disk.view = None;
            disk.last_to_stop = synced && view.members.len() == 1;
        }
        let mut members = view.members.clone();
        members.remove(&member);
        self.views.remove(&id);
        if !members.is_empty() {
            let missing = view.missing_since;
            let next = self.renew(members, view.at);
            if let Some(view) = self.views.get_mut(&next) {
                view.missing_since = missing;
            }
        }
    }

    /// Whether the member's data is on others too.
    pub fn spares(&self, member: MemberId) -> bool {
        let mut whole = self.views.values().filter(|view| view.missing_since.is_none());
        let Some(view) = whole.next() else { return false };
        let synced = |id: &&MemberId| self.processes.get(id).is_some_and(|p| p.stage == Stage::Synced);
        view.members.iter().filter(synced).filter(|id| **id != member).count() >= 2
    }

    /// Whether it serves as its role asks.
    pub fn ready(&self, member: MemberId) -> bool {
        self.processes.get(&member).is_some_and(|process| process.stage == Stage::Synced)
    }

    /// What is still missing when everything should be right.
    pub fn missing(&self) -> Option<String> {
        let acknowledged = self.acknowledged?;
        let mut views = self.views.values();
        let Some(view) = views.next() else { return Some("mariadb: no component has a majority".to_owned()) };
        if views.next().is_some() {
            return Some("mariadb: two components have a majority".to_owned());
        }
        let lacks = view.members.iter().find(|id| {
            let at = self.disks.get(id).and_then(|disk| disk.at);
            // One row may be on its way.
            at.is_none_or(|at| self.rows.seqno(acknowledged) - self.rows.seqno(at) > 5)
        });
        lacks.map(|id| format!("mariadb: member {id} lacks acknowledged rows"))
    }
}
