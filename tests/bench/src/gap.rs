//! The leader killed: how long until the next write is acknowledged, for a client at another member.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{sleep, timeout};

use crate::side::{MEMBERS, Side, Writer as _};

/// A call that takes longer is given up and made again.
const CALL: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(5);
/// Longest gap that is waited for.
const LONGEST: Duration = Duration::from_secs(60);
/// Writes before the leader is killed.
const BEFORE: usize = 50;
/// After the killed one is back: until it follows again.
const REST: Duration = Duration::from_secs(3);

/// In milliseconds.
///
/// # Errors
/// Writes fail before the kill, or do not come back.
pub async fn gap<S: Side>(side: &mut S) -> Result<f64> {
    let leader = side.leader().await?;
    let mut writer = side.writer((leader + 1) % MEMBERS).await?;
    for _ in 0..BEFORE {
        timeout(CALL * 10, writer.write()).await.context("before the kill")??;
    }
    side.kill(leader).await?;
    let killed = Instant::now();
    while !matches!(timeout(CALL, writer.write()).await, Ok(Ok(()))) {
        ensure!(killed.elapsed() < LONGEST, "{}: no write for {LONGEST:?}", side.name());
        sleep(PAUSE).await;
    }
    let gap = killed.elapsed();
    side.start(leader)?;
    sleep(REST).await;
    Ok(gap.as_secs_f64() * 1_000.0)
}
