//! After a recovery: plans that only add, inventories, numbers that are never given out twice.

use std::collections::BTreeSet;

use muster_model::ids::{BootId, Generation, LogIndex, MemberId, Revision, Slot};
use muster_model::observed::{ContainerState, EngineStatus, MemberStatus, Report};
use muster_model::time::Timestamp;

use super::*;
use crate::observe::from_report;
use crate::recovery::{Beginning, begin};

fn status(member: u64, slot: &str) -> MemberStatus {
    MemberStatus {
        member: MemberId(member),
        slot: slot.parse::<Slot>().unwrap(),
        revision: Revision(1),
        container_hash: String::new(),
        state: ContainerState::Running { since: Timestamp(1) },
        restarts: 0,
        restarts_done: 0,
        releases: 0,
        system_id: None,
        refused: None,
        successor: None,
        probes: Vec::new(),
    }
}

fn report(world: &World, generation: Generation, members: Vec<MemberStatus>) -> Report {
    let host = &world.state.hosts[&host_id(1)];
    Report {
        boot: BootId("boot-1".to_owned()),
        generation,
        engine: EngineStatus { answering: true, since: host.engine.1, version: String::new() },
        facts: HostFacts::clone(&host.facts),
        members,
        answers: Vec::new(),
        conditions: Vec::new(),
        images: None,
        links: None,
    }
}

fn inventories(world: &World, report: &Report) -> Vec<Option<Vec<String>>> {
    let commands = from_report(&world.state, &host_id(1), report).into_iter();
    let found = commands.filter_map(|command| match command.what {
        What::HostInventory { found, .. } => Some(found),
        _ => None,
    });
    found.collect()
}

#[test]
fn nothing_is_stopped_or_placed_until_the_inventory_is_known() {
    let mut world = World::new(1);
    let app = |name: &str| serde_json::json!({ name: { "kind": "app", "image": "a:1" } });
    world.apply_spec(&spec(app("a")));
    for _ in 0..6 {
        world.lead();
        world.agents();
    }
    let (old, known) = (plan::published(&world.state, &host_id(1)).unwrap(), world.state.next_member);
    let (id, _) = world.state.members_of(&name("a")).into_values().next().unwrap();
    let last = world.state.index;
    let how = "recovered".to_owned();
    let beginning = Beginning { node: 7, incarnation: 2, index: LogIndex(last.0 + 9), at: world.now, how };
    assert!(begin(&mut world.state, &beginning, &BTreeSet::new()));
    assert!(world.state.next_member > known && world.state.index == LogIndex(last.0 + 9));
    assert!(world.state.audit.entries.back().unwrap().action.contains("incarnation 2"));
    for _ in 0..8 {
        world.lead();
    }
    let plan = plan::published(&world.state, &host_id(1)).unwrap();
    assert!(plan.additive_only && plan.generation > old.generation && plan.members == old.members);

    // The word of an agent on a plan of the time before says nothing.
    let hash = world.state.members[&id].rendering.as_ref().unwrap().container_hash.clone();
    let mine = || MemberStatus { container_hash: hash.clone(), ..status(id.0, "a/1") };
    assert_eq!(inventories(&world, &report(&world, old.generation, vec![mine()])), []);
    // A snapshot from before an update: as a whole plan it would have everything made anew at once.
    let updated = report(&world, plan.generation, vec![status(id.0, "a/1")]);
    let told = format!("a/1 (member {id}, of another revision)");
    assert_eq!(inventories(&world, &updated), [Some(vec![told])]);
    // Something that nobody here knows.
    let found = report(&world, plan.generation, vec![mine(), status(900, "web/1")]);
    let told = vec!["web/1 (member 900)".to_owned()];
    assert_eq!(inventories(&world, &found), [Some(told.clone())]);
    world.must(What::HostInventory { host: host_id(1), found: Some(told) });
    assert_eq!(inventories(&world, &found), []);
    world.apply_spec(&spec(serde_json::json!({
        "a": { "kind": "app", "image": "a:1" }, "b": { "kind": "app", "image": "a:1" }
    })));
    for _ in 0..8 {
        world.lead();
    }
    assert!(world.state.members_of(&name("b")).is_empty());
    assert!(plan::published(&world.state, &host_id(1)).unwrap().additive_only);

    // It is gone, or an operator gives it up.
    let clean = report(&world, plan.generation, vec![mine()]);
    assert_eq!(inventories(&world, &clean), [None]);
    world.must(What::HostInventory { host: host_id(1), found: None });
    for _ in 0..8 {
        world.lead();
    }
    assert!(!plan::published(&world.state, &host_id(1)).unwrap().additive_only);
    let (new, _) = world.state.members_of(&name("b")).into_values().next().unwrap();
    assert!(new.0 > known.0 + 900, "{new} may be in use on a host");
}
