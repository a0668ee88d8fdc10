//! Services that are made larger and smaller.

use super::*;
use crate::reconcile::surplus_waits;

fn members(count: u32) -> Arc<PlatformSpec> {
    spec(serde_json::json!({ "pg-main": { "kind": "postgres", "members": count } }))
}

#[test]
fn a_surplus_member_that_leads_gives_its_role_away_and_leaves() {
    let mut world = World::with_postgres();
    world.join(4);
    world.apply_spec(&members(4));
    let service = name("pg-main");
    world.run_until("four", |state| state.members_of(&service).len() == 4 && all_ready(state));
    let (top, row) = world.state.members_of(&service)[&4];
    assert!(row.joins_existing && row.host == host_id(4));
    world.leaders.insert(service.clone(), top);
    world.run_for(Millis::seconds(5));
    let restarts = world.restarts.len();
    world.apply_spec(&members(3));
    assert!(
        surplus_waits(&world.state, &service, world.now).unwrap().contains("pg-main/4 is no longer wanted")
    );
    world.run_until("three", |state| !state.members.contains_key(&top));
    assert_ne!(world.leaders[&service], top);
    assert_eq!(world.restarts.len(), restarts, "nobody else was restarted");
    assert!(all_ready(&world.state));
}

#[test]
fn a_single_database_becomes_a_cluster_on_the_same_data_etcd_member_by_member() {
    let mut world = World::new(3);
    world.apply_spec(&spec(serde_json::json!({ "pg-main": { "kind": "postgres", "mode": "single" } })));
    world.run_until("formed", |s| {
        s.members.len() == 2 && all_ready(s) && s.services.values().all(|s| s.formed)
    });
    world.run_for(Millis::seconds(5));
    let restarts = world.restarts.len();
    let first = world.state.members_of(&name("pg-main"))[&1].0;
    let places = muster_spec::Places::default();
    let view = crate::dry_run::plan(&world.state, &spec(postgres()), &places, world.now, &[]);
    assert_eq!(view.refusals, Vec::new());
    assert!(view.placement.iter().any(|line| line.contains("one after the other")), "{:?}", view.placement);
    world.apply_spec(&spec(postgres()));
    let mut most_unknown = 0;
    for _ in 0..1_000 {
        let etcd = world.state.members_of(&name("pg-main-etcd"));
        let unready = etcd.values().filter(|(_, m)| !m.seen().is_some_and(|seen| seen.ready));
        most_unknown = most_unknown.max(unready.count());
        world.round();
    }
    assert!(world.state.members.len() == 8 && all_ready(&world.state), "{:#?}", world.state.operations);
    assert_eq!(most_unknown, 1, "one new etcd member at a time");
    assert_eq!(world.state.members_of(&name("pg-main"))[&1].0, first);
    let again = world.restarts[restarts..].iter().filter(|(id, _)| *id == first).count();
    assert_eq!(again, 0, "the first member was restarted");
    assert_eq!(world.locks.names().len(), 3);
}
