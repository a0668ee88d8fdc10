//! Golden files and decisions of this kind.

use serde_json::json;

use super::Haproxy;
use crate::kinds::Kind;
use crate::kinds::golden::{child_of_postgres, compare, peer, refused, running, spec};

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let scene = child_of_postgres(r#"{"kind":"postgres"}"#, "proxy");
    compare("haproxy/ha-1", &scene.render(0));
}

#[test]
fn a_replaced_database_only_reloads_it() {
    let mut scene = child_of_postgres(r#"{"kind":"postgres"}"#, "proxy");
    let before = scene.render(0);
    scene.owner.as_mut().unwrap().2[1] = peer(2, 9, 36);
    let after = scene.render(0);
    assert!(after.files[0].content.contains("orders-2-9 172.31.10.36:5432"));
    assert_eq!(before.container_hash(), after.container_hash());
    assert!(after.actions.contains_key("reload"));
}

#[test]
fn it_does_not_stand_alone() {
    refused(r#"{"kind":"haproxy"}"#, "kind");
}

#[test]
fn a_proxy_without_a_leader_behind_it_is_ready_but_does_not_write() {
    let answers = [("alive", true, json!("alive")), ("write", false, json!("no leader"))];
    let seen = Haproxy.interpret(&spec(r#"{"kind":"haproxy"}"#), &running("x", 1, 1, &answers));
    assert_eq!((seen.ready, seen.writes, seen.detail.as_str()), (true, Some(false), "sees no leader"));
}
