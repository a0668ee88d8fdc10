//! TLS 1.3 with ring, nothing else: who is believed in a handshake. What they may then do is decided in `access`.

mod credentials;
mod trust;
mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use crate::clock::SharedClock;
use crate::keys::CaDigest;

pub use credentials::{Credentials, CredentialsError};
pub use trust::{PinnedKeys, Trust, TrustError};

const ALPN: &[u8] = b"h2";

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Everything about TLS that one process has: made once, its parts replaced while connections run.
#[derive(Debug)]
pub struct Tls {
    ours: Arc<Ours>,
    trust: Arc<Trust>,
    pins: Arc<PinnedKeys>,
    clock: SharedClock,
}

impl Tls {
    /// Without `credentials` we dial anonymously and cannot listen.
    #[must_use]
    pub fn new(
        credentials: Option<Credentials>,
        trust: Arc<Trust>,
        pins: Arc<PinnedKeys>,
        clock: SharedClock,
    ) -> Self {
        let ours = Arc::new(Ours(ArcSwapOption::from(credentials.map(Arc::new))));
        Self { ours, trust, pins, clock }
    }

    /// Shows another certificate from the next handshake on; open connections stay.
    pub fn rotate(&self, credentials: Credentials) {
        self.ours.0.store(Some(Arc::new(credentials)));
    }

    /// Whom we believe.
    #[must_use]
    pub const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Keys whose expired certificates are forgiven.
    #[must_use]
    pub const fn pins(&self) -> &Arc<PinnedKeys> {
        &self.pins
    }

    /// What we show at the moment.
    #[must_use]
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.ours.0.load_full()
    }

    /// For the listening side. Follows [`Self::rotate`] and changes of trust by itself.
    ///
    /// # Errors
    /// TLS 1.3 is not available in the provider (a broken build).
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(Arc::new(provider()), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verify::ClientVerifier(Arc::clone(&self.trust))))
            .with_cert_resolver(Arc::clone(&self.ours) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the certificate check.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// For the dialling side. Follows [`Self::rotate`] and changes of trust by itself.
    ///
    /// # Errors
    /// TLS 1.3 is not available in the provider (a broken build).
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier =
            verify::ServerVerifier { trust: Arc::clone(&self.trust), pins: Arc::clone(&self.pins) };
        let config = ClientConfig::builder_with_details(Arc::new(provider()), self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.ours) as Arc<dyn ResolvesClientCert>);
        Ok(finish(config))
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(Time(Arc::clone(&self.clock)))
    }
}

/// For a joiner: anonymous, and believing only the CA that its token pins.
///
/// # Errors
/// TLS 1.3 is not available in the provider (a broken build).
pub fn join_config(ca: CaDigest, clock: SharedClock) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_details(Arc::new(provider()), Arc::new(Time(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::JoinVerifier(ca)))
        .with_no_client_auth();
    Ok(finish(config))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // Servers are known by role and key, never by host name: none is sent.
    config.enable_sni = false;
    Arc::new(config)
}

#[derive(Debug)]
struct Ours(ArcSwapOption<Credentials>);

impl Ours {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|credentials| Arc::clone(&credentials.certified))
    }
}

impl ResolvesServerCert for Ours {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Ours {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

#[derive(Debug)]
struct Time(SharedClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now_ms())))
    }
}
