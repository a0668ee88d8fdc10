//! A connection as tonic sees it: bytes, who is at the other end, and an end that we can put to it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::connections::Place;
use crate::certificate::PeerCertificate;
use crate::net;

/// Who is at the other end. In the extensions of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where they come from.
    pub address: SocketAddr,
    /// What they showed, signed by our CA but possibly expired or revoked; none if they are anonymous.
    pub certificate: Option<Arc<PeerCertificate>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.certificate {
            Some(certificate) => write!(f, "{} at {}", certificate.identity, self.address),
            None => write!(f, "anonymous at {}", self.address),
        }
    }
}

/// A connection after its handshake.
pub struct ServerStream {
    tls: TlsStream<net::Stream>,
    peer: Peer,
    place: Place,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ServerStream {
    pub(super) fn new(tls: TlsStream<net::Stream>, peer: Peer, place: Place) -> Self {
        let closed = Box::pin(place.close.clone().cancelled_owned());
        Self { tls, peer, place, closed }
    }

    fn check_open(&self) -> io::Result<()> {
        if self.place.close.is_cancelled() { Err(closed()) } else { Ok(()) }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "closed by the server")
}

impl Connected for ServerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always reads, so the reader is who wakes up when the connection must go.
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_open()?;
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open()?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open()?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
