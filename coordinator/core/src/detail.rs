//! The page of one service, beside its members: versions, quorum, who may take over, what waits, what happened last.
//! Says what State knows; decides nothing.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::time::Timestamp;

use crate::facts::{kind_of, service_facts};
use crate::kinds::versions::VERSION;
use crate::kinds::{MemberFacts, ServiceFacts};
use crate::state::{Outcome, State};

/// The lines of a service; none for one that operators did not write.
#[must_use]
pub fn details(state: &State, name: &Name, now: Timestamp) -> Vec<String> {
    let Some(row) = state.services.get(name).filter(|row| row.parent.is_none()) else { return Vec::new() };
    let (Some(facts), Some(kind)) = (service_facts(state, name, now), kind_of(row)) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let service_lines = kind.detail(&facts);
    lines.extend(versions(&facts));
    lines.extend(service_lines);
    for (child, row) in state.children(name) {
        let facts = service_facts(state, child, now);
        lines.extend(facts.zip(kind_of(row)).map(|(facts, kind)| kind.detail(&facts)).unwrap_or_default());
    }
    if kind.layout(name, &row.spec).has_data {
        lines.extend(moved(state, name, now));
        lines.push("backup: none yet".to_owned());
    }
    lines.extend(undone(state, name, now));
    lines
}

/// `version 15.20`, or which member runs which.
fn versions(facts: &ServiceFacts<'_>) -> Option<String> {
    let mut slots: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for member in &facts.members {
        if let Some(version) = member.seen.as_ref().and_then(|seen| seen.facts.get(VERSION)) {
            slots.entry(version).or_default().push(member.slot.to_string());
        }
    }
    match slots.len() {
        0 => None,
        1 => slots.keys().next().map(|version| format!("version {version}")),
        _ => {
            let each = slots.iter().map(|(version, slots)| format!("{version} in slot {}", slots.join(", ")));
            Some(format!("versions: {}", each.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// When the leading role moved last, as far as the history goes back.
fn moved(state: &State, name: &Name, now: Timestamp) -> Option<String> {
    let leads = |text: &str| text.split(", ").any(|part| part == "role leader");
    let prefix = format!("{name}/");
    let last =
        state.events.iter().rev().find(|event| event.about.starts_with(&prefix) && leads(&event.text))?;
    Some(format!("{} leads for {}", last.about, now.since(last.at)))
}

/// An update that went back by itself and after which nothing was changed.
fn undone(state: &State, name: &Name, now: Timestamp) -> Option<String> {
    let mut of_family = state.operations.values().filter(|op| state.root(&op.service) == name);
    let went_back = |outcome: &(Timestamp, Outcome)| outcome.1 == Outcome::RolledBack;
    let last = of_family.rfind(|op| op.outcome.as_ref().is_some_and(went_back))?;
    let row = state.services.get(name)?;
    let (at, _) = last.outcome?;
    let still = row.rolled_back == Some(row.revision);
    still.then(|| format!("went back by itself {} ago: {}", now.since(at), last.status))
}

/// Members that fit, as a list of slots; empty = none.
pub fn slots<'a>(members: impl Iterator<Item = &'a MemberFacts>) -> String {
    members.map(|member| member.slot.to_string()).collect::<Vec<_>>().join(", ")
}
