//! Why a host cannot be taken off the platform, and what to do about each member that holds it. Changes nothing.

use muster_model::ids::{HostId, MemberId};

use crate::facts::layout_of;
use crate::state::{Member, Phase, State};

/// Members that are named at most; the others are counted.
const NAMED_MAX: usize = 8;

/// What is left on the host, each with its remedy; absent = it may be removed.
#[must_use]
pub fn refusal(state: &State, id: &HostId) -> Option<String> {
    let host = state.hosts.get(id)?;
    let holds = |(_, member): &(MemberId, &Member)| host.is_up() || member.phase == Phase::Active;
    let left: Vec<String> =
        state.members_on(id).filter(holds).map(|(_, m)| remedy(state, m, host.is_up())).collect();
    if left.is_empty() {
        return None;
    }
    let more = left.len().saturating_sub(NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
    let named = left.iter().take(NAMED_MAX).map(|line| format!("\n  {line}")).collect::<String>();
    let first = if host.is_up() {
        format!("empty it with `muster host drain {}`", host.name)
    } else {
        "it is down; nothing is taken from a service before its copy is elsewhere".to_owned()
    };
    Some(format!("host `{}` still has members: {first}{named}{more}", host.name))
}

fn remedy(state: &State, member: &Member, up: bool) -> String {
    let slot = &member.slot;
    if member.phase != Phase::Active {
        return format!("{slot} is being stopped: wait a moment");
    }
    if up {
        return slot.to_string();
    }
    let layout = state.services.get(&slot.service).and_then(|row| layout_of(&slot.service, row));
    let lost = if layout.is_some_and(|layout| layout.exclusive) { " --confirm-lost" } else { "" };
    format!("{slot}: `muster service replace {slot}{lost}`, once another host has room for it")
}
