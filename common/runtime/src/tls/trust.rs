//! Whom we believe: which CAs may sign, and which keys are known well enough to forgive an expired certificate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use muster_model::ids::Name;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{Error, RootCertStore};

use crate::certificate::{self, CertificateError, PeerCertificate};
use crate::keys::KeyDigest;

use super::provider;

/// Why a set of CAs cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A CA certificate cannot be read.
    #[error("CA: {0}")]
    Certificate(#[from] CertificateError),
    /// A CA certificate is not acceptable to the verifier.
    #[error("CA: {0}")]
    Refused(String),
}

/// The CAs of one platform. May be replaced while connections run.
#[derive(Debug)]
pub struct Trust {
    platform: Name,
    cas: ArcSwap<CaSet>,
}

#[derive(Debug)]
struct CaSet {
    roots: RootCertStore,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// Trusts these CA certificates (PEM, one each) for identities of this platform.
    ///
    /// # Errors
    /// There is none, or one is malformed.
    pub fn new<P: AsRef<str>>(platform: Name, ca_pems: &[P]) -> Result<Self, TrustError> {
        Ok(Self { platform, cas: ArcSwap::from_pointee(CaSet::new(ca_pems)?) })
    }

    /// Trusts these from the next handshake on; during a change of CA, the old and the new.
    ///
    /// # Errors
    /// As [`Self::new`]; then nothing changes.
    pub fn replace<P: AsRef<str>>(&self, ca_pems: &[P]) -> Result<(), TrustError> {
        self.cas.store(Arc::new(CaSet::new(ca_pems)?));
        Ok(())
    }

    /// Checks everything about a client's certificate except that it may have expired.
    pub(super) fn check_client(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let facts = self.facts(leaf)?;
        self.cas.load().clients.verify_client_cert(leaf, &[], unexpired(&facts, now)).map(drop)
    }

    /// Checks everything about a server's certificate: it must be a coordinator's. It may have expired only if
    /// its key is pinned.
    pub(super) fn check_server(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
        pins: &PinnedKeys,
    ) -> Result<(), Error> {
        let facts = self.facts(leaf)?;
        let at = if pins.contains(&facts.key) { unexpired(&facts, now) } else { now };
        check_coordinator(leaf, &facts, &self.cas.load().roots, at)
    }

    fn facts(&self, leaf: &CertificateDer<'_>) -> Result<PeerCertificate, Error> {
        let facts = PeerCertificate::from_der(leaf).map_err(refused)?;
        if facts.identity.platform != self.platform {
            return Err(refused(format!(
                "certificate of platform {} instead of {}",
                facts.identity.platform, self.platform
            )));
        }
        Ok(facts)
    }
}

impl CaSet {
    fn new<P: AsRef<str>>(pems: &[P]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for pem in pems {
            let der = certificate::der_from_pem(pem.as_ref())?;
            roots.add(der).map_err(|e| TrustError::Refused(e.to_string()))?;
        }
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::new(provider()))
                .build()
                .map_err(|e| TrustError::Refused(e.to_string()))?;
        Ok(Self { roots, clients })
    }
}

/// Checks a server's certificate against given roots at a given time; used with the platform's CAs, and by a joiner
/// with the one CA that its token pins.
pub(super) fn check_coordinator(
    leaf: &CertificateDer<'_>,
    facts: &PeerCertificate,
    roots: &RootCertStore,
    at: UnixTime,
) -> Result<(), Error> {
    if facts.identity.role != crate::identity::Role::Coordinator {
        return Err(refused(format!("server is {} and not a coordinator", facts.identity)));
    }
    let parsed = ParsedCertificate::try_from(leaf)?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        roots,
        &[],
        at,
        provider().signature_verification_algorithms.all,
    )
}

/// The time at which to verify so that expiry alone is forgiven: `now`, but not after the certificate's end.
fn unexpired(facts: &PeerCertificate, now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().min(facts.not_after)))
}

pub(super) fn refused(reason: impl ToString) -> Error {
    Error::General(reason.to_string())
}

/// Digests of the coordinators' public keys: a platform that was off for months starts again by them.
#[derive(Debug, Default)]
pub struct PinnedKeys(ArcSwap<BTreeSet<KeyDigest>>);

impl PinnedKeys {
    /// Pins these.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = KeyDigest>) -> Self {
        Self(ArcSwap::from_pointee(keys.into_iter().collect()))
    }

    /// Pins these instead, from the next handshake or call on.
    pub fn replace(&self, keys: impl IntoIterator<Item = KeyDigest>) {
        self.0.store(Arc::new(keys.into_iter().collect()));
    }

    /// Whether a key is pinned.
    #[must_use]
    pub fn contains(&self, key: &KeyDigest) -> bool {
        self.0.load().contains(key)
    }
}
