//! The openraft type configuration and our node types; must not know how they are stored or sent.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identity of a coordinator in the Raft membership; never reused after a removal.
pub type NodeId = u64;

/// A coordinator as the membership records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// What the [`Dialer`](crate::Dialer) understands, usually `host:port`.
    pub endpoint: String,
    /// Digest of the node's public key, pinned by the others.
    pub key: String,
}

/// [`Node`] without its id, as openraft's membership keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub endpoint: String,
    pub key: String,
}

impl Address {
    pub fn node(&self, id: NodeId) -> Node {
        Node { id, endpoint: self.endpoint.clone(), key: self.key.clone() }
    }
}

impl From<Node> for Address {
    fn from(node: Node) -> Self {
        Self { endpoint: node.endpoint, key: node.key }
    }
}

/// What one log entry carries; the clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub at_ms: u64,
    pub payload: Payload,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.payload.0.len(), self.at_ms)
    }
}

/// Opaque bytes, serialised as bytes and not as a sequence of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload(pub Bytes);

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw;
        impl Visitor<'_> for Raw {
            type Value = Payload;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Payload, E> {
                Ok(Payload(Bytes::copy_from_slice(v)))
            }
        }
        deserializer.deserialize_bytes(Raw)
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Proposal,
        R = Payload,
        Node = Address,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type EntryBody = openraft::alias::PayloadOf<Types>;
pub(crate) type Membership = openraft::Membership<NodeId, Address>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
