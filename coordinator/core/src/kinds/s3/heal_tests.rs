//! When everything is healed, how that is followed, and what waits for it.

use std::collections::BTreeMap;

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, S3What, TaskKind};
use muster_model::time::Timestamp;

use super::tests::{THREE, trio};
use super::{S3, heal};
use crate::kinds::golden::{facts, name, spec};
use crate::kinds::{Kind, MemberFacts, OPERATORS_WORD, ProcedureStep, ServiceFacts};

fn judge<T>(
    members: Vec<MemberFacts>,
    healed: Option<u64>,
    now: u64,
    act: impl Fn(&ServiceFacts<'_>) -> T,
) -> T {
    let (service, spec) = (name("files"), spec(THREE));
    let mut records = BTreeMap::from([
        ("image".to_owned(), super::Settings::of(&spec).image),
        ("declared".to_owned(), super::declare::wanted(&super::Settings::of(&spec))),
    ]);
    records.extend(healed.map(|at| ("healed".to_owned(), at.to_string())));
    let known = facts(&service, &spec, members);
    act(&ServiceFacts { records: &records, now: Timestamp(now), ..known })
}

/// The second member was started at this time.
fn back_at(at: u64) -> Vec<MemberFacts> {
    let mut members = trio();
    if let Some(seen) = &mut members[1].seen {
        seen.started_at = Some(Timestamp(at));
    }
    members
}

#[test]
fn a_member_that_was_away_is_completed_once_all_is_calm() {
    let due = |members: Vec<MemberFacts>, healed, now| {
        judge(members, healed, now, |facts| S3.due(facts).map(|procedure| procedure.name))
    };
    assert_eq!(due(back_at(50_000), Some(10_000), 80_000).as_deref(), Some(heal::NAME));
    assert_eq!(due(back_at(50_000), None, 80_000).as_deref(), Some(heal::NAME), "never healed");
    assert_eq!(due(back_at(50_000), Some(60_000), 80_000), None, "healed since");
    assert_eq!(due(back_at(50_000), Some(10_000), 60_000), None, "a moment after its return");
    let mut members = back_at(50_000);
    members[1].host_since = Timestamp(70_000);
    assert!(due(members, Some(60_000), 100_000).is_some(), "its host was away");
    let mut members = back_at(50_000);
    members[2].seen.as_mut().unwrap().ready = false;
    assert_eq!(due(members.clone(), Some(10_000), 80_000), None, "another one comes up");
    members[2].host_up = false;
    members[2].seen = None;
    assert!(
        due(members.clone(), Some(10_000), 80_000).is_some(),
        "those that are there do not wait for a lost host"
    );
    members[0].seen.as_mut().unwrap().ready = false;
    members[0].host_up = false;
    assert_eq!(due(members, Some(10_000), 80_000), None, "too few for a write");
}

#[test]
fn no_drive_is_given_up_before_the_others_are_complete() {
    let may = |healed, slot: usize| {
        judge(back_at(50_000), healed, 80_000, |facts| S3.may_replace(facts, facts.members[slot].member))
    };
    let why = may(Some(10_000), 2).unwrap_err().0;
    assert!(why.contains("files/2 was away") && why.contains("`heal` comes first"), "{why}");
    assert!(may(None, 2).is_err(), "never healed");
    assert_eq!(may(Some(60_000), 2), Ok(()));
    assert_eq!(may(Some(10_000), 1), Ok(()), "what it lacks itself is no reason to keep it");
}

fn step(answers: &[(String, TaskOutcome)], now: u64) -> ProcedureStep {
    judge(back_at(50_000), Some(10_000), now, |facts| heal::proceed(facts, answers))
}

/// The task that comes next: its label and the token.
fn asked(answers: &[(String, TaskOutcome)], now: u64) -> (String, Option<String>) {
    let ProcedureStep::Task { label, task } = step(answers, now) else { panic!("{:?}", step(answers, now)) };
    let TaskKind::Act { act: Act::S3(ask) } = task.what else { panic!("{label}") };
    let S3What::Heal { token, .. } = ask.what else { panic!("{label}") };
    (label, token)
}

fn done(answer: &str) -> TaskOutcome {
    TaskOutcome::Done { answer: answer.to_owned() }
}

#[test]
fn it_is_followed_to_its_end_and_recorded_as_of_its_beginning() {
    let (start, token) = asked(&[], 80_000);
    assert_eq!(token, None);
    let mut answers = vec![(start, done(r#"{"token":"t:1"}"#))];
    let (label, token) = asked(&answers, 81_000);
    assert_eq!(token.as_deref(), Some("t:1"));
    answers.push((label, done(r#"{"state":"running","healed":9,"failed":0,"first":""}"#)));
    let (label, token) = asked(&answers, 400_000);
    assert_eq!(token.as_deref(), Some("t:1"));
    // Only the last answers of a long heal are kept.
    let last = [(label, done(r#"{"state":"finished","healed":1,"failed":0,"first":""}"#))];
    let recorded = ProcedureStep::Record { key: "healed".to_owned(), value: "80000".to_owned() };
    assert_eq!(step(&last, 700_000), recorded);
    // A member that came back while it ran is the next one's work.
    let after = judge(back_at(90_000), Some(80_000), 700_000, |facts| heal::proceed(facts, &last));
    assert!(matches!(after, ProcedureStep::Done(_)), "{after:?}");
}

#[test]
fn a_heal_that_was_forgotten_is_begun_again_and_then_asks_why() {
    let gone = r#"{"state":"gone","healed":0,"failed":0,"first":""}"#;
    let mut answers = Vec::new();
    for turn in 1..=3 {
        let now = turn * 100_000;
        let (start, _) = asked(&answers, now);
        assert_eq!(start, format!("start @{now}"));
        answers.push((start, done(r#"{"token":"t"}"#)));
        let (label, _) = asked(&answers, now + 1);
        answers.push((label, done(gone)));
    }
    assert!(matches!(step(&answers[..2], 100_002), ProcedureStep::Wait(_)), "not at once");
    let ProcedureStep::NeedsOperator { reason, word: false, .. } = step(&answers, 400_000) else { panic!() };
    assert!(reason.contains("restarted"), "{reason}");
}

#[test]
fn objects_that_need_a_missing_drive_are_given_up_on_an_operators_word_only() {
    let mut answers = Vec::new();
    for turn in 1..=3 {
        let now = turn * 100_000;
        let (start, _) = asked(&answers, now);
        answers.push((start, done(r#"{"token":"t"}"#)));
        let (label, _) = asked(&answers, now + 1);
        answers.push((label, done(r#"{"state":"running","healed":0,"failed":2,"first":"photos/a b"}"#)));
        let (label, _) = asked(&answers, now + 2);
        answers.push((label, done(r#"{"state":"finished","healed":0,"failed":1,"first":"photos/c"}"#)));
    }
    let ProcedureStep::NeedsOperator { reason, word: true, .. } = step(&answers, 400_000) else { panic!() };
    assert!(reason.contains("3 objects") && reason.contains("photos/a b"), "{reason}");
    // Only the word is kept; what it was given for must show again.
    let word = (OPERATORS_WORD.to_owned(), done(&reason));
    let (start, _) = asked(std::slice::from_ref(&word), 500_000);
    let last = ("500000 t 2 photos/a b".to_owned(), done(r#"{"state":"finished","healed":0,"failed":1}"#));
    let said = [word, (start, done("{}")), last];
    let recorded = ProcedureStep::Record { key: "healed".to_owned(), value: "500000".to_owned() };
    assert_eq!(step(&said, 501_000), recorded);
}
