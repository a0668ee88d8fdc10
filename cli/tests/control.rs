//! The whole program against coordinators that answer as told, over real TLS: exit codes, retries, leader hints.
#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;

use clap::Parser as _;
use fake::{World, name, plan_reply};
use muster_cli::args::Cli;
use muster_cli::exit::Exit;
use muster_model::ids::{LogIndex, OperationId, Revision};
use muster_model::time::Timestamp;
use muster_model::view::{
    ChangeView, CoordinatorView, Diagnostic, EventView, Health, HealthWord, OperationState, OperationView,
    PlanView, PlatformView, ServiceView,
};
use muster_proto::control::PlanReply;
use serde_json::{Value, json};
use tonic::Status;

const SPEC: &str = "muster: 1\nplatform: shop\nservices:\n  web:\n    kind: app\n    image: demo:1\n";

fn plan() -> PlanView {
    let what = "service web".to_owned();
    PlanView {
        index: LogIndex(811),
        changes: vec![ChangeView { mark: "+".to_owned(), what, from: None, to: None }],
        placement: vec!["web/1 on h1".to_owned()],
        survivability: Vec::new(),
        warnings: Vec::new(),
        refusals: Vec::new(),
    }
}

/// At the line `services:`.
fn refusal(message: &str, help: &str) -> Diagnostic {
    let (message, help) = (message.to_owned(), help.to_owned());
    Diagnostic { line: 3, column: 1, path: "services".to_owned(), message, help }
}

fn status(at: u64, word: HealthWord, operations: Vec<OperationView>) -> PlatformView {
    let reasons = if word == HealthWord::Healthy { vec![] } else { vec!["web/1 starts".to_owned()] };
    PlatformView {
        platform: name("shop"),
        index: LogIndex(820),
        at: Timestamp(at),
        coordinators: Vec::new(),
        hosts: Vec::new(),
        services: vec![ServiceView {
            details: Vec::new(),
            name: name("web"),
            kind: name("app"),
            owner: None,
            revision: Revision(1),
            health: Health { word, reasons },
            members: Vec::new(),
            promises: Vec::new(),
            operation: None,
            endpoints: Default::default(),
        }],
        operations,
        notices: Vec::new(),
    }
}

fn operation(kind: &str, state: OperationState, step: &str) -> OperationView {
    OperationView {
        id: OperationId(9),
        kind: kind.to_owned(),
        service: name("web"),
        state,
        step: step.to_owned(),
        remedy: None,
        started: Timestamp(0),
        ended: None,
        log: vec![(Timestamp(1_000), format!("begins {step}"))],
        result: None,
    }
}

async fn ready_to_apply() -> (World, String) {
    let world = World::new(1, 1).await;
    world.script().plan = Some(plan_reply(&plan(), 0));
    world.script().status = [
        status(0, HealthWord::Down, vec![operation("update", OperationState::Running, "starts web/1")]),
        status(1_000, HealthWord::Healthy, vec![]),
        status(4_000, HealthWord::Healthy, vec![]),
    ]
    .into();
    let file = world.file("shop.yaml", SPEC);
    (world, file)
}

#[tokio::test]
async fn plan_tells_by_its_code_whether_something_changes() {
    let (world, file) = ready_to_apply().await;
    let (exit, out, _) = world.run(&["plan", &file]).await;
    assert_eq!(exit, Exit::Changes);
    assert!(
        out.contains("  +  service web\n") && out.contains(&format!("muster apply {file} --at 811")),
        "{out}"
    );

    world.script().plan = Some(plan_reply(&PlanView { changes: vec![], ..plan() }, 0));
    assert_eq!(world.run(&["plan", &file]).await.0, Exit::Ok);

    let refusals = vec![refusal("pg-main is missing", "muster service remove pg-main --keep-data")];
    world.script().plan = Some(plan_reply(&PlanView { refusals, ..plan() }, 0));
    let (exit, _, err) = world.run(&["plan", &file]).await;
    assert_eq!(exit, Exit::Refused);
    assert!(
        err.starts_with("refused: pg-main is missing\n") && err.contains(&format!("{file}:3:1\n")),
        "{err}"
    );
    assert!(
        err.contains("3 | services:") && err.contains("help: muster service remove pg-main --keep-data"),
        "{err}"
    );
    assert!(err.contains("1 refusal, nothing was changed"), "{err}");

    let diagnostics = json!([{"line": 6, "column": 5, "path": "services.web.image", "message": "no such image", "help": "load it"}]);
    let reply = PlanReply { diagnostics: diagnostics.to_string().into(), ..PlanReply::default() };
    world.script().plan = Some(reply);
    let (exit, _, err) = world.run(&["plan", &file]).await;
    assert_eq!(exit, Exit::Error);
    assert!(err.contains("error: no such image") && err.contains(":6:5\n") && err.contains("^^^^^"), "{err}");
}

#[tokio::test]
async fn apply_needs_a_word_when_nobody_can_be_asked() {
    let (world, file) = ready_to_apply().await;
    let (exit, _, err) = world.run(&["apply", &file]).await;
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("--at INDEX"), "{err}");
    assert!(world.script().changes.is_empty());
}

#[tokio::test]
async fn apply_waits_until_all_is_healthy_and_shows_what_happens() {
    let (world, file) = ready_to_apply().await;
    let event = |index, about: &str| EventView {
        index: LogIndex(index),
        at: Timestamp(0),
        about: about.to_owned(),
        text: "placed".to_owned(),
    };
    world.script().events = vec![event(700, "web/1"), event(815, "web/1"), event(816, "other/1")];
    let (exit, out, err) = world.run(&["apply", &file, "--at", "811"]).await;
    assert_eq!((exit, out.contains("all healthy")), (Exit::Ok, true), "{out}{err}");
    assert_eq!(err.matches("web/1  placed").count(), 1, "{err}");
    assert!(!err.contains("other/1") && err.contains("starts web/1"), "{err}");
    let changes = world.script().changes.clone();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].0, format!("apply at 811: {SPEC}"));
}

#[tokio::test]
async fn a_call_that_is_repeated_has_the_same_serial_and_the_next_one_another() {
    let (world, file) = ready_to_apply().await;
    world.script().apply = [Err(Status::unavailable("no leader")), Ok(plan_reply(&plan(), 813))].into();
    let (exit, ..) = world.run(&["apply", &file, "--yes", "--detach"]).await;
    assert_eq!(exit, Exit::Ok);
    let changes = world.script().changes.clone();
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0], changes[1]);
    assert_eq!(changes[0].1.len(), 32);
}

#[tokio::test]
async fn somebody_elses_change_and_a_gate_stop_an_apply() {
    let (world, file) = ready_to_apply().await;
    world.script().apply = [Err(Status::aborted("the spec: 811 813"))].into();
    let (exit, _, err) = world.run(&["apply", &file, "--at", "811"]).await;
    assert_eq!(exit, Exit::Error);
    assert!(err.contains("somebody changed the platform since; run `muster plan` again"), "{err}");

    let refusals = vec![refusal("pg-main is missing", "say what becomes of pg-main")];
    world.script().apply = [Ok(plan_reply(&PlanView { refusals, ..plan() }, 0))].into();
    let (exit, _, err) = world.run(&["apply", &file, "--at", "811"]).await;
    assert_eq!((exit, err.contains("say what becomes of pg-main")), (Exit::Refused, true), "{err}");
}

#[tokio::test]
async fn an_apply_ends_with_4_when_its_operation_pauses_fails_or_time_is_up() {
    let (world, file) = ready_to_apply().await;
    let mut paused = operation("update", OperationState::NeedsOperator, "web/1 is not ready after 5m");
    paused.remedy = Some("muster service rollback web".to_owned());
    world.script().status = [status(0, HealthWord::Degraded, vec![paused])].into();
    let (exit, _, err) = world.run(&["apply", &file, "--yes"]).await;
    assert_eq!(exit, Exit::Paused);
    assert!(err.contains("not ready after 5m") && err.contains("hint: muster service rollback web"), "{err}");

    world.script().status = [status(0, HealthWord::Down, vec![])].into();
    let (exit, _, err) = world.run(&["apply", &file, "--yes", "--timeout", "1s"]).await;
    assert_eq!((exit, err.contains("web is down: web/1 starts")), (Exit::Paused, true), "{err}");
}

#[tokio::test]
async fn an_update_that_went_back_is_not_a_success() {
    let (world, file) = ready_to_apply().await;
    let old = OperationView {
        id: OperationId(3),
        ended: Some(Timestamp(1)),
        ..operation("update", OperationState::Failed, "long ago")
    };
    world.script().operations = vec![old];
    assert_eq!(world.run(&["apply", &file, "--yes"]).await.0, Exit::Ok);

    let (world, file) = ready_to_apply().await;
    let script = world.script.clone();
    let words = ["apply", &file, "--yes"];
    let applying = world.run(&words);
    let meanwhile = async {
        tokio::time::sleep(std::time::Duration::from_millis(900)).await;
        script.lock().unwrap().operations =
            vec![operation("update", OperationState::RolledBack, "web/1 never became ready")];
    };
    let ((exit, _, err), ()) = tokio::join!(applying, meanwhile);
    assert_eq!((exit, err.contains("rolled back: web/1 never became ready")), (Exit::Paused, true), "{err}");
}

#[tokio::test]
async fn logs_come_from_the_leader_also_if_the_context_does_not_know_it() {
    for known in [3, 1] {
        let world = World::new(3, known).await;
        let leader = world.addresses[2].clone();
        world.script().leader = Some(leader.clone());
        world.script().coordinators = world.addresses.clone();
        let (exit, out, err) = world.run(&["logs", "web/1"]).await;
        assert_eq!((exit, out.as_str()), (Exit::Ok, "hello\n"), "{err}");
        assert_eq!(world.script().logs_from, [world.addresses[0].clone(), leader]);
    }
}

#[tokio::test]
async fn a_context_learns_the_other_coordinators_and_outlives_the_first() {
    let world = World::new(2, 1).await;
    let mut view = status(0, HealthWord::Healthy, vec![]);
    let coordinator = |endpoint: &String| CoordinatorView {
        id: 1,
        endpoint: endpoint.clone(),
        leader: false,
        voter: true,
        reachable: None,
    };
    view.coordinators = world.addresses.iter().map(coordinator).collect();
    world.script().status = [view].into();
    world.script().coordinators = world.addresses.clone();
    assert_eq!(world.run(&["status"]).await.0, Exit::Ok);
    let stored = muster_runtime::context::Context::load(&world.context).unwrap();
    assert_eq!((stored.endpoints, stored.pins.len()), (world.addresses.clone(), 2));
    assert_eq!(world.run(&["status"]).await.0, Exit::Ok);
    assert_eq!(world.script().renewals, 1, "learned once is enough");
}

#[tokio::test]
async fn nobody_there_is_6_and_the_reasons_are_told() {
    let world = World::new(1, 1).await;
    let mut context = muster_runtime::context::Context::load(&world.context).unwrap();
    context.endpoints = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    context.store(&world.context).unwrap();
    let (exit, _, err) = world.run(&["status"]).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(err.contains("127.0.0.1:1: ") && err.contains("127.0.0.1:2: ") && err.contains("hint:"), "{err}");
}

#[tokio::test]
async fn a_service_verb_starts_its_operation_and_watches_it() {
    let world = World::new(1, 1).await;
    world.script().operation = [
        operation("switchover", OperationState::Running, "moves the lead"),
        operation("switchover", OperationState::Done, "web/2 leads"),
    ]
    .into();
    let words = ["service", "switchover", "web", "--to", "2"];
    let (exit, ..) = world.run(&words).await;
    assert_eq!((exit, world.script().changes.len()), (Exit::Usage, 0));
    let (exit, out, err) = world.run(&[&words[..], &["--yes"]].concat()).await;
    assert_eq!((exit, out.as_str()), (Exit::Ok, "switchover 9 of web: done\n"), "{err}");
    assert!(err.contains("begins moves the lead"), "{err}");
    assert_eq!(world.script().changes[0].0, "switchover web web/2 ");
}

#[tokio::test]
async fn a_drill_calls_for_its_fault_says_so_and_undoes_it() {
    let world = World::new(1, 1).await;
    let result = json!({"drill": "kill-host", "host": "h2", "rto_ms": 700, "lost": 3, "missed": ["3 acknowledged rows are lost"],
        "passed": false, "failure": null});
    let ended = OperationView {
        result: Some(result),
        ..operation("drill", OperationState::Failed, "a threshold was missed")
    };
    world.script().operation = [
        operation("drill", OperationState::Running, "waiting for the fault: cut power of host h2"),
        operation("drill", OperationState::Running, "the fault is done; observes"),
        ended,
    ]
    .into();
    let drill = world.file("d.yaml", "drill: 1\nname: kill-host\nservice: pg-main\nfault: kill-host\n");
    let trace = world.file("trace", "");
    let (fault, undo) = (format!("echo off {{host}} >> {trace}"), format!("echo on {{host}} >> {trace}"));
    let words = ["drill", "run", &drill, "--service", "web", "-y", "-o", "json"];
    let words = [&words[..], &["--fault-command", &fault, "--undo-command", &undo]].concat();
    let (exit, out, err) = world.run(&words).await;
    assert_eq!(exit, Exit::Missed, "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["rto_ms"], 700);
    assert_eq!(std::fs::read_to_string(&trace).unwrap(), "off h2\non h2\n");
    let changes: Vec<String> = world.script().changes.iter().map(|change| change.0.clone()).collect();
    assert!(changes[0].starts_with("drill web  drill: 1\n") && changes[0].contains("\nservice: web\n"));
    assert!(changes[0].contains("\nby: outside\n"), "the one with the command is the hand");
    assert_eq!(changes[1], "fault-done 9");
}

#[tokio::test]
async fn a_program_inside_a_member_prints_and_its_failure_is_ours() {
    let world = World::new(1, 1).await;
    let words = ["exec", "web/2", "--timeout", "2s", "--", "ls", "-l"];
    let (exit, out, err) = world.run(&words).await;
    assert_eq!((exit, out.as_str()), (Exit::Error, "web/2 ls -l 2000\n"), "{err}");
    assert!(err.contains("exit code 3"), "{err}");
    let nothing = Cli::try_parse_from(["muster", "exec", "web/2"]).unwrap_err();
    assert_eq!(nothing.kind(), clap::error::ErrorKind::MissingRequiredArgument);
}

#[tokio::test]
async fn operators_are_listed_and_a_key_is_taken_back_only_when_that_is_said() {
    let world = World::new(1, 1).await;
    let (exit, out, _) = world.run(&["operator", "ls"]).await;
    assert_eq!(exit, Exit::Ok);
    assert!(
        out.contains("ada") && out.contains("good until 2100-01-01") && out.contains("revoked: stolen"),
        "{out}"
    );
    let words = ["operator", "revoke", "ada", "--why", "left"];
    assert_eq!(world.run(&words).await.0, Exit::Usage, "nobody can be asked");
    let (exit, out, _) = world.run(&[&words[..], &["--yes"]].concat()).await;
    assert_eq!((exit, out.as_str()), (Exit::Ok, "ada is revoked: 1 key\n"));
    let (_, out, _) = world.run(&["operator", "revoke", "eve", "-y"]).await;
    assert_eq!(out, "eve was revoked already\n");
    assert_eq!(world.run(&["host", "revoke", "h1", "-y"]).await.1, "h1 is revoked: 1 key\n");
    let there = world.file("there.json", "");
    let (exit, _, err) = world.run(&["operator", "add", "bob", "--role", "viewer", "--out", &there]).await;
    assert!(exit == Exit::Error && err.contains("is there already"), "{err}");
}

#[tokio::test]
async fn images_are_listed_by_host_and_a_silent_host_is_not_an_empty_one() {
    let world = World::new(1, 1).await;
    let (exit, out, err) = world.run(&["image", "ls"]).await;
    assert_eq!(exit, Exit::Ok, "{err}");
    assert!(out.contains("h1     app:1") && out.contains("3 MiB   yes"), "{out}");
    assert!(out.contains("h2     not known"), "{out}");
}

#[tokio::test]
async fn json_has_the_keys_of_the_contract() {
    let world = World::new(1, 1).await;
    world.script().status = [status(0, HealthWord::Healthy, vec![])].into();
    let json = async |words: &[&str]| {
        let (exit, out, err) = world.run(&[words, &["-o", "json"]].concat()).await;
        assert_eq!(exit, Exit::Ok, "{err}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let token = json(&["token", "host"]).await;
    assert_eq!(token["token"], "mt1.h.a.b");
    assert!(token["command"].as_str().unwrap().contains("--coordinator 10.0.0.2:7400"));
    assert_eq!(json(&["conn", "pg-main"]).await, json!({"write": ["postgresql://a", "postgresql://b"]}));
    assert_eq!(json(&["status"]).await["services"][0]["health"]["word"], "healthy");
    assert!(json(&["host", "ls"]).await.as_array().unwrap().is_empty());
    assert!(json(&["op", "ls"]).await.as_array().unwrap().is_empty());
    let (exit, _, err) = world.run(&["status", "wbe"]).await;
    assert_eq!((exit, err.contains("did you mean `web`?")), (Exit::Error, true), "{err}");
}
