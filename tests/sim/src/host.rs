//! A fake host: power, links, an engine with containers, volumes, and the real agent's pure parts deciding what to do.

use std::collections::{BTreeMap, BTreeSet};

use muster_agent::diff::{Gates, Step, StepKind};
use muster_agent::host::{Host as Agent, Outcome};
use muster_agent::seen::{Seen, SeenState, container_name};
use muster_model::ids::{BootId, HostId, MemberId};
use muster_model::plan::{HostPlan, MemberPlan};

use crate::engines::Engines;
use crate::rng::Rng;
use crate::world::stamp;

/// A container as it really is.
#[derive(Debug, Clone)]
pub struct Container {
    /// As the engine shows it.
    pub seen: Seen,
    /// The plan that it was made of.
    pub made_of: MemberPlan,
    /// Its program serves from this time on, if it runs and nothing else is wrong.
    pub serves_at: u64,
}

/// A data directory as it really is.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// Something was initialised or copied into it.
    pub data: bool,
    /// Position of a database.
    pub position: u64,
}

/// A fake host.
#[derive(Debug)]
pub struct FakeHost {
    /// Its identity.
    pub id: HostId,
    /// Its number, from 1.
    pub number: usize,
    /// It has power, from this time on.
    pub power_at: u64,
    /// How often it lost power.
    pub cuts: u32,
    /// How often it was started.
    pub boots: u32,
    /// The agent.
    pub agent: Agent,
    /// Containers by member.
    pub containers: BTreeMap<MemberId, Container>,
    /// Volumes by member.
    pub volumes: BTreeMap<MemberId, Volume>,
    /// Steps under way, with the time at which they end.
    pub steps: Vec<(u64, Step)>,
    /// The engine answers from this time on.
    pub engine_at: u64,
    /// Since when the engine answers or not, for its reports.
    pub engine_since: (bool, u64),
    /// What it says reaches the coordinators from this time on.
    pub heard_at: u64,
    /// What the coordinators say reaches it from this time on.
    pub hears_at: u64,
    /// Other hosts reach its members from this time on.
    pub mesh_at: u64,
    /// An operator who said that it is off keeps it so until then.
    pub kept_off: u64,
    /// It left the platform for good.
    pub removed: bool,
    /// Members whose volume was destroyed: they never run again.
    pub ruined: BTreeSet<MemberId>,
}

impl FakeHost {
    /// A host without anything.
    #[must_use]
    pub fn new(number: usize, id: HostId) -> Self {
        Self {
            id,
            number,
            power_at: 0,
            cuts: 0,
            boots: 1,
            agent: Agent::default(),
            containers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            steps: Vec::new(),
            engine_at: 0,
            engine_since: (true, 0),
            heard_at: 0,
            hears_at: 0,
            mesh_at: 0,
            kept_off: 0,
            removed: false,
            ruined: BTreeSet::new(),
        }
    }

    /// It has power.
    #[must_use]
    pub const fn on(&self, now: u64) -> bool {
        self.power_at <= now
    }

    /// Its engine answers.
    #[must_use]
    pub const fn engine(&self, now: u64) -> bool {
        self.on(now) && self.engine_at <= now
    }

    /// The agent's run.
    #[must_use]
    pub fn boot(&self) -> BootId {
        BootId(format!("boot-{}", self.boots))
    }

    /// Loses power until `until`: containers stop, the agent forgets all but its ledger.
    pub fn power_cut(&mut self, until: u64) {
        if self.removed {
            return;
        }
        let until = until.max(self.kept_off);
        self.power_at = until;
        self.cuts += 1;
        for container in self.containers.values_mut() {
            if container.seen.running() {
                container.seen.state = SeenState::Stopped { code: 137 };
            }
        }
        self.engine_at = until;
        self.restart_agent(until);
    }

    /// Another run of the agent.
    pub fn restart_agent(&mut self, now: u64) {
        self.boots += 1;
        self.steps.clear();
        let mut ledger = std::mem::take(&mut self.agent.ledger);
        ledger.interrupt_tasks(stamp(now));
        self.agent = Agent { ledger, ..Agent::default() };
    }

    /// The agent takes a plan. True = it went forward or stayed.
    pub fn take_plan(&mut self, plan: HostPlan) {
        let id = self.id.clone();
        let platform = plan.platform.clone();
        // A refusal is the ledger's business: that is what is under test.
        let _ = self.agent.ledger.accept(plan, &id, &platform);
    }

    /// The engine's complete list.
    #[must_use]
    pub fn list(&self) -> Vec<Seen> {
        self.containers.values().map(|container| container.seen.clone()).collect()
    }

    /// What must be there before a start.
    #[must_use]
    pub fn gates(&self) -> Gates {
        let mut gates = Gates::default();
        let Some(plan) = self.agent.plan() else { return gates };
        for member in &plan.members {
            gates.images.insert(member.rendered.image.clone());
            let known = self.agent.ledger.volumes.get(&member.member);
            let had_data = member.has_data || known.is_some_and(|known| !known.with_data.is_empty());
            let has = self.volumes.get(&member.member).is_some_and(|volume| volume.data);
            if had_data && !has && !member.rendered.volumes.is_empty() {
                gates.volumes_lost.insert(member.member, "an empty directory".to_owned());
            }
        }
        gates
    }

    /// One round of the agent: steps that have ended, then new ones.
    pub fn round(&mut self, now: u64, rng: &mut Rng, engines: &mut Engines) {
        if !self.engine(now) {
            return;
        }
        let due: Vec<Step> =
            self.steps.iter().filter(|(at, _)| *at <= now).map(|(_, step)| step.clone()).collect();
        self.steps.retain(|(at, _)| *at > now);
        for step in due {
            let outcome = self.carry_out(&step, now, rng, engines);
            self.agent.finish(stamp(now), &step, outcome);
        }
        let with_data: Vec<MemberId> =
            self.volumes.iter().filter(|(_, volume)| volume.data).map(|(id, _)| *id).collect();
        for member in with_data {
            let names = self.agent.ledger.volumes.get(&member).map(|known| known.made.clone());
            self.agent.data_seen(member, names.unwrap_or_default());
        }
        let list = self.list();
        self.agent.observe(stamp(now), &list);
        for step in self.agent.steps(stamp(now), &list, &self.gates()) {
            if matches!(step.kind, StepKind::Wait { .. }) {
                continue;
            }
            self.agent.begin(&step);
            self.steps.push((now + rng.between(100, 900), step));
        }
    }

    fn carry_out(&mut self, step: &Step, now: u64, rng: &mut Rng, engines: &mut Engines) -> Outcome {
        let member = step.member;
        match &step.kind {
            StepKind::Create { first } => match self.agent.member(member).cloned() {
                Some(plan) => {
                    self.volumes.entry(member).or_default();
                    self.containers.insert(member, container(plan, *first));
                }
                None => return Outcome::Unknown,
            },
            StepKind::Start => {
                if let Some(container) = self.containers.get_mut(&member) {
                    container.seen.state = SeenState::Running { since: stamp(now) };
                    container.serves_at = now + rng.between(1_000, 4_000);
                }
            }
            StepKind::Stop { .. } => {
                if let Some(container) = self.containers.get_mut(&member) {
                    container.seen.state = SeenState::Stopped { code: 0 };
                    engines.stop(container, now);
                }
            }
            StepKind::Remove => {
                self.containers.remove(&member);
            }
            StepKind::Attach { network, address } => {
                if let Some(container) = self.containers.get_mut(&member) {
                    container.seen.addresses.insert(network.clone(), *address);
                }
            }
            StepKind::Release { anyway } => return Outcome::Released(engines.release(member, *anyway)),
            StepKind::Quarantine => {
                self.volumes.remove(&member);
            }
            StepKind::Reload { .. } | StepKind::Wait { .. } => {}
        }
        Outcome::Done
    }
}

fn container(plan: MemberPlan, first: bool) -> Container {
    let seen = Seen {
        id: format!("c{}", plan.member),
        name: container_name(&plan.slot, plan.member),
        member: plan.member,
        slot: plan.slot.clone(),
        revision: plan.revision,
        hash: plan.rendered.container_hash(),
        restarts: plan.restarts,
        first,
        addresses: plan.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
        state: SeenState::Created,
    };
    Container { seen, made_of: plan, serves_at: u64::MAX }
}
