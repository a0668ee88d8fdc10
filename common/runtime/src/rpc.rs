//! Limits and deadlines of every RPC. Numbers only, and the one way to put a deadline on a call.

use std::future::Future;
use std::time::Duration;

use tonic::Status;

/// Largest message in bytes, both directions. Set it on every generated client and server.
pub const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Largest spec file in bytes, checked before it is parsed.
pub const SPEC_MAX: usize = 256 * 1024;
/// Longest wait for a TCP connection to one address.
pub const CONNECT: Duration = Duration::from_millis(1500);
/// Longest TLS handshake, on both sides.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// Default deadline of a call that does one thing.
pub const CALL: Duration = Duration::from_secs(10);
/// HTTP/2 ping interval. It only clears dead connections away; *suspect* is decided from beats.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for the answer to an HTTP/2 ping.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Streams that one connection may have open.
pub const STREAMS_MAX: u32 = 100;
/// HTTP/2 flow control windows in bytes: per stream, per connection.
pub const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);
/// Largest header list of a request in bytes.
pub const HEADERS_MAX: u32 = 16 * 1024;

/// Waits for `call` at most `deadline`.
///
/// # Errors
/// The call's own status, or `DEADLINE_EXCEEDED`. After that its outcome is unknown.
pub async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {deadline:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_without_answer_ends_at_its_deadline() {
        let never = std::future::pending::<Result<(), Status>>();
        let status = within(Duration::from_millis(10), never).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }
}
