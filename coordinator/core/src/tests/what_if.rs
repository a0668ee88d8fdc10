//! What is predicted of losses: of one host, of several, of coordinators.

use muster_model::view::{CoordinatorView, LossView};

use super::*;
use crate::what_if::{coordinators_down, hosts_down};

fn group() -> Vec<CoordinatorView> {
    let one = |id: u64| CoordinatorView {
        id,
        endpoint: format!("203.0.113.{id}:7400"),
        leader: id == 1,
        voter: true,
        reachable: Some(true),
    };
    (1..=3).map(one).collect()
}

fn of_database(world: &World, hosts: &[usize]) -> LossView {
    let hosts: Vec<HostId> = hosts.iter().map(|number| host_id(*number)).collect();
    let view = hosts_down(&world.state, &hosts, world.now, &group());
    view.services.into_iter().find(|loss| loss.service == name("pg-main")).unwrap()
}

#[test]
fn two_of_three_hosts_stop_what_one_does_not() {
    let mut world = World::with_postgres();
    let one = of_database(&world, &[1]);
    assert!(one.writes && one.reads && !one.bears_another, "{one:?}");
    assert_eq!((one.copies, one.copies_left, one.repair.as_str()), (3, 2, "when the host is back"));
    let two = of_database(&world, &[1, 2]);
    assert!(!two.writes && two.copies_left == 1, "{two:?}");
    world.join(4);
    let spare = of_database(&world, &[1]);
    assert_eq!(spare.repair, "elsewhere, after 15m");
    let empty = of_database(&world, &[4]);
    assert!(empty.writes && empty.bears_another && empty.repair.is_empty(), "{empty:?}");
}

#[test]
fn with_three_copies_of_an_application_one_more_may_go() {
    let mut world = World::new(3);
    let web = serde_json::json!({ "web": { "kind": "app", "image": "demo/web:1", "replicas": 3 } });
    world.apply_spec(&spec(web));
    world.run_until("ready", |state| state.members.len() == 3 && all_ready(state));
    let lost = |hosts: &[HostId]| hosts_down(&world.state, hosts, world.now, &[]).services.remove(0);
    let one = lost(&[host_id(1)]);
    assert!(one.writes && one.bears_another, "{one:?}");
    assert_eq!(one.repair, "elsewhere, at once");
    let two = lost(&[host_id(1), host_id(2)]);
    assert!(two.writes && !two.bears_another, "{two:?}");
    assert!(!lost(&[host_id(1), host_id(2), host_id(3)]).writes);
}

#[test]
fn coordinators_are_counted_wherever_they_are_lost() {
    let world = World::with_postgres();
    let told = |hosts: &[HostId]| hosts_down(&world.state, hosts, world.now, &group()).control_plane;
    assert!(told(&[host_id(1)]).is_some_and(|line| line.contains("2 of 3") && line.contains("0 more")));
    assert!(
        told(&[host_id(1), host_id(3)]).is_some_and(|line| line.contains("1 of 3") && line.contains("stop"))
    );
    let alone = coordinators_down(&[2], &group());
    assert!(alone.services.is_empty() && alone.host == "203.0.113.2:7400");
    assert_eq!(coordinators_down(&[9], &group()).control_plane, None);
}
