//! How a new member comes into a cluster that exists: lost ones are taken off its list, the new one is added as a
//! learner, started, and given its vote once it has everything. Each change needs the quorum of the old members.

use std::collections::BTreeMap;

use muster_model::ids::MemberId;
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, Ask, Guard, Predicate, Probe, TaskKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::render::PEER_PORT;
use super::{CLIENT_PORT, LEARNER};
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, Procedure, ProcedureStep, ServiceFacts, Wait, parts};

/// The procedure's name.
pub const JOIN: &str = "etcd-join";
const LIST: &str = "list of members";
/// Tries of one change before an operator is asked: the cluster refuses changes while its members are still connecting.
const TRIES_MAX: usize = 20;
const TIMEOUT_MS: u64 = 5_000;

/// The cluster's own row of a member.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    /// Empty until it has started once.
    name: String,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner")]
    learner: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    members: Vec<Row>,
}

/// Key of the fact that the member in this slot is on the cluster's list.
fn known_key(slot: u32) -> String {
    format!("slot-{slot}")
}

/// The member was placed into a cluster that exists and is not on that one's list yet.
pub fn is_stranger(service: &ServiceFacts<'_>, member: &MemberFacts) -> bool {
    member.joins_existing && service.records.get(&known_key(member.slot)) != Some(&member.member.to_string())
}

fn is_learner(member: &MemberFacts) -> bool {
    parts::has_role(member, LEARNER)
}

/// A new member waits to be let in, or for its vote.
pub fn due(service: &ServiceFacts<'_>) -> Option<Procedure> {
    if !service.formed {
        return None;
    }
    let new = service.members.iter().find(|m| m.host_up && (is_stranger(service, m) || is_learner(m)))?;
    // Without a member that has a leader nobody can say who belongs to the cluster.
    teller(service, new.member)?;
    Some(Procedure {
        name: JOIN.to_owned(),
        can_wait: false,
        why: format!("{}/{} on {} is new", service.name, new.slot, new.host_name),
        arguments: BTreeMap::from([("member".to_owned(), new.member.to_string())]),
    })
}

/// A voter that serves; the leader if it is known, so that no change has to be passed on.
fn teller<'a>(service: &'a ServiceFacts<'_>, new: MemberId) -> Option<&'a MemberFacts> {
    let good = service
        .members
        .iter()
        .filter(|m| m.member != new && parts::is_ready(m) && !is_stranger(service, m) && !is_learner(m));
    good.min_by_key(|m| !parts::has_role(m, "leader"))
}

/// Only one member at a time: the new one's first start compares its list with the cluster's.
pub fn may_place(service: &ServiceFacts<'_>) -> Result<(), Wait> {
    let unsettled = |m: &&MemberFacts| m.host_up && (!parts::is_ready(m) || is_stranger(service, m));
    match service.members.iter().find(unsettled) {
        Some(other) if service.formed => Err(Wait(parts::why_not_ready(service, other))),
        _ => Ok(()),
    }
}

/// The next step: ask who is on the list, make one change, ask again.
pub fn proceed(
    service: &ServiceFacts<'_>,
    procedure: &Procedure,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let wanted = procedure.arguments.get("member");
    let new = service.members.iter().find(|m| Some(&m.member.to_string()) == wanted);
    let Some(new) = new else { return ProcedureStep::Done("the new member was taken away".to_owned()) };
    let Some(teller) = teller(service, new.member) else {
        return ProcedureStep::Wait(format!("no other member of {} has a leader", service.name));
    };
    let list = match answers.last() {
        Some((label, TaskOutcome::Done { answer })) if label == LIST => {
            serde_json::from_str::<List>(answer).ok().filter(|list| !list.members.is_empty())
        }
        _ => None,
    };
    let Some(list) = list else { return ask(service, teller, answers) };
    let Some(url) = peer_url(new) else {
        let reason = format!("{}/{} has no address", service.name, new.slot);
        return ProcedureStep::stuck(service.name.as_str(), new.slot, reason);
    };
    if let Some(gone) = list.members.iter().find(|row| !belongs(service, row)) {
        let what = if gone.name.is_empty() { gone.peer_urls.join(", ") } else { gone.name.clone() };
        return change(teller, format!("{what} is taken off the list"), "remove", json!({ "ID": gone.id }));
    }
    let Some(row) = list.members.iter().find(|row| row.peer_urls.contains(&url)) else {
        let label = format!("{} is put on the list", title(service, new));
        return change(teller, label, "add", json!({ "peerURLs": [url], "isLearner": true }));
    };
    if is_stranger(service, new) {
        return ProcedureStep::Record { key: known_key(new.slot), value: new.member.to_string() };
    }
    if !row.learner {
        return if parts::is_ready(new) {
            ProcedureStep::Done(format!("{} is a member with a vote", title(service, new)))
        } else {
            ProcedureStep::Wait(parts::why_not_ready(service, new))
        };
    }
    if is_learner(new) {
        return change(
            teller,
            format!("{} gets its vote", title(service, new)),
            "promote",
            json!({ "ID": row.id }),
        );
    }
    ProcedureStep::Wait(parts::why_not_ready(service, new))
}

fn title(service: &ServiceFacts<'_>, member: &MemberFacts) -> String {
    parts::member_name(service.name, member.slot, member.member)
}

fn peer_url(member: &MemberFacts) -> Option<String> {
    let address = member.addresses.values().next()?;
    Some(format!("http://{address}:{PEER_PORT}"))
}

/// Whether a row of the cluster's list is a member that the platform knows, by name or, before its first start, by address.
fn belongs(service: &ServiceFacts<'_>, row: &Row) -> bool {
    service.members.iter().any(|member| {
        let here = peer_url(member).is_some_and(|url| row.peer_urls.contains(&url));
        if row.name.is_empty() { here } else { row.name == title(service, member) }
    })
}

fn ask(service: &ServiceFacts<'_>, teller: &MemberFacts, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    let failures = answers.iter().rev().filter_map(|(label, outcome)| match outcome {
        TaskOutcome::Done { .. } => None,
        TaskOutcome::Refused { why } | TaskOutcome::Failed { why } => Some(format!("{label}: {why}")),
        TaskOutcome::Interrupted => Some(format!("{label}: interrupted")),
    });
    let failures: Vec<String> = failures.collect();
    match failures.first() {
        Some(last) if failures.len() >= TRIES_MAX => {
            ProcedureStep::stuck(service.name.as_str(), teller.slot, format!("{}: {last}", service.name))
        }
        _ => task(teller, LIST.to_owned(), "list", &json!({})),
    }
}

fn change(teller: &MemberFacts, label: String, verb: &str, body: Value) -> ProcedureStep {
    task(teller, label, verb, &body)
}

/// A call to the member itself, only while it has a leader.
fn task(teller: &MemberFacts, label: String, verb: &str, body: &Value) -> ProcedureStep {
    let health = Probe { timeout_ms: 2_000, ask: Ask::Http(parts::http("GET", CLIENT_PORT, "/health")) };
    let http = muster_model::plan::HttpAsk {
        body: Some(body.to_string()),
        ..parts::http("POST", CLIENT_PORT, &format!("/v3/cluster/member/{verb}"))
    };
    let guard = Guard { name: "it has a leader".to_owned(), probe: health, accept: Predicate::Ok };
    let task = TaskDraft {
        member: teller.member,
        guard: Some(guard),
        what: TaskKind::Act { act: Act::Http(http) },
        timeout_ms: TIMEOUT_MS,
    };
    ProcedureStep::Task { label, task: Box::new(task) }
}
