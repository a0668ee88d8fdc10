//! What a certificate says, read once. It does not decide whether to believe it: `tls` does.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::identity::{Identity, IdentityError};
use crate::keys::{KeyDigest, Sha256Hex};

/// Largest certificate in bytes; ours have about 600.
const DER_MAX: usize = 8 * 1024;

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// It does not say who it is for.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It has no extended key usage, so it could be used for anything.
    #[error("certificate does not say what it is for (extended key usage)")]
    NoUsage,
}

/// The facts in a leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who it is for.
    pub identity: Identity,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// Digest of the public key.
    pub key: KeyDigest,
    /// First second of validity, unix seconds.
    pub not_before: u64,
    /// Last second of validity, unix seconds.
    pub not_after: u64,
    /// Its extended key usage.
    pub usage: Usage,
}

/// Which side of a connection a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The listening side.
    pub server: bool,
    /// The dialling side.
    pub client: bool,
}

impl PeerCertificate {
    /// Reads a leaf certificate.
    ///
    /// # Errors
    /// It is malformed, or does not carry exactly one identity.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |reason: String| CertificateError::Malformed(reason);
        if der.len() > DER_MAX {
            return Err(malformed(format!("longer than {DER_MAX} bytes")));
        }
        let (rest, cert) = X509Certificate::from_der(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after its end".to_owned()));
        }
        let usage = cert.extended_key_usage().map_err(|e| malformed(e.to_string()))?;
        let usage = usage.ok_or(CertificateError::NoUsage)?.value;
        Ok(Self {
            identity: identity(&cert)?,
            serial: hex::encode(cert.raw_serial()),
            key: Sha256Hex::of(cert.public_key().raw),
            not_before: seconds(cert.validity().not_before.timestamp()),
            not_after: seconds(cert.validity().not_after.timestamp()),
            usage: Usage { server: usage.server_auth, client: usage.client_auth },
        })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// As [`Self::from_der`].
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        Self::from_der(&der_from_pem(pem)?)
    }

    /// Whether it has run out at `now_ms` (unix milliseconds).
    #[must_use]
    pub const fn expired(&self, now_ms: u64) -> bool {
        now_ms / 1000 > self.not_after
    }

    /// When to renew it, unix milliseconds: after a third of the life that was left when it was issued.
    #[must_use]
    pub fn renew_at_ms(&self) -> u64 {
        let issued = self.not_before + crate::ca::BACKDATED.as_secs();
        (issued * 1000).saturating_add(self.not_after.saturating_sub(issued) * 1000 / 3)
    }
}

/// Takes the first certificate out of a PEM text.
pub(crate) fn der_from_pem(pem: &str) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| CertificateError::Malformed(e.to_string()))
}

fn identity(cert: &X509Certificate<'_>) -> Result<Identity, CertificateError> {
    let malformed = |e: x509_parser::error::X509Error| CertificateError::Malformed(e.to_string());
    let san = cert.subject_alternative_name().map_err(malformed)?.ok_or(IdentityError::Missing)?;
    let [GeneralName::URI(uri)] = san.value.general_names.as_slice() else {
        return Err(match san.value.general_names.len() {
            0 | 1 => IdentityError::Missing.into(),
            many => IdentityError::NotOne(many).into(),
        });
    };
    let mut names = cert.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(CertificateError::Malformed("not exactly one common name".to_owned()));
    };
    Ok(Identity::from_uri(uri, name.as_str().map_err(malformed)?)?)
}

/// A time before 1970 counts as 1970.
fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or_default()
}
