//! The machinery of procedures: stored progress, answers by label, parked members, the way back into an operation.

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, OperationId};
use muster_model::observed::TaskOutcome;
use muster_model::plan::TaskKind;
use muster_model::time::Millis;
use muster_model::view::OperationState;

use super::{World, name, spec};
use crate::command::{Command, TaskDraft, Verb, What};
use crate::kinds::{Procedure, ProcedureProgress, ProcedureStep};
use crate::reconcile::{Turn, step_of};
use crate::state::{Operation, OperationKind, State};

fn procedure() -> Procedure {
    Procedure {
        name: "cold-start".to_owned(),
        why: "it is down".to_owned(),
        can_wait: false,
        arguments: BTreeMap::new(),
    }
}

fn cache() -> serde_json::Value {
    serde_json::json!({ "cache": { "kind": "app", "image": "cache:1", "replicas": 2 } })
}

/// Two members of an `app`, which has no procedures of its own, and one operation that is one.
fn with_procedure() -> (World, OperationId) {
    let mut world = World::new(3);
    world.apply_spec(&spec(cache()));
    world.run_until("all ready", |state| state.members.len() == 2 && super::all_ready(state));
    let kind = OperationKind::Procedure(procedure());
    let id = world.must(What::StartOperation { service: name("cache"), kind, seen: None }).operation.unwrap();
    (world, id)
}

/// What the procedure's kind would say, applied.
fn play(world: &mut World, id: OperationId, step: ProcedureStep) -> bool {
    let operation = &world.state.operations[&id];
    let turn = Turn { state: &world.state, id, operation, now: world.now };
    let progress = operation.procedure.as_deref().cloned().unwrap_or_default();
    let Some(advance) = step_of(&turn, step, progress) else { return false };
    world.must(What::Advance(Box::new(advance)));
    true
}

fn operation(state: &State, id: OperationId) -> &Operation {
    &state.operations[&id]
}

#[test]
fn members_that_it_stops_stay_stopped_until_it_starts_them() {
    let (mut world, id) = with_procedure();
    let members: Vec<MemberId> = world.state.members.keys().copied().collect();
    assert!(play(&mut world, id, ProcedureStep::Stop(members.clone())));
    assert!(world.state.members.values().all(|m| m.parked && !m.started));
    // The usual start does not undo it.
    let starts = crate::reconcile::run(&world.state, world.now)
        .iter()
        .any(|command| format!("{:?}", command.what).contains("Start {"));
    assert!(!starts);
    assert!(play(&mut world, id, ProcedureStep::Start(vec![members[0]])));
    assert!(world.state.members[&members[0]].started && !world.state.members[&members[0]].parked);
    assert!(!world.state.members[&members[1]].started);
    assert!(play(&mut world, id, ProcedureStep::Done("up".to_owned())));
    assert_eq!(operation(&world.state, id).state(), OperationState::Done);
    // What it left stopped is free again.
    assert!(world.state.members.values().all(|m| !m.parked));
    world.run_until("both run", |state| state.members.values().all(|m| m.started));
}

#[test]
fn a_member_that_serves_nothing_is_stopped_and_renewed_without_waiting_for_its_turn() {
    let (mut world, id) = with_procedure();
    let member = *world.state.members.keys().next().unwrap();
    assert!(play(&mut world, id, ProcedureStep::Renew(member)));
    assert_eq!(operation(&world.state, id).status, "waits for a newer revision of a member");
    let newer = serde_json::json!({ "cache": { "kind": "app", "image": "cache:2", "replicas": 2 } });
    world.apply_spec(&spec(newer));
    for command in crate::reconcile::run(&world.state, world.now) {
        if format!("{:?}", command.what).contains("Pend") {
            world.command(&command).unwrap();
        }
    }
    assert!(world.state.members[&member].pending.is_some());
    assert!(play(&mut world, id, ProcedureStep::Renew(member)));
    let row = &world.state.members[&member];
    assert!(row.parked && !row.started && row.pending.is_none());
    assert_eq!(row.rendering.as_ref().unwrap().rendered.image, "cache:2");
}

#[test]
fn what_it_stopped_is_free_when_it_gives_way_to_the_operation_that_it_interrupted() {
    let (mut world, id) = with_procedure();
    let members: Vec<MemberId> = world.state.members.keys().copied().collect();
    assert!(play(&mut world, id, ProcedureStep::Stop(members)));
    // As if it had begun in the middle of an update.
    let mut interrupted = operation(&world.state, id).clone();
    interrupted.kind = OperationKind::Update;
    world.state.operations.insert(id, interrupted);
    assert!(play(&mut world, id, ProcedureStep::Done("up".to_owned())));
    assert!(operation(&world.state, id).outcome.is_none(), "the update goes on");
    assert!(world.state.members.values().all(|m| !m.parked));
}

#[test]
fn a_record_stays_and_is_bounded() {
    let (mut world, id) = with_procedure();
    let record = |value: &str| ProcedureStep::Record { key: "uuid".to_owned(), value: value.to_owned() };
    assert!(play(&mut world, id, record("7301")));
    assert_eq!(world.state.services[&name("cache")].records["uuid"], "7301");
    let long = "x".repeat(crate::state::RECORD_LEN_MAX + 1);
    let operation = operation(&world.state, id);
    let turn = Turn { state: &world.state, id, operation, now: world.now };
    let advance = step_of(&turn, record(&long), Default::default()).unwrap();
    assert!(world.propose(What::Advance(Box::new(advance))).is_err());
    assert_eq!(world.state.services[&name("cache")].records["uuid"], "7301");
}

#[test]
fn an_answer_comes_back_under_its_label_and_one_that_never_comes_is_not_known() {
    let (mut world, id) = with_procedure();
    let member = *world.state.members.keys().next().unwrap();
    let task = Box::new(TaskDraft { member, guard: None, what: TaskKind::FreeSpace, timeout_ms: 1_000 });
    let asked = ProcedureStep::Task { label: "space".to_owned(), task };
    assert!(play(&mut world, id, asked));
    assert_eq!(operation(&world.state, id).procedure.as_ref().unwrap().asked.as_deref(), Some("space"));
    assert_eq!(world.state.tasks.len(), 1);
    // No answer: the leader waits, and then takes it as not known. The app's kind says that it is done.
    world.lead();
    assert!(operation(&world.state, id).outcome.is_none());
    world.now = world.now.after(Millis::seconds(60));
    world.lead();
    assert_eq!(operation(&world.state, id).state(), OperationState::Done);
    assert!(world.state.tasks.is_empty());
}

#[test]
fn it_asks_an_operator_and_judges_afresh_when_told_to_go_on() {
    let (mut world, id) = with_procedure();
    let stuck = || ProcedureStep::NeedsOperator {
        reason: "two uuids".to_owned(),
        remedy: "look".to_owned(),
        word: false,
    };
    assert!(play(&mut world, id, stuck()));
    let needs = operation(&world.state, id).needs_operator.clone().unwrap();
    assert!(needs.reason == "two uuids" && needs.remedy.contains("muster op continue"), "{needs:?}");
    world.lead();
    assert_eq!(operation(&world.state, id).state(), OperationState::NeedsOperator);
    world.must(What::SteerOperation { operation: id, verb: Verb::Continue });
    let kept = operation(&world.state, id).procedure.clone().unwrap_or_default();
    assert_eq!(kept.asked, None);
    let labels: Vec<&str> = kept.answers.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, [crate::kinds::OPERATORS_WORD], "nothing is left but the operator's word");
    assert!(crate::kinds::operator_said(&kept.answers, "two uuids"), "{kept:?}");
    assert!(!crate::kinds::operator_said(&kept.answers, "another one"), "{kept:?}");
    assert_eq!(world.await_end(id.0), OperationState::Done);
}

#[test]
fn the_answers_that_a_question_rests_on_are_kept_with_it() {
    let (mut world, id) = with_procedure();
    let answer = ("read 2".to_owned(), TaskOutcome::Done { answer: "7".to_owned() });
    let progress = ProcedureProgress { asked: None, answers: vec![answer.clone()] };
    let turn = Turn { state: &world.state, id, operation: &world.state.operations[&id], now: world.now };
    let stuck = ProcedureStep::NeedsOperator {
        reason: "one unread".to_owned(),
        remedy: "look".to_owned(),
        word: true,
    };
    let advance = step_of(&turn, stuck, progress).unwrap();
    let remedy = &advance.needs_operator.as_ref().unwrap().remedy;
    assert!(remedy.contains(&format!("`muster op continue {id}` is that word")), "{remedy}");
    world.must(What::Advance(Box::new(advance)));
    let kept = operation(&world.state, id).procedure.clone().unwrap_or_default();
    assert_eq!((kept.asked, kept.answers), (None, vec![answer]));
}

#[test]
fn an_answered_task_is_kept_with_its_outcome() {
    let (mut world, id) = with_procedure();
    let member = *world.state.members.keys().next().unwrap();
    let task = TaskDraft { member, guard: None, what: TaskKind::Kill { hold_ms: 0 }, timeout_ms: 1_000 };
    let task = Box::new(task);
    assert!(play(&mut world, id, ProcedureStep::Task { label: "kill".to_owned(), task }));
    world.round();
    world.round();
    let turn_done = operation(&world.state, id)
        .answers
        .iter()
        .any(|(_, outcome)| matches!(outcome, TaskOutcome::Done { .. }));
    assert!(turn_done);
}

#[test]
fn work_that_can_wait_gives_way_to_an_operator_and_to_nobody_else() {
    let (mut world, id) = with_procedure();
    let restart = What::StartOperation {
        service: name("cache"),
        kind: OperationKind::Restart { slot: None },
        seen: None,
    };
    let by_operator = Command { actor: Some("admin".to_owned()), ..Command::internal(restart.clone()) };
    assert!(world.command(&by_operator).is_err(), "a cold start does not give way");
    assert_eq!(world.await_end(id.0), OperationState::Done);
    let kind = OperationKind::Procedure(Procedure { can_wait: true, ..procedure() });
    let id = world.must(What::StartOperation { service: name("cache"), kind, seen: None }).operation.unwrap();
    assert!(world.propose(restart).is_err());
    let taken = world.command(&by_operator).unwrap().operation.unwrap();
    assert_eq!(operation(&world.state, id).state(), OperationState::Cancelled);
    assert_eq!(world.await_end(taken.0), OperationState::Done);
}
