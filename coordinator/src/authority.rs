//! The platform's CA and its sealed secrets: opened with this node's seal key, never written in the clear.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::certificates::CertificateNeed;
use muster_core::command::{Caller, Command, What};
use muster_core::kinds::CA_SECRET;
use muster_core::state::{CertificateNote, State};
use muster_model::time::Timestamp;
use muster_runtime::ca::{Ca, Issued, SERIAL_LEN};
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::SharedClock;
use muster_runtime::identity::Identity;
use muster_runtime::seal::SealKey;
use muster_runtime::secret::Secret;
use sha2::{Digest as _, Sha256};

use crate::init::certificate_life;
use crate::proposer::Proposer;
use crate::replica::Replica;

/// Name of the CA's private key among the secrets. The slash at the front keeps it apart from every service's.
pub const CA_KEY: &str = "/ca-key";

/// Name of the certificates of the CAs before a rebuild, which members of services trust too.
pub const FORMER_CA: &str = "/ca-former";

/// Bytes of a generated password before encoding: 192 bits.
const PASSWORD_BYTES: usize = 24;

/// Opens secrets, makes them, signs certificates.
#[derive(Clone)]
pub struct Authority {
    ca_pem: Arc<str>,
    seal: Arc<SealKey>,
    replica: Replica,
    proposer: Proposer,
    clock: SharedClock,
}

impl Authority {
    /// With this node's seal key.
    #[must_use]
    pub fn new(
        ca_pem: &str,
        seal: SealKey,
        replica: Replica,
        proposer: Proposer,
        clock: SharedClock,
    ) -> Self {
        Self { ca_pem: Arc::from(ca_pem), seal: Arc::new(seal), replica, proposer, clock }
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What opens secrets; for another coordinator only.
    #[must_use]
    pub fn seal_key(&self) -> &Secret<[u8; 32]> {
        self.seal.secret()
    }

    /// Opens one secret; the CA's certificate is known by a name like theirs.
    ///
    /// # Errors
    /// It does not exist, or was sealed with another key.
    pub fn open(&self, state: &State, name: &str) -> Result<Secret<Vec<u8>>> {
        if name == CA_SECRET {
            let mut all = self.ca_pem.as_bytes().to_vec();
            // Certificates of services that the CA before a rebuild signed are good until they are renewed.
            if state.secrets.contains_key(FORMER_CA) {
                all.extend_from_slice(self.open(state, FORMER_CA)?.expose());
            }
            return Ok(Secret::new(all));
        }
        let row = state.secrets.get(name).with_context(|| format!("there is no secret {name}"))?;
        let sealed = STANDARD.decode(&row.sealed).context("a sealed secret is not base64")?;
        Ok(self.seal.open(&sealed, bound_to(name))?)
    }

    /// The command that stores a secret which must not exist yet.
    ///
    /// # Errors
    /// Sealing failed.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<What> {
        let sealed = STANDARD.encode(self.seal.seal(plain, bound_to(name))?);
        Ok(What::PutSecret { name: name.to_owned(), sealed, replaces: 0, certificate: None })
    }

    /// The command that stores a new key and a certificate for it.
    ///
    /// # Errors
    /// The CA cannot be opened, or nothing can be signed or sealed.
    pub fn make_certificate(&self, need: &CertificateNeed) -> Result<What> {
        let (life, now) = (certificate_life(), self.clock.now_ms());
        let made = self.ca()?.issue_service(&need.service, &need.names, life, now)?;
        let sealed = STANDARD.encode(self.seal.seal(made.pem.expose().as_bytes(), bound_to(&need.secret))?);
        let note = CertificateNote {
            names: need.names.clone(),
            renew: Timestamp(made.renew),
            expires: Timestamp(made.expires),
        };
        let (name, replaces) = (need.secret.clone(), need.replaces);
        Ok(What::PutSecret { name, sealed, replaces, certificate: Some(note) })
    }

    /// The command that stores a new random password. Letters and digits only: it fits into URLs and quoted files.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn make_password(&self, name: &str) -> Result<What> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; PASSWORD_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(std::io::Error::other)?;
        let text = zeroize::Zeroizing::new(hex::encode(bytes.as_ref()));
        self.seal(name, text.as_bytes())
    }

    fn ca(&self) -> Result<Ca> {
        let key = self.open(&self.replica.state(), CA_KEY)?;
        let pem = String::from_utf8(key.expose().clone()).context("the CA's key is not text")?;
        Ok(Ca::from_pem(&self.ca_pem, &Secret::new(pem))?)
    }

    /// Signs a certificate; it is recorded in the log before it is handed out.
    ///
    /// # Errors
    /// The request is unusable, or the log does not take the record.
    pub async fn issue(&self, csr_pem: &str, identity: &Identity, actor: &str) -> Result<Issued> {
        let issued = self.ca()?.issue(csr_pem, identity, certificate_life(), self.clock.now_ms())?;
        let what = record(&issued.certificate);
        self.proposer.propose(&Command::from_actor(actor, None, what)).await?;
        Ok(issued)
    }

    /// Signs a certificate that is the same for all repetitions of a call: it has the call's own serial and, if `expires`
    /// tells when the first one ends, the same life. Does not record it.
    ///
    /// # Errors
    /// The request is unusable.
    pub fn sign_for_call(
        &self,
        csr_pem: &str,
        identity: &Identity,
        actor: &str,
        caller: &Caller,
        expires: Option<Timestamp>,
    ) -> Result<Issued> {
        let known = self.derived(&["certificate", actor, &caller.client, &caller.serial.to_string()]);
        let mut serial = [0; SERIAL_LEN];
        serial.copy_from_slice(&known.expose()[..SERIAL_LEN]);
        let life = certificate_life();
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let now_ms = expires.map_or_else(|| self.clock.now_ms(), |end| end.0.saturating_sub(life_ms));
        Ok(self.ca()?.issue_numbered(csr_pem, identity, life, now_ms, serial)?)
    }

    /// Bytes that only coordinators can compute, always the same for the same `parts`: a repeated call gets the same
    /// answer from every coordinator.
    #[must_use]
    pub fn derived(&self, parts: &[&str]) -> Secret<[u8; 32]> {
        let mut said = Sha256::new();
        for part in parts {
            said.update((part.len() as u64).to_be_bytes());
            said.update(part);
        }
        let keyed = Sha256::new().chain_update(self.seal.secret().expose()).chain_update(said.finalize());
        Secret::new(keyed.finalize().into())
    }

    /// The CA's digest, for tokens.
    ///
    /// # Errors
    /// The CA cannot be opened.
    pub fn ca_digest(&self) -> Result<muster_runtime::keys::CaDigest> {
        Ok(self.ca()?.digest().clone())
    }

    /// The time, milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    /// The point `span` from now.
    #[must_use]
    pub fn after(&self, span: Duration) -> Timestamp {
        Timestamp(self.clock.now_ms().saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What a sealed value is bound to, so that it cannot be put in the place of another secret. The next and the previous
/// value of a secret may become its present one.
pub(crate) fn bound_to(name: &str) -> &[u8] {
    name.split('@').next().unwrap_or(name).as_bytes()
}

/// The command that records a certificate: only what is recorded can be revoked.
#[must_use]
pub fn record(certificate: &PeerCertificate) -> What {
    What::RecordCertificate {
        serial: certificate.serial.clone(),
        subject: certificate.identity.uri(),
        key_digest: certificate.key.to_string(),
        expires: Timestamp(certificate.not_after.saturating_mul(1000)),
    }
}
