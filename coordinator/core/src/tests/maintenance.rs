//! Hosts in maintenance: what moves first, what is refused, what waits, and what does not happen meanwhile.

use muster_model::view::{CoordinatorView, Scheduling};

use super::*;
use crate::reconcile::{maintenance_refusal, maintenance_waits, rests};
use crate::state::OperationKind;

fn begin(world: &mut World, number: usize, outage: bool) {
    world.must(What::SetScheduling { host: host_id(number), scheduling: Scheduling::Maintenance, outage });
}

fn end(world: &mut World, number: usize) {
    world.must(What::SetScheduling { host: host_id(number), scheduling: Scheduling::Open, outage: false });
}

fn number_of(world: &World, service: &str, slot: u32) -> usize {
    let host = &world.state.members_of(&name(service))[&slot].1.host;
    (1..=9).find(|number| host_id(*number) == *host).unwrap()
}

fn refused(world: &World, number: usize) -> Option<String> {
    maintenance_refusal(&world.state, &host_id(number), false, &[], world.now)
}

#[test]
fn a_leader_moves_then_everything_stops_and_comes_back_as_it_was() {
    let mut world = World::with_postgres();
    let leader = world.leaders[&name("pg-main")];
    let number = (1..=3).find(|n| host_id(*n) == world.state.members[&leader].host).unwrap();
    let before: Vec<MemberId> = world.state.members.keys().copied().collect();
    assert_eq!(refused(&world, number), None);
    begin(&mut world, number, false);
    let host = host_id(number);
    world.run_until("at rest", |state| rests(state, &host));
    assert_ne!(world.leaders[&name("pg-main")], leader, "the role moved first");
    let plan = plan::published(&world.state, &host).unwrap();
    assert!(!plan.members.is_empty() && plan.members.iter().all(|member| member.run == Run::Stopped));
    assert!(world.state.members.values().all(|member| member.started), "they are only at rest");
    world.down(number);
    world.run_for(Millis::seconds(3_600));
    let now: Vec<MemberId> = world.state.members.keys().copied().collect();
    assert_eq!(now, before, "nothing is replaced, however long it takes");
    assert!(rests(&world.state, &host));
    world.up(number, "boot-2");
    world.run_for(Millis::seconds(30));
    assert!(rests(&world.state, &host), "its return alone ends nothing");
    end(&mut world, number);
    world.run_until("as before", all_ready);
    assert!(!world.state.hosts[&host].resting);
    assert_eq!(world.state.members.keys().copied().collect::<Vec<_>>(), before);
}

#[test]
fn what_the_platform_moved_is_no_choice_of_the_operator() {
    let mut world = World::with_postgres();
    let leader = world.leaders[&name("pg-main")];
    let number = (1..=3).find(|n| host_id(*n) == world.state.members[&leader].host).unwrap();
    begin(&mut world, number, false);
    world.run_until("at rest", |state| rests(state, &host_id(number)));
    let moves: Vec<&Operation> = world
        .state
        .operations
        .values()
        .filter(|op| matches!(op.kind, OperationKind::Switchover { .. }))
        .collect();
    assert!(moves.len() == 1 && moves[0].actor == "muster", "{moves:?}");
}

#[test]
fn one_host_at_a_time_and_none_whose_absence_stops_a_service() {
    let mut world = World::with_postgres();
    begin(&mut world, 1, false);
    assert!(refused(&world, 2).is_some_and(|why| why.contains("vps-1 is in maintenance")));
    end(&mut world, 1);
    world.run_until("as before", all_ready);
    world.down(3);
    assert!(refused(&world, 2).is_some_and(|why| why.contains("vps-3 is down")));
    assert!(refused(&world, 3).is_some_and(|why| why.contains("vps-3 is down")));

    let single = serde_json::json!({ "pg-main": { "kind": "postgres", "mode": "single" } });
    let mut world = World::new(2);
    world.apply_spec(&spec(single));
    world.run_until("ready", |state| !state.members.is_empty() && all_ready(state));
    let number = number_of(&world, "pg-main", 1);
    let why = refused(&world, number).unwrap();
    assert!(why.contains("pg-main"), "{why}");
    assert_eq!(maintenance_refusal(&world.state, &host_id(number), true, &[], world.now), None);
    begin(&mut world, number, false);
    world.run_for(Millis::seconds(60));
    assert!(!rests(&world.state, &host_id(number)) && all_ready(&world.state), "it waits instead");
    end(&mut world, number);
    begin(&mut world, number, true);
    world.run_until("at rest", |state| rests(state, &host_id(number)));
    end(&mut world, number);
    world.run_until("as before", all_ready);
}

#[test]
fn a_majority_of_coordinators_on_the_host_is_named() {
    let world = World::with_postgres();
    let only = CoordinatorView {
        id: 1,
        endpoint: "203.0.113.1:7400".to_owned(),
        leader: true,
        voter: true,
        reachable: Some(true),
    };
    let why = maintenance_refusal(&world.state, &host_id(1), false, &[only], world.now).unwrap();
    assert!(why.contains("0 of 1 coordinators"), "{why}");
}

#[test]
fn what_keeps_nothing_and_is_alone_moves_first() {
    let mut world = World::new(2);
    world.apply_spec(&spec(serde_json::json!({ "web": { "kind": "app", "image": "demo/web:1" } })));
    world.run_until("ready", |state| state.members.len() == 1 && all_ready(state));
    let number = number_of(&world, "web", 1);
    assert_eq!(refused(&world, number), None, "it has room elsewhere");
    begin(&mut world, number, false);
    world.run_until("at rest", |state| rests(state, &host_id(number)));
    world.run_until("serves elsewhere", all_ready);
    assert_ne!(number_of(&world, "web", 1), number);
}

#[test]
fn it_waits_while_another_member_is_behind_or_an_operation_runs() {
    let mut world = World::with_postgres();
    let number = number_of(&world, "pg-main", 1);
    let other = number_of(&world, "pg-main", 2);
    begin(&mut world, number, false);
    world.silent.insert(host_id(other));
    let lost = world.state.members_of(&name("pg-main"))[&2].0;
    world.state.members.get_mut(&lost).unwrap().observed.as_mut().unwrap().caught_up = false;
    world.run_for(Millis::seconds(20));
    assert!(!world.state.hosts[&host_id(number)].resting);
    let waits = maintenance_waits(&world.state, &host_id(number), false, world.now);
    assert!(
        waits.iter().any(|why| why.contains("has not caught up") || why.contains("switchover")),
        "{waits:?}"
    );
}

#[test]
fn a_leader_that_its_engine_replaces_by_itself_is_not_waited_for() {
    let mut world = World::with_postgres();
    let number = number_of(&world, "pg-main-etcd", 1);
    let etcd = world.state.members_of(&name("pg-main-etcd"))[&1].0;
    world.leaders.insert(name("pg-main"), world.state.members_of(&name("pg-main"))[&2].0);
    world.run_for(Millis::seconds(5));
    if number_of(&world, "pg-main", 2) == number {
        world.leaders.insert(name("pg-main"), world.state.members_of(&name("pg-main"))[&3].0);
        world.run_for(Millis::seconds(5));
    }
    world.state.members.get_mut(&etcd).unwrap().observed.as_mut().unwrap().role = Some("leader".to_owned());
    assert_eq!(maintenance_waits(&world.state, &host_id(number), false, world.now), [""; 0]);
    // The database's own is, also while nobody can take it.
    let database = world
        .state
        .members
        .values()
        .find(|m| m.host == host_id(number) && m.slot.service.as_str() == "pg-main");
    let database = database.unwrap().slot.index;
    world.leaders.insert(name("pg-main"), world.state.members_of(&name("pg-main"))[&database].0);
    world.run_for(Millis::seconds(5));
    let waits = maintenance_waits(&world.state, &host_id(number), false, world.now);
    assert!(waits.iter().any(|why| why.contains("pg-main/") && why.contains("leads")), "{waits:?}");
}

#[test]
fn a_rest_that_was_decided_on_an_older_state_is_refused() {
    let mut world = World::with_postgres();
    let service = name("pg-main");
    let seen = world.state.fence(&service);
    begin(&mut world, 1, false);
    let stale = world.propose(What::RestHost { host: host_id(1), seen }).unwrap_err();
    assert!(matches!(stale, Rejected::Stale { .. }), "{stale}");
    let seen = world.state.index;
    let open = world.propose(What::RestHost { host: host_id(2), seen }).unwrap_err();
    assert!(open.to_string().contains("not being prepared"), "{open}");
}
