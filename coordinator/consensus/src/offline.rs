//! A node's directory while no node runs on it: what it has, and the founding of a group of one from it. Only for
//! recovery after a majority was lost: it takes a vote from everybody else.

use std::sync::Arc;

use crate::convert;
use crate::disk::Disk;
use crate::error::StartError;
use crate::history::{SnapshotHead, WireLogId, WireMembership, WireNode, WireVote};
use crate::identity::Identity;
use crate::log::{self, Memory, Sizes};
use crate::snapshot::{SnapshotFile, Snapshots};
use crate::state_machine::StateMachine;
use crate::types::{EntryBody, Node, NodeId};

/// How far a log is. The greater one has everything that the lesser one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Term of its last entry.
    pub term: u64,
    /// Index of its last entry.
    pub index: u64,
}

/// The directory of a node that does not run.
pub struct Stopped {
    identity: Identity,
    memory: Memory,
    snapshot: Option<SnapshotFile>,
}

impl Stopped {
    /// Reads and checks everything; writes nothing.
    ///
    /// # Errors
    /// It is damaged, or no node's.
    pub fn open(disk: &Arc<dyn Disk>) -> Result<Self, StartError> {
        let missing = || {
            let text = format!("{} holds no log of a coordinator", disk.describe(""));
            StartError::Io(std::io::Error::new(std::io::ErrorKind::NotFound, text))
        };
        let identity = Identity::load(&**disk)?.ok_or_else(missing)?;
        let memory = log::read(disk, identity.log_id().unwrap_or_default())?.ok_or_else(missing)?;
        let snapshot = Snapshots::reading(Arc::clone(disk)).newest()?;
        Ok(Self { identity, memory, snapshot })
    }

    /// Number of the node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.identity.node
    }

    /// The group that it was part of.
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.identity.platform
    }

    /// Its last entry, agreed on or not: what was acknowledged anywhere and survives is at most here.
    #[must_use]
    pub fn position(&self) -> Position {
        let last = self.last();
        Position { term: last.term, index: last.index }
    }

    fn last(&self) -> WireLogId {
        let snapshot = self.snapshot.as_ref().map(|file| file.head.last);
        let all = [snapshot, self.memory.last()];
        let none = WireLogId { term: 0, node: 0, index: 0 };
        all.into_iter().flatten().max_by_key(|id| id.index).unwrap_or(none)
    }

    /// Greatest term that it has voted in.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.memory.vote.map_or(0, |vote| vote.term).max(self.last().term)
    }

    /// Who voted in the group, as far as this node knows.
    #[must_use]
    pub fn voters(&self) -> Vec<Node> {
        let mut membership = self.snapshot.as_ref().map(|file| file.head.membership.clone());
        for entry in self.memory.all() {
            if let EntryBody::Membership(new) = &entry.payload {
                membership = Some(convert::membership(new));
            }
        }
        let Some(membership) = membership else { return Vec::new() };
        let voter = |node: &WireNode| membership.configs.iter().any(|config| config.contains(&node.id));
        let voters = membership.nodes.iter().filter(|node| voter(node));
        voters.map(|n| Node { id: n.id, endpoint: n.endpoint.clone(), key: n.key.clone() }).collect()
    }

    /// Applies everything to an empty state; the greatest time that was applied.
    ///
    /// # Errors
    /// The snapshot cannot be read, or does not meet the log.
    pub fn replay(&self, state: &mut dyn StateMachine) -> Result<u64, StartError> {
        let (mut at_ms, mut next) = (0, None);
        if let Some(file) = &self.snapshot {
            state.restore(&file.body()?).map_err(StartError::Raft)?;
            at_ms = file.head.at_ms;
            next = Some(file.head.last.index + 1);
        }
        for entry in self.memory.all() {
            let index = entry.log_id.index;
            if next.is_some_and(|next| index < next) {
                continue;
            }
            if next.unwrap_or(0) != index {
                return Err(StartError::Raft(format!("entries before {index} are missing")));
            }
            next = Some(index + 1);
            if let EntryBody::Normal(proposal) = &entry.payload {
                at_ms = at_ms.max(proposal.at_ms);
                state.apply(index, at_ms, &proposal.payload.0);
            }
        }
        Ok(at_ms)
    }
}

/// Where a new group begins.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// Name of the new group: nobody of the old one is let in.
    pub platform: &'a str,
    /// Its one member.
    pub node: Node,
    /// The position that its log begins behind.
    pub from: Position,
    /// Greatest term that anything here voted in.
    pub term: u64,
    /// The greatest time that was applied.
    pub at_ms: u64,
    /// The state, encoded.
    pub body: &'a [u8],
}

/// Writes an empty directory full: a snapshot, an empty log behind it, a membership of one.
///
/// # Errors
/// The directory is not empty, or cannot be written.
pub fn found(disk: &Arc<dyn Disk>, beginning: &Beginning<'_>) -> Result<(), StartError> {
    if Identity::load(&**disk)?.is_some() {
        return Err(StartError::Raft(format!("{} is in use", disk.describe(""))));
    }
    let node = &beginning.node;
    let last = WireLogId { term: beginning.from.term, node: node.id, index: beginning.from.index };
    let wire = WireNode { id: node.id, endpoint: node.endpoint.clone(), key: node.key.clone() };
    let head = SnapshotHead {
        platform: beginning.platform.to_owned(),
        last,
        membership_at: Some(last),
        membership: WireMembership { configs: vec![vec![node.id]], nodes: vec![wire] },
        at_ms: beginning.at_ms,
    };
    Snapshots::open(Arc::clone(disk))?.write(&head, beginning.body)?;
    let identity = Identity::new(beginning.platform, node.id, crate::consensus::random()?);
    let term = beginning.term.max(beginning.from.term) + 1;
    let memory = Memory::behind(last, WireVote { term, node: node.id, committed: false });
    log::create(&**disk, identity.log_id().unwrap_or_default(), Sizes::default(), &memory)?;
    identity.store(&**disk)
}
