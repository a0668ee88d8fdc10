//! Health, gates and order of a `mariadb` service, from what its members say of their view. Pure; renders nothing.

use std::collections::BTreeSet;

use muster_model::ids::{HostId, MemberId};
use muster_model::view::{Health, HealthWord};

use super::arbitrator;
use super::observe::{DONOR, JOINING, LEADER};
use super::settings::Settings;
use crate::kinds::{MemberFacts, ServiceFacts, Survivability, UpdateStep, Wait, parts};

/// The member that clients write to, as far as is known.
pub fn leader<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a MemberFacts> {
    let mut leaders = service.members.iter().filter(|member| parts::has_role(member, LEADER));
    leaders.clone().find(|member| parts::is_ready(member)).or_else(|| leaders.next())
}

fn proxy<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a ServiceFacts<'a>> {
    service.children.get(&parts::known_name("proxy"))
}

/// The third vote of a cluster of two.
fn arbitrators<'a>(service: &'a ServiceFacts<'_>) -> impl Iterator<Item = &'a MemberFacts> + Clone {
    let child = service.children.get(&parts::known_name(arbitrator::ROLE));
    child.into_iter().flat_map(|child| &child.members)
}

/// All votes of a whole cluster.
fn votes(service: &ServiceFacts<'_>) -> usize {
    Settings::of(service.spec).arbitrators() as usize + service.slots as usize
}

/// The histories that members in step belong to: one, or something is badly wrong.
fn histories<'a>(service: &'a ServiceFacts<'_>) -> BTreeSet<&'a str> {
    let ready = service.members.iter().filter(|member| parts::is_ready(member));
    ready.filter_map(|member| member.seen.as_ref()?.system_id.as_deref()).collect()
}

/// The member in the lowest slot begins alone; then one at a time, so that one copy is under way at once.
pub fn may_start(service: &ServiceFacts<'_>, slot: u32) -> Result<(), Wait> {
    if !service.formed {
        return match service.members.iter().map(|member| member.slot).min() {
            Some(first) if first != slot => {
                Err(Wait(format!("{}/{first} makes the database first", service.name)))
            }
            _ => Ok(()),
        };
    }
    let joins = |m: &&MemberFacts| {
        m.slot != slot
            && m.started
            && m.host_up
            && m.seen.as_ref().is_none_or(|seen| seen.running && parts::has_role(m, JOINING))
    };
    match service.members.iter().find(joins) {
        Some(other) => Err(Wait(format!("{}/{} joins first", service.name, other.slot))),
        None => Ok(()),
    }
}

pub fn is_formed(service: &ServiceFacts<'_>) -> bool {
    leader(service).is_some_and(|member| {
        parts::is_ready(member) && member.seen.as_ref().is_some_and(|seen| seen.system_id.is_some())
    })
}

pub fn health(service: &ServiceFacts<'_>) -> Health {
    let slots = service.slots as usize;
    let missing = service.members.iter().filter(|member| !parts::is_ready(member));
    let mut reasons: Vec<String> = missing.map(|member| parts::why_not_ready(service, member)).collect();
    let silent = arbitrators(service).find(|member| !parts::is_ready(member));
    if let Some((child, member)) = service.children.get(&parts::known_name(arbitrator::ROLE)).zip(silent) {
        reasons.push(parts::why_not_ready(child, member));
    }
    if service.members.len() < slots {
        reasons.push(format!("{} of {slots} members are placed", service.members.len()));
    }
    if !service.formed {
        reasons.insert(0, "the database is being made".to_owned());
        return parts::health(HealthWord::Down, reasons);
    }
    let seen = service.members.iter().chain(arbitrators(service)).filter(|m| m.seen.is_some()).count();
    let word = match leader(service) {
        _ if seen < parts::majority(votes(service)) => HealthWord::Unknown,
        None => {
            reasons.insert(0, "no member takes writes".to_owned());
            HealthWord::Down
        }
        Some(leader) if leader.seen.as_ref().is_some_and(|seen| seen.writes == Some(false)) => {
            HealthWord::Down
        }
        Some(_) => serving(service, &mut reasons),
    };
    parts::health(word, reasons)
}

/// The word while somebody takes writes: the worst that any of its conditions asks for.
fn serving(service: &ServiceFacts<'_>, reasons: &mut Vec<String>) -> HealthWord {
    let slots = service.slots as usize;
    let ready = service.members.iter().filter(|member| parts::is_ready(member)).count();
    let voting = ready + arbitrators(service).filter(|member| parts::is_ready(member)).count();
    let votes = votes(service);
    let mut word = if voting < votes { HealthWord::Degraded } else { HealthWord::Healthy };
    let mut at_least = |worse: HealthWord, reason: String| {
        word = word.max(worse);
        reasons.push(reason);
    };
    if slots > 1 && voting <= parts::majority(votes) && voting < votes {
        let what = if votes > slots { "votes are there" } else { "members are in step" };
        at_least(HealthWord::Critical, format!("{voting} of {votes} {what}: one more loss stops writes"));
    }
    let histories = histories(service);
    if histories.len() > 1 {
        let all: Vec<&str> = histories.into_iter().collect();
        at_least(HealthWord::Critical, format!("members belong to different clusters: {}", all.join(", ")));
    } else if let (Some(recorded), Some(own)) = (service.records.get(super::HISTORY), histories.first())
        && recorded != own
    {
        at_least(HealthWord::Critical, format!("the cluster is {own}, recorded was {recorded}"));
    }
    let leaders = service.members.iter().filter(|member| parts::has_role(member, LEADER)).count();
    if leaders > 1 {
        at_least(HealthWord::Degraded, "more than one member says that clients write to it".to_owned());
    }
    let behind = |m: &&MemberFacts| parts::is_ready(m) && m.seen.as_ref().is_some_and(|seen| !seen.caught_up);
    if let Some(member) = service.members.iter().find(behind) {
        at_least(HealthWord::Degraded, format!("{}/{} is behind", service.name, member.slot));
    }
    if let Some(proxy) = proxy(service) {
        let ready = proxy.members.iter().filter(|member| parts::is_ready(member)).count();
        let all = proxy.slots as usize;
        if ready < all {
            let worse = if ready == 0 { HealthWord::Down } else { HealthWord::Degraded };
            at_least(worse, format!("{ready} of {all} members of {} serve", proxy.name));
        }
    }
    word
}

/// A step that takes `member` away for a moment is safe: everybody else is in step and in one view, nobody gives or
/// takes a copy, no queue is long. The writer may go too: it hands the writing over before its stop.
pub fn may_stop(service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
    parts::others_ready(service, member)?;
    let others = || service.members.iter().filter(|other| other.member != member);
    if let Some(busy) =
        service.members.iter().find(|m| parts::has_role(m, DONOR) || parts::has_role(m, JOINING))
    {
        return Err(Wait(format!("a copy is under way at {}/{}", service.name, busy.slot)));
    }
    let fits = |m: &&MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.caught_up);
    if let Some(behind) = others().find(|m| !fits(m)) {
        return Err(Wait(format!("{}/{} has writes waiting", service.name, behind.slot)));
    }
    if votes(service) > service.slots as usize && !arbitrators(service).any(parts::is_ready) {
        return Err(Wait(format!("{} has no third vote: its arbitrator is not there", service.name)));
    }
    let apart = |m: &&MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.detail.contains("sees "));
    match others().find(apart) {
        Some(other) if service.slots > 1 && is_in_view(service, member) => {
            Err(Wait(format!("{}/{} does not see all members", service.name, other.slot)))
        }
        _ if histories(service).len() > 1 => Err(Wait("members belong to different clusters".to_owned())),
        _ => Ok(()),
    }
}

/// A member that is not in step is no part of the others' view; stopping it takes nothing away.
fn is_in_view(service: &ServiceFacts<'_>, member: MemberId) -> bool {
    service.members.iter().any(|m| m.member == member && parts::is_ready(m))
}

/// A new member copies one that is in step; the old one, should it return, is not in anybody's addresses any more.
pub fn may_replace(service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
    match leader(service) {
        Some(leader) if leader.member != member && parts::is_ready(leader) => Ok(()),
        _ => Err(Wait(format!("{} has no other member that takes writes", service.name))),
    }
}

/// The member that the writing can move to: the one in slot `to`, or the first in step.
pub fn candidate<'a>(service: &'a ServiceFacts<'_>, to: Option<u32>) -> Result<&'a MemberFacts, Wait> {
    let fits = |m: &&MemberFacts| {
        !parts::has_role(m, LEADER) && m.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up)
    };
    let asked = |m: &&MemberFacts| to.is_none_or(|slot| m.slot == slot);
    service.members.iter().filter(asked).find(fits).ok_or_else(|| match to {
        Some(slot) => Wait(format!("{}/{slot} is not a member in step that others write past", service.name)),
        None => Wait(format!("{} has no other member in step", service.name)),
    })
}

/// Members that do not serve, then those that clients do not write to, the writer last.
pub fn next_update(service: &ServiceFacts<'_>) -> UpdateStep {
    // The giver of a copy runs and does not serve either.
    if let Some(giver) = service.members.iter().find(|member| parts::has_role(member, DONOR)) {
        return UpdateStep::Wait(format!("{}/{} gives a copy", service.name, giver.slot));
    }
    parts::one_at_a_time(service, |member| may_stop(service, member))
}

pub fn survivability(service: &ServiceFacts<'_>) -> Survivability {
    let mut result = Survivability::default();
    let votes = votes(service);
    let need = parts::majority(votes);
    let mut stop = |host: &HostId, why: String| {
        result.stops_writes.entry(host.clone()).or_insert_with(|| why.clone());
        result.stops_reads.entry(host.clone()).or_insert(why);
    };
    for (host, left) in parts::left_without_host(service.members.iter().chain(arbitrators(service))) {
        if left < need {
            stop(&host, format!("{} loses its majority: {left} of {votes} left", service.name));
        }
    }
    if let Some(proxy) = proxy(service) {
        for (host, left) in parts::left_without_host(proxy.members.iter()) {
            if left == 0 {
                stop(&host, format!("{} loses its last member", proxy.name));
            }
        }
    }
    if service.slots == 1 {
        "everything, with the disk of its one host".clone_into(&mut result.may_lose);
    }
    result
}
