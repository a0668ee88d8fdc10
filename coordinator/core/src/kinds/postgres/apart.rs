//! Keeps the leader of etcd off the host of the database's leader. Moves only etcd's role, never the database's.
//!
//! When a host with both is lost, the next leader of etcd gives every lease its full time again, so that the lock of the
//! dead database leader lives for up to twice as long (measured: 28 s instead of 20 s until a client can write).

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, HttpAsk, TaskKind};
use serde_json::json;

use super::decide;
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, Procedure, ProcedureStep, ServiceFacts, etcd, parts};

const MOVE_TIMEOUT_MS: u64 = 10_000;

/// Both leaders are on one host, everything is well, and another member of etcd can lead.
pub fn due(service: &ServiceFacts<'_>) -> Option<Procedure> {
    let (_, to) = move_of(service)?;
    Some(Procedure {
        name: "leaders-apart".to_owned(),
        why: format!(
            "the leaders of {} and of its etcd are on one host: etcd's goes to {}",
            service.name, to.host_name
        ),
        can_wait: true,
        arguments: Default::default(),
    })
}

pub fn proceed(service: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    match answers.last() {
        None => match move_of(service) {
            Some((from, to)) => ask(from, to),
            None => ProcedureStep::Done("the leaders are on different hosts already".to_owned()),
        },
        Some((_, TaskOutcome::Done { .. })) => ProcedureStep::Done("etcd's leader has moved".to_owned()),
        Some((_, TaskOutcome::Refused { why } | TaskOutcome::Failed { why })) => {
            ProcedureStep::Failed(format!("etcd's leader did not move: {why}"))
        }
        Some((_, TaskOutcome::Interrupted)) => {
            ProcedureStep::Failed("whether etcd's leader moved is not known".to_owned())
        }
    }
}

/// The member of etcd that leads on the host of the database's leader, and the one that shall.
fn move_of<'a>(service: &'a ServiceFacts<'_>) -> Option<(&'a MemberFacts, &'a MemberFacts)> {
    let etcd = service.children.get(&parts::known_name("etcd"))?;
    let all_well = service.formed
        && service.members.iter().chain(&etcd.members).all(parts::is_ready)
        && etcd.members.len() == etcd.slots as usize;
    let leader = decide::leader(service).filter(|_| all_well)?;
    let from = etcd.members.iter().find(|m| parts::has_role(m, etcd::LEADER) && m.host == leader.host)?;
    let to = etcd.members.iter().find(|m| m.host != leader.host && id(m).is_some())?;
    Some((from, to))
}

fn id(member: &MemberFacts) -> Option<&str> {
    member.seen.as_ref()?.system_id.as_deref()
}

/// etcd itself refuses if the member does not lead, or the other one is not there.
fn ask(from: &MemberFacts, to: &MemberFacts) -> ProcedureStep {
    let body = json!({ "targetID": id(to) }).to_string();
    let http = parts::http("POST", etcd::CLIENT_PORT, "/v3/maintenance/transfer-leadership");
    let act = Act::Http(HttpAsk { body: Some(body), ..http });
    let task = TaskDraft {
        member: from.member,
        guard: None,
        what: TaskKind::Act { act },
        timeout_ms: MOVE_TIMEOUT_MS,
    };
    ProcedureStep::Task { label: "moves the leader of etcd".to_owned(), task: Box::new(task) }
}
