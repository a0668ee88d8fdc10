//! Health, gates and order of a `postgres` service, from roles and streaming. Pure; renders nothing.

use muster_model::ids::MemberId;
use muster_model::view::{Health, HealthWord};

use super::observe::{ASKS_FOR_RESTART, LEADER, PAUSED, REPLICA, SYNC_STANDBY};
use super::settings::Settings;
use crate::detail::slots;
use crate::kinds::{MemberFacts, ServiceFacts, Survivability, UpdateStep, Wait, parts};

/// The member that leads, as far as is known.
pub fn leader<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a MemberFacts> {
    let leads = |member: &&MemberFacts| parts::has_role(member, LEADER);
    let mut leaders = service.members.iter().filter(leads);
    // Just after a failover the old leader may still say that it leads; one that takes writes goes first.
    leaders.clone().find(|member| parts::is_ready(member)).or_else(|| leaders.next())
}

fn child<'a>(service: &'a ServiceFacts<'_>, role: &str) -> Option<&'a ServiceFacts<'a>> {
    service.children.get(&parts::known_name(role))
}

fn ready_of(service: &ServiceFacts<'_>) -> usize {
    service.members.iter().filter(|member| parts::is_ready(member)).count()
}

/// First etcd, then the member of the lowest slot alone, then the others.
pub fn may_start(service: &ServiceFacts<'_>, slot: u32) -> Result<(), Wait> {
    if service.formed {
        return Ok(());
    }
    if let Some(etcd) = child(service, "etcd") {
        let (ready, need) = (ready_of(etcd), parts::majority(etcd.slots as usize));
        if ready < need {
            return Err(Wait(format!("{ready} of {} members of {} are healthy", etcd.slots, etcd.name)));
        }
    }
    let first = service.members.iter().map(|member| member.slot).min();
    match first {
        Some(first) if first != slot => {
            Err(Wait(format!("{}/{first} makes the database first", service.name)))
        }
        _ => Ok(()),
    }
}

pub fn is_formed(service: &ServiceFacts<'_>) -> bool {
    leader(service).is_some_and(|member| {
        parts::is_ready(member) && member.seen.as_ref().is_some_and(|seen| seen.system_id.is_some())
    })
}

/// Replicas first, the leader last; only while everything is well otherwise.
pub fn asks_for_restart(service: &ServiceFacts<'_>) -> Vec<u32> {
    if !service.formed || service.members.iter().any(|m| !m.current || !parts::is_ready(m)) {
        return Vec::new();
    }
    let asks =
        |m: &&MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.facts.contains_key(ASKS_FOR_RESTART));
    let leads = |m: &MemberFacts| leader(service).is_some_and(|leader| leader.member == m.member);
    let mut found: Vec<(bool, u32)> =
        service.members.iter().filter(asks).map(|m| (leads(m), m.slot)).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, slot)| slot).collect()
}

/// Who has every acknowledged row, how far the others are, what waits for a restart.
pub fn detail(service: &ServiceFacts<'_>, settings: &Settings) -> Vec<String> {
    let of = |fits: &dyn Fn(&MemberFacts) -> bool| slots(service.members.iter().filter(|m| fits(m)));
    let mut lines = Vec::new();
    let standby = of(&|m| parts::has_role(m, SYNC_STANDBY) && parts::is_ready(m));
    lines.push(match (settings.synchronous, standby.as_str()) {
        (false, _) => "asynchronous: a failover may lose the last writes".to_owned(),
        (true, "") => {
            "synchronous, but no standby is in step: the leader alone has the last writes".to_owned()
        }
        (true, slots) => format!("synchronous: every acknowledged row is in slot {slots}, too"),
    });
    let behind = of(&|m| m.seen.as_ref().is_some_and(|seen| seen.running && !seen.caught_up));
    if !behind.is_empty() {
        lines.push(format!("behind: slot {behind}"));
    }
    let waits = of(&|m| m.seen.as_ref().is_some_and(|seen| seen.facts.contains_key(ASKS_FOR_RESTART)));
    if !waits.is_empty() {
        lines.push(format!("a parameter waits for a restart of slot {waits}"));
    }
    lines
}

pub fn health(service: &ServiceFacts<'_>, settings: &Settings) -> Health {
    let slots = service.slots as usize;
    let mut reasons: Vec<String> = service
        .members
        .iter()
        .filter(|member| !parts::is_ready(member))
        .map(|member| parts::why_not_ready(service, member))
        .collect();
    if service.members.len() < slots {
        reasons.push(format!("{} of {slots} members are placed", service.members.len()));
    }
    if !service.formed {
        reasons.insert(0, "the database is being made".to_owned());
        return parts::health(HealthWord::Down, reasons);
    }
    let seen = service.members.iter().filter(|member| member.seen.is_some()).count();
    let word = match leader(service) {
        _ if seen < parts::majority(slots) => HealthWord::Unknown,
        None => {
            reasons.insert(0, "no leader".to_owned());
            HealthWord::Down
        }
        Some(leader) if !parts::is_ready(leader) => HealthWord::Down,
        Some(_) => serving(service, settings, &mut reasons),
    };
    parts::health(word, reasons)
}

/// The word while the leader takes writes: the worst that any of its conditions asks for.
fn serving(service: &ServiceFacts<'_>, settings: &Settings, reasons: &mut Vec<String>) -> HealthWord {
    let slots = service.slots as usize;
    let members = &service.members;
    let replicas = members.iter().filter(|m| parts::is_ready(m) && !parts::has_role(m, LEADER)).count();
    let missing = ready_of(service) < slots;
    let mut word = if missing { HealthWord::Degraded } else { HealthWord::Healthy };
    let mut at_least = |worse: HealthWord, reason: String| {
        word = word.max(worse);
        reasons.push(reason);
    };
    if members.iter().filter(|member| parts::has_role(member, LEADER)).count() > 1 {
        at_least(HealthWord::Critical, "more than one member says that it leads".to_owned());
    }
    if slots > 1 && replicas == 0 {
        at_least(
            HealthWord::Critical,
            "no replica streams: acknowledged rows are on one host only".to_owned(),
        );
    } else if settings.synchronous
        && !members.iter().any(|m| parts::is_ready(m) && parts::has_role(m, SYNC_STANDBY))
    {
        at_least(HealthWord::Degraded, "no synchronous standby".to_owned());
    }
    let behind = |m: &&MemberFacts| parts::is_ready(m) && m.seen.as_ref().is_some_and(|seen| !seen.caught_up);
    if let Some(member) = members.iter().find(behind) {
        at_least(HealthWord::Degraded, format!("{}/{} is far behind", service.name, member.slot));
    }
    if members.iter().any(|m| m.seen.as_ref().is_some_and(|seen| seen.detail.ends_with(PAUSED))) {
        at_least(HealthWord::Critical, "paused: no automatic failover".to_owned());
    }
    if let Some(etcd) = child(service, "etcd") {
        let (ready, all) = (ready_of(etcd), etcd.slots as usize);
        let need = parts::majority(all);
        if ready < all {
            let worse = ready < need || (ready == need && missing);
            let worse = if worse { HealthWord::Critical } else { HealthWord::Degraded };
            at_least(worse, format!("{ready} of {all} members of {} are healthy", etcd.name));
        }
    }
    if let Some(proxy) = child(service, "proxy") {
        let (ready, all) = (ready_of(proxy), proxy.slots as usize);
        if ready < all {
            let worse = if ready == 0 { HealthWord::Down } else { HealthWord::Degraded };
            at_least(worse, format!("{ready} of {all} members of {} serve", proxy.name));
        }
    }
    word
}

/// A step that takes `member` away for a moment is safe: everything else stands, and it does not lead.
pub fn may_stop(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> Result<(), Wait> {
    let etcd_stands = match child(service, "etcd") {
        Some(etcd) => {
            etcd.members.iter().find(|m| !parts::is_ready(m)).map(|m| parts::why_not_ready(etcd, m))
        }
        None => None,
    };
    if let Some(why) = etcd_stands {
        return Err(Wait(why));
    }
    if service.slots > 1 && leader(service).is_some_and(|leader| leader.member == member) {
        return Err(Wait(format!("it leads: `muster service switchover {}` first", service.name)));
    }
    parts::others_ready(service, member)?;
    let protected = |m: &MemberFacts| parts::has_role(m, SYNC_STANDBY);
    if settings.synchronous && service.slots > 1 && !service.members.iter().any(protected) {
        return Err(Wait("no synchronous standby yet".to_owned()));
    }
    Ok(())
}

/// A new member copies a leader that takes writes; its name is new, so the old one can never be taken for it.
pub fn may_replace(service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
    match leader(service) {
        Some(leader) if leader.member != member && parts::is_ready(leader) => Ok(()),
        _ => Err(Wait(format!("{} has no other member that leads and takes writes", service.name))),
    }
}

/// Members that do not serve, replicas, the synchronous standby, then the leader after it gave its role away.
pub fn next_update(service: &ServiceFacts<'_>, settings: &Settings) -> UpdateStep {
    let outdated = || service.members.iter().filter(|member| !member.current);
    let leads = |member: &MemberFacts| leader(service).is_some_and(|leader| leader.member == member.member);
    if let Some(broken) = outdated().find(|m| parts::is_broken(service, m) && !leads(m)) {
        return UpdateStep::Recreate(broken.member);
    }
    if let Some(waiting) = service.members.iter().find(|m| !parts::is_ready(m)) {
        // Nothing else leads, so nothing is taken away by it.
        if service.slots == 1 && !waiting.current && waiting.host_up {
            return UpdateStep::Recreate(waiting.member);
        }
        return UpdateStep::Wait(parts::why_not_ready(service, waiting));
    }
    let order = |m: &&MemberFacts| (leads(m), !parts::has_role(m, REPLICA), m.slot);
    let Some(next) = outdated().min_by_key(order) else {
        return UpdateStep::Done;
    };
    if service.slots > 1 && leads(next) {
        return match candidate(service, settings, None) {
            Ok(to) => UpdateStep::Switch { from: next.member, to: to.member },
            Err(Wait(why)) => UpdateStep::Wait(why),
        };
    }
    match may_stop(service, settings, next.member) {
        Ok(()) => UpdateStep::Recreate(next.member),
        Err(Wait(why)) => UpdateStep::Wait(why),
    }
}

/// The member that can take the leading role: the one in slot `to`, or the best.
pub fn candidate<'a>(
    service: &'a ServiceFacts<'_>,
    settings: &Settings,
    to: Option<u32>,
) -> Result<&'a MemberFacts, Wait> {
    let role = if settings.synchronous { SYNC_STANDBY } else { REPLICA };
    let fits = |m: &&MemberFacts| {
        parts::has_role(m, role) && m.seen.as_ref().is_some_and(|s| s.ready && s.caught_up)
    };
    let asked = |m: &&MemberFacts| to.is_none_or(|slot| m.slot == slot);
    let mut good: Vec<&MemberFacts> = service.members.iter().filter(asked).filter(fits).collect();
    good.sort_by_key(|m| (!m.current, m.slot));
    good.first().copied().ok_or_else(|| match to {
        Some(slot) => Wait(format!("{}/{slot} is not a {role} that streams without lag", service.name)),
        None => Wait(format!("{} has no {role} that streams without lag", service.name)),
    })
}

pub fn survivability(service: &ServiceFacts<'_>, settings: &Settings) -> Survivability {
    let mut result = Survivability::default();
    let mut stop = |host: &muster_model::ids::HostId, reads: bool, why: String| {
        result.stops_writes.entry(host.clone()).or_insert_with(|| why.clone());
        if reads {
            result.stops_reads.entry(host.clone()).or_insert(why);
        }
    };
    for (host, left) in parts::left_without_host(service.members.iter()) {
        if left == 0 {
            stop(&host, true, format!("no other member of {} is left", service.name));
        }
    }
    for (role, keeps, reads) in [("etcd", "majority", false), ("proxy", "member", true)] {
        let Some(child) = child(service, role) else { continue };
        let need = if role == "etcd" { parts::majority(child.slots as usize) } else { 1 };
        for (host, left) in parts::left_without_host(child.members.iter()) {
            if left < need {
                stop(
                    &host,
                    reads,
                    format!("{} loses its last {keeps}: {left} of {} left", child.name, child.slots),
                );
            }
        }
    }
    result.may_lose = match (service.slots, settings.synchronous) {
        (1, _) => "everything, with the disk of its one host".to_owned(),
        (_, true) => String::new(),
        (_, false) => "the last acknowledged writes when the leader is lost: at most 1 MiB of log plus what was written in \
                       the last 20 s (30 s with detection: wan)"
            .to_owned(),
    };
    result
}
