//! Buckets, policies and users of the spec, brought about by signed calls, one after the other. Absence takes a user's
//! login away; buckets and their objects it never deletes.

use std::collections::BTreeSet;

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, S3User, S3What, TaskKind, hash_of, next_secret};
use serde_json::Value;

use super::render::{secret, signed};
use super::settings::Settings;
use crate::command::TaskDraft;
use crate::kinds::rotate::Rotation;
use crate::kinds::{Procedure, ProcedureStep, ServiceFacts, parts};

/// Name of the secret of the whole deployment's login.
const ROOT: &str = "root";
/// The procedure's name.
const NAME: &str = "declare";
/// Record: hash of what was brought about.
const DECLARED: &str = "declared";
/// Record: users that exist, with commas between them.
const USERS: &str = "users";
/// Record: buckets that keep versions, or did, with commas between them.
const VERSIONED: &str = "versioned";
/// Begins the label of a call that takes a user away.
const GONE: &str = "no user ";
/// Tries of one call.
const TRIES_MAX: usize = 10;
/// For one call.
const TIMEOUT_MS: u64 = 10_000;

/// One call, and what it is called.
struct Call {
    label: String,
    what: S3What,
}

fn put(label: String, path: String, body: String) -> Call {
    Call { label, what: S3What::Request { method: "PUT".to_owned(), path, body } }
}

/// What the service must have.
pub fn wanted(settings: &Settings) -> String {
    hash_of(&(&settings.buckets, &settings.policies, &settings.users))
}

/// Something is declared that was not brought about yet.
pub fn due(service: &ServiceFacts<'_>, settings: &Settings) -> Option<Procedure> {
    let declared = service.records.get(DECLARED) == Some(&wanted(settings));
    let serves = service.members.iter().any(parts::is_ready);
    (service.formed && serves && !declared).then(|| Procedure {
        name: NAME.to_owned(),
        why: "buckets, policies and users of the spec".to_owned(),
        arguments: Default::default(),
        can_wait: true,
    })
}

/// Names in a record.
fn before<'a>(service: &ServiceFacts<'a>, record: &str) -> BTreeSet<&'a str> {
    let names = service.records.get(record).map(String::as_str).unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).collect()
}

fn calls(service: &ServiceFacts<'_>, settings: &Settings) -> Vec<Call> {
    let mut calls = Vec::new();
    for bucket in &settings.buckets {
        let name = &bucket.name;
        calls.push(put(format!("bucket {name}"), format!("/{name}"), String::new()));
        let state = match (bucket.versioning, before(service, VERSIONED).contains(name.as_str())) {
            (true, _) => "Enabled",
            (false, true) => "Suspended",
            (false, false) => continue,
        };
        let body = format!("<VersioningConfiguration><Status>{state}</Status></VersioningConfiguration>");
        calls.push(put(format!("versioning of {name}"), format!("/{name}?versioning="), body));
    }
    for (name, document) in &settings.policies {
        let path = format!("/minio/admin/v3/add-canned-policy?name={name}");
        calls.push(put(format!("policy {name}"), path, Value::to_string(document)));
    }
    let user = |user: &super::settings::User| S3User {
        name: user.name.clone(),
        secret: key(service, user),
        policy: user.policy.clone(),
    };
    let users = settings.users.iter().map(user).collect();
    calls.push(Call { label: "users".to_owned(), what: S3What::ImportUsers(users) });
    let kept: BTreeSet<&str> = settings.users.iter().map(|user| user.name.as_str()).collect();
    for gone in before(service, USERS).difference(&kept) {
        let path = format!("/minio/admin/v3/remove-user?accessKey={gone}");
        let what = S3What::Request { method: "DELETE".to_owned(), path, body: String::new() };
        calls.push(Call { label: format!("{GONE}{gone}"), what });
    }
    calls
}

/// Why a call has not had its effect; nothing if it has.
fn failure(outcome: &TaskOutcome) -> Option<String> {
    match outcome {
        TaskOutcome::Done { .. } => None,
        // What is there already is what was wanted.
        TaskOutcome::Failed { why } if why.contains("BucketAlreadyOwnedByYou") => None,
        TaskOutcome::Failed { why } if why.contains("XMinioAdminNoSuchUser") => None,
        TaskOutcome::Failed { why } | TaskOutcome::Refused { why } => Some(why.clone()),
        TaskOutcome::Interrupted => Some("the agent went away".to_owned()),
    }
}

pub fn proceed(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let calls = calls(service, settings);
    let mut at = 0;
    let mut tries = 0;
    if let Some((label, outcome)) = answers.last() {
        let last = match calls.iter().position(|call| call.label == *label) {
            Some(last) => last,
            // The last of the calls; who was taken away is no longer recorded.
            None if label.starts_with(GONE) => calls.len(),
            // The spec changed meanwhile; what is due now begins anew.
            None => return ProcedureStep::Done("the spec changed".to_owned()),
        };
        at = last + 1;
        if let Some(why) = failure(outcome) {
            tries = answers.iter().rev().take_while(|(earlier, _)| earlier == label).count();
            if tries >= TRIES_MAX {
                return ProcedureStep::stuck(service.name.as_str(), 1, format!("{label}: {why}"));
            }
            at = last;
        }
    }
    let Some(call) = calls.into_iter().nth(at) else { return record(service, settings) };
    let ready: Vec<_> = service.members.iter().filter(|member| parts::is_ready(member)).collect();
    // Another member at each try: one of them may not answer.
    let Some(through) = ready.get(tries % ready.len().max(1)) else {
        return ProcedureStep::Wait("no member serves".to_owned());
    };
    let task = TaskDraft {
        member: through.member,
        guard: None,
        what: TaskKind::Act { act: Act::S3(signed(service.name, call.what)) },
        timeout_ms: TIMEOUT_MS,
    };
    ProcedureStep::Task { label: call.label, task: Box::new(task) }
}

/// The login of the deployment is read at a start, and must be the same in all members at any time.
pub fn rotation(what: &str) -> Rotation {
    if what == ROOT {
        let clients = "all members are stopped and started, together: no reads and no writes for about 10 s";
        return Rotation { clients: clients.to_owned(), stops: true };
    }
    Rotation::smooth(
        "a user has one key: a request that is signed with the old one is refused within a second",
    )
}

/// The users' next keys. From then on the servers take no others.
pub fn introduce(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    secrets: &[String],
) -> Vec<(String, TaskDraft)> {
    let changed = |user: &&super::settings::User| secrets.contains(&key(service, user));
    let users = settings.users.iter().filter(changed).map(|user| S3User {
        name: user.name.clone(),
        secret: next_secret(&key(service, user)),
        policy: user.policy.clone(),
    });
    let users: Vec<S3User> = users.collect();
    let through = service.members.iter().find(|member| parts::is_ready(member)).filter(|_| !users.is_empty());
    let task = through.map(|through| TaskDraft {
        member: through.member,
        guard: None,
        what: TaskKind::Act { act: Act::S3(signed(service.name, S3What::ImportUsers(users))) },
        timeout_ms: TIMEOUT_MS,
    });
    task.map(|task| ("the users get their new keys".to_owned(), task)).into_iter().collect()
}

/// Name of the secret that is a user's key.
fn key(service: &ServiceFacts<'_>, user: &super::settings::User) -> String {
    secret(service.name, &format!("user-{}", user.name))
}

/// Safety of this order: who exists is recorded before it is said that all is as declared.
fn record(service: &ServiceFacts<'_>, settings: &Settings) -> ProcedureStep {
    let users: Vec<&str> = settings.users.iter().map(|user| user.name.as_str()).collect();
    let mut versioned = before(service, VERSIONED);
    versioned.extend(settings.buckets.iter().filter(|bucket| bucket.versioning).map(|b| b.name.as_str()));
    let versioned: Vec<&str> = versioned.into_iter().collect();
    let facts = [(USERS, users.join(",")), (VERSIONED, versioned.join(",")), (DECLARED, wanted(settings))];
    let differs = |key: &str, value: &String| {
        service.records.get(key).map_or(!value.is_empty(), |recorded| recorded != value)
    };
    let missing = facts.into_iter().find(|(key, value)| differs(key, value));
    match missing {
        Some((key, value)) => ProcedureStep::Record { key: key.to_owned(), value },
        None => ProcedureStep::Done("buckets, policies and users are as the spec says".to_owned()),
    }
}
