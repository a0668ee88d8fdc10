//! The replicated state of this node: applies what Raft agreed on, hands out what was applied. Decides nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_consensus::{Encode, StateMachine};
use muster_core::apply::apply;
use muster_core::command::{LogMeta, Rejected, Reply};
use muster_core::state::State;
use muster_core::version::{decode_command, decode_state, encode_state};
use muster_model::ids::LogIndex;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What an entry answered, as it travels back to the proposer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect.
    Done(Reply),
    /// It had none.
    Rejected(Rejected),
    /// An entry that this version cannot read.
    Unreadable(String),
}

/// Shared by the machine and all readers. A reader holds the `Arc` only while it reads.
#[derive(Debug, Clone, Default)]
pub struct Replica(Arc<Mutex<Arc<State>>>);

impl Replica {
    /// The state as applied so far.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateMachine for Replica {
    fn apply(&mut self, index: u64, at_ms: u64, payload: &[u8]) -> Vec<u8> {
        let outcome = match decode_command(payload) {
            Err(error) => {
                tracing::error!(index, %error, "an entry of the log cannot be read");
                Outcome::Unreadable(error.to_string())
            }
            Ok(command) => {
                let mut state = self.lock();
                let meta = LogMeta { index: LogIndex(index), at: Timestamp(at_ms) };
                // Copies the tables only if a reader still holds the state before.
                match apply(Arc::make_mut(&mut state), &command, meta) {
                    Ok(reply) => Outcome::Done(reply),
                    Err(rejected) => Outcome::Rejected(rejected),
                }
            }
        };
        serde_json::to_vec(&outcome).expect("plain data always has a JSON form")
    }

    fn snapshot(&self) -> Encode {
        let state = self.state();
        Box::new(move || encode_state(&state))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let state = decode_state(bytes).map_err(|error| error.to_string())?;
        *self.lock() = Arc::new(state);
        Ok(())
    }
}
