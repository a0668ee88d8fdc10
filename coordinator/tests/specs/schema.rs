//! The schema that editors read: current, never stricter than the judge, and strict enough to be of use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use muster_coordinator::judge::judge;
use serde_json::Value;

use super::{mutate, tree, valid};

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spec.schema.json")
}

fn text() -> String {
    let schema = muster_core::schema::of_spec();
    serde_json::to_string_pretty(&schema).expect("plain data always has a JSON form") + "\n"
}

/// The schema, ready to be asked.
struct Editor {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Editor {
    fn new() -> Self {
        let mut compiler = Compiler::new();
        compiler.add_resource("spec.json", muster_core::schema::of_spec()).expect("a document");
        let mut schemas = Schemas::new();
        let index = compiler.compile("spec.json", &mut schemas).expect("a schema");
        Self { schemas, index }
    }

    /// What it says against a file; absent = nothing. Files that are no data at all are not asked about.
    fn complaint(&self, yaml: &str) -> Option<String> {
        let (value, _) = muster_spec::parse_document::<Value>(yaml).ok()?;
        self.schemas.validate(&value, self.index).err().map(|error| error.to_string())
    }
}

#[test]
fn the_committed_schema_is_current() {
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(committed(), text()).unwrap();
    }
    let there = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(there == text(), "docs/spec.schema.json is not current: run this test with MUSTER_BLESS=1");
}

#[test]
fn what_is_valid_fits_the_schema() {
    let editor = Editor::new();
    for (name, yaml) in valid() {
        assert_eq!(editor.complaint(&yaml), None, "{name}");
    }
}

/// Each line that is marked stands for a file of its own.
#[test]
fn what_is_wrong_at_first_sight_does_not_fit() {
    let editor = Editor::new();
    let file = |services: &str| format!("muster: 1\nplatform: p\nservices:\n{services}");
    let wrong = [
        "muster: 2\nplatform: p\n".to_owned(),
        "muster: 1\n".to_owned(),
        "muster: 1\nplatform: ../etc\n".to_owned(),
        "muster: 1\nplatform: p\ndetection: fast\n".to_owned(),
        "muster: 1\nplatform: p\nmesh: {prot: 1}\n".to_owned(),
        "muster: 1\nplatform: p\nnetworks: {a: {}}\n".to_owned(),
        file("  a: {image: x}\n"),
        file("  a: {kind: postgre}\n"),
        file("  a: {kind: etcd}\n"),
        file("  a: {kind: writer, target: b}\n"),
        file("  A: {kind: redis}\n"),
        file("  a: {kind: app}\n"),
        file("  a: {kind: app, image: x, replicas: 0}\n"),
        file("  a: {kind: app, image: x, replcas: 1}\n"),
        file("  a: {kind: app, image: x, ports: [{port: 70000}]}\n"),
        file("  a: {kind: app, image: x, ports: [{port: 80, audience: everybody}]}\n"),
        file("  a: {kind: app, image: x, ports: [{audience: network}]}\n"),
        file("  a: {kind: app, image: x, stop: {signal: SIGKILL}}\n"),
        file("  a: {kind: app, image: x, probe: {every: 2}}\n"),
        file("  a: {kind: postgres, mode: cluster}\n"),
        file("  a: {kind: postgres, members: 9}\n"),
        file("  a: {kind: postgres, synchronous: maybe}\n"),
        file("  a: {kind: postgres, users: [{nmae: x}]}\n"),
        file("  a: {kind: postgres, shards: 3}\n"),
        file("  a: {kind: redis, eviction: some}\n"),
        file("  a: {kind: redis, node_timeout: 5}\n"),
        file("  a: {kind: s3, users: [{name: abc, access: none}]}\n"),
        file("  a: {kind: nats, storage: much}\n"),
        file("  a: {kind: mariadb, resources: {memory: 1 gig}}\n"),
        file("  a: {kind: redis, survive: rack}\n"),
        file("  a: {kind: redis, update: {on_failure: panic}}\n"),
        file("  a: {kind: redis, place: {spread: rack}}\n"),
    ];
    for yaml in &wrong {
        assert!(judge(yaml).is_err(), "the judge accepts {yaml}");
        assert!(editor.complaint(yaml).is_some(), "the schema accepts {yaml}");
    }
}

/// An editor that marks a good file wrong is worse than none. The other way round the numbers are printed: what the
/// schema sees of the mistakes that the judge sees.
#[test]
fn the_schema_is_never_stricter_than_the_judge() {
    let editor = Editor::new();
    let mut seen = BTreeMap::<&str, (u32, u32)>::new();
    let mut stricter = Vec::new();
    for (name, yaml) in valid().into_iter().filter(|(name, _)| !name.contains("profiles")) {
        for mutation in mutate::all(&tree(&yaml)) {
            let complaint = editor.complaint(&mutation.yaml);
            if judge(&mutation.yaml).is_ok() {
                let path = &mutation.path;
                stricter.extend(complaint.map(|why| format!("{name}: {path}: {}: {why}", mutation.how)));
                continue;
            }
            let (told, all) = seen.entry(mutation.class).or_default();
            (*told, *all) = (*told + u32::from(complaint.is_some()), *all + 1);
        }
    }
    for (class, (told, all)) in &seen {
        println!("schema class={class:?} seen={told} of={all}");
    }
    assert!(
        stricter.is_empty(),
        "{} cases:\n{}",
        stricter.len(),
        stricter[..stricter.len().min(10)].join("\n")
    );
    let (told, all) = seen["unknown key"];
    assert!(told * 100 > all * 95, "{told} of {all} unknown keys are seen");
}
