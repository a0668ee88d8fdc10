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
pub mod command;
pub mod drill;
pub mod kinds;
pub mod state;
pub mod version;
