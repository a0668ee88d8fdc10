//! Plan and ledger on disk: read once at start, replaced as whole files. What is in them is `ledger`'s business.

use std::path::{Path, PathBuf};

use muster_model::plan::HostPlan;
use muster_runtime::host_bundle::Kept;
use muster_runtime::state_dir::{self, PRIVATE, StateError};

use crate::ledger::Ledger;

/// The agent's own files.
#[derive(Debug, Clone)]
pub struct Store {
    plan: PathBuf,
    ledger: PathBuf,
    kept: PathBuf,
}

impl Store {
    /// Under the state directory.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self {
            plan: state.join("plan.json"),
            ledger: state.join("ledger.json"),
            kept: state.join("keepsake.json"),
        }
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

    /// The plan alone, for somebody who only looks.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn plan(&self) -> Result<Option<HostPlan>, StateError> {
        read(&self.plan)
    }

    /// What is kept for a rebuild of the control plane.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn kept(&self) -> Result<Option<Kept>, StateError> {
        read(&self.kept)
    }

    /// Keeps this instead, unless it is older than what is kept.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, new: &Kept) -> Result<(), StateError> {
        // One that cannot be read is of no use any more.
        let present = self.kept().ok().flatten();
        if present.is_some_and(|present| present.age() > new.age() || present == *new) {
            return Ok(());
        }
        write(&self.kept, new)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_keepsake_never_replaces_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let of = |incarnation, index| Kept { incarnation, index, body: format!("{incarnation}.{index}") };
        assert_eq!(store.kept().unwrap(), None);
        for (new, kept) in
            [(of(1, 9), of(1, 9)), (of(1, 8), of(1, 9)), (of(2, 1), of(2, 1)), (of(1, 99), of(2, 1))]
        {
            store.keep(&new).unwrap();
            assert_eq!(store.kept().unwrap(), Some(kept));
        }
        state_dir::write_atomic(&dir.path().join("keepsake.json"), b"half", PRIVATE).unwrap();
        store.keep(&of(1, 3)).unwrap();
        assert_eq!(store.kept().unwrap(), Some(of(1, 3)));
    }
}
