//! The table of reconcilers: pure functions that compare State with what it should be and name the next steps.
//!
//! Level-triggered and without other input: all run after every applied entry and on a tick, on the leader only.
//! Each command is fenced with the state that it was decided on, so that late, repeated and reordered ones are
//! harmless. To add one: a file with one public function, and one line in [`ALL`].

mod asked;
mod bootstrap;
mod drain;
mod drill;
mod expand;
mod maintenance;
mod operate;
mod place;
mod procedure;
pub(crate) mod publish;
mod render;
mod replace;
mod restart;
mod retire;
mod rollout;
mod spare;
mod start;
mod step;
mod switchover;

pub use drain::stays;
pub use maintenance::{refusal as maintenance_refusal, rests, waits as maintenance_waits};
#[cfg(test)]
pub use procedure::step_of;
pub use replace::refusal as replace_refusal;
pub use retire::surplus_waits;
pub use start::may_start;
#[cfg(test)]
pub use step::Turn;

use muster_model::ids::Name;
use muster_model::time::Timestamp;

use crate::command::{Act, Command, What};
use crate::state::State;

/// Compares State with what it should be at a time, and names the next steps.
pub type Reconciler = fn(&State, Timestamp) -> Vec<Command>;

/// All of them.
pub const ALL: &[(&str, Reconciler)] = &[
    ("expand", expand::expand),
    ("retire", retire::retire),
    ("place", place::place),
    ("render", render::render),
    ("bootstrap", bootstrap::bootstrap),
    ("start", start::start),
    ("procedure", procedure::due),
    ("drain", drain::drain),
    ("maintenance", maintenance::maintenance),
    ("rollout", rollout::rollout),
    ("asked", asked::asked),
    ("operate", operate::operate),
    ("publish", publish::publish),
];

/// Runs all reconcilers.
///
/// What one of them proposes makes what another one proposes for the same service stale: that one is then proposed
/// again on the newer state. So every decision sees the ones before it.
#[must_use]
pub fn run(state: &State, now: Timestamp) -> Vec<Command> {
    if state.platform.is_none() {
        return Vec::new();
    }
    ALL.iter().flat_map(|(_, reconcile)| reconcile(state, now)).collect()
}

/// Steps on one service, fenced with the present state.
fn fenced(state: &State, service: &Name, acts: Vec<Act>) -> Option<Command> {
    let what = What::Service { service: service.clone(), seen: state.fence(service), acts };
    match &what {
        What::Service { acts, .. } if acts.is_empty() => None,
        _ => Some(Command::internal(what)),
    }
}
