//! Secrets at rest: XChaCha20-Poly1305 under a key file that only root can read, bound to where they belong.

use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::secret::Secret;
use crate::state_dir::{self, PRIVATE, StateError};

/// First byte of everything sealed, so that another scheme can follow one day.
const VERSION: u8 = 1;
const NONCE: usize = 24;

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Random(std::io::Error),
    /// Too short, of another version, changed, sealed with another key or for another place.
    #[error("sealed data does not open: changed, or sealed with another key or for another place")]
    Refused,
}

/// The key that seals. Has no `Debug`: it is a secret.
#[derive(Clone)]
pub struct SealKey(Secret<[u8; 32]>);

impl SealKey {
    /// A new random key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self(Secret::random().map_err(SealError::Random)?))
    }

    /// Takes a key that came from elsewhere (a coordinator that joins gets the cluster's).
    #[must_use]
    pub const fn from_secret(key: Secret<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The key itself, to hand to another coordinator.
    #[must_use]
    pub const fn secret(&self) -> &Secret<[u8; 32]> {
        &self.0
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It is missing, exposed, or not 32 bytes in hex.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let content = state_dir::read_private(path)?;
        let mut key = [0_u8; 32];
        hex::decode_to_slice(content.expose().trim_ascii(), &mut key)
            .map_err(|_| StateError::invalid(path, "is not 64 hex digits"))?;
        Ok(Self(Secret::new(key)))
    }

    /// Writes the key file, mode 0600. Never over another one: what it had sealed would be lost.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub fn store_new(&self, path: &Path) -> Result<(), SealError> {
        if path.exists() {
            return Err(StateError::invalid(path, "exists already").into());
        }
        let text = Secret::new(hex::encode(self.0.expose()));
        Ok(state_dir::write_atomic(path, text.expose().as_bytes(), PRIVATE)?)
    }

    /// Seals `plain` for the place that `context` names; the same context opens it.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0_u8; NONCE];
        getrandom::fill(&mut nonce).map_err(|e| SealError::Random(std::io::Error::other(e)))?;
        let payload = Payload { msg: plain, aad: context };
        let sealed =
            self.cipher().encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| SealError::Refused)?;
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// Anything about it is wrong; which thing is not told.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        let (nonce, body) = sealed
            .strip_prefix(&[VERSION])
            .and_then(|rest| rest.split_at_checked(NONCE))
            .ok_or(SealError::Refused)?;
        let payload = Payload { msg: body, aad: context };
        let plain = self.cipher().decrypt(XNonce::from_slice(nonce), payload);
        plain.map(Secret::new).map_err(|_| SealError::Refused)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.expose().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_unchanged_with_the_same_key_and_context() {
        let key = SealKey::generate().unwrap();
        let sealed = key.seal(b"hunter2", b"h1/pg").unwrap();
        assert_eq!(key.open(&sealed, b"h1/pg").unwrap().expose(), b"hunter2");
        assert_ne!(key.seal(b"hunter2", b"h1/pg").unwrap(), sealed);
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert!(key.open(&sealed, b"h2/pg").is_err());
        assert!(SealKey::generate().unwrap().open(&sealed, b"h1/pg").is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&changed, b"h1/pg").is_err(), "byte {at}");
            assert!(key.open(&sealed[..at], b"h1/pg").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        let key = SealKey::generate().unwrap();
        key.store_new(&path).unwrap();
        assert!(SealKey::generate().unwrap().store_new(&path).is_err());
        let sealed = key.seal(b"x", b"").unwrap();
        assert_eq!(SealKey::load(&path).unwrap().open(&sealed, b"").unwrap().expose(), b"x");
        state_dir::write_atomic(&path, b"x", 0o644).unwrap();
        assert!(matches!(SealKey::load(&path), Err(SealError::State(StateError::Exposed { .. }))));
    }
}
