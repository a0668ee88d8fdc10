//! What all operations share: how a step waits, fails, is tried again, and ends.

use muster_model::ids::{Name, OperationId};
use muster_model::observed::TaskOutcome;
use muster_model::spec::{OnFailure, UpdateSpec};
use muster_model::time::{Millis, Timestamp};

use crate::command::{Act, Advance, Command, TaskDraft, What};
use crate::state::{ATTEMPTS_MAX, NeedsOperator, Operation, OperationKind, Outcome, State, Step};

/// Pause before a refused step is tried again, times the tries so far.
const RETRY_PAUSE: Millis = Millis(2_000);

/// One operation at one time.
pub struct Turn<'a> {
    /// The state.
    pub state: &'a State,
    /// The operation's number.
    pub id: OperationId,
    /// The operation.
    pub operation: &'a Operation,
    /// The leader's clock.
    pub now: Timestamp,
}

impl<'a> Turn<'a> {
    /// How its service wants updates.
    pub fn policy(&self) -> UpdateSpec {
        let service = self.state.services.get(&self.operation.service);
        service.map(|s| s.spec.update.clone()).unwrap_or_default()
    }

    /// The answer of its task, if it has one. The outer option: it has a task.
    pub fn answer(&self) -> Option<Option<&'a TaskOutcome>> {
        let row = self.state.tasks.values().find(|row| row.operation == self.id)?;
        Some(row.answer.as_ref().map(|(_, outcome)| outcome))
    }

    /// An advance that changes nothing.
    pub fn same(&self) -> Advance {
        Advance {
            operation: self.id,
            epoch: self.operation.epoch,
            seen: self.state.fence(&self.operation.service),
            step: None,
            deadline: self.operation.deadline,
            attempts: self.operation.attempts,
            todo: None,
            status: self.operation.status.clone(),
            note: None,
            needs_operator: None,
            drill: None,
            procedure: None,
            result: None,
            outcome: None,
            acts: Vec::new(),
            task: None,
            more_tasks: Vec::new(),
            clear_tasks: false,
        }
    }

    /// The next step, with a fresh deadline and no tries.
    pub fn to(&self, step: Step, span: Option<Millis>, status: impl Into<String>) -> Advance {
        let status = status.into();
        Advance {
            step: Some(step),
            deadline: span.map(|span| self.now.after(span)),
            attempts: 0,
            note: Some(status.clone()),
            status,
            clear_tasks: true,
            ..self.same()
        }
    }

    /// Stays in this step and says why; sets the deadline if there is none; fails once it has passed.
    pub fn wait(&self, span: Millis, why: &str) -> Option<Advance> {
        match self.operation.deadline {
            Some(deadline) if self.now >= deadline => Some(self.fail(why)),
            None => {
                Some(Advance { deadline: Some(self.now.after(span)), status: why.to_owned(), ..self.same() })
            }
            Some(_) if self.operation.status == why => None,
            Some(_) => Some(Advance { status: why.to_owned(), ..self.same() }),
        }
    }

    /// The step failed for good: an update goes back by itself if its spec says so; otherwise an operator is asked.
    pub fn fail(&self, why: &str) -> Advance {
        let may_go_back = self.operation.kind == OperationKind::Update
            && self.policy().on_failure == OnFailure::Rollback
            && self.root_has_previous();
        if may_go_back {
            let acts = vec![(self.root().clone(), vec![Act::GoBack])];
            return Advance { acts, ..self.end(Outcome::RolledBack, format!("{why}: goes back")) };
        }
        let remedy = self.remedy();
        Advance {
            deadline: None,
            needs_operator: Some(NeedsOperator { reason: why.to_owned(), remedy }),
            note: Some(format!("paused: {why}")),
            status: why.to_owned(),
            clear_tasks: true,
            ..self.same()
        }
    }

    fn remedy(&self) -> String {
        let id = self.id;
        let again =
            format!("`muster op continue {id}` tries again, `muster op cancel {id}` leaves it as it is");
        match self.operation.kind {
            OperationKind::Update => format!("{again}, `muster service rollback {}` goes back", self.root()),
            _ => again,
        }
    }

    /// A refused or failed try: again after a pause, a bounded number of times.
    pub fn retry(&self, step: Step, why: &str) -> Advance {
        let attempts = self.operation.attempts + 1;
        if attempts >= ATTEMPTS_MAX {
            return self.fail(&format!("{why} ({attempts} tries)"));
        }
        Advance { attempts, ..self.to(step, None, format!("try {attempts}: {why}")) }
    }

    /// Whether the pause after a failed try is over.
    pub fn rested(&self) -> bool {
        let pause = Millis(RETRY_PAUSE.0 * u64::from(self.operation.attempts));
        self.now.since(self.operation.step_since) >= pause
    }

    /// The end.
    pub fn end(&self, outcome: Outcome, status: impl Into<String>) -> Advance {
        Advance {
            outcome: Some(outcome),
            deadline: None,
            status: status.into(),
            clear_tasks: true,
            ..self.same()
        }
    }

    /// The service at the top of its family.
    pub fn root(&self) -> &'a Name {
        self.state.root(&self.operation.service)
    }

    fn root_has_previous(&self) -> bool {
        self.state.services.get(self.root()).is_some_and(|root| !root.previous.is_empty())
    }
}

impl Advance {
    /// With a task to be done.
    pub(super) fn with_task(self, task: TaskDraft) -> Self {
        Self { task: Some(task), ..self }
    }

    /// With steps on a service.
    pub(super) fn with_acts(mut self, service: &Name, acts: Vec<Act>) -> Self {
        self.acts.push((service.clone(), acts));
        self
    }

    /// As a command.
    pub(super) fn command(self) -> Command {
        Command::internal(What::Advance(Box::new(self)))
    }
}
