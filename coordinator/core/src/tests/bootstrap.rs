//! From a spec to running members.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_database_is_formed_once_its_first_member_leads_and_the_others_join() {
    let mut world = World::new(3);
    world.apply_spec(&spec(postgres()));
    let mut first_starts = Vec::new();
    for _ in 0..60 {
        world.round();
        let started =
            world.state.members.values().filter(|m| m.slot.service.as_str() == "pg-main" && m.started);
        let count = started.count();
        if first_starts.last() != Some(&count) {
            first_starts.push(count);
        }
    }
    assert_eq!(first_starts, [0, 1, 3], "the first member alone, then the others");
    assert!(all_ready(&world.state));
    assert!(world.state.services[&name("pg-main")].formed);
    assert!(world.state.services[&name("pg-main-etcd")].formed);
    assert!(
        world.state.members.values().filter(|m| m.slot.service.as_str() == "pg-main").all(|m| m.has_data)
    );
}

#[test]
fn members_of_one_service_are_on_different_hosts_with_their_own_addresses() {
    let world = World::with_postgres();
    for service in ["pg-main", "pg-main-etcd"] {
        let members = world.state.members_of(&name(service));
        let hosts: BTreeSet<&HostId> = members.values().map(|(_, m)| &m.host).collect();
        assert_eq!(hosts.len(), 3, "{service}");
    }
    assert_eq!(world.state.members_of(&name("pg-main-proxy")).len(), 2);
}

#[test]
fn nothing_is_proposed_on_a_platform_at_rest() {
    let mut world = World::with_postgres();
    assert_eq!(reconcile::run(&world.state, world.now), Vec::new());
    let before = world.state.clone();
    world.run_for(Millis::seconds(30));
    assert_eq!(before.members, world.state.members);
    assert_eq!(before.hosts, world.state.hosts);
}

#[test]
fn every_container_is_started_once_while_the_cluster_is_formed() {
    let world = World::with_postgres();
    let mut seen = BTreeSet::new();
    for (member, _) in &world.restarts {
        assert!(seen.insert(*member), "member {member} was re-created during bootstrap");
    }
}

#[test]
fn a_spec_without_enough_hosts_waits_in_words_and_goes_on_when_they_join() {
    let mut world = World::new(2);
    world.apply_spec(&spec(postgres()));
    world.run_for(Millis::seconds(20));
    let local = crate::view::Local { now: world.now, ..Default::default() };
    let view = crate::view::platform(&world.state, &local).unwrap();
    let etcd = view.services.iter().find(|s| s.name.as_str() == "pg-main-etcd").unwrap();
    let reasons = etcd.health.reasons.join("; ");
    assert!(reasons.contains("already with a member of pg-main-etcd"), "{reasons}");
    world.join(3);
    world.run_until("all ready", |state| state.members.len() == 8 && all_ready(state));
}
