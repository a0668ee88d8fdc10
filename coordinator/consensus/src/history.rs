//! The numbered history of everything this crate stores or sends. A format that was released is
//! never changed: a new one gets the next number here, a decoder for the old one stays, and a byte
//! fixture under `fixtures/` is added. The tests below read every fixture.
//!
//! | what | number | since | content |
//! |---|---|---|---|
//! | `node.json` | 1 | 0.1.0 | [`crate::identity`]: platform, node id, log id |
//! | log segment | 1 | 0.1.0 | 64-byte header, then frames of [`Record`]s ([`crate::log`]) |
//! | snapshot file | 1 | 0.1.0 | [`SnapshotHead`] and the state machine's bytes ([`crate::snapshot`]) |
//! | protocol | 1 | 0.1.0 | `raft.proto`; each opaque payload is one format byte and a postcard value |
//! | payload | 1 | 0.1.0 | the `*Message` types below |
//!
//! The structs here are ours: no layout depends on openraft's own serialisation. Postcard writes
//! fields in order without names, so fields are never reordered, removed or inserted, and enum
//! variants are only added at the end, together with a new number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::Payload;

pub(crate) const NODE_FILE: u32 = 1;
pub(crate) const SEGMENT: u32 = 1;
pub(crate) const SNAPSHOT: u32 = 1;
pub(crate) const PAYLOAD: u8 = 1;
/// Protocol range offered in Hello.
pub(crate) const PROTOCOL_MIN: u32 = 1;
pub(crate) const PROTOCOL_MAX: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireLogId {
    pub term: u64,
    pub node: u64,
    pub index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireVote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireNode {
    pub id: u64,
    pub endpoint: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMembership {
    /// Two voter sets while a change is under way, else one.
    pub configs: Vec<Vec<u64>>,
    pub nodes: Vec<WireNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireBody {
    Blank,
    Normal { at_ms: u64, payload: Payload },
    Membership(WireMembership),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireEntry {
    pub id: WireLogId,
    pub body: WireBody,
}

/// One change of the log store; a frame of a segment is a sequence of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// First in every segment, so that older segments can be deleted.
    Checkpoint {
        vote: Option<WireVote>,
        committed: Option<WireLogId>,
        purged: Option<WireLogId>,
    },
    Vote(WireVote),
    Committed(WireLogId),
    Entry(WireEntry),
    /// Drops every entry after the index; `None` drops all.
    Truncate {
        after: Option<u64>,
    },
    /// Drops every entry up to and including this one.
    Purge(WireLogId),
}

/// Describes a snapshot, both in its file and on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub platform: String,
    pub last: WireLogId,
    pub membership_at: Option<WireLogId>,
    pub membership: WireMembership,
    /// Greatest `at_ms` applied so far.
    pub at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendMessage {
    pub vote: WireVote,
    pub prev: Option<WireLogId>,
    pub commit: Option<WireLogId>,
    pub entries: Vec<WireEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    Success,
    Partial(Option<WireLogId>),
    Conflict,
    HigherVote(WireVote),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteMessage {
    pub pre: bool,
    pub vote: WireVote,
    pub last: Option<WireLogId>,
    pub transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub vote: WireVote,
    pub granted: bool,
    pub last: Option<WireLogId>,
}

/// Header of a snapshot transfer, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotVote {
    pub vote: WireVote,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferMessage {
    pub from: WireVote,
    pub to: u64,
    pub last: Option<WireLogId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferAnswer {
    pub accepted: bool,
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("format {0} is not known to this version")]
    Unknown(u32),
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Encodes a wire payload with its format byte.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FormatError> {
    postcard::to_extend(value, vec![PAYLOAD]).map_err(|error| FormatError::Malformed(error.to_string()))
}

/// Decodes a wire payload; trailing bytes are an error.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    match bytes.split_first() {
        Some((&PAYLOAD, rest)) => exact(rest),
        Some((&other, _)) => Err(FormatError::Unknown(other.into())),
        None => Err(FormatError::Malformed("empty".into())),
    }
}

/// Appends one bare value, as segments and snapshot files hold it.
pub(crate) fn put<T: Serialize>(value: &T, out: Vec<u8>) -> Result<Vec<u8>, FormatError> {
    postcard::to_extend(value, out).map_err(|error| FormatError::Malformed(error.to_string()))
}

/// Takes one bare value from the front.
pub(crate) fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), FormatError> {
    postcard::take_from_bytes(bytes).map_err(|error| FormatError::Malformed(error.to_string()))
}

/// One bare value and nothing after it.
pub(crate) fn exact<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    match take(bytes)? {
        (value, []) => Ok(value),
        (_, rest) => Err(FormatError::Malformed(format!("{} bytes too many", rest.len()))),
    }
}
