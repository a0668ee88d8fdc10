//! What we show to others: our certificate, our key, and the CA that a joiner checks against its token.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::certificate::{self, CertificateError, PeerCertificate};
use crate::keys::{KeyError, NodeKey};

/// Why a certificate cannot be used as ours.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is for another key.
    #[error("certificate of {0} is for another key than ours")]
    OtherKey(String),
}

/// A certificate of ours with its key, ready for handshakes.
#[derive(Clone)]
pub struct Credentials {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) certificate: Arc<PeerCertificate>,
}

impl Credentials {
    /// Puts a certificate, its key and the CA that signed it together (all PEM).
    ///
    /// # Errors
    /// One of them is malformed, or the certificate is for another key.
    pub fn new(key: &NodeKey, certificate_pem: &str, ca_pem: &str) -> Result<Self, CredentialsError> {
        let leaf = certificate::der_from_pem(certificate_pem)?;
        let certificate = PeerCertificate::from_der(&leaf)?;
        if certificate.key != key.digest() {
            return Err(CredentialsError::OtherKey(certificate.identity.to_string()));
        }
        let chain = vec![leaf, certificate::der_from_pem(ca_pem)?];
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, key.tls_key()?)),
            certificate: Arc::new(certificate),
        })
    }

    /// What our certificate says.
    #[must_use]
    pub fn certificate(&self) -> &PeerCertificate {
        &self.certificate
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.certificate.identity)
    }
}
