//! Rows about who may do what and who did what: secrets, tokens, certificates, clients, the audit chain.

use std::collections::{BTreeSet, VecDeque};

use muster_model::ids::LogIndex;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::command::Reply;

/// Audit entries kept; the chain's head still covers the forgotten ones.
pub const AUDIT_KEPT: usize = 5_000;

/// A secret as Raft holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRow {
    /// Sealed bytes, base64; opaque to the core.
    pub sealed: String,
    /// Grows with each change.
    pub version: u64,
    /// When it got this value; 0 = before that was kept.
    #[serde(default, skip_serializing_if = "unknown")]
    pub changed: Timestamp,
    /// What it says, if it is a certificate with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateNote>,
}

/// What must be known of a service's certificate without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateNote {
    /// Names and addresses that it is for.
    pub names: BTreeSet<String>,
    /// From when on a new one is made.
    pub renew: Timestamp,
    /// Until when it is good.
    pub expires: Timestamp,
}

const fn unknown(at: &Timestamp) -> bool {
    at.0 == 0
}

/// What a token lets its bearer become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// A host's agent.
    Host,
    /// A coordinator.
    Coordinator,
}

/// A single-use join token, known by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// What it is for.
    pub role: TokenRole,
    /// Until when.
    pub expires: Timestamp,
    /// Who used it, once somebody did.
    pub used_by: Option<String>,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whom it names: the URI of its SAN.
    pub subject: String,
    /// SHA-256 of its public key, hex.
    pub key_digest: String,
    /// Until when.
    pub expires: Timestamp,
    /// Why it was revoked, once it was.
    pub revoked: Option<String>,
}

/// What a client was told last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientRow {
    /// Serials and replies, oldest first, bounded.
    pub replies: VecDeque<(u64, Reply)>,
    /// Last use.
    pub used: Timestamp,
}

/// One entry of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Where in the log.
    pub index: LogIndex,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What, and how it ended.
    pub action: String,
    /// SHA-256 over the previous entry's hash and this entry, hex.
    pub hash: String,
}

/// The audit chain: its newest entries and its head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLog {
    /// Newest entries, oldest first.
    pub entries: VecDeque<std::sync::Arc<AuditEntry>>,
    /// Hash of the last entry; empty = none yet.
    pub head: String,
}

impl AuditLog {
    /// Appends an entry.
    pub(crate) fn append(&mut self, index: LogIndex, at: Timestamp, actor: &str, action: &str) {
        let hash = Self::link(&self.head, index, at, actor, action);
        self.head.clone_from(&hash);
        let entry = AuditEntry { index, at, actor: actor.to_owned(), action: action.to_owned(), hash };
        self.entries.push_back(std::sync::Arc::new(entry));
        while self.entries.len() > AUDIT_KEPT {
            self.entries.pop_front();
        }
    }

    /// First kept entry whose hash does not follow from its predecessor; absent = the chain is whole.
    #[must_use]
    pub fn broken_at(&self) -> Option<LogIndex> {
        let mut previous: Option<&str> = None;
        for entry in &self.entries {
            if let Some(previous) = previous {
                let hash = Self::link(previous, entry.index, entry.at, &entry.actor, &entry.action);
                if hash != entry.hash {
                    return Some(entry.index);
                }
            }
            previous = Some(&entry.hash);
        }
        let last = self.entries.back()?;
        (last.hash != self.head).then_some(last.index)
    }

    fn link(previous: &str, index: LogIndex, at: Timestamp, actor: &str, action: &str) -> String {
        let mut hasher = Sha256::new();
        // Lengths in front, so that moving text from one field to the next changes the hash.
        for part in [previous, &index.to_string(), &at.0.to_string(), actor, action] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hex::encode(hasher.finalize())
    }
}
