//! How passwords are changed while they are in use: the same steps for every kind, which says how its servers take them.
//!
//! The next value is made beside the present one, the servers are told to accept it too where they can, then it becomes
//! the present one, and the one before is forgotten once no server wants it. Each step stands in State, so that a new
//! leader goes on with it. Makes no value, and never sees one.

use std::collections::BTreeMap;

use muster_model::ids::MemberId;
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Guard, TaskKind, next_secret, previous_secret};

use super::{Kind, Procedure, ProcedureStep, ServiceFacts, parts};
use crate::command::TaskDraft;
use crate::state::SecretRow;

/// The procedure's name. Its arguments are the secrets, with the versions that they had when it was asked for.
pub const NAME: &str = "rotate-secrets";
/// Tries of one task. Each is at once: together some seconds.
const TRIES_MAX: usize = 20;
/// Logins that are tried in the end.
pub const CONFIRMED_MAX: usize = 8;

/// What the change of a password does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// What a connected client sees, in one sentence.
    pub clients: String,
    /// All members are stopped and started for it, together.
    pub stops: bool,
}

impl Rotation {
    /// One that stops nothing.
    pub fn smooth(clients: &str) -> Self {
        Self { clients: clients.to_owned(), stops: false }
    }
}

/// The secrets that are changed, with the versions that they had.
fn asked(procedure: &Procedure) -> impl Iterator<Item = (&str, u64)> {
    procedure.arguments.iter().map(|(name, version)| (name.as_str(), version.parse().unwrap_or(0)))
}

/// Secrets whose next value is to be made.
pub fn to_make(procedure: &Procedure, secrets: &BTreeMap<String, SecretRow>) -> Vec<String> {
    if procedure.name != NAME {
        return Vec::new();
    }
    let present = |name: &str, version| secrets.get(name).is_some_and(|row| row.version == version);
    let wanted = asked(procedure).filter(|(name, version)| present(name, *version));
    wanted.map(|(name, _)| next_secret(name)).filter(|next| !secrets.contains_key(next)).collect()
}

/// The next step.
pub fn proceed(
    kind: &dyn Kind,
    service: &ServiceFacts<'_>,
    procedure: &Procedure,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let names: Vec<String> = asked(procedure).map(|(name, _)| name.to_owned()).collect();
    if let Some(gone) = names.iter().find(|name| !service.secrets.contains_key(*name)) {
        return ProcedureStep::Failed(format!("there is no secret {gone} any more"));
    }
    if !to_make(procedure, service.secrets).is_empty() {
        return ProcedureStep::Wait("new passwords are being made".to_owned());
    }
    let version = |name: &str| service.secrets.get(name).map_or(0, |row| row.version);
    let promoted = asked(procedure).all(|(name, before)| version(name) > before);
    let whole = names.iter().any(|name| stops(kind, service, name));
    let members: Vec<MemberId> = service.members.iter().map(|member| member.member).collect();
    let before = || next_task(service, kind.introduce(service, &names), answers);
    match (promoted, whole) {
        (false, false) => all_ready(service).or_else(before).unwrap_or(ProcedureStep::Promote(names)),
        (false, true) if service.members.iter().all(is_stopped) => ProcedureStep::Promote(names),
        (false, true) => {
            let begun = service.members.iter().any(|member| !member.started);
            all_ready(service).filter(|_| !begun).unwrap_or(ProcedureStep::Stop(members))
        }
        (true, true) if service.members.iter().any(|member| !member.started) => ProcedureStep::Start(members),
        (true, _) => all_ready(service).unwrap_or_else(|| ends(kind, service, names, answers)),
    }
}

/// The steps once the new values are the present ones.
fn ends(
    kind: &dyn Kind,
    service: &ServiceFacts<'_>,
    names: Vec<String>,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    if names.iter().any(|name| service.secrets.contains_key(&previous_secret(name))) {
        let task = next_task(service, kind.enforce(service, &names), answers);
        return task.unwrap_or(ProcedureStep::ForgetPrevious(names));
    }
    // Only now: while the values before are known, a login may have used one of them.
    let task = next_task(service, kind.confirm(service, &names), answers);
    task.unwrap_or_else(|| ProcedureStep::Done(format!("{} changed", names.join(", "))))
}

fn stops(kind: &dyn Kind, service: &ServiceFacts<'_>, name: &str) -> bool {
    kind.rotation(service.spec, what(name)).is_ok_and(|rotation| rotation.stops)
}

/// A secret's name without its service's.
pub fn what(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, what)| what)
}

fn is_stopped(member: &super::MemberFacts) -> bool {
    !member.started && member.stopped
}

/// What is waited for before a password is changed; nothing if every member serves.
fn all_ready(service: &ServiceFacts<'_>) -> Option<ProcedureStep> {
    if service.members.len() < service.slots as usize {
        return Some(ProcedureStep::Wait("not every member is placed".to_owned()));
    }
    let late = service.members.iter().find(|member| !parts::is_ready(member))?;
    Some(ProcedureStep::Wait(format!("waits for {}", parts::why_not_ready(service, late))))
}

/// The first task that has not succeeded yet.
fn next_task(
    service: &ServiceFacts<'_>,
    tasks: Vec<(String, TaskDraft)>,
    answers: &[(String, TaskOutcome)],
) -> Option<ProcedureStep> {
    let done = |label: &String| {
        answers.iter().any(|(other, outcome)| other == label && matches!(outcome, TaskOutcome::Done { .. }))
    };
    let (label, task) = tasks.into_iter().find(|(label, _)| !done(label))?;
    let tries: Vec<&TaskOutcome> =
        answers.iter().filter(|(other, _)| *other == label).map(|(_, outcome)| outcome).collect();
    let why = match tries.last() {
        Some(TaskOutcome::Failed { why } | TaskOutcome::Refused { why }) => why.as_str(),
        _ => "the agent went away",
    };
    if tries.len() >= TRIES_MAX {
        return Some(ProcedureStep::stuck(service.name.as_str(), 1, format!("{label}: {why}")));
    }
    Some(ProcedureStep::Task { label, task: Box::new(task) })
}

/// A task that only looks: it succeeds if the guard holds.
pub fn check(member: MemberId, guard: Guard) -> TaskDraft {
    TaskDraft { member, guard: Some(guard), what: TaskKind::FreeSpace, timeout_ms: 5_000 }
}

/// A task: the member's action of this name.
pub fn action(member: MemberId, name: &str, timeout_ms: u64) -> TaskDraft {
    TaskDraft { member, guard: None, what: TaskKind::Action { name: name.to_owned() }, timeout_ms }
}
