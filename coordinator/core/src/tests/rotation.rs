//! New passwords: which, in what order, and what stays of the old ones.

use muster_model::observed::TaskOutcome;
use muster_model::plan::{next_secret, previous_secret};
use muster_model::view::OperationState;

use super::{World, name, spec};
use crate::command::What;
use crate::kinds::golden::{facts, member};
use crate::kinds::{Procedure, ProcedureStep, ServiceFacts, kind, rotate};
use crate::secrets::{list, rotation_of};
use crate::state::{OperationKind, SecretRow};

const USER: &str = "pg-main/user-app";

fn rotate(world: &mut World, which: &str) -> u64 {
    let kind = rotation_of(&world.state, &name("pg-main"), which).unwrap();
    world.must(What::StartOperation { service: name("pg-main"), kind, seen: None }).operation.unwrap().0
}

#[test]
fn a_users_password_changes_and_the_one_before_is_forgotten() {
    let mut world = World::with_postgres();
    let before = world.state.secrets[USER].clone();
    let counters = |world: &World| world.state.hosts.values().map(|host| host.plan_counter).min();
    let published = counters(&world);
    let id = rotate(&mut world, "app");
    world.run_until("the new one is the present one", |state| state.secrets[USER].version == 2);
    // An agent may still have to log in with it.
    assert_eq!(world.state.secrets[&previous_secret(USER)], before);
    assert_eq!(world.state.secrets[USER].sealed, format!("value of {}", next_secret(USER)));
    assert_eq!(world.await_end(id), OperationState::Done);
    assert!(world.state.secrets.keys().all(|secret| !secret.contains('@')));
    assert_eq!(world.state.secrets[USER].version, 2);
    assert!(world.state.secrets[USER].changed > before.changed);
    // Plans name secrets, not values: a changed value makes a new plan all the same.
    world.run_until("published", |_| true);
    assert!(counters(&world) > published);
    let log: Vec<&str> = world.operation(id).log.iter().map(|(_, line)| line.as_str()).collect();
    let place = |what: &str| {
        log.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log:?}"))
    };
    assert!(place("user-app changed") < place("is given the new passwords"));
    assert!(place("is given the new passwords") < place("are forgotten"));
    assert!(place("are forgotten") < place("app logs in with the new password"));
    // Nothing was restarted for it.
    let restarts = world.restarts.len();
    world.run_for(muster_model::time::Millis::seconds(20));
    assert_eq!(world.restarts.len(), restarts);
}

#[test]
fn all_of_a_service_change_at_once_and_never_twice_by_one_wish() {
    let mut world = World::with_postgres();
    let id = rotate(&mut world, "");
    assert_eq!(world.await_end(id), OperationState::Done);
    let versions: Vec<u64> =
        list(&world.state, Some(&name("pg-main"))).iter().map(|one| one.version).collect();
    assert_eq!(versions, [2; 7], "superuser, replication, rewind, restapi, probe, tls, app");
    let OperationKind::Procedure(asked) = world.operation(id).kind.clone() else { panic!() };
    // The same wish once more, as a leader that had not heard of the end would see it: nothing new is made for it.
    assert_eq!(rotate::to_make(&asked, &world.state.secrets), Vec::<String>::new());
}

#[test]
fn what_cannot_be_changed_is_refused_with_the_reason() {
    let mut world = World::with_postgres();
    let refused = |world: &World, service: &str, which: &str| {
        rotation_of(&world.state, &name(service), which).unwrap_err()
    };
    assert!(refused(&world, "pg-main", "nobody").contains("muster secret ls pg-main"));
    assert!(refused(&world, "pg-main", "user-app@next").contains("no user"));
    assert!(refused(&world, "pg-main-etcd", "").contains("has no passwords"));
    world.apply_spec(&spec(
        serde_json::json!({ "pg-main": { "kind": "postgres" }, "bus": { "kind": "nats" } }),
    ));
    world.run_until("made", |state| state.secrets.contains_key("bus/user-app"));
    assert!(refused(&world, "bus", "app").contains("`nats` cannot"));
    assert!(refused(&world, "bus", "").contains("`nats` cannot"));
}

/// A service of a kind with its secrets, and what the procedure does next.
fn next(
    kind_name: &str,
    secrets: &[&str],
    arguments: &[&str],
    answers: &[(String, TaskOutcome)],
    stopped: bool,
) -> ProcedureStep {
    let service = name("svc");
    let settings = match kind_name {
        "redis" => serde_json::json!({ "kind": "redis", "mode": "cluster" }),
        other => serde_json::json!({ "kind": other, "users": [{ "name": "app", "policy": "readwrite" }] }),
    };
    let spec: muster_model::spec::ServiceSpec = serde_json::from_value(settings).unwrap();
    let members = (1..=3).map(|slot| {
        let mut member = member(slot, "", true);
        if stopped {
            member.started = false;
            member.stopped = true;
        }
        member
    });
    let row = |version| SecretRow {
        sealed: String::new(),
        version,
        changed: Default::default(),
        certificate: None,
    };
    let secrets = secrets.iter().map(|text| {
        let (name, version) = text.split_once('=').unwrap_or((text, "1"));
        (format!("svc/{name}"), row(version.parse().unwrap()))
    });
    let secrets = secrets.collect();
    let facts = ServiceFacts { secrets: &secrets, ..facts(&service, &spec, members.collect()) };
    let procedure = Procedure {
        name: rotate::NAME.to_owned(),
        why: String::new(),
        can_wait: false,
        arguments: arguments.iter().map(|what| (format!("svc/{what}"), "1".to_owned())).collect(),
    };
    rotate::proceed(kind(kind_name).unwrap(), &facts, &procedure, answers)
}

#[test]
fn redis_accepts_both_everywhere_before_anybody_uses_the_new_one() {
    let mut answers = Vec::new();
    let secrets = ["replica", "replica@next", "user-app", "user-app@next"];
    let mut labels = Vec::new();
    let last = loop {
        match next("redis", &secrets, &["replica", "user-app"], &answers, false) {
            ProcedureStep::Task { label, task } => {
                let text = format!("{:?}", task.what);
                assert!(text.contains("${secret:svc/replica@next}"), "{text}");
                answers.push((label.clone(), TaskOutcome::Done { answer: String::new() }));
                labels.push(label);
            }
            other => break other,
        }
    };
    let accepts = |slot| format!("svc/{slot} accepts the new passwords");
    let follows = |slot| format!("svc/{slot} follows with the new one");
    assert_eq!(labels, [accepts(1), accepts(2), accepts(3), follows(1), follows(2), follows(3)]);
    assert_eq!(last, ProcedureStep::Promote(vec!["svc/replica".to_owned(), "svc/user-app".to_owned()]));
}

#[test]
fn a_task_that_never_succeeds_asks_an_operator() {
    let secrets = ["user-app", "user-app@next"];
    let mut answers = Vec::new();
    for _ in 0..20 {
        let ProcedureStep::Task { label, .. } = next("redis", &secrets, &["user-app"], &answers, false)
        else {
            panic!()
        };
        answers.push((label, TaskOutcome::Failed { why: "NOPERM".to_owned() }));
    }
    let last = next("redis", &secrets, &["user-app"], &answers, false);
    assert!(matches!(last, ProcedureStep::NeedsOperator { reason, .. } if reason.contains("NOPERM")));
}

#[test]
fn the_login_of_an_s3_deployment_changes_while_all_members_are_stopped() {
    assert!(
        matches!(next("s3", &["root", "root@next"], &["root"], &[], false), ProcedureStep::Stop(all) if all.len() == 3)
    );
    let promoted = next("s3", &["root", "root@next"], &["root"], &[], true);
    assert_eq!(promoted, ProcedureStep::Promote(vec!["svc/root".to_owned()]));
    let changed = ["root=2", "root@previous"];
    assert!(
        matches!(next("s3", &changed, &["root"], &[], true), ProcedureStep::Start(all) if all.len() == 3)
    );
    assert!(matches!(next("s3", &changed, &["root"], &[], false), ProcedureStep::ForgetPrevious(_)));
    assert!(matches!(next("s3", &["root=2"], &["root"], &[], false), ProcedureStep::Done(_)));
}

#[test]
fn the_key_of_an_s3_user_changes_without_a_stop() {
    let secrets = ["user-app", "user-app@next"];
    let ProcedureStep::Task { label, task } = next("s3", &secrets, &["user-app"], &[], false) else {
        panic!()
    };
    assert!(format!("{:?}", task.what).contains("svc/user-app@next"));
    let answers = [(label, TaskOutcome::Done { answer: String::new() })];
    assert!(matches!(next("s3", &secrets, &["user-app"], &answers, false), ProcedureStep::Promote(_)));
}
