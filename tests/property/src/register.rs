//! A register in a replicated log: what it does when nothing is concurrent. Judges nothing by itself.

use todc_utils::Specification;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The value, and where in the log it was written.
    Read,
    /// How far the log is.
    Look,
    /// Another value.
    Write {
        /// The value.
        value: u64,
        /// Refused if the register was written behind this place; absent = in any case.
        at: Option<u64>,
    },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Read.
    Value {
        /// The value.
        value: u64,
        /// Where it was written, if that was told.
        index: Option<u64>,
    },
    /// Written there, or looked at when the log was that far.
    Index(u64),
    /// Certainly not written.
    Refused,
    /// It certainly did not happen, whatever it was, and says nothing.
    Never,
    /// Nobody knows: it may have happened, may happen later, or never.
    Open,
}

/// A call with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub call: Call,
    /// How it ended.
    pub outcome: Outcome,
}

/// The value, and where it was written; absent = by a write of which nobody knows where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Written {
    value: u64,
    index: Option<u64>,
}

/// The register as a specification; it begins with 0.
pub struct Register;

impl Specification for Register {
    type State = Written;
    type Operation = Operation;

    fn init() -> Written {
        Written::default()
    }

    /// What nobody knows is possible: an open write takes effect here, or else stands behind everything that was seen.
    fn apply(operation: &Operation, state: &Written) -> (bool, Written) {
        let not_behind = |index: u64| state.index.is_none_or(|here| here <= index);
        match (operation.call, operation.outcome) {
            (Call::Read, Outcome::Value { value, index }) => {
                let same = index.is_none() || state.index.is_none() || state.index == index;
                (same && value == state.value, Written { value, index: index.or(state.index) })
            }
            (Call::Look, Outcome::Index(index)) => (not_behind(index), *state),
            (Call::Write { value, at }, Outcome::Index(index)) => {
                let fits = at.is_none_or(not_behind) && state.index.is_none_or(|here| here < index);
                (fits, Written { value, index: Some(index) })
            }
            (Call::Write { at, .. }, Outcome::Refused) => {
                let behind = at.is_some_and(|at| state.index.is_none_or(|here| here > at));
                (behind, *state)
            }
            (Call::Write { value, at }, Outcome::Open) if at.is_none_or(not_behind) => {
                (true, Written { value, index: None })
            }
            (Call::Write { .. }, Outcome::Open) => (true, *state),
            _ => (false, *state),
        }
    }
}
