//! Wrong spec files: every field of the valid ones made wrong in every way, bombs, wrong meanings, noise. Nothing wrong
//! may be accepted silently, nothing may panic or take long, and each mistake is told at its line with a remedy.
//!
//! `cargo test -p muster-coordinator --test specs -- --nocapture` prints every sample as
//! `class=... path=... line=... message=...`.

mod allowed;
mod bombs;
mod document;
mod meaning;
mod mutate;
mod properties;
mod schema;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_coordinator::judge::judge;
use muster_model::view::Diagnostic;
use serde_json::Value;

use self::document::Node;
use self::mutate::Mutation;

/// Longest time that any file may take; more without optimisation, on a machine that does other things too.
const TIME_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 1 });

/// The valid files: the shipped examples, the CLI's profiles, and one with every field.
fn valid() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["coordinator/tests/specs", "cli/src/profiles", "deploy/examples"] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // Drills are read by another judge.
            if path.extension().is_some_and(|end| end == "yaml") && text.contains("\nservices:") {
                files.push((path.display().to_string(), text.replace("PLATFORM", "shop")));
            }
        }
    }
    files.sort();
    files
}

/// The verdict, or why there is none.
fn verdict(yaml: &str) -> Result<Option<Vec<Diagnostic>>, String> {
    let began = Instant::now();
    let verdict = catch_unwind(|| judge(yaml).err()).map_err(|_| "panicked".to_owned())?;
    let took = began.elapsed();
    if took > TIME_MAX { Err(format!("took {took:?}")) } else { Ok(verdict) }
}

/// What is wrong with the answer to a wrong file.
fn complaint(found: &[Diagnostic], lines: &[u64], suggest: Option<&str>) -> Option<String> {
    if found.is_empty() {
        return Some("refused without a word".to_owned());
    }
    if let Some(mute) = found.iter().find(|one| one.message.is_empty() || one.help.is_empty()) {
        return Some(format!("no message or no remedy: {mute:?}"));
    }
    let here: Vec<&Diagnostic> = found.iter().filter(|one| lines.contains(&one.line)).collect();
    if here.is_empty() {
        return Some(format!("told elsewhere than line {}: {:?}", lines[0], &found[..found.len().min(3)]));
    }
    let named = |word: &str| here.iter().any(|one| one.help.contains(&format!("did you mean `{word}`?")));
    suggest.filter(|word| !named(word)).map(|word| format!("`{word}` is not suggested: {here:?}"))
}

/// One raw sample.
fn sample(class: &str, path: &str, how: &str, found: &Option<Vec<Diagnostic>>) {
    match found.as_ref().and_then(|found| found.first()) {
        Some(first) => println!(
            "class={class:?} path={path} how={how:?} line={} message={:?} help={:?}",
            first.line, first.message, first.help
        ),
        None => println!("class={class:?} path={path} how={how:?} accepted"),
    }
}

#[derive(Default)]
struct Count {
    refused: u32,
    allowed: u32,
}

/// Judges every mutation; the counts per class, and the failures.
fn judge_all(mutations: &[Mutation], used: &mut [bool]) -> (BTreeMap<&'static str, Count>, Vec<String>) {
    let (mut counts, mut failures) = (BTreeMap::<_, Count>::new(), Vec::new());
    for mutation in mutations {
        let Mutation { class, path, how, yaml, lines, suggest } = mutation;
        let count = counts.entry(*class).or_default();
        let mut fail = |why: &str| failures.push(format!("{class}: {path}: {how}: {why}"));
        let found = match verdict(yaml) {
            Ok(found) => found,
            Err(why) => {
                fail(&why);
                continue;
            }
        };
        sample(class, path, how, &found);
        let told = found.as_ref().map(|found| complaint(found, lines, suggest.as_deref()));
        let rule = allowed::rule(class, path, how, told.is_some());
        match (told, rule) {
            (Some(None), _) => count.refused += 1,
            (Some(Some(_)), Some((at, _))) => (used[at], count.refused) = (true, count.refused + 1),
            (Some(Some(why)), None) => fail(&why),
            (None, Some((at, _))) => (used[at], count.allowed) = (true, count.allowed + 1),
            (None, None) => fail("accepted silently"),
        }
    }
    (counts, failures)
}

#[test]
fn the_valid_files_are_judged_clean() {
    let files = valid();
    assert!(files.len() >= 4, "{files:?}");
    for (name, text) in files {
        assert_eq!(judge(&text).err(), None, "{name}");
        let document = tree(&text).write().0;
        assert_eq!(
            judge(&document).unwrap().spec,
            judge(&text).unwrap().spec,
            "{name}, rewritten:\n{document}"
        );
    }
}

fn tree(text: &str) -> Node {
    Node::of(&muster_spec::parse_document::<Value>(text).expect("a valid file").0)
}

#[test]
fn every_field_made_wrong_is_refused_at_its_line_with_a_remedy() {
    let mut used = vec![false; allowed::RULES.len()];
    let mut failures = Vec::new();
    let mut totals = BTreeMap::<&str, Count>::new();
    // The profiles are like the examples; judging them clean is enough.
    for (name, text) in valid().into_iter().filter(|(name, _)| !name.contains("profiles")) {
        let (counts, wrong) = judge_all(&mutate::all(&tree(&text)), &mut used);
        failures.extend(
            wrong.into_iter().map(|why| format!("{}: {why}", name.rsplit('/').next().unwrap_or_default())),
        );
        for (class, count) in counts {
            let total = totals.entry(class).or_default();
            total.refused += count.refused;
            total.allowed += count.allowed;
        }
    }
    for (class, count) in &totals {
        println!("count class={class:?} refused={} valid={}", count.refused, count.allowed);
    }
    let stale = allowed::RULES.iter().zip(&used).filter(|(_, used)| !**used);
    failures.extend(
        stale.map(|(rule, _)| {
            format!("nothing needs the rule {:?} {:?}: {}", rule.class, rule.paths, rule.why)
        }),
    );
    if let Ok(file) = std::env::var("SPECS_FAILURES") {
        std::fs::write(file, failures.join("\n")).unwrap();
    }
    let shown = failures.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}
