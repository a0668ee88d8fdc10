//! Committed writes of the control plane, and the gap when its leader dies, beside etcd.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::etcd::Etcd;
use crate::gap::gap;
use crate::load::load;
use crate::muster::Muster;
use crate::side::Side;
use muster_bench::rounds::{Measure, report};

/// Clients of the two loads.
const FEW: usize = 1;
const MANY: usize = 64;

/// How much of it.
pub struct Wish {
    /// The program `etcd`.
    pub etcd: PathBuf,
    /// Rounds; both sides in each.
    pub rounds: usize,
    /// Length of one load.
    pub span: Duration,
}

/// What one side showed in one round.
struct Round {
    few: crate::load::Sample,
    many: crate::load::Sample,
    gap_ms: f64,
}

async fn round<S: Side>(side: &mut S, span: Duration) -> Result<Round> {
    let few = load(side, FEW, span).await?;
    let many = load(side, MANY, span).await?;
    Ok(Round { few, many, gap_ms: gap(side).await? })
}

/// Runs it; how many bars were missed.
///
/// # Errors
/// A side does not come up, or a write fails.
pub async fn control(wish: Wish) -> Result<usize> {
    let mut muster = Muster::up().await?;
    let mut etcd = Etcd::up(wish.etcd).await?;
    let mut measures = [
        Measure::new("write, 1 client: p50, ms", 0.8, false),
        Measure::new("write, 1 client: p99, ms", 1.0, false),
        Measure::new("writes a second, 1 client", 1.0, true),
        Measure::new("write, 64 clients: p50, ms", 0.8, false),
        Measure::new("writes a second, 64 clients", 1.2, true),
        Measure::new("leader killed, next write, ms", 0.75, false),
    ];
    for number in 0..wish.rounds {
        // Who comes first changes: the second meets warmer caches and a fuller disk queue.
        let (ours, theirs) = if number % 2 == 0 {
            let ours = round(&mut muster, wish.span).await?;
            (ours, round(&mut etcd, wish.span).await?)
        } else {
            let theirs = round(&mut etcd, wish.span).await?;
            (round(&mut muster, wish.span).await?, theirs)
        };
        let of = |side: &Round| {
            [
                side.few.p50_ms,
                side.few.p99_ms,
                side.few.per_second,
                side.many.p50_ms,
                side.many.per_second,
                side.gap_ms,
            ]
        };
        for (measure, pair) in measures.iter_mut().zip(of(&ours).into_iter().zip(of(&theirs))) {
            measure.pairs.push(pair);
        }
        eprintln!("round {} of {}", number + 1, wish.rounds);
    }
    report(&measures, "ETCD")
}
