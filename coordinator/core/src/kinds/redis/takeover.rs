//! A shard of a cluster whose master is gone for good and for which no replica is elected: a replica that was started again
//! does not know how old its data is, and too few masters elect nobody. Asks an operator, and makes master whom they named.

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, Ask, Guard, Predicate, Probe, TaskKind};
use muster_model::time::Millis;
use serde_json::Value;

use super::cluster::{HASH_SLOTS, Node, master_of, shard_of};
use super::need::{Need, Step, commands};
use super::settings::Settings;
use super::{render, repair};
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, ProcedureStep, ServiceFacts, parts};

const NAME: &str = "takeover";
/// An election that can succeed has done so by then, whatever the node timeout.
const ELECTED_WITHIN: Millis = Millis::seconds(30);
/// And this many node timeouts on top.
const TIMEOUTS: u64 = 4;

/// The first shard that nobody leads and nobody will be elected for.
pub fn need(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    nodes: &[Node<'_>],
    answers: &[(String, TaskOutcome)],
) -> Option<Need> {
    let covered: u32 = nodes.iter().filter(|node| node.leads()).map(|node| node.slots).sum();
    if covered >= HASH_SLOTS {
        return None;
    }
    let mut orphans: Vec<&Node<'_>> =
        nodes.iter().filter(|node| is_orphan(service, settings, nodes, node)).collect();
    let shard = orphans.first()?.shard();
    orphans.retain(|node| node.shard() == shard);
    let heir = match orphans.as_slice() {
        [only] => only,
        several => match furthest(several, shard, answers) {
            Some(heir) => heir,
            None => return Some(ask_offsets(service, shard, several)),
        },
    };
    let (reason, remedy) = question(service, settings, heir, orphans.len());
    let step = Step::Ask { reason, remedy, then: take_over(service, heir) };
    Some(Need {
        procedure: NAME,
        what: format!("slot {} leads its shard without a vote", heir.fact.slot),
        step,
    })
}

/// A replica whose master cannot come back by itself, in a shard that nobody leads.
///
/// Safety: a master whose host answers may run again at any moment, and one whose host is dark for a moment is about to be
/// elected around, or to be back.
fn is_orphan(service: &ServiceFacts<'_>, settings: &Settings, nodes: &[Node<'_>], node: &Node<'_>) -> bool {
    let Some(old) = node.follows.filter(|_| !node.master) else { return false };
    let is_old = |m: &MemberFacts| match repair::recorded(service, m.slot, m.member) {
        Some(id) => id == old,
        None => could_be_it(nodes, node, m),
    };
    let mut masters = service.members.iter().filter(|m| is_old(m));
    let runs = nodes.iter().any(|other| other.id == old);
    let linked = node.fact.seen.as_ref().is_some_and(|seen| seen.ready);
    !runs
        && !linked
        && master_of(nodes, node.shard()).is_none()
        && masters.all(|master| is_gone(service, settings, master))
}

/// Nobody knows which node this member is, and it is of the first ones of the same shard: it may be the master that is missed.
fn could_be_it(nodes: &[Node<'_>], node: &Node<'_>, member: &MemberFacts) -> bool {
    let seen = nodes.iter().any(|other| other.fact.member == member.member);
    shard_of(member.slot) == node.shard() && !member.joins_existing && !seen
}

/// Its host is dark, it has no data to start with, or it runs and says nothing: an emptied master waits like that until somebody
/// else was elected, and where nobody can be it waits for ever.
fn is_gone(service: &ServiceFacts<'_>, settings: &Settings, master: &MemberFacts) -> bool {
    let patience = Millis(ELECTED_WITHIN.0 + TIMEOUTS * settings.node_timeout.0);
    let dark = !master.host_up && service.now.since(master.host_since) >= patience;
    let silent = master.seen.as_ref().is_some_and(|seen| seen.running && seen.role.is_none());
    let hung = silent && service.now.since(master.seen_since) >= patience;
    dark || hung || master.missing
}

fn ask_offsets(service: &ServiceFacts<'_>, shard: u32, orphans: &[&Node<'_>]) -> Need {
    let calls = orphans.iter().map(|node| {
        let info = render::replication();
        muster_model::plan::RespCall {
            address: Some(node.at),
            name: format!("info-{}", node.fact.slot),
            ..info
        }
    });
    let by = orphans.first().map_or(muster_model::ids::MemberId(0), |node| node.fact.member);
    let step = commands(service, by, None, calls.collect());
    Need { procedure: NAME, what: offsets(shard), step }
}

fn offsets(shard: u32) -> String {
    format!("the replicas of shard {shard} tell how far they are")
}

/// The replica that has read most of its master's writes.
fn furthest<'n, 'a>(
    orphans: &[&'n Node<'a>],
    shard: u32,
    answers: &[(String, TaskOutcome)],
) -> Option<&'n Node<'a>> {
    let what = offsets(shard);
    let told = answers.iter().rev().find_map(|(label, outcome)| match outcome {
        TaskOutcome::Done { answer } if repair::began(label, &what).is_some() => {
            serde_json::from_str::<Value>(answer).ok()
        }
        _ => None,
    })?;
    let offset = |node: &Node<'_>| -> Option<u64> {
        told[format!("info-{}", node.fact.slot)]["slave_repl_offset"].as_str()?.parse().ok()
    };
    let known: Option<Vec<(u64, &Node<'_>)>> = orphans.iter().map(|n| Some((offset(n)?, *n))).collect();
    known?.into_iter().max_by_key(|(at, node)| (*at, std::cmp::Reverse(node.fact.slot))).map(|(_, heir)| heir)
}

fn question(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    heir: &Node<'_>,
    replicas: usize,
) -> (String, String) {
    let (shard, name) = (heir.shard(), service.name);
    let who = format!("{name}/{} on {}", heir.fact.slot, heir.fact.host_name);
    let others: Vec<String> = service
        .members
        .iter()
        .filter(|m| shard_of(m.slot) == shard && m.member != heir.fact.member && !parts::is_ready(m))
        .filter(|m| is_gone(service, settings, m))
        .map(|m| format!("{name}/{} on {}", m.slot, m.host_name))
        .collect();
    let old = if others.is_empty() { "its old master".to_owned() } else { others.join(", ") };
    let best = if replicas > 1 { ", the furthest of its replicas," } else { "" };
    let reason = format!(
        "nobody takes writes for shard {shard} of {name}: {old} is gone, and no replica is elected; {who}{best} does not know \
         how old its data is: made master, all that the old one took and did not pass on is lost"
    );
    let remedy = format!(
        "bring {old} back with its data and it goes on by itself; or make sure that it is off: to continue is your word for \
         that, and {who} becomes master without a vote (CLUSTER FAILOVER TAKEOVER)"
    );
    (reason, remedy)
}

fn take_over(service: &ServiceFacts<'_>, heir: &Node<'_>) -> Box<TaskDraft> {
    let name = format!("{}/{} is a replica without a master", service.name, heir.fact.slot);
    let ask = Ask::Resp(render::admin(service.name, vec![render::replication()]));
    let accept = Predicate::All(vec![
        parts::equals("/info/role", "slave"),
        parts::equals("/info/master_link_status", "down"),
    ]);
    let call = render::call("takeover", "CLUSTER FAILOVER TAKEOVER");
    Box::new(TaskDraft {
        member: heir.fact.member,
        guard: Some(Guard { name, probe: Probe { timeout_ms: 2_000, ask }, accept }),
        what: TaskKind::Act { act: Act::Resp(render::admin(service.name, vec![call])) },
        timeout_ms: 5_000,
    })
}

/// The question, until an operator has answered exactly this one.
pub fn unanswered(reason: &str, remedy: &str, answers: &[(String, TaskOutcome)]) -> Option<ProcedureStep> {
    let answered = crate::kinds::operator_said(answers, reason);
    (!answered).then(|| ProcedureStep::NeedsOperator {
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
        word: true,
    })
}
