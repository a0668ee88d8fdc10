//! Raft for the coordinators: log, transport, membership, reads. The only crate that names openraft,
//! and nothing of it is visible outside. What is replicated is opaque here.

mod config;
mod consensus;
mod convert;
mod disk;
mod error;
mod history;
mod identity;
mod leadership;
mod log;
mod machine;
mod membership;
mod net;
mod node;
mod offline;
mod snapshot;
mod state_machine;
mod succession;
mod types;
mod upkeep;

#[cfg(test)]
mod tests;

pub use config::{Clock, Config, SnapshotPolicy, Timings};
pub use consensus::Consensus;
pub use disk::{Disk, DiskFile, OsDisk};
pub use error::{ChangeError, ProposeError, ReadError, StartError};
pub use leadership::Leadership;
pub use membership::{Member, Status};
pub use net::{DialError, Dialer, RaftService};
pub use node::Applied;
pub use offline::{Beginning, Position, Stopped, found};
pub use state_machine::{Encode, StateMachine};
pub use types::{Node, NodeId};
