//! An operator's context file: where the coordinators of one platform are, and who the operator is to them.

use std::path::Path;
use std::sync::Arc;

use muster_model::ids::Name;
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::keys::{KeyDigest, KeyError, NodeKey};
use crate::secret::Secret;
use crate::state_dir::{PRIVATE, StateError, read_private, write_atomic};
use crate::tls::{Credentials, CredentialsError, PinnedKeys, Tls, Trust, TrustError};

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The file.
    #[error(transparent)]
    File(#[from] StateError),
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Its CA.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// What an operator needs to talk to a platform. Holds a private key: the file is for its owner alone.
#[derive(Clone)]
pub struct Context {
    /// The platform's name.
    pub platform: Name,
    /// Addresses of coordinators, all tried.
    pub endpoints: Vec<String>,
    /// SHA-256 of coordinators' public keys, hex: an expired certificate of theirs is forgiven.
    pub pins: Vec<KeyDigest>,
    /// The platform's CA.
    pub ca_pem: String,
    /// The operator's certificate.
    pub certificate_pem: String,
    /// The operator's key.
    pub key_pem: Secret<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    platform: Name,
    endpoints: Vec<String>,
    #[serde(default)]
    pins: Vec<String>,
    ca: String,
    certificate: String,
    key: String,
}

impl Context {
    /// Reads a context file.
    ///
    /// # Errors
    /// It is missing, readable by others, or malformed.
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        let bytes = read_private(path)?;
        let file: File =
            serde_json::from_slice(bytes.expose()).map_err(|error| StateError::invalid(path, error))?;
        if file.format != 1 {
            return Err(StateError::invalid(path, format!("has format {}, not 1", file.format)).into());
        }
        let pins = file.pins.iter().map(|pin| pin.parse()).collect::<Result<_, _>>();
        Ok(Self {
            platform: file.platform,
            endpoints: file.endpoints,
            pins: pins.map_err(|error| StateError::invalid(path, error))?,
            ca_pem: file.ca,
            certificate_pem: file.certificate,
            key_pem: Secret::new(file.key),
        })
    }

    /// Writes the file, for its owner alone.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, path: &Path) -> Result<(), ContextError> {
        let file = File {
            format: 1,
            platform: self.platform.clone(),
            endpoints: self.endpoints.clone(),
            pins: self.pins.iter().map(ToString::to_string).collect(),
            ca: self.ca_pem.clone(),
            certificate: self.certificate_pem.clone(),
            key: self.key_pem.expose().clone(),
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| StateError::invalid(path, error))?;
        Ok(write_atomic(path, Secret::new(text).expose(), PRIVATE)?)
    }

    /// TLS as this operator.
    ///
    /// # Errors
    /// Key, certificate or CA cannot be used.
    pub fn tls(&self, clock: SharedClock) -> Result<Tls, ContextError> {
        let key = NodeKey::from_pem(self.key_pem.expose())?;
        let credentials = Credentials::new(&key, &self.certificate_pem, &self.ca_pem)?;
        let trust = Arc::new(Trust::new(self.platform.clone(), &[&self.ca_pem])?);
        let pins = Arc::new(PinnedKeys::new(self.pins.iter().cloned()));
        Ok(Tls::new(Some(credentials), trust, pins, clock))
    }
}
