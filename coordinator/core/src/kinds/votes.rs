//! Judgements of services whose members vote among themselves and serve while a majority does. Knows no one kind.

use muster_model::view::{Health, HealthWord};

use super::{ServiceFacts, Survivability, Wait, parts};

/// Members that serve.
fn ready(service: &ServiceFacts<'_>) -> usize {
    service.members.iter().filter(|member| parts::is_ready(member)).count()
}

/// A majority serves.
pub fn has_majority(service: &ServiceFacts<'_>) -> bool {
    ready(service) >= parts::majority(service.slots as usize)
}

/// The members of one that is not formed yet start at once, when every address is known.
pub fn all_placed(service: &ServiceFacts<'_>) -> Result<(), Wait> {
    let placed = service.members.len();
    if service.formed || placed >= service.slots as usize {
        return Ok(());
    }
    Err(Wait(format!("{placed} of {} members of {} are placed", service.slots, service.name)))
}

/// Healthy with all, critical with a bare majority, down without.
pub fn health(service: &ServiceFacts<'_>) -> Health {
    let slots = service.slots as usize;
    let need = parts::majority(slots);
    let seen = service.members.iter().filter(|member| member.seen.is_some()).count();
    let waiting = service.members.iter().filter(|member| !parts::is_ready(member));
    let mut reasons: Vec<String> = waiting.map(|member| parts::why_not_ready(service, member)).collect();
    if service.members.len() < slots {
        reasons.push(format!("{} of {slots} members are placed", service.members.len()));
    }
    let word = match ready(service) {
        ready if ready >= slots => HealthWord::Healthy,
        _ if seen < need => HealthWord::Unknown,
        ready if ready < need => HealthWord::Down,
        ready if ready == need => HealthWord::Critical,
        _ => HealthWord::Degraded,
    };
    parts::health(word, reasons)
}

/// Hosts without which no majority is left: nothing is written any more.
pub fn survivability(service: &ServiceFacts<'_>) -> Survivability {
    let need = parts::majority(service.slots as usize);
    let lost = parts::left_without_host(service.members.iter()).into_iter().filter(|(_, left)| *left < need);
    let why = |left| format!("{left} of {} members of {} are left", service.slots, service.name);
    Survivability { stops_writes: lost.map(|(host, left)| (host, why(left))).collect(), ..Default::default() }
}
