//! What the agent says of its members. Pure; unknown while a step is under way or the engine does not answer.

use muster_model::ids::MemberId;
use muster_model::observed::{ContainerState, MemberStatus, ProbeResult, Refusal};
use muster_model::plan::HostPlan;

use crate::diff::{Facts, Step, StepKind};
use crate::restart::Memory;
use crate::seen::{Seen, SeenState};

/// Every member of the plan, and every other container of ours. `seen` absent = the engine does not answer;
/// `steps` are those of the same round; `probes` gives a member's last results.
#[must_use]
pub fn status(
    plan: &HostPlan,
    seen: Option<&[Seen]>,
    facts: &Facts<'_>,
    steps: &[Step],
    probes: &dyn Fn(MemberId) -> Vec<ProbeResult>,
) -> Vec<MemberStatus> {
    let containers = seen.unwrap_or_default();
    let mut all: Vec<MemberStatus> = plan
        .members
        .iter()
        .map(|member| {
            let container = containers.iter().find(|c| c.member == member.member);
            let memory = facts.memory.get(&member.member);
            MemberStatus {
                member: member.member,
                slot: member.slot.clone(),
                revision: container.map_or(member.revision, |c| c.revision),
                container_hash: container.map(|c| c.hash.clone()).unwrap_or_default(),
                state: state(member.member, container, seen.is_some(), facts, steps),
                restarts: memory.map_or(0, |memory| memory.restarts),
                restarts_done: container.map_or(0, |c| c.restarts),
                releases: memory.map_or(0, |memory| memory.releases),
                system_id: facts.ledger.volumes.get(&member.member).and_then(|v| v.system_id.clone()),
                refused: refused(member.member, memory, steps),
                successor: successor(member.member, container, steps),
                probes: probes(member.member),
            }
        })
        .collect();
    for container in containers {
        if plan.members.iter().all(|member| member.member != container.member) {
            all.push(MemberStatus {
                member: container.member,
                slot: container.slot.clone(),
                revision: container.revision,
                container_hash: container.hash.clone(),
                state: state(container.member, Some(container), true, facts, steps),
                restarts: 0,
                restarts_done: container.restarts,
                releases: 0,
                system_id: None,
                refused: None,
                successor: None,
                probes: Vec::new(),
            });
        }
    }
    all
}

/// The guard that does not let a member be stopped, while that is what the plan asks for.
fn refused(member: MemberId, memory: Option<&Memory>, steps: &[Step]) -> Option<String> {
    let wanted = |step: &Step| {
        let guarded = matches!(step.kind, StepKind::Wait { why: Refusal::Guard { .. } });
        step.member == member && (guarded || matches!(step.kind, StepKind::Stop { .. }))
    };
    let (guard, _) = memory?.refused.clone()?;
    steps.iter().any(wanted).then_some(guard)
}

/// Why the container that is to follow a running one cannot be made.
fn successor(member: MemberId, container: Option<&Seen>, steps: &[Step]) -> Option<Refusal> {
    container.filter(|container| matches!(container.state, SeenState::Running { .. }))?;
    steps.iter().filter(|step| step.member == member).find_map(|step| match &step.kind {
        StepKind::Wait { why: Refusal::Guard { .. } | Refusal::NetworkNotReady { .. } } => None,
        StepKind::Wait { why } => Some(why.clone()),
        _ => None,
    })
}

fn state(
    member: MemberId,
    container: Option<&Seen>,
    answering: bool,
    facts: &Facts<'_>,
    steps: &[Step],
) -> ContainerState {
    let untouched = facts.memory.get(&member).is_some_and(|memory| memory.untouched);
    if !answering || (facts.busy.contains(&member) && !untouched) {
        return ContainerState::Unknown;
    }
    if let Some(SeenState::Running { since }) = container.map(|c| &c.state) {
        return ContainerState::Running { since: *since };
    }
    let waits = steps.iter().filter(|step| step.member == member).find_map(|step| match &step.kind {
        StepKind::Wait { why } => Some(why.clone()),
        _ => None,
    });
    if let Some(why) = waits {
        return ContainerState::Refused { why };
    }
    match container.map(|c| &c.state) {
        None => ContainerState::Absent,
        Some(SeenState::Created) => ContainerState::Stopped { code: None },
        Some(SeenState::Stopped { code }) => ContainerState::Stopped { code: Some(*code) },
        Some(SeenState::Running { since }) => ContainerState::Running { since: *since },
        Some(SeenState::Removing) => ContainerState::Unknown,
    }
}
