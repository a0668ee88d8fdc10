//! The one way to change the state: encode, propose, wait, decode.

use std::time::Duration;

use muster_consensus::{Consensus, ProposeError};
use muster_core::command::{Command, Rejected, Reply};
use muster_core::version::encode_command;

use crate::replica::Outcome;

/// Longest wait for one entry.
pub const WITHIN: Duration = Duration::from_secs(8);

/// Why a change did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The entry was agreed on and had no effect.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It was not agreed on, or that is not known.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The reply cannot be read: another version leads.
    #[error("the leader's answer cannot be read: {0}")]
    Answer(String),
}

/// Proposes commands on any node; followers forward.
#[derive(Clone)]
pub struct Proposer(Consensus);

impl Proposer {
    /// Through this node.
    #[must_use]
    pub const fn new(consensus: Consensus) -> Self {
        Self(consensus)
    }

    /// Agrees on a command and applies it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn propose(&self, command: &Command) -> Result<Reply, ChangeError> {
        let applied = self.0.propose(encode_command(command), WITHIN).await?;
        let outcome = serde_json::from_slice(&applied.reply);
        match outcome.map_err(|error| ChangeError::Answer(error.to_string()))? {
            Outcome::Done(reply) => Ok(reply),
            Outcome::Rejected(rejected) => Err(rejected.into()),
            Outcome::Unreadable(reason) => Err(ChangeError::Answer(reason)),
        }
    }
}
