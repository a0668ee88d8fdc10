//! After all coordinators and their disks were lost: the state out of what the agents kept, and nothing is started again.

use std::collections::BTreeSet;

use muster_model::ids::{HostId, LogIndex, MemberId};
use muster_model::plan::HostPlan;
use muster_model::time::Millis;

use super::*;
use crate::keepsake::Keepsake;
use crate::recovery::{Beginning, begin};
use crate::state::Phase;

fn plans(state: &State) -> BTreeMap<HostId, HostPlan> {
    state.hosts.keys().filter_map(|host| Some((host.clone(), plan::published(state, host)?))).collect()
}

fn kept(state: &State) -> Keepsake {
    let keepsake = Keepsake::of(state).unwrap();
    let bytes = keepsake.encode();
    assert!(!String::from_utf8(bytes.clone()).unwrap().contains("value of "), "a secret's value is in it");
    let read = Keepsake::decode(&bytes).unwrap();
    assert_eq!(read, keepsake);
    read
}

/// Another control plane begins with what was rebuilt; nobody has joined it yet.
fn begin_anew(world: &mut World, rebuilt: State, lost: &BTreeSet<HostId>) {
    world.state = rebuilt;
    for host in world.state.hosts.values_mut() {
        host.since = world.now;
    }
    let (index, how) = (LogIndex(9_000), "rebuilt".to_owned());
    let beginning = Beginning { node: 1, incarnation: 2, index, at: world.now, how };
    assert!(begin(&mut world.state, &beginning, lost));
    assert_eq!(world.state.check(), Vec::new());
    world.silent = world.state.hosts.keys().cloned().collect();
}

fn join_again(world: &mut World, number: usize) {
    world.up(number, "boot-2");
    for _ in 0..4 {
        world.round();
    }
    world.must(What::HostInventory { host: host_id(number), found: None });
}

#[test]
fn the_same_members_run_on_under_the_same_plans_and_can_be_changed_again() {
    let mut world = World::with_postgres();
    let (old, before) = (plans(&world.state), world.state.clone());
    let started = world.restarts.len();
    let rebuilt = kept(&world.state).rebuild(&old);
    assert_eq!(rebuilt.notes, Vec::<String>::new());
    begin_anew(&mut world, rebuilt.state, &BTreeSet::new());
    // Nobody has joined for longer than a lost host is waited for: all may run, none is taken for lost.
    world.run_for(Millis::seconds(1_800));
    assert_eq!(world.state.members.keys().collect::<Vec<_>>(), before.members.keys().collect::<Vec<_>>());
    join_again(&mut world, 1);
    join_again(&mut world, 2);
    world.run_for(Millis::seconds(1_800));
    assert!(world.state.members.values().all(|member| member.phase == Phase::Active));
    join_again(&mut world, 3);
    world.run_until("all ready", all_ready);
    world.run_for(Millis::seconds(60));
    let new = plans(&world.state);
    for (host, plan) in &old {
        assert!(new[host].generation > plan.generation && !new[host].additive_only);
        assert_eq!((&new[host].members, &new[host].network), (&plan.members, &plan.network));
    }
    assert_eq!(world.restarts.len(), started, "containers were made or started again");
    for (name, service) in &before.services {
        let now = &world.state.services[name];
        assert!(now.formed == service.formed && now.records == service.records && now.spec == service.spec);
    }
    assert!(world.state.next_member > before.next_member);
    world.apply_spec(&spec(
        serde_json::json!({ "pg-main": { "kind": "postgres", "image": "muster/postgres:next" } }),
    ));
    world.run_until("the update ends", |state| {
        let update = state.operations.values().find(|op| op.service.as_str() == "pg-main");
        update.is_some_and(|op| op.outcome.is_some()) && all_ready(state)
    });
    assert!(world.restarts.len() > started);
}

#[test]
fn a_host_that_has_not_joined_again_is_not_taken_for_lost_although_another_is_free() {
    let mut world = World::with_postgres();
    let (old, before) = (plans(&world.state), world.state.clone());
    let rebuilt = kept(&world.state).rebuild(&old);
    begin_anew(&mut world, rebuilt.state, &BTreeSet::new());
    join_again(&mut world, 1);
    join_again(&mut world, 2);
    world.join(4);
    world.run_for(Millis::seconds(1_800));
    assert_eq!(world.state.members.keys().collect::<Vec<_>>(), before.members.keys().collect::<Vec<_>>());
    assert!(world.state.members.values().all(|member| member.phase == Phase::Active));
}

#[test]
fn what_passes_makes_no_new_keepsake() {
    let mut world = World::with_postgres();
    let before = kept(&world.state);
    world.must(What::Audit { action: "somebody looked".to_owned() });
    world.down(2);
    world.up(2, "boot-3");
    world.run_until("all ready", all_ready);
    assert_eq!(kept(&world.state), before);
    world.must(What::SetScheduling {
        host: host_id(2),
        scheduling: muster_model::view::Scheduling::Cordoned,
        outage: false,
    });
    assert_ne!(kept(&world.state), before);
}

#[test]
fn plans_and_what_was_kept_may_be_of_different_ages() {
    let mut world = World::with_postgres();
    let (older, old_plans) = (kept(&world.state), plans(&world.state));
    let id = |world: &World, slot: &str| -> MemberId {
        let found = world.state.members.iter().find(|(_, m)| m.slot.to_string() == slot);
        *found.unwrap().0
    };
    let (lost, host) = {
        let (id, row) =
            world.state.members.iter().find(|(_, m)| m.slot.to_string() == "pg-main-proxy/1").unwrap();
        (*id, row.host.clone())
    };
    // Known, but the host was never told.
    let mut untold = old_plans.clone();
    untold.get_mut(&host).unwrap().members.retain(|member| member.member != lost);
    let rebuilt = older.clone().rebuild(&untold);
    assert!(!rebuilt.state.members.contains_key(&lost), "{:?}", rebuilt.notes);
    assert!(rebuilt.notes[0].contains("was never told of pg-main-proxy/1"), "{:?}", rebuilt.notes);
    // Told, but not known yet.
    let mut unknown = older.clone();
    unknown.state.members.remove(&lost);
    let rebuilt = unknown.rebuild(&old_plans);
    let row = &rebuilt.state.members[&lost];
    assert_eq!((row.slot.to_string().as_str(), row.started), ("pg-main-proxy/1", true));
    assert!(rebuilt.notes[0].contains("newer than what was kept"), "{:?}", rebuilt.notes);
    assert!(
        rebuilt.state.check().iter().all(|violation| violation.0.contains("newer")),
        "{:?}",
        rebuilt.state.check()
    );
    // Not known, and its slot is another one's: it is left to the inventory.
    let mut other = older.clone();
    let mut row = other.state.members.remove(&lost).unwrap();
    row.host = host_id(1 + usize::from(host == host_id(1)));
    row.addresses.clear();
    other.state.members.insert(MemberId(500), row);
    let rebuilt = other.rebuild(&old_plans);
    assert!(!rebuilt.state.members.contains_key(&lost));
    assert!(
        rebuilt.notes.iter().any(|note| note.contains("is not known: it is left")),
        "{:?}",
        rebuilt.notes
    );
    // A host whose disk is lost too: its members are known, what they were made of is found out anew.
    let first = id(&world, "pg-main/1");
    let gone = world.state.members[&first].host.clone();
    let without: BTreeMap<_, _> = old_plans.into_iter().filter(|(host, _)| *host != gone).collect();
    let rebuilt = older.rebuild(&without);
    assert!(rebuilt.state.members[&first].rendering.is_none() && !rebuilt.state.members[&first].started);
    world.leaders.clear();
    begin_anew(&mut world, rebuilt.state, &BTreeSet::from([gone.clone()]));
    for number in (1..=3).filter(|number| host_id(*number) != gone) {
        join_again(&mut world, number);
    }
    world.join(4);
    world.run_until("the lost member is replaced", |state| {
        let members = state.members_of(&name("pg-main"));
        members.len() == 3
            && members.values().all(|(_, m)| m.host != gone && m.seen().is_some_and(|s| s.ready))
    });
}
