//! The shipped examples are accepted by the kinds, and the shipped drills by the drill's type.

use std::fs;
use std::path::{Path, PathBuf};

use super::kind;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples").join(dir);
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect()
}

#[test]
fn platforms_are_accepted() {
    let files = files("");
    assert!(files.len() >= 3);
    for file in files {
        let spec = muster_spec::parse(&fs::read_to_string(&file).unwrap()).unwrap().spec;
        for (name, service) in &spec.services {
            let kind = kind(service.kind.as_str()).unwrap();
            assert_eq!(kind.validate(name, service, &spec), [], "{}: {name}", file.display());
        }
    }
}

#[test]
fn drills_are_accepted() {
    let files = files("drills");
    assert!(files.len() >= 2);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (drill, _) = muster_spec::parse_document::<crate::drill::DrillSpec>(&text).unwrap();
        assert_eq!(drill.problem(), None, "{}", file.display());
    }
}
