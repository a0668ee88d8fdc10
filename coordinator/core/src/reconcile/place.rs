//! Fills empty slots: asks the scheduler for a host, addresses and blocks.

use muster_model::ids::{LogIndex, Name};
use muster_model::time::Timestamp;

use crate::apply::apply;
use crate::command::{Act, Command, LogMeta, What};
use crate::facts::{brake, kind_of, layout_of, service_facts, slot_is_clear};
use crate::scheduler::choose;
use crate::state::State;

/// One command per service with empty slots.
///
/// Safety of this order: each placement is tried on a copy, so that the next one sees its address and its load.
pub fn place(state: &State, now: Timestamp) -> Vec<Command> {
    if brake(state).is_some() {
        return Vec::new();
    }
    let mut copy: Option<State> = None;
    let mut commands = Vec::new();
    for name in state.services.keys() {
        let scratch = copy.as_ref().unwrap_or(state);
        let Some((after, acts)) = fill(scratch, name, now) else { continue };
        // The fence is that of the real state, the numbers of members those of the copy.
        commands.push(Command::internal(What::Service {
            service: name.clone(),
            seen: state.fence(name),
            acts,
        }));
        copy = Some(after);
    }
    commands
}

/// The empty slots of one service, and the state with them filled.
fn fill(state: &State, name: &Name, now: Timestamp) -> Option<(State, Vec<Act>)> {
    let service = state.services.get(name)?;
    if service.removing.is_some() {
        return None;
    }
    let layout = layout_of(name, service)?;
    let mut copy: Option<State> = None;
    let mut acts = Vec::new();
    for slot in layout.indexes() {
        let scratch = copy.as_ref().unwrap_or(state);
        if !slot_is_clear(scratch, name, slot, &layout) {
            continue;
        }
        let facts = service_facts(scratch, name, now)?;
        if kind_of(service)?.may_place(&facts).is_err() {
            break;
        }
        let Ok(choice) = choose(scratch, name, &layout, slot) else { break };
        let act = Act::Place {
            slot,
            member: scratch.next_member,
            host: choice.host,
            addresses: choice.addresses,
            blocks: choice.blocks,
            joins_existing: service.formed,
        };
        let mut next = scratch.clone();
        let what = What::Service { service: name.clone(), seen: LogIndex(u64::MAX), acts: vec![act.clone()] };
        let meta = LogMeta { index: state.index, at: now };
        if apply(&mut next, &Command::internal(what), meta).is_err() {
            break;
        }
        copy = Some(next);
        acts.push(act);
    }
    Some((copy?, acts))
}
