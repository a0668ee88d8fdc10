//! What an agent must never forget: the plan it accepted, whose data it holds, what it has done. Pure; `store` writes it.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::{Generation, HostId, MemberId, Name, Slot, TaskId};
use muster_model::observed::{TaskAnswer, TaskOutcome};
use muster_model::plan::{HostPlan, MemberPlan, hash_of};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::Lasting;

/// Facts that outlive the agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The plan acted on.
    #[serde(skip)]
    pub plan: Option<HostPlan>,
    /// Hash of that plan as it came, if members that it does not name were added to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<String>,
    /// Members that were started at least once.
    #[serde(default)]
    pub started: BTreeSet<MemberId>,
    /// Members whose first start succeeded: its variant of the command is never used again.
    #[serde(default)]
    pub first_done: BTreeSet<MemberId>,
    /// Members with data directories here.
    #[serde(default)]
    pub volumes: BTreeMap<MemberId, KnownVolumes>,
    /// Tasks that were begun.
    #[serde(default)]
    pub tasks: BTreeMap<TaskId, TaskRecord>,
    /// Drills' faults that are to be undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Lasting>,
}

/// The data directories of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownVolumes {
    /// Whose they are.
    pub slot: Slot,
    /// Those that were made here.
    pub made: BTreeSet<Name>,
    /// Those in which data was seen: from then on, empty means lost.
    pub with_data: BTreeSet<Name>,
    /// The engine's own system id, once known.
    #[serde(default)]
    pub system_id: Option<String>,
}

/// A task that was begun. Written before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskRecord {
    /// Begun, no answer yet.
    Started,
    /// Answered.
    Answered(TaskAnswer),
}

/// Why a plan was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefused {
    /// For another host.
    #[error("plan is for host {0}, which this is not")]
    OtherHost(HostId),
    /// Of another platform.
    #[error("plan is of platform {theirs}, this host belongs to {ours}")]
    OtherPlatform {
        /// Ours.
        ours: String,
        /// The plan's.
        theirs: String,
    },
    /// Members of the platform before run here: nothing may be started beside them, and nothing stops them.
    #[error("members of platform {0} run on this host as they are: no plan of another platform is taken")]
    Found(String),
    /// Older than the present one.
    #[error("plan {offered} is older than {present}")]
    Older {
        /// What came.
        offered: Generation,
        /// What we have.
        present: Generation,
    },
    /// Same generation, other content: two coordinators think they lead, or one is wrong.
    #[error("plan {0} came twice with different content")]
    OtherContent(Generation),
}

/// What an accepted plan means for what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The plan that we have already.
    Same,
    /// A newer one.
    Newer,
}

impl Ledger {
    /// Takes a plan if it is for us and newer; nothing changes otherwise.
    ///
    /// # Errors
    /// It is for another host or platform, older, or of the same generation with other content; or this host runs
    /// members of the platform that it belonged to before.
    pub fn accept(
        &mut self,
        mut offered: HostPlan,
        host: &HostId,
        platform: &str,
    ) -> Result<Accepted, PlanRefused> {
        if &offered.host != host {
            return Err(PlanRefused::OtherHost(offered.host));
        }
        if offered.platform != platform {
            return Err(PlanRefused::OtherPlatform { ours: platform.to_owned(), theirs: offered.platform });
        }
        if let Some(former) = self.former(platform) {
            return Err(PlanRefused::Found(former.platform.clone()));
        }
        // Generations of two platforms cannot be compared.
        if let Some(present) = self.plan.as_ref().filter(|plan| plan.platform == platform) {
            if offered.generation < present.generation {
                let present = present.generation;
                return Err(PlanRefused::Older { offered: offered.generation, present });
            }
            if offered.generation == present.generation {
                let known = self.offered.clone().unwrap_or_else(|| hash_of(present));
                let same = hash_of(&offered) == known;
                return if same {
                    Ok(Accepted::Same)
                } else {
                    Err(PlanRefused::OtherContent(offered.generation))
                };
            }
        }
        // An answer is kept as long as a plan asks for it: the coordinator drops a task once it has the answer.
        let asked: BTreeSet<TaskId> = offered.tasks.iter().map(|task| task.id).collect();
        self.tasks.retain(|id, record| asked.contains(id) || *record == TaskRecord::Started);
        self.offered = None;
        if let Some(present) =
            self.plan.as_ref().filter(|plan| offered.additive_only && plan.platform == platform)
        {
            self.offered = Some(hash_of(&offered));
            add_missing(&mut offered, present);
        }
        self.plan = Some(offered);
        Ok(Accepted::Newer)
    }

    /// The plan of the platform that this host belonged to before it joined `platform` with `--adopt`, while there are
    /// members in it.
    #[must_use]
    pub fn former(&self, platform: &str) -> Option<&HostPlan> {
        self.plan.as_ref().filter(|plan| plan.platform != platform && !plan.members.is_empty())
    }

    /// The generation acted on; zero = none yet.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.plan.as_ref().map(|plan| plan.generation).unwrap_or_default()
    }

    /// At start: what an earlier agent had begun and not answered is over, with unknown effect.
    pub fn interrupt_tasks(&mut self, now: Timestamp) {
        for (id, record) in &mut self.tasks {
            if *record == TaskRecord::Started {
                *record =
                    TaskRecord::Answered(TaskAnswer { id: *id, at: now, outcome: TaskOutcome::Interrupted });
            }
        }
    }

    /// Begins a task; false = it was begun before and must not be done again.
    pub fn begin_task(&mut self, id: TaskId) -> bool {
        let fresh = !self.tasks.contains_key(&id);
        if fresh {
            self.tasks.insert(id, TaskRecord::Started);
        }
        fresh
    }

    /// Records the one answer to a task.
    pub fn answer_task(&mut self, answer: TaskAnswer) {
        self.tasks.insert(answer.id, TaskRecord::Answered(answer));
    }

    /// Answers to tasks of the present plan.
    #[must_use]
    pub fn answers(&self) -> Vec<TaskAnswer> {
        let asked: BTreeSet<TaskId> =
            self.plan.iter().flat_map(|plan| plan.tasks.iter().map(|task| task.id)).collect();
        let answered = |(id, record): (&TaskId, &TaskRecord)| match record {
            TaskRecord::Answered(answer) if asked.contains(id) => Some(answer.clone()),
            TaskRecord::Answered(_) | TaskRecord::Started => None,
        };
        self.tasks.iter().filter_map(answered).collect()
    }

    /// The member's directories went to quarantine: nothing of it is here any more.
    pub fn forget_member(&mut self, member: MemberId) {
        self.volumes.remove(&member);
        self.started.remove(&member);
        self.first_done.remove(&member);
    }
}

/// A plan that may only add leaves out what a recovered control plane does not know: those members, their networks and
/// their port rules stay as they were.
fn add_missing(offered: &mut HostPlan, present: &HostPlan) {
    let missing = |m: &&MemberPlan| offered.members.iter().all(|known| known.member != m.member);
    let members: Vec<MemberPlan> = present.members.iter().filter(missing).cloned().collect();
    offered.members.extend(members);
    let (network, before) = (&mut offered.network, &present.network);
    for rule in before.rules.iter().filter(|rule| !network.rules.contains(rule)).cloned().collect::<Vec<_>>()
    {
        network.rules.push(rule);
    }
    for old in &before.networks {
        match network.networks.iter_mut().find(|new| new.name == old.name) {
            None => network.networks.push(old.clone()),
            Some(new) => {
                new.blocks.extend(
                    old.blocks.iter().filter(|net| !new.blocks.contains(net)).copied().collect::<Vec<_>>(),
                );
                let known = |net: &&ipnet::Ipv4Net| !new.remote.contains(net) && !new.blocks.contains(net);
                let remote: Vec<_> = old.remote.iter().filter(known).copied().collect();
                new.remote.extend(remote);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use muster_model::network::HostNetwork;
    use muster_model::plan::{Task, TaskKind};

    fn host() -> HostId {
        HostId::new("0123456789abcdef").unwrap()
    }

    fn plan(incarnation: u64, counter: u64) -> HostPlan {
        HostPlan {
            platform: "p".to_owned(),
            host: host(),
            generation: Generation { incarnation, counter },
            additive_only: false,
            network: HostNetwork::default(),
            members: Vec::new(),
            discard: Vec::new(),
            tasks: Vec::new(),
            carried: Vec::new(),
        }
    }

    fn task(id: u64) -> Task {
        Task { id: TaskId(id), member: MemberId(1), guard: None, what: TaskKind::FreeSpace, timeout_ms: 1 }
    }

    #[test]
    fn only_newer_plans_for_this_host_are_taken() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.accept(plan(1, 5), &host(), "p"), Ok(Accepted::Newer));
        assert_eq!(ledger.accept(plan(1, 5), &host(), "p"), Ok(Accepted::Same));
        assert!(matches!(ledger.accept(plan(1, 4), &host(), "p"), Err(PlanRefused::Older { .. })));
        let mut other = plan(1, 5);
        other.additive_only = true;
        assert!(matches!(ledger.accept(other, &host(), "p"), Err(PlanRefused::OtherContent(_))));
        assert!(matches!(ledger.accept(plan(1, 6), &host(), "q"), Err(PlanRefused::OtherPlatform { .. })));
        let stranger = HostId::new("fedcba9876543210").unwrap();
        assert!(matches!(ledger.accept(plan(1, 6), &stranger, "p"), Err(PlanRefused::OtherHost(_))));
        assert_eq!(ledger.generation().counter, 5);
        assert_eq!(ledger.accept(plan(2, 1), &host(), "p"), Ok(Accepted::Newer));
    }

    #[test]
    fn a_plan_that_may_only_add_leaves_what_it_does_not_name() {
        let of = |incarnation, counter, additive_only, members: Vec<MemberPlan>| HostPlan {
            additive_only,
            members,
            ..plan(incarnation, counter)
        };
        let mut ledger = Ledger::default();
        let both = vec![fixtures::member(1), fixtures::member(2)];
        ledger.accept(of(1, 9, false, both), &host(), "p").unwrap();
        let recovered = of(2, 3, true, vec![fixtures::member(1)]);
        assert_eq!(ledger.accept(recovered.clone(), &host(), "p"), Ok(Accepted::Newer));
        let has = |ledger: &Ledger| -> Vec<u64> {
            ledger.plan.iter().flat_map(|plan| plan.members.iter().map(|m| m.member.0)).collect()
        };
        assert_eq!(has(&ledger), [1, 2]);
        // The same again is the same, other content under its number is not; also after a restart of the agent.
        assert_eq!(ledger.accept(recovered.clone(), &host(), "p"), Ok(Accepted::Same));
        let other = HostPlan { members: vec![], ..recovered };
        assert!(matches!(ledger.accept(other, &host(), "p"), Err(PlanRefused::OtherContent(_))));
        ledger.accept(of(2, 4, true, vec![]), &host(), "p").unwrap();
        assert_eq!(has(&ledger).len(), 2);
        ledger.accept(of(2, 5, false, vec![fixtures::member(1)]), &host(), "p").unwrap();
        assert_eq!(has(&ledger), [1]);
    }

    #[test]
    fn members_of_the_platform_before_let_no_other_plan_in() {
        let of = |platform: &str, counter, members: Vec<MemberPlan>| {
            let platform = platform.to_owned();
            HostPlan { platform, members, ..plan(1, counter) }
        };
        let mut ledger = Ledger::default();
        ledger.accept(of("old", 9, vec![fixtures::member(1)]), &host(), "old").unwrap();
        let before = ledger.clone();
        let refused = ledger.accept(of("new", 1, vec![]), &host(), "new");
        assert_eq!(refused, Err(PlanRefused::Found("old".to_owned())));
        assert!(ledger == before && ledger.former("new").is_some() && ledger.former("old").is_none());
        // Without members the counters of two platforms are not compared.
        ledger.accept(of("old", 10, vec![]), &host(), "old").unwrap();
        assert_eq!(
            ledger.accept(of("new", 1, vec![fixtures::member(1)]), &host(), "new"),
            Ok(Accepted::Newer)
        );
        assert_eq!(ledger.generation().counter, 1);
    }

    #[test]
    fn a_task_is_begun_once_and_its_answer_lives_as_long_as_it_is_asked_for() {
        let mut ledger = Ledger::default();
        let mut asking = plan(1, 1);
        asking.tasks.push(task(7));
        ledger.accept(asking.clone(), &host(), "p").unwrap();
        assert!(ledger.begin_task(TaskId(7)));
        assert!(!ledger.begin_task(TaskId(7)));
        ledger.interrupt_tasks(Timestamp(3));
        let answers = ledger.answers();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].outcome, TaskOutcome::Interrupted);
        asking.generation.counter = 2;
        ledger.accept(asking, &host(), "p").unwrap();
        assert_eq!(ledger.answers().len(), 1);
        ledger.accept(plan(1, 3), &host(), "p").unwrap();
        assert!(ledger.tasks.is_empty());
    }
}
