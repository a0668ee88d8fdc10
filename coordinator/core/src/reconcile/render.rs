//! Renders members whose spec or peers changed, and stores the result. Never restarts anything.

use muster_model::ids::MemberId;
use muster_model::time::Timestamp;

use super::fenced;
use crate::command::{Act, Command};
use crate::draft::Source;
use crate::facts::{has_secrets, kind_of};
use crate::state::{Member, Rendering, Service, State};

/// One command per service with members to render.
pub fn render(state: &State, _now: Timestamp) -> Vec<Command> {
    let wanted = state
        .services
        .iter()
        .filter(|(name, service)| service.removing.is_none() && has_secrets(state, name));
    let commands = wanted.filter_map(|(name, service)| {
        let newest = Source::new(state, name, service.revision)?;
        let members = state.members_of(name);
        let acts = members.values().flat_map(|(id, m)| member(state, service, &newest, *id, m));
        fenced(state, name, acts.collect())
    });
    commands.collect()
}

fn member(state: &State, service: &Service, newest: &Source<'_>, id: MemberId, row: &Member) -> Vec<Act> {
    let Some(newest) = newest.draft(id, row) else { return Vec::new() };
    let inputs = newest.inputs();
    let present = row.rendering.as_ref();
    if let Some(present) = present.filter(|p| p.inputs == inputs) {
        let mut acts = Vec::new();
        if row.pending.is_some() {
            acts.push(Act::Pend { member: id, rendering: None });
        }
        if present.revision != service.revision {
            // A revision that changes nothing for this member: it has it already.
            let rendering = Rendering { revision: service.revision, ..present.clone() };
            acts.push(Act::Render { member: id, rendering });
        }
        return acts;
    }
    if row.pending.as_ref().is_some_and(|p| p.inputs == inputs) {
        return refresh(state, id, row).into_iter().collect();
    }
    let Some(rendering) = newest.render(inputs) else { return Vec::new() };
    let runs = present.filter(|_| row.started);
    if runs.is_none_or(|p| p.container_hash == rendering.container_hash) {
        // Nothing runs yet, or only files that are reloaded differ: no turn needed.
        return vec![Act::Render { member: id, rendering }];
    }
    let mut acts = vec![Act::Pend { member: id, rendering: Some(rendering) }];
    if kind_of(service).is_some_and(|kind| kind.beside_owner()) {
        // An operation would hold the whole family for something that nobody depends on.
        acts.push(Act::Adopt { member: id });
        return acts;
    }
    acts.extend(refresh(state, id, row));
    acts
}

/// A member that waits for its turn keeps its old revision, but learns where its peers are now.
fn refresh(state: &State, id: MemberId, row: &Member) -> Option<Act> {
    let present = row.rendering.as_ref()?;
    let source = Source::new(state, &row.slot.service, present.revision)?;
    let draft = source.draft(id, row)?;
    let inputs = draft.inputs();
    if inputs == present.inputs || row.pending.as_ref().is_some_and(|p| p.inputs == inputs) {
        return None;
    }
    let rendering = draft.render(inputs)?;
    (rendering.container_hash == present.container_hash).then_some(Act::Render { member: id, rendering })
}
