//! The coordinators as Raft knows them: who leads and where, for hints and views.

use muster_consensus::Consensus;
use muster_model::view::CoordinatorView;

/// Where the leader listens, if one is known.
#[must_use]
pub fn leader_endpoint(consensus: &Consensus) -> Option<String> {
    let status = consensus.status();
    let leader = status.leader?;
    status.members.iter().find(|member| member.node.id == leader).map(|member| member.node.endpoint.clone())
}

/// Where all coordinators listen.
#[must_use]
pub fn endpoints(consensus: &Consensus) -> Vec<String> {
    consensus.status().members.into_iter().map(|member| member.node.endpoint).collect()
}

/// What operators are shown.
#[must_use]
pub fn views(consensus: &Consensus) -> Vec<CoordinatorView> {
    /// Entries that a reachable follower may be behind.
    const BEHIND_MAX: u64 = 1_000;
    let status = consensus.status();
    let reachable = |matched: Option<u64>| matched.map(|index| index + BEHIND_MAX >= status.last_log);
    let view = |member: &muster_consensus::Member| CoordinatorView {
        id: member.node.id,
        endpoint: member.node.endpoint.clone(),
        leader: status.leader == Some(member.node.id),
        voter: member.voter,
        reachable: if member.node.id == status.node { Some(true) } else { reachable(member.matched) },
    };
    status.members.iter().map(view).collect()
}
