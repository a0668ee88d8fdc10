//! The history of what is stored: snapshots of State and entries of the log. Nothing newer than this is read.

use serde::Deserialize;

use crate::command::Command;
use crate::state::State;

/// Every format ever written, with what changed. Append only; each has a fixture under `fixtures/`.
pub const HISTORY: &[(u32, &str)] = &[(1, "first")];

/// The format that this version writes.
pub const STATE_FORMAT: u32 = HISTORY[HISTORY.len() - 1].0;

/// Why stored bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer version.
    #[error(
        "written in format {found}, this version reads up to {STATE_FORMAT}: install the newer version again"
    )]
    Newer {
        /// The format found.
        found: u32,
    },
    /// Not what it should be.
    #[error("stored {what} cannot be read")]
    Unreadable {
        /// `state` or `command`.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// Bytes of a snapshot.
#[must_use]
pub fn encode_state(state: &State) -> Vec<u8> {
    serde_json::to_vec(state).expect("plain data always has a JSON form")
}

/// Reads a snapshot.
pub fn decode_state(bytes: &[u8]) -> Result<State, FormatError> {
    let unreadable = |source| FormatError::Unreadable { what: "state", source };
    let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
    if head.format > STATE_FORMAT {
        return Err(FormatError::Newer { found: head.format });
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

/// Bytes of an entry.
#[must_use]
pub fn encode_command(command: &Command) -> Vec<u8> {
    serde_json::to_vec(command).expect("plain data always has a JSON form")
}

/// Reads an entry.
pub fn decode_command(bytes: &[u8]) -> Result<Command, FormatError> {
    serde_json::from_slice(bytes).map_err(|source| FormatError::Unreadable { what: "command", source })
}
