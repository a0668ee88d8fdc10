//! Health, gates and hand-over of a replicated service: one master, its replicas and the proxies. Pure; renders nothing.

use muster_model::ids::{HostId, MemberId};
use muster_model::plan::{Act, Predicate, Task, TaskKind};
use muster_model::view::{Health, HealthWord};

use super::settings::Settings;
use super::term::{self, in_sync, leader};
use super::{PORT, master, render};
use crate::kinds::{MemberFacts, ServiceFacts, Survivability, Wait, parts};

/// The master waits this long at most for the replica to have everything; then it goes on as before.
const HAND_OVER_MS: u32 = 3_000;
/// Before that, for replicas to say how far they are.
const ASKED_MS: u32 = 300;
const TASK_TIMEOUT_MS: u64 = 8_000;

fn proxy<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a ServiceFacts<'a>> {
    service.children.get(&parts::known_name("proxy"))
}

/// Somebody takes writes, and the data says since when.
pub fn is_formed(service: &ServiceFacts<'_>) -> bool {
    let term = term::recorded(service);
    leader(service).is_some_and(|leader| parts::is_ready(leader) && term::said(leader) == term)
}

/// The word of a service that exists; `reasons` tells of members that are not ready already.
pub fn health(service: &ServiceFacts<'_>, settings: &Settings, reasons: Vec<String>) -> Health {
    let mut reasons = reasons;
    let seen = service.members.iter().filter(|member| member.seen.is_some()).count();
    if seen == 0 {
        return parts::health(HealthWord::Unknown, reasons);
    }
    let Some(leader) = leader(service).filter(|leader| parts::is_ready(leader)) else {
        reasons.insert(0, "no member takes writes".to_owned());
        return parts::health(HealthWord::Down, reasons);
    };
    let behind = service.members.iter().any(|m| !parts::is_ready(m));
    let unplaced = service.members.len() < service.slots as usize;
    let mut word = if behind || unplaced { HealthWord::Degraded } else { HealthWord::Healthy };
    let mut at_least = |worse: HealthWord, reason: String| {
        word = word.max(worse);
        reasons.push(reason);
    };
    let copies = service.members.iter().filter(|m| in_sync(m, leader, settings)).count();
    if copies == 0 {
        at_least(HealthWord::Critical, "its data is on one host only: no replica is in sync".to_owned());
    }
    for stale in service.members.iter().filter(|m| term::is_master(m) && m.member != leader.member) {
        at_least(
            HealthWord::Degraded,
            format!("{}/{} does not know that it no longer leads", service.name, stale.slot),
        );
    }
    if let Some(proxy) = proxy(service) {
        let ready = proxy.members.iter().filter(|member| parts::is_ready(member)).count();
        let all = proxy.slots as usize;
        if ready < all {
            let worse = if ready == 0 { HealthWord::Down } else { HealthWord::Degraded };
            at_least(worse, format!("{ready} of {all} members of {} serve", proxy.name));
        }
    }
    parts::health(word, reasons)
}

/// It does not serve only because nobody leads: a new image would not help it, and one that does not start would take away the
/// member that could lead.
pub fn waits(service: &ServiceFacts<'_>, member: &MemberFacts) -> bool {
    let answers = member.seen.as_ref().is_some_and(|seen| seen.running && seen.role.is_some());
    answers && leader(service).is_none()
}

/// The replica that takes the master's place: one that is up to date with an update first.
pub fn heir(service: &ServiceFacts<'_>, settings: &Settings) -> Option<u32> {
    let leader = leader(service)?;
    let fits = service.members.iter().filter(|m| in_sync(m, leader, settings));
    fits.min_by_key(|m| (!m.current, m.slot)).map(|heir| heir.slot)
}

/// A new member copies the master. A lost master is not replaced before another member leads.
pub fn may_replace(service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
    match leader(service) {
        Some(leader) if leader.member != member && parts::is_ready(leader) => Ok(()),
        _ => Err(Wait(format!(
            "no other member of {} leads: `muster op ls` says what that waits for",
            service.name
        ))),
    }
}

/// The task by which the master gives its role to a replica, and waits until that one has everything.
pub fn switchover(service: &ServiceFacts<'_>, settings: &Settings, to: Option<u32>) -> Result<Task, Wait> {
    let Some(leader) = leader(service) else {
        return Err(Wait(format!("{} has no master now", service.name)));
    };
    let Some(slot) = to.or_else(|| heir(service, settings)) else {
        return Err(Wait(format!("{} has no replica that is in sync", service.name)));
    };
    let Some(heir) = service.members.iter().find(|m| m.slot == slot) else {
        return Err(Wait(format!("{}/{slot} is not placed", service.name)));
    };
    if heir.member == leader.member {
        return Err(Wait(format!("{}/{slot} is the master already", service.name)));
    }
    if !in_sync(heir, leader, settings) {
        return Err(Wait(format!("{}/{slot} is not in sync with its master", service.name)));
    }
    let term = term::recorded(service).filter(|term| term::said(leader) == Some(*term));
    let Some(term) = term else {
        return Err(Wait(format!("the present term is not written at {}/{} yet", service.name, leader.slot)));
    };
    Ok(hand_over(service, settings, leader, heir, &term.to_string()))
}

fn hand_over(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    leader: &MemberFacts,
    heir: &MemberFacts,
    term: &str,
) -> Task {
    let (from, to) = (term::address(leader, settings), term::address(heir, settings));
    let of = Some((heir.slot, to));
    let info = |field: &str| format!("/info-{}/{field}", heir.slot);
    let recent = ["0", "1", "2"].map(|seconds| parts::equals(info("master_last_io_seconds_ago"), seconds));
    let accept = vec![
        master::is_role("master", None),
        parts::equals("/term", term),
        master::is_role("slave", of),
        parts::equals(info("master_host"), &from.to_string()),
        parts::equals(info("master_link_status"), "up"),
        parts::equals(info("master_sync_in_progress"), "0"),
        parts::equals(format!("/term-{}", heir.slot), term),
        Predicate::Any(recent.to_vec()),
    ];
    let calls = vec![master::role(None), master::said(None), master::role(of), master::said(of)];
    let name = format!("{}/{} follows its master without lag", service.name, heir.slot);
    // Replicas tell once a second how far they are, and while it holds writes the master does not ask: asked just before, the
    // hand-over begins at once.
    let others = service.members.len().saturating_sub(1);
    let asked = render::call("asked", &format!("WAIT {others} {ASKED_MS}"));
    let failover = render::call("failover", &format!("FAILOVER TO {to} {PORT} TIMEOUT {HAND_OVER_MS}"));
    Task {
        id: muster_model::ids::TaskId(0),
        member: leader.member,
        guard: Some(master::guard(service, name, calls, accept)),
        what: TaskKind::Act { act: Act::Resp(render::admin(service.name, vec![asked, failover])) },
        timeout_ms: TASK_TIMEOUT_MS,
    }
}

pub fn survivability(service: &ServiceFacts<'_>) -> Survivability {
    let mut result = Survivability::default();
    // Before anybody leads: the one that will first.
    let master = leader(service).or_else(|| service.members.first());
    let mut stop = |host: &HostId, why: &str, reads: bool| {
        result.stops_writes.entry(host.clone()).or_insert_with(|| why.to_owned());
        if reads {
            result.stops_reads.entry(host.clone()).or_insert_with(|| why.to_owned());
        }
    };
    if let Some(master) = master {
        let why = format!(
            "the master {}/{} is there: another one leads once its stop is confirmed, or an operator says that it is off",
            service.name, master.slot
        );
        stop(&master.host, &why, false);
    }
    for (host, left) in parts::left_without_host(service.members.iter()) {
        if left == 0 {
            stop(&host, &format!("no other member of {} is left", service.name), true);
        }
    }
    if let Some(proxy) = proxy(service) {
        for (host, left) in parts::left_without_host(proxy.members.iter()) {
            if left == 0 {
                stop(&host, &format!("no other member of {} is left", proxy.name), true);
            }
        }
    }
    "acknowledged writes when a master is lost and another one takes over: those that it had not received yet, usually the \
     last milliseconds, at most what was written since its link was last up (min_replicas bounds that to 5 s); and what a master \
     took in the last second before its host lost power, if it leads again"
        .clone_into(&mut result.may_lose);
    result
}
