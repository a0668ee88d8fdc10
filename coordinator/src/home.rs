//! A coordinator's directory: identity, key of sealed secrets, log, and what `init` left for the first run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use muster_model::ids::Name;
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::SharedClock;
use muster_runtime::keys::{KeyDigest, NodeKey};
use muster_runtime::seal::SealKey;
use muster_runtime::state_dir::{self, PRIVATE, create_private_dir, read_text, write_atomic};
use muster_runtime::tls::{Credentials, PinnedKeys, Tls, Trust};
use serde::{Deserialize, Serialize};

/// Where a coordinator keeps its state unless told otherwise.
pub const DEFAULT: &str = "/var/lib/muster/coordinator";

/// In the identity directory, once this coordinator was removed.
const REMOVED: &str = "removed";

/// In the bootstrap directory.
const FIRST_OPERATOR: &str = "first-operator.pem";

/// Another coordinator, as known at the last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub node: u64,
    /// Where it listens.
    pub endpoint: String,
    /// SHA-256 of its public key, hex.
    pub key_digest: String,
}

/// What a coordinator knows of itself before it has read its log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeFile {
    /// Its number in the Raft group.
    pub node: u64,
    /// Its name.
    pub name: Name,
    /// The platform's random id.
    pub platform_id: String,
    /// The platform's name.
    pub platform: Name,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// `lan`, `vps` or `wan`.
    pub timings: String,
    /// Coordinators known when it joined; their keys are pinned.
    pub known: Vec<Known>,
    /// It has had a log: an empty one is refused from then on.
    pub has_log: bool,
    /// How often the control plane was recovered, plus one.
    #[serde(default = "first")]
    pub incarnation: u64,
}

const fn first() -> u64 {
    1
}

impl NodeFile {
    /// What the members of one group call it: those of an earlier incarnation do not reach the ones of a later one.
    #[must_use]
    pub fn group(&self) -> String {
        group_name(&self.platform_id, self.incarnation)
    }
}

/// As [`NodeFile::group`].
#[must_use]
pub fn group_name(platform_id: &str, incarnation: u64) -> String {
    if incarnation <= 1 { platform_id.to_owned() } else { format!("{platform_id}.{incarnation}") }
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// This directory; nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether `init` or `join` was done here.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.identity("node.json").exists()
    }

    fn identity(&self, name: &str) -> PathBuf {
        self.0.join("identity").join(name)
    }

    /// Refuses a directory that belongs to a coordinator already.
    ///
    /// # Errors
    /// It does.
    pub fn ensure_fresh(&self) -> Result<()> {
        if let Ok(node) = self.node() {
            bail!(
                "{} belongs to coordinator {} of platform {} at {} already. To start it: `systemctl start \
                 muster-coordinator`. For another address remove it and join a new one in an empty directory: \
                 docs/tasks/coordinators.md",
                self.0.display(),
                node.name,
                node.platform,
                node.advertise
            );
        }
        ensure!(
            !self.is_joined() && !self.path("log").exists(),
            "{} belongs to a coordinator already, but what it says of it cannot be read",
            self.0.display()
        );
        create_private_dir(&self.0)?;
        Ok(())
    }

    /// The key of this node, made when there is none (a `join` that was interrupted keeps its key).
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn key(&self) -> Result<NodeKey> {
        create_private_dir(&self.0)?;
        Ok(NodeKey::load_or_create(&self.path("node.key"))?)
    }

    /// Stores what makes this directory a coordinator's; the node file last, since its presence means "joined".
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn store(&self, node: &NodeFile, certificate_pem: &str, ca_pem: &str, seal: &SealKey) -> Result<()> {
        self.store_keys(certificate_pem, ca_pem, seal)?;
        self.store_node(node)
    }

    /// Stores all but the node file: the directory is nobody's yet.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn store_keys(&self, certificate_pem: &str, ca_pem: &str, seal: &SealKey) -> Result<()> {
        create_private_dir(&self.0.join("identity"))?;
        if !self.path("seal.key").exists() {
            seal.store_new(&self.path("seal.key"))?;
        }
        self.store_certificate(certificate_pem, ca_pem)
    }

    /// Replaces the certificate.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn store_certificate(&self, certificate_pem: &str, ca_pem: &str) -> Result<()> {
        write_atomic(&self.identity("ca.pem"), ca_pem.as_bytes(), 0o644)?;
        write_atomic(&self.identity("certificate.pem"), certificate_pem.as_bytes(), 0o644)?;
        Ok(())
    }

    /// Replaces the node file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store_node(&self, node: &NodeFile) -> Result<()> {
        write_atomic(&self.identity("node.json"), &serde_json::to_vec_pretty(node)?, PRIVATE)?;
        Ok(())
    }

    /// Reads the node file.
    ///
    /// # Errors
    /// It is missing or malformed.
    pub fn node(&self) -> Result<NodeFile> {
        let path = self.identity("node.json");
        let text = read_text(&path)
            .context("this is no coordinator yet: run `muster-coordinator init` or `join`")?;
        serde_json::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
    }

    /// Writes down that this coordinator was removed: it never starts again.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark_removed(&self, why: &str) -> Result<()> {
        Ok(write_atomic(&self.identity(REMOVED), why.as_bytes(), PRIVATE)?)
    }

    /// What was written down at the removal.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn removed(&self) -> Result<Option<String>> {
        let path = self.identity(REMOVED);
        if path.exists() { Ok(Some(read_text(&path)?)) } else { Ok(None) }
    }

    /// The key of sealed secrets.
    ///
    /// # Errors
    /// It is missing or exposed.
    pub fn seal_key(&self) -> Result<SealKey> {
        Ok(SealKey::load(&self.path("seal.key"))?)
    }

    /// The platform's CA certificate.
    ///
    /// # Errors
    /// It is missing.
    pub fn ca_pem(&self) -> Result<String> {
        Ok(read_text(&self.identity("ca.pem"))?)
    }

    /// What we show in handshakes.
    ///
    /// # Errors
    /// Key or certificate is missing or malformed.
    pub fn credentials(&self) -> Result<Credentials> {
        let key = NodeKey::load(&self.path("node.key"))?;
        let certificate = read_text(&self.identity("certificate.pem"))?;
        Ok(Credentials::new(&key, &certificate, &self.ca_pem()?)?)
    }

    /// TLS as this coordinator, with the known coordinators' keys pinned.
    ///
    /// # Errors
    /// A file is missing or malformed.
    pub fn tls(&self, node: &NodeFile, clock: SharedClock) -> Result<Tls> {
        let trust = Trust::new(node.platform.clone(), &[self.ca_pem()?])?;
        let pins = node.known.iter().filter_map(|known| known.key_digest.parse::<KeyDigest>().ok());
        Ok(Tls::new(Some(self.credentials()?), Arc::new(trust), Arc::new(PinnedKeys::new(pins)), clock))
    }

    /// Where `init` leaves the CA for the first run.
    #[must_use]
    pub fn bootstrap(&self) -> PathBuf {
        self.path("bootstrap")
    }

    /// The CA that `init` made, while it is not in the log yet.
    ///
    /// # Errors
    /// It is malformed.
    pub fn bootstrap_ca(&self) -> Result<Option<muster_runtime::ca::Ca>> {
        let dir = self.bootstrap();
        if dir.exists() { Ok(Some(muster_runtime::ca::Ca::load(&dir)?)) } else { Ok(None) }
    }

    /// Leaves the first operator's certificate for the first run, which records it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store_first_operator(&self, certificate_pem: &str) -> Result<()> {
        Ok(write_atomic(&self.bootstrap().join(FIRST_OPERATOR), certificate_pem.as_bytes(), 0o644)?)
    }

    /// The certificates that `init` signed before there was a log: this coordinator's and the first operator's.
    ///
    /// # Errors
    /// One is missing or malformed.
    pub fn first_certificates(&self) -> Result<[PeerCertificate; 2]> {
        let ours = read_text(&self.identity("certificate.pem"))?;
        let operator = read_text(&self.bootstrap().join(FIRST_OPERATOR))?;
        Ok([PeerCertificate::from_pem(&ours)?, PeerCertificate::from_pem(&operator)?])
    }

    /// Forgets the CA's key on this disk: it is sealed in the log now.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn end_bootstrap(&self) -> Result<()> {
        let (dir, ended) = (self.bootstrap(), self.path("bootstrap.ended"));
        // In one step first: half of the directory would keep the coordinator from starting.
        if dir.exists() {
            std::fs::rename(&dir, &ended).with_context(|| format!("renaming {}", dir.display()))?;
        }
        if ended.exists() {
            std::fs::remove_dir_all(&ended).with_context(|| format!("removing {}", ended.display()))?;
        }
        Ok(())
    }

    /// Locks the directory for this process.
    ///
    /// # Errors
    /// Another process has it, or others can read it.
    pub fn lock(&self) -> Result<state_dir::StateDir> {
        Ok(state_dir::StateDir::open(&self.0)?)
    }
}
