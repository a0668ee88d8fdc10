//! Golden files and decisions of this kind.

use std::collections::BTreeMap;

use serde_json::json;

use super::Writer;
use crate::kinds::Kind;
use crate::kinds::golden::{Scene, compare, name, peer, platform, refused, running, spec};

const WRITER: &str = r#"{"kind":"writer","target":"orders","writes_per_second":50}"#;

#[test]
fn it_is_rendered_as_the_golden_files_say() {
    let scene = Scene {
        platform: platform(&[("orders", r#"{"kind":"postgres"}"#)]),
        service: name("drill-writer"),
        spec: spec(WRITER),
        peers: vec![peer(1, 20, 37)],
        children: BTreeMap::new(),
        owner: None,
        joins_existing: false,
    };
    compare("writer/drill", &scene.render(0));
}

#[test]
fn operators_cannot_write_one() {
    refused(WRITER, "kind");
}

#[test]
fn only_steady_writes_make_it_ready() {
    let seen = |steady: bool| {
        let answers = [("status", true, json!({"steady": steady, "acked": 5}))];
        Writer.interpret(&spec(WRITER), &running("x", 1, 1, &answers)).ready
    };
    assert!(seen(true) && !seen(false));
}
