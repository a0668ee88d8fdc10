//! A process' own key pair: made here, kept here, never sent anywhere. Others know its digest.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use muster_model::ids::Name;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::secret::Secret;
use crate::state_dir::{self, PRIVATE, StateError};

/// SHA-256 of something, as 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(String);

/// SHA-256 of a public key (its SubjectPublicKeyInfo in DER): what an identity is pinned to.
pub type KeyDigest = Sha256Hex;
/// SHA-256 of a CA certificate in DER: what a join token pins.
pub type CaDigest = Sha256Hex;

impl Sha256Hex {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 16 digits: a `HostId`.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..16]
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest: 64 of 0-9 and a-f expected")]
pub struct DigestError;

impl FromStr for Sha256Hex {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if good { Ok(Self(text.to_owned())) } else { Err(DigestError) }
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Sha256Hex> for String {
    fn from(digest: Sha256Hex) -> Self {
        digest.0
    }
}

/// Why a key could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key material is not a P-256 key, or the system has no randomness.
    #[error("key: {0}")]
    Key(#[from] rcgen::Error),
    /// The file.
    #[error(transparent)]
    State(#[from] StateError),
    /// TLS cannot sign with it.
    #[error("key: {0}")]
    Tls(#[from] rustls::Error),
}

/// An ECDSA P-256 key pair. Has no `Debug`: it is a secret.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new random key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// Reads a PKCS#8 PEM file that only its owner may read.
    ///
    /// # Errors
    /// It is missing, exposed, or not a P-256 key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let content = state_dir::read_private(path)?;
        let pem = std::str::from_utf8(content.expose()).map_err(|e| StateError::invalid(path, e))?;
        Self::from_pem(pem).map_err(|error| StateError::invalid(path, error).into())
    }

    /// Reads PKCS#8 PEM.
    ///
    /// # Errors
    /// It is not a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Ok(Self(KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)?))
    }

    /// Writes it, mode 0600, into a directory of mode 0700.
    ///
    /// # Errors
    /// The file cannot be written, or the directory is exposed.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        if let Some(parent) = path.parent() {
            state_dir::create_private_dir(parent)?;
        }
        Ok(state_dir::write_atomic(path, self.pem().expose().as_bytes(), PRIVATE)?)
    }

    /// Reads the key, or makes and stores one if there is none: a process keeps its key for life.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::store`]; an existing but unusable key is never replaced.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::State(error)) if error.is_not_found() => {
                let key = Self::generate()?;
                key.store(path)?;
                Ok(key)
            }
            other => other,
        }
    }

    /// The private key as PKCS#8 PEM.
    #[must_use]
    pub fn pem(&self) -> Secret<String> {
        Secret::new(self.0.serialize_pem())
    }

    /// Digest of the public half.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        Sha256Hex::of(&self.0.subject_public_key_info())
    }

    /// A certificate signing request (PEM) for this key. It proves possession; the CA takes nothing else from it.
    ///
    /// # Errors
    /// Signing failed.
    pub fn csr(&self, name: &Name) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        Ok(params.serialize_request(&self.0)?.pem()?)
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.0
    }

    pub(crate) fn tls_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, KeyError> {
        let der = Secret::new(self.0.serialize_der());
        let key = PrivateKeyDer::Pkcs8(der.expose().as_slice().into());
        Ok(rustls::crypto::ring::sign::any_ecdsa_type(&key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity/key.pem");
        let first = NodeKey::load_or_create(&path).unwrap().digest();
        assert_eq!(NodeKey::load_or_create(&path).unwrap().digest(), first);
        assert_ne!(NodeKey::generate().unwrap().digest(), first);
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        state_dir::write_atomic(&path, b"garbage", PRIVATE).unwrap();
        assert!(NodeKey::load_or_create(&path).is_err());
        assert_eq!(state_dir::read_text(&path).unwrap(), "garbage");
    }

    #[test]
    fn digests_are_exact() {
        let digest = Sha256Hex::of(b"x");
        assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
        assert!(digest.as_str().to_uppercase().parse::<Sha256Hex>().is_err());
        assert!(digest.short().parse::<Sha256Hex>().is_err());
    }
}
