//! Everything that can go wrong, in words for the caller; must not mention openraft.

use std::io;

use crate::types::NodeId;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{file} is corrupt at offset {offset}: {what}; restore this node from its peers: remove it \
             from the cluster, empty the directory and join it again under a new id"
    )]
    Corrupt { file: String, offset: u64, what: String },
    #[error(
        "node {node} was a member of platform {platform} already, but {dir} holds no log: it may have \
             voted and must not vote again; remove node {node} from the cluster and join with a new id"
    )]
    LogLost { node: NodeId, platform: String, dir: String },
    #[error("{file} belongs to {found}, but this is {expected}")]
    Foreign { file: String, found: String, expected: String },
    #[error("log directory: {0}")]
    Io(#[from] io::Error),
    #[error("settings: {0}")]
    Config(String),
    #[error("start: {0}")]
    Raft(String),
}

/// Why a proposal has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not in the log.
    #[error("no leader took the proposal in time")]
    NoLeader,
    /// May or may not take effect; repeat it with the same client id and serial.
    #[error("the outcome of the proposal is not known")]
    Unknown,
    /// Certainly not in the log.
    #[error("the leader's disk is full")]
    DiskFull,
    #[error("the proposal is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// This node stopped; see [`Consensus::failed`](crate::Consensus::failed).
    #[error("this node has stopped")]
    Stopped,
}

/// Why a linearizable read is not possible now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader with a quorum answered in time")]
    NoLeader,
    /// The read index is known but this node did not apply it in time.
    #[error("this node has not caught up with index {index} in time")]
    Behind { index: u64 },
    #[error("this node has stopped")]
    Stopped,
}

/// Why a change of the membership or of the leader failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("this node is not the leader")]
    NotLeader { leader: Option<NodeId> },
    #[error("another change of the membership is under way")]
    Busy,
    #[error("refused: {0}")]
    Refused(String),
    #[error("the leader's disk is full")]
    DiskFull,
    /// May or may not take effect; look at the status before repeating it.
    #[error("not confirmed in time")]
    Unknown,
    #[error("this node has stopped")]
    Stopped,
}
