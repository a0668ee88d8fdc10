//! The platform's own certificate authority: what it signs, for whom, for how long. It asks nobody who may join.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use muster_model::ids::Name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use time::OffsetDateTime;

use crate::certificate::{self, CertificateError, PeerCertificate};
use crate::identity::{Identity, Role};
use crate::keys::{CaDigest, KeyDigest, KeyError, NodeKey, Sha256Hex};
use crate::secret::Secret;
use crate::state_dir::{self, StateError};

/// Life of a leaf certificate unless configured otherwise.
pub const LEAF_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far in the past a certificate starts, for hosts whose clock is late.
pub const BACKDATED: Duration = Duration::from_secs(3600);
const CA_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Largest signing request in bytes; ours have about 500.
const CSR_MAX: usize = 4 * 1024;
/// Bytes of a certificate's serial.
pub const SERIAL_LEN: usize = 16;
const CERT_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The request is malformed, or its signature is wrong: the sender does not hold the key.
    #[error("signing request refused: {0}")]
    Request(String),
    /// The CA's own files.
    #[error(transparent)]
    State(#[from] StateError),
    /// The CA's own key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The CA's own certificate.
    #[error("CA certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
    /// Beyond what a certificate can say.
    #[error("time out of range")]
    Time,
}

/// A certificate just signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// To be given to its owner.
    pub pem: String,
    /// What it says; its serial belongs into the replicated state.
    pub certificate: PeerCertificate,
}

/// What a service shows to its clients: a private key and its certificate.
pub struct ServiceCertificate {
    /// The key as PKCS#8 PEM and, after it, the certificate as PEM.
    pub pem: Secret<String>,
    /// When to make the next one, unix milliseconds.
    pub renew: u64,
    /// Until when it is good, unix milliseconds.
    pub expires: u64,
}

/// The CA: its certificate is public, its key is the platform's crown jewel.
pub struct Ca {
    pem: String,
    digest: CaDigest,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a CA that signs itself, valid for ten years.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn create(platform: &Name, now_ms: u64) -> Result<Self, CaError> {
        let key = NodeKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("muster CA {platform}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(positive(random_serial()?));
        (params.not_before, params.not_after) = validity(now_ms, CA_LIFE)?;
        let pair = key.into_pair();
        let pem = params.self_signed(&pair)?.pem();
        Self::new(pem, pair)
    }

    /// Puts a CA together from its two parts.
    ///
    /// # Errors
    /// One of them is malformed, or they do not belong together.
    pub fn from_pem(certificate: &str, key: &Secret<String>) -> Result<Self, CaError> {
        Self::new(certificate.to_owned(), NodeKey::from_pem(key.expose())?.into_pair())
    }

    fn new(pem: String, pair: KeyPair) -> Result<Self, CaError> {
        use rcgen::PublicKeyData;
        use x509_parser::prelude::{FromDer, X509Certificate};
        let der = certificate::der_from_pem(&pem)?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(CertificateError::Malformed("its key is another one".to_owned()).into());
        }
        Ok(Self { digest: Sha256Hex::of(&der), issuer: Issuer::from_ca_cert_der(&der, pair)?, pem })
    }

    /// Writes `ca.pem` and `ca.key` (0600) into a directory.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn store(&self, dir: &Path) -> Result<(), CaError> {
        state_dir::create_private_dir(dir)?;
        state_dir::write_atomic(&dir.join(KEY_FILE), self.key_pem().expose().as_bytes(), state_dir::PRIVATE)?;
        Ok(state_dir::write_atomic(&dir.join(CERT_FILE), self.pem.as_bytes(), 0o644)?)
    }

    /// Reads what [`Self::store`] wrote.
    ///
    /// # Errors
    /// A file is missing, exposed or malformed.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let pem = state_dir::read_text(&dir.join(CERT_FILE))?;
        let key = NodeKey::load(&dir.join(KEY_FILE))?;
        Self::new(pem, key.into_pair())
    }

    /// The certificate, for everybody.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key, for another coordinator only.
    #[must_use]
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// What join tokens pin.
    #[must_use]
    pub const fn digest(&self) -> &CaDigest {
        &self.digest
    }

    /// Signs a certificate for the key of a signing request (PEM). Everything but the key comes from `identity`.
    ///
    /// # Errors
    /// The request is malformed, not for a P-256 key, or not signed by that key.
    pub fn issue(
        &self,
        csr: &str,
        identity: &Identity,
        life: Duration,
        now_ms: u64,
    ) -> Result<Issued, CaError> {
        self.issue_numbered(csr, identity, life, now_ms, random_serial()?)
    }

    /// The same with a serial of the caller's: who signs the same again, as of the same time, gets a certificate that
    /// says the same. `serial` must be as good as random, and be used for one certificate only.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_numbered(
        &self,
        csr: &str,
        identity: &Identity,
        life: Duration,
        now_ms: u64,
        serial: [u8; SERIAL_LEN],
    ) -> Result<Issued, CaError> {
        if csr.len() > CSR_MAX {
            return Err(CaError::Request(format!("longer than {CSR_MAX} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|error| CaError::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Request("its key is not ECDSA P-256".to_owned()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(identity.name.as_str());
        params.subject_alt_names = vec![SanType::URI(identity.uri().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(identity.role);
        params.serial_number = Some(positive(serial));
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now_ms, life)?;
        let signed = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(Issued { certificate: PeerCertificate::from_der(signed.der())?, pem: signed.pem() })
    }
}

impl Ca {
    /// Makes a key, and signs a certificate by which clients recognise a service under these names and addresses. It is no
    /// identity on the platform: it names nobody's role, and serves servers only.
    ///
    /// # Errors
    /// One of the names is none, or the system has no randomness.
    pub fn issue_service(
        &self,
        service: &Name,
        names: &BTreeSet<String>,
        life: Duration,
        now_ms: u64,
    ) -> Result<ServiceCertificate, CaError> {
        let key = NodeKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(service.as_str());
        let san = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        };
        params.subject_alt_names = names.iter().map(san).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(positive(random_serial()?));
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now_ms, life)?;
        let key_pem = key.pem();
        let signed = params.signed_by(&key.into_pair(), &self.issuer)?;
        let life_ms = u64::try_from(life.as_millis()).map_err(|_| CaError::Time)?;
        Ok(ServiceCertificate {
            pem: Secret::new([key_pem.expose().as_str(), signed.pem().as_str()].concat()),
            renew: now_ms.saturating_add(life_ms / 3),
            expires: now_ms.saturating_add(life_ms),
        })
    }
}

/// Digest of the key that a signing request (PEM) is for. Proves nothing: the signature is checked when it is issued.
///
/// # Errors
/// The request is malformed or too long.
pub fn request_key(csr: &str) -> Result<KeyDigest, CaError> {
    use rcgen::PublicKeyData;
    if csr.len() > CSR_MAX {
        return Err(CaError::Request(format!("longer than {CSR_MAX} bytes")));
    }
    let request = CertificateSigningRequestParams::from_pem(csr);
    let request = request.map_err(|error| CaError::Request(error.to_string()))?;
    Ok(Sha256Hex::of(&request.public_key.subject_public_key_info()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Only coordinators listen.
fn usages(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Coordinator => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Role::Agent | Role::Admin | Role::Operator | Role::Viewer => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
    }
}

fn validity(now_ms: u64, life: Duration) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
    let now = i64::try_from(now_ms / 1000).map_err(|_| CaError::Time)?;
    let now = OffsetDateTime::from_unix_timestamp(now).map_err(|_| CaError::Time)?;
    let before = now.checked_sub(BACKDATED.try_into().map_err(|_| CaError::Time)?).ok_or(CaError::Time)?;
    let after = now.checked_add(life.try_into().map_err(|_| CaError::Time)?).ok_or(CaError::Time)?;
    Ok((before, after))
}

fn random_serial() -> Result<[u8; SERIAL_LEN], CaError> {
    let mut bytes = [0_u8; SERIAL_LEN];
    getrandom::fill(&mut bytes).map_err(|_| CaError::Signing(rcgen::Error::RingUnspecified))?;
    Ok(bytes)
}

/// Positive and without leading zero, so that its text is the same however it is read.
fn positive(mut bytes: [u8; SERIAL_LEN]) -> SerialNumber {
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn agent() -> Identity {
        Identity { platform: name("shop"), role: Role::Agent, id: name("h1"), name: name("first") }
    }

    #[test]
    fn a_leaf_says_what_the_ca_decided_and_nothing_the_request_asked_for() {
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        let key = NodeKey::generate().unwrap();
        // The request asks for another name.
        let issued =
            ca.issue(&key.csr(&name("admin")).unwrap(), &agent(), Duration::from_secs(9), NOW).unwrap();
        let cert = &issued.certificate;
        assert_eq!((&cert.identity, &cert.key), (&agent(), &key.digest()));
        assert_eq!((cert.not_before, cert.not_after), (NOW / 1000 - 3600, NOW / 1000 + 9));
        assert_eq!((cert.usage.server, cert.usage.client), (false, true));
        assert_eq!(cert.renew_at_ms(), NOW + 3000);
        assert!(!cert.expired(NOW + 9_999) && cert.expired(NOW + 10_000));
        assert_eq!(PeerCertificate::from_pem(&issued.pem).unwrap(), *cert);
    }

    #[test]
    fn a_services_certificate_is_for_its_names_and_is_no_identity() {
        use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        let names = ["orders", "orders-1", "172.31.10.5"].map(str::to_owned).into();
        let made = ca.issue_service(&name("orders"), &names, Duration::from_secs(9), NOW).unwrap();
        assert_eq!((made.renew, made.expires), (NOW + 3_000, NOW + 9_000));
        let key = NodeKey::from_pem(made.pem.expose()).unwrap();
        let der = certificate::der_from_pem(made.pem.expose()).unwrap();
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(Sha256Hex::of(cert.public_key().raw), key.digest());
        let san = cert.subject_alternative_name().unwrap().unwrap().value;
        let ip = |name: &GeneralName<'_>| matches!(name, GeneralName::IPAddress([172, 31, 10, 5]));
        assert!(san.general_names.iter().any(ip));
        assert!(san.general_names.contains(&GeneralName::DNSName("orders-1")));
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !cert.is_ca());
        // Nobody of the platform takes it for one of its own.
        assert!(PeerCertificate::from_pem(made.pem.expose()).is_err());
        assert!(ca.issue_service(&name("orders"), &["ö".to_owned()].into(), LEAF_LIFE, NOW).is_err());
    }

    #[test]
    fn serials_differ() {
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        let csr = NodeKey::generate().unwrap().csr(&name("x")).unwrap();
        let mut serials: Vec<_> =
            (0..8).map(|_| ca.issue(&csr, &agent(), LEAF_LIFE, NOW).unwrap().certificate.serial).collect();
        serials.sort();
        serials.dedup();
        assert_eq!(serials.len(), 8);
        assert!(serials.iter().all(|serial| serial.len() == 32));
    }

    #[test]
    fn the_same_serial_as_of_the_same_time_says_the_same() {
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        let csr = NodeKey::generate().unwrap().csr(&name("x")).unwrap();
        let life = Duration::from_secs(60);
        let issue =
            |now| ca.issue_numbered(&csr, &agent(), life, now, [0xff; SERIAL_LEN]).unwrap().certificate;
        assert_eq!(issue(NOW), issue(NOW));
        assert_eq!(issue(NOW).serial, format!("7f{}", "ff".repeat(SERIAL_LEN - 1)));
        assert_ne!(issue(NOW), issue(NOW + 1_000));
    }

    #[test]
    fn a_request_not_signed_by_its_key_is_refused() {
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        let refused = |csr: &str| matches!(ca.issue(csr, &agent(), LEAF_LIFE, NOW), Err(CaError::Request(_)));
        let csr = NodeKey::generate().unwrap().csr(&name("x")).unwrap();
        assert!(!refused(&csr));
        // One letter of the signature, which is at the end.
        let end = csr.find("-----END").unwrap() - 10;
        let at = csr[..end].rfind(|c: char| c.is_ascii_lowercase()).unwrap();
        let other = if &csr[at..=at] == "a" { "b" } else { "a" };
        assert!(refused(&[&csr[..at], other, &csr[at + 1..]].concat()));
        assert!(refused("x") && refused("") && refused(&csr.repeat(20)));
    }

    #[test]
    fn stored_and_loaded_it_is_the_same_ca() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        ca.store(&dir.path().join("ca")).unwrap();
        assert_eq!(Ca::load(&dir.path().join("ca")).unwrap().digest(), ca.digest());
        let other = Ca::create(&name("shop"), NOW).unwrap();
        assert!(Ca::from_pem(ca.pem(), &other.key_pem()).is_err());
    }
}
