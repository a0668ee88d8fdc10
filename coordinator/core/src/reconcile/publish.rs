//! Gives each changed host plan its counter, before the leader sends it.

use muster_model::ids::MemberId;
use muster_model::time::Timestamp;

use crate::command::{Command, What};
use crate::plan;
use crate::state::{Phase, State};

/// One command per host whose plan's content changed. A host that is down gets its plan when it returns.
pub fn publish(state: &State, _now: Timestamp) -> Vec<Command> {
    let mut commands = Vec::new();
    for (id, host) in state.hosts.iter().filter(|(_, host)| host.is_up()) {
        let Some(hash) = plan::content_hash(state, id) else { continue };
        let left_out = |m: &&MemberId| {
            let phase = state.members.get(m).map(|row| &row.phase);
            matches!(phase, Some(Phase::Retiring { dropped_at: None, .. }))
        };
        let on_host: Vec<MemberId> = state.members_on(id).map(|(member, _)| member).collect();
        let dropped: Vec<MemberId> = on_host.iter().filter(left_out).copied().collect();
        let untold = |m: &&MemberId| {
            let row = state.members.get(m).filter(|row| row.phase == Phase::Active);
            row.is_some_and(|row| row.rendering.is_some() && row.told.is_none())
        };
        let told: Vec<MemberId> = on_host.iter().filter(untold).copied().collect();
        // A member that no published plan ever held still needs the agent's word that nothing of it is there.
        if hash == host.plan_hash && dropped.is_empty() && told.is_empty() {
            continue;
        }
        let counter = host.plan_counter + 1;
        commands.push(Command::internal(What::PublishPlan {
            host: id.clone(),
            counter,
            hash,
            dropped,
            told,
        }));
    }
    commands
}
