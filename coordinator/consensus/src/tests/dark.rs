//! A TCP stream that can stall in both directions without closing, like a host whose network is gone.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::transport::server::Connected;

pub struct Stream {
    inner: TcpStream,
    dark: watch::Receiver<bool>,
    /// Resolves when there is light again.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stream {
    pub fn new(inner: TcpStream, dark: watch::Receiver<bool>) -> Self {
        // Without it a small append may wait 40 ms for a delayed acknowledgement.
        inner.set_nodelay(true).unwrap();
        Self { inner, dark, waiting: None }
    }

    fn light(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            if !*self.dark.borrow() {
                return Poll::Ready(());
            }
            let mut dark = self.dark.clone();
            self.waiting = Some(Box::pin(async move {
                // The node is gone when its switch is: then nothing is held back any more.
                drop(dark.wait_for(|dark| !dark).await);
            }));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.light(cx));
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.light(cx));
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Connected for Stream {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}
