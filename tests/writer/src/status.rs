//! What a running writer says of itself, over HTTP: numbers, and whether writes are steady. Judges no failover.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::time::Clock;

/// Longer without an acknowledged write is a gap.
pub const GAP_MS: u64 = 500;
/// Acknowledged for so long without a gap is steady.
const STEADY_MS: u64 = 3_000;
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Default)]
struct Numbers {
    acked: u64,
    unknown: u64,
    first_ack_since_gap: Option<u64>,
    last_ack: Option<u64>,
    last_gap_ms: u64,
}

/// The numbers of a running writer.
pub struct Status {
    clock: Clock,
    numbers: Mutex<Numbers>,
}

impl Status {
    pub fn new() -> Self {
        Self { clock: Clock::start(), numbers: Mutex::default() }
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts one answered row.
    pub fn count(&self, acked: bool, at: u64) {
        let mut numbers = self.numbers();
        if !acked {
            numbers.unknown += 1;
            return;
        }
        numbers.acked += 1;
        let since = numbers.last_ack.map(|last| at.saturating_sub(last));
        if since.is_none_or(|since| since > GAP_MS) {
            numbers.last_gap_ms = since.unwrap_or(0);
            numbers.first_ack_since_gap = Some(at);
        }
        numbers.last_ack = Some(at);
    }

    fn json(&self, now: u64) -> String {
        let numbers = self.numbers().clone();
        let fresh = numbers.last_ack.is_some_and(|last| now.saturating_sub(last) <= GAP_MS);
        let long = numbers.first_ack_since_gap.is_some_and(|first| now.saturating_sub(first) >= STEADY_MS);
        json!({
            "acked": numbers.acked,
            "unknown": numbers.unknown,
            "last_ack_ms": numbers.last_ack,
            "last_gap_ms": numbers.last_gap_ms,
            "steady": fresh && long,
        })
        .to_string()
    }

    /// Answers every request with the numbers, one after the other, each within half a second.
    pub async fn serve(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(timeout(REQUEST_TIMEOUT, self.answer(stream)).await),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = [0; 1024];
        let mut filled = 0;
        while filled < request.len() {
            let read = stream.read(&mut request[filled..]).await?;
            filled += read;
            if read == 0 || request[..filled].windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
        let (code, body) = if request.starts_with(b"GET /status ") {
            ("200 OK", self.json(self.now_ms()))
        } else {
            ("404 Not Found", "{}".to_owned())
        };
        let head = format!(
            "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(status: &Status, now: u64) -> bool {
        let value: serde_json::Value = serde_json::from_str(&status.json(now)).unwrap();
        value["steady"].as_bool().unwrap()
    }

    #[test]
    fn steady_is_three_seconds_without_a_gap() {
        let status = Status::new();
        (0..40).for_each(|n| status.count(true, 1_000 + n * 100));
        assert!(!steady(&status, 3_900) && steady(&status, 4_900));
        assert!(!steady(&status, 5_500), "nothing for 600 ms");
        status.count(true, 5_600);
        assert!(!steady(&status, 5_700), "a gap was just over");
        status.count(false, 5_650);
        assert!(status.json(5_700).contains("\"unknown\":1"));
    }

    #[tokio::test]
    async fn it_is_served_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Status::new();
        let ask = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::select! {
            () = status.serve(&listener) => unreachable!("it serves for ever"),
            answer = ask => assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"acked\":0"), "{answer}"),
        }
    }
}
