//! What to do next for each member: plan and containers in, at most one step per member out. Pure, and level-triggered:
//! it remembers nothing, so a crash between any two steps changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::Refusal;
use muster_model::plan::{HostPlan, MemberPlan, Run};
use muster_model::time::Timestamp;

use crate::ledger::Ledger;
use crate::release::{self, Decision};
use crate::restart::{Memory, Phase};
use crate::seen::{Seen, SeenState, container_name};

/// One step for one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The member.
    pub member: MemberId,
    /// Its container, by the engine's id; absent = there is none.
    pub container: Option<String>,
    /// What to do.
    pub kind: StepKind,
}

/// What one step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// Make the container.
    Create {
        /// With the variant of the command for the first start.
        first: bool,
    },
    /// Start it.
    Start,
    /// Stop it, politely.
    Stop {
        /// For messages.
        why: &'static str,
    },
    /// Take the stopped container away. Its data stays.
    Remove,
    /// Put it into a network that it has lost.
    Attach {
        /// The network.
        network: Name,
        /// Its fixed address.
        address: Ipv4Addr,
    },
    /// Carry out the named actions, because files have changed.
    Reload {
        /// Their names.
        actions: BTreeSet<String>,
    },
    /// Hand over after a confirmed stop.
    Release {
        /// Without asking the guard.
        anyway: bool,
    },
    /// Move the data of a member that is no longer in the plan aside, or delete it where the plan says so.
    Quarantine,
    /// Nothing now, for this reason.
    Wait {
        /// Why.
        why: Refusal,
    },
}

/// What must be there before a container is made or started; looked up freshly for each round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gates {
    /// Images on the host: tags, and `name@recipe` labels.
    pub images: BTreeSet<String>,
    /// Members with a secret that has not arrived, and its name.
    pub secrets_missing: BTreeMap<MemberId, String>,
    /// Members whose data is not what it was, and what was found.
    pub volumes_lost: BTreeMap<MemberId, String>,
    /// Members whose networks or port rules are not in place, and what is wrong.
    pub network: BTreeMap<MemberId, String>,
    /// The disk is nearly full.
    pub disk_full: bool,
}

/// Everything but plan and containers that a round depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// By member; absent = nothing remembered.
    pub memory: &'a BTreeMap<MemberId, Memory>,
    /// What outlives the agent.
    pub ledger: &'a Ledger,
    /// What must be there.
    pub gates: &'a Gates,
    /// Members with a step or an exclusive task under way: they get none.
    pub busy: &'a BTreeSet<MemberId>,
}

/// The next steps. `seen` must be the engine's complete and confirmed list: without an answer of the engine there is
/// no round.
#[must_use]
pub fn diff(plan: &HostPlan, seen: &[Seen], facts: &Facts<'_>, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut planned = BTreeSet::new();
    for member in &plan.members {
        planned.insert(member.member);
        if facts.busy.contains(&member.member) {
            continue;
        }
        let round = Round::new(plan, member, seen, facts, now);
        steps.extend(round.next().map(|(container, kind)| Step { member: member.member, container, kind }));
    }
    if !plan.additive_only {
        steps.extend(strays(&planned, seen, facts));
    }
    steps
}

/// Steps for what is here and not in the plan.
fn strays(planned: &BTreeSet<MemberId>, seen: &[Seen], facts: &Facts<'_>) -> Vec<Step> {
    let mut steps = BTreeMap::new();
    for container in seen {
        let member = container.member;
        if planned.contains(&member) || facts.busy.contains(&member) {
            continue;
        }
        if let Some(kind) = away(container, "it is not in the plan") {
            steps.insert(member, Step { member, container: Some(container.id.clone()), kind });
        }
    }
    for member in facts.ledger.volumes.keys() {
        let here = seen.iter().any(|container| container.member == *member);
        if !planned.contains(member) && !facts.busy.contains(member) && !here {
            steps.insert(*member, Step { member: *member, container: None, kind: StepKind::Quarantine });
        }
    }
    steps.into_values().collect()
}

/// The step that brings a container nearer to being gone.
fn away(container: &Seen, why: &'static str) -> Option<StepKind> {
    match container.state {
        SeenState::Running { .. } => Some(StepKind::Stop { why }),
        SeenState::Created | SeenState::Stopped { .. } => Some(StepKind::Remove),
        SeenState::Removing => None,
    }
}

type Next = Option<(Option<String>, StepKind)>;

/// One member's part of a round.
struct Round<'a> {
    plan: &'a MemberPlan,
    additive: bool,
    container: Option<&'a Seen>,
    /// A second container with the same member's label: copied or renamed by hand.
    double: Option<&'a Seen>,
    memory: Memory,
    ran_before: bool,
    first_over: bool,
    gates: &'a Gates,
    now: Timestamp,
}

impl<'a> Round<'a> {
    fn new(
        plan: &HostPlan,
        member: &'a MemberPlan,
        seen: &'a [Seen],
        facts: &Facts<'a>,
        now: Timestamp,
    ) -> Self {
        let name = container_name(&member.slot, member.member);
        let mut mine: Vec<&Seen> = seen.iter().filter(|c| c.member == member.member).collect();
        mine.sort_by_key(|container| container.name != name);
        Self {
            plan: member,
            additive: plan.additive_only,
            container: mine.first().copied(),
            double: mine.get(1).copied(),
            memory: facts.memory.get(&member.member).cloned().unwrap_or_default(),
            ran_before: facts.ledger.started.contains(&member.member),
            first_over: member.has_data || facts.ledger.first_done.contains(&member.member),
            gates: facts.gates,
            now,
        }
    }

    fn next(&self) -> Next {
        if let Some(double) = self.double {
            // Two on one data directory: none is started, and without leave to stop one nothing is done.
            let kind = if self.additive { None } else { away(double, "it is a copy") };
            return kind.map(|kind| (Some(double.id.clone()), kind));
        }
        let Some(container) = self.container else {
            return match self.plan.run {
                Run::Stopped => None,
                Run::Running => Some((None, self.when_absent())),
            };
        };
        let kind = match (&container.state, self.plan.run) {
            (SeenState::Removing, _) | (SeenState::Created | SeenState::Stopped { .. }, Run::Stopped) => None,
            (SeenState::Running { .. }, Run::Stopped) => {
                (!self.additive).then_some(StepKind::Stop { why: "the plan says stopped" })
            }
            (SeenState::Running { .. }, Run::Running) => self.when_running(container),
            (SeenState::Created | SeenState::Stopped { .. }, Run::Running) => {
                Some(self.when_stopped(container))
            }
        };
        kind.map(|kind| (Some(container.id.clone()), kind))
    }

    fn when_absent(&self) -> StepKind {
        if let Some(release) = self.release() {
            return release;
        }
        let first = self.plan.rendered.first_command.is_some() && !self.first_over;
        self.gated(StepKind::Create { first })
    }

    fn when_running(&self, container: &Seen) -> Option<StepKind> {
        if let Some(why) = self.outdated(container).filter(|_| !self.additive) {
            // What serves is stopped only when its successor can be started.
            return Some(match self.missing().or_else(|| self.guarded()) {
                Some(why) => StepKind::Wait { why },
                None => StepKind::Stop { why },
            });
        }
        let lost = self.plan.addresses.iter().find(|a| !container.addresses.contains_key(&a.network));
        if let Some(lost) = lost {
            return Some(match self.gates.network.get(&self.plan.member) {
                Some(problem) => {
                    StepKind::Wait { why: Refusal::NetworkNotReady { problem: problem.clone() } }
                }
                None => StepKind::Attach { network: lost.network.clone(), address: lost.address },
            });
        }
        let actions = self.memory.reloads.clone();
        (!actions.is_empty() && self.memory.next_start <= self.now).then_some(StepKind::Reload { actions })
    }

    fn when_stopped(&self, container: &Seen) -> StepKind {
        if let Some(release) = self.release() {
            return release;
        }
        // Replaying a first start is never right, so this container may not be started again.
        let replay = container.first && self.first_over;
        let broken = matches!(self.memory.problem, Some(Refusal::Engine { .. }));
        let detached = self.plan.addresses.iter().any(|a| !container.addresses.contains_key(&a.network));
        let renew = self.outdated(container).is_some() || broken || detached;
        if replay || (renew && !self.additive) {
            return match self.memory.must_wait(self.now) {
                Some(why) => StepKind::Wait { why },
                None => StepKind::Remove,
            };
        }
        self.gated(StepKind::Start)
    }

    /// Why the container is not what the plan asks for.
    fn outdated(&self, container: &Seen) -> Option<&'static str> {
        let moved = |a: &muster_model::plan::Attachment| {
            container.addresses.get(&a.network).is_some_and(|address| *address != a.address)
        };
        if container.hash != self.plan.rendered.container_hash() {
            Some("it is to be made anew")
        } else if container.restarts < self.plan.restarts {
            Some("a restart was asked for")
        } else if self.plan.addresses.iter().any(moved) {
            Some("its address changed")
        } else {
            None
        }
    }

    /// The release that is due, if the stop is one that nobody asked for.
    fn release(&self) -> Option<StepKind> {
        let Phase::Crashed(episode) = self.memory.phase else { return None };
        match release::decide(self.plan.rendered.release.as_ref(), episode, self.memory.failed_restarts()) {
            Decision::AskGuard => Some(StepKind::Release { anyway: false }),
            Decision::ReleaseAnyway => Some(StepKind::Release { anyway: true }),
            Decision::Restart => None,
        }
    }

    fn gated(&self, kind: StepKind) -> StepKind {
        match self.memory.must_wait(self.now).or_else(|| self.missing()) {
            Some(why) => StepKind::Wait { why },
            None => kind,
        }
    }

    /// Its guard did not hold a moment ago.
    fn guarded(&self) -> Option<Refusal> {
        let (name, until) = self.memory.refused.clone().filter(|(_, until)| *until > self.now)?;
        self.plan.guard.is_some().then_some(Refusal::Guard { name, until })
    }

    fn missing(&self) -> Option<Refusal> {
        let image = &self.plan.rendered.image;
        if !self.gates.images.contains(image) {
            return Some(Refusal::ImageMissing { image: image.clone() });
        }
        if let Some(found) = self.gates.volumes_lost.get(&self.plan.member) {
            return Some(Refusal::VolumeLost { found: found.clone() });
        }
        if let Some(name) = self.gates.secrets_missing.get(&self.plan.member) {
            return Some(Refusal::SecretMissing { name: name.clone() });
        }
        if let Some(problem) = self.gates.network.get(&self.plan.member) {
            return Some(Refusal::NetworkNotReady { problem: problem.clone() });
        }
        // What ran before may come back: a full disk refuses new work only.
        (self.gates.disk_full && !self.ran_before).then_some(Refusal::DiskFull)
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
