//! Exporters: beside their members, out of everybody's way, readable in one network.

use super::*;
use crate::rules::rules;
use crate::state::Member;

const METRICS: &str = "pg-main-metrics";

fn watched(more: serde_json::Value) -> Arc<PlatformSpec> {
    let mut service = serde_json::json!({ "kind": "postgres", "metrics": true });
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec(serde_json::json!({ "pg-main": service }))
}

fn hosts(state: &State, service: &str) -> Vec<(u32, HostId)> {
    let members = state.members_of(&name(service));
    members.into_iter().map(|(slot, (_, member))| (slot, member.host.clone())).collect()
}

fn are_beside(state: &State) -> bool {
    hosts(state, METRICS).len() == 3 && hosts(state, METRICS) == hosts(state, "pg-main") && all_ready(state)
}

fn with_exporters() -> World {
    let mut world = World::with_postgres();
    world.apply_spec(&watched(serde_json::json!({})));
    world.run_until("exporters beside their members", are_beside);
    world
}

#[test]
fn they_come_to_a_running_service_without_touching_it() {
    let mut world = World::with_postgres();
    let before = world.restarts.len();
    world.apply_spec(&watched(serde_json::json!({})));
    world.run_until("exporters beside their members", are_beside);
    world.run_for(Millis::seconds(30));
    let since = world.restarts.split_off(before);
    let theirs = world.state.members_of(&name(METRICS));
    assert!(since.iter().all(|(id, _)| theirs.values().any(|(theirs, _)| theirs == id)), "{since:?}");
    assert!(world.state.operations.values().all(|op| op.outcome.is_some()));
    world.apply_spec(&spec(postgres()));
    world.run_until("gone", |state| !state.services.contains_key(&name(METRICS)));
}

#[test]
fn they_follow_their_members() {
    let mut world = with_exporters();
    world.join(4);
    let kind = crate::state::OperationKind::Replace { slot: 2, confirm_lost: false };
    let reply = world.must(What::StartOperation { service: name("pg-main"), kind, seen: None });
    assert_eq!(world.await_end(reply.operation.unwrap().0), OperationState::Done);
    assert!(hosts(&world.state, "pg-main").contains(&(2, host_id(4))));
    world.run_until("beside again", are_beside);
}

#[test]
fn one_whose_host_is_lost_tells_of_it_from_elsewhere_and_returns() {
    let mut world = with_exporters();
    let leads = world.state.members[&world.leaders[&name("pg-main")]].host.clone();
    let mut others = hosts(&world.state, "pg-main");
    others.retain(|(_, host)| *host != leads);
    let (slot, lost) = others.remove(0);
    let number = (1..=3).find(|number| host_id(*number) == lost).unwrap();
    world.down(number);
    world.run_until("elsewhere", |state| {
        hosts(state, METRICS).iter().any(|(index, host)| *index == slot && *host != lost)
    });
    world.run_for(Millis::seconds(60));
    world.up(number, "boot-2");
    world.run_until("beside again", are_beside);
}

#[test]
fn another_network_of_readers_moves_them_there() {
    let mut world = with_exporters();
    world.apply_spec(&watched(serde_json::json!({ "metrics_network": "proxy" })));
    let read_in = |state: &State, network: &str| {
        let members = state.members_of(&name(METRICS));
        members.len() == 3 && members.values().all(|(_, m)| m.addresses[0].network.as_str() == network)
    };
    world.run_until("read elsewhere", |state| read_in(state, "proxy") && are_beside(state));
}

#[test]
fn an_image_that_does_not_work_holds_up_nobody() {
    let mut world = with_exporters();
    world.bad_image = "broken".to_owned();
    world.apply_spec(&watched(serde_json::json!({ "metrics_image": "muster/broken:1" })));
    world.run_for(Millis::seconds(60));
    let bad = |(_, member): &(MemberId, &Member)| !member.seen().is_some_and(|seen| seen.ready);
    assert!(world.state.members_of(&name(METRICS)).values().all(bad));
    assert!(world.state.operations.values().all(|op| op.outcome.is_some()), "nobody is asked");
    // The database is updated all the same, and its lost member replaced.
    let newer = serde_json::json!({ "metrics_image": "muster/broken:1", "image": "muster/postgres:15-next" });
    world.apply_spec(&watched(newer));
    world.run_until("updated", |state| {
        let members = state.members_of(&name("pg-main"));
        members.values().all(|(_, m)| {
            m.pending.is_none() && m.rendering.as_ref().unwrap().rendered.image.ends_with("15-next")
        })
    });
    world.run_until("no operation", |state| state.operations.values().all(|op| op.outcome.is_some()));
    world.bad_image = "never".to_owned();
    world.run_until("well again", are_beside);
}

#[test]
fn their_port_is_open_in_the_monitoring_network_only() {
    let world = with_exporters();
    let (_, host) = hosts(&world.state, METRICS).remove(0);
    let members: Vec<(MemberId, &Member)> = world.state.members_on(&host).collect();
    let open = rules(&world.state, &members);
    let of_exporter: Vec<_> = open.iter().filter(|rule| rule.port == 9187).collect();
    assert_eq!(of_exporter.len(), 1, "{of_exporter:?}");
    assert_eq!(of_exporter[0].network, name("monnet"));
    assert_eq!(of_exporter[0].sources, ["172.31.50.0/24".parse::<ipnet::Ipv4Net>().unwrap()]);
}
