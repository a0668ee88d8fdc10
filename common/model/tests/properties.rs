//! What coordinators, agents and the CLI send each other as JSON: anything is an error or a value, and a value is the
//! same when it is written and read again.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use muster_model::ids::{HostId, Name, Slot};
use muster_model::observed::{Answer, Report};
use muster_model::plan::{ActionSpec, Guard, HostPlan, Predicate, Rendered, hash_of};
use muster_model::spec::{PlatformSpec, Size, Span};
use muster_model::time::Millis;
use muster_model::view::{
    AuditView, Diagnostic, EventView, GroupView, OperationView, PlanView, PlatformView,
};
use muster_property::{Target, bytes, json, text};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"))
}

/// Whether it could be read.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&value).expect("plain data has a JSON form");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, value);
    assert_eq!(hash_of(&again), hash_of(&value));
    true
}

/// As every type that travels; how many of them took it.
fn read_all(bytes: &[u8]) -> usize {
    let readers = [
        read::<Report>,
        read::<HostPlan>,
        read::<Rendered>,
        read::<Guard>,
        read::<ActionSpec>,
        read::<PlatformSpec>,
        read::<PlatformView>,
        read::<PlanView>,
        read::<GroupView>,
        read::<OperationView>,
        read::<EventView>,
        read::<AuditView>,
        read::<Vec<Diagnostic>>,
        read::<Predicate>,
    ];
    if let Ok(rendered) = serde_json::from_slice::<Rendered>(bytes) {
        assert_eq!(rendered.container_hash().len(), 16);
    }
    readers.iter().filter(|read| read(bytes)).count()
}

/// What kinds really render, beside the corpus.
fn seeds() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut seeds = target("json").seeds();
    for kind in ["postgres/ha-1", "redis/cluster-1", "mariadb/ha-1", "s3/three-1", "app/full"] {
        seeds.extend(std::fs::read(golden.join(kind).join("member.json")).ok());
    }
    assert!(seeds.len() > 5, "the golden files are missing");
    seeds
}

#[test]
fn json_of_any_content_is_an_error_or_the_same_value_again() {
    let taken = std::cell::Cell::new(0);
    let target = target("json");
    target.holds(json::damaged(&seeds()), |value: Value| {
        taken.set(taken.get() + read_all(value.to_string().as_bytes()));
    });
    println!("{} values were read", taken.get());
    assert!(taken.get() > 0, "nothing that was damaged can be read");
    target.replay(|input| {
        read_all(input);
    });
}

#[test]
fn bytes_of_any_form_are_an_error_or_a_value() {
    target("json-bytes").holds(bytes::any_of(seeds()), |input| {
        read_all(&input);
    });
}

/// Printed, it is read as the same; another text that is read as it is printed as one spelling.
fn text_of<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse::<T>().ok(), Some(value), "{text:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn names_sizes_and_spans_are_read_as_they_are_printed() {
    let seeds = ["512MiB", "10GB", "90s", "1500ms", "pg-main/2", "shop", "18446744073709551615B", "+7d"];
    let words = ["TiB", "kB", "B", "ms", "d", "/", "-", "+", " ", "0", "99999999999", "\u{661}", "e", "."];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    let texts = prop_oneof![text::damaged(seeds, &words), text::noise(&words, 8)];
    target("text").holds(texts, |text| {
        text_of::<Size>(&text);
        text_of::<Span>(&text);
        text_of::<Slot>(&text);
        text_of::<Name>(&text);
        drop(HostId::new(text));
    });
    let number =
        || prop_oneof![any::<u64>(), 0..5_000_u64, Just(u64::MAX), (0..64_u32).prop_map(|bit| 1 << bit)];
    target("text-printed").holds((number(), number()), |(bytes, ms)| {
        assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        assert_eq!(Span(Millis(ms)).to_string().parse(), Ok(Span(Millis(ms))));
    });
}

#[test]
fn a_condition_of_any_form_is_asked_of_any_answer() {
    let conditions: Vec<Vec<u8>> = target("predicate").seeds();
    let answers = vec![
        br#"{"members":[{"role":"sync_standby","state":"streaming","lag":0},{"role":"leader"}]}"#.to_vec(),
        br#"["1","streaming",null]"#.to_vec(),
    ];
    let values = (json::damaged(&conditions), bytes::any_of(answers), any::<bool>(), any::<Option<i32>>());
    target("predicate").holds(values, |(condition, body, ok, code)| {
        let Ok(condition) = serde_json::from_value::<Predicate>(condition) else { return };
        let answer = Answer { ok, code, body: String::from_utf8_lossy(&body).into_owned() };
        let not = Predicate::Not(Box::new(condition.clone()));
        assert_ne!(condition.holds(&answer), not.holds(&answer));
    });
}
