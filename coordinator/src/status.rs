//! Errors as gRPC statuses, in one place.

use muster_consensus::{ProposeError, ReadError};
use muster_core::command::Rejected;
use tonic::{Code, Status};

use crate::proposer::ChangeError;

/// A change that did not happen.
#[must_use]
pub fn change(error: &ChangeError) -> Status {
    match error {
        ChangeError::Rejected(rejected) => Status::new(code(rejected), rejected.to_string()),
        ChangeError::Propose(ProposeError::TooLarge { .. }) => Status::invalid_argument(error.to_string()),
        ChangeError::Propose(ProposeError::DiskFull) => Status::resource_exhausted(error.to_string()),
        ChangeError::Propose(_) => Status::unavailable(error.to_string()),
        ChangeError::Answer(_) => Status::internal(error.to_string()),
    }
}

fn code(rejected: &Rejected) -> Code {
    match rejected {
        Rejected::Stale { .. } => Code::Aborted,
        Rejected::NotInitialised => Code::Unavailable,
        Rejected::Unknown { .. } => Code::NotFound,
        Rejected::Exists { .. } => Code::AlreadyExists,
        Rejected::Held { .. } | Rejected::Unfit { .. } => Code::FailedPrecondition,
        Rejected::Token { .. } => Code::PermissionDenied,
    }
}

/// A read that is not possible now.
#[must_use]
pub fn read(error: &ReadError) -> Status {
    Status::unavailable(error.to_string())
}

/// Anything unexpected, with its causes.
#[must_use]
pub fn internal(error: &anyhow::Error) -> Status {
    match error.downcast_ref::<ChangeError>() {
        Some(known) => change(known),
        None => Status::internal(format!("{error:#}")),
    }
}

/// Only the leader can answer this; the caller finds its address in the metadata.
#[must_use]
pub fn not_leader(leader: Option<&str>) -> Status {
    let mut status = Status::unavailable(match leader {
        Some(leader) => format!("the coordinator at {leader} leads: ask it"),
        None => "no coordinator leads at the moment".to_owned(),
    });
    if let Some(leader) = leader.and_then(|leader| leader.parse().ok()) {
        status.metadata_mut().insert("muster-leader", leader);
    }
    status
}
