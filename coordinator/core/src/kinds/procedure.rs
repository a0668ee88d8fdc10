//! Work that a kind carries out step by step, as data. What is stored is stored with its operation, so that a new
//! leader goes on where the old one stopped. Decides nothing.

use std::collections::BTreeMap;

use muster_model::ids::MemberId;
use muster_model::observed::TaskOutcome;
use serde::{Deserialize, Serialize};

use crate::command::TaskDraft;

/// Label under which a procedure finds that an operator told it to go on, and what it had stopped for then: of all answers
/// only these are kept.
pub const OPERATORS_WORD: &str = "operator";

/// Whether an operator told a procedure to go on that had stopped for exactly this reason. A word that was given for
/// something else says nothing about it.
#[must_use]
pub fn operator_said(answers: &[(String, TaskOutcome)], reason: &str) -> bool {
    answers.iter().any(|(label, outcome)| {
        label == OPERATORS_WORD && matches!(outcome, TaskOutcome::Done { answer } if answer == reason)
    })
}

/// A piece of work, as its kind named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Procedure {
    /// Its name, for operators and for the kind: `cold-start`, `forget-node`.
    pub name: String,
    /// Why it is done, in one sentence.
    pub why: String,
    /// It waits until no operation holds the service; otherwise it also runs in the middle of one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_wait: bool,
    /// What it was decided on; only the kind reads it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
}

/// The next step of a procedure.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcedureStep {
    /// Give this to the agent of the member's host. Its answer comes back under the label, also a refusal or a failure.
    Task {
        /// What the answer is called.
        label: String,
        /// The task.
        task: Box<TaskDraft>,
    },
    /// Stop these members' containers, keep their data. They stay so until `Start`, or until the operation ends.
    Stop(Vec<MemberId>),
    /// Start these members.
    Start(Vec<MemberId>),
    /// Stop this member, and let it start next as its newest revision: for one that serves nothing as it is.
    Renew(MemberId),
    /// Keep a fact about the service for good, in [`super::ServiceFacts::records`].
    Record {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// The next values of these secrets become the present ones. Those before are still known to the agents.
    Promote(Vec<String>),
    /// The values before the present ones of these secrets are forgotten.
    ForgetPrevious(Vec<String>),
    /// Not yet, for this reason.
    Wait(String),
    /// It is done.
    Done(String),
    /// It cannot be done now. Not tried again for a minute.
    Failed(String),
    /// Only an operator can say how it goes on.
    NeedsOperator {
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
        /// To continue is the operator's word for what the remedy says, not a second look.
        word: bool,
    },
}

impl ProcedureStep {
    /// What was tried several times failed each time: an operator looks why, and it is tried again when told to continue.
    #[must_use]
    pub fn stuck(service: &str, slot: u32, reason: String) -> Self {
        let remedy = format!("look at the output of its members, for example `muster logs {service}/{slot}`");
        Self::NeedsOperator { reason, remedy, word: false }
    }
}

/// How far a procedure is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcedureProgress {
    /// Label of the task that was given and not answered yet.
    pub asked: Option<String>,
    /// Answers by label, oldest first, bounded.
    pub answers: Vec<(String, TaskOutcome)>,
}
