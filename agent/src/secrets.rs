//! Secrets of this host: in memory while the agent runs, on disk sealed with a key that only root can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_runtime::seal::{SealError, SealKey};
use muster_runtime::secret::Secret;
use muster_runtime::state_dir::{self, PRIVATE, StateError};

use crate::files::SecretMap;

const KEY: &str = "seal.key";
const FILE: &str = "secrets.sealed";
const CONTEXT: &[u8] = b"muster agent secrets";

/// Why secrets cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Sealing or opening.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The file.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Where sealed secrets are kept.
pub struct SecretStore {
    path: PathBuf,
    key: SealKey,
}

impl SecretStore {
    /// Under the state directory; makes the host's key at the first time.
    ///
    /// # Errors
    /// The key file is exposed or damaged.
    pub fn open(state: &Path) -> Result<Self, SecretsError> {
        let key_path = state.join(KEY);
        if !key_path.exists() {
            SealKey::generate()?.store_new(&key_path)?;
        }
        Ok(Self { path: state.join(FILE), key: SealKey::load(&key_path)? })
    }

    /// What was kept last; nothing if nothing was.
    ///
    /// # Errors
    /// The file is there and does not open.
    pub fn load(&self) -> Result<SecretMap, SecretsError> {
        let sealed = match state_dir::read_private(&self.path) {
            Ok(sealed) => sealed,
            Err(error) if error.is_not_found() => return Ok(SecretMap::new()),
            Err(error) => return Err(error.into()),
        };
        let plain = self.key.open(sealed.expose(), CONTEXT)?;
        let invalid = |reason: String| StateError::invalid(&self.path, reason);
        let map: BTreeMap<String, String> =
            serde_json::from_slice(plain.expose()).map_err(|e| invalid(e.to_string()))?;
        let decoded = map.into_iter().map(|(name, text)| {
            let bytes = STANDARD.decode(Secret::new(text).expose()).map_err(|e| invalid(e.to_string()))?;
            Ok((name, Secret::new(bytes)))
        });
        decoded.collect()
    }

    /// Keeps these instead.
    ///
    /// # Errors
    /// They cannot be sealed or written.
    pub fn store(&self, secrets: &SecretMap) -> Result<(), SecretsError> {
        let map: BTreeMap<&String, String> =
            secrets.iter().map(|(name, secret)| (name, STANDARD.encode(secret.expose()))).collect();
        let plain = serde_json::to_vec(&map).map_err(|e| StateError::invalid(&self.path, e))?;
        let sealed = self.key.seal(Secret::new(plain).expose(), CONTEXT)?;
        Ok(state_dir::write_atomic(&self.path, &sealed, PRIVATE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_the_agent_and_are_not_readable_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let map = SecretMap::from([("pg/app".to_owned(), Secret::new(b"hunter2".to_vec()))]);
        SecretStore::open(dir.path()).unwrap().store(&map).unwrap();
        let again = SecretStore::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(again["pg/app"].expose(), b"hunter2");
        let raw = std::fs::read(dir.path().join(FILE)).unwrap();
        assert!(!raw.windows(7).any(|w| w == b"hunter2"));
        std::fs::remove_file(dir.path().join(KEY)).unwrap();
        assert!(SecretStore::open(dir.path()).unwrap().load().is_err());
    }
}
