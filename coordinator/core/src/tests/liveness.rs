//! What the leader hears, and what becomes of it.

use muster_model::view;

use super::*;
use crate::liveness::Tracker;

fn beat_all(tracker: &mut Tracker, now: Timestamp, hosts: std::ops::RangeInclusive<usize>) {
    for number in hosts {
        tracker.beat(&host_id(number), &BootId("boot-1".to_owned()), now);
    }
}

fn downs(commands: &[Command]) -> Vec<HostId> {
    let down = commands.iter().filter_map(|command| match &command.what {
        What::HostLiveness { host, liveness: Liveness::Down, .. } => Some(host.clone()),
        _ => None,
    });
    down.collect()
}

#[test]
fn a_silent_host_is_suspect_then_down_and_suspicion_moves_nothing() {
    let world = World::new(3);
    let start = world.now;
    let mut tracker = Tracker::new(start);
    beat_all(&mut tracker, start, 1..=3);
    let later = start.after(Millis(2_000));
    beat_all(&mut tracker, later, 2..=3);
    assert_eq!(tracker.shown(&world.state, &host_id(1), later), view::Liveness::Suspect);
    assert_eq!(tracker.transitions(&world.state, later), Vec::new());
    let after = start.after(Millis(5_000));
    assert_eq!(downs(&tracker.transitions(&world.state, after)), [host_id(1)]);
}

#[test]
fn a_closed_session_is_suspect_at_once_and_down_no_sooner() {
    let world = World::new(1);
    let mut tracker = Tracker::new(world.now);
    beat_all(&mut tracker, world.now, 1..=1);
    tracker.closed(&host_id(1), &BootId("an older boot".to_owned()));
    assert_eq!(tracker.shown(&world.state, &host_id(1), world.now), view::Liveness::Ready);
    tracker.closed(&host_id(1), &BootId("boot-1".to_owned()));
    assert_eq!(tracker.shown(&world.state, &host_id(1), world.now), view::Liveness::Suspect);
    assert_eq!(tracker.transitions(&world.state, world.now.after(Millis(4_999))), Vec::new());
}

#[test]
fn a_new_leader_gives_everyone_twice_the_time() {
    let world = World::new(2);
    let mut tracker = Tracker::new(world.now);
    tracker.beat(&host_id(2), &BootId("boot-1".to_owned()), world.now.after(Millis(9_000)));
    assert_eq!(tracker.transitions(&world.state, world.now.after(Millis(9_999))), Vec::new());
    assert_eq!(downs(&tracker.transitions(&world.state, world.now.after(Millis(10_000)))), [host_id(1)]);
}

#[test]
fn a_new_boot_of_a_host_that_is_up_is_told() {
    let mut world = World::new(1);
    let mut tracker = Tracker::new(world.now);
    tracker.beat(&host_id(1), &BootId("boot-2".to_owned()), world.now);
    let commands = tracker.transitions(&world.state, world.now);
    assert_eq!(commands.len(), 1);
    world.command(&commands[0]).unwrap();
    assert_eq!(tracker.transitions(&world.state, world.now), Vec::new());
    assert_eq!(world.state.hosts[&host_id(1)].boot, Some(BootId("boot-2".to_owned())));
}
