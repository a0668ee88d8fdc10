//! What one node can do by itself, without asking another. Must not forward.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardReason, LinearizableReadError, RaftError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{Clock, Timings};
use crate::convert;
use crate::history::WireLogId;
use crate::log::LogStore;
use crate::machine::Machine;
use crate::snapshot::Snapshots;
use crate::succession::Heard;
use crate::types::{NodeId, Payload, Proposal, Types};

/// Largest proposal, bytes.
pub(crate) const PAYLOAD_LIMIT: usize = 2 << 20;

pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// A committed and applied proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub index: u64,
    /// What [`StateMachine::apply`](crate::StateMachine::apply) returned.
    pub reply: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum ProposeRefusal {
    /// With the leader, if one is known.
    NotLeader(Option<NodeId>),
    Unknown,
    DiskFull,
    TooLarge,
    Stopped,
}

#[derive(Debug)]
pub(crate) enum ReadRefusal {
    NotLeader(Option<NodeId>),
    NoQuorum,
    Stopped,
}

pub(crate) struct Core {
    pub id: NodeId,
    pub platform: String,
    pub timings: Timings,
    pub raft: Raft,
    pub log: LogStore,
    pub snapshots: Arc<Snapshots>,
    pub applied: watch::Receiver<u64>,
    pub clock: Clock,
    pub heard: Heard,
}

impl Core {
    /// Proposes if this node is the leader.
    pub async fn propose_here(&self, payload: Bytes, wait: Duration) -> Result<Applied, ProposeRefusal> {
        if payload.len() > PAYLOAD_LIMIT {
            return Err(ProposeRefusal::TooLarge);
        }
        if !self.raft.is_leader() {
            return Err(ProposeRefusal::NotLeader(self.leader_hint()));
        }
        // An entry that is in the log cannot be refused any more, so space is asked for before.
        if !self.log.admits(payload.len() as u64 + 64) {
            return Err(ProposeRefusal::DiskFull);
        }
        let proposal = Proposal { at_ms: (self.clock)(), payload: Payload(payload) };
        let Ok(written) = timeout(wait, self.raft.client_write(proposal)).await else {
            return Err(ProposeRefusal::Unknown);
        };
        match written {
            Ok(written) => Ok(Applied { index: written.log_id.index, reply: written.data.0.into() }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                // During a transfer the target is not a leader yet.
                let known = forward.reason == ForwardReason::NotLeader;
                Err(ProposeRefusal::NotLeader(forward.leader_id.filter(|_| known)))
            }
            Err(RaftError::APIError(_)) => Err(ProposeRefusal::Unknown),
            Err(RaftError::Fatal(_)) => Err(ProposeRefusal::Stopped),
        }
    }

    /// Confirms leadership with a quorum; everything acknowledged before is at or below the index.
    pub async fn read_index_here(&self, wait: Duration) -> Result<u64, ReadRefusal> {
        let ask = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match timeout(wait, ask).await {
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                let known = forward.reason == ForwardReason::NotLeader;
                Err(ReadRefusal::NotLeader(forward.leader_id.filter(|_| known)))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ReadRefusal::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(_))) => Err(ReadRefusal::Stopped),
        }
    }

    /// Waits until this node has applied the index; false when the deadline passes first.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        matches!(timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    pub fn leader_hint(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader.filter(|leader| *leader != self.id)
    }

    pub fn committed(&self) -> Option<WireLogId> {
        self.raft.data_metrics().borrow_watched().local_committed.as_ref().map(convert::log_id)
    }
}
