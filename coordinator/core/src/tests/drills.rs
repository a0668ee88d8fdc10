//! Drills: refused when unsafe, measured, always undone.

use muster_model::spec::Span;
use muster_model::view::OperationState;

use super::*;
use crate::command::Verb;
use crate::drill::{DrillSpec, Hand, Target, refusal};
use crate::state::OperationKind;

fn drill(fault: &str) -> DrillSpec {
    serde_json::from_value(serde_json::json!({
        "drill": 1, "name": "test", "service": "pg-main", "fault": fault, "thresholds": { "rto": "2500ms", "lost": 0 }
    }))
    .unwrap()
}

fn start(world: &mut World, fault: &str) -> u64 {
    let by = if fault == "kill-host" { Hand::Outside } else { Hand::Agent };
    let kind = OperationKind::Drill(Box::new(DrillSpec { by, ..drill(fault) }));
    world.must(What::StartOperation { service: name("pg-main"), kind, seen: None }).operation.unwrap().0
}

#[test]
fn a_drill_places_its_writer_elsewhere_reports_and_removes_it() {
    let mut world = World::with_postgres();
    let id = start(&mut world, "kill-container");
    world.run_until("the writer runs", |s| {
        s.members.values().any(|m| m.slot.service.as_str() == "drill-1" && m.started)
    });
    let target = world.state.members[&world.leaders[&name("pg-main")]].host.clone();
    let writer = world.state.members.values().find(|m| m.slot.service.as_str() == "drill-1").unwrap();
    assert_ne!(writer.host, target);
    assert_eq!(world.await_end(id), OperationState::Done);
    assert!(world.state.services.keys().all(|name| !name.as_str().starts_with("drill-")));
    let report = &world.state.drills[0].report;
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!((report["lost"].as_u64(), report["rto_ms"].as_u64()), (Some(0), Some(900)));
    assert_eq!(report["acted"], "restart in place");
}

#[test]
fn a_host_drill_waits_for_the_one_who_cuts_the_power() {
    let mut world = World::with_postgres();
    let id = start(&mut world, "kill-host");
    world.run_until("waits", |s| s.operations[&OperationId(id)].status.contains("cut the power of host"));
    world.must(What::SteerOperation { operation: OperationId(id), verb: Verb::FaultDone });
    assert_eq!(world.await_end(id), OperationState::Done);
}

#[test]
fn a_cancelled_drill_removes_its_writer() {
    let mut world = World::with_postgres();
    let id = start(&mut world, "kill-host");
    world.run_until("waits", |s| s.operations[&OperationId(id)].status.contains("cut the power of host"));
    world.must(What::SteerOperation { operation: OperationId(id), verb: Verb::Cancel });
    assert_eq!(world.await_end(id), OperationState::Cancelled);
    assert_eq!(world.state.members.len(), 8);
}

#[test]
fn an_unsafe_drill_is_refused_with_the_reason() {
    let mut world = World::with_postgres();
    assert_eq!(refusal(&world.state, &drill("kill-container"), world.now), None);
    world.down(3);
    let why = refusal(&world.state, &drill("kill-container"), world.now).unwrap();
    assert!(why.contains("host vps-3 is down"), "{why}");
    let id = start(&mut world, "kill-container");
    assert_eq!(world.await_end(id), OperationState::Failed);
    assert!(world.operation(id).status.contains("refused"));
}

#[test]
fn a_replica_is_killed_and_the_leader_stays() {
    let mut world = World::with_postgres();
    let spec = DrillSpec { target: Target::Replica, ..drill("kill-container") };
    let kind = OperationKind::Drill(Box::new(spec));
    let id =
        world.must(What::StartOperation { service: name("pg-main"), kind, seen: None }).operation.unwrap().0;
    world.run_until("a member is killed", |s| !s.tasks.is_empty());
    let leader = world.leaders[&name("pg-main")];
    let victims: Vec<MemberId> = world.state.tasks.values().map(|row| row.task.member).collect();
    assert!(victims.len() == 1 && victims[0] != leader, "{victims:?}");
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(world.state.drills[0].report["acted"], "nothing needed");
}

/// The leader is killed, and another member leads afterwards.
fn moved_by(release: bool) -> serde_json::Value {
    let mut world = World::with_postgres();
    let id = start(&mut world, "kill-container");
    world.run_until("the leader is killed", |s| !s.tasks.is_empty());
    let service = name("pg-main");
    let before = world.leaders[&service];
    let members = world.state.members_of(&service);
    let (other, _) = *members.values().find(|(member, _)| *member != before).unwrap();
    world.leaders.insert(service, other);
    world.released.extend(release.then_some((before, 1)));
    world.await_end(id);
    world.state.drills[0].report["acted"].clone()
}

#[test]
fn a_release_is_told_from_the_engines_own_timeout_by_what_the_agent_reported() {
    assert_eq!(moved_by(true), "release");
    assert_eq!(moved_by(false), "the engine's own timeout");
}

#[test]
fn a_full_outage_kills_every_member_at_once() {
    let mut world = World::with_postgres();
    let id = start(&mut world, "full-outage");
    world.run_until("members are killed", |s| !s.tasks.is_empty());
    let victims: BTreeSet<MemberId> = world.state.tasks.values().map(|row| row.task.member).collect();
    let members = world.state.members_of(&name("pg-main"));
    assert_eq!(victims, members.values().map(|(id, _)| *id).collect());
    assert_eq!(world.await_end(id), OperationState::Done);
    assert_eq!(world.state.drills[0].report["acted"], "cold start");
}

#[test]
fn a_kind_without_a_writer_has_no_drills() {
    let world = World::with_postgres();
    let spec = DrillSpec { service: name("pg-main-etcd"), ..drill("kill-container") };
    let why = refusal(&world.state, &spec, world.now).unwrap();
    assert_eq!(why, "there are no drills for the kind `etcd`");
}

#[test]
fn an_agent_loses_its_host_when_every_service_on_it_can_bear_that() {
    let mut world = World::with_postgres();
    let spec = DrillSpec { hold: Span(Millis::seconds(30)), ..drill("kill-host") };
    assert_eq!(refusal(&world.state, &spec, world.now), None);
    assert!(refusal(&world.state, &drill("kill-host"), world.now).unwrap().contains("`hold` must be 1s"));
    let kind = OperationKind::Drill(Box::new(spec));
    let what = What::StartOperation { service: name("pg-main"), kind, seen: None };
    let id = world.must(what).operation.unwrap().0;
    world.run_until("the agent is told", |s| !s.tasks.is_empty());
    let row = world.state.tasks.values().next().unwrap();
    assert_eq!(row.task.what, TaskKind::KillHost { for_ms: 30_000 });
    assert_eq!(row.task.member, world.leaders[&name("pg-main")]);
    assert_eq!(world.await_end(id), OperationState::Done);
}

#[test]
fn patroni_is_never_frozen() {
    let world = World::with_postgres();
    let spec = DrillSpec { hold: Span(Millis::seconds(10)), ..drill("freeze") };
    assert!(refusal(&world.state, &spec, world.now).unwrap().contains("never frozen"));
}
