//! Changes of the membership and of the leader, and the view of both. Must not pick members.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Instant as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::consensus::Consensus;
use crate::error::ChangeError;
use crate::types::{Address, Node, NodeId, Types};

/// Space asked for before a change of the membership.
const CHANGE_BYTES: u64 = 64 << 10;

/// One node of the membership as the asked node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node: Node,
    pub voter: bool,
    /// Last log index known to be on that node; only the leader knows.
    pub matched: Option<u64>,
    /// How long ago it answered; only the leader knows, and only of others.
    pub heard: Option<Duration>,
}

/// What one node knows about itself and the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub node: NodeId,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub am_leader: bool,
    pub last_log: u64,
    pub applied: u64,
    /// Last index in the newest snapshot, 0 when there is none.
    pub snapshot: u64,
    /// There is no space for more log: entries are refused here, at once or soon, until there is.
    pub disk_full: bool,
    pub members: Vec<Member>,
}

type Written = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

impl Consensus {
    /// Makes this node the first and only member of a new platform.
    ///
    /// # Errors
    /// `Refused` when it is a member already.
    pub async fn initialize(&self, node: Node) -> Result<(), ChangeError> {
        let members = std::collections::BTreeMap::from([(node.id, Address::from(node))]);
        match self.core.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(ChangeError::Refused("this node is initialised already".into()))
            }
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        }
    }

    /// Adds a node that gets the log but has no vote, and waits until it has caught up.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can. `Unknown` may mean added but not caught up.
    pub async fn add_learner(&self, node: Node, within: Duration) -> Result<(), ChangeError> {
        if let Some(known) = self.node(node.id)
            && known != node
        {
            return Err(ChangeError::Refused(format!("node {} is known under {}", known.id, known.endpoint)));
        }
        let id = node.id;
        self.change(within, self.core.raft.add_learner(id, node.into(), true)).await
    }

    /// Gives learners a vote.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can.
    pub async fn promote(
        &self,
        ids: impl IntoIterator<Item = NodeId>,
        within: Duration,
    ) -> Result<(), ChangeError> {
        let ids: BTreeSet<NodeId> = ids.into_iter().collect();
        self.change(within, self.core.raft.change_membership(ChangeMembers::AddVoterIds(ids), true)).await
    }

    /// Takes a node out, whether voter or learner. The node itself is not told: stop it.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can, and not itself: it hands leadership over first.
    pub async fn remove(&self, id: NodeId, within: Duration) -> Result<(), ChangeError> {
        if id == self.core.id {
            return Err(ChangeError::Refused("a node does not remove itself: let another lead first".into()));
        }
        let status = self.status();
        let Some(member) = status.members.iter().find(|member| member.node.id == id) else {
            return Err(ChangeError::Refused(format!("there is no node {id}")));
        };
        let change = if member.voter {
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        };
        self.change(within, self.core.raft.change_membership(change, false)).await
    }

    async fn change(&self, within: Duration, work: impl Future<Output = Written>) -> Result<(), ChangeError> {
        if !self.core.raft.is_leader() {
            return Err(ChangeError::NotLeader { leader: self.core.leader_hint() });
        }
        if !self.core.log.admits(CHANGE_BYTES) {
            return Err(ChangeError::DiskFull);
        }
        match timeout(within, work).await {
            Err(_) => Err(ChangeError::Unknown),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(_))) => Err(ChangeError::Stopped),
            Ok(Err(RaftError::APIError(error))) => Err(match error {
                // It was the leader a moment ago, and the first of two steps may have been done.
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
                    ChangeError::Unknown
                }
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => ChangeError::Busy,
                other => ChangeError::Refused(other.to_string()),
            }),
        }
    }

    /// Hands leadership to `to`, or to the voter that has most of the log, and waits for the new
    /// leader, which is returned.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can, and only with another voter.
    pub async fn transfer_leader(&self, to: Option<NodeId>, within: Duration) -> Result<NodeId, ChangeError> {
        let deadline = Instant::now() + within;
        let status = self.status();
        if !status.am_leader {
            return Err(ChangeError::NotLeader { leader: self.core.leader_hint() });
        }
        let target = status
            .members
            .iter()
            .filter(|member| member.voter && member.node.id != self.core.id)
            .filter(|member| to.is_none_or(|to| to == member.node.id))
            .max_by_key(|member| member.matched)
            .map(|member| member.node.id)
            .ok_or_else(|| ChangeError::Refused("there is no other voter to hand over to".into()))?;
        self.core.raft.trigger().transfer_leader(target).await.map_err(|_| ChangeError::Stopped)?;
        let mut leadership = self.leadership.clone();
        let changed = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != self.core.id));
        match timeout_at(deadline, changed).await {
            Ok(Ok(now)) => now.leader.ok_or(ChangeError::Unknown),
            Ok(Err(_)) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::Unknown),
        }
    }

    /// What this node knows now; not confirmed with anybody.
    pub fn status(&self) -> Status {
        let metrics = self.core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let matched = |id: &NodeId| {
            let replicated = metrics.replication.as_ref()?.get(id)?.as_ref()?;
            Some(replicated.index)
        };
        let heard = |id: &NodeId| {
            let at = (*metrics.heartbeat.as_ref()?.get(id)?)?;
            Some(at.elapsed())
        };
        let members = membership
            .nodes()
            .map(|(id, address)| Member {
                node: address.node(*id),
                voter: voters.contains(id),
                matched: matched(id),
                heard: heard(id),
            })
            .collect();
        let leadership = *self.leadership.borrow();
        Status {
            node: self.core.id,
            leader: leadership.leader,
            term: leadership.term,
            am_leader: leadership.am_leader,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: *self.core.applied.borrow(),
            snapshot: metrics.snapshot.as_ref().map_or(0, |id| id.index),
            disk_full: self.core.log.short_of_space(),
            members,
        }
    }
}
