//! Lost hosts: what is replaced, what waits, and the brake.

use super::*;
use crate::facts::brake;
use crate::leave;
use crate::state::Phase;

fn app(replicas: u32) -> Arc<PlatformSpec> {
    spec(serde_json::json!({ "web": { "kind": "app", "image": "demo/web:1", "replicas": replicas } }))
}

#[test]
fn a_stateless_member_is_replaced_as_soon_as_its_host_is_down() {
    let mut world = World::new(3);
    world.apply_spec(&app(2));
    world.run_until("ready", |s| s.members.len() == 2 && all_ready(s));
    let lost = world.state.members_of(&name("web"))[&1].1.host.clone();
    let number = (1..=3).find(|n| host_id(*n) == lost).unwrap();
    world.down(number);
    world.run_until("replaced", |s| s.members_of(&name("web")).get(&1).is_some_and(|(_, m)| m.host != lost));
    let row = world.state.members.values().find(|m| m.host == lost).unwrap();
    assert!(matches!(row.phase, crate::state::Phase::Retiring { .. }), "its stop is not confirmed yet");
    world.up(number, "boot-2");
    world.run_until("gone", |s| s.members.len() == 2);
}

#[test]
fn members_with_data_wait_a_quarter_of_an_hour_and_are_then_replaced_etcd_among_them() {
    let mut world = World::with_postgres();
    world.join(4);
    let leader = world.state.members[&world.leaders[&name("pg-main")]].host.clone();
    let lost = (1..=3).map(host_id).find(|host| *host != leader).unwrap();
    world.down((1..=3).find(|n| host_id(*n) == lost).unwrap());
    world.run_for(Millis::seconds(850));
    let on_lost =
        |state: &State, service: &str| state.members_of(&name(service)).values().any(|(_, m)| m.host == lost);
    assert!(on_lost(&world.state, "pg-main") && on_lost(&world.state, "pg-main-etcd"));
    world.run_until("all on the spare host", |state| {
        let three = |service| state.members_of(&name(service)).len() == 3 && !on_lost(state, service);
        three("pg-main") && three("pg-main-etcd")
    });
    world.run_until("nothing runs any more", |state| {
        state.operations.values().all(|op| op.outcome.is_some())
            && state
                .members_of(&name("pg-main-etcd"))
                .values()
                .all(|(_, m)| m.seen().is_some_and(|s| s.ready))
    });
    let joined =
        world.state.members_of(&name("pg-main-etcd")).into_values().find(|(_, m)| m.joins_existing).unwrap();
    assert_eq!(joined.1.host, host_id(4));
    let names = world.locks.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&format!("pg-main-etcd-{}-{}", joined.1.slot.index, joined.0)), "{names:?}");
}

#[test]
fn a_host_is_removed_only_when_nothing_that_is_wanted_is_left_on_it() {
    let mut world = World::with_postgres();
    world.must(What::RecordCertificate {
        serial: "0a".to_owned(),
        subject: format!("muster://demo/agent/{}", host_id(2)),
        key_digest: "k".to_owned(),
        expires: Timestamp(u64::MAX),
    });
    let remove = || What::RemoveHost { host: host_id(2) };
    let why = leave::refusal(&world.state, &host_id(2)).unwrap();
    assert!(why.contains("muster host drain vps-2"), "{why}");
    assert!(world.propose(remove()).is_err());
    world.down(2);
    let why = leave::refusal(&world.state, &host_id(2)).unwrap();
    assert!(why.contains("muster service replace pg-main/"), "{why}");
    assert!(world.propose(remove()).unwrap_err().to_string().contains("still has"), "{why}");
    assert_eq!(world.state.certificates["0a"].revoked, None);
    world.join(4);
    world.run_until("all on the spare host", |state| {
        let here = |m: &&crate::state::Member| m.host == host_id(2) && m.phase == Phase::Active;
        let whole = |service| state.members_of(&name(service)).len() == 3;
        state.members.values().filter(here).count() == 0 && whole("pg-main") && whole("pg-main-etcd")
    });
    assert_eq!(leave::refusal(&world.state, &host_id(2)), None);
    world.must(remove());
    assert!(!world.state.hosts.contains_key(&host_id(2)));
    assert_eq!(world.state.check(), Vec::new());
    assert!(world.state.certificates["0a"].revoked.is_some(), "its agent cannot return");
    let beats = What::HostLiveness {
        host: host_id(2),
        liveness: Liveness::Up,
        boot: Some(BootId("boot-2".to_owned())),
    };
    assert!(world.propose(beats).is_err());
    world.silent.remove(&host_id(2));
    world.join(5);
    world.run_until("all ready", all_ready);
    assert_eq!(world.state.check(), Vec::new());
}

#[test]
fn without_another_host_nothing_is_retired() {
    let mut world = World::with_postgres();
    world.down(2);
    world.run_for(Millis::seconds(2_000));
    let left = world.state.members.values().filter(|m| m.host == host_id(2) && m.has_data).count();
    assert_eq!(left, 2, "PostgreSQL and etcd wait for their host");
    world.up(2, "boot-2");
    world.run_until("ready again", |s| s.members.len() == 8 && all_ready(s));
}

#[test]
fn the_brake_holds_when_too_many_hosts_go_down_together_until_they_return_or_an_operator_says_so() {
    let mut world = World::new(5);
    world.apply_spec(&app(5));
    world.run_until("ready", |s| s.members.len() == 5 && all_ready(s));
    world.down(1);
    world.now = world.now.after(Millis::seconds(10));
    world.down(2);
    assert!(brake(&world.state).is_some());
    let before = world.state.members.clone();
    world.run_for(Millis::seconds(120));
    let placed: Vec<_> = world.state.members.keys().collect();
    assert_eq!(placed, before.keys().collect::<Vec<_>>());
    world.must(What::ReleaseBrake);
    assert!(brake(&world.state).is_none());
    world.run_until("replaced", |s| {
        s.members_of(&name("web")).values().all(|(_, m)| m.host != host_id(1) && m.host != host_id(2))
    });
}

#[test]
fn hosts_that_go_down_far_apart_do_not_pull_the_brake() {
    let mut world = World::new(5);
    world.down(1);
    world.now = world.now.after(Millis::seconds(120));
    world.down(2);
    assert!(brake(&world.state).is_none());
}
