//! Why a service or a host is as it is: what the scheduler says, what is waited for, what happened last. Decides nothing.

use muster_model::ids::{HostId, Name};
use muster_model::time::Timestamp;
use muster_model::view::{EventView, ExplainSection, ExplainView};

use crate::facts::{brake, kind_of, layout_of, service_facts};
use crate::kinds::{MemberFacts, ServiceFacts, UpdateStep, Wait};
use crate::reconcile::{maintenance_waits, may_start, replace_refusal, rests, surplus_waits};
use crate::scheduler;
use crate::state::{State, Step};

/// Events that are shown.
const EVENTS: usize = 12;

/// A service with its parts; absent if there is none of this name.
#[must_use]
pub fn service(state: &State, name: &Name, now: Timestamp) -> Option<ExplainView> {
    state.services.get(name)?;
    let family: Vec<&Name> = state.family(name).map(|(name, _)| name).collect();
    let mut sections = Vec::new();
    let root = state.root(name);
    section(&mut sections, "Operation", operation(state, root));
    for name in family.iter().filter(|part| **part == name || root == name) {
        let Some(facts) = service_facts(state, name, now) else { continue };
        section(&mut sections, &format!("Placement of {name}"), placement(state, name));
        section(&mut sections, &format!("Gates of {name}"), gates(state, &facts, now));
    }
    let about = |about: &str| {
        let service = about.split('/').next().unwrap_or_default();
        family.iter().any(|name| name.as_str() == service)
    };
    Some(ExplainView { about: name.to_string(), sections, events: events(state, about) })
}

/// A host: what is on it, and whether that could leave it.
#[must_use]
pub fn host(state: &State, id: &HostId, now: Timestamp) -> Option<ExplainView> {
    let row = state.hosts.get(id)?;
    let mut sections = Vec::new();
    let up = if row.is_up() { "its agent beats" } else { "its agent is silent" };
    let mut lines = vec![
        format!("{up} for {}", now.since(row.since)),
        format!("scheduling: {}", format!("{:?}", row.scheduling).to_lowercase()),
    ];
    lines.extend(brake(state));
    lines.extend(row.conditions.iter().map(|c| format!("{}: {}", c.code, c.text)));
    section(&mut sections, "Host", lines);
    if row.is_in_maintenance() {
        section(&mut sections, "Maintenance", prepared(state, id, now));
    }
    section(&mut sections, "Members", on_host(state, id, now));
    let events = events(state, |about| about == row.name.as_str());
    Some(ExplainView { about: row.name.to_string(), sections, events })
}

/// How far a host in maintenance is.
fn prepared(state: &State, id: &HostId, now: Timestamp) -> Vec<String> {
    let Some(row) = state.hosts.get(id) else { return Vec::new() };
    if !row.resting {
        let waits = maintenance_waits(state, id, row.outage_accepted, now);
        return waits.into_iter().map(|why| format!("waits: {why}")).collect();
    }
    if rests(state, id) {
        return vec!["rests: nothing of the platform runs on it".to_owned()];
    }
    let left = state.members_on(id).filter(|(_, member)| !member.is_at_rest());
    left.map(|(_, member)| format!("stops: {}", member.slot)).collect()
}

fn section(sections: &mut Vec<ExplainSection>, title: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        sections.push(ExplainSection { title: title.to_owned(), lines });
    }
}

fn operation(state: &State, root: &Name) -> Vec<String> {
    let Some((id, operation)) = state.holder(root) else { return vec!["none runs".to_owned()] };
    let mut lines =
        vec![format!("{} {id} of {}: {}", operation.kind.name(), operation.service, operation.status)];
    if let Step::Procedure { procedure, .. } = &operation.step {
        lines.push(format!("in it {}: {}", procedure.name, procedure.why));
    }
    if let Some(needs) = &operation.needs_operator {
        lines.push(format!("waits for you: {}; {}", needs.reason, needs.remedy));
    }
    lines
}

/// Each slot with every host: why it is there, or why it cannot be there.
fn placement(state: &State, name: &Name) -> Vec<String> {
    let row = state.services.get(name);
    let Some(layout) = row.and_then(|row| layout_of(name, row)) else { return Vec::new() };
    let members = state.members_of(name);
    let mut lines = Vec::new();
    for slot in layout.indexes() {
        let at = members.get(&slot).map(|(id, m)| format!("member {id} on {}", state.host_name(&m.host)));
        lines.push(format!("{name}/{slot}: {}", at.unwrap_or_else(|| "not placed".to_owned())));
        for (host, verdict) in scheduler::verdicts(state, name, &layout, slot) {
            lines.push(format!("  {host}: {verdict}"));
        }
    }
    lines
}

fn gates(state: &State, facts: &ServiceFacts<'_>, now: Timestamp) -> Vec<String> {
    let Some(kind) = state.services.get(facts.name).and_then(kind_of) else { return Vec::new() };
    let mut lines = Vec::new();
    let health = kind.health(facts);
    let reasons = health.reasons.iter().map(|reason| format!(": {reason}"));
    lines.push(format!("{}{}", health.word, reasons.collect::<String>()));
    let formed =
        if facts.formed { "formed once, nothing will initialise it again" } else { "not formed yet" };
    lines.push(formed.to_owned());
    if let Err(Wait(why)) = kind.may_place(facts) {
        lines.push(format!("empty slots wait: {why}"));
    }
    for member in &facts.members {
        lines.push(member_gates(state, facts, member, now));
    }
    if let Some(procedure) = kind.due(facts) {
        lines.push(format!("due: {}: {}", procedure.name, procedure.why));
    }
    match kind.next_update(facts) {
        UpdateStep::Wait(why) | UpdateStep::Fail(why) => lines.push(format!("updates wait: {why}")),
        UpdateStep::Done | UpdateStep::Recreate(_) | UpdateStep::Switch { .. } => {}
    }
    lines.extend(surplus_waits(state, facts.name, now));
    lines
}

fn member_gates(state: &State, facts: &ServiceFacts<'_>, member: &MemberFacts, now: Timestamp) -> String {
    let title = format!("{}/{}", facts.name, member.slot);
    let row = state.members.get(&member.member);
    let kind = state.services.get(facts.name).and_then(kind_of);
    let start = row.filter(|row| !row.started).map(|row| may_start(state, facts.name, row, now));
    if let Some(Err(Wait(why))) = start {
        return format!("{title} does not start: {why}");
    }
    let stop = kind.map_or(Ok(()), |kind| kind.may_stop(facts, member.member));
    let stop = stop
        .err()
        .map_or_else(|| "may be stopped".to_owned(), |wait| format!("may not be stopped: {}", wait.0));
    let replace = replace_refusal(state, facts.name, member.slot, false, now);
    let replace =
        replace.map_or_else(|| "may be replaced".to_owned(), |why| format!("may not be replaced: {why}"));
    format!("{title} {stop}; {replace}")
}

fn on_host(state: &State, id: &HostId, now: Timestamp) -> Vec<String> {
    let here = state.members.iter().filter(|(_, member)| member.host == *id);
    here.map(|(member_id, member)| {
        let (service, slot) = (&member.slot.service, member.slot.index);
        if state.members_of(service).get(&slot).is_none_or(|(active, _)| active != member_id) {
            return format!("{} leaves", member.title(*member_id));
        }
        match crate::reconcile::stays(state, service, slot, id, now) {
            Some(why) => format!("{} stays: {why}", member.slot),
            None => format!("{} can go to another host", member.slot),
        }
    })
    .collect()
}

fn events(state: &State, about: impl Fn(&str) -> bool) -> Vec<EventView> {
    let ours = state.events.iter().rev().filter(|event| about(&event.about)).take(EVENTS);
    let mut found: Vec<EventView> = ours.map(|event| EventView::clone(event)).collect();
    found.reverse();
    found
}
