//! The simulated platform: one replicated state, a leader that comes and goes, links that lose and reorder, fake hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_core::apply::apply;
use muster_core::command::{Command, HostRegistration, LogMeta, Rejected, What};
use muster_core::facts::needed_secrets;
use muster_core::liveness::Tracker;
use muster_core::observe::from_report;
use muster_core::state::State;
use muster_core::{plan, reconcile};
use muster_model::ids::{HostId, MemberId, Name, TaskId};
use muster_model::observed::{EngineStatus, HostFacts, MemberStatus, Report, TaskAnswer};
use muster_model::plan::{HostPlan, Task};
use muster_model::spec::PlatformSpec;
use muster_model::time::{Millis, Timestamp};

use crate::engines::{Engines, Moment};
use crate::host::FakeHost;
use crate::oracle::Oracle;
use crate::plant::{self, Plant};
use crate::rng::Rng;

/// Length of one step of the simulation, milliseconds.
pub const TICK: u64 = 500;
/// The leader looks at an unchanged state, an agent reports, a plan is sent again: milliseconds.
const LOOK_EVERY: u64 = 2_000;
const REPORT_EVERY: u64 = 1_000;
const RESEND_EVERY: u64 = 2_000;

/// How badly messages travel.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// In 1,000.
    pub lost: u64,
    /// In 1,000.
    pub doubled: u64,
    /// Longest delay, milliseconds.
    pub delay: u64,
}

/// No faults.
pub const FAIR: Weather = Weather { lost: 0, doubled: 0, delay: 50 };

/// The simulated platform.
pub struct World {
    /// Chance.
    pub rng: Rng,
    /// Milliseconds since the beginning.
    pub now: u64,
    /// What the coordinators agreed on.
    pub state: State,
    /// The hosts.
    pub hosts: Vec<FakeHost>,
    /// What runs in the containers.
    pub engines: Engines,
    /// What must never happen.
    pub oracle: Oracle,
    /// Messages.
    pub weather: Weather,
    /// There is a leader from this time on.
    pub leader_at: u64,
    /// A bug that is planted to see it caught.
    pub plant: Option<Plant>,
    /// Words that operators gave.
    pub words: u64,
    /// Entries that took effect, and that were refused.
    pub entries: (u64, u64),
    tracker: Tracker,
    commands: Vec<(u64, Command)>,
    plans: Vec<(u64, usize, HostPlan)>,
    reports: Vec<(u64, HostId, Report)>,
    sent: BTreeMap<usize, (u64, u64)>,
    past: Option<State>,
    reconciled: (u64, u64),
}

/// Everybody's clock.
#[must_use]
pub const fn stamp(now: u64) -> Timestamp {
    Timestamp(1_000_000 + now)
}

/// A name that is known to be good.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a literal name")
}

/// Identity of host `number`.
#[must_use]
pub fn host_id(number: usize) -> HostId {
    HostId::new(format!("{number:016x}")).expect("16 hex digits")
}

impl World {
    /// A platform with joined hosts and nothing on them.
    #[must_use]
    pub fn new(seed: u64, hosts: usize, plant: Option<Plant>) -> Self {
        let mut world = Self {
            rng: Rng::new(seed),
            now: 0,
            state: State::default(),
            hosts: (1..=hosts).map(|number| FakeHost::new(number, host_id(number))).collect(),
            engines: Engines::new(plant),
            oracle: Oracle::default(),
            weather: FAIR,
            leader_at: 0,
            plant,
            words: 0,
            entries: (0, 0),
            tracker: Tracker::new(stamp(0)),
            commands: Vec::new(),
            plans: Vec::new(),
            reports: Vec::new(),
            sent: BTreeMap::new(),
            past: None,
            reconciled: (0, 0),
        };
        world.enter(What::Init { id: "f00d".to_owned(), name: name("demo") });
        for number in 1..=hosts {
            world.enter(What::RegisterHost(HostRegistration {
                id: host_id(number),
                name: name(&format!("vps-{number}")),
                address: std::net::Ipv4Addr::new(203, 0, 113, u8::try_from(number).unwrap_or(250)).into(),
                zone: format!("zone-{number}"),
                labels: BTreeMap::new(),
                key_digest: String::new(),
            }));
        }
        world
    }

    /// An entry of an operator, agreed on at once. A refusal is an answer, not an error.
    pub fn enter(&mut self, what: What) {
        let _ = self.agree(&Command::internal(what));
    }

    /// A spec of an operator.
    pub fn apply_spec(&mut self, spec: PlatformSpec) {
        self.enter(What::ApplySpec { spec: Arc::new(spec), yaml: "".into(), at: None });
    }

    fn agree(&mut self, command: &Command) -> Result<(), Rejected> {
        let command = plant::on_entry(self.plant, &self.state, command.clone());
        let meta = LogMeta { index: self.state.index.next(), at: stamp(self.now) };
        let judged = self.oracle.before(&self.state, &command, stamp(self.now));
        let result = apply(&mut self.state, &command, meta).map(|_| ());
        if result.is_ok() {
            self.entries.0 += 1;
            self.oracle.after(&self.state, judged);
        } else {
            self.entries.1 += 1;
        }
        result
    }

    /// One step of everything. The error is what must never happen.
    pub fn tick(&mut self) -> Result<(), String> {
        self.now += TICK;
        self.hosts_tick();
        let mut moment = Moment { hosts: &mut self.hosts, now: self.now, rng: &mut self.rng };
        self.engines.tick(&mut moment)?;
        self.lead();
        self.deliver();
        let oracle = std::mem::take(&mut self.oracle);
        let (oracle, verdict) = oracle.look(self);
        self.oracle = oracle;
        verdict
    }

    fn hosts_tick(&mut self) {
        for at in 0..self.hosts.len() {
            let now = self.now;
            if !self.hosts[at].on(now) {
                continue;
            }
            self.hosts[at].round(now, &mut self.rng, &mut self.engines);
            self.tasks(at);
            let host = &self.hosts[at];
            if self.leads() && host.heard_at <= now && now.is_multiple_of(500) {
                self.tracker.beat(&host.id, &host.boot(), stamp(now));
            }
            if now.is_multiple_of(REPORT_EVERY) && host.heard_at <= now {
                let report = self.report(at);
                let id = self.hosts[at].id.clone();
                self.send(|world, at| world.reports.push((at, id.clone(), report.clone())));
            }
        }
    }

    /// Sends something as the weather is: lost, late, twice.
    fn send(&mut self, mut put: impl FnMut(&mut Self, u64)) {
        let weather = self.weather;
        if self.rng.chance(weather.lost) {
            return;
        }
        let at = self.now + self.rng.below(weather.delay + 1);
        put(self, at);
        if self.rng.chance(weather.doubled) {
            let late = self.now + self.rng.below(weather.delay * 20 + 1);
            put(self, late);
        }
    }

    fn report(&mut self, at: usize) -> Report {
        let now = self.now;
        let host = &mut self.hosts[at];
        let engine = host.engine(now);
        if host.engine_since.0 != engine {
            host.engine_since = (engine, now);
        }
        self.told(at);
        let host = &self.hosts[at];
        let list = host.list();
        let gates = host.gates();
        let steps = host.agent.steps(stamp(now), &list, &gates);
        let probes = |member: MemberId| self.engines.probes(&self.hosts, at, member, now);
        let seen = engine.then_some(list.as_slice());
        let members = host
            .agent
            .plan()
            .map(|plan| muster_agent::status::status(plan, seen, &host.agent.facts(&gates), &steps, &probes));
        let members = members.unwrap_or_default();
        let good = |status: &&MemberStatus| status.probes.iter().any(|probe| probe.answer.ok);
        let good: Vec<MemberId> = members.iter().filter(good).map(|status| status.member).collect();
        for member in good {
            self.hosts[at].agent.probe_succeeded(member);
        }
        let host = &self.hosts[at];
        Report {
            boot: host.boot(),
            generation: host.agent.ledger.generation(),
            engine: EngineStatus {
                answering: engine,
                since: stamp(host.engine_since.1),
                version: "fake".to_owned(),
            },
            facts: HostFacts {
                cpu_millis: 4_000,
                memory_bytes: 16 << 30,
                mesh_key: format!("key-{}", host.number),
                ..HostFacts::default()
            },
            members,
            answers: host.agent.ledger.answers(),
            conditions: Vec::new(),
            images: None,
            links: None,
        }
    }

    /// Engines tell their own ids once.
    fn told(&mut self, at: usize) {
        let unknown =
            self.hosts[at].agent.ledger.volumes.iter().filter(|(_, known)| known.system_id.is_none());
        let unknown: Vec<MemberId> = unknown.map(|(member, _)| *member).collect();
        for member in unknown {
            let id = self.engines.system_id(&self.hosts, at, member, self.now);
            if let Some(known) = self.hosts[at].agent.ledger.volumes.get_mut(&member) {
                known.system_id = id;
            }
        }
    }

    fn tasks(&mut self, at: usize) {
        let now = self.now;
        if !self.hosts[at].engine(now) {
            return;
        }
        let tasks: Vec<Task> = self.hosts[at].agent.plan().map(|plan| plan.tasks.clone()).unwrap_or_default();
        for task in tasks {
            if self.hosts[at].agent.ledger.begin_task(task.id) {
                let mut moment = Moment { hosts: &mut self.hosts, now, rng: &mut self.rng };
                let outcome = self.engines.task(&mut moment, at, &task);
                let answer = TaskAnswer { id: TaskId(task.id.0), at: stamp(now), outcome };
                self.hosts[at].agent.ledger.answer_task(answer);
            }
        }
    }

    fn leads(&self) -> bool {
        self.leader_at <= self.now
    }

    /// No leader until `until`; the one after it has heard nobody, and late commands of the old one still arrive.
    pub fn lose_leader(&mut self, until: u64) {
        self.leader_at = until;
        self.tracker = Tracker::new(stamp(until));
        let stale = self.past.take().unwrap_or_else(|| self.state.clone());
        for command in reconcile::run(&stale, stamp(self.now)) {
            let at = self.now + self.rng.below(5_000);
            self.commands.push((at, command));
        }
    }

    fn lead(&mut self) {
        if !self.leads() {
            return;
        }
        let now = stamp(self.now);
        for command in self.tracker.transitions(&self.state, now) {
            let _ = self.agree(&command);
        }
        for name in needed_secrets(&self.state) {
            let sealed = "eA==".to_owned();
            self.enter(What::PutSecret { name, sealed, replaces: 0, certificate: None });
        }
        let (index, at) = self.reconciled;
        if self.state.index.0 != index || self.now - at >= LOOK_EVERY {
            self.reconciled = (self.state.index.0, self.now);
            for command in reconcile::run(&self.state, now) {
                self.send(|world, at| world.commands.push((at, command.clone())));
            }
            if self.rng.chance(50) {
                self.past = Some(self.state.clone());
            }
        }
        self.send_plans();
    }

    fn send_plans(&mut self) {
        for at in 0..self.hosts.len() {
            let id = self.hosts[at].id.clone();
            let Some(row) = self.state.hosts.get(&id) else { continue };
            let (counter, when) = self.sent.get(&at).copied().unwrap_or_default();
            let has = self.hosts[at].agent.ledger.generation().counter;
            let again = has < row.plan_counter && self.now - when >= RESEND_EVERY;
            if row.plan_counter == counter && !again {
                continue;
            }
            let Some(plan) = plan::published(&self.state, &id) else { continue };
            self.sent.insert(at, (row.plan_counter, self.now));
            self.send(|world, due| world.plans.push((due, at, plan.clone())));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        for (due, at, plan) in std::mem::take(&mut self.plans) {
            if due > now {
                self.plans.push((due, at, plan));
            } else if self.hosts[at].on(now) && self.hosts[at].hears_at <= now {
                plant::on_plan(self.plant, &mut self.hosts[at]);
                self.hosts[at].take_plan(plan);
            }
        }
        for (due, id, report) in std::mem::take(&mut self.reports) {
            if due > now {
                self.reports.push((due, id, report));
            } else if self.leads() {
                for command in from_report(&self.state, &id, &report) {
                    let _ = self.agree(&command);
                }
            }
        }
        for (due, command) in std::mem::take(&mut self.commands) {
            if due > now || !self.leads() {
                self.commands.push((due, command));
            } else {
                let _ = self.agree(&command);
            }
        }
    }

    /// Nothing is on its way.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.state.tasks.is_empty() && self.state.operations.values().all(|op| op.outcome.is_some())
    }

    /// The leader's clock.
    #[must_use]
    pub fn clock(&self) -> Timestamp {
        stamp(self.now)
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Millis) -> Result<(), String> {
        let end = self.now + span.0;
        while self.now < end {
            self.tick()?;
        }
        Ok(())
    }
}
