//! The coordinators as Raft knows them: who leads and where, for hints and views.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_consensus::{Consensus, Member, Status};
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

/// Silence after which a member counts as unreachable, as long as the leader does not know better.
const SILENCE: Duration = Duration::from_secs(2);

/// Whether the leader hears of a member; absent = this node does not know.
#[must_use]
pub fn reachable(status: &Status, member: &Member) -> Option<bool> {
    if member.node.id == status.node {
        return Some(true);
    }
    status.am_leader.then(|| member.heard.is_some_and(|ago| ago < SILENCE))
}

/// What operators are shown.
#[must_use]
pub fn views(consensus: &Consensus) -> Vec<CoordinatorView> {
    let status = consensus.status();
    let view = |member: &Member| CoordinatorView {
        id: member.node.id,
        endpoint: member.node.endpoint.clone(),
        leader: status.leader == Some(member.node.id),
        voter: member.voter,
        reachable: reachable(&status, member),
    };
    status.members.iter().map(view).collect()
}

/// Why a coordinator cannot be taken out; absent = it can. Only the leader knows enough to be asked.
///
/// `greeted` answered this very moment. That they were heard of lately is not enough: a change of the membership counts
/// from its beginning, so one that died a second ago could never be outvoted again.
#[must_use]
pub fn removal_refusal(status: &Status, node: u64, greeted: &BTreeSet<u64>) -> Option<String> {
    let answers = |member: &Member| {
        let here = member.node.id == status.node || greeted.contains(&member.node.id);
        here && reachable(status, member) == Some(true)
    };
    let rest: Vec<&Member> = status.members.iter().filter(|m| m.voter && m.node.id != node).collect();
    if rest.is_empty() {
        return Some("it is the last one with a vote: let another coordinator join first".to_owned());
    }
    let answering = rest.iter().filter(|member| answers(member)).count();
    let majority = rest.len() / 2 + 1;
    let silent = rest.iter().filter(|member| !answers(member));
    let silent: Vec<&str> = silent.map(|member| member.node.endpoint.as_str()).collect();
    (answering < majority).then(|| {
        format!(
            "of the {} that would be left only {answering} answer, and it takes {majority} to agree on anything: {} \
             must answer, or be removed first",
            rest.len(),
            silent.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use muster_consensus::Node;

    use super::*;

    /// A group in which the first one leads; `Some` = answers.
    fn status(members: &[(bool, Option<u64>)]) -> Status {
        let member = |(at, (voter, heard)): (usize, &(bool, Option<u64>))| Member {
            node: Node { id: at as u64 + 1, endpoint: format!("h{}:1", at + 1), key: String::new() },
            voter: *voter,
            matched: None,
            heard: heard.map(Duration::from_millis),
        };
        Status {
            node: 1,
            leader: Some(1),
            term: 1,
            am_leader: true,
            last_log: 9,
            applied: 9,
            snapshot: 0,
            disk_full: false,
            members: members.iter().enumerate().map(member).collect(),
        }
    }

    fn refusal(status: &Status, node: u64) -> Option<String> {
        removal_refusal(status, node, &status.members.iter().map(|member| member.node.id).collect())
    }

    #[test]
    fn a_removal_never_leaves_less_than_a_majority_that_answers() {
        let (up, dead, never) = ((true, Some(90)), (true, Some(60_000)), (true, None));
        assert_eq!(refusal(&status(&[up, up, dead]), 3), None);
        let why = refusal(&status(&[up, up, dead]), 2).unwrap();
        assert!(why.contains("h3:1 must answer, or be removed first"), "{why}");
        assert_eq!(refusal(&status(&[up, up, up]), 2), None);
        assert_eq!(refusal(&status(&[up, up]), 2), None);
        assert!(refusal(&status(&[up]), 1).unwrap().contains("the last one"));
        assert!(refusal(&status(&[up, (false, Some(1))]), 1).unwrap().contains("the last one"));
        assert_eq!(refusal(&status(&[up, (false, None)]), 2), None);
        assert_eq!(refusal(&status(&[up, up, up, dead, never]), 5), None);
        let why = refusal(&status(&[up, up, up, dead, never]), 3).unwrap();
        assert!(
            why.contains("of the 4 that would be left only 2 answer") && why.contains("takes 3"),
            "{why}"
        );
    }
}
