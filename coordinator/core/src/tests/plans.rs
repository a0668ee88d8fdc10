//! Host plans: content, audiences, generations.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::*;
use crate::kinds::CA_SECRET;

fn plans(world: &World) -> Vec<HostPlan> {
    world.state.hosts.keys().map(|id| plan::published(&world.state, id).unwrap()).collect()
}

#[test]
fn a_counter_stands_for_one_content_and_grows_only_when_it_changes() {
    let mut world = World::with_postgres();
    let before = plans(&world);
    world.run_for(Millis::seconds(30));
    assert_eq!(plans(&world), before);
    let id = host_id(1);
    let stale = What::PublishPlan {
        host: id.clone(),
        counter: world.state.hosts[&id].plan_counter,
        hash: "other".to_owned(),
        dropped: Vec::new(),
        told: Vec::new(),
    };
    assert!(world.propose(stale).is_err(), "two leaders cannot use one counter");
}

#[test]
fn a_plan_that_is_not_published_is_not_sent() {
    let mut world = World::with_postgres();
    world.apply_spec(&spec(
        serde_json::json!({ "pg-main": { "kind": "postgres", "image": "muster/postgres:16" } }),
    ));
    let changed = world.state.hosts.keys().any(|id| plan::published(&world.state, id).is_none());
    assert!(changed, "the spec's revision is part of what agents carry");
    world.run_for(Millis::seconds(2));
    assert!(world.state.hosts.keys().all(|id| plan::published(&world.state, id).is_some()));
}

#[test]
fn etcd_answers_only_its_family_and_the_agents_of_its_hosts() {
    let world = World::with_postgres();
    let etcd = world.state.members_of(&name("pg-main-etcd"));
    let (_, member) = &etcd[&1];
    let address = member.addresses[0].address;
    let plan = plan::published(&world.state, &member.host).unwrap();
    let rules: Vec<_> = plan.network.rules.iter().filter(|rule| rule.address == address).collect();
    assert!(!rules.is_empty());
    let subnet: Ipv4Net = "172.31.10.0/24".parse().unwrap();
    let family: BTreeSet<Ipv4Net> =
        world.state.members.values().flat_map(|m| &m.addresses).map(|a| a.address.into()).collect();
    let gateways: BTreeSet<Ipv4Net> = world
        .state
        .hosts
        .keys()
        .filter_map(|id| world.state.gateway(&name("dbnet"), id))
        .map(Ipv4Net::from)
        .collect();
    for rule in rules {
        assert!(!rule.sources.contains(&subnet), "{rule:?}");
        assert!(rule.sources.iter().all(|source| family.contains(source) || gateways.contains(source)));
    }
}

#[test]
fn one_host_has_no_mesh_and_three_have_all_peers() {
    let mut alone = World::new(1);
    alone.apply_spec(&spec(serde_json::json!({ "web": { "kind": "app", "image": "demo/web:1" } })));
    alone.run_for(Millis::seconds(5));
    assert!(plans(&alone)[0].network.mesh.is_none());
    assert!(!plans(&alone)[0].network.networks.is_empty());
    let world = World::with_postgres();
    for plan in plans(&world) {
        let mesh = plan.network.mesh.unwrap();
        assert_eq!(mesh.peers.len(), 2);
        assert_eq!(mesh.mtu, 1370);
        let dbnet = plan.network.networks.iter().find(|n| n.name.as_str() == "dbnet").unwrap();
        assert_eq!((dbnet.blocks.len(), dbnet.remote.len()), (1, 2));
    }
}

#[test]
fn a_host_is_told_the_names_of_the_secrets_of_its_own_members_only() {
    let world = World::with_postgres();
    let names = plan::secret_names(&plans(&world)[0]);
    assert!(names.iter().any(|secret| secret.starts_with("pg-main/")), "{names:?}");
    let known = |name: &String| name == CA_SECRET || world.state.secrets.contains_key(name);
    assert!(names.iter().all(known), "{names:?}");
}
