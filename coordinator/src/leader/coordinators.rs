//! Gives coordinators that joined a vote, once they have caught up; always so that the number of votes is odd.

use std::time::Duration;

use muster_consensus::{Member, Status};

use super::Leader;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for a change of the group.
const WITHIN: Duration = Duration::from_secs(10);
/// Entries that a learner may be behind.
const BEHIND_MAX: u64 = 50;

impl Leader {
    pub(super) async fn tend_coordinators(&self) {
        loop {
            let ready = to_promote(&self.parts.consensus.status());
            if !ready.is_empty() {
                match self.parts.consensus.promote(ready.clone(), WITHIN).await {
                    Ok(()) => tracing::info!(?ready, "coordinators vote from now on"),
                    Err(error) => tracing::warn!(%error, "a coordinator could not be given a vote"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Two votes are worse than one: either loss stops the platform. So an even one waits for its partner.
fn to_promote(status: &Status) -> Vec<u64> {
    let caught_up =
        |m: &&Member| !m.voter && m.matched.is_some_and(|index| index + BEHIND_MAX >= status.last_log);
    let ready: Vec<u64> = status.members.iter().filter(caught_up).map(|member| member.node.id).collect();
    let voters = status.members.iter().filter(|member| member.voter).count();
    let all = voters + ready.len();
    let odd = if all.is_multiple_of(2) { all - 1 } else { all };
    ready.into_iter().take(odd.saturating_sub(voters)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_consensus::Node;

    fn status(members: &[(bool, Option<u64>)]) -> Status {
        let member = |(at, (voter, matched)): (usize, &(bool, Option<u64>))| Member {
            node: Node { id: at as u64 + 1, endpoint: String::new(), key: String::new() },
            voter: *voter,
            matched: *matched,
            heard: None,
        };
        Status {
            node: 1,
            leader: Some(1),
            term: 1,
            am_leader: true,
            last_log: 1_000,
            applied: 1_000,
            snapshot: 0,
            disk_full: false,
            members: members.iter().enumerate().map(member).collect(),
        }
    }

    #[test]
    fn votes_are_given_in_pairs_and_only_to_those_that_caught_up() {
        let (voter, ready, behind) = ((true, Some(1_000)), (false, Some(990)), (false, Some(1)));
        assert!(to_promote(&status(&[voter, ready])).is_empty());
        assert_eq!(to_promote(&status(&[voter, ready, ready])), [2, 3]);
        assert!(to_promote(&status(&[voter, ready, behind])).is_empty());
        assert_eq!(to_promote(&status(&[voter, ready, ready, ready])), [2, 3]);
        assert!(to_promote(&status(&[voter, voter, voter])).is_empty());
    }
}
