//! What the loss of one host would do to every service now: predicted from the placement and from what runs.

use muster_model::ids::{HostId, Name};
use muster_model::spec::FailureDomain;
use muster_model::time::Timestamp;
use muster_model::view::{CoordinatorView, LossView, WhatIfView};

use crate::facts::{kind_of, layout_of, service_facts};
use crate::kinds::MemberFacts;
use crate::state::State;
use crate::survive;

/// The services that operators wrote, and the coordinators, without this host.
#[must_use]
pub fn host_down(
    state: &State,
    host: &HostId,
    now: Timestamp,
    coordinators: &[CoordinatorView],
) -> WhatIfView {
    let written = state.services.iter().filter(|(_, s)| s.parent.is_none() && s.internal.is_none());
    let name = state.host_name(host);
    let about_it = |line: &String| line.contains(&format!("losing host {name} "));
    WhatIfView {
        host: name.clone(),
        services: written.filter_map(|(service, _)| loss(state, service, host, now)).collect(),
        control_plane: survive::coordinator_lines(state, coordinators).into_iter().find(about_it),
    }
}

fn loss(state: &State, name: &Name, host: &HostId, now: Timestamp) -> Option<LossView> {
    let row = state.services.get(name)?;
    let kind = kind_of(row)?;
    let facts = service_facts(state, name, now)?;
    let result = survive::of_service(state, name, now, FailureDomain::Host)?;
    let (writes, reads) = (result.stops_writes.get(host), result.stops_reads.get(host));
    let serves = |m: &&MemberFacts| m.seen.as_ref().is_some_and(|seen| seen.ready);
    let ready = facts.members.iter().filter(serves);
    let left = ready.clone().filter(|m| m.host != *host).count();
    // Nothing stops that does not go on now.
    let stopped = ready.clone().count() == 0;
    let leads = facts.members.iter().any(|m| m.host == *host && kind.leads(&facts, m.slot));
    let why = match (writes.or(reads), stopped) {
        (_, true) => format!("{name} does not serve now"),
        (Some(why), _) => why.clone(),
        (None, _) if leads => "its leading role moves first".to_owned(),
        (None, _) => String::new(),
    };
    Some(LossView {
        service: name.clone(),
        kind: row.spec.kind.clone(),
        writes: writes.is_none() && !stopped,
        reads: reads.is_none() && !stopped,
        moves: leads && writes.is_none(),
        data: layout_of(name, row)?.has_data,
        copies: u32::try_from(ready.count()).unwrap_or(u32::MAX),
        copies_left: u32::try_from(left).unwrap_or(u32::MAX),
        why,
        may_lose: if leads { result.may_lose } else { String::new() },
    })
}
