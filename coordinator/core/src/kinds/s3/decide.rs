//! Health, gates and order of an `s3` service, from canaries and drives. Pure; renders nothing.

use muster_model::ids::MemberId;
use muster_model::time::Millis;
use muster_model::view::{Health, HealthWord};

use super::heal;
use super::observe::{HEALS, KNOWN_LOGIN, NEEDED, WAITING};
use super::settings::Settings;
use super::trial;
use crate::kinds::{MemberFacts, Observed, ServiceFacts, Survivability, UpdateStep, Wait, parts};

/// A server looks again, after this time, for drives that did not answer at its start.
const SETTLES: Millis = Millis::seconds(20);

fn ready_of(service: &ServiceFacts<'_>) -> usize {
    service.members.iter().filter(|member| parts::is_ready(member)).count()
}

fn detail(member: &MemberFacts) -> &str {
    member.seen.as_ref().map_or("", |seen| seen.detail.as_str())
}

/// The fact was seen of the member.
fn is(member: &MemberFacts, fact: &str) -> bool {
    member.seen.as_ref().is_some_and(|seen| seen.facts.contains_key(fact))
}

/// The first start formats the drives: the server waits for every address anyway, and all must be known.
pub fn may_start(service: &ServiceFacts<'_>) -> Result<(), Wait> {
    let placed = service.members.len();
    if service.formed || placed >= service.slots as usize {
        return Ok(());
    }
    Err(Wait(format!("{placed} of {} members of {} are placed", service.slots, service.name)))
}

/// Every member serves, and all say the same deployment.
pub fn is_formed(service: &ServiceFacts<'_>) -> bool {
    let mut ids = service.members.iter().map(|m| m.seen.as_ref().and_then(|seen| seen.system_id.as_ref()));
    let first = ids.next().flatten();
    service.members.len() == service.slots as usize
        && service.members.iter().all(parts::is_ready)
        && first.is_some()
        && ids.all(|id| id == first)
}

pub fn health(service: &ServiceFacts<'_>, settings: &Settings) -> Health {
    let slots = service.slots as usize;
    let seen = service.members.iter().filter(|member| member.seen.is_some()).count();
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
        reasons.insert(0, "its drives are being formatted".to_owned());
        return parts::health(HealthWord::Down, reasons);
    }
    let erasure = settings.erasure;
    let ready = ready_of(service);
    let drives = ready as u32 * erasure.drives;
    let mut word = match drives {
        _ if seen < parts::majority(slots) => HealthWord::Unknown,
        _ if drives < erasure.write_quorum() => {
            let need = erasure.write_quorum();
            reasons.insert(0, format!("{drives} drives serve, writes need {need}"));
            HealthWord::Down
        }
        _ if ready == slots => HealthWord::Healthy,
        _ if drives - erasure.drives < erasure.write_quorum() => HealthWord::Critical,
        _ => HealthWord::Degraded,
    };
    let mut at_least = |worse: HealthWord, reason: String| {
        word = word.max(worse);
        reasons.push(reason);
    };
    for member in service.members.iter().filter(|member| parts::is_ready(member)) {
        let said = detail(member);
        let who = format!("{}/{} on {}", service.name, member.slot, member.host_name);
        if said.contains(KNOWN_LOGIN) {
            at_least(HealthWord::Critical, format!("{who}: {KNOWN_LOGIN}"));
        } else if !said.is_empty() {
            at_least(HealthWord::Degraded, format!("{who}: {said}"));
        }
    }
    if let Some(proxy) = service.children.get(&parts::known_name("proxy")) {
        let (ready, all) = (ready_of(proxy), proxy.slots as usize);
        if ready < all {
            let worse = if ready == 0 { HealthWord::Down } else { HealthWord::Degraded };
            at_least(worse, format!("{ready} of {all} members of {} serve", proxy.name));
        }
    }
    parts::health(word, reasons)
}

/// The one member that is as no other is (command, environment, image), runs, and waits for a second one.
///
/// The servers compare these at their start: a changed one serves only once another is changed too.
fn lone<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a MemberFacts> {
    let members = &service.members;
    let waits =
        |m: &&MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.running) && m.current && is(m, WAITING);
    let mut waiting = members.iter().filter(waits);
    let lone = waiting.next().filter(|_| waiting.next().is_none())?;
    let mut others = members.iter().filter(|m| m.member != lone.member).peekable();
    // They need not be alike: an update that ended half way leaves two variants, and those serve.
    let alone = others.peek().is_some() && others.all(|m| m.variant != lone.variant);
    alone.then_some(lone)
}

/// A member that was changed is done with when it serves, or when only a second changed one lets it serve.
pub fn settled(service: &ServiceFacts<'_>, member: MemberId) -> bool {
    let good = |m: &MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up);
    service.members.iter().any(|m| m.member == member && good(m))
        || lone(service).is_some_and(|lone| lone.member == member)
}

/// Members that serve nothing first, if that takes nothing away; then one by one.
pub fn next_update(service: &ServiceFacts<'_>, settings: &Settings) -> UpdateStep {
    let outdated = || service.members.iter().filter(|member| !member.current);
    if outdated().next().is_some()
        && let Some(step) = trial::gate(service, settings)
    {
        return step;
    }
    let runs = |member: &MemberFacts| member.seen.as_ref().is_some_and(|seen| seen.running);
    let broken = |member: &&MemberFacts| {
        let others = parts::others_ready(service, member.member).is_ok();
        member.host_up && !parts::is_ready(member) && (others || !runs(member) || hopeless(service, settings))
    };
    // One that is as few others are is more likely what keeps the rest from serving.
    let alike = |member: &MemberFacts| service.members.iter().filter(|m| m.variant == member.variant).count();
    if let Some(broken) = outdated().filter(broken).min_by_key(|member| (runs(member), alike(member))) {
        return UpdateStep::Recreate(broken.member);
    }
    let lone = lone(service).map(|member| member.member);
    let unready = |member: &&MemberFacts| !parts::is_ready(member) && Some(member.member) != lone;
    if let Some(waiting) = service.members.iter().find(unready) {
        return UpdateStep::Wait(parts::why_not_ready(service, waiting));
    }
    let Some(next) = outdated().min_by_key(|member| member.slot) else {
        return match lone {
            Some(_) => {
                UpdateStep::Wait("one member is as no other is, and none is left to change".to_owned())
            }
            None => UpdateStep::Done,
        };
    };
    match may_stop(service, settings, next.member) {
        Ok(()) => UpdateStep::Recreate(next.member),
        Err(Wait(why)) => UpdateStep::Wait(why),
    }
}

/// Every host is there and still too few members serve for a write: nothing is taken away by stopping one more.
///
/// With a host dark the others answer nothing for a while, and right after a start too; both recover by themselves: they
/// are left alone.
fn hopeless(service: &ServiceFacts<'_>, settings: &Settings) -> bool {
    let serving = ready_of(service) as u32 * settings.erasure.drives;
    let left_alone = |member: &MemberFacts| {
        !member.host_up
            || member.seen.as_ref().is_some_and(|seen| seen.running && just_started(service, seen))
    };
    serving < settings.erasure.write_quorum() && !service.members.iter().any(left_alone)
}

/// It has not looked for drives a second time yet.
fn just_started(service: &ServiceFacts<'_>, seen: &Observed) -> bool {
    seen.started_at.is_some_and(|started| service.now.since(started) < SETTLES)
}

/// A step that takes `member` away for a moment is safe: the others serve, have done so for a while, and heal nothing.
pub fn may_stop(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> Result<(), Wait> {
    if settings.erasure.hosts == 1 {
        return Ok(());
    }
    if let Some(lone) = lone(service).filter(|lone| lone.member != member) {
        // Back to back: the pair serves together, and nobody does alone.
        let unready = service.members.iter().find(|m| m.member != lone.member && !parts::is_ready(m));
        return unready.map_or(Ok(()), |m| Err(Wait(parts::why_not_ready(service, m))));
    }
    parts::others_ready(service, member)?;
    for other in service.members.iter().filter(|other| other.member != member) {
        let Some(seen) = &other.seen else { continue };
        if !seen.caught_up {
            let who = format!("{}/{}", service.name, other.slot);
            return Err(Wait(format!("{who}: {}", seen.detail)));
        }
        if just_started(service, seen) {
            let seconds = SETTLES.0 / 1000;
            return Err(Wait(format!("{}/{} started less than {seconds} s ago", service.name, other.slot)));
        }
    }
    let me = service.members.iter().find(|m| m.member == member);
    if me.is_some_and(|me| parts::is_ready(me) && is(me, NEEDED)) {
        return Err(Wait("the server itself says that the others could not do without it".to_owned()));
    }
    Ok(())
}

/// An empty drive is accepted only while every other one is there and full.
pub fn may_replace(service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
    parts::others_ready(service, member)?;
    let others = service.members.iter().filter(|other| other.member != member);
    let whole = |other: &&MemberFacts| other.seen.as_ref().is_some_and(|seen| seen.caught_up);
    match others.clone().find(|other| detail(other).contains(HEALS) || !whole(other)) {
        Some(other) => Err(Wait(format!("{}/{} {}", service.name, other.slot, detail(other)))),
        None if others.count() == 0 => Err(Wait(format!("{} has its data in one place only", service.name))),
        None => heal::may_give_up(service, member),
    }
}

pub fn survivability(service: &ServiceFacts<'_>, settings: &Settings) -> Survivability {
    let erasure = settings.erasure;
    let mut result = Survivability::default();
    for (host, left) in parts::left_without_host(service.members.iter()) {
        let drives = left as u32 * erasure.drives;
        let why = |need| format!("{drives} of {} drives are left, {need} are needed", erasure.total());
        if drives < erasure.write_quorum() {
            result.stops_writes.insert(host.clone(), why(erasure.write_quorum()));
        }
        if drives < erasure.read_quorum() {
            result.stops_reads.insert(host, why(erasure.read_quorum()));
        }
    }
    if let Some(proxy) = service.children.get(&parts::known_name("proxy")) {
        for (host, left) in parts::left_without_host(proxy.members.iter()) {
            if left == 0 {
                let why = format!("no other member of {} is left", proxy.name);
                result.stops_writes.insert(host.clone(), why.clone());
                result.stops_reads.insert(host, why);
            }
        }
    }
    result.may_lose = format!(
        "the last seconds of acknowledged objects when more than {} drives lose power at once: the server syncs \
         objects, not the names that it gives them",
        erasure.parity
    );
    result
}
