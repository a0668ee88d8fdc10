//! The one seam for sockets: nothing else listens or connects, so that a simulated network can take its place.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A TCP connection.
pub type Stream = tokio::net::TcpStream;

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener(tokio::net::TcpListener);

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is taken, not ours, or needs a privilege; the message names it.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => Ok(Self(listener)),
            Err(error) => Err(io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))),
        }
    }

    /// The address really listened on.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits for a connection. Dropping the future loses none.
    ///
    /// # Errors
    /// That of `accept(2)`; most are passing, see `server`.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        // Beats are small and must not wait for each other; a socket that is already dead fails later anyway.
        stream.set_nodelay(true).ok();
        Ok((stream, peer))
    }
}

/// Connects to `host:port`; every address the name resolves to is tried, each at most `deadline`.
///
/// # Errors
/// The last address' error, or `TimedOut`.
pub async fn connect(address: &str, deadline: Duration) -> io::Result<Stream> {
    let resolved =
        tokio::time::timeout(deadline, tokio::net::lookup_host(address)).await.map_err(timed_out)??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "name has no address");
    for candidate in resolved {
        match tokio::time::timeout(deadline, Stream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = timed_out(elapsed),
        }
    }
    Err(last)
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connects_to_a_listener_and_not_to_nobody() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (_client, server) = tokio::join!(connect(&address, Duration::from_secs(5)), listener.accept());
        server.unwrap();
        drop(listener);
        let error = connect(&address, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
