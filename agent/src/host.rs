//! All that an agent knows of its host, and how steps change it. Pure: the worker and the simulator drive the same code.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::{MemberId, Name};
use muster_model::observed::Refusal;
use muster_model::plan::{HostPlan, MemberPlan, Run};
use muster_model::time::{Millis, Timestamp};

use crate::diff::{self, Facts, Gates, Step, StepKind};
use crate::ledger::{KnownVolumes, Ledger};
use crate::restart::{Memory, Phase};
use crate::seen::Seen;

/// A first start that ran this long succeeded, if no probe said so earlier.
pub const FIRST_START_LASTED: Millis = Millis(10_000);
/// Wait before a failed reload is tried again.
const RELOAD_AGAIN: Millis = Millis(2_000);

/// The ledger, and what is remembered until the agent ends.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// What outlives the agent.
    pub ledger: Ledger,
    /// By member.
    pub memory: BTreeMap<MemberId, Memory>,
    /// Members with a step or an exclusive task under way.
    pub busy: BTreeSet<MemberId>,
}

/// Whether a member is stopped only while its guard holds: to be started again, not to stay stopped.
#[must_use]
pub fn stop_is_guarded(member: &MemberPlan) -> bool {
    member.guard.is_some() && member.run == Run::Running
}

/// Whether nothing speaks against the first start being over. An engine with an id of its own has it once its data is
/// made: before, one that was interrupted must make it again.
fn has_told(ledger: &Ledger, member: &MemberPlan) -> bool {
    let known = ledger.volumes.get(&member.member).and_then(|known| known.system_id.as_ref());
    member.rendered.system_id.is_none() || known.is_some()
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The engine confirmed it.
    Done,
    /// It failed.
    Failed(Refusal),
    /// The engine did not answer: the next list tells.
    Unknown,
    /// A release: whether it took effect.
    Released(bool),
    /// The guard of this name did not hold; nothing was done.
    Guarded(String),
}

impl Host {
    /// Takes in the engine's complete list. True = the ledger changed and must be written.
    pub fn observe(&mut self, now: Timestamp, seen: &[Seen]) -> bool {
        let Some(plan) = self.ledger.plan.take() else { return false };
        let mut changed = false;
        for member in plan.members.iter().filter(|member| !self.busy.contains(&member.member)) {
            let container = seen.iter().find(|c| c.member == member.member);
            let running = container.is_some_and(Seen::running);
            let ran_before = self.ledger.started.contains(&member.member);
            let memory = self.memory.entry(member.member).or_default();
            memory.observe(now, running, ran_before);
            if let Phase::Running { since } = memory.phase {
                let first = container.is_some_and(|c| c.first);
                let told = has_told(&self.ledger, member);
                let lasted = first && told && now.since(since) >= FIRST_START_LASTED;
                changed |= lasted && self.ledger.first_done.insert(member.member);
            }
        }
        let known = |member: &MemberId| {
            plan.members.iter().any(|m| m.member == *member) || seen.iter().any(|c| c.member == *member)
        };
        self.memory.retain(|member, _| known(member));
        self.ledger.plan = Some(plan);
        changed
    }

    /// A probe of the member answered well: its first start succeeded. True = the ledger must be written.
    pub fn probe_succeeded(&mut self, member: MemberId) -> bool {
        let told = self.member(member).is_none_or(|plan| has_told(&self.ledger, plan));
        told && self.ledger.started.contains(&member) && self.ledger.first_done.insert(member)
    }

    /// The next steps after [`Self::observe`] with the same list.
    #[must_use]
    pub fn steps(&self, now: Timestamp, seen: &[Seen], gates: &Gates) -> Vec<Step> {
        let Some(plan) = &self.ledger.plan else { return Vec::new() };
        diff::diff(plan, seen, &self.facts(gates), now)
    }

    /// For `diff` and `status`.
    #[must_use]
    pub const fn facts<'a>(&'a self, gates: &'a Gates) -> Facts<'a> {
        Facts { memory: &self.memory, ledger: &self.ledger, gates, busy: &self.busy }
    }

    /// The member's plan.
    #[must_use]
    pub fn member(&self, member: MemberId) -> Option<&MemberPlan> {
        self.plan().and_then(|plan| plan.members.iter().find(|m| m.member == member))
    }

    /// The plan acted on.
    #[must_use]
    pub const fn plan(&self) -> Option<&HostPlan> {
        self.ledger.plan.as_ref()
    }

    /// Before a step: the member's state is unknown from here on. True = the ledger must be written *before* acting.
    pub fn begin(&mut self, step: &Step) -> bool {
        self.busy.insert(step.member);
        match &step.kind {
            StepKind::Create { .. } => self.note_volumes(step.member),
            StepKind::Start => self.ledger.started.insert(step.member),
            StepKind::Stop { .. } => {
                let untouched = self.member(step.member).is_some_and(stop_is_guarded);
                let memory = self.memory.entry(step.member).or_default();
                memory.stopped_by_plan();
                memory.untouched = untouched;
                false
            }
            StepKind::Attach { .. } | StepKind::Reload { .. } => {
                self.memory.entry(step.member).or_default().untouched = true;
                false
            }
            StepKind::Remove | StepKind::Release { .. } | StepKind::Quarantine | StepKind::Wait { .. } => {
                false
            }
        }
    }

    /// After a step. True = the ledger must be written.
    pub fn finish(&mut self, now: Timestamp, step: &Step, outcome: Outcome) -> bool {
        self.busy.remove(&step.member);
        let memory = self.memory.entry(step.member).or_default();
        memory.untouched = false;
        match (&step.kind, outcome) {
            (StepKind::Stop { .. }, Outcome::Guarded(guard)) => memory.stop_refused(now, guard),
            (StepKind::Stop { .. }, Outcome::Done) => memory.refused = None,
            (StepKind::Create { .. }, Outcome::Done) => memory.created(),
            (StepKind::Start, Outcome::Done) => memory.started(now),
            (StepKind::Create { .. } | StepKind::Start | StepKind::Attach { .. }, Outcome::Failed(why)) => {
                memory.start_failed(now, why);
            }
            (StepKind::Remove, Outcome::Done) => memory.problem = None,
            (StepKind::Reload { actions }, Outcome::Done) => memory.reloads.retain(|a| !actions.contains(a)),
            (StepKind::Reload { .. }, _) => memory.next_start = now.after(RELOAD_AGAIN),
            (StepKind::Release { anyway }, outcome) => {
                let released = outcome == Outcome::Released(true);
                memory.releases += u32::from(released);
                if let Phase::Crashed(episode) = &mut memory.phase {
                    episode.asked = true;
                    episode.forced |= *anyway;
                    episode.released |= released;
                }
            }
            (StepKind::Quarantine, Outcome::Done) => {
                self.memory.remove(&step.member);
                self.ledger.forget_member(step.member);
                return true;
            }
            // A stop that failed shows in the next list; the step then comes again.
            _ => {}
        }
        false
    }

    /// No member is started before this time: a drill took the whole host.
    pub fn hold_all(&mut self, until: Timestamp) {
        let members: Vec<MemberId> =
            self.plan().into_iter().flat_map(|plan| &plan.members).map(|member| member.member).collect();
        for member in members {
            self.memory.entry(member).or_default().hold(until);
        }
    }

    /// Files of the member have changed: these actions are due once it runs.
    pub fn reload_due(&mut self, member: MemberId, actions: impl IntoIterator<Item = String>) {
        self.memory.entry(member).or_default().reloads.extend(actions);
    }

    /// Data was seen in the member's volumes. True = the ledger must be written.
    pub fn data_seen(&mut self, member: MemberId, volumes: impl IntoIterator<Item = Name>) -> bool {
        let Some(known) = self.ledger.volumes.get_mut(&member) else { return false };
        let before = known.with_data.len();
        known.with_data.extend(volumes);
        known.with_data.len() != before
    }

    fn note_volumes(&mut self, member: MemberId) -> bool {
        let Some(plan) = self.member(member) else { return false };
        let slot = plan.slot.clone();
        let made: BTreeSet<Name> = plan.rendered.volumes.iter().map(|volume| volume.name.clone()).collect();
        if made.is_empty() {
            return false;
        }
        let known = self.ledger.volumes.entry(member).or_insert_with(|| KnownVolumes {
            slot,
            made: BTreeSet::new(),
            with_data: BTreeSet::new(),
            system_id: None,
        });
        let before = known.made.len();
        known.made.extend(made);
        known.made.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{PLATFORM, host, member, plan, release};
    use crate::seen::{SeenState, container_name};
    use muster_model::plan::{Ask, Probe};

    const M: MemberId = MemberId(1);

    fn gates() -> Gates {
        Gates { images: ["muster/busybox:1.35".to_owned()].into(), ..Gates::default() }
    }

    fn running(of: &MemberPlan) -> Seen {
        Seen {
            id: "c".to_owned(),
            name: container_name(&of.slot, of.member),
            member: of.member,
            slot: of.slot.clone(),
            revision: of.revision,
            hash: of.rendered.container_hash(),
            restarts: 0,
            first: of.rendered.first_command.is_some(),
            addresses: of.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
            state: SeenState::Running { since: Timestamp(0) },
        }
    }

    fn started(change: fn(&mut MemberPlan)) -> (Host, Seen) {
        let mut state = Host::default();
        let mut mine = member(1);
        change(&mut mine);
        let seen = running(&mine);
        state.ledger.accept(plan(1, vec![mine]), &host(), PLATFORM).unwrap();
        let start = Step { member: M, container: None, kind: StepKind::Start };
        assert!(state.begin(&start));
        assert!(state.busy.contains(&M));
        state.finish(Timestamp(10), &start, Outcome::Done);
        (state, seen)
    }

    #[test]
    fn a_crash_is_released_once_and_then_started() {
        let (mut state, _) = started(|m| m.rendered.release = Some(release()));
        state.observe(Timestamp(20), &[]);
        let steps = state.steps(Timestamp(20), &[], &gates());
        assert_eq!(steps[0].kind, StepKind::Release { anyway: false });
        state.begin(&steps[0]);
        assert_eq!(state.steps(Timestamp(21), &[], &gates()), []);
        state.finish(Timestamp(22), &steps[0], Outcome::Released(true));
        assert_eq!(state.memory[&steps[0].member].releases, 1);
        let steps = state.steps(Timestamp(22), &[], &gates());
        assert_eq!(steps[0].kind, StepKind::Create { first: false });
    }

    #[test]
    fn a_first_start_that_lasts_is_over_for_good() {
        let (mut state, seen) = started(|m| m.rendered.first_command = Some(vec!["form".to_owned()]));
        assert!(!state.observe(Timestamp(11), std::slice::from_ref(&seen)));
        assert!(state.observe(Timestamp(10_010), std::slice::from_ref(&seen)));
        assert!(!state.probe_succeeded(M));
        assert!(state.ledger.first_done.contains(&M));
    }

    #[test]
    fn the_first_start_of_an_engine_with_an_id_is_over_when_it_told_it() {
        let (mut state, seen) = started(|m| {
            m.rendered.first_command = Some(vec!["form".to_owned()]);
            m.rendered.system_id = Some(Probe { timeout_ms: 1_000, ask: Ask::Tcp { port: 1 } });
        });
        state.observe(Timestamp(11), std::slice::from_ref(&seen));
        assert!(!state.probe_succeeded(M), "it answers already, and makes its data still");
        assert!(!state.observe(Timestamp(10_010), std::slice::from_ref(&seen)));
        let (made, with_data) = (BTreeSet::new(), BTreeSet::new());
        let known =
            KnownVolumes { slot: seen.slot.clone(), made, with_data, system_id: Some("7301".to_owned()) };
        state.ledger.volumes.insert(M, known);
        assert!(state.probe_succeeded(M) && state.ledger.first_done.contains(&M));
    }

    #[test]
    fn a_start_that_fails_is_tried_again_later_with_a_new_container() {
        let (mut state, seen) = started(|_| {});
        let stopped = [Seen { state: SeenState::Stopped { code: 1 }, ..seen }];
        state.observe(Timestamp(20), &stopped);
        let step = state.steps(Timestamp(20), &stopped, &gates()).remove(0);
        assert_eq!(step.kind, StepKind::Start);
        state.begin(&step);
        let why = Refusal::Engine { message: "no".to_owned() };
        state.finish(Timestamp(20), &step, Outcome::Failed(why.clone()));
        let step = state.steps(Timestamp(21), &stopped, &gates()).remove(0);
        assert_eq!(step.kind, StepKind::Wait { why });
        let later = Timestamp(20_000);
        assert_eq!(state.steps(later, &stopped, &gates()).remove(0).kind, StepKind::Remove);
    }
}
