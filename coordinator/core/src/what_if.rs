//! What the loss of hosts would do to every service now: predicted from the placement and from what runs.

use muster_model::ids::{HostId, Name};
use muster_model::time::Timestamp;
use muster_model::view::{CoordinatorView, LossView, WhatIfView};

use crate::facts::{kind_of, layout_of, service_facts};
use crate::kinds::{MemberFacts, REPLACE_DATA_AFTER};
use crate::scheduler::choose;
use crate::state::{Liveness, Service, State};
use crate::survive;

/// The services that operators wrote, and the coordinators, without these hosts.
#[must_use]
pub fn hosts_down(
    state: &State,
    hosts: &[HostId],
    now: Timestamp,
    coordinators: &[CoordinatorView],
) -> WhatIfView {
    let written = state.services.iter().filter(|(_, s)| s.parent.is_none() && s.internal.is_none());
    let names: Vec<String> = hosts.iter().map(|host| state.host_name(host)).collect();
    let after = without(state, hosts, now);
    let lost: Vec<u64> = coordinators.iter().filter(|c| is_on(state, hosts, c)).map(|c| c.id).collect();
    WhatIfView {
        host: names.join(", "),
        services: written.filter_map(|(name, row)| loss(state, &after, name, row, hosts, now)).collect(),
        control_plane: control_plane(&lost, coordinators),
    }
}

/// Coordinators alone are lost: nothing happens to services.
#[must_use]
pub fn coordinators_down(lost: &[u64], coordinators: &[CoordinatorView]) -> WhatIfView {
    let known = coordinators.iter().filter(|one| lost.contains(&one.id));
    let names: Vec<String> = known.map(|one| one.endpoint.clone()).collect();
    WhatIfView {
        host: names.join(", "),
        services: Vec::new(),
        control_plane: control_plane(lost, coordinators),
    }
}

/// The same platform with these hosts silent.
fn without(state: &State, hosts: &[HostId], now: Timestamp) -> State {
    let mut after = state.clone();
    for host in hosts {
        if let Some(row) = after.hosts.get_mut(host) {
            row.liveness = Liveness::Down;
            row.since = now;
        }
    }
    after
}

fn is_on(state: &State, hosts: &[HostId], coordinator: &CoordinatorView) -> bool {
    let address = |host: &HostId| state.hosts.get(host).map(|row| row.address.to_string());
    hosts.iter().filter_map(address).any(|address| survive::endpoint_is_on(&coordinator.endpoint, &address))
}

/// What the loss of coordinators does to the group, if any of them votes.
fn control_plane(lost: &[u64], coordinators: &[CoordinatorView]) -> Option<String> {
    let voters: Vec<&CoordinatorView> = coordinators.iter().filter(|one| one.voter).collect();
    let left = voters.iter().filter(|one| !lost.contains(&one.id)).count();
    if left == voters.len() {
        return None;
    }
    let (all, majority) = (voters.len(), voters.len() / 2 + 1);
    Some(if left >= majority {
        format!("{left} of {all} coordinators are left: changes go on, {} more may be lost", left - majority)
    } else {
        format!("{left} of {all} coordinators are left: changes stop; what runs goes on")
    })
}

fn loss(
    state: &State,
    after: &State,
    name: &Name,
    row: &Service,
    hosts: &[HostId],
    now: Timestamp,
) -> Option<LossView> {
    let kind = kind_of(row)?;
    let facts = service_facts(state, name, now)?;
    let result = survive::of_set(state, name, now, hosts)?;
    let first = hosts.first()?;
    let (writes, reads) = (result.stops_writes.get(first), result.stops_reads.get(first));
    let serves = |m: &&MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.ready);
    let ready = facts.members.iter().filter(serves);
    let left = ready.clone().filter(|m| !hosts.contains(&m.host)).count();
    // Nothing stops that does not go on now.
    let stopped = ready.clone().count() == 0;
    let here = |m: &&MemberFacts| hosts.contains(&m.host);
    let leads = facts.members.iter().filter(here).any(|m| kind.leads(&facts, m.slot));
    let why = match (writes.or(reads), stopped) {
        (_, true) => format!("{name} does not serve now"),
        (Some(why), _) => why.clone(),
        (None, _) if leads => "its leading role moves first".to_owned(),
        (None, _) => String::new(),
    };
    let data = layout_of(name, row)?.has_data;
    let goes_on = writes.is_none() && !stopped;
    Some(LossView {
        service: name.clone(),
        kind: row.spec.kind.clone(),
        writes: goes_on,
        reads: reads.is_none() && !stopped,
        moves: leads && writes.is_none(),
        data,
        copies: u32::try_from(ready.count()).unwrap_or(u32::MAX),
        copies_left: u32::try_from(left).unwrap_or(u32::MAX),
        bears_another: goes_on && bears_another(after, name, now),
        repair: repair(after, name, row, hosts, data),
        why,
        may_lose: if leads { result.may_lose } else { String::new() },
    })
}

/// With the hosts gone, one more could go without stopping writes.
fn bears_another(after: &State, name: &Name, now: Timestamp) -> bool {
    let left = after.hosts.iter().filter(|(_, host)| host.is_up()).map(|(id, _)| id);
    left.into_iter().all(|host| {
        let set: Vec<HostId> = std::iter::once(host.clone()).collect();
        let result = survive::of_set(after, name, now, &set);
        result.is_some_and(|result| !result.stops_writes.contains_key(host))
    })
}

/// When what is lost is there again.
fn repair(after: &State, name: &Name, row: &Service, hosts: &[HostId], data: bool) -> String {
    let Some(layout) = layout_of(name, row) else { return String::new() };
    let members = after.members_of(name);
    let lost: Vec<u32> =
        members.iter().filter(|(_, (_, m))| hosts.contains(&m.host)).map(|(slot, _)| *slot).collect();
    if lost.is_empty() {
        return String::new();
    }
    let room =
        |slot: &u32| choose(after, name, &layout, *slot).is_ok_and(|choice| !hosts.contains(&choice.host));
    if layout.exclusive || !lost.iter().all(room) {
        return "when the host is back".to_owned();
    }
    if !data {
        return "elsewhere, at once".to_owned();
    }
    let span = row.spec.replace_after.map_or(REPLACE_DATA_AFTER, |span| span.0);
    format!("elsewhere, after {span}")
}
