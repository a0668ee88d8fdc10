//! The dialling side: a channel over any of several endpoints. It connects when needed and again when broken; which
//! endpoint is the leader is for its user to find out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::certificate::PeerCertificate;
use crate::keys::KeyDigest;
use crate::net;
use crate::rpc;

/// Longest handshake when there may be other endpoints to try.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Where coordinators listen (`host:port`), the one to try first at the front. Shared; may change at any time.
#[derive(Debug)]
pub struct Endpoints(ArcSwap<Vec<String>>);

impl Endpoints {
    /// These, in this order.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(addresses.into_iter().map(Into::into).collect())))
    }

    /// These instead, from the next connection on.
    pub fn replace(&self, addresses: impl IntoIterator<Item = impl Into<String>>) {
        self.0.store(Arc::new(addresses.into_iter().map(Into::into).collect()));
    }

    /// Moves an address to the front, for a leader hint. Addresses that are not in the list are ignored: hints come
    /// from outside.
    pub fn prefer(&self, address: &str) {
        self.0.rcu(|list| {
            let mut list = Vec::clone(list);
            if let Some(at) = list.iter().position(|known| known == address) {
                list[..=at].rotate_right(1);
            }
            list
        });
    }

    /// Moves an address to the end: connecting to it failed.
    fn demote(&self, address: &str) {
        self.0.rcu(|list| {
            let mut list = Vec::clone(list);
            if let Some(at) = list.iter().position(|known| known == address) {
                list[at..].rotate_left(1);
            }
            list
        });
    }

    /// The list as it is now.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<String>> {
        self.0.load_full()
    }
}

/// No endpoint could be reached; says why for each.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no coordinator can be reached: {}", .0.iter().map(|(a, e)| format!("{a}: {e}")).collect::<Vec<_>>().join("; "))]
pub struct Unreachable(Vec<(String, String)>);

/// A channel that connects to the first endpoint that answers, when first used and whenever the connection broke.
///
/// It puts no deadline on calls (sessions last): use `rpc::within`.
#[must_use]
pub fn channel(endpoints: Arc<Endpoints>, tls: Arc<ClientConfig>) -> Channel {
    settings().connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (endpoints, tls) = (Arc::clone(&endpoints), Arc::clone(&tls));
        async move { connect_any(&endpoints, &tls).await.map(|(stream, _)| TokioIo::new(stream)) }
    }))
}

/// A connected channel to one coordinator: nobody but the holder of this key will do, now and when it reconnects.
///
/// # Errors
/// It cannot be reached, or another one answers at its address.
pub async fn connect_to(
    address: &str,
    key: &KeyDigest,
    tls: Arc<ClientConfig>,
) -> Result<Channel, Unreachable> {
    let (to, key) = (address.to_owned(), key.clone());
    let connector = tower::service_fn(move |_: Uri| {
        let (to, key, tls) = (to.clone(), key.clone(), Arc::clone(&tls));
        async move {
            let (stream, certificate) = connect(&to, &tls).await?;
            if certificate.key != key {
                return Err(io::Error::other(format!("{} answers there", certificate.identity)));
            }
            Ok(TokioIo::new(stream))
        }
    });
    settings().connect_with_connector(connector).await.map_err(|error| {
        let mut deepest: &dyn std::error::Error = &error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        Unreachable(vec![(address.to_owned(), deepest.to_string())])
    })
}

fn settings() -> Endpoint {
    // The name is never resolved. The scheme is http because the connector does TLS itself.
    Endpoint::from_static("http://coordinator.muster")
        .http2_keep_alive_interval(rpc::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(rpc::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(rpc::WINDOWS.0)
        .initial_connection_window_size(rpc::WINDOWS.1)
        .http2_max_header_list_size(rpc::HEADERS_MAX)
}

/// Connects once and hangs up, to learn whether anybody is there and who.
///
/// # Errors
/// Nobody is, with the reason for each endpoint.
pub async fn probe(endpoints: &Endpoints, tls: &Arc<ClientConfig>) -> Result<PeerCertificate, Unreachable> {
    connect_any(endpoints, tls).await.map(|(_, certificate)| certificate)
}

async fn connect_any(
    endpoints: &Endpoints,
    tls: &Arc<ClientConfig>,
) -> Result<(TlsStream<net::Stream>, PeerCertificate), Unreachable> {
    let mut reasons = Vec::new();
    for address in endpoints.list().iter() {
        match connect(address, tls).await {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                tracing::debug!(address, %error, "cannot connect");
                endpoints.demote(address);
                reasons.push((address.clone(), error.to_string()));
            }
        }
    }
    Err(Unreachable(reasons))
}

async fn connect(
    address: &str,
    tls: &Arc<ClientConfig>,
) -> io::Result<(TlsStream<net::Stream>, PeerCertificate)> {
    let stream = net::connect(address, rpc::CONNECT).await?;
    let name = ServerName::try_from("coordinator.muster").map_err(io::Error::other)?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let stream = tokio::time::timeout(HANDSHAKE, handshake)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.ok_or_else(|| io::Error::other("server showed no certificate"))?;
    let certificate = PeerCertificate::from_der(leaf).map_err(io::Error::other)?;
    Ok((stream, certificate))
}

/// The reasons, if a call failed because no endpoint could be reached (exit code 6).
#[must_use]
pub fn unreachable(status: &Status) -> Option<&Unreachable> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<Unreachable>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_moves_a_known_address_to_the_front_and_no_other() {
        let endpoints = Endpoints::new(["a:1", "b:1", "c:1"]);
        endpoints.prefer("c:1");
        endpoints.prefer("evil:1");
        assert_eq!(*endpoints.list(), ["c:1", "a:1", "b:1"]);
        endpoints.demote("c:1");
        assert_eq!(*endpoints.list(), ["a:1", "b:1", "c:1"]);
    }
}
