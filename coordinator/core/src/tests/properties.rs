//! What is stored and what agents report, of any content: an entry of the log that cannot be meant is answered and never
//! stops a coordinator, a snapshot is read or refused, and an engine's answer is read or not understood.

use std::path::Path;

use muster_model::ids::{LogIndex, MemberId, Name, Revision, Slot};
use muster_model::observed::{Answer, ContainerState, MemberStatus, ProbeResult};
use muster_model::spec::PlatformSpec;
use muster_model::time::Timestamp;
use muster_property::{Target, bytes, json};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::select;

use crate::apply::apply;
use crate::command::LogMeta;
use crate::kinds;
use crate::state::State;
use crate::version::{decode_command, decode_state, encode_command, encode_state};

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)).unwrap()
}

/// Entries that were stored once.
fn entries() -> Vec<Vec<u8>> {
    let lines = fixture("commands-1.jsonl");
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// As a coordinator does with an entry that was agreed on: the same on two of them.
fn apply_entry(state: &State, bytes: &[u8]) {
    let Ok(command) = decode_command(bytes) else { return };
    assert_eq!(decode_command(&encode_command(&command)).unwrap(), command);
    let meta = LogMeta { index: LogIndex(state.index.0 + 1), at: Timestamp(state.at.0 + 1) };
    let (mut one, mut other) = (state.clone(), state.clone());
    assert_eq!(apply(&mut one, &command, meta), apply(&mut other, &command, meta));
    assert_eq!(encode_state(&one), encode_state(&other));
    let stored = decode_state(&encode_state(&one)).expect("what was applied can be stored and read");
    assert_eq!(encode_state(&stored), encode_state(&one));
}

#[test]
fn an_entry_of_any_content_is_applied_or_answered() {
    let state = decode_state(&fixture("state-1.json")).unwrap();
    let target = target("entry").heavy(4);
    target.holds(json::damaged(&entries()), |entry| apply_entry(&state, entry.to_string().as_bytes()));
    target.holds(bytes::any_of(entries()), |entry| apply_entry(&state, &entry));
    target.replay(|entry| apply_entry(&state, entry));
}

fn read_state(bytes: &[u8]) {
    if let Ok(state) = decode_state(bytes) {
        let written = encode_state(&state);
        assert_eq!(encode_state(&decode_state(&written).expect("what was written can be read")), written);
    }
}

#[test]
fn a_state_of_any_content_is_read_or_refused() {
    let target = target("state").heavy(4);
    target.holds(json::damaged(&[fixture("state-1.json")]), |state| read_state(state.to_string().as_bytes()));
    target.holds(bytes::damaged(vec![fixture("state-1.json")]), |state| read_state(&state));
    target.replay(read_state);
}

/// Services of every kind, as the examples write them and with few words.
fn services() -> Vec<(Name, muster_model::spec::ServiceSpec)> {
    let mut found = Vec::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    for entry in std::fs::read_dir(examples).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        found.extend(muster_spec::parse(&text).into_iter().flat_map(|parsed| parsed.spec.services));
    }
    let bare =
        |kind: &str| format!(r#"{{"muster":1,"platform":"p","services":{{"x":{{"kind":"{kind}"}}}}}}"#);
    for kind in kinds::ALL {
        let spec: PlatformSpec = serde_json::from_str(&bare(kind.name())).unwrap();
        found.extend(spec.services);
    }
    found
}

/// Names of all probes that kinds ask for.
fn probes() -> Vec<String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut names = Vec::new();
    for member in
        std::fs::read_dir(golden).unwrap().flatten().flat_map(|kind| std::fs::read_dir(kind.path()).unwrap())
    {
        let json = std::fs::read(member.unwrap().path().join("member.json")).unwrap_or_default();
        let rendered: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
        let probes = rendered["probes"].as_array().cloned().unwrap_or_default();
        names.extend(probes.iter().filter_map(|probe| probe["name"].as_str().map(str::to_owned)));
    }
    names.sort();
    names.dedup();
    assert!(names.len() > 5, "{names:?}");
    names
}

fn answer(bodies: Vec<Vec<u8>>) -> impl Strategy<Value = Answer> {
    let whole: Vec<Vec<u8>> =
        bodies.iter().filter(|b| serde_json::from_slice::<serde_json::Value>(b).is_ok()).cloned().collect();
    let body = prop_oneof![
        2 => json::damaged(&whole).prop_map(|value| value.to_string()),
        1 => bytes::any_of(bodies).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    (any::<bool>(), any::<Option<i32>>(), body).prop_map(|(ok, code, body)| Answer { ok, code, body })
}

fn status(probes: Vec<ProbeResult>, slot: Slot, restarts: u32) -> MemberStatus {
    MemberStatus {
        member: MemberId(1),
        slot,
        revision: Revision(1),
        container_hash: "0123456789abcdef".to_owned(),
        state: ContainerState::Running { since: Timestamp(u64::from(restarts)) },
        restarts,
        restarts_done: u64::from(restarts),
        releases: restarts,
        system_id: None,
        refused: None,
        successor: None,
        probes,
    }
}

#[test]
fn an_engine_answers_what_it_likes() {
    let target = target("answer");
    let bodies = target.seeds();
    let names = probes();
    let answers = vec(answer(bodies), names.len());
    let cases = (select(services()), answers, any::<u32>(), 1..5_u32, any::<u64>());
    target.holds(cases, |((service, spec), answers, restarts, index, took_ms)| {
        let result = |(name, answer): (&String, Answer)| ProbeResult {
            name: name.clone(),
            at: Timestamp(took_ms),
            took_ms,
            answer,
        };
        let status =
            status(names.iter().zip(answers).map(result).collect(), Slot { service, index }, restarts);
        let kind = kinds::kind(spec.kind.as_str()).expect("a kind of ours");
        let seen = kind.interpret(&spec, &status);
        assert_eq!(kind.interpret(&spec, &status), seen);
        // What it says goes into the log and must be read there.
        let json = serde_json::to_vec(&seen).unwrap();
        assert_eq!(serde_json::from_slice::<kinds::Observed>(&json).unwrap(), seen);
    });
}
