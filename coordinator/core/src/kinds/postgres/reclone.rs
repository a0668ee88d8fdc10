//! Copies a replica anew that cannot follow any more: its log is missing on the leader, or it could not be rewound.
//! Never touches a member that leads, and nothing while another member is away for another reason.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, Ask, Guard, Predicate, Probe, TaskKind};
use muster_model::time::Millis;
use serde_json::json;

use super::observe::{LEADER, NOT_STREAMING};
use super::{REST_PORT, decide, render};
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, Procedure, ProcedureStep, ServiceFacts, parts};

/// The procedure's name.
pub const RECLONE: &str = "reclone";
/// How long a running replica may be without its leader before it is copied anew.
const PATIENCE: Millis = Millis::seconds(180);
const TIMEOUT_MS: u64 = 30_000;

/// A replica runs, but has not streamed for too long although everything else is well.
pub fn due(service: &ServiceFacts<'_>) -> Option<Procedure> {
    let stuck = stuck(service)?;
    Some(Procedure {
        name: RECLONE.to_owned(),
        can_wait: false,
        why: format!(
            "{}/{} on {} has not streamed for {PATIENCE}: it copies the leader anew",
            service.name, stuck.slot, stuck.host_name
        ),
        arguments: BTreeMap::from([("member".to_owned(), stuck.member.to_string())]),
    })
}

fn stuck<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a MemberFacts> {
    let leader = decide::leader(service).filter(|leader| service.formed && parts::is_ready(leader))?;
    let away: Vec<&MemberFacts> = service.members.iter().filter(|m| !parts::is_ready(m)).collect();
    let is_stuck = |m: &MemberFacts| {
        let seen = m.seen.as_ref().filter(|seen| seen.running && seen.role.as_deref() != Some(LEADER));
        let long = service.now.since(m.seen_since) >= PATIENCE;
        m.member != leader.member && long && seen.is_some_and(|seen| seen.detail.contains(NOT_STREAMING))
    };
    // One that is away for another reason may come back with what it has. Of several, the longest lost one goes first:
    // the others keep what they have until it streams.
    let all = away.iter().all(|m| is_stuck(m));
    away.into_iter().filter(|_| all).min_by_key(|m| (m.seen_since, m.slot))
}

/// One call; Patroni refuses it to a leader, and the guard while the member streams after all.
pub fn proceed(
    service: &ServiceFacts<'_>,
    procedure: &Procedure,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let wanted = procedure.arguments.get("member");
    let member = service.members.iter().find(|m| Some(&m.member.to_string()) == wanted);
    let Some(member) = member else { return ProcedureStep::Done("the member was taken away".to_owned()) };
    let title = format!("{}/{}", service.name, member.slot);
    match answers.last() {
        None => ask(service.name, member, format!("{title} drops its data and copies the leader's")),
        Some((_, TaskOutcome::Done { .. })) => ProcedureStep::Done(format!("{title} copies the leader anew")),
        Some((_, TaskOutcome::Refused { why } | TaskOutcome::Failed { why })) => {
            ProcedureStep::Failed(format!("{title} was not copied anew: {why}"))
        }
        Some((_, TaskOutcome::Interrupted)) => {
            ProcedureStep::Failed(format!("whether {title} is copied anew is not known"))
        }
    }
}

fn ask(service: &Name, member: &MemberFacts, label: String) -> ProcedureStep {
    let ask = Ask::Http(parts::http("GET", REST_PORT, "/patroni"));
    let accept = Predicate::All(vec![
        Predicate::Not(Box::new(parts::equals("/replication_state", "streaming"))),
        parts::equals("/role", "replica"),
    ]);
    let guard = Guard {
        name: "it is a replica that does not stream".to_owned(),
        probe: Probe { timeout_ms: 3_000, ask },
        accept,
    };
    let body = json!({ "force": true }).to_string();
    let task = TaskDraft {
        member: member.member,
        guard: Some(guard),
        what: TaskKind::Act { act: Act::Http(render::patroni_post(service, "/reinitialize", Some(body))) },
        timeout_ms: TIMEOUT_MS,
    };
    ProcedureStep::Task { label, task: Box::new(task) }
}
