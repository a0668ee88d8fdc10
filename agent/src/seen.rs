//! A container of ours as the engine shows it, in our own words. Pure data; who fills it in is `runtime`'s business.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::{MemberId, Name, Revision, Slot};
use muster_model::time::Timestamp;

/// One container that carries our platform's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The member it is for.
    pub member: MemberId,
    /// The member's slot.
    pub slot: Slot,
    /// The revision it was made of.
    pub revision: Revision,
    /// `Rendered::container_hash` it was made of.
    pub hash: String,
    /// Restarts that the plan had asked for when it was made.
    pub restarts: u64,
    /// Made with the variant of the command for the first start.
    pub first: bool,
    /// Networks it is in, with its fixed addresses.
    pub addresses: BTreeMap<Name, Ipv4Addr>,
    /// What it does.
    pub state: SeenState,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenState {
    /// Made, never started.
    Created,
    /// Running.
    Running {
        /// By the engine's clock.
        since: Timestamp,
    },
    /// Not running any more; confirmed.
    Stopped {
        /// Exit code.
        code: i64,
    },
    /// The engine is taking it away.
    Removing,
}

impl Seen {
    /// Whether it runs.
    #[must_use]
    pub const fn running(&self) -> bool {
        matches!(self.state, SeenState::Running { .. })
    }
}

/// The one name that a member's container may have.
#[must_use]
pub fn container_name(slot: &Slot, member: MemberId) -> String {
    format!("muster-{}-{}-m{}", slot.service, slot.index, member)
}
