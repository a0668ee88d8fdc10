//! What a drill measured, as the report that is stored and printed.

use muster_model::time::{Millis, Timestamp};
use serde_json::{Value, json};

use crate::drill::{DrillProgress, DrillSpec, Fault};
use crate::facts::{kind_of, service_facts};
use crate::state::{Operation, State};

/// A failover faster than this cannot have waited for the engine's own timeout.
const RELEASED_WITHIN: Millis = Millis::seconds(12);
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
        "acted": acted(state, operation, spec, progress, rto_ms),
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

/// What brought writes back. Inferred: from who leads now, and from how long it took.
fn acted(
    state: &State,
    operation: &Operation,
    spec: &DrillSpec,
    progress: &DrillProgress,
    rto_ms: Option<u64>,
) -> &'static str {
    let service = state.services.get(&operation.service);
    let facts = service_facts(state, &operation.service, state.at);
    let leader = service.and_then(kind_of).zip(facts).and_then(|(kind, facts)| {
        let slot = kind.leader(&facts)?;
        facts.members.iter().find(|m| m.slot == slot).map(|m| m.member)
    });
    match (spec.fault, rto_ms) {
        (Fault::FullOutage, _) => "cold start",
        _ if leader.is_none() => "not known",
        (Fault::KillContainer, _) if leader == progress.target => "restart in place",
        (Fault::KillContainer, Some(ms)) if ms < RELEASED_WITHIN.0 => "release",
        _ => "the engine's own timeout",
    }
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
