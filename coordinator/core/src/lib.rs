//! Pure decisions: state, commands, apply, scheduler, reconcilers, kinds.
//!
//! ```text
//!  operator, agents ──▶ Command ──▶ Raft ──▶ apply ──▶ State ──▶ view, dry_run ──▶ operator
//!                          ▲                             │
//!                          └──── reconcile (leader) ◀────┤
//!                                                        └──▶ plan ──▶ agents
//! ```
//!
//! No clock, no randomness, no I/O: the same state and time give the same answer on every coordinator.

pub mod addresses;
pub mod apply;
pub mod certificates;
pub mod command;
mod detail;
mod draft;
pub mod drill;
mod drill_report;
pub mod dry_run;
pub mod explain;
pub mod facts;
pub mod holders;
pub mod keepsake;
pub mod kinds;
pub mod leave;
pub mod liveness;
pub mod observe;
pub mod plan;
pub mod ports;
pub mod reconcile;
pub mod recovery;
mod refusals;
mod rules;
pub mod scheduler;
pub mod schema;
pub mod secrets;
pub mod state;
pub mod survive;
pub mod version;
pub mod view;
pub mod what_if;

#[cfg(test)]
mod tests;
