//! What an apply would change, where members would go, and what speaks against it. Changes nothing.

use std::sync::Arc;

use muster_model::ids::{LogIndex, Name};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::time::Timestamp;
use muster_model::view::{ChangeView, CoordinatorView, PlanView};
use muster_spec::Places;
use serde_json::Value;

use crate::apply::apply;
use crate::command::{Command, LogMeta, What};
use crate::facts::{layout_of, needed_secrets};
use crate::reconcile::{self, Reconciler};
use crate::scheduler::{choose, not_allowed};
use crate::state::{Liveness, State};
use crate::{ports, refusals, survive};

/// Rounds after which the trial stops; each fills or renders what the one before made possible.
const ROUNDS_MAX: usize = 20;

/// Judges a spec that has been validated; `places` says where its fields stand in the file.
#[must_use]
pub fn plan(
    state: &State,
    spec: &Arc<PlatformSpec>,
    places: &Places,
    now: Timestamp,
    coordinators: &[CoordinatorView],
) -> PlanView {
    let index = state.platform.as_ref().map_or(LogIndex(0), |platform| state.index.max(platform.spec_index));
    let mut view = PlanView {
        index,
        changes: Vec::new(),
        placement: Vec::new(),
        survivability: Vec::new(),
        warnings: Vec::new(),
        refusals: refusals::before(state, spec, places),
    };
    view.refusals.extend(ports::of_coordinators(state, spec, places, coordinators));
    view.refusals.sort_by_key(|one| (one.line, one.column));
    if !view.refusals.is_empty() {
        view.changes = changes(state, state, spec);
        return view;
    }
    let after = trial(state, spec, now);
    view.changes = changes(state, &after, spec);
    placement(state, &after, (spec, places), &mut view, now);
    view.survivability = survive::lines(&after, now, coordinators);
    view.refusals.extend(refusals::demands(&after, spec, places, now));
    view.refusals.sort_by_key(|one| (one.line, one.column));
    paper_only(&after, spec, &mut view);
    excluded(&after, spec, &mut view);
    taken_back(state, spec, &mut view);
    view
}

/// Applies the spec to a copy, and lets services be placed and rendered there.
fn trial(state: &State, spec: &Arc<PlatformSpec>, now: Timestamp) -> State {
    let mut copy = state.clone();
    let yaml: Arc<str> = Arc::from("");
    let what = What::ApplySpec { spec: Arc::clone(spec), yaml, at: None };
    if step(&mut copy, what, now).is_err() {
        return copy;
    }
    settle(&mut copy, now);
    copy
}

/// Runs the reconcilers that place and render, until nothing changes.
fn settle(copy: &mut State, now: Timestamp) {
    let harmless = |name: &str| matches!(name, "expand" | "place" | "render");
    let wanted: Vec<Reconciler> =
        reconcile::ALL.iter().filter(|(name, _)| harmless(name)).map(|(_, reconcile)| *reconcile).collect();
    for _ in 0..ROUNDS_MAX {
        for name in needed_secrets(copy) {
            let what = What::PutSecret { name, sealed: String::new(), replaces: 0, certificate: None };
            let _ = step(copy, what, now);
        }
        let commands: Vec<Command> = wanted.iter().flat_map(|reconcile| reconcile(copy, now)).collect();
        if commands.is_empty() {
            return;
        }
        for command in commands {
            let _ = step(copy, command.what, now);
        }
    }
}

fn step(copy: &mut State, what: What, now: Timestamp) -> Result<(), crate::command::Rejected> {
    let meta = LogMeta { index: copy.index.next(), at: now };
    apply(copy, &Command::internal(what), meta).map(|_| ())
}

fn changes(state: &State, after: &State, spec: &PlatformSpec) -> Vec<ChangeView> {
    let mut changes = Vec::new();
    let Some(old) = state.spec() else { return changes };
    if old.detection != spec.detection {
        changes.push(change("~", "detection".to_owned(), text(&old.detection), text(&spec.detection)));
    }
    if old.mesh != spec.mesh {
        changes.push(change("~", "mesh".to_owned(), text(&old.mesh), text(&spec.mesh)));
    }
    for (name, network) in &spec.networks {
        if old.networks.get(name) != Some(network) {
            let mark = if old.networks.contains_key(name) { "~" } else { "+" };
            let from = old.networks.get(name).and_then(text);
            changes.push(change(mark, format!("network {name}"), from, text(network)));
        }
    }
    for name in old.networks.keys().filter(|name| !spec.networks.contains_key(*name)) {
        changes.push(change("-", format!("network {name}"), old.networks.get(name).and_then(text), None));
    }
    for (name, service) in &spec.services {
        match old.services.get(name) {
            None => {
                changes.push(change("+", format!("service {name}"), None, Some(service.kind.to_string())));
            }
            Some(before) if before != service => fields(after, name, before, service, &mut changes),
            Some(_) => {}
        }
    }
    let gone = old.services.iter().filter(|(name, _)| !spec.services.contains_key(*name));
    changes
        .extend(gone.map(|(name, s)| change("-", format!("service {name}"), Some(s.kind.to_string()), None)));
    changes
}

/// One line per changed field of a service; `+/-` if its members, or its children's, get new containers.
fn fields(after: &State, name: &Name, old: &ServiceSpec, new: &ServiceSpec, changes: &mut Vec<ChangeView>) {
    let family: Vec<&Name> = after.family(name).map(|(name, _)| name).collect();
    let recreated = after.members.values().any(|m| m.pending.is_some() && family.contains(&&m.slot.service));
    let mark = if recreated { "+/-" } else { "~" };
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) =
        (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return;
    };
    differences(mark, &format!("service {name}: "), &old, &new, changes);
}

/// One line per value that differs, as deep as both sides are mappings.
fn differences(
    mark: &str,
    path: &str,
    old: &serde_json::Map<String, Value>,
    new: &serde_json::Map<String, Value>,
    changes: &mut Vec<ChangeView>,
) {
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (before, now) if before == now => {}
            (Some(Value::Object(before)), Some(Value::Object(now))) => {
                differences(mark, &format!("{path}{key}."), before, now, changes);
            }
            (before, now) => {
                changes.push(change(mark, format!("{path}{key}"), before.map(words), now.map(words)));
            }
        }
    }
}

/// A value as an operator writes it in the file, on one line.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(words).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}: {}", words(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// Text that needs no quotes in YAML, also between brackets.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(plain)
        && !text.ends_with(':')
        && !["true", "false", "yes", "no", "on", "off", "null"].contains(&text.to_ascii_lowercase().as_str())
        && text.parse::<f64>().is_err()
}

fn change(mark: &str, what: String, from: Option<String>, to: Option<String>) -> ChangeView {
    ChangeView { mark: mark.to_owned(), what, from, to }
}

fn text<T: serde::Serialize>(value: &T) -> Option<String> {
    serde_json::to_value(value).ok().as_ref().map(words)
}

/// Where new members go, and why others cannot: a refusal if no host would do even with all hosts up.
fn placement(
    state: &State,
    after: &State,
    (spec, places): (&PlatformSpec, &Places),
    view: &mut PlanView,
    now: Timestamp,
) {
    for (id, member) in after.members.iter().filter(|(id, _)| !state.members.contains_key(id)) {
        let addresses: Vec<String> =
            member.addresses.iter().map(|a| format!("{} {}", a.network, a.address)).collect();
        let host = after.host_name(&member.host);
        view.placement.push(format!("{} -> {host} ({})", member.slot, addresses.join(", ")));
        debug_assert!(*id < after.next_member);
    }
    let mut hopeful = after.clone();
    for host in hopeful.hosts.values_mut() {
        host.liveness = Liveness::Up;
    }
    settle(&mut hopeful, now);
    for (name, service) in &after.services {
        let Some(layout) = layout_of(name, service) else { continue };
        let placed = |state: &State| state.members_of(name).len();
        let wanted = layout.slots as usize;
        if placed(after) >= wanted || service.removing.is_some() {
            continue;
        }
        let filled = after.members_of(name);
        let empty = layout.indexes().into_iter().find(|slot| !filled.contains_key(slot));
        let Some(Err(why)) = empty.map(|slot| choose(after, name, &layout, slot)) else {
            // There is a host for it; its kind lets members in one after the other.
            let rest = wanted - placed(after);
            view.placement
                .push(format!("{name}: {rest} more, one after the other, each once the others serve"));
            continue;
        };
        let line = format!("{name}: {} of {wanted} members can be placed: {why}", placed(after));
        let known = state.services.get(name).is_some_and(|s| s.spec == service.spec);
        view.placement.push(line.clone());
        if placed(&hopeful) >= wanted || known {
            view.warnings.push(line);
        } else {
            let found = refusals::no_host(after, spec, places, name, line, &why);
            for one in found {
                if !view.refusals.contains(&one) {
                    view.refusals.push(one);
                }
            }
        }
    }
    for (name, service) in &spec.services {
        for stranger in refusals::strangers(after, name, service, places) {
            if !view.refusals.contains(&stranger) {
                view.warnings.push(format!("service {name}: {}: {}", stranger.message, stranger.help));
            }
        }
    }
}

/// Members stay where they are: `place` decides about new ones only.
fn excluded(after: &State, spec: &PlatformSpec, view: &mut PlanView) {
    for name in spec.services.keys() {
        for (service, row) in after.family(name) {
            for (_, member) in after.members_of(service).into_values() {
                let host = after.hosts.get(&member.host);
                if let Some(unfit) = host.and_then(|host| not_allowed(&row.spec.place, host)) {
                    view.warnings.push(format!(
                        "{} is on host {}, which is {}: it stays there until `muster service replace {}`",
                        member.slot,
                        after.host_name(&member.host),
                        unfit.why,
                        member.slot
                    ));
                }
            }
        }
    }
}

/// What a verb changed since the last file was applied, and what this file takes back.
fn taken_back(state: &State, spec: &PlatformSpec, view: &mut PlanView) {
    let Some(platform) = &state.platform else { return };
    let Ok(file) = muster_spec::parse(&platform.yaml) else { return };
    let settings = |spec: &PlatformSpec, name: &Name| match serde_json::to_value(spec.services.get(name)) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    for name in spec.services.keys().filter(|name| file.spec.services.contains_key(*name)) {
        let (file, new, present) =
            (settings(&file.spec, name), settings(spec, name), settings(&platform.spec, name));
        for (key, value) in present.iter().filter(|(key, value)| file.get(*key) != Some(*value)) {
            if new.get(key) != Some(value) {
                let says = new.get(key).map_or_else(|| "nothing".to_owned(), words);
                view.warnings.push(format!(
                    "service {name}: `{key}` was changed to {} by a command since the last file; this file says {says}, and \
                     applying it takes that back",
                    words(value)
                ));
            }
        }
    }
}

/// High availability on paper only is always said.
fn paper_only(after: &State, spec: &PlatformSpec, view: &mut PlanView) {
    for name in spec.services.keys() {
        for (member, service) in after.family(name) {
            let hosts: Vec<_> = after.members_of(member).into_values().map(|(_, m)| m.host.clone()).collect();
            let distinct: std::collections::BTreeSet<_> = hosts.iter().collect();
            // What a kind keeps apart itself may share hosts otherwise.
            let alike = |layout: crate::kinds::Layout| layout.has_data && layout.apart.is_empty();
            let has_data = layout_of(member, service).is_some_and(alike);
            if has_data && hosts.len() > 1 && distinct.len() < hosts.len() {
                view.warnings
                    .push(format!("{member}: members share a host, which is no redundancy against its loss"));
            }
        }
    }
}
