//! One seed: a bootstrap, a time of faults and of operators, then fair weather in which everything must come right.

use muster_core::command::What;
use muster_model::ids::MemberId;
use muster_model::time::Millis;
use muster_model::view::Scheduling;

use crate::operators;
use crate::oracle::unfinished;
use crate::plant::Plant;
use crate::rng::Rng;
use crate::spec::Platform;
use crate::world::{FAIR, Weather, World, host_id};

/// Length of the time of faults, and of the time in which everything must come right.
const FAULTS: u64 = 60_000;
const REPAIR: u64 = 400_000;
/// A host that is to leave is given up after so long.
const LEAVES: u64 = 100_000;
/// Everything must stay right for this long.
const QUIET: u64 = 5_000;

/// What a seed did.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Entries that took effect.
    pub entries: u64,
    /// Entries that were refused.
    pub refused: u64,
    /// Milliseconds until everything was right again.
    pub repaired_ms: u64,
    /// Operations that ran.
    pub operations: u64,
    /// Words that operators gave.
    pub words: u64,
    /// Hosts that left for good.
    pub removed: u64,
}

/// What went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When, milliseconds.
    pub at: u64,
    /// What.
    pub what: String,
    /// The last lines of the platform's own history.
    pub history: Vec<String>,
}

/// Runs one seed.
///
/// # Errors
/// What must never happen did, or what must happen did not.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Tally, Failure> {
    let mut world = World::new(seed, 3, plant);
    let extra = world.rng.below(3) as usize;
    if extra > 0 {
        world = World::new(seed ^ 0x5eed, 3 + extra, plant);
    }
    match play(&mut world, seed) {
        Ok(repaired_ms) => Ok(Tally {
            entries: world.entries.0,
            refused: world.entries.1,
            repaired_ms,
            operations: world.state.operations.len() as u64,
            words: world.words,
            removed: world.hosts.iter().filter(|host| host.removed).count() as u64,
        }),
        Err(what) => Err(Failure { at: world.now, what, history: history(&world) }),
    }
}

fn history(world: &World) -> Vec<String> {
    let lines = world.state.events.iter().rev().take(25);
    let mut lines: Vec<String> =
        lines.map(|e| format!("{:>7} {} {}: {}", e.at.0 - 1_000_000, e.index, e.about, e.text)).collect();
    lines.reverse();
    for (id, op) in world.state.operations.iter().filter(|(_, op)| op.outcome.is_none()) {
        let needs = op.needs_operator.as_ref().map(|needs| &needs.reason);
        lines.push(format!(
            "operation {id} {} {}: {} needs {needs:?}",
            op.kind.name(),
            op.service,
            op.status
        ));
    }
    for (id, row) in &world.state.members {
        let image = |r: &Option<muster_core::state::Rendering>| r.as_ref().map(|r| r.rendered.image.clone());
        let observed = row.observed.as_ref().map(|o| (o.running, o.ready, o.detail.clone()));
        lines.push(format!(
            "member {id} {} on {}: {:?} has {:?} pending {:?} started {} restarts {} observed {observed:?}",
            row.slot,
            world.state.host_name(&row.host),
            row.phase,
            image(&row.rendering),
            image(&row.pending),
            row.started,
            row.restarts
        ));
    }
    for host in &world.hosts {
        let (has, wants) =
            (host.agent.ledger.generation(), world.state.hosts.get(&host.id).map(|h| h.plan_counter));
        lines.push(format!(
            "host {} acts on {has}, newest {wants:?}, busy {:?}",
            host.number, host.agent.busy
        ));
        for (id, container) in &host.containers {
            let image = &container.made_of.rendered.image;
            lines.push(format!(
                "  member {id}: {image} {:?} restarts {}",
                container.seen.state, container.seen.restarts
            ));
        }
    }
    lines
}

fn play(world: &mut World, seed: u64) -> Result<u64, String> {
    let platform = Platform::of(seed, world.hosts.len(), &mut world.rng);
    world.apply_spec(platform.spec("good-0", 2));
    if world.rng.chance(600) {
        // The others meet their first faults while they are still being formed.
        world.run(Millis(30_000))?;
    }
    world.weather = Weather {
        lost: world.rng.below(200),
        doubled: world.rng.below(200),
        delay: world.rng.between(50, 1_000),
    };
    let may_ruin = seed.is_multiple_of(5);
    // Long enough for PostgreSQL's lock to change hands while its old holder runs on.
    let cut_off = if seed % 8 == 4 { 22_000 } else { 0 };
    // The last of more than three hosts leaves for good.
    let leaves =
        (seed % 5 == 3 && world.hosts.len() > 3 && platform.can_shrink()).then(|| world.hosts.len() - 1);
    // A chance of its own: seeds in which nothing is asked stay what they were without it.
    let mut attention = Rng::new(!seed ^ 1);
    let mut version = 0;
    let end = world.now + FAULTS;
    while world.now < end {
        world.tick()?;
        if world.now.is_multiple_of(1_000) && world.rng.chance(250) {
            fault(world, may_ruin, cut_off);
        }
        if world.now.is_multiple_of(1_000) && world.rng.chance(60) {
            version += 1;
            operators::meddle(world, version, &platform);
        }
        if world.now.is_multiple_of(1_000) && platform.has_redis() && attention.chance(150) {
            operators::answer(world);
        }
        if let Some(at) = leaves.filter(|_| world.now.is_multiple_of(2_000) && world.now > end - FAULTS / 2) {
            operators::remove(world, at);
        }
    }
    repair(world, &platform, leaves)
}

fn fault(world: &mut World, may_ruin: bool, cut_off: u64) {
    let now = world.now;
    let at = world.rng.below(world.hosts.len() as u64) as usize;
    let span = now + world.rng.between(500, 25_000);
    match world.rng.below(21) {
        0..=3 if cut_off > 0 => world.hosts[at].mesh_at = span + cut_off,
        0..=3 => world.hosts[at].power_cut(span),
        4 | 5 => world.hosts[at].heard_at = span,
        6 | 7 => world.hosts[at].hears_at = span,
        8 | 9 => (world.hosts[at].heard_at, world.hosts[at].hears_at) = (span, span),
        10 | 11 => world.hosts[at].mesh_at = span + cut_off,
        12 | 13 => world.hosts[at].engine_at = world.hosts[at].engine_at.max(span),
        14 | 15 => world.lose_leader(now + world.hosts[at].number as u64 * 1_500),
        16 | 17 if world.hosts[at].on(now) => world.hosts[at].restart_agent(now),
        16 | 17 => {}
        // All at once, back one by one.
        18 => {
            for at in 0..world.hosts.len() {
                let until = now + world.rng.between(500, 5_000);
                world.hosts[at].power_cut(until);
            }
        }
        _ => crash(world, at, may_ruin),
    }
}

/// A container dies; now and then its data is destroyed with it.
fn crash(world: &mut World, at: usize, may_ruin: bool) {
    let members: Vec<MemberId> = world.hosts[at].containers.keys().copied().collect();
    let Some(member) = world.rng.pick(&members).copied() else { return };
    let untouched = world.hosts.iter().all(|host| host.ruined.is_empty());
    let row = world.state.members.get(&member).filter(|row| row.has_data);
    let service = row.map(|row| row.slot.service.clone());
    let spare = service.as_ref().is_some_and(|service| world.engines.spares(service, member));
    let ruin = may_ruin && untouched && spare && world.rng.chance(500);
    let host = &mut world.hosts[at];
    if let Some(container) = host.containers.get_mut(&member).filter(|c| c.seen.running()) {
        container.seen.state = muster_agent::seen::SeenState::Stopped { code: 137 };
        let empties = spare && world.rng.chance(300);
        let emptied = empties && service.is_some_and(|service| world.engines.empty(&service, member));
        if ruin && !emptied {
            host.volumes.remove(&member);
            host.ruined.insert(member);
        }
    }
}

/// All faults end, the operator wants something that can be had, and everything must come right and stay so.
fn repair(world: &mut World, platform: &Platform, mut leaves: Option<usize>) -> Result<u64, String> {
    let now = world.now;
    world.weather = FAIR;
    world.leader_at = world.leader_at.min(now);
    for host in world.hosts.iter_mut().filter(|host| !host.removed) {
        host.power_at = host.power_at.min(now.max(host.kept_off));
        host.engine_at = host.engine_at.min(now.max(host.kept_off));
        host.heard_at = now;
        host.hears_at = now;
        host.mesh_at = now;
    }
    for number in (1..=world.hosts.len()).filter(|number| Some(number - 1) != leaves) {
        let host = host_id(number);
        world.enter(What::SetScheduling { host, scheduling: Scheduling::Open, outage: false });
    }
    world.apply_spec(platform.spec("good-last", 2));
    let mut right_since = None;
    let mut missing = String::new();
    while world.now < now + REPAIR {
        world.tick()?;
        if world.now.is_multiple_of(5_000) {
            operators::advise(world, now);
        }
        if let Some(at) = leaves {
            if world.now.is_multiple_of(2_000) && operators::remove(world, at) {
                leaves = None;
            } else if world.now > now + LEAVES {
                operators::keep(world, at);
                leaves = None;
            }
            continue;
        }
        match unfinished(world) {
            None => {
                let since = *right_since.get_or_insert(world.now);
                if world.now - since >= QUIET {
                    return Ok(since - now);
                }
            }
            Some(what) => (right_since, missing) = (None, what),
        }
    }
    Err(format!("after {REPAIR} ms of fair weather: {missing}"))
}
