//! Where slots go that must keep apart: every combination of hosts, shards and replicas that has a placement gets one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::ids::BootId;
use muster_model::observed::{Condition, DISK_NEARLY_FULL, FOUND_MEMBERS};

use super::{World, host_id, name, spec};
use crate::command::What;

/// Slots by host, of a Redis Cluster on a platform with so many hosts.
fn placed(hosts: usize, shards: usize, replicas: usize) -> BTreeMap<String, Vec<u32>> {
    let mut world = World::new(hosts);
    let cluster = serde_json::json!({ "kind": "redis", "shards": shards, "replicas": replicas });
    world.apply_spec(&spec(serde_json::json!({ "cache": cluster })));
    for _ in 0..8 {
        world.lead();
    }
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (slot, (_, member)) in world.state.members_of(&name("cache")) {
        found.entry(member.host.to_string()).or_default().push(slot);
    }
    found
}

#[test]
fn no_host_gets_two_masters_or_a_shard_twice_and_none_is_crowded() {
    for (hosts, shards, replicas) in
        [(3, 3, 1), (3, 3, 2), (4, 3, 1), (4, 4, 1), (5, 3, 2), (5, 5, 1), (6, 3, 1), (6, 6, 2), (7, 4, 3)]
    {
        let found = placed(hosts, shards, replicas);
        let case = format!("{hosts} hosts, {shards} shards, {replicas} replicas: {found:?}");
        assert_eq!(found.values().map(Vec::len).sum::<usize>(), shards * (1 + replicas), "{case}");
        for slots in found.values() {
            let of_shards: BTreeSet<u32> = slots.iter().map(|slot| slot / 10).collect();
            assert_eq!(of_shards.len(), slots.len(), "{case}");
            assert!(slots.iter().filter(|slot| *slot % 10 == 1).count() <= 1, "{case}");
        }
        let most = found.values().map(Vec::len).max().unwrap_or(0);
        let fair = (shards * (1 + replicas)).div_ceil(hosts);
        assert!(most <= fair + 1, "{case}");
    }
}

#[test]
fn what_has_no_placement_is_said() {
    let found = placed(2, 3, 1);
    assert!(found.values().map(Vec::len).sum::<usize>() < 6, "three masters on two hosts: {found:?}");
}

#[test]
fn nothing_is_placed_beside_members_that_were_found() {
    all_on_the_other_host(FOUND_MEMBERS, "found here: pg-main/1");
}

#[test]
fn nothing_is_placed_on_a_disk_that_is_nearly_full() {
    all_on_the_other_host(DISK_NEARLY_FULL, "the disk is more than 85 % full");
}

fn all_on_the_other_host(code: &str, text: &str) {
    let mut world = World::new(2);
    let found = Condition { code: code.to_owned(), text: text.to_owned() };
    let facts = Arc::clone(&world.state.hosts[&host_id(1)].facts);
    world.must(What::HostFacts {
        host: host_id(1),
        boot: BootId("boot-1".to_owned()),
        facts,
        engine: (true, world.now),
        conditions: vec![found],
    });
    world.apply_spec(&spec(serde_json::json!({ "a": { "kind": "app", "image": "a:1", "replicas": 2 } })));
    for _ in 0..4 {
        world.lead();
    }
    let members = world.state.members_of(&name("a"));
    assert!(
        members.len() == 2 && members.values().all(|(_, member)| member.host == host_id(2)),
        "{members:?}"
    );
}
