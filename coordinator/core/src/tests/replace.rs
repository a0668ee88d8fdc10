//! Members that are replaced on an operator's word, and services that never lose their last spares together.

use muster_model::view::OperationState;

use super::*;
use crate::reconcile::replace_refusal;
use crate::state::OperationKind;

fn replace(world: &mut World, service: &str, slot: u32, confirm_lost: bool) -> u64 {
    let kind = OperationKind::Replace { slot, confirm_lost };
    let reply = world.must(What::StartOperation { service: name(service), kind, seen: None });
    reply.operation.unwrap().0
}

fn host_of(world: &World, service: &str, slot: u32) -> HostId {
    world.state.members_of(&name(service))[&slot].1.host.clone()
}

#[test]
fn a_member_is_replaced_on_another_host_and_its_old_one_is_retired() {
    let mut world = World::with_postgres();
    world.join(4);
    let old = world.state.members_of(&name("pg-main"))[&2].0;
    let id = replace(&mut world, "pg-main", 2, false);
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(host_of(&world, "pg-main", 2), host_id(4));
    let (new, row) = world.state.members_of(&name("pg-main"))[&2];
    assert!(new != old && row.joins_existing);
    world.run_until("the old one is gone", |state| !state.members.contains_key(&old));
    assert!(all_ready(&world.state));
}

#[test]
fn an_etcd_member_is_replaced_by_being_taken_off_the_list_and_put_on_it_again() {
    let mut world = World::with_postgres();
    world.join(4);
    let id = replace(&mut world, "pg-main-etcd", 2, false);
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(host_of(&world, "pg-main-etcd", 2), host_id(4));
    let log: Vec<&str> = world.operation(id).log.iter().map(|(_, line)| line.as_str()).collect();
    let at = |text: &str| {
        log.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {log:#?}"))
    };
    assert!(at("taken off the list") < at("put on the list") && at("put on the list") < at("gets its vote"));
    assert_eq!(world.locks.names().len(), 3);
}

#[test]
fn without_another_host_it_comes_back_on_its_own_one() {
    let mut world = World::with_postgres();
    let before = (host_of(&world, "pg-main", 3), world.state.members_of(&name("pg-main"))[&3].0);
    let id = replace(&mut world, "pg-main", 3, false);
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(host_of(&world, "pg-main", 3), before.0);
    assert_ne!(world.state.members_of(&name("pg-main"))[&3].0, before.1);
}

#[test]
fn a_leader_gives_its_role_away_first() {
    let mut world = World::with_postgres();
    world.join(4);
    let leader = world.leaders[&name("pg-main")];
    let slot = world.state.members[&leader].slot.index;
    let id = replace(&mut world, "pg-main", slot, false);
    assert_eq!(world.await_end(id), OperationState::Done);
    let log = &world.operation(id).log;
    let at = |text: &str| log.iter().position(|(_, line)| line.contains(text)).unwrap();
    assert!(at("switchover to") < at("is taken away"), "{log:?}");
}

#[test]
fn a_lost_hosts_member_is_replaced_before_its_time() {
    let mut world = World::with_postgres();
    world.join(4);
    let leader = world.leaders[&name("pg-main")];
    let members = world.state.members_of(&name("pg-main"));
    let (slot, lost) =
        members.iter().find(|(_, (id, _))| *id != leader).map(|(s, (_, m))| (*s, m.host.clone())).unwrap();
    world.down((1..=3).find(|n| host_id(*n) == lost).unwrap());
    world.run_for(Millis::seconds(10));
    assert_eq!(host_of(&world, "pg-main", slot), lost, "15 minutes are not over");
    let id = replace(&mut world, "pg-main", slot, false);
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(host_of(&world, "pg-main", slot), host_id(4));
}

#[test]
fn what_would_be_unsafe_is_refused_with_the_reason() {
    let mut world = World::with_postgres();
    world.join(4);
    let why = |world: &World, service: &str, slot: u32, lost: bool| {
        replace_refusal(&world.state, &name(service), slot, lost, world.now).unwrap_or_default()
    };
    assert_eq!(why(&world, "pg-main", 2, false), "");
    assert!(why(&world, "pg-main", 9, false).contains("no member in slot 9"));
    let leader = world.leaders[&name("pg-main")];
    let members = world.state.members_of(&name("pg-main"));
    let others: Vec<u32> =
        members.iter().filter(|(_, (id, _))| *id != leader).map(|(slot, _)| *slot).collect();
    let lost = host_of(&world, "pg-main", others[0]);
    world.down((1..=3).find(|n| host_id(*n) == lost).unwrap());
    world.run_for(Millis::seconds(5));
    assert!(why(&world, "pg-main", others[1], false).contains("is not ready"), "another member is away");
}

#[test]
fn a_member_whose_data_is_nowhere_else_is_replaced_only_when_its_host_is_said_to_be_lost() {
    let mut world = World::new(2);
    let web = serde_json::json!({ "web": {
        "kind": "app", "image": "demo/web:1", "volumes": [{ "name": "data", "path": "/data" }] } });
    world.apply_spec(&spec(web));
    world.run_until("ready", |s| s.members.len() == 1 && all_ready(s));
    world.run_for(Millis::seconds(5));
    let refused = |world: &World, lost| {
        replace_refusal(&world.state, &name("web"), 1, lost, world.now).unwrap_or_default()
    };
    assert!(refused(&world, true).contains("nowhere else"), "{}", refused(&world, true));
    let host = host_of(&world, "web", 1);
    world.down((1..=2).find(|n| host_id(*n) == host).unwrap());
    assert!(refused(&world, false).contains("--confirm-lost"), "{}", refused(&world, false));
    assert_eq!(refused(&world, true), "");
    let id = replace(&mut world, "web", 1, true);
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_ne!(host_of(&world, "web", 1), host);
}

#[test]
fn two_services_never_lose_their_last_spares_at_once() {
    let mut world = World::new(3);
    let app = |image: &str| serde_json::json!({ "kind": "app", "image": image, "replicas": 2 });
    world.apply_spec(&spec(serde_json::json!({ "a": app("demo/a:1"), "b": app("demo/b:1") })));
    world.run_until("ready", |s| s.members.len() == 4 && all_ready(s));
    world.run_for(Millis::seconds(5));
    world.apply_spec(&spec(serde_json::json!({ "a": app("demo/a:2"), "b": app("demo/b:2") })));
    let mut waited = false;
    world.run_until("both begin", |s| s.operations.len() == 2);
    while world.state.operations.values().any(|op| op.outcome.is_none()) {
        world.round();
        let away = |op: &&Operation| matches!(op.step, Step::Settle { .. }) && op.outcome.is_none();
        assert!(world.state.operations.values().filter(away).count() <= 1);
        waited |= world.state.operations.values().any(|op| op.status.contains("last spare"));
    }
    assert!(waited);
    assert!(world.state.operations.values().all(|op| op.state() == OperationState::Done));
}
