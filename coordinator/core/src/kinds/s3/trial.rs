//! A new image first serves a throw-away drive on the hosts of the first two members, which are changed back to back: one
//! that cannot write, read and delete an object there is never given a member's drives. Pure.

use muster_model::observed::TaskOutcome;
use muster_model::plan::TaskKind;
use muster_model::time::{Millis, Timestamp};

use super::settings::Settings;
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, Procedure, ProcedureStep, ServiceFacts, UpdateStep};

/// The procedure's name.
pub const NAME: &str = "try-image";
/// Record: the image that passed, or that all members run.
const PASSED: &str = "image";
/// Record: when which image failed, and why.
const FAILED: &str = "image-failed";
/// Hosts on which it is tried.
const HOSTS: usize = 2;
/// One that failed is tried again after this: what it lacked may have been brought.
const AGAIN_AFTER: Millis = Millis::seconds(60);
/// The entrypoint gives a server 30 s for its first object.
const TIMEOUT_MS: u64 = 60_000;
/// Longest reason that is kept, in characters.
const WHY_MAX: usize = 160;

fn has_passed(service: &ServiceFacts<'_>, settings: &Settings) -> bool {
    service.records.get(PASSED) == Some(&settings.image)
}

/// Why this image failed, if that was a moment ago.
fn failure<'a>(service: &ServiceFacts<'a>, settings: &Settings) -> Option<&'a str> {
    let (at, rest) = service.records.get(FAILED)?.split_once(' ')?;
    let why = rest.strip_prefix(&settings.image)?.strip_prefix(' ')?;
    let at = Timestamp(at.parse().ok()?);
    (service.now.since(at) < AGAIN_AFTER).then_some(why)
}

/// The image was neither tried nor seen to work.
pub fn due(service: &ServiceFacts<'_>, settings: &Settings) -> Option<Procedure> {
    let wanted = service.formed && !has_passed(service, settings) && failure(service, settings).is_none();
    // Seen to work: only to be recorded, and that can wait.
    let can_wait = service.members.iter().all(|member| member.current);
    let ready = service.members.iter().all(|m| m.seen.as_ref().is_some_and(|seen| seen.ready));
    (wanted && (ready || !can_wait)).then(|| Procedure {
        name: NAME.to_owned(),
        why: format!("{} is tried on a throw-away drive", settings.image),
        can_wait,
        arguments: Default::default(),
    })
}

/// What an update has to wait for, or why it ends.
pub fn gate(service: &ServiceFacts<'_>, settings: &Settings) -> Option<UpdateStep> {
    if !service.formed || has_passed(service, settings) {
        return None;
    }
    Some(match failure(service, settings) {
        Some(why) => {
            UpdateStep::Fail(format!("{} was tried first, no member is touched: {why}", settings.image))
        }
        None => UpdateStep::Wait(format!("{} is tried on a throw-away drive first", settings.image)),
    })
}

/// One host after the other, then the record.
pub fn proceed(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    if has_passed(service, settings) {
        return ProcedureStep::Done(format!("{} serves", settings.image));
    }
    let passed = || ProcedureStep::Record { key: PASSED.to_owned(), value: settings.image.clone() };
    if service.members.iter().all(|member| member.current) {
        return passed();
    }
    for member in service.members.iter().take(HOSTS) {
        let asked = format!("{} at {} @", settings.image, member.slot);
        let answer =
            answers.iter().rev().find_map(|(label, outcome)| Some((label.strip_prefix(&asked)?, outcome)));
        let why = match answer {
            None => return attempt(service, settings, member, &asked),
            Some((_, TaskOutcome::Done { .. })) => continue,
            Some((_, TaskOutcome::Failed { why } | TaskOutcome::Refused { why })) => short(why),
            Some((_, TaskOutcome::Interrupted)) => "the agent went away".to_owned(),
        };
        let at = answer.map_or("0", |(at, _)| at);
        let value = format!("{at} {} on {}: {why}", settings.image, member.host_name);
        if service.records.get(FAILED) != Some(&value) {
            return ProcedureStep::Record { key: FAILED.to_owned(), value };
        }
        return ProcedureStep::Failed(format!("{} on {}: {why}", settings.image, member.host_name));
    }
    passed()
}

fn attempt(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    member: &MemberFacts,
    label: &str,
) -> ProcedureStep {
    if !member.host_up {
        return ProcedureStep::Wait(format!("host {} is down", member.host_name));
    }
    // The entrypoint tries a program that it does not know before it runs it, whatever that is asked to do.
    let command = ["minio", "--version"].map(str::to_owned).to_vec();
    let what = TaskKind::OneShot { image: Some(settings.image.clone()), command, apart: true };
    let task = TaskDraft { member: member.member, guard: None, what, timeout_ms: TIMEOUT_MS };
    ProcedureStep::Task { label: format!("{label}{}", service.now.0), task: Box::new(task) }
}

/// The end of what was said, in one line: reasons stand there.
fn short(why: &str) -> String {
    let words: Vec<&str> = why.split_whitespace().collect();
    let text = words.join(" ");
    let surplus = text.chars().count().saturating_sub(WHY_MAX);
    text.chars().skip(surplus).collect()
}
