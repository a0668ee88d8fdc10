//! Updates, switchovers, restarts, rollbacks, removals.

use muster_model::view::OperationState;

use super::*;
use crate::command::Verb;
use crate::state::OperationKind;

fn image(tag: &str) -> Arc<PlatformSpec> {
    spec(serde_json::json!({ "pg-main": { "kind": "postgres", "image": format!("muster/postgres:{tag}") } }))
}

fn slots_in_order(world: &World, since: usize) -> Vec<String> {
    world.restarts[since..].iter().map(|(id, _)| world.state.members[id].slot.to_string()).collect()
}

#[test]
fn an_update_takes_replicas_first_and_the_leader_last_after_a_switchover() {
    let mut world = World::with_postgres();
    let leader = world.leaders[&name("pg-main")];
    let since = world.restarts.len();
    world.apply_spec(&image("15-next"));
    world.run_until("an operation", |state| !state.operations.is_empty());
    assert_eq!(world.await_end(1), OperationState::Done);
    let order = slots_in_order(&world, since);
    assert_eq!(order.len(), 3, "{order:?}");
    assert_eq!(order[2], world.state.members[&leader].slot.to_string(), "the old leader last");
    assert_ne!(world.leaders[&name("pg-main")], leader);
    let all_new = world
        .state
        .members_of(&name("pg-main"))
        .into_values()
        .all(|(_, m)| m.rendering.as_ref().is_some_and(|r| r.rendered.image.ends_with("15-next")));
    assert!(all_new);
}

#[test]
fn a_member_that_got_the_leading_role_meanwhile_gives_it_away_before_it_is_stopped() {
    let mut world = World::with_postgres();
    (world.usurper, world.guards_lead) = (true, true);
    let since = world.restarts.len();
    world.apply_spec(&image("15-next"));
    world.run_until("refused", |s| {
        let mut members = s.members.values();
        members.any(|m| m.observed.as_ref().is_some_and(|seen| !seen.refused.is_empty()))
    });
    assert_eq!(world.restarts.len(), since, "nothing was stopped");
    assert_eq!(world.await_end(1), OperationState::Done);
    assert_eq!(slots_in_order(&world, since).len(), 3, "each once");
}

#[test]
fn an_image_that_never_becomes_healthy_pauses_after_one_member_and_rolls_back() {
    let mut world = World::with_postgres();
    world.bad_image = "broken".to_owned();
    let since = world.restarts.len();
    world.apply_spec(&image("broken"));
    world.run_until("paused", |s| s.operations.values().any(|op| op.needs_operator.is_some()));
    assert_eq!(world.restarts.len() - since, 1, "one member only");
    let reason = world.operation(1).needs_operator.clone().unwrap();
    assert!(reason.reason.contains("pg-main/") && reason.reason.contains("not ready"), "{reason:?}");
    assert!(reason.remedy.contains("muster service rollback pg-main"), "{reason:?}");
    let back = world.must(What::StartOperation {
        service: name("pg-main"),
        kind: OperationKind::Rollback,
        seen: None,
    });
    let id = back.operation.unwrap().0;
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(world.operation(1).state(), OperationState::Cancelled);
    assert!(all_ready(&world.state));
    assert_eq!(world.restarts.len() - since, 2, "only the broken member again");
    world.run_for(Millis::seconds(60));
    assert_eq!(world.restarts.len() - since, 2, "the broken revision does not come back by itself");
}

#[test]
fn a_failed_update_goes_back_by_itself_when_the_spec_says_so() {
    let mut world = World::with_postgres();
    world.bad_image = "broken".to_owned();
    world.apply_spec(&spec(serde_json::json!({ "pg-main": {
        "kind": "postgres", "image": "muster/postgres:broken", "update": { "on_failure": "rollback", "deadline": "20s" }
    } })));
    world.run_until("rolled back", |s| s.operations.values().any(|op| op.kind == OperationKind::Rollback));
    assert_eq!(world.await_end(2), OperationState::Done);
    assert_eq!(world.operation(1).state(), OperationState::RolledBack);
    assert!(all_ready(&world.state));
    assert_eq!(world.state.operations.len(), 2);
}

#[test]
fn a_cancelled_update_does_not_begin_again_until_it_is_asked_for() {
    let mut world = World::with_postgres();
    world.bad_image = "broken".to_owned();
    world.apply_spec(&image("broken"));
    world.run_until("an operation", |state| !state.operations.is_empty());
    world.must(What::SteerOperation { operation: OperationId(1), verb: Verb::Cancel });
    assert_eq!(world.await_end(1), OperationState::Cancelled);
    world.run_for(Millis::seconds(60));
    assert_eq!(world.state.operations.len(), 1);
    world.must(What::StartOperation { service: name("pg-main"), kind: OperationKind::Update, seen: None });
    world.run_until("paused", |s| s.operations.values().any(|op| op.needs_operator.is_some()));
}

#[test]
fn a_switchover_is_believed_when_the_new_leader_was_seen() {
    let mut world = World::with_postgres();
    let service = name("pg-main");
    let kind = OperationKind::Switchover { to: Some(3) };
    let id =
        world.must(What::StartOperation { service: service.clone(), kind, seen: None }).operation.unwrap();
    assert_eq!(world.await_end(id.0), OperationState::Done);
    assert_eq!(world.leaders[&service], world.state.members_of(&service)[&3].0);
}

#[test]
fn a_refused_switchover_is_tried_a_few_times_and_then_waits_for_an_operator() {
    let mut world = World::with_postgres();
    world.refuse_switch = Some("lag 5 MiB".to_owned());
    let kind = OperationKind::Switchover { to: Some(3) };
    let id =
        world.must(What::StartOperation { service: name("pg-main"), kind, seen: None }).operation.unwrap();
    world.run_until("paused", |s| s.operations[&id].needs_operator.is_some());
    let operation = world.operation(id.0);
    assert!(operation.needs_operator.as_ref().unwrap().reason.contains("lag 5 MiB"));
    let tries = operation.log.iter().filter(|(_, line)| line.starts_with("switchover to")).count();
    assert_eq!(tries, 5);
    world.refuse_switch = None;
    world.must(What::SteerOperation { operation: id, verb: Verb::Continue });
    assert_eq!(world.await_end(id.0), OperationState::Done);
}

#[test]
fn a_restart_takes_every_member_once_the_leader_last() {
    let mut world = World::with_postgres();
    let since = world.restarts.len();
    let kind = OperationKind::Restart { slot: None };
    let id =
        world.must(What::StartOperation { service: name("pg-main"), kind, seen: None }).operation.unwrap();
    assert_eq!(world.await_end(id.0), OperationState::Done);
    let order = slots_in_order(&world, since);
    assert_eq!(order, ["pg-main/2", "pg-main/3", "pg-main/1"]);
}

#[test]
fn one_operation_at_a_time_holds_a_service_and_its_children() {
    let mut world = World::with_postgres();
    let restart = |service: &str| What::StartOperation {
        service: name(service),
        kind: OperationKind::Restart { slot: None },
        seen: None,
    };
    world.must(restart("pg-main-etcd"));
    let held = world.propose(restart("pg-main")).unwrap_err();
    assert!(matches!(held, Rejected::Held { .. }), "{held}");
}

#[test]
fn an_advance_on_an_older_epoch_is_refused() {
    let mut world = World::with_postgres();
    let kind = OperationKind::Restart { slot: None };
    world.must(What::StartOperation { service: name("pg-main"), kind, seen: None });
    let advance = reconcile::run(&world.state, world.now)
        .into_iter()
        .find(|command| matches!(command.what, What::Advance(_)))
        .unwrap();
    world.command(&advance).unwrap();
    assert!(world.command(&advance).is_err());
}

#[test]
fn a_removed_service_goes_with_its_children_and_is_forgotten() {
    let mut world = World::with_postgres();
    let id = world.must(What::RemoveService { service: name("pg-main"), destroy: false }).operation.unwrap();
    assert_eq!(world.await_end(id.0), OperationState::Done);
    assert!(world.state.services.is_empty());
    assert!(world.state.members.is_empty());
    world.apply_spec(&spec(serde_json::json!({})));
}

#[test]
fn a_change_that_only_reloads_files_reaches_all_members_without_an_operation() {
    let mut world = World::with_postgres();
    let since = world.restarts.len();
    world.apply_spec(&spec(serde_json::json!({ "pg-main": { "kind": "postgres", "replace_after": "1h" } })));
    world.run_for(Millis::seconds(10));
    assert_eq!(world.restarts.len(), since);
    assert!(world.state.operations.is_empty());
    let at_newest = world
        .state
        .members_of(&name("pg-main"))
        .into_values()
        .all(|(_, m)| m.rendering.as_ref().is_some_and(|r| r.revision == revision(2)));
    assert!(at_newest);
}

#[test]
fn a_restart_that_the_engine_asks_for_is_done_once_for_each_revision() {
    let mut world = World::with_postgres();
    world.asks_for_restart = true;
    world.run_for(Millis::seconds(120));
    // Each member once: replicas first, and the leader after it gave its role away. It never helps here.
    let restarts =
        world.state.operations.values().filter(|op| matches!(op.kind, OperationKind::Restart { .. }));
    assert_eq!(restarts.count(), 3);
    world.run_for(Millis::seconds(600));
    assert_eq!(world.state.operations.len(), 3);
}

#[test]
fn an_update_to_another_major_version_stops_after_the_first_member() {
    let mut world = World::with_postgres();
    world.versions = ("15.20".to_owned(), "16.1".to_owned());
    world.run_for(Millis::seconds(5));
    // The tag says nothing about it.
    world.apply_spec(&image("newest"));
    world.run_until("paused", |s| s.operations.values().any(|op| op.needs_operator.is_some()));
    let reason = world.operation(1).needs_operator.clone().unwrap().reason;
    assert!(reason.contains("16.1 is another major version of PostgreSQL than 15.20"), "{reason}");
    let local = crate::view::Local { now: world.now, ..Default::default() };
    let page = crate::view::service(&world.state, &local, &name("pg-main")).unwrap().details;
    assert!(page.iter().any(|line| line.starts_with("versions: ")), "{page:?}");
    assert!(page.contains(&"backup: none yet".to_owned()), "{page:?}");
}
