//! What a drill measured, as the report that is stored and printed.

use muster_model::time::{Millis, Timestamp};
use serde_json::{Value, json};

use crate::drill::{DrillProgress, DrillSpec, Fault, Target};
use crate::facts::{kind_of, service_facts};
use crate::state::{Operation, State};

/// Lines of the timeline.
const TIMELINE_MAX: usize = 100;

/// The report, and whether the thresholds were met.
#[must_use]
pub fn report(
    state: &State,
    operation: &Operation,
    spec: &DrillSpec,
    progress: &DrillProgress,
) -> (Value, bool) {
    let summary = progress.summary.clone().unwrap_or(Value::Null);
    let rto_ms = rto(&summary);
    let lost = summary["lost"].as_u64();
    let mut missed = Vec::new();
    let limit = spec.thresholds.rto.zip(rto_ms).filter(|(limit, rto)| *rto > limit.0.0);
    if let Some((limit, rto)) = limit {
        missed.push(format!("rto {} is more than {limit}", Millis(rto)));
    }
    match lost {
        Some(lost) if lost > spec.thresholds.lost => {
            missed.push(format!("{lost} acknowledged writes are lost"));
        }
        Some(_) => {}
        None => missed.push("the writer's ledger was not compared".to_owned()),
    }
    if progress.fault_at.is_some() && progress.healthy_at.is_none() {
        missed.push(format!("not healthy within {}", spec.observe));
    }
    let passed = missed.is_empty() && progress.failure.is_none();
    let target = progress.target.and_then(|id| state.members.get(&id)).map(|m| m.slot.to_string());
    let value = json!({
        "drill": spec.name,
        "service": spec.service,
        "fault": spec.fault,
        "target": target,
        "host": progress.target_host.as_ref().map(|id| state.host_name(id)),
        "started": operation.started,
        "fault_at": progress.fault_at,
        "healthy_at": progress.healthy_at,
        "healthy_after_ms": progress.fault_at.zip(progress.healthy_at).map(|(from, to)| to.since(from)),
        "rto_ms": rto_ms,
        "lost": lost,
        "unacknowledged_present": summary["unacknowledged_present"],
        "acted": acted(state, operation, spec, progress),
        "writer": summary,
        "timeline": timeline(state, operation, progress),
        "passed": passed,
        "missed": missed,
        "failure": progress.failure,
    });
    (value, passed)
}

/// The writer's own figure, or its longest gap.
fn rto(summary: &Value) -> Option<u64> {
    let longest = || summary["gaps"].as_array()?.iter().filter_map(|gap| gap["ms"].as_u64()).max();
    summary["rto_ms"].as_u64().or_else(longest)
}

/// What is known of the target after the drill, and of the fault.
#[derive(Debug, Clone, Copy)]
struct Seen {
    fault: Fault,
    /// Whom it was meant for.
    target: Target,
    /// The members of this service have no roles.
    alike: bool,
    /// The target leads; absent = nobody does, or it is not known.
    leads: Option<bool>,
    /// Its agent released it since the fault.
    released: bool,
}

impl Seen {
    /// What brought writes back.
    const fn acted(self) -> &'static str {
        match (self.fault, self.target, self.leads) {
            (Fault::FullOutage, ..) => "cold start",
            // Its loss does not stop writes.
            (_, Target::Replica | Target::SyncStandby, _) => "nothing needed",
            (..) if self.alike => "the other members",
            (_, Target::Leader, _) if self.released => "release",
            (_, Target::Leader, None) => "not known",
            (Fault::KillContainer, Target::Leader, Some(true)) => "restart in place",
            (Fault::Freeze | Fault::KillHost, Target::Leader, Some(true)) => "it leads again",
            (_, Target::Leader, Some(false)) => "the engine's own timeout",
        }
    }
}

/// What brought writes back: from the target's role, what its agent reported, and who leads now.
fn acted(
    state: &State,
    operation: &Operation,
    spec: &DrillSpec,
    progress: &DrillProgress,
) -> Option<&'static str> {
    progress.fault_at?;
    let kind = state.services.get(&operation.service).and_then(kind_of)?;
    let facts = service_facts(state, &operation.service, state.at)?;
    let target = facts.members.iter().find(|member| Some(member.member) == progress.target);
    let led = facts.members.iter().any(|member| kind.leads(&facts, member.slot));
    let seen = target.and_then(|member| member.seen.as_ref());
    let seen = Seen {
        fault: spec.fault,
        target: spec.target,
        alike: facts.members.iter().all(|member| member.seen.as_ref().is_none_or(|seen| seen.role.is_none())),
        leads: target.filter(|_| led).map(|member| kind.leads(&facts, member.slot)),
        released: seen.zip(progress.releases).is_some_and(|(seen, before)| seen.releases > before),
    };
    Some(seen.acted())
}

/// The history of the drill's service from just before the fault, oldest first.
fn timeline(
    state: &State,
    operation: &Operation,
    progress: &DrillProgress,
) -> Vec<(Timestamp, String, String)> {
    let from = progress.fault_at.map_or(operation.started, |at| Timestamp(at.0.saturating_sub(2_000)));
    let root = state.root(&operation.service).as_str();
    let hosts = |about: &str| state.hosts.values().any(|host| host.name.as_str() == about);
    let ours = |about: &str| about.starts_with(root) || hosts(about);
    let lines = state.events.iter().filter(|event| event.at >= from && ours(&event.about));
    lines.take(TIMELINE_MAX).map(|event| (event.at, event.about.clone(), event.text.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acted_follows_from_the_targets_role_and_what_its_agent_reported() {
        let seen = |fault, target, leads, released| Seen { fault, target, alike: false, leads, released };
        let (kill, leader) = (Fault::KillContainer, Target::Leader);
        for (what, seen) in [
            ("restart in place", seen(kill, leader, Some(true), false)),
            ("release", seen(kill, leader, Some(false), true)),
            ("the engine's own timeout", seen(kill, leader, Some(false), false)),
            ("the engine's own timeout", seen(Fault::KillHost, leader, Some(false), false)),
            ("the engine's own timeout", seen(Fault::Freeze, leader, Some(false), false)),
            ("it leads again", seen(Fault::Freeze, leader, Some(true), false)),
            ("not known", seen(kill, leader, None, false)),
            ("nothing needed", seen(kill, Target::Replica, Some(false), false)),
            ("nothing needed", seen(Fault::KillHost, Target::SyncStandby, Some(false), false)),
            ("cold start", seen(Fault::FullOutage, leader, Some(true), false)),
            ("the other members", Seen { alike: true, ..seen(kill, leader, None, false) }),
        ] {
            assert_eq!(seen.acted(), what, "{seen:?}");
        }
    }
}
