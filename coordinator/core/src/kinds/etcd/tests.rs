//! Golden files and decisions of this kind.

use muster_model::view::HealthWord;
use serde_json::json;

use super::Etcd;
use crate::kinds::golden::{
    child_of_postgres, compare, facts, locks, member, name, peer, refused, running, spec,
};
use crate::kinds::{Kind, UpdateStep};

const POSTGRES: &str = r#"{"kind":"postgres"}"#;

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let mut scene = child_of_postgres(POSTGRES, "etcd");
    for index in 0..scene.peers.len() {
        compare(&format!("etcd/ha-{}", index + 1), &scene.render(index));
    }
    scene.peers = locks();
    scene.peers[1] = peer(2, 9, 36);
    scene.joins_existing = true;
    compare("etcd/joins", &scene.render(1));
}

#[test]
fn a_changed_peer_needs_no_new_container() {
    let mut scene = child_of_postgres(POSTGRES, "etcd");
    let before = scene.render(0);
    scene.peers[1] = peer(2, 9, 36);
    let after = scene.render(0);
    assert_ne!(before.files, after.files);
    assert_eq!(before.container_hash(), after.container_hash());
}

#[test]
fn it_does_not_stand_alone() {
    refused(r#"{"kind":"etcd"}"#, "kind");
}

#[test]
fn roles_and_alarms_are_read() {
    let ok = json!({"health":"true","reason":""});
    let status = json!({"header":{"member_id":"7"},"leader":"7","dbSize":"1"});
    let quiet = json!({"header":{}});
    let it = |health: &serde_json::Value, status: &serde_json::Value, alarm: &serde_json::Value| {
        let answers = [
            ("health", true, health.clone()),
            ("status", true, status.clone()),
            ("alarm", true, alarm.clone()),
        ];
        Etcd.interpret(&spec(r#"{"kind":"etcd"}"#), &running("x", 1, 1, &answers))
    };
    let leader = it(&ok, &status, &quiet);
    assert_eq!((leader.role.as_deref(), leader.ready), (Some("leader"), true));
    let follower = it(&ok, &json!({"header":{"member_id":"8"},"leader":"7"}), &quiet);
    assert_eq!((follower.role.as_deref(), follower.ready), (Some("follower"), true));
    let alone = it(
        &json!({"health":"false","reason":"RAFT NO LEADER"}),
        &json!({"header":{"member_id":"8"}}),
        &quiet,
    );
    assert_eq!((alone.role, alone.ready, alone.detail.as_str()), (None, false, "no leader"));
    let full = it(&ok, &status, &json!({"alarms":[{"memberID":"7","alarm":"NOSPACE"}]}));
    assert_eq!((full.ready, full.detail.as_str()), (false, "alarm NOSPACE"));
}

#[test]
fn all_start_together_and_are_touched_one_by_one_leader_last() {
    let (service, spec) = (name("locks"), spec(r#"{"kind":"etcd"}"#));
    let mut two = facts(&service, &spec, vec![member(1, "leader", true), member(2, "follower", true)]);
    two.slots = 3;
    two.formed = false;
    assert!(Etcd.may_start(&two, 1).is_err(), "the third address is not known yet");
    let mut members =
        vec![member(1, "leader", true), member(2, "follower", true), member(3, "follower", true)];
    assert!(Etcd.may_start(&facts(&service, &spec, members.clone()), 1).is_ok());
    let mut order = Vec::new();
    members.iter_mut().for_each(|member| member.current = false);
    while let UpdateStep::Recreate(next) = Etcd.next_update(&facts(&service, &spec, members.clone())) {
        order.push(next.0);
        members.iter_mut().filter(|member| member.member == next).for_each(|member| member.current = true);
    }
    assert_eq!(order, [2, 3, 1]);
    members[0].current = false;
    members[2] = member(3, "follower", false);
    let step = Etcd.next_update(&facts(&service, &spec, members.clone()));
    assert!(matches!(step, UpdateStep::Wait(why) if why.contains("locks/3")));
    let health = Etcd.health(&facts(&service, &spec, members.clone()));
    assert_eq!(health.word, HealthWord::Critical);
    members[0].seen = None;
    assert_eq!(Etcd.health(&facts(&service, &spec, members)).word, HealthWord::Down);
}
