//! Plan and ledger on disk: read once at start, replaced as whole files. What is in them is `ledger`'s business.

use std::path::{Path, PathBuf};

use muster_model::plan::HostPlan;
use muster_runtime::state_dir::{self, PRIVATE, StateError};

use crate::ledger::Ledger;

/// The agent's own files.
#[derive(Debug, Clone)]
pub struct Store {
    plan: PathBuf,
    ledger: PathBuf,
}

impl Store {
    /// Under the state directory.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { plan: state.join("plan.json"), ledger: state.join("ledger.json") }
    }

    /// What was stored; empty at the very first start.
    ///
    /// # Errors
    /// A file is there and cannot be read: it is never replaced by an empty one.
    pub fn load(&self) -> Result<Ledger, StateError> {
        let mut ledger: Ledger = read(&self.ledger)?.unwrap_or_default();
        ledger.plan = read::<HostPlan>(&self.plan)?;
        Ok(ledger)
    }

    /// Writes the plan that was accepted.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save_plan(&self, plan: &HostPlan) -> Result<(), StateError> {
        write(&self.plan, plan)
    }

    /// Writes everything but the plan.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save_ledger(&self, ledger: &Ledger) -> Result<(), StateError> {
        write(&self.ledger, ledger)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match state_dir::read_private(path) {
        Ok(text) => serde_json::from_slice(text.expose()).map(Some).map_err(|e| StateError::invalid(path, e)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn write<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let text = serde_json::to_vec(value).map_err(|e| StateError::invalid(path, e))?;
    state_dir::write_atomic(path, &text, PRIVATE)
}
