//! After a member was away, every object is made whole on every drive before any drive may be given up. The servers do so
//! by themselves for what they remember; they forget it when they restart. Pure.

use muster_model::ids::MemberId;
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, S3What, TaskKind};
use muster_model::time::{Millis, Timestamp};
use serde_json::Value;

use super::render::{BUCKET, signed};
use super::settings::Settings;
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, Procedure, ProcedureStep, ServiceFacts, Wait, operator_said, parts};

/// The procedure's name.
pub const NAME: &str = "heal";
/// Record: when the last complete heal began, in milliseconds.
const HEALED: &str = "healed";
/// Begins the label of a start; the time follows.
const START: &str = "start @";
/// A member that came back is left alone this long: others may follow, and what it remembers itself is soon done.
const SETTLES: Millis = Millis::seconds(20);
/// Between two starts.
const RETRY_AFTER: Millis = Millis::seconds(30);
/// Starts before an operator is asked.
const STARTS_MAX: usize = 3;
/// Of one look at a heal that runs. Its host may be lost meanwhile, and what needs the heal waits for as long as that answer.
const FOLLOW_MS: u64 = 30_000;
/// Of a start.
const START_MS: u64 = 20_000;

/// A heal that was begun.
struct Begun<'a> {
    at: Timestamp,
    token: &'a str,
    /// Objects that could not be made whole so far, and one of them.
    failed: u64,
    first: &'a str,
}

impl Begun<'_> {
    /// As the label of the next look at it.
    fn label(&self) -> String {
        format!("{} {} {} {}", self.at.0, self.token, self.failed, self.first)
    }

    fn of(label: &str) -> Option<Begun<'_>> {
        let mut words = label.splitn(4, ' ');
        let at = Timestamp(words.next()?.parse().ok()?);
        let token = words.next()?;
        let failed = words.next()?.parse().ok()?;
        Some(Begun { at, token, failed, first: words.next().unwrap_or_default() })
    }
}

/// Since when the member is there without a break.
fn back_since(member: &MemberFacts) -> Option<Timestamp> {
    let started = member.seen.as_ref().filter(|_| parts::is_ready(member))?.started_at;
    Some(started.map_or(member.host_since, |started| started.max(member.host_since)))
}

fn healed_at(service: &ServiceFacts<'_>) -> Option<Timestamp> {
    Some(Timestamp(service.records.get(HEALED)?.parse().ok()?))
}

/// Members that serve and may lack objects that were written without them.
fn lacking<'a>(service: &'a ServiceFacts<'_>) -> impl Iterator<Item = &'a MemberFacts> {
    let healed = healed_at(service);
    service
        .members
        .iter()
        .filter(move |m| back_since(m).is_some_and(|back| healed.is_none_or(|at| back > at)))
}

/// Enough members serve, nothing comes up or is being filled, and one was away since the last heal.
pub fn due(service: &ServiceFacts<'_>, settings: &Settings) -> Option<Procedure> {
    let ready = service.members.iter().filter(|member| parts::is_ready(member)).count() as u32;
    let calm = |m: &MemberFacts| {
        !m.host_up
            || parts::is_ready(m)
                && m.seen.as_ref().is_some_and(|seen| seen.caught_up)
                && back_since(m).is_some_and(|back| service.now.since(back) >= SETTLES)
    };
    let can = service.formed
        && settings.erasure.hosts > 1
        && ready * settings.erasure.drives >= settings.erasure.write_quorum()
        && service.members.iter().all(calm);
    let member = lacking(service).next().filter(|_| can)?;
    Some(Procedure {
        name: NAME.to_owned(),
        why: format!(
            "{}/{} was away: what was written meanwhile is completed on it",
            service.name, member.slot
        ),
        can_wait: true,
        arguments: Default::default(),
    })
}

/// What was written while another member was away may need the one that would be given up.
pub fn may_give_up(service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
    let Some(other) = lacking(service).find(|other| other.member != member) else { return Ok(()) };
    Err(Wait(format!(
        "{}/{} was away, and what was written meanwhile may not be whole on it: the operation `{NAME}` comes first",
        service.name, other.slot
    )))
}

/// Begins it, follows it, and records when it began.
pub fn proceed(service: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    if lacking(service).next().is_none() {
        return ProcedureStep::Done("every object is whole on every drive that is there".to_owned());
    }
    let Some((label, outcome)) = answers.last() else { return begin(service, answers) };
    let answer = match outcome {
        TaskOutcome::Done { answer } => answer,
        TaskOutcome::Failed { why } | TaskOutcome::Refused { why } => return again(service, answers, why),
        TaskOutcome::Interrupted => return again(service, answers, "the agent went away"),
    };
    let said: Value = serde_json::from_str(answer).unwrap_or_default();
    if let Some(at) = label.strip_prefix(START).and_then(|at| at.parse().ok()) {
        let Some(token) = said["token"].as_str() else {
            return again(service, answers, "the server gave no token");
        };
        return follow(service, &Begun { at: Timestamp(at), token, failed: 0, first: "" });
    }
    let Some(begun) = Begun::of(label) else { return begin(service, answers) };
    let first = if begun.first.is_empty() { said["first"].as_str().unwrap_or_default() } else { begun.first };
    let begun = Begun { failed: begun.failed + said["failed"].as_u64().unwrap_or(0), first, ..begun };
    match said["state"].as_str() {
        Some("running") => follow(service, &begun),
        // Another one was away meanwhile: that is the next one's work.
        Some("finished") if healed_at(service) == Some(begun.at) => {
            ProcedureStep::Done("every object is whole as of its beginning".to_owned())
        }
        Some("finished") if begun.failed == 0 => recorded(begun.at),
        Some("finished") => incomplete(service, &begun, answers),
        _ => again(service, answers, "the server that healed was restarted"),
    }
}

fn starts(answers: &[(String, TaskOutcome)]) -> impl Iterator<Item = Timestamp> {
    answers.iter().filter_map(|(label, _)| label.strip_prefix(START)?.parse().ok().map(Timestamp))
}

fn recorded(at: Timestamp) -> ProcedureStep {
    ProcedureStep::Record { key: HEALED.to_owned(), value: at.0.to_string() }
}

fn through<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a MemberFacts> {
    service.members.iter().find(|member| parts::is_ready(member))
}

fn task(service: &ServiceFacts<'_>, label: String, token: Option<&str>, timeout_ms: u64) -> ProcedureStep {
    let Some(through) = through(service) else { return ProcedureStep::Wait("no member serves".to_owned()) };
    let what = S3What::Heal { token: token.map(str::to_owned), except: BUCKET.to_owned() };
    let what = TaskKind::Act { act: Act::S3(signed(service.name, what)) };
    let task = TaskDraft { member: through.member, guard: None, what, timeout_ms };
    ProcedureStep::Task { label, task: Box::new(task) }
}

fn begin(service: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    if let Some(last) = starts(answers).last()
        && service.now.since(last) < RETRY_AFTER
    {
        return ProcedureStep::Wait("is begun again soon".to_owned());
    }
    task(service, format!("{START}{}", service.now.0), None, START_MS)
}

fn follow(service: &ServiceFacts<'_>, begun: &Begun<'_>) -> ProcedureStep {
    task(service, begun.label(), Some(begun.token), FOLLOW_MS)
}

fn again(service: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)], why: &str) -> ProcedureStep {
    if starts(answers).count() < STARTS_MAX {
        return begin(service, answers);
    }
    let slot = through(service).map_or(1, |member| member.slot);
    ProcedureStep::stuck(service.name.as_str(), slot, format!("the objects are not completed: {why}"))
}

/// Some objects need a drive that is not there: whoever gives that one up gives them up.
fn incomplete(
    service: &ServiceFacts<'_>,
    begun: &Begun<'_>,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let away = service.members.iter().filter(|member| !parts::is_ready(member));
    let away: Vec<String> = away.map(|m| format!("{}/{} on {}", service.name, m.slot, m.host_name)).collect();
    let reason = format!(
        "{} objects cannot be completed on the drives that are there, {} among them",
        begun.failed, begun.first
    );
    if operator_said(answers, &reason) {
        return recorded(begun.at);
    }
    if starts(answers).count() < STARTS_MAX {
        return begin(service, answers);
    }
    let bring = match away.is_empty() {
        true => "look at the servers' logs".to_owned(),
        false => format!("bring {} back, and cancel this", away.join(" and ")),
    };
    let remedy = format!(
        "{bring}; or to continue is your word that these objects may be given up with the drives that have them"
    );
    ProcedureStep::NeedsOperator { reason, remedy, word: true }
}
