//! One thing that a service needs, whatever its mode: what it is, and the step towards it. Plain data.

use muster_model::ids::MemberId;
use muster_model::plan::{Act, Guard, RespCall, TaskKind};

use super::render;
use super::succession::Loss;
use crate::command::TaskDraft;
use crate::kinds::ServiceFacts;

const TASK_TIMEOUT_MS: u64 = 10_000;

/// One thing that the service needs.
pub struct Need {
    /// What it belongs to, for operators.
    pub procedure: &'static str,
    /// What it is, the same as long as it is needed.
    pub what: String,
    pub step: Step,
}

/// The step towards it.
pub enum Step {
    Task(Box<TaskDraft>),
    Record {
        key: String,
        value: String,
    },
    /// Members that were stopped for it may run again.
    Start(Vec<MemberId>),
    /// Another member must lead, because the master was lost in this way.
    Succeed(Loss),
    /// A task that takes an operator's word for exactly this.
    Ask {
        reason: String,
        remedy: String,
        then: Box<TaskDraft>,
    },
    Wait,
}

/// Commands as the platform's own user, given by the agent of this member's host.
pub fn commands(
    service: &ServiceFacts<'_>,
    member: MemberId,
    guard: Option<Guard>,
    calls: Vec<RespCall>,
) -> Step {
    Step::Task(Box::new(TaskDraft {
        member,
        guard,
        what: TaskKind::Act { act: Act::Resp(render::admin(service.name, calls)) },
        timeout_ms: TASK_TIMEOUT_MS,
    }))
}
