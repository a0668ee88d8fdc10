//! What operators are shown, made from State and from what the leader alone knows. Decides nothing.

use std::collections::BTreeMap;

use muster_model::ids::{HostId, MemberId, Name, OperationId, Revision};
use muster_model::time::Timestamp;
use muster_model::view::{
    CoordinatorView, EventView, Health, HealthWord, HostView, Liveness, MemberView, OperationView,
    PlatformView, ServiceView,
};

use crate::detail::details;
use crate::facts::{brake, child_peers, kind_of, layout_of, needed_secrets, peers_of, service_facts};
use crate::kinds::Endpoint;
use crate::reconcile::{may_start, rests, surplus_waits};
use crate::scheduler::choose;
use crate::state::{Host, Member, Operation, Phase, State};
use crate::survive::promises;

/// What only the leader knows, beside State.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// Its clock.
    pub now: Timestamp,
    /// The coordinators.
    pub coordinators: Vec<CoordinatorView>,
    /// How each host is; hosts that are missing are shown as State has them.
    pub liveness: BTreeMap<HostId, Liveness>,
}

/// The whole platform; absent before `init`.
#[must_use]
pub fn platform(state: &State, local: &Local) -> Option<PlatformView> {
    let platform = state.platform.as_ref()?;
    Some(PlatformView {
        platform: platform.name.clone(),
        index: state.index,
        at: local.now,
        coordinators: local.coordinators.clone(),
        hosts: state.hosts.iter().map(|(id, host)| self::host(state, local, id, host)).collect(),
        services: services(state, local),
        operations: operations(state, false),
        notices: notices(state, local),
    })
}

/// Operations, the ended ones only when asked for.
#[must_use]
pub fn operations(state: &State, ended_too: bool) -> Vec<OperationView> {
    let wanted = state.operations.iter().filter(|(_, op)| ended_too || op.outcome.is_none());
    wanted.map(|(id, op)| operation(*id, op)).collect()
}

/// One operation.
#[must_use]
pub fn operation(id: OperationId, op: &Operation) -> OperationView {
    let needs = op.needs_operator.as_ref();
    OperationView {
        id,
        kind: op.kind.name().to_owned(),
        service: op.service.clone(),
        state: op.state(),
        step: needs.map_or_else(|| op.status.clone(), |needs| needs.reason.clone()),
        remedy: needs.map(|needs| needs.remedy.clone()),
        started: op.started,
        ended: op.outcome.map(|(at, _)| at),
        log: op.log.clone(),
        result: op.result.clone(),
    }
}

/// The history from an index on, oldest first.
pub fn events(state: &State, from: u64) -> impl Iterator<Item = &EventView> {
    state.events.iter().map(AsRef::as_ref).filter(move |event| event.index.0 >= from)
}

/// How clients connect to a service; `${secret:NAME}` stands where the password goes.
#[must_use]
pub fn endpoints(state: &State, name: &Name, user: Option<&str>) -> Vec<Endpoint> {
    let Some(service) = state.services.get(name) else { return Vec::new() };
    let Some(kind) = kind_of(service) else { return Vec::new() };
    kind.endpoints(name, &service.spec, &peers_of(state, name), &child_peers(state, name), user)
}

fn host(state: &State, local: &Local, id: &HostId, host: &Host) -> HostView {
    let agreed = if host.is_up() { Liveness::Ready } else { Liveness::Down };
    let mut conditions = host.conditions.clone();
    conditions.sort();
    HostView {
        id: id.clone(),
        name: host.name.clone(),
        address: host.address.to_string(),
        zone: host.zone.clone(),
        labels: host.labels.clone(),
        liveness: local.liveness.get(id).copied().unwrap_or(agreed),
        since: host.since,
        scheduling: host.scheduling,
        rests: rests(state, id),
        run: host.boot.as_ref().map(|boot| boot.0.clone()).unwrap_or_default(),
        facts: (*host.facts).clone(),
        members: u32::try_from(state.members_on(id).count()).unwrap_or(u32::MAX),
        conditions,
    }
}

/// Owners by name, each followed by its children. Internal services are not shown.
fn services(state: &State, local: &Local) -> Vec<ServiceView> {
    let owners = state.services.iter().filter(|(_, s)| s.parent.is_none() && s.internal.is_none());
    let names = owners.flat_map(|(name, _)| state.family(name).map(|(name, _)| name));
    names.filter_map(|name| service(state, local, name)).collect()
}

/// One service.
#[must_use]
pub fn service(state: &State, local: &Local, name: &Name) -> Option<ServiceView> {
    let row = state.services.get(name)?;
    let facts = service_facts(state, name, local.now);
    let health = facts.zip(kind_of(row)).map(|(facts, kind)| kind.health(&facts));
    let unknown = || Health {
        word: HealthWord::Unknown,
        reasons: vec![format!("this version does not know the kind `{}`", row.spec.kind)],
    };
    let mut health = health.unwrap_or_else(unknown);
    if row.removing.is_some() {
        health.reasons.insert(0, "is being removed".to_owned());
    } else {
        health.reasons.extend(not_placed(state, name));
        if let Some(why) = surplus_waits(state, name, local.now) {
            health.word = health.word.max(HealthWord::Degraded);
            health.reasons.push(why);
        }
    }
    let of_service = state.members.iter().filter(|(_, member)| member.is_of(name));
    let mut members: Vec<MemberView> =
        of_service.map(|(id, row)| member(state, local, name, *id, row)).collect();
    members.sort_by(|a, b| (&a.slot, a.member).cmp(&(&b.slot, b.member)));
    Some(ServiceView {
        name: name.clone(),
        kind: row.spec.kind.clone(),
        owner: row.parent.as_ref().map(|parent| parent.owner.clone()),
        revision: row.revision,
        health,
        members,
        promises: if row.parent.is_none() { promises(state, name, local.now) } else { Vec::new() },
        details: details(state, name, local.now),
        operation: state.holder(name).filter(|(_, op)| op.service == *name).map(|(id, _)| id),
        endpoints: endpoint_map(endpoints(state, name, None)),
    })
}

fn endpoint_map(endpoints: Vec<Endpoint>) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for endpoint in endpoints {
        map.entry(endpoint.role).or_default().push(endpoint.url);
    }
    map
}

/// Why slots are empty, in the scheduler's words.
fn not_placed(state: &State, name: &Name) -> Option<String> {
    let layout = layout_of(name, state.services.get(name)?)?;
    let filled = state.members_of(name);
    let empty = layout.indexes().into_iter().find(|slot| !filled.contains_key(slot))?;
    choose(state, name, &layout, empty).err().map(|why| why.to_string())
}

fn member(state: &State, local: &Local, service: &Name, id: MemberId, row: &Member) -> MemberView {
    let host_up = state.hosts.get(&row.host).is_some_and(Host::works);
    let seen = row.seen().filter(|_| host_up);
    let (word, detail) = condition(state, local, service, row, host_up);
    MemberView {
        slot: row.slot.clone(),
        member: id,
        host: state.hosts.get(&row.host).map_or_else(|| service.clone(), |host| host.name.clone()),
        addresses: row.addresses.iter().map(|a| (a.network.clone(), a.address.to_string())).collect(),
        state: word.to_owned(),
        role: seen.and_then(|seen| seen.role.clone()),
        ready: seen.is_some_and(|seen| seen.ready) && row.phase == Phase::Active,
        revision: row.rendering.as_ref().map_or(Revision(0), |r| r.revision),
        running_since: seen.filter(|seen| seen.running).and_then(|seen| seen.started_at),
        restarts: seen.map_or(0, |seen| seen.restarts),
        detail,
    }
}

/// A member's word, and what it waits for.
fn condition(
    state: &State,
    local: &Local,
    service: &Name,
    row: &Member,
    host_up: bool,
) -> (&'static str, String) {
    if row.phase != Phase::Active {
        let text = if host_up { "leaves its host" } else { "its host must confirm that it is gone" };
        return ("retiring", text.to_owned());
    }
    if state.hosts.get(&row.host).is_some_and(|host| host.resting) {
        return ("resting", "its host is in maintenance".to_owned());
    }
    if !host_up {
        return ("unknown", "its host is down".to_owned());
    }
    if !row.started {
        let why = may_start(state, service, row, local.now).err().map(|wait| wait.0);
        return ("waiting", why.unwrap_or_default());
    }
    let newer = if row.pending.is_some() { "a newer revision waits for its turn" } else { "" };
    match row.seen() {
        None => match &row.observed {
            Some(old) if old.running && !old.successor.is_empty() => {
                ("running", format!("as of revision {}: {}", old.revision, old.successor))
            }
            Some(old) if !old.detail.is_empty() => ("starting", old.detail.clone()),
            _ => ("starting", newer.to_owned()),
        },
        Some(seen) => {
            let word = if seen.running {
                "running"
            } else if seen.stopped {
                "stopped"
            } else {
                "starting"
            };
            let parts = [seen.detail.as_str(), newer];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            (word, parts.join("; "))
        }
    }
}

/// Things an operator should know, the most serious first.
fn notices(state: &State, local: &Local) -> Vec<String> {
    let mut notices = Vec::new();
    notices.extend(brake(state));
    for host in state.hosts.values() {
        let Some(found) = &host.inventory else { continue };
        notices.push(if found.is_empty() {
            format!("host {}: after the recovery its inventory is awaited; nothing is stopped there until then", host.name)
        } else {
            format!(
                "host {}: found there, not in the spec: {}; nothing is stopped or placed there: docs/tasks/coordinators.md",
                host.name,
                found.join(", ")
            )
        });
    }
    for host in state.hosts.values() {
        if !host.is_up() {
            let what = if host.boot.is_some() { "is down" } else { "has not connected yet" };
            notices.push(format!("host {} {what} for {}", host.name, local.now.since(host.since)));
        } else if host.is_in_maintenance() {
            let how = if host.resting { "is in maintenance" } else { "is being prepared for maintenance" };
            notices.push(format!("host {} {how}: `muster host uncordon {0}` ends it", host.name));
        } else if !host.engine.0 && host.boot.is_some() {
            let since = local.now.since(host.engine.1);
            notices.push(format!("the Docker Engine of host {} does not answer for {since}", host.name));
        }
    }
    for (id, op) in state.operations.iter().filter(|(_, op)| op.outcome.is_none()) {
        if let Some(needs) = &op.needs_operator {
            notices.push(format!("operation {id} ({}) waits for you: {}", op.kind.name(), needs.reason));
        }
    }
    for host in state.hosts.values() {
        let lines = host.conditions.iter().map(|c| format!("host {}: {}: {}", host.name, c.code, c.text));
        notices.extend(lines);
    }
    let missing = needed_secrets(state);
    if !missing.is_empty() {
        notices.push(format!("secrets are being made: {}", missing.join(", ")));
    }
    let voters = local.coordinators.iter().filter(|c| c.voter).count();
    match voters {
        0 | 3.. if voters % 2 == 1 || voters == 0 => {}
        1 if state.hosts.len() <= 1 => {}
        1 => notices.push("one coordinator only: join two more, so that one may be lost".to_owned()),
        _ => notices.push(format!(
            "{voters} coordinators survive as many losses as {} do: an odd number is better",
            voters - 1
        )),
    }
    notices
}
