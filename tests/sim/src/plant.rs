//! Bugs that are planted in the harness, never in the product, to see that the simulation catches them.

use muster_core::command::{Command, What};
use muster_core::state::State;
use muster_model::ids::LogIndex;

use crate::host::FakeHost;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Commands take effect whatever state they were decided on.
    NoFences,
    /// Agents take older plans.
    OlderPlan,
    /// What was seen of an earlier container counts for the present one.
    OldObservation,
    /// MariaDB: a volume that is behind says that it is far ahead, and the mark for it is believed.
    PositionLies,
    /// MariaDB: a part of the servers without a majority goes on.
    MinorityServes,
    /// PostgreSQL: a leader that does not reach its lock any more, or lost it, acts on.
    ActsOn,
    /// PostgreSQL: a leader acknowledges what its synchronous standby does not have.
    AcksAlone,
    /// Redis: a master whose data was emptied starts at once.
    EmptyMaster,
    /// Redis: one node never forgets.
    ForgetsNot,
    /// Replicated Redis: a server starts as a master, as one does that nobody told whom to follow.
    StartsFree,
    /// Replicated Redis: a master hands its role over before the replica has everything.
    HandsOverEarly,
    /// S3: a server says that canaries pass through it as soon as it runs.
    CanaryLies,
    /// S3: servers acknowledge objects on one drive less than they need.
    WeakQuorum,
}

impl Plant {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 13] = [
        ("no-fences", Self::NoFences),
        ("older-plan", Self::OlderPlan),
        ("old-observation", Self::OldObservation),
        ("position-lies", Self::PositionLies),
        ("minority-serves", Self::MinorityServes),
        ("acts-on", Self::ActsOn),
        ("acks-alone", Self::AcksAlone),
        ("empty-master", Self::EmptyMaster),
        ("forgets-not", Self::ForgetsNot),
        ("starts-free", Self::StartsFree),
        ("hands-over-early", Self::HandsOverEarly),
        ("canary-lies", Self::CanaryLies),
        ("weak-quorum", Self::WeakQuorum),
    ];
}

/// What becomes of an entry before it is applied.
#[must_use]
pub fn on_entry(plant: Option<Plant>, state: &State, mut command: Command) -> Command {
    match (plant, &mut command.what) {
        (Some(Plant::NoFences), What::Service { seen, .. }) => *seen = LogIndex(u64::MAX),
        (Some(Plant::NoFences), What::StartOperation { seen, .. }) => *seen = None,
        (Some(Plant::NoFences), What::Advance(advance)) => {
            advance.seen = LogIndex(u64::MAX);
            advance.epoch = state.operations.get(&advance.operation).map_or(0, |op| op.epoch);
        }
        (Some(Plant::OldObservation), What::Observe(seen)) => {
            for (id, observed) in &mut seen.members {
                let member = state.members.get(id);
                let hash = member.and_then(|m| m.rendering.as_ref()).map(|r| r.container_hash.clone());
                if let (Some(observed), Some(hash)) = (observed, hash) {
                    observed.container_hash = hash;
                    observed.restarts_done = member.map_or(0, |m| m.restarts);
                }
            }
        }
        _ => {}
    }
    command
}

/// What an agent does to itself before it takes a plan.
pub fn on_plan(plant: Option<Plant>, host: &mut FakeHost) {
    if plant == Some(Plant::OlderPlan) {
        host.agent.ledger.plan = None;
    }
}
