//! The file of a saved snapshot: one line that says what it is, then the state. Knows nothing of the state.
//!
//! The line is JSON; its `sha256` is that of the line without it and of everything behind the line.

use muster_model::ids::Name;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Largest state that is saved or read, in bytes.
pub const STATE_MAX: u64 = 256 << 20;
/// Longest first line.
const LINE_MAX: usize = 4096;

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Format of the file.
    pub muster_snapshot: u32,
    /// The platform's random id.
    pub platform_id: String,
    /// Its name.
    pub platform: Name,
    /// How often its control plane was recovered, plus one.
    pub incarnation: u64,
    /// Last entry of the log that is in it.
    pub index: u64,
    /// Term of the leader when it was made.
    pub term: u64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Program that made it.
    pub program: String,
    /// Bytes behind the line.
    pub length: u64,
    /// Checksum, hex.
    pub sha256: String,
}

/// Why a file is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin like one.
    #[error("this is no snapshot of muster")]
    Other,
    /// Written by a newer version.
    #[error("the snapshot has format {0}, this version reads up to {FORMAT}: use the newer version")]
    Newer(u32),
    /// Cut off or changed.
    #[error("the snapshot is damaged: {0}; use another one")]
    Damaged(&'static str),
}

fn digest(head: &Head, body: &[u8]) -> String {
    let bare = Head { sha256: String::new(), ..head.clone() };
    let line = serde_json::to_vec(&bare).expect("plain data always has a JSON form");
    hex::encode(Sha256::new().chain_update(line).chain_update(body).finalize())
}

/// The whole file.
#[must_use]
pub fn encode(head: Head, body: &[u8]) -> Vec<u8> {
    let head = Head { muster_snapshot: FORMAT, length: body.len() as u64, ..head };
    let head = Head { sha256: digest(&head, body), ..head };
    let mut file = serde_json::to_vec(&head).expect("plain data always has a JSON form");
    file.push(b'\n');
    file.extend_from_slice(body);
    file
}

/// Checks a file; what it says and the state in it.
///
/// # Errors
/// It is none, of a newer format, or damaged.
pub fn decode(file: &[u8]) -> Result<(Head, &[u8]), SnapshotError> {
    #[derive(Deserialize)]
    struct Format {
        muster_snapshot: u32,
    }
    let end = file.iter().take(LINE_MAX).position(|byte| *byte == b'\n').ok_or(SnapshotError::Other)?;
    let (line, body) = (&file[..end], &file[end + 1..]);
    let format: Format = serde_json::from_slice(line).map_err(|_| SnapshotError::Other)?;
    if format.muster_snapshot > FORMAT {
        return Err(SnapshotError::Newer(format.muster_snapshot));
    }
    let head: Head = serde_json::from_slice(line).map_err(|_| SnapshotError::Damaged("its first line"))?;
    if head.length != body.len() as u64 {
        return Err(SnapshotError::Damaged("it is not as long as it says"));
    }
    if digest(&head, body) != head.sha256 {
        return Err(SnapshotError::Damaged("the checksum does not match"));
    }
    Ok((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            muster_snapshot: 0,
            platform_id: "0123456789abcdef".to_owned(),
            platform: Name::new("shop").unwrap(),
            incarnation: 1,
            index: 811,
            term: 3,
            at_ms: 5,
            program: "test".to_owned(),
            length: 0,
            sha256: String::new(),
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let file = encode(head(), b"{\"format\":1}");
        let (read, body) = decode(&file).unwrap();
        assert_eq!((read.index, body), (811, &b"{\"format\":1}"[..]));
        for at in 0..file.len() {
            let mut other = file.clone();
            other[at] ^= 1;
            assert!(decode(&other).is_err(), "byte {at}");
            assert!(decode(&file[..at]).is_err(), "cut at {at}");
        }
        let newer =
            String::from_utf8(file).unwrap().replacen("\"muster_snapshot\":1", "\"muster_snapshot\":2", 1);
        assert_eq!(decode(newer.as_bytes()), Err(SnapshotError::Newer(2)));
    }
}
