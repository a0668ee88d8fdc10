//! Tables of operations.

use muster_model::time::Timestamp;
use muster_model::view::{OperationState, OperationView};

use crate::age::age;
use crate::output::{Paint, Table, Tone};

/// How an operation stands, for people.
#[must_use]
pub const fn operation_word(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::NeedsOperator => "needs operator",
        OperationState::Done => "done",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
        OperationState::RolledBack => "rolled back",
    }
}

/// A table of operations.
#[must_use]
pub fn operations(all: &[OperationView], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["ID", "KIND", "SERVICE", "STATE", "STARTED", "DOING"]);
    for one in all {
        let tone = match one.state {
            OperationState::Running | OperationState::Done => Tone::Plain,
            OperationState::Cancelled | OperationState::RolledBack => Tone::Warn,
            OperationState::NeedsOperator | OperationState::Failed => Tone::Bad,
        };
        table.row(
            tone,
            [
                one.id.to_string(),
                one.kind.clone(),
                one.service.to_string(),
                operation_word(one.state).to_owned(),
                format!("{} ago", age(now, one.started)),
                one.step.clone(),
            ],
        );
    }
    table.render(paint)
}
