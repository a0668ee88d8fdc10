//! Golden files and decisions of this kind.

use std::collections::BTreeMap;

use muster_model::view::HealthWord;
use serde_json::json;

use super::Nats;
use crate::kinds::golden::{alone, compare, facts, member, name, peer, refused, running, spec};
use crate::kinds::{Kind, UpdateStep};

const NATS: &str = r#"{"kind":"nats","users":[{"name":"shop"},{"name":"mail"}],"storage":"2GiB"}"#;

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let scene = alone(NATS, vec![peer(1, 1, 17), peer(2, 2, 33), peer(3, 3, 49)]);
    compare("nats/cluster-2", &scene.render(1));
    let scene = alone(r#"{"kind":"nats","members":1}"#, vec![peer(1, 1, 17)]);
    compare("nats/single", &scene.render(0));
}

#[test]
fn a_changed_peer_needs_no_new_container() {
    let mut scene = alone(NATS, vec![peer(1, 1, 17), peer(2, 2, 33), peer(3, 3, 49)]);
    let before = scene.render(0);
    scene.peers[1] = peer(2, 9, 36);
    let after = scene.render(0);
    assert_ne!(before.files, after.files);
    assert_eq!(before.container_hash(), after.container_hash());
}

#[test]
fn wrong_settings_are_refused() {
    refused(r#"{"kind":"nats","members":2}"#, "members");
    refused(r#"{"kind":"nats","storage":"1KiB"}"#, "storage");
    refused(r#"{"kind":"nats","users":[{"name":"system"}]}"#, "users.0.name");
    refused(r#"{"kind":"nats","stream":1}"#, "stream");
}

#[test]
fn roles_and_readiness_are_read() {
    let it = |healthy: bool, leader: &str| {
        let answers = [
            ("health", healthy, json!({"status": if healthy { "ok" } else { "unavailable" }})),
            ("streams", true, json!({"meta_cluster": {"leader": leader}})),
        ];
        Nats.interpret(&spec(NATS), &running("bus", 1, 4, &answers))
    };
    let seen = it(true, "bus-1-4");
    assert_eq!((seen.role.as_deref(), seen.ready), (Some("leader"), true));
    let seen = it(false, "bus-2-5");
    assert_eq!((seen.role.as_deref(), seen.ready), (Some("follower"), false));
}

#[test]
fn one_member_at_a_time_and_the_leader_last() {
    let (bus, spec) = (name("bus"), spec(NATS));
    let mut members =
        vec![member(1, "leader", true), member(2, "follower", true), member(3, "follower", true)];
    members.iter_mut().for_each(|member| member.current = false);
    let mut it = facts(&bus, &spec, members);
    assert_eq!(Nats.next_update(&it), UpdateStep::Recreate(it.members[1].member));
    assert_eq!(Nats.health(&it).word, HealthWord::Healthy);
    it.members[2].seen.as_mut().unwrap().ready = false;
    assert!(Nats.may_stop(&it, it.members[1].member).is_err());
    assert_eq!(Nats.health(&it).word, HealthWord::Critical);
    it.members[1].seen.as_mut().unwrap().ready = false;
    assert_eq!(Nats.health(&it).word, HealthWord::Down);
}

#[test]
fn clients_are_told_every_server_and_only_declared_users() {
    let peers = [peer(1, 1, 17), peer(2, 2, 33)];
    let url = |user| Nats.endpoints(&name("bus"), &spec(NATS), &peers, &BTreeMap::new(), user);
    assert_eq!(
        url(None)[0].url,
        "nats://shop:${secret:bus/user-shop}@172.31.10.17:4222,nats://shop:${secret:bus/user-shop}@172.31.10.33:4222"
    );
    assert!(url(Some("root")).is_empty());
}
