//! The directory `identity/` of the agent's state: who this host is to its platform. It is there once the host joined.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_model::ids::{HostId, Name};
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::SharedClock;
use muster_runtime::dial::Endpoints;
use muster_runtime::keys::{KeyDigest, NodeKey};
use muster_runtime::state_dir::{self, PRIVATE, StateError};
use muster_runtime::tls::{Credentials, PinnedKeys, Tls, Trust};
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;

/// Facts about this host and its platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Format of this file.
    pub format: u32,
    /// The platform's random id.
    pub platform_id: String,
    /// The platform's name.
    pub platform_name: String,
    /// This host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// All coordinators known: address and digest of the key.
    pub coordinators: Vec<Coordinator>,
    /// Joined with `--adopt`; said at each session until a plan was accepted.
    #[serde(default)]
    pub adopted: bool,
}

/// A coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// `host:port`.
    pub address: String,
    /// Digest of its key; absent = learned from an acknowledgement only.
    #[serde(default)]
    pub key: Option<KeyDigest>,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct IdentityDir {
    path: PathBuf,
}

/// Everything for talking to coordinators.
pub struct Link {
    /// Where they are.
    pub endpoints: Arc<Endpoints>,
    /// How to talk to them.
    pub tls: Tls,
    /// Where changes are written.
    pub dir: IdentityDir,
    /// Who we are.
    pub name: Name,
}

impl IdentityDir {
    /// Under the state directory.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: state.join("identity") }
    }

    /// Whether the host joined a platform.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The host's key.
    ///
    /// # Errors
    /// It is missing, exposed or damaged.
    pub fn key(&self) -> anyhow::Result<NodeKey> {
        Ok(NodeKey::load(&self.path.join("key.pem"))?)
    }

    /// Where the CA's certificate is.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// Who this host is.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn record(&self) -> Result<Record, StateError> {
        let path = self.path.join("host.json");
        let text = state_dir::read_text(&path)?;
        let record: Record = serde_json::from_str(&text).map_err(|e| StateError::invalid(&path, e))?;
        if record.format != FORMAT {
            return Err(StateError::invalid(&path, format!("has format {}, not {FORMAT}", record.format)));
        }
        Ok(record)
    }

    /// Makes the directory as a whole; an older one is kept as `identity.before`.
    ///
    /// # Errors
    /// It cannot be written; then nothing has changed.
    pub fn create(
        &self,
        key: &NodeKey,
        record: &Record,
        certificate_pem: &str,
        ca_pem: &str,
    ) -> anyhow::Result<()> {
        let fresh = Self { path: self.path.with_extension("new") };
        if fresh.exists() {
            fs::remove_dir_all(&fresh.path)?;
        }
        state_dir::create_private_dir(&fresh.path)?;
        key.store(&fresh.path.join("key.pem"))?;
        fresh.store_certificate(certificate_pem, ca_pem)?;
        fresh.store_record(record)?;
        if self.exists() {
            let before = self.path.with_extension("before");
            if before.exists() {
                fs::remove_dir_all(&before)?;
            }
            fs::rename(&self.path, &before)?;
        }
        fs::rename(&fresh.path, &self.path)?;
        Ok(())
    }

    /// Replaces certificate and CA.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn store_certificate(&self, certificate_pem: &str, ca_pem: &str) -> Result<(), StateError> {
        state_dir::write_atomic(&self.path.join("certificate.pem"), certificate_pem.as_bytes(), PRIVATE)?;
        state_dir::write_atomic(&self.path.join("ca.pem"), ca_pem.as_bytes(), PRIVATE)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store_record(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path.join("host.json");
        let text = serde_json::to_vec_pretty(record).map_err(|e| StateError::invalid(&path, e))?;
        state_dir::write_atomic(&path, &text, PRIVATE)
    }

    /// Ready to talk.
    ///
    /// # Errors
    /// Something in the directory is missing or damaged.
    pub fn link(&self, clock: SharedClock) -> anyhow::Result<Link> {
        let record = self.record()?;
        let certificate_pem = state_dir::read_text(&self.path.join("certificate.pem"))?;
        let ca_pem = state_dir::read_text(&self.path.join("ca.pem"))?;
        let credentials = Credentials::new(&self.key()?, &certificate_pem, &ca_pem)?;
        let platform = PeerCertificate::from_pem(&certificate_pem)?.identity.platform;
        let trust = Arc::new(Trust::new(platform, &[&ca_pem])?);
        let pins = record.coordinators.iter().filter_map(|coordinator| coordinator.key.clone());
        let tls = Tls::new(Some(credentials), trust, Arc::new(PinnedKeys::new(pins)), clock);
        let addresses = record.coordinators.iter().map(|coordinator| coordinator.address.clone());
        Ok(Link { endpoints: Endpoints::new(addresses), tls, dir: self.clone(), name: record.name })
    }
}

impl Link {
    /// Takes over where the coordinators are, as one of them says; what is known of their keys stays.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn learn(&self, coordinators: Vec<Coordinator>) -> Result<(), StateError> {
        if coordinators.is_empty() {
            return Ok(());
        }
        let mut record = self.dir.record()?;
        let merged: Vec<Coordinator> = coordinators
            .into_iter()
            .map(|fresh| {
                let known = record.coordinators.iter().find(|known| known.address == fresh.address);
                let key = fresh.key.or_else(|| known.and_then(|known| known.key.clone()));
                Coordinator { address: fresh.address, key }
            })
            .collect();
        let mut new: Vec<&String> = merged.iter().map(|coordinator| &coordinator.address).collect();
        let listed = self.endpoints.list();
        let mut old: Vec<&String> = listed.iter().collect();
        new.sort();
        old.sort();
        if new != old {
            self.endpoints.replace(new.into_iter().cloned());
        }
        if record.coordinators != merged {
            record.coordinators = merged;
            let pins = record.coordinators.iter().filter_map(|coordinator| coordinator.key.clone());
            self.tls.pins().replace(pins);
            self.dir.store_record(&record)?;
        }
        Ok(())
    }

    /// A plan of the new platform was accepted: the host is adopted.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn adoption_done(&self) -> Result<(), StateError> {
        let mut record = self.dir.record()?;
        if record.adopted {
            record.adopted = false;
            self.dir.store_record(&record)?;
        }
        Ok(())
    }
}

/// The host's WireGuard key, in the form of `wg genkey`, for root only.
///
/// # Errors
/// It cannot be read or made.
pub fn mesh_key(state: &Path) -> anyhow::Result<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use muster_runtime::secret::Secret;
    let path = mesh_key_path(state);
    if !path.exists() {
        let secret: Secret<[u8; 32]> = Secret::random().map_err(io::Error::other)?;
        let text = Secret::new(STANDARD.encode(secret.expose()) + "\n");
        state_dir::write_atomic(&path, text.expose().as_bytes(), PRIVATE)?;
    }
    let text = state_dir::read_private(&path)?;
    let mut key = [0_u8; 32];
    let length = STANDARD.decode_slice(text.expose().trim_ascii(), &mut key).unwrap_or_default();
    anyhow::ensure!(length == key.len(), "{} holds no WireGuard key", path.display());
    let secret = x25519_dalek::StaticSecret::from(key);
    Ok(STANDARD.encode(x25519_dalek::PublicKey::from(&secret).as_bytes()))
}

/// Where the host's WireGuard key is.
#[must_use]
pub fn mesh_key_path(state: &Path) -> PathBuf {
    state.join("wg.key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_key_is_made_once_and_its_public_half_is_what_wg_says() {
        let dir = tempfile::tempdir().unwrap();
        let first = mesh_key(dir.path()).unwrap();
        assert_eq!(mesh_key(dir.path()).unwrap(), first);
        // RFC 7748, section 6.1: Alice's keys.
        let alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        state_dir::write_atomic(&mesh_key_path(dir.path()), alice.as_bytes(), PRIVATE).unwrap();
        assert_eq!(mesh_key(dir.path()).unwrap(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }
}
