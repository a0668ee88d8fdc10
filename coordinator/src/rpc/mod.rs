//! The three services that agents, operators and joiners call. Who may call is decided before, in the access table.

pub mod agents;
pub mod control;
pub mod identity;
