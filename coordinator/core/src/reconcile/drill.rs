//! Runs a drill: writer, warm-up, fault, observation, verification; the writer is removed whatever happens.

use std::sync::Arc;

use muster_model::ids::{HostId, Name};
use muster_model::observed::TaskOutcome;
use muster_model::plan::TaskKind;
use muster_model::spec::ServiceSpec;
use muster_model::time::{Millis, Timestamp};
use muster_model::view::HealthWord;
use serde_json::json;

use super::step::Turn;
use crate::command::{Act, Advance, TaskDraft};
use crate::drill::{DrillProgress, DrillSpec, DrillStep, Fault, Hand, fits, refusal, target_of};
use crate::drill_report::report;
use crate::facts::service_facts;
use crate::kinds::{Kind, MemberFacts, ServiceFacts};
use crate::state::{Host, Outcome, Step};

/// Time for the writer to be placed and to write steadily.
const WRITER_SPAN: Millis = Millis::seconds(180);
/// Time for an agent to do the fault.
const FAULT_SPAN: Millis = Millis::seconds(30);
/// Time for somebody outside to do the fault.
const OUTSIDE_SPAN: Millis = Millis::seconds(600);
/// Health is not believed before this: reports of the time before the fault may still be on their way.
const OBSERVE_LEAST: Millis = Millis::seconds(5);
/// Time for the writer to compare: a started server of S3 may deny for long what it has, and is asked again.
const VERIFY_SPAN: Millis = Millis::seconds(540);
/// Time for the writer to go.
const CLEAN_UP_SPAN: Millis = Millis::seconds(60);

/// The next step of a drill.
pub fn drill(
    turn: &Turn<'_>,
    spec: &DrillSpec,
    facts: &ServiceFacts<'_>,
    kind: &dyn Kind,
) -> Option<Advance> {
    let progress = turn.operation.drill.as_deref().cloned().unwrap_or_default();
    let step = match turn.operation.step {
        Step::Drill(step) => step,
        // It was cancelled in the middle of a procedure.
        _ => DrillStep::Observe,
    };
    if turn.operation.cancel && step != DrillStep::CleanUp {
        return Some(clean_up(turn, progress, Some("cancelled by an operator".to_owned())));
    }
    let drill = Drill { turn, spec, facts, kind, progress };
    match step {
        DrillStep::Writer if drill.progress.writer.is_none() => Some(drill.place_writer()),
        DrillStep::Writer => drill.await_writer(),
        DrillStep::WarmUp => drill.warm_up(),
        DrillStep::Fault => drill.await_fault(),
        DrillStep::AwaitFault => drill.await_outside(),
        DrillStep::Observe => drill.observe(),
        DrillStep::Verify => drill.verify(),
        DrillStep::CleanUp => drill.finish(),
    }
}

/// Gives the writer back, and remembers why if the drill failed.
fn clean_up(turn: &Turn<'_>, progress: DrillProgress, failure: Option<String>) -> Advance {
    let status = failure.clone().unwrap_or_else(|| "the writer is removed".to_owned());
    let progress = DrillProgress { failure: progress.failure.clone().or(failure), ..progress };
    let writer = progress.writer.clone();
    let next = turn.to(Step::Drill(DrillStep::CleanUp), Some(CLEAN_UP_SPAN), status);
    let next = Advance { drill: Some(Box::new(progress)), ..next };
    match writer.filter(|name| turn.state.services.contains_key(name)) {
        Some(name) => next.with_acts(&name, vec![Act::MarkRemoved { destroy: true }]),
        None => next,
    }
}

struct Drill<'a> {
    turn: &'a Turn<'a>,
    spec: &'a DrillSpec,
    facts: &'a ServiceFacts<'a>,
    kind: &'a dyn Kind,
    progress: DrillProgress,
}

impl Drill<'_> {
    fn to(
        &self,
        step: DrillStep,
        span: Millis,
        status: impl Into<String>,
        progress: DrillProgress,
    ) -> Advance {
        let next = self.turn.to(Step::Drill(step), Some(span), status);
        Advance { drill: Some(Box::new(progress)), ..next }
    }

    fn fail(&self, why: impl Into<String>) -> Advance {
        clean_up(self.turn, self.progress.clone(), Some(why.into()))
    }

    /// Waits in this step; a passed deadline ends the drill instead of asking an operator: it is always undone.
    fn wait(&self, why: &str) -> Option<Advance> {
        let late = self.turn.operation.deadline.is_some_and(|deadline| self.turn.now >= deadline);
        if late {
            return Some(self.fail(format!("gave up: {why}")));
        }
        let status = why.to_owned();
        (status != self.turn.operation.status).then(|| Advance { status, ..self.turn.same() })
    }

    fn place_writer(&self) -> Advance {
        if let Some(why) = refusal(self.turn.state, self.spec, self.turn.now) {
            return self.turn.end(Outcome::Failed, format!("refused: {why}"));
        }
        let Some(target) = target_of(self.facts, self.kind, self.spec.target) else {
            return self.turn.end(Outcome::Failed, "refused: no member has the target's role");
        };
        let Ok(writer) = Name::new(format!("drill-{}", self.turn.id)) else {
            return self.turn.end(Outcome::Failed, "the writer cannot be named");
        };
        let Some(service) = self.writer_spec(target) else {
            return self.turn.end(Outcome::Failed, "refused: there is no other host for the writer");
        };
        let create = Act::Create { spec: Arc::new(service), parent: None, internal: Some(self.turn.id) };
        let progress = DrillProgress {
            writer: Some(writer.clone()),
            target: Some(target.member),
            target_host: Some(target.host.clone()),
            ..DrillProgress::default()
        };
        let status = format!(
            "places the writer; the target is {}/{} on {}",
            self.facts.name, target.slot, target.host_name
        );
        self.to(DrillStep::Writer, WRITER_SPAN, status, progress).with_acts(&writer, vec![create])
    }

    /// The writer goes to any host but the target's; when all members are hit and no host, to any.
    fn writer_spec(&self, target: &MemberFacts) -> Option<ServiceSpec> {
        let anywhere = self.spec.fault == Fault::FullOutage;
        let fits = |id: &HostId, host: &Host| host.is_up() && (anywhere || *id != target.host);
        let hosts = self.turn.state.hosts.iter().filter(|(id, host)| fits(id, host));
        let names: Vec<Name> = hosts.map(|(_, host)| host.name.clone()).collect();
        let network = self.turn.state.members.get(&target.member)?.addresses.first()?.network.clone();
        if names.is_empty() {
            return None;
        }
        let spec = json!({
            "kind": "writer",
            "place": { "hosts": names },
            "target": self.facts.name,
            "network": network,
            "writes_per_second": self.spec.writes_per_second,
        });
        serde_json::from_value(spec).ok()
    }

    /// The writer's member, if it was seen running.
    fn writer(&self) -> Option<(MemberFacts, bool)> {
        let name = self.progress.writer.as_ref()?;
        let facts = service_facts(self.turn.state, name, self.turn.now)?;
        let member = facts.members.into_iter().next()?;
        let steady = member.seen.as_ref().is_some_and(|seen| seen.running && seen.ready);
        Some((member, steady))
    }

    fn await_writer(&self) -> Option<Advance> {
        match self.writer() {
            Some((_, true)) => {
                let span = Millis(self.spec.warmup.0.0 + WRITER_SPAN.0);
                Some(self.to(DrillStep::WarmUp, span, "the writer writes steadily", self.progress.clone()))
            }
            Some((member, false)) => {
                let detail = member.seen.map(|seen| seen.detail).unwrap_or_default();
                self.wait(format!("waits for the writer on {} {detail}", member.host_name).trim_end())
            }
            None => self.wait("waits until the writer is placed"),
        }
    }

    /// Immediately before the fault everything is looked at again.
    fn warm_up(&self) -> Option<Advance> {
        if self.turn.now.since(self.turn.operation.step_since) < self.spec.warmup.0 {
            return None;
        }
        if !self.writer().is_some_and(|(_, steady)| steady) {
            return self.wait("waits until writes are steady again");
        }
        if let Some(why) = refusal(self.turn.state, self.spec, self.turn.now) {
            return Some(self.fail(format!("refused: {why}")));
        }
        let target = self.facts.members.iter().find(|member| Some(member.member) == self.progress.target);
        let Some(target) = target.filter(|t| fits(self.facts, self.kind, t, self.spec.target)) else {
            return Some(self.fail("refused: the target's role moved during the warm-up"));
        };
        Some(self.begin_fault(target))
    }

    fn begin_fault(&self, target: &MemberFacts) -> Advance {
        let releases = target.seen.as_ref().map(|seen| seen.releases);
        let progress = DrillProgress { releases, ..self.progress.clone() };
        let kill = |member: &MemberFacts| TaskDraft {
            member: member.member,
            guard: None,
            what: TaskKind::Kill { hold_ms: self.spec.hold.0.0 },
            timeout_ms: FAULT_SPAN.0,
        };
        match self.spec.fault {
            Fault::KillContainer => {
                let status = format!("kills the container of {}/{}", self.facts.name, target.slot);
                self.to(DrillStep::Fault, FAULT_SPAN, status, progress).with_task(kill(target))
            }
            Fault::FullOutage => {
                let status = format!("kills every container of {}", self.facts.name);
                let others = self.facts.members.iter().filter(|member| member.member != target.member);
                let next = self.to(DrillStep::Fault, FAULT_SPAN, status, progress).with_task(kill(target));
                Advance { more_tasks: others.map(kill).collect(), ..next }
            }
            Fault::Freeze => {
                let status = format!("freezes {}/{}", self.facts.name, target.slot);
                let what = TaskKind::Freeze { for_ms: self.spec.hold.0.0 };
                let task = TaskDraft { what, ..kill(target) };
                self.to(DrillStep::Fault, FAULT_SPAN, status, progress).with_task(task)
            }
            Fault::KillHost if self.spec.by == Hand::Agent => {
                let status = format!("kills and cuts off everything on {}", target.host_name);
                let what = TaskKind::KillHost { for_ms: self.spec.hold.0.0 };
                let task = TaskDraft { what, ..kill(target) };
                self.to(DrillStep::Fault, FAULT_SPAN, status, progress).with_task(task)
            }
            Fault::KillHost => {
                let status = format!(
                    "cut the power of host {} now, then say `fault-done` to operation {}",
                    target.host_name, self.turn.id
                );
                self.to(DrillStep::AwaitFault, OUTSIDE_SPAN, status, progress)
            }
        }
    }

    /// The fault is done when the last of its tasks is.
    fn await_fault(&self) -> Option<Advance> {
        let rows = self.turn.state.tasks.values().filter(|row| row.operation == self.turn.id);
        let mut done_at = Some(self.turn.operation.step_since);
        for row in rows {
            match &row.answer {
                Some((at, TaskOutcome::Done { .. })) => done_at = done_at.map(|last| last.max(*at)),
                Some((_, TaskOutcome::Refused { why } | TaskOutcome::Failed { why })) => {
                    return Some(self.fail(format!("the fault was not done: {why}")));
                }
                Some((_, TaskOutcome::Interrupted)) => {
                    return Some(self.fail("the agent went away during the fault"));
                }
                None => done_at = None,
            }
        }
        match done_at {
            Some(at) => Some(self.fault_done(at)),
            None => self.wait("waits for the agents' answers to the fault"),
        }
    }

    fn await_outside(&self) -> Option<Advance> {
        match self.progress.fault_said {
            Some(at) => Some(self.fault_done(at)),
            None => self.wait(&self.turn.operation.status),
        }
    }

    fn fault_done(&self, at: Timestamp) -> Advance {
        let progress = DrillProgress { fault_at: Some(at), ..self.progress.clone() };
        self.to(DrillStep::Observe, self.spec.observe.0, "the fault is done; observes", progress)
    }

    fn observe(&self) -> Option<Advance> {
        let fault_at = self.progress.fault_at.unwrap_or(self.turn.operation.step_since);
        let since = self.turn.now.since(fault_at);
        let health = self.kind.health(self.facts);
        let steady = self.writer().is_some_and(|(_, steady)| steady);
        // A fault that lasts is over first; how long an outside hand's lasts is not known here.
        let lasts = if self.spec.by == Hand::Outside { 0 } else { self.spec.hold.0.0 };
        let least = Millis(OBSERVE_LEAST.0 + lasts);
        let healthy = health.word == HealthWord::Healthy && steady && since >= least;
        if !healthy && since < self.spec.observe.0 {
            let status = format!("{}: {}", health.word, health.reasons.join("; "));
            return (status != self.turn.operation.status).then(|| Advance { status, ..self.turn.same() });
        }
        let healthy_at = healthy.then_some(self.turn.now);
        let progress = DrillProgress { healthy_at, ..self.progress.clone() };
        let status = if healthy {
            "healthy again; the writer compares"
        } else {
            "not healthy in time; the writer compares"
        };
        let next = self.to(DrillStep::Verify, VERIFY_SPAN, status, progress);
        Some(match self.verify_task() {
            Some(task) => next.with_task(task),
            None => self.fail("the writer is gone"),
        })
    }

    fn verify_task(&self) -> Option<TaskDraft> {
        let (member, _) = self.writer()?;
        let what = TaskKind::Action { name: "verify".to_owned() };
        Some(TaskDraft { member: member.member, guard: None, what, timeout_ms: VERIFY_SPAN.0 / 2 })
    }

    fn verify(&self) -> Option<Advance> {
        match self.turn.answer() {
            Some(Some(TaskOutcome::Done { answer })) => match serde_json::from_str(answer) {
                Ok(summary) => {
                    let progress = DrillProgress { summary: Some(summary), ..self.progress.clone() };
                    Some(clean_up(self.turn, progress, None))
                }
                Err(_) => Some(self.fail("the writer's answer cannot be read")),
            },
            Some(Some(TaskOutcome::Refused { why } | TaskOutcome::Failed { why })) => {
                Some(self.fail(format!("the writer could not compare: {why}")))
            }
            Some(Some(TaskOutcome::Interrupted)) => Some(self.fail("the writer's agent went away")),
            Some(None) | None => self.wait("waits for the writer's answer"),
        }
    }

    /// Ends once the writer is gone, or cannot be waited for: `expand` and `retire` go on with it.
    fn finish(&self) -> Option<Advance> {
        let gone =
            self.progress.writer.as_ref().is_none_or(|name| !self.turn.state.services.contains_key(name));
        let late = self.turn.operation.deadline.is_some_and(|deadline| self.turn.now >= deadline);
        if !gone && !late {
            return None;
        }
        let (report, passed) = report(self.turn.state, self.turn.operation, self.spec, &self.progress);
        let outcome = match (&self.progress.failure, passed) {
            (_, _) if self.turn.operation.cancel => Outcome::Cancelled,
            (None, true) => Outcome::Done,
            (None, false) | (Some(_), _) => Outcome::Failed,
        };
        let status = match &self.progress.failure {
            Some(why) => why.clone(),
            None if passed => "passed".to_owned(),
            None => "a threshold was missed".to_owned(),
        };
        Some(Advance { result: Some(report), ..self.turn.end(outcome, status) })
    }
}
