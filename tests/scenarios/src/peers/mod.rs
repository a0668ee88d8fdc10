//! Muster beside Docker Swarm on engines of its own: both stand at once on one machine and take turns.

mod engines;
mod muster;
mod swarm;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use muster_bench::rounds::{Measure, report};

use self::engines::Fleet;
use self::muster::Muster;
use self::swarm::Swarm;
use crate::platform::Platform;

/// Members of the service.
const MEMBERS: usize = 20;
/// Longest of anything that is waited for.
const LONGEST: Duration = Duration::from_secs(240);

/// Who runs the service.
trait Side {
    fn fleet(&self) -> &Fleet;
    /// Asks for the members, all of this revision, and does not wait for them.
    fn deploy(&self, revision: usize) -> Result<()>;
    /// Asks for another revision, one member after the other.
    fn update(&self, revision: usize) -> Result<()>;
    /// A host whose control plane does not lead.
    fn victim(&self) -> Result<usize>;
    /// Waits until a host that was started again counts as ready.
    fn rejoined(&self) -> Result<()>;
    fn remove(&self) -> Result<()>;
}

/// Milliseconds, in the order of the measures.
type Round = [f64; 4];

fn round<S: Side>(side: &S, number: usize) -> Result<Round> {
    let fleet = side.fleet();
    let (old, new) = (2 * number, 2 * number + 1);
    let begun = fleet.now();
    side.deploy(old)?;
    let deployed = fleet.started(begun, MEMBERS)?;
    fleet.settle(old, MEMBERS)?;
    let begun = fleet.now();
    side.update(new)?;
    let updated = fleet.started(begun, MEMBERS)?;
    fleet.settle(new, MEMBERS)?;
    let begun = fleet.kill_one(1)?;
    let restarted = fleet.started(begun, 1)?;
    fleet.settle(new, MEMBERS)?;
    let victim = side.victim()?;
    let moving = fleet.members(victim)?;
    ensure!(moving > 0, "nothing runs on the host that is to be killed");
    let begun = fleet.now();
    fleet.hosts[victim].kill()?;
    let moved = fleet.started_but(Some(victim), begun, moving)?;
    fleet.hosts[victim].start()?;
    fleet.hosts[victim].wait_for_engine()?;
    side.rejoined()?;
    side.remove()?;
    fleet.settle(new, 0)?;
    Ok([deployed, updated, restarted, moved].map(|span| span.as_secs_f64() * 1_000.0))
}

/// Runs it; how many bars were missed.
///
/// # Errors
/// A side does not come up, or does not do what it is asked.
pub fn beside_swarm(platform: &Platform, rounds: usize) -> Result<usize> {
    let began = Instant::now();
    let muster = Muster::up(platform)?;
    let swarm = Swarm::up(platform)?;
    println!("both sides stand after {:.0} s", began.elapsed().as_secs_f64());
    let mut measures = [
        Measure::new("deploy 20, all running, ms", 0.9, false),
        Measure::new("update of 20, one by one, ms", 0.5, false),
        Measure::new("container killed, running, ms", 0.6, false),
        Measure::new("host killed, all elsewhere, ms", 1.1, false),
    ];
    for number in 0..rounds {
        // Who comes first changes.
        let (ours, theirs) = if number % 2 == 0 {
            let ours = round(&muster, number)?;
            (ours, round(&swarm, number)?)
        } else {
            let theirs = round(&swarm, number)?;
            (round(&muster, number)?, theirs)
        };
        for (measure, pair) in measures.iter_mut().zip(ours.into_iter().zip(theirs)) {
            measure.pairs.push(pair);
        }
        println!("round {} of {rounds}: muster {ours:.0?}, swarm {theirs:.0?}", number + 1);
    }
    let missed = report(&measures, "SWARM")?;
    swarm.down()?;
    platform.testbed.down(false, false)?;
    Ok(missed)
}
