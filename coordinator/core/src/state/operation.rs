//! Operations: everything that takes longer than one step, with its whole progress, so that a new leader goes on.

use muster_model::ids::{HostId, LogIndex, MemberId, Name, OperationId, TaskId};
use muster_model::observed::TaskOutcome;
use muster_model::plan::Task;
use muster_model::time::Timestamp;
use muster_model::view::OperationState;
use serde::{Deserialize, Serialize};

use crate::drill::{DrillProgress, DrillSpec, DrillStep};
use crate::kinds::{Procedure, ProcedureProgress};

/// Tries of one step before an operator is asked.
pub const ATTEMPTS_MAX: u32 = 5;
/// Ended operations kept.
pub const OPERATIONS_KEPT: usize = 100;
/// Lines kept of an operation's log.
const LOG_KEPT: usize = 200;

/// What an operation does, with what it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Brings every member to the newest revision, one after the other.
    Update,
    /// The same, after the previous spec was made the newest revision. Never undone by itself.
    Rollback,
    /// Moves the leading role.
    Switchover {
        /// The slot to lead; absent = the best.
        to: Option<u32>,
    },
    /// Restarts members, one after the other.
    Restart {
        /// The only slot; absent = all.
        slot: Option<u32>,
    },
    /// Puts a new member into a slot, on another host if one fits.
    Replace {
        /// The slot.
        slot: u32,
        /// An operator said that the old member never comes back: its confirmed stop is not waited for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        confirm_lost: bool,
    },
    /// Retires all members and forgets the service.
    Remove,
    /// A fault with measured effect.
    Drill(Box<DrillSpec>),
    /// Work that the service's kind carries out step by step.
    Procedure(Procedure),
}

impl OperationKind {
    /// Its name, as operators write it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Update => "update",
            Self::Rollback => "rollback",
            Self::Switchover { .. } => "switchover",
            Self::Restart { .. } => "restart",
            Self::Replace { .. } => "replace",
            Self::Remove => "remove",
            Self::Drill(_) => "drill",
            Self::Procedure(procedure) => &procedure.name,
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Looks for the next thing to do.
    Choose,
    /// Waits until a member that was stopped and started again serves, and stays so for the soak time.
    Settle {
        /// The member.
        member: MemberId,
        /// Since when it serves.
        good_since: Option<Timestamp>,
    },
    /// Waits for the leading role to move: for the task's answer, then for the role to be seen.
    Switching {
        /// The slot that leads, or led.
        from: Option<u32>,
        /// The slot that shall lead; absent = any other.
        to: Option<u32>,
    },
    /// Waits until the members of a removed service are gone.
    Removing,
    /// A drill's steps.
    Drill(DrillStep),
    /// Work of a kind, on its own or in the middle of another operation.
    Procedure {
        /// The service of the family that it is done to.
        service: Name,
        /// What is done.
        procedure: Procedure,
        /// The step that follows.
        then: Box<Self>,
        /// The deadline of that step.
        until: Option<Timestamp>,
        /// What the operation waited for an operator for, and waits for again afterwards.
        paused: Option<NeedsOperator>,
    },
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Done,
    /// Badly; the log says why.
    Failed,
    /// By an operator.
    Cancelled,
    /// It undid itself.
    RolledBack,
}

/// Why an operation waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedsOperator {
    /// What is wrong, naming the member and what it waits for.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The service that it holds, with its family.
    pub service: Name,
    /// What it does.
    pub kind: OperationKind,
    /// Grows with each advance; an advance decided on an older one is refused.
    pub epoch: u64,
    /// Where it stands.
    pub step: Step,
    /// When this step began.
    pub step_since: Timestamp,
    /// Members still to be restarted, or to be replaced, in order.
    pub todo: Vec<MemberId>,
    /// Answers of its tasks, oldest first.
    pub answers: Vec<(TaskId, TaskOutcome)>,
    /// Tries of this step so far.
    pub attempts: u32,
    /// When this step counts as failed.
    pub deadline: Option<Timestamp>,
    /// An operator asked to end it.
    pub cancel: bool,
    /// It waits for an operator.
    pub needs_operator: Option<NeedsOperator>,
    /// Progress of a drill.
    pub drill: Option<Box<DrillProgress>>,
    /// Progress of the procedure that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<Box<ProcedureProgress>>,
    /// Who started it; `muster` = the platform itself.
    pub actor: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended, and how.
    pub outcome: Option<(Timestamp, Outcome)>,
    /// What it does or waits for now.
    pub status: String,
    /// What it did, oldest first, bounded.
    pub log: Vec<(Timestamp, String)>,
    /// Its result, if it has one.
    pub result: Option<serde_json::Value>,
}

impl Operation {
    /// The word for operators.
    #[must_use]
    pub const fn state(&self) -> OperationState {
        match (&self.outcome, &self.needs_operator) {
            (Some((_, Outcome::Done)), _) => OperationState::Done,
            (Some((_, Outcome::Failed)), _) => OperationState::Failed,
            (Some((_, Outcome::Cancelled)), _) => OperationState::Cancelled,
            (Some((_, Outcome::RolledBack)), _) => OperationState::RolledBack,
            (None, Some(_)) => OperationState::NeedsOperator,
            (None, None) => OperationState::Running,
        }
    }

    /// Work that the platform does when nobody wants anything else, and that may be left at any step.
    #[must_use]
    pub const fn is_housekeeping(&self) -> bool {
        matches!(&self.kind, OperationKind::Procedure(procedure) if procedure.can_wait)
    }

    /// Adds a line to the log.
    pub(crate) fn note(&mut self, at: Timestamp, text: &str) {
        if self.log.len() >= LOG_KEPT {
            self.log.remove(0);
        }
        self.log.push((at, text.to_owned()));
    }
}

/// A task given to an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The host.
    pub host: HostId,
    /// What is done.
    pub task: Task,
    /// Whose it is.
    pub operation: OperationId,
    /// The answer, once it came.
    pub answer: Option<(Timestamp, TaskOutcome)>,
}

/// The stored result of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Its operation.
    pub operation: OperationId,
    /// Its service.
    pub service: Name,
    /// Where in the log.
    pub index: LogIndex,
    /// When it ended.
    pub at: Timestamp,
    /// The report.
    pub report: serde_json::Value,
}
