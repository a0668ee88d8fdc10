//! What a replicated service needs by itself, one thing at a time: a first master, replicas that follow it, its term in the
//! data, an end for one whose term is over. Judged afresh from what the members say before each step. Pure.
//!
//! Safety: nobody takes writes unless told so here for the newest term, or the agent's own start script finds every
//! other member agreeing that its term goes on. A new term begins only as `succession` says.

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Ask, Guard, Predicate, Probe, RespCall};
use serde_json::{Value, json};

use super::need::{Need, Step, commands};
use super::observe::REPLICA;
use super::settings::Settings;
use super::succession::{Loss, heirs};
use super::term::{self, KEY, NOBODY, Term};
use super::{PORT, render};
use crate::kinds::{MemberFacts, ServiceFacts, operator_said, parts};

const GUARD_TIMEOUT_MS: u64 = 3_000;

/// The first thing that is missing. `answers`: of an operator too, who said that a member that does not answer is off.
pub fn need(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    answers: &[(String, TaskOutcome)],
) -> Option<Need> {
    let Some(recorded) = term::recorded(service) else { return make(service) };
    let leader = term::leader(service);
    adopt(service, recorded)
        .or_else(|| depose(service, settings, leader))
        .or_else(|| if leader.is_none() { lead(service, settings, recorded, answers) } else { None })
        .or_else(|| leader.and_then(|leader| follow(service, settings, leader)))
        .or_else(|| leader.and_then(|leader| write(service, recorded, leader)))
        .or_else(|| release(service, recorded))
}

fn title(service: &ServiceFacts<'_>, member: &MemberFacts) -> String {
    format!("{}/{}", service.name, member.slot)
}

/// The first term: nothing begins before all members answer, and none has data of an earlier one. One that is no longer wanted may
/// be there too: it leaves only once somebody leads.
fn make(service: &ServiceFacts<'_>) -> Option<Need> {
    let wanted = (1..=service.slots).all(|slot| service.members.iter().any(|m| m.slot == slot));
    let all = wanted && service.members.iter().all(term::has_none);
    let first = service.members.first().filter(|_| all && !service.formed)?;
    let term = Term { epoch: 1, member: first.member };
    Some(record("create", format!("{} is to lead first", title(service, first)), term))
}

fn record(procedure: &'static str, what: String, term: Term) -> Need {
    Need { procedure, what, step: Step::Record { key: term::RECORD.to_owned(), value: term.to_string() } }
}

/// The leader gave its role to another member, with the engine's own hand-over: that one's term begins.
fn adopt(service: &ServiceFacts<'_>, recorded: Term) -> Option<Need> {
    let fits = |m: &&MemberFacts| {
        term::is_master(m) && term::said(m).is_some_and(|said| said.epoch >= recorded.epoch)
    };
    let masters: Vec<&MemberFacts> = service.members.iter().filter(fits).collect();
    let still = service.members.iter().any(|m| m.member == recorded.member && term::is_master(m));
    match masters.as_slice() {
        [heir] if heir.member != recorded.member && !still => {
            let what = format!("{} has taken over", title(service, heir));
            Some(record("term", what, recorded.next(heir.member)))
        }
        _ => None,
    }
}

/// One that takes writes and should not: it was away when the next term began.
fn depose(service: &ServiceFacts<'_>, settings: &Settings, leader: Option<&MemberFacts>) -> Option<Need> {
    let recorded = term::recorded(service)?;
    let stale = service.members.iter().find(|m| {
        let old = term::has_none(m) || term::said(m).is_some_and(|said| said.epoch < recorded.epoch);
        term::is_master(m) && m.member != recorded.member && old
    })?;
    let master = leader.map_or(NOBODY, |leader| term::address(leader, settings));
    let guard = guard(
        service,
        format!("{} is of an old term", title(service, stale)),
        vec![role(None), said(None)],
        vec![is_role("master", None), is_said(stale)],
    );
    let step = commands(service, stale.member, Some(guard), vec![replica_of(master, None)]);
    Some(Need { procedure: "depose", what: format!("{} no longer leads", title(service, stale)), step })
}

/// Nobody leads: the recorded member does so again if it has its data, otherwise another one must.
fn lead(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    recorded: Term,
    answers: &[(String, TaskOutcome)],
) -> Option<Need> {
    let Some(member) = service.members.iter().find(|m| m.member == recorded.member) else {
        return Some(succeed(service, Loss::Gone));
    };
    match Loss::of(service, member) {
        Ok(()) => resume(service, settings, recorded, member, answers),
        // Nobody else can: an update with an image that starts is what helps, and it does not wait for this.
        Err(Some(Loss::Ended | Loss::Hung)) if heirs(service, recorded).is_empty() => {
            let what = format!("{} is to run: no other member can lead", title(service, member));
            Some(Need { procedure: "lead", what, step: Step::Wait })
        }
        Err(Some(loss)) => Some(succeed(service, loss)),
        Err(None) => None,
    }
}

fn succeed(service: &ServiceFacts<'_>, loss: Loss) -> Need {
    let what = format!("another member of {} is to lead", service.name);
    Need { procedure: "promote", what, step: Step::Succeed(loss) }
}

/// Tells the recorded member that it leads.
fn resume(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    recorded: Term,
    member: &MemberFacts,
    answers: &[(String, TaskOutcome)],
) -> Option<Need> {
    let what = format!("{} leads", title(service, member));
    let wait = |what: String| Some(Need { procedure: "lead", what, step: Step::Wait });
    if term::loads(member) {
        return wait(format!("{} reads its data", title(service, member)));
    }
    let first = recorded.epoch == 1 && !service.formed && term::has_none(member);
    // Of the term before: it was chosen for its data, and has not been told yet.
    let fits = term::said(member).is_some_and(|said| said.epoch + 1 >= recorded.epoch);
    if !first && !fits {
        return wait(format!("{} has no data of the last term", title(service, member)));
    }
    let followed = term::follows(member).filter(|at| !at.is_loopback());
    let whom =
        followed.and_then(|at| service.members.iter().find(|other| term::address(other, settings) == at));
    // It gave its role away, and whom it gave it to does not say so: that one may take writes.
    let gave = term::said(member).is_some_and(|said| said.epoch >= recorded.epoch);
    if let Some(other) = whom.filter(|m| gave && !parts::has_role(m, REPLICA)) {
        let why =
            format!("{} follows {}, which does not answer", title(service, member), title(service, other));
        if !operator_said(answers, &why) {
            return wait(why);
        }
    }
    // Safety: whoever it is linked to takes writes, though nobody here sees that one: it came back after an operator's word
    // that it is off, or between that and the next term.
    let unlinked = parts::equals("/info/master_link_status", "down");
    let guard = guard(
        service,
        format!(
            "{} is a replica with the data that it had, and follows nobody who answers",
            title(service, member)
        ),
        vec![role(None), said(None)],
        vec![is_role("slave", None), is_said(member), unlinked],
    );
    let lead = render::call("lead", "REPLICAOF NO ONE");
    let step = commands(service, member.member, Some(guard), vec![lead]);
    Some(Need { procedure: if first { "create" } else { "lead" }, what, step })
}

/// Everybody else follows the leader.
fn follow(service: &ServiceFacts<'_>, settings: &Settings, leader: &MemberFacts) -> Option<Need> {
    let master = term::address(leader, settings);
    let astray = |m: &&MemberFacts| {
        m.member != leader.member
            && parts::has_role(m, REPLICA)
            && !term::loads(m)
            && term::follows(m) != Some(master)
    };
    let astray: Vec<&MemberFacts> = service.members.iter().filter(astray).collect();
    if astray.is_empty() {
        return None;
    }
    let calls = astray.iter().map(|m| replica_of(master, Some((m.slot, term::address(m, settings)))));
    // One that lost its data meanwhile would empty them too; it starts as a replica.
    let guard = guard(
        service,
        format!("{} leads", title(service, leader)),
        vec![role(None)],
        vec![is_role("master", None)],
    );
    let step = commands(service, leader.member, Some(guard), calls.collect());
    let slots: Vec<String> = astray.iter().map(|m| m.slot.to_string()).collect();
    Some(Need {
        procedure: "follow",
        what: format!("slots {} follow slot {}", slots.join(", "), leader.slot),
        step,
    })
}

/// The term into the data, as soon as it can be written: replicas carry it, so that their age is known later. It is on the disk
/// before it counts: power that is lost in the same second would leave a service whose data nobody may lead with.
fn write(service: &ServiceFacts<'_>, recorded: Term, leader: &MemberFacts) -> Option<Need> {
    let writes = leader.seen.as_ref().is_some_and(|seen| seen.writes != Some(false));
    if term::said(leader) == Some(recorded) || !writes || leader.member != recorded.member {
        return None;
    }
    let set = RespCall {
        words: ["SET", KEY, &recorded.to_string()].map(str::to_owned).to_vec(),
        ..render::call("term", "SET")
    };
    let guard = guard(
        service,
        format!("{} leads", title(service, leader)),
        vec![role(None)],
        vec![is_role("master", None)],
    );
    let sync = |how: &str| render::call(how, &format!("CONFIG SET appendfsync {how}"));
    let step = commands(service, leader.member, Some(guard), vec![sync("always"), set, sync("everysec")]);
    Some(Need { procedure: "term", what: format!("term {} is written", recorded.epoch), step })
}

/// A master that was stopped so that another one could lead runs again, as a replica.
fn release(service: &ServiceFacts<'_>, recorded: Term) -> Option<Need> {
    let parked = |m: &&MemberFacts| m.member != recorded.member && !m.started && m.stopped;
    let parked: Vec<&MemberFacts> = service.members.iter().filter(parked).collect();
    let first = parked.first()?;
    let what = format!("{} runs again", title(service, first));
    Some(Need { procedure: "promote", what, step: Step::Start(parked.iter().map(|m| m.member).collect()) })
}

/// A question to the member itself, or to the one in a slot.
pub type Asked = Option<(u32, std::net::Ipv4Addr)>;

fn call(what: &str, of: Asked, words: &str) -> RespCall {
    let name = of.map_or_else(|| what.to_owned(), |(slot, _)| format!("{what}-{slot}"));
    RespCall { address: of.map(|(_, address)| address), ..render::call(&name, words) }
}

/// Follows that one from now on.
pub fn replica_of(master: std::net::Ipv4Addr, of: Asked) -> RespCall {
    let port = if master.is_loopback() { 1 } else { PORT };
    call("follow", of, &format!("REPLICAOF {master} {port}"))
}

/// Its role and how its link is.
pub fn role(of: Asked) -> RespCall {
    let info = render::replication();
    RespCall { keep: info.keep, ..call("info", of, "INFO") }
}

/// The term that its data is of.
pub fn said(of: Asked) -> RespCall {
    call("term", of, &format!("GET {KEY}"))
}

/// How many heartbeats its data has.
pub fn beats(of: Asked) -> RespCall {
    call("beat", of, "GET muster:beat")
}

pub fn is_role(role: &str, of: Asked) -> Predicate {
    let name = of.map_or_else(|| "info".to_owned(), |(slot, _)| format!("info-{slot}"));
    parts::equals(format!("/{name}/role"), role)
}

fn is_said(member: &MemberFacts) -> Predicate {
    let value: Value = term::said(member).map_or(Value::Null, |said| json!(said.to_string()));
    Predicate::Equals { pointer: "/term".to_owned(), value }
}

pub fn guard(
    service: &ServiceFacts<'_>,
    name: String,
    calls: Vec<RespCall>,
    accept: Vec<Predicate>,
) -> Guard {
    let ask = Ask::Resp(render::admin(service.name, calls));
    let probe = Probe { timeout_ms: GUARD_TIMEOUT_MS, ask };
    Guard { name, probe, accept: Predicate::All(accept) }
}
