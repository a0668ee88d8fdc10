//! What this kind does by itself: it records the cluster's history, and begins a cluster anew that stopped as a whole.
//! Reads every volume first, and never begins from a position that another volume is ahead of.

use std::collections::BTreeSet;

use muster_model::ids::MemberId;
use muster_model::observed::TaskOutcome;
use muster_model::plan::TaskKind;
use muster_model::time::Millis;
use serde::Deserialize;

use super::observe::{JOINING, NO_HISTORY, WAITS};
use super::{HISTORY, HOLDERS, decide, render};
use crate::command::TaskDraft;
use crate::kinds::{MemberFacts, Observed, Procedure, ProcedureStep, ServiceFacts, operator_said, parts};

const RECORD: &str = "record-history";
const COLD_START: &str = "cold-start";
/// Members that were all stopped find each other by themselves if their last view is still on their disks; only when
/// that did not happen for this long is it done for them.
const PATIENCE: Millis = Millis::seconds(25);
/// The engine recovers its own data before it tells its position.
const READ_TIMEOUT_MS: u64 = 300_000;
/// Times that a volume is asked before an operator is.
const READS_MAX: usize = 3;
/// Restarts by the agent after which a member is not expected to come up as it is.
const RESTARTS_MAX: u32 = 3;

/// Work that should begin now.
pub fn due(service: &ServiceFacts<'_>) -> Option<Procedure> {
    let make = |name: &str, can_wait, why| Procedure {
        name: name.to_owned(),
        why,
        can_wait,
        arguments: Default::default(),
    };
    if let Some(history) = unrecorded(service) {
        return Some(make(RECORD, true, format!("the cluster is {history}")));
    }
    if let Some(holders) = other_holders(service) {
        return Some(make(RECORD, true, format!("the members {holders} have everything")));
    }
    let concerned = concerned(service);
    // Otherwise the first one may still be making the database.
    let made = |seen: &Observed| seen.system_id.is_some() || seen.detail == WAITS;
    let told = |m: &MemberFacts| m.seen.as_ref().is_some_and(made);
    let stands = |m: &&MemberFacts| stands_still(service, m) && (service.formed || told(m));
    let (lost, here): (Vec<&MemberFacts>, Vec<&MemberFacts>) =
        concerned.into_iter().partition(|member| parts::is_given_up(service, member));
    let stands = here.iter().all(stands);
    // Where hosts are gone for good, nobody fills their slots any more.
    let placed = service.members.len() == service.slots as usize
        || (service.formed && !unread_holders(service).is_empty());
    let nobody = stands && !here.is_empty() && placed && (service.formed || lost.is_empty());
    let why = "no member is in a cluster, and none is on its way into one";
    nobody.then(|| make(COLD_START, false, why.to_owned()))
}

/// The members whose volumes may hold rows: until the cluster is formed, the first one alone.
fn concerned<'a>(service: &'a ServiceFacts<'_>) -> Vec<&'a MemberFacts> {
    if service.formed {
        return service.members.iter().collect();
    }
    service.members.iter().min_by_key(|member| member.slot).into_iter().collect()
}

/// The recorded members that had everything when the cluster last was whole.
fn holders(service: &ServiceFacts<'_>) -> BTreeSet<MemberId> {
    let recorded = service.records.get(HOLDERS).map(String::as_str).unwrap_or_default();
    recorded.split(',').filter_map(|id| id.parse().ok()).map(MemberId).collect()
}

/// What is to be recorded of them instead: all, once all are in step; without those that the cluster went on without.
fn other_holders(service: &ServiceFacts<'_>) -> Option<String> {
    decide::leader(service).filter(|member| parts::is_ready(member) && service.formed)?;
    let members = &service.members;
    let whole = members.len() == service.slots as usize && members.iter().all(parts::is_ready);
    let recorded = holders(service);
    let present = members.iter().map(|m| m.member).filter(|id| whole || recorded.contains(id));
    let wanted: BTreeSet<MemberId> = present.collect();
    let text: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    (wanted != recorded && !wanted.is_empty()).then(|| text.join(","))
}

/// Recorded ones that are no members any more: an operator said that they are lost, and nobody read their volumes.
fn unread_holders(service: &ServiceFacts<'_>) -> Vec<MemberId> {
    let is_member = |id: &MemberId| service.members.iter().any(|member| member.member == *id);
    holders(service).into_iter().filter(|id| !is_member(id)).collect()
}

fn unrecorded<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a str> {
    if !service.formed || service.records.contains_key(HISTORY) {
        return None;
    }
    let leader = decide::leader(service).filter(|member| parts::is_ready(member))?;
    leader.seen.as_ref()?.system_id.as_deref()
}

/// Its agent answers, it was told to run, and it has not been part of a cluster for a while.
fn stands_still(service: &ServiceFacts<'_>, member: &MemberFacts) -> bool {
    let Some(seen) = member.seen.as_ref().filter(|_| member.host_up && member.started) else { return false };
    let waits = seen.started_at.is_some_and(|at| service.now.since(at) > PATIENCE);
    seen.running && !seen.ready && seen.writes.is_none() && !parts::has_role(member, JOINING) && waits
}

/// The next step of one of the two.
pub fn proceed(
    service: &ServiceFacts<'_>,
    procedure: &Procedure,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    match procedure.name.as_str() {
        RECORD => match (unrecorded(service), other_holders(service)) {
            (Some(history), _) => {
                ProcedureStep::Record { key: HISTORY.to_owned(), value: history.to_owned() }
            }
            (None, Some(value)) => ProcedureStep::Record { key: HOLDERS.to_owned(), value },
            (None, None) => ProcedureStep::Done("what is known of the cluster is recorded".to_owned()),
        },
        COLD_START => cold_start(service, answers),
        other => ProcedureStep::Done(format!("this version does not know the procedure {other}")),
    }
}

/// What a stopped member's volume says.
#[derive(Debug, Clone, Deserialize)]
struct Position {
    data: bool,
    uuid: String,
    seqno: i64,
    last_to_stop: bool,
}

/// One member and what its volume says.
struct Volume<'a> {
    member: &'a MemberFacts,
    position: Position,
}

fn cold_start(service: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    let begun = answers.iter().find_map(|(label, outcome)| {
        let number = label.strip_prefix("mark ")?.parse().ok()?;
        matches!(outcome, TaskOutcome::Done { .. }).then_some(MemberId(number))
    });
    if let Some(first) = begun {
        return start(service, first);
    }
    if service.members.iter().any(parts::is_ready) {
        return ProcedureStep::Done("the members found each other by themselves".to_owned());
    }
    // Nothing is read, and nothing begun, before every agent confirmed that its member's container is gone.
    // What was stopped may be of an older revision than what a new spec gave the member meanwhile.
    let (lost, here): (Vec<&MemberFacts>, Vec<&MemberFacts>) =
        concerned(service).into_iter().partition(|member| parts::is_given_up(service, member));
    if here.iter().any(|member| member.started || !member.stopped) {
        return ProcedureStep::Stop(here.iter().map(|member| member.member).collect());
    }
    let mut unread = Unread::default();
    for member in lost {
        let place = format!("slot {} on {}", member.slot, member.host_name);
        let remedy = format!("bring {} back, and it goes on by itself", member.host_name);
        unread.note(format!("{place}, which does not answer"), Some(remedy));
    }
    for member in unread_holders(service) {
        // Another one has its slot: what it had does not come back into this cluster.
        unread.note(format!("member {member}, which was given up"), None);
    }
    let mut volumes = Vec::new();
    for member in here {
        match read(member, answers) {
            Read::Told(position) => volumes.push(Volume { member, position }),
            Read::Asks(step) => return *step,
            Read::Failed(why) => {
                let place = format!("slot {} on {}", member.slot, member.host_name);
                let remedy =
                    format!("repair {place} ({why}) and cancel this: the next one reads every volume again");
                unread.note(format!("{place}, which cannot be read"), Some(remedy));
            }
        }
    }
    choose(service, &volumes, &unread, answers)
}

/// Volumes that may be ahead of all that were read.
#[derive(Default)]
struct Unread {
    /// Which, always in the same words: an operator's answer is for exactly these.
    which: Vec<String>,
    remedies: Vec<String>,
}

impl Unread {
    fn note(&mut self, which: String, remedy: Option<String>) {
        self.which.push(which);
        self.remedies.extend(remedy);
    }
}

/// What came of asking a volume.
enum Read {
    Told(Position),
    Asks(Box<ProcedureStep>),
    Failed(String),
}

/// What the member's volume says, or the step that asks it.
fn read(member: &MemberFacts, answers: &[(String, TaskOutcome)]) -> Read {
    let label = format!("read {}", member.member);
    let own: Vec<&TaskOutcome> =
        answers.iter().filter(|(l, _)| *l == label).map(|(_, outcome)| outcome).collect();
    for outcome in &own {
        if let TaskOutcome::Done { answer } = outcome
            && let Some(position) = answer.lines().rev().find_map(|line| serde_json::from_str(line).ok())
        {
            return Read::Told(position);
        }
    }
    if own.len() < READS_MAX {
        return Read::Asks(Box::new(one_shot(label, member.member, &["position"])));
    }
    Read::Failed(match own.last() {
        Some(TaskOutcome::Failed { why } | TaskOutcome::Refused { why }) => why.clone(),
        _ => "no position in its answer".to_owned(),
    })
}

fn one_shot(label: String, member: MemberId, words: &[&str]) -> ProcedureStep {
    let what = TaskKind::OneShot { image: None, command: render::program(words), apart: false };
    ProcedureStep::Task {
        label,
        task: Box::new(TaskDraft { member, guard: None, what, timeout_ms: READ_TIMEOUT_MS }),
    }
}

/// Marks the volume that is ahead of all others, if all belong to one history.
fn choose(
    service: &ServiceFacts<'_>,
    volumes: &[Volume<'_>],
    unread: &Unread,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let known = || volumes.iter().filter(|v| v.position.data && v.position.uuid != NO_HISTORY);
    let mut histories: BTreeSet<&str> = known().map(|v| v.position.uuid.as_str()).collect();
    let recorded = service.records.get(HISTORY).map(String::as_str);
    histories.extend(recorded);
    if histories.len() > 1 {
        return ProcedureStep::NeedsOperator {
            reason: format!("the volumes do not belong to one cluster: {}", table(volumes, recorded)),
            remedy: "nothing was changed; replace the members whose volume belongs to another cluster"
                .to_owned(),
            word: false,
        };
    }
    // Of several that are equally far, the one that was the last to stop, then the lowest slot.
    let ahead =
        known().max_by_key(|v| (v.position.seqno, v.position.last_to_stop, std::cmp::Reverse(v.member.slot)));
    let Some(best) = ahead else {
        return ProcedureStep::NeedsOperator {
            reason: format!("no volume has a position to begin from: {}", table(volumes, recorded)),
            remedy: "restore a backup".to_owned(),
            word: false,
        };
    };
    if let Some(question) = ask_operator(volumes, best, unread).filter(|q| !is_answered(q, answers)) {
        return question;
    }
    let label = format!("mark {}", best.member.member);
    let tries = answers.iter().filter(|(l, _)| *l == label).count();
    if tries >= READS_MAX {
        let reason = format!("slot {} cannot be told to begin: {:?}", best.member.slot, answers.last());
        return ProcedureStep::stuck(service.name.as_str(), best.member.slot, reason);
    }
    let at = format!("{}:{}", best.position.uuid, best.position.seqno);
    one_shot(label, best.member.member, &["mark", &at])
}

/// Whether to begin without volumes that may be ahead: time proves nothing about them, only an operator can say it.
fn ask_operator(volumes: &[Volume<'_>], best: &Volume<'_>, unread: &Unread) -> Option<ProcedureStep> {
    if unread.which.is_empty() {
        return None;
    }
    let table = table(volumes, None);
    Some(ProcedureStep::NeedsOperator {
        reason: format!(
            "not read: {}; of those that were read, slot {} on {} has the most, up to {} ({table}): what only an unread one \
             has would be lost",
            unread.which.join(", "),
            best.member.slot,
            best.member.host_name,
            best.position.seqno
        ),
        remedy: format!(
            "{}make sure that those which were not read are off and stay so: to continue is your word for that, and the cluster \
             begins from slot {}",
            unread.remedies.iter().map(|remedy| format!("{remedy}; or ")).collect::<String>(),
            best.member.slot
        ),
        word: true,
    })
}

fn is_answered(question: &ProcedureStep, answers: &[(String, TaskOutcome)]) -> bool {
    matches!(question, ProcedureStep::NeedsOperator { reason, .. } if operator_said(answers, reason))
}

/// All volumes in one line, for operators.
fn table(volumes: &[Volume<'_>], recorded: Option<&str>) -> String {
    let row = |v: &Volume<'_>| {
        let place = format!("slot {} on {}", v.member.slot, v.member.host_name);
        if v.position.data {
            format!("{place} has {} up to {}", v.position.uuid, v.position.seqno)
        } else {
            format!("{place} has no data")
        }
    };
    let mut rows: Vec<String> = volumes.iter().map(row).collect();
    rows.extend(recorded.map(|uuid| format!("recorded is {uuid}")));
    rows.join("; ")
}

/// The marked member first, alone; then the others, one at a time. One that cannot join holds nobody up: what it needs,
/// another image perhaps, waits for the end of this.
fn start(service: &ServiceFacts<'_>, first: MemberId) -> ProcedureStep {
    let begins = service.members.iter().find(|member| member.member == first);
    match begins.filter(|member| !parts::is_ready(member)) {
        Some(member) if !member.started => return ProcedureStep::Start(vec![first]),
        // Its turn for the newest revision would come after this, which waits for it.
        Some(member) if !member.current && is_hopeless(service, member) => {
            return ProcedureStep::Renew(first);
        }
        // It answers, so the mark is used up.
        Some(member)
            if stands_still(service, member) && member.seen.as_ref().is_some_and(|s| s.role.is_some()) =>
        {
            let why = parts::why_not_ready(service, member);
            return ProcedureStep::Failed(format!("the cluster did not begin: {why}"));
        }
        Some(member) => return ProcedureStep::Wait(parts::why_not_ready(service, member)),
        None => {}
    }
    match service.members.iter().find(|member| !member.started) {
        Some(next) if service.formed => match decide::may_start(service, next.slot) {
            Ok(()) => ProcedureStep::Start(vec![next.member]),
            Err(why) => ProcedureStep::Wait(why.0),
        },
        _ => ProcedureStep::Done("the members are in step again, or on their way".to_owned()),
    }
}

/// It runs and serves nothing for a while, or ends again and again.
fn is_hopeless(service: &ServiceFacts<'_>, member: &MemberFacts) -> bool {
    let ends = member.seen.as_ref().is_some_and(|seen| !seen.running && seen.restarts >= RESTARTS_MAX);
    ends || stands_still(service, member)
}
