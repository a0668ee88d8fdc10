//! Clients that write one after another for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use crate::side::{Side, Writer};

/// Before anything is counted: connections, caches.
const WARM_UP: Duration = Duration::from_secs(1);

/// What a load saw.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Acknowledged writes a second.
    pub per_second: f64,
    /// Median time of a write, in milliseconds.
    pub p50_ms: f64,
    /// Time within which 99 of 100 were acknowledged, in milliseconds.
    pub p99_ms: f64,
}

/// So many clients at the leader, each with a connection of its own.
///
/// # Errors
/// A write fails: then nothing is compared.
pub async fn load<S: Side>(side: &S, clients: usize, span: Duration) -> Result<Sample> {
    let leader = side.leader().await?;
    let mut tasks = JoinSet::new();
    let begin = Instant::now() + WARM_UP;
    for _ in 0..clients {
        let writer = side.writer(leader).await?;
        tasks.spawn(write_until(writer, begin, begin + span));
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    ensure!(times.len() > 100, "{}: {} writes are too few", side.name(), times.len());
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1_000.0;
    Ok(Sample { per_second: times.len() as f64 / span.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) })
}

async fn write_until(mut writer: impl Writer, begin: Instant, end: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while Instant::now() < end {
        let from = Instant::now();
        writer.write().await?;
        if from >= begin {
            times.push(from.elapsed());
        }
    }
    Ok(times)
}
