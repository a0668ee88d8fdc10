//! Tests of the core as a whole: a platform in memory, with agents that do at once what their plan says.

mod bootstrap;
mod certificates;
mod drills;
mod dry;
mod entries;
mod exporters;
mod liveness;
mod locks;
mod loss;
mod maintenance;
mod operations;
mod placing;
mod plans;
mod ports;
mod procedures;
mod properties;
mod rebuilding;
mod recovering;
mod refusals;
mod replace;
mod rotation;
mod scale;
mod stops;
mod what_if;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::ids::{BootId, Generation, HostId, MemberId, Name, OperationId, Revision};
use muster_model::observed::{HostFacts, TaskAnswer, TaskOutcome};
use muster_model::plan::{HostPlan, Run, TaskKind};
use muster_model::spec::PlatformSpec;
use muster_model::time::{Millis, Timestamp};
use muster_model::view::OperationState;

use crate::apply::apply;
use crate::command::{Command, HostRegistration, LogMeta, Observation, Rejected, Reply, What};
use crate::facts::needed_secrets;
use crate::kinds::Observed;
use crate::state::{Liveness, Operation, State, Step};
use crate::{plan, reconcile};

/// A platform whose agents do everything at once.
pub struct World {
    pub state: State,
    pub now: Timestamp,
    /// The member that leads, by service.
    pub leaders: BTreeMap<Name, MemberId>,
    /// Members with this in their image never become ready.
    pub bad_image: String,
    /// Hosts whose agents are silent.
    pub silent: BTreeSet<HostId>,
    /// Answer to the next switchover tasks instead of doing them.
    pub refuse_switch: Option<String>,
    /// The first member that is to be stopped gets the leading role at that moment.
    pub usurper: bool,
    /// How often agents have released a member.
    pub released: BTreeMap<MemberId, u32>,
    /// Every member of the database says that a parameter waits for a restart.
    pub asks_for_restart: bool,
    /// What the database's members say of their version: those of the first revision, the others.
    pub versions: (String, String),
    /// Agents do not stop a leader.
    pub guards_lead: bool,
    /// Every change of a container: member and time.
    pub restarts: Vec<(MemberId, Timestamp)>,
    running: BTreeMap<MemberId, (String, u64)>,
    /// The list that etcd keeps of its members.
    pub locks: locks::Locks,
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn host_id(number: usize) -> HostId {
    HostId::new(format!("{number:016x}")).unwrap()
}

/// A spec with the services given as JSON.
pub fn spec(services: serde_json::Value) -> Arc<PlatformSpec> {
    let value = serde_json::json!({ "muster": 1, "platform": "demo", "services": services });
    Arc::new(serde_json::from_value(value).unwrap())
}

/// Three members of PostgreSQL with everything that belongs to them.
pub fn postgres() -> serde_json::Value {
    serde_json::json!({ "pg-main": { "kind": "postgres" } })
}

impl World {
    pub fn new(hosts: usize) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Timestamp(1_000_000),
            leaders: BTreeMap::new(),
            bad_image: "never".to_owned(),
            silent: BTreeSet::new(),
            refuse_switch: None,
            usurper: false,
            released: BTreeMap::new(),
            asks_for_restart: false,
            versions: Default::default(),
            guards_lead: false,
            restarts: Vec::new(),
            running: BTreeMap::new(),
            locks: locks::Locks::default(),
        };
        world.must(What::Init { id: "f00d".to_owned(), name: name("demo") });
        for number in 1..=hosts {
            world.join(number);
        }
        world
    }

    pub fn join(&mut self, number: usize) {
        let id = host_id(number);
        self.must(What::RegisterHost(HostRegistration {
            id: id.clone(),
            name: name(&format!("vps-{number}")),
            address: format!("203.0.113.{number}").parse().unwrap(),
            zone: format!("zone-{number}"),
            labels: BTreeMap::new(),
            key_digest: String::new(),
        }));
        self.up(number, "boot-1");
        let facts = HostFacts {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            mesh_key: format!("key-{number}"),
            ..HostFacts::default()
        };
        self.must(What::HostFacts {
            host: id,
            boot: BootId("boot-1".to_owned()),
            facts: Arc::new(facts),
            engine: (true, self.now),
            conditions: Vec::new(),
        });
    }

    pub fn up(&mut self, number: usize, boot: &str) {
        self.silent.remove(&host_id(number));
        let boot = Some(BootId(boot.to_owned()));
        self.must(What::HostLiveness { host: host_id(number), liveness: Liveness::Up, boot });
    }

    pub fn down(&mut self, number: usize) {
        self.silent.insert(host_id(number));
        self.must(What::HostLiveness { host: host_id(number), liveness: Liveness::Down, boot: None });
    }

    pub fn propose(&mut self, what: What) -> Result<Reply, Rejected> {
        self.command(&Command::internal(what))
    }

    pub fn command(&mut self, command: &Command) -> Result<Reply, Rejected> {
        let meta = LogMeta { index: self.state.index.next(), at: self.now };
        let result = apply(&mut self.state, command, meta);
        assert_eq!(self.state.check(), Vec::new(), "after {command:?}");
        result
    }

    pub fn must(&mut self, what: What) -> Reply {
        self.propose(what).unwrap()
    }

    pub fn apply_spec(&mut self, spec: &Arc<PlatformSpec>) -> Reply {
        self.must(What::ApplySpec { spec: Arc::clone(spec), yaml: "".into(), at: None })
    }

    /// One round of the leader: secrets, reconcilers. Returns how many entries took effect.
    pub fn lead(&mut self) -> usize {
        let mut done = 0;
        for name in needed_secrets(&self.state) {
            let sealed = format!("value of {name}");
            self.must(What::PutSecret { sealed, name, replaces: 0, certificate: None });
            done += 1;
        }
        for command in reconcile::run(&self.state, self.now) {
            done += usize::from(self.command(&command).is_ok());
        }
        done
    }

    /// One round of all agents.
    pub fn agents(&mut self) {
        self.locks.fill(&self.state);
        let hosts: Vec<HostId> = self.state.hosts.keys().cloned().collect();
        for host in hosts.into_iter().filter(|host| !self.silent.contains(host)).collect::<Vec<_>>() {
            if let Some(plan) = plan::published(&self.state, &host) {
                self.agent(&host, &plan);
            }
        }
    }

    fn agent(&mut self, host: &HostId, plan: &HostPlan) {
        let mut members = Vec::new();
        for member in &plan.members {
            let seen = match member.run {
                Run::Running => Some(self.see(member)),
                Run::Stopped => Some(Observed { stopped: true, ..Observed::default() }),
            };
            if self.state.members[&member.member].observed != seen {
                members.push((member.member, seen));
            }
        }
        let listed: BTreeSet<MemberId> = plan.members.iter().map(|m| m.member).collect();
        let gone: Vec<MemberId> =
            self.state.members_on(host).map(|(id, _)| id).filter(|id| !listed.contains(id)).collect();
        let answers = plan.tasks.iter().map(|task| TaskAnswer {
            id: task.id,
            at: self.now,
            outcome: TaskOutcome::Done { answer: "{}".to_owned() },
        });
        let mut answers: Vec<TaskAnswer> = answers.collect();
        for (task, answer) in plan.tasks.iter().zip(&mut answers) {
            answer.outcome = match locks::call(&task.what) {
                Some((verb, body)) => self.locks.call(verb, &body),
                None => self.do_task(&task.what),
            };
        }
        if members.is_empty() && gone.is_empty() && answers.is_empty() {
            return;
        }
        let boot = self.state.hosts[host].boot.clone().unwrap();
        self.must(What::Observe(Observation {
            host: host.clone(),
            boot,
            generation: plan.generation,
            members,
            gone,
            answers,
        }));
    }

    fn do_task(&mut self, what: &TaskKind) -> TaskOutcome {
        let switching = self.state.operations.values().find_map(|op| match (&op.step, op.outcome) {
            (Step::Switching { from, to }, None) => Some((op.service.clone(), *from, *to)),
            _ => None,
        });
        match (what, switching) {
            (TaskKind::Action { name }, _) if name == "verify" => {
                let answer = r#"{"rto_ms":900,"lost":0,"unacknowledged_present":1}"#.to_owned();
                TaskOutcome::Done { answer }
            }
            (TaskKind::Action { name }, None) if name == "converge" || name == "reload" => {
                TaskOutcome::Done { answer: String::new() }
            }
            (TaskKind::Kill { .. } | TaskKind::KillHost { .. } | TaskKind::FreeSpace, _) => {
                TaskOutcome::Done { answer: String::new() }
            }
            (_, Some((service, from, to))) => {
                if let Some(why) = self.refuse_switch.clone() {
                    return TaskOutcome::Refused { why };
                }
                let members = self.state.members_of(&service);
                let slot = to.or_else(|| members.keys().copied().find(|slot| Some(*slot) != from)).unwrap();
                self.leaders.insert(service, members[&slot].0);
                TaskOutcome::Done { answer: String::new() }
            }
            (other, None) => panic!("unexpected task {other:?}"),
        }
    }

    fn see(&mut self, member: &muster_model::plan::MemberPlan) -> Observed {
        let hash = member.rendered.container_hash();
        let now = (hash.clone(), member.restarts);
        let changes = self.running.get(&member.member).filter(|ran| **ran != now).cloned();
        if let Some(ran) = changes.filter(|_| member.slot.service.as_str() == "pg-main") {
            if std::mem::take(&mut self.usurper) {
                self.leaders.insert(member.slot.service.clone(), member.member);
            }
            if self.guards_lead && self.leaders.get(&member.slot.service) == Some(&member.member) {
                return self.refuses(member, ran);
            }
        }
        if self.running.insert(member.member, now.clone()) != Some(now) {
            self.restarts.push((member.member, self.now));
        }
        let service = member.slot.service.clone();
        let postgres = service.as_str() == "pg-main";
        let leader = *self.leaders.entry(service).or_insert(member.member);
        let good = !member.rendered.image.contains(&self.bad_image);
        let role = if leader == member.member { "leader" } else { "sync_standby" };
        let learner = member.slot.service.as_str().ends_with("-etcd") && self.locks.learns(member);
        let good = good && !learner;
        let (named, role) = if learner { (true, "learner") } else { (postgres, role) };
        let mut facts = BTreeMap::new();
        if postgres && self.asks_for_restart {
            facts.insert("asks-for-restart".to_owned(), "yes".to_owned());
        }
        let (old, new) = &self.versions;
        let version = if member.revision == revision(1) { old } else { new };
        if postgres && !version.is_empty() {
            facts.insert("version".to_owned(), version.clone());
        }
        Observed {
            facts,
            revision: member.revision,
            container_hash: hash,
            running: true,
            role: named.then(|| role.to_owned()),
            ready: good,
            caught_up: good,
            writes: Some(good),
            system_id: postgres.then(|| "7301".to_owned()),
            restarts_done: member.restarts,
            releases: self.released.get(&member.member).copied().unwrap_or_default(),
            started_at: Some(Timestamp(1)),
            ..Observed::default()
        }
    }

    /// The agent of a leader does not stop it: what ran goes on.
    fn refuses(&self, member: &muster_model::plan::MemberPlan, ran: (String, u64)) -> Observed {
        let before = self.state.members[&member.member].observed.clone().unwrap();
        Observed {
            container_hash: ran.0,
            restarts_done: ran.1,
            role: Some("leader".to_owned()),
            refused: "another member leads".to_owned(),
            ..before
        }
    }

    /// Leader and agents until `until` holds; the clock goes on by 500 ms a round.
    pub fn run_until(&mut self, what: &str, until: impl Fn(&State) -> bool) {
        for _ in 0..2_000 {
            if until(&self.state) {
                return;
            }
            self.round();
        }
        let ops: Vec<&Operation> = self.state.operations.values().collect();
        panic!("never: {what}; operations {ops:#?}");
    }

    pub fn round(&mut self) {
        self.lead();
        self.agents();
        self.now = self.now.after(Millis(500));
    }

    /// Runs for a while.
    pub fn run_for(&mut self, span: Millis) {
        let end = self.now.after(span);
        while self.now < end {
            self.round();
            self.now = self.now.after(Millis(span.0 / 100));
        }
    }

    /// Three hosts with a database on which nothing is left to do.
    pub fn with_postgres() -> Self {
        let mut world = Self::new(3);
        world.apply_spec(&spec(postgres()));
        world.run_until("all ready", |state| state.members.len() == 8 && all_ready(state));
        world.run_for(Millis::seconds(5));
        world
    }

    pub fn operation(&self, id: u64) -> &Operation {
        &self.state.operations[&OperationId(id)]
    }

    pub fn await_end(&mut self, id: u64) -> OperationState {
        self.run_until("the operation ends", |state| state.operations[&OperationId(id)].outcome.is_some());
        self.operation(id).state()
    }
}

pub fn all_ready(state: &State) -> bool {
    state.members.values().all(|m| m.pending.is_none() && m.seen().is_some_and(|seen| seen.ready))
}

pub const fn generation(counter: u64) -> Generation {
    Generation { incarnation: 1, counter }
}

pub const fn revision(number: u64) -> Revision {
    Revision(number)
}
