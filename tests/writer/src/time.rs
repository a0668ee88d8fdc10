//! One clock for all moments of a ledger: wall time at the start, and from then on steady, whatever the wall clock does.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, never going backwards.
pub struct Clock {
    started: Instant,
    wall_ms: u64,
}

impl Clock {
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), wall_ms: wall.as_millis() as u64 }
    }

    pub fn now_ms(&self) -> u64 {
        self.wall_ms + self.started.elapsed().as_millis() as u64
    }
}
