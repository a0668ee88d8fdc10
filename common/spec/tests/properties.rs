//! Any text is refused with a place and a remedy or read; what was read is the same when it is printed and read again.

use std::collections::BTreeMap;

use muster_model::spec::PlatformSpec;
use muster_model::view::Diagnostic;
use muster_property::{Target, text};
use muster_spec::{SPEC_LEN_MAX, parse, parse_document};
use serde_json::Value;

const WORDS: [&str; 40] = [
    "muster: 1\n",
    "platform: p\n",
    "services:\n",
    "  web:\n",
    "kind: app",
    "networks:",
    "mesh:",
    ": ",
    "- ",
    "? ",
    "\n",
    "  ",
    "\t",
    "\r",
    "#",
    "{",
    "}",
    "[",
    "]",
    ",",
    "|\n",
    ">-\n",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\"",
    "'",
    "\\u0041",
    "0x1f",
    "1e999",
    ".nan",
    "null",
    "~",
    "\u{feff}",
    "\u{2028}",
];

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"))
}

/// The shipped examples and the corpus.
fn seeds() -> Vec<Vec<u8>> {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let mut seeds = target("spec").seeds();
    let before = seeds.len();
    for entry in std::fs::read_dir(examples).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|end| end == "yaml") {
            seeds.push(std::fs::read(entry.path()).expect("an example"));
        }
    }
    assert!(seeds.len() > before + 4, "the examples are missing");
    seeds
}

/// Each is told with a message, a remedy and a place in the file.
fn told(yaml: &str, found: &[Diagnostic]) {
    let lines = yaml.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64;
    assert!(!found.is_empty(), "refused without a word");
    for one in found {
        assert!(!one.message.is_empty() && !one.help.is_empty(), "no message or no remedy: {one:?}");
        assert!((1..=lines + 1).contains(&one.line) && one.column >= 1, "no place in {lines} lines: {one:?}");
        assert!(one.message.chars().count() <= 310 && one.path.chars().count() <= 310, "too long: {one:?}");
    }
}

/// What YAML cannot hold unescaped, and JSON's printer does not escape.
fn unprintable(text: &str) -> bool {
    let odd = |c: char| {
        matches!(c, '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}')
    };
    text.chars().any(odd)
}

fn judge(yaml: &str) -> bool {
    if let Err(found) = parse_document::<Value>(yaml) {
        told(yaml, &found);
    }
    if let Err(found) = parse_document::<BTreeMap<String, Vec<u32>>>(yaml) {
        told(yaml, &found);
    }
    let parsed = match parse(yaml) {
        Ok(parsed) => parsed,
        Err(found) => {
            told(yaml, &found);
            return false;
        }
    };
    let json = serde_json::to_string(&parsed.spec).expect("plain data has a JSON form");
    let typed: PlatformSpec = serde_json::from_str(&json).expect("what was printed can be read");
    assert_eq!(typed, parsed.spec);
    // JSON is YAML, too.
    if json.len() <= SPEC_LEN_MAX && !unprintable(&json) {
        let again =
            parse(&json).unwrap_or_else(|found| panic!("refused after it was read: {found:?}\n{json}"));
        assert_eq!(again.spec, parsed.spec);
    }
    true
}

#[test]
fn damaged_files_are_refused_at_a_place_or_read_and_printed() {
    let read = std::cell::Cell::new(0);
    target("spec")
        .holds(text::damaged(seeds(), &WORDS), |yaml| read.set(read.get() + u32::from(judge(&yaml))));
    println!("{} of them were read", read.get());
    assert!(read.get() > 0, "nothing that was damaged can be read: the way out and back was not tried");
}

#[test]
fn text_without_form_is_refused_at_a_place_or_read() {
    target("spec-noise").holds(text::noise(&WORDS, 60), |yaml| {
        judge(&yaml);
    });
}

#[test]
fn the_corpus_is_refused_at_a_place_or_read() {
    target("spec").replay(|yaml| {
        judge(&String::from_utf8_lossy(yaml));
    });
}
