//! Damaged files for the whole judge, kinds included: refused at a place with a remedy, or read to the end.

use muster_coordinator::judge::judge;
use muster_property::{Target, json, text};

const WORDS: [&str; 26] = [
    "kind: ",
    "postgres",
    "redis",
    "mariadb",
    "s3",
    "nats",
    "app",
    ": ",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "0",
    "-1",
    "1e999",
    "9999999999999999999",
    "true",
    "5m",
    "512MiB",
    "\"\"",
    "${secret:x}",
    "../",
    "\u{202e}",
];

fn try_out(yaml: &str) -> bool {
    match judge(yaml) {
        Ok(read) => {
            assert_eq!(judge(yaml).expect("judged once").spec, read.spec);
            true
        }
        Err(found) => {
            let lines = yaml.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64;
            assert!(!found.is_empty());
            for one in found {
                assert!(!one.message.is_empty() && !one.help.is_empty(), "{one:?}");
                assert!((1..=lines + 1).contains(&one.line) && one.column > 0, "{one:?}");
            }
            false
        }
    }
}

#[test]
fn damaged_files_are_judged() {
    let target = Target::new("judge", env!("CARGO_MANIFEST_DIR")).heavy(2);
    let files: Vec<Vec<u8>> = super::valid().into_iter().map(|(_, text)| text.into_bytes()).collect();
    target.holds(text::damaged(files, &WORDS), |yaml| {
        try_out(&yaml);
    });
}

#[test]
fn files_with_wrong_values_are_judged() {
    let target = Target::new("judge-values", env!("CARGO_MANIFEST_DIR")).heavy(2);
    let document =
        |text: &str| muster_spec::parse_document::<serde_json::Value>(text).expect("a valid file").0;
    let files: Vec<Vec<u8>> =
        super::valid().into_iter().map(|(_, text)| document(&text).to_string().into_bytes()).collect();
    let read = std::cell::Cell::new(0);
    target.holds(json::damaged(&files), |value| {
        read.set(read.get() + u32::from(try_out(&value.to_string())));
    });
    println!("{} of them were read", read.get());
    assert!(read.get() > 0, "no damaged file is valid");
}
