//! How another member comes to lead a replicated service: only once the master is known to take no writes any more, by its
//! agent or by an operator's word, and from the data that is ahead of all that can be read. Pure.

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, TaskKind};
use muster_model::time::{Millis, Timestamp};
use serde_json::Value;

use super::repair::began;
use super::settings::Settings;
use super::term::{self, NOBODY_YET, RECORD, Term};
use super::{master, render};
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, ProcedureStep, ServiceFacts, operator_said};

/// A container that ended is usually running again by then.
const PATIENCE: Millis = Millis::seconds(4);
/// The same for one that runs and does not answer.
const PATIENCE_HUNG: Millis = Millis::seconds(15);
/// Positions older than this are asked for again, and those that were asked for before the master was known to be gone.
const FRESH: Millis = Millis::seconds(30);
/// Pause after an answer that says nothing.
const RETRY_AFTER: Millis = Millis::seconds(3);
const ASKS_MAX: usize = 8;
const TASK_TIMEOUT_MS: u64 = 5_000;
const POSITIONS: &str = "positions";

/// How a master was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It runs without its data, as a replica: it takes no writes.
    Emptied,
    /// Its agent confirms that it is stopped and stays so.
    Halted,
    /// Its agent answers and it does not run; it may be started again at any time.
    Ended,
    /// It runs and does not answer.
    Hung,
    /// Nobody answers for it: it may take writes.
    Silent,
    /// It is no member any more: an operator said so.
    Gone,
}

impl Loss {
    /// How this member was lost; `Err(None)` = nothing can be said yet.
    pub fn of(service: &ServiceFacts<'_>, member: &MemberFacts) -> Result<(), Option<Self>> {
        if !member.host_up {
            return Err(Some(Self::Silent));
        }
        if member.stopped {
            return Err(Some(Self::Halted));
        }
        if member.missing {
            return Err(Some(Self::Ended));
        }
        let Some(seen) = &member.seen else { return Err(None) };
        match &seen.role {
            _ if !seen.running => Err(Some(Self::Ended)),
            None => Err(Some(Self::Hung)),
            Some(_) if service.formed && term::has_none(member) => Err(Some(Self::Emptied)),
            Some(_) => Ok(()),
        }
    }

    /// Only an operator's word says that it does not run.
    const fn is_unbound(self) -> bool {
        matches!(self, Self::Silent | Self::Gone)
    }
}

/// The next step towards another master.
pub fn succeed(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    loss: Loss,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let Some(recorded) = term::recorded(service) else {
        return ProcedureStep::Failed("nobody ever led".to_owned());
    };
    let old = service.members.iter().find(|m| m.member == recorded.member);
    let others = || service.members.iter().filter(|m| m.member != recorded.member);
    let heirs = heirs(service, recorded);
    if let Some(old) = old.filter(|_| loss == Loss::Silent) {
        let question = ask_operator(service, old, "it may still take writes", "is off");
        if !is_answered(&question, answers) {
            return question;
        }
    }
    let Some(first) = heirs.first() else {
        return ProcedureStep::Wait(format!("no other member of {} can lead now", service.name));
    };
    for unread in others().filter(|m| !could_lead(m, recorded)) {
        let risk = "it may have writes that no other replica has";
        let question = ask_operator(service, unread, risk, "does not matter");
        if !is_answered(&question, answers) {
            return question;
        }
    }
    let asked: Vec<(Timestamp, &TaskOutcome)> =
        answers.iter().filter_map(|(label, outcome)| Some((began(label, POSITIONS)?, outcome))).collect();
    let ask = || ask_positions(service, settings, loss, first, &heirs);
    let Some((begun, _)) = asked.first() else { return ask() };
    if let (Some(old), Some(patience)) = (old, patience(loss)) {
        if service.now.since(*begun) < patience {
            return ProcedureStep::Wait(format!("{}/{} may come back", service.name, old.slot));
        }
        return ProcedureStep::Stop(vec![old.member]);
    }
    let told = match asked.last() {
        Some((at, TaskOutcome::Done { answer })) if is_fresh(service, *at, loss, old) => {
            furthest(&heirs, answer)
        }
        _ => None,
    };
    if let Some(heir) = told {
        let value = recorded.next(heir.member).to_string();
        return ProcedureStep::Record { key: RECORD.to_owned(), value };
    }
    match asked.last() {
        Some((at, _)) if service.now.since(*at) < RETRY_AFTER => {
            ProcedureStep::Wait("the replicas are asked again soon".to_owned())
        }
        _ if asked.len() >= ASKS_MAX => {
            let reason = format!("the replicas of {} do not tell their positions", service.name);
            ProcedureStep::stuck(service.name.as_str(), first.slot, reason)
        }
        _ => ask(),
    }
}

/// Safety: a master that took writes after the question may have given them to one replica only.
fn is_fresh(service: &ServiceFacts<'_>, at: Timestamp, loss: Loss, old: Option<&MemberFacts>) -> bool {
    let gone_since = old.map_or(Timestamp(0), |old| match loss {
        Loss::Silent => old.host_since,
        _ => old.seen_since,
    });
    at >= gone_since && service.now.since(at) < FRESH
}

/// Time for a member that its agent can start again.
const fn patience(loss: Loss) -> Option<Millis> {
    match loss {
        Loss::Ended => Some(PATIENCE),
        Loss::Hung => Some(PATIENCE_HUNG),
        Loss::Emptied | Loss::Halted | Loss::Silent | Loss::Gone => None,
    }
}

/// Those that could lead now in the place of the recorded member.
pub fn heirs<'a>(service: &'a ServiceFacts<'_>, recorded: Term) -> Vec<&'a MemberFacts> {
    let others = service.members.iter().filter(|m| m.member != recorded.member);
    others.filter(|m| could_lead(m, recorded)).collect()
}

/// It runs, and its data is of the last term, or of the one before if the last was never written.
fn could_lead(member: &MemberFacts, recorded: Term) -> bool {
    !term::loads(member) && term::said(member).is_some_and(|said| said.epoch + 1 >= recorded.epoch)
}

/// Whether an operator's word was given for exactly this question.
fn is_answered(question: &ProcedureStep, answers: &[(String, TaskOutcome)]) -> bool {
    matches!(question, ProcedureStep::NeedsOperator { reason, .. } if operator_said(answers, reason))
}

fn ask_operator(service: &ServiceFacts<'_>, member: &MemberFacts, risk: &str, is: &str) -> ProcedureStep {
    let who = format!("{}/{} on {}", service.name, member.slot, member.host_name);
    ProcedureStep::NeedsOperator {
        reason: format!("{who} does not answer: {risk}, so nobody else is made master"),
        remedy: format!(
            "bring {} back and it goes on by itself; or make sure that {who} {is}: to continue is your word for that, and \
             the best replica leads",
            member.host_name
        ),
        word: true,
    }
}

/// Asks how far each is. Where no agent keeps the old master stopped, it may come back at any moment: they leave it first.
///
/// Safety: it takes up its term by itself only while everybody follows it or nobody; that ends before a new term is recorded.
fn ask_positions(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    loss: Loss,
    by: &MemberFacts,
    heirs: &[&MemberFacts],
) -> ProcedureStep {
    let of = |m: &&MemberFacts| Some((m.slot, term::address(m, settings)));
    let leave = |m: &&MemberFacts| loss.is_unbound().then(|| master::replica_of(NOBODY_YET, of(m)));
    let calls = heirs.iter().flat_map(|m| {
        let asked = [master::role(of(m)), master::said(of(m)), master::beats(of(m))];
        leave(m).into_iter().chain(asked)
    });
    let calls = calls.collect();
    let task = TaskDraft {
        member: by.member,
        guard: None,
        what: TaskKind::Act { act: Act::Resp(render::admin(service.name, calls)) },
        timeout_ms: TASK_TIMEOUT_MS,
    };
    ProcedureStep::Task { label: format!("{POSITIONS} @{}", service.now.0), task: Box::new(task) }
}

/// The one whose data is of the newest term and, in it, has read most of the old master's writes: by the heartbeats among
/// them, which outlive a restart, then by the position in the stream, which does not.
fn furthest<'a>(heirs: &[&'a MemberFacts], answer: &str) -> Option<&'a MemberFacts> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let position = |m: &MemberFacts| {
        let info = &answer[format!("info-{}", m.slot)];
        let said = answer[format!("term-{}", m.slot)].as_str().and_then(Term::parse)?;
        let offset: u64 = info["slave_repl_offset"].as_str()?.parse().ok()?;
        let beats: u64 = match &answer[format!("beat-{}", m.slot)] {
            Value::Null => 0,
            told => told.as_str()?.parse().ok()?,
        };
        (info["role"] == "slave").then_some((said.epoch, beats, offset))
    };
    // One that came after the question, or did not answer, may be ahead of all others.
    let known: Option<Vec<_>> = heirs.iter().map(|m| Some((position(m)?, *m))).collect();
    known?
        .into_iter()
        .max_by_key(|(position, m)| (*position, std::cmp::Reverse(m.slot)))
        .map(|(_, heir)| heir)
}
