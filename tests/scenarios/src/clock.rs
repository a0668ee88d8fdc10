//! Steps with their time, one line each, and waiting with a deadline.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Milliseconds since 1970, as every log here has them.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Does one step and prints a line with its time.
///
/// # Errors
/// The step's own, after its line.
pub fn step<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("  {what:<58} ");
    std::io::stdout().flush().ok();
    let begin = Instant::now();
    let result = act();
    let mark = if result.is_ok() { "ok" } else { "FAILED" };
    println!("{mark:>6} {:>7.1} s", begin.elapsed().as_secs_f64());
    result
}

/// Asks every 200 ms until there is an answer.
///
/// # Errors
/// None within `deadline`; the last reason is told.
pub fn wait<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) if begin.elapsed() > deadline => {
                bail!("{what}: not within {:.0} s: {reason:#}", deadline.as_secs_f64())
            }
            Err(_) => sleep(Duration::from_millis(200)),
        }
    }
}
