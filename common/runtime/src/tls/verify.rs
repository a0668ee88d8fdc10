//! The glue between rustls and `trust`: three verifiers, none of which decides anything of its own.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::certificate::PeerCertificate;
use crate::keys::{CaDigest, Sha256Hex};

use super::provider;
use super::trust::{PinnedKeys, Trust, check_coordinator, refused};

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(refused("TLS 1.2 is not spoken here"))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, signature, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

/// Lets in clients without certificate, and clients whose certificate has no other fault than being expired.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub Arc<Trust>);

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.check_client(leaf, now).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

/// Believes coordinators of the platform.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub trust: Arc<Trust>,
    pub pins: Arc<PinnedKeys>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trust.check_server(leaf, now, &self.pins).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

/// Believes a coordinator of whatever platform has the CA that the join token pins.
#[derive(Debug)]
pub(super) struct JoinVerifier(pub CaDigest);

impl ServerCertVerifier for JoinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = chain
            .iter()
            .find(|der| Sha256Hex::of(der) == self.0)
            .ok_or_else(|| refused("server belongs to another platform than the join token"))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let facts = PeerCertificate::from_der(leaf).map_err(refused)?;
        check_coordinator(leaf, &facts, &roots, now).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}
