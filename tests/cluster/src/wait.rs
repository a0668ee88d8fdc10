//! Waiting with a limit. The limits are generous: these tests share two cores with builds.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for something that usually takes a second.
pub const SOON: Duration = Duration::from_secs(30);

/// Tries until there is a value.
///
/// # Panics
/// There was none in time; says what the last attempt saw.
pub async fn until<T, E: std::fmt::Debug>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + SOON;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(saw) => assert!(Instant::now() < end, "{what}: not within {SOON:?}; at last: {saw:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a whole test with a limit.
///
/// # Panics
/// It took too long.
pub async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test took too long");
}
