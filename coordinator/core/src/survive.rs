//! Which single losses stop writes, stop reads or lose data: computed from the placement, never assumed.

use std::collections::BTreeMap;

use muster_model::ids::{HostId, Name};
use muster_model::spec::FailureDomain;
use muster_model::time::Timestamp;
use muster_model::view::CoordinatorView;

use crate::facts::{kind_of, service_facts};
use crate::kinds::{ServiceFacts, Survivability};
use crate::state::State;

/// What the loss of one host, or of one zone, does to a service. A zone is named by one of its hosts.
#[must_use]
pub fn of_service(
    state: &State,
    name: &Name,
    now: Timestamp,
    domain: FailureDomain,
) -> Option<Survivability> {
    let kind = kind_of(state.services.get(name)?)?;
    let mut facts = service_facts(state, name, now)?;
    if domain == FailureDomain::Zone {
        merge_zones(state, &mut facts);
    }
    Some(kind.survivability(&facts))
}

/// What the loss of these hosts together does to a service, as if all their members were on the first one.
#[must_use]
pub fn of_set(state: &State, name: &Name, now: Timestamp, hosts: &[HostId]) -> Option<Survivability> {
    let kind = kind_of(state.services.get(name)?)?;
    let mut facts = service_facts(state, name, now)?;
    merge(&mut facts, hosts);
    Some(kind.survivability(&facts))
}

fn merge(facts: &mut ServiceFacts<'_>, hosts: &[HostId]) {
    let Some(first) = hosts.first() else { return };
    for member in facts.members.iter_mut().filter(|member| hosts.contains(&member.host)) {
        member.host = first.clone();
    }
    for child in facts.children.values_mut() {
        merge(child, hosts);
    }
}

/// A zone is one big host: its members are moved, on paper, to the zone's first host.
fn merge_zones(state: &State, facts: &mut ServiceFacts<'_>) {
    for member in &mut facts.members {
        let zone = state.hosts.get(&member.host).map(|host| &host.zone);
        if let Some((first, _)) = state.hosts.iter().find(|(_, host)| Some(&host.zone) == zone) {
            member.host = first.clone();
        }
    }
    for child in facts.children.values_mut() {
        merge_zones(state, child);
    }
}

/// Lines about every service that operators wrote, and about the coordinators.
#[must_use]
pub fn lines(state: &State, now: Timestamp, coordinators: &[CoordinatorView]) -> Vec<String> {
    let written = state.services.iter().filter(|(_, s)| s.parent.is_none() && s.internal.is_none());
    let mut lines: Vec<String> = written.flat_map(|(name, _)| promises(state, name, now)).collect();
    lines.extend(coordinator_lines(state, coordinators));
    lines
}

/// What a service survives, and what may be lost, in sentences.
#[must_use]
pub fn promises(state: &State, name: &Name, now: Timestamp) -> Vec<String> {
    let Some(result) = of_service(state, name, now, FailureDomain::Host) else { return Vec::new() };
    let mut lines: Vec<String> = result
        .stops_writes
        .iter()
        .map(|(host, why)| {
            let what = if result.stops_reads.contains_key(host) { "reads and writes" } else { "writes" };
            format!("losing host {} stops {what} of {name}: {why}", state.host_name(host))
        })
        .collect();
    let only_reads = result.stops_reads.iter().filter(|(host, _)| !result.stops_writes.contains_key(*host));
    lines
        .extend(only_reads.map(|(host, why)| {
            format!("losing host {} stops reads of {name}: {why}", state.host_name(host))
        }));
    if lines.is_empty() && !state.members_of(name).is_empty() {
        lines.push(format!("{name} survives the loss of any one host"));
    }
    if !result.may_lose.is_empty() {
        lines.push(format!("{name} may lose {}", result.may_lose));
    }
    let service = state.services.get(name);
    let remarks = service.and_then(|service| Some(kind_of(service)?.remarks(name, &service.spec)));
    lines.extend(remarks.unwrap_or_default());
    lines
}

/// Hosts whose loss leaves too few coordinators to agree on anything.
pub fn coordinator_lines(state: &State, coordinators: &[CoordinatorView]) -> Vec<String> {
    let voters: Vec<&CoordinatorView> = coordinators.iter().filter(|c| c.voter).collect();
    if voters.is_empty() {
        return Vec::new();
    }
    let majority = voters.len() / 2 + 1;
    let mut on_host: BTreeMap<HostId, usize> = BTreeMap::new();
    for voter in &voters {
        let here =
            state.hosts.iter().find(|(_, host)| endpoint_is_on(&voter.endpoint, &host.address.to_string()));
        if let Some((id, _)) = here {
            *on_host.entry(id.clone()).or_default() += 1;
        }
    }
    let stops = on_host.iter().filter(|(_, lost)| voters.len() - **lost < majority);
    let mut lines: Vec<String> = stops
        .map(|(id, lost)| {
            let host = state.host_name(id);
            format!(
                "losing host {host} stops changes: {} of {} coordinators are left; what runs goes on",
                voters.len() - lost,
                voters.len()
            )
        })
        .collect();
    if lines.is_empty() {
        lines.push(format!("the {} coordinators survive the loss of any one host", voters.len()));
    }
    lines
}

/// A coordinator listens at this address.
pub fn endpoint_is_on(endpoint: &str, address: &str) -> bool {
    let bare = endpoint.rsplit_once("://").map_or(endpoint, |(_, rest)| rest);
    bare.rsplit_once(':').map_or(bare, |(host, _)| host).trim_matches(['[', ']']) == address
}
