//! The filters of the scheduler: each lets a host pass or says, in words that follow the host's name, why not.

use muster_model::ids::HostId;
use muster_model::observed::{DISK_FULL, DISK_NEARLY_FULL, FOUND_MEMBERS};
use muster_model::spec::{FailureDomain, PlaceSpec, Size};
use muster_model::view::Scheduling;

use super::{Request, Unfit, host_ports};
use crate::facts::layout_of;
use crate::state::Host;

type Filter = fn(&Request<'_>, &HostId, &Host) -> Result<(), Unfit>;

/// All of them, the cheapest and plainest first.
pub const ALL: &[Filter] =
    &[up, open, adopted, disk, allowed, one_per_host, apart, never_with, zones, memory, cpu, ports];

/// Memory that stays with the system, the agent and the Docker Engine.
const MEMORY_RESERVED: u64 = 256 << 20;
/// How often the CPU of a host may be promised: a limit is a cap, not a reservation.
const CPU_OVERCOMMIT: u64 = 8;

fn pass_if(fits: bool, why: impl FnOnce() -> String) -> Result<(), Unfit> {
    if fits { Ok(()) } else { Err(Unfit { why: why(), field: None }) }
}

/// The same for what a setting of the service asks for.
fn asked(field: &'static str, fits: bool, why: impl FnOnce() -> String) -> Result<(), Unfit> {
    if fits { Ok(()) } else { Err(Unfit { why: why(), field: Some(field) }) }
}

fn up(_: &Request<'_>, _: &HostId, host: &Host) -> Result<(), Unfit> {
    pass_if(host.is_up(), || "down".to_owned())
}

fn open(_: &Request<'_>, _: &HostId, host: &Host) -> Result<(), Unfit> {
    pass_if(host.scheduling == Scheduling::Open, || format!("{:?}", host.scheduling).to_lowercase())
}

/// Members of a lost platform run on there: something of the same name beside them could take their place.
fn adopted(_: &Request<'_>, _: &HostId, host: &Host) -> Result<(), Unfit> {
    let found = host.conditions.iter().any(|condition| condition.code == FOUND_MEMBERS);
    pass_if(!found, || "with members of another platform".to_owned())?;
    pass_if(host.inventory.is_none(), || "not settled after a recovery".to_owned())
}

/// What runs there stays; it may need the rest.
fn disk(_: &Request<'_>, _: &HostId, host: &Host) -> Result<(), Unfit> {
    let short = |code: &str| code == DISK_NEARLY_FULL || code == DISK_FULL;
    let found = host.conditions.iter().any(|condition| short(&condition.code));
    pass_if(!found, || "with a disk that is nearly full".to_owned())
}

fn allowed(request: &Request<'_>, _: &HostId, host: &Host) -> Result<(), Unfit> {
    not_allowed(&request.row.spec.place, host).map_or(Ok(()), Err)
}

/// Why `place` keeps a service off a host; absent = it does not.
pub fn not_allowed(place: &PlaceSpec, host: &Host) -> Option<Unfit> {
    if !place.hosts.is_empty() && !place.hosts.contains(&host.name) {
        return Some(Unfit { why: "not among `place.hosts`".to_owned(), field: Some("place.hosts") });
    }
    let missing = place.labels.iter().find(|(key, value)| host.labels.get(*key) != Some(*value));
    missing.map(|(key, value)| Unfit {
        why: format!("without label {key}={value}"),
        field: Some("place.labels"),
    })
}

fn one_per_host(request: &Request<'_>, id: &HostId, _: &Host) -> Result<(), Unfit> {
    let shared = request.layout.one_per_host && request.siblings.iter().any(|m| m.host == *id);
    pass_if(!shared, || format!("already with a member of {}", request.service))
}

fn apart(request: &Request<'_>, id: &HostId, _: &Host) -> Result<(), Unfit> {
    let here = request.siblings.iter().filter(|m| m.host == *id);
    let clash = here.map(|m| m.slot.index).find(|other| !request.layout.may_share(request.slot, *other));
    clash.map_or(Ok(()), |other| pass_if(false, || format!("already with {}/{other}", request.service)))
}

fn never_with(request: &Request<'_>, id: &HostId, _: &Host) -> Result<(), Unfit> {
    let never = &request.layout.never_with;
    // One that is being retired may still run.
    let clash = request.state.members.values().find(|m| m.host == *id && never.contains(&m.slot.service));
    clash.map_or(Ok(()), |other| pass_if(false, || format!("already with {}", other.slot)))
}

fn zones(request: &Request<'_>, _: &HostId, host: &Host) -> Result<(), Unfit> {
    if request.row.spec.place.spread != FailureDomain::Zone {
        return Ok(());
    }
    let zone_of = |id: &HostId| request.state.hosts.get(id).map(|h| h.zone.as_str());
    let shared = request.siblings.iter().any(|m| zone_of(&m.host) == Some(host.zone.as_str()));
    asked("place.spread", !shared, || {
        format!("in zone {}, already with a member of {}", host.zone, request.service)
    })
}

/// Sum of a limit over the members whose containers may exist on the host.
fn promised(request: &Request<'_>, id: &HostId, amount: impl Fn(&muster_model::plan::Limits) -> u64) -> u64 {
    let limits = request.state.members_on(id).filter_map(|(_, member)| {
        let row = request.state.services.get(&member.slot.service)?;
        Some(layout_of(&member.slot.service, row)?.limits)
    });
    limits.map(|l| amount(&l)).sum()
}

fn memory(request: &Request<'_>, id: &HostId, host: &Host) -> Result<(), Unfit> {
    let has = host.facts.memory_bytes;
    pass_if(has > 0, || "without a first report of its size".to_owned())?;
    let wanted = request.layout.limits.memory_bytes;
    let free = has.saturating_sub(MEMORY_RESERVED).saturating_sub(promised(request, id, |l| l.memory_bytes));
    asked("resources.memory", wanted <= free, || {
        format!("short of memory ({} free, {} wanted)", whole(free), whole(wanted))
    })
}

fn whole(bytes: u64) -> Size {
    Size(bytes >> 20 << 20)
}

fn cpu(request: &Request<'_>, id: &HostId, host: &Host) -> Result<(), Unfit> {
    let has = host.facts.cpu_millis * CPU_OVERCOMMIT;
    let used = promised(request, id, |l| u64::from(l.cpu_millis));
    let wanted = u64::from(request.layout.limits.cpu_millis);
    asked("resources.cpus", used + wanted <= has, || {
        format!("short of CPU ({used} of {has} thousandths promised)")
    })
}

fn ports(request: &Request<'_>, id: &HostId, _: &Host) -> Result<(), Unfit> {
    let taken = host_ports(request.state, id);
    let clash = request.layout.host_ports.iter().find_map(|port| Some((port, taken.get(port)?)));
    clash.map_or(Ok(()), |(port, by)| asked("ports", false, || format!("with port {port} taken by {by}")))
}
