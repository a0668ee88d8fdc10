//! The listening side: accepts, shakes hands, keeps count, serves. Who may call what is decided in `access`.

mod connections;
mod stream;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

use connections::{Connections, Handshake};

use crate::access::{Access, AccessLayer};
use crate::audit::Refusal;
use crate::certificate::PeerCertificate;
use crate::net::{self, Listener};
use crate::rpc;
use crate::tasks::{OnError, TaskGroup};

pub use connections::Limits;
pub use stream::{Peer, ServerStream};

/// How often connections are looked through; revocation must cut a stream within two seconds.
const SWEEP: Duration = Duration::from_millis(500);
/// Wait after a failed accept: without it, lack of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long calls may go on after the group was cancelled, before their connections are closed.
const GRACE: Duration = Duration::from_secs(2);

/// Serves `routes` on `listener` behind the access table, as tasks of the group, until the group is cancelled.
pub fn start(
    tasks: &TaskGroup,
    listener: Listener,
    tls: Arc<ServerConfig>,
    access: Arc<Access>,
    limits: Limits,
    routes: Routes,
) {
    let connections = Connections::new(limits);
    let (sender, receiver) = mpsc::channel(16);
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(tls),
        access: Arc::clone(&access),
        connections: Arc::clone(&connections),
        ready: sender,
        tasks: tasks.clone(),
    };
    tasks.spawn("accept", OnError::Shutdown, acceptor.run(listener));
    tasks.spawn(
        "sweep",
        OnError::Shutdown,
        sweep(tasks.clone(), Arc::clone(&connections), Arc::clone(&access)),
    );
    let stop = tasks.token();
    let grpc = http2_builder()
        .layer(AccessLayer::new(access))
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(receiver), stop.clone().cancelled_owned());
    tasks.spawn("grpc", OnError::Shutdown, async move {
        let close = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
            connections.close_all();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            served = grpc => served,
            never = close => match never {},
        }
    });
}

fn http2_builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(rpc::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(rpc::KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(rpc::STREAMS_MAX)
        .initial_stream_window_size(rpc::WINDOWS.0)
        .initial_connection_window_size(rpc::WINDOWS.1)
        .http2_max_header_list_size(rpc::HEADERS_MAX)
        .http2_max_pending_accept_reset_streams(Some(20))
}

async fn sweep(
    tasks: TaskGroup,
    connections: Arc<Connections>,
    access: Arc<Access>,
) -> Result<(), Infallible> {
    let stop = tasks.token();
    let mut tick = tokio::time::interval(SWEEP);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        connections.sweep(access.revocations.as_ref(), now(&access));
    }
    Ok(())
}

fn now(access: &Access) -> (u64, Duration) {
    (access.clock.now_ms(), access.clock.monotonic())
}

/// The accept loop and what each of its handshakes needs.
#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    access: Arc<Access>,
    connections: Arc<Connections>,
    ready: mpsc::Sender<Result<ServerStream, Infallible>>,
    tasks: TaskGroup,
}

impl Acceptor {
    /// Never ends because of an accept error: file descriptors come back, the listener would not.
    async fn run(self, listener: Listener) -> Result<(), Infallible> {
        let stop = self.tasks.token();
        let mut failing = false;
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, address)) => {
                    failing = false;
                    self.start_handshake(stream, address);
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot accept connections, trying on");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    fn start_handshake(&self, stream: net::Stream, address: SocketAddr) {
        let Some(place) = self.connections.begin_handshake(address.ip()) else {
            tracing::debug!(%address, "too many handshakes, dropped");
            return;
        };
        let this = self.clone();
        self.tasks.spawn("handshake", OnError::Log, async move {
            let stop = this.tasks.token();
            stop.run_until_cancelled(this.handshake(stream, address, place)).await;
            Ok::<_, Infallible>(())
        });
    }

    async fn handshake(&self, stream: net::Stream, address: SocketAddr, place: Handshake) {
        let tls = match tokio::time::timeout(rpc::HANDSHAKE, self.tls.accept(stream)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return self.handshake_failed(address, &error),
            Err(_) => return tracing::debug!(%address, "handshake took too long"),
        };
        drop(place);
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // The verifier has read the same bytes before, so this cannot fail; if it does, nobody gets in.
        let certificate = match shown.map(|der| PeerCertificate::from_der(der)).transpose() {
            Ok(certificate) => certificate.map(Arc::new),
            Err(error) => return self.refuse(address, error.to_string()),
        };
        let peer = Peer { address, certificate };
        match self.connections.admit(&peer, now(&self.access)) {
            Ok(place) => {
                self.ready.send(Ok(ServerStream::new(tls, peer, place))).await.ok();
            }
            Err(reason) => tracing::warn!(%peer, reason, "connection dropped"),
        }
    }

    /// A certificate that is not believed is an attempt to note; a scanner or a lost line is not.
    fn handshake_failed(&self, address: SocketAddr, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_)) => {
                self.refuse(address, error.to_string());
            }
            _ => tracing::debug!(%address, %error, "handshake failed"),
        }
    }

    fn refuse(&self, address: SocketAddr, reason: String) {
        self.access.audit.refused(&Refusal { address, identity: None, method: None, reason });
    }
}
