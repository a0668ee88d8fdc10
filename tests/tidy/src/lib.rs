//! House rules that a machine can check: crate directions, file and function length, first lines, unfinished marks.

pub mod floors;
pub mod licences;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
pub const FILE_LINES_MAX: usize = 800;
/// Longest function, in lines; tests may be longer.
pub const FUNCTION_LINES_MAX: usize = 90;

/// Which of our crates may use which. A crate that is not listed may use nothing of ours.
pub const DIRECTIONS: &[(&str, &[&str])] = &[
    ("muster-model", &[]),
    ("muster-proto", &[]),
    ("muster-spec", &["muster-model"]),
    ("muster-core", &["muster-model", "muster-spec"]),
    ("muster-runtime", &["muster-model", "muster-proto"]),
    ("muster-consensus", &["muster-proto", "muster-runtime"]),
    (
        "muster-coordinator",
        &["muster-model", "muster-spec", "muster-core", "muster-consensus", "muster-proto", "muster-runtime"],
    ),
    ("muster-agent", &["muster-model", "muster-proto", "muster-runtime"]),
    ("muster-cli", &["muster-model", "muster-proto", "muster-runtime", "muster-spec"]),
    ("muster-sim", &["muster-model", "muster-core", "muster-agent", "muster-spec"]),
];

/// Crates of these prefixes must not appear below `muster-core`: it stays pure.
pub const IMPURE: &[&str] =
    &["tokio", "tonic", "openraft", "bollard", "rand", "getrandom", "chrono", "mio", "hyper"];

/// Edges between our crates that [`DIRECTIONS`] does not allow, from `cargo metadata` JSON. Test-only edges count too,
/// but crates under `tests/` that are not listed may use everything.
#[must_use]
pub fn wrong_directions(metadata: &serde_json::Value) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = DIRECTIONS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some(name) = package["name"].as_str().filter(|name| name.starts_with("muster-")) else {
            continue;
        };
        let in_tests = package["manifest_path"].as_str().is_some_and(|path| path.contains("/tests/"));
        let Some(allowed) = allowed.get(name) else {
            if !in_tests {
                wrong.push(format!("{name} has no row in DIRECTIONS"));
            }
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if used.starts_with("muster-") && !for_tests && !allowed.contains(&used) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    wrong
}

/// Names of impure crates that `muster-core` reaches, from `cargo tree` output with one name a line.
#[must_use]
pub fn impure(core_tree: &str) -> BTreeSet<String> {
    let names = core_tree.lines().filter_map(|line| line.split_whitespace().next());
    let hit = |name: &&str| IMPURE.iter().any(|bad| *name == *bad || name.starts_with(&format!("{bad}-")));
    names.filter(hit).map(str::to_owned).collect()
}

/// Every `.rs` file below `root`, without build output.
///
/// # Errors
/// A folder that cannot be read.
pub fn sources(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is untidy in one file.
#[must_use]
pub fn untidy(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.starts_with("//! ") {
        wrong.push(format!("{name}:1: the first line does not say what the file decides (`//! ...`)"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("{name}: {lines} lines, the limit is {FILE_LINES_MAX}"));
    }
    for mark in [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[igno", "re]"),
    ] {
        if let Some(line) = text.lines().position(|line| line.contains(mark)) {
            wrong.push(format!("{name}:{}: unfinished: {mark}", line + 1));
        }
    }
    let production = text.split("#[cfg(test)]").next().unwrap_or(text);
    wrong.extend(long_functions(name, production));
    wrong
}

/// Functions by rustfmt's layout: from the line with `fn` to the closing brace at the same indent.
fn long_functions(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut wrong = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let is_function = body.starts_with("fn ") || body.contains(" fn ") && !body.starts_with("//");
        if !is_function || body.ends_with(';') || body.ends_with('}') {
            continue;
        }
        let indent = line.len() - body.len();
        let close = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|line| **line == close)
            && length > FUNCTION_LINES_MAX
        {
            wrong.push(format!(
                "{name}:{}: a function of {length} lines, the limit is {FUNCTION_LINES_MAX}",
                start + 1
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
    }

    fn cargo(arguments: &[&str]) -> String {
        let out = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn crates_use_each_other_only_in_the_written_direction() {
        let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
        let wrong = wrong_directions(&serde_json::from_str(&metadata).unwrap());
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn the_core_reaches_no_impure_crate() {
        let tree = cargo(&["tree", "-p", "muster-core", "-e", "normal", "--prefix", "none", "--offline"]);
        assert!(tree.contains("muster-model"));
        assert_eq!(impure(&tree), BTreeSet::new());
    }

    #[test]
    fn every_source_file_is_tidy() {
        let root = root();
        let files = sources(&root).unwrap();
        assert!(files.len() > 50, "only {} files found", files.len());
        let look = |path: &PathBuf| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            untidy(&name, &std::fs::read_to_string(path).unwrap())
        };
        let wrong: Vec<String> = files.iter().flat_map(look).collect();
        assert!(wrong.is_empty(), "{} untidy places:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn every_dependency_has_its_purpose_written_down() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let purposes = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
        let section = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
        let missing: Vec<&str> = names
            .filter(|name| !name.starts_with('#') && !name.starts_with("muster-"))
            .filter(|name| !purposes.contains(&format!("`{name}`")))
            .collect();
        assert!(missing.is_empty(), "no purpose in docs/dependencies.md: {missing:?}");
    }

    #[test]
    fn the_rules_catch_what_they_are_for() {
        assert_eq!(untidy("x.rs", "use a;\n").len(), 1);
        assert_eq!(untidy("x.rs", &format!("//! X.\n{}", "\n".repeat(900))).len(), 1);
        let long = format!("//! X.\nfn a() {{\n{}}}\n", "    b();\n".repeat(FUNCTION_LINES_MAX + 1));
        assert_eq!(untidy("x.rs", &long).len(), 1);
        assert_eq!(untidy("x.rs", concat!("//! X.\nfn a() { todo", "!() }\n")).len(), 1);
        assert_eq!(impure("muster-core v0\ntokio-util v1\nserde v1\n").len(), 1);
        let core = serde_json::json!({"packages": [{"name": "muster-core", "manifest_path": "/r/coordinator/core/Cargo.toml",
            "dependencies": [{"name": "muster-runtime", "kind": null}]}]});
        assert_eq!(wrong_directions(&core), ["muster-core uses muster-runtime"]);
    }
}
