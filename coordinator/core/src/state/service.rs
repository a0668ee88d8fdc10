//! A service's row.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::ids::{LogIndex, Name, OperationId, Revision};
use muster_model::spec::ServiceSpec;
use serde::{Deserialize, Serialize};

use crate::kinds::ChildOrder;

/// Earlier specs kept for a rollback.
pub const PREVIOUS_KEPT: usize = 10;

/// Most facts that a kind records about one service, and the longest key or value in bytes.
pub const RECORDS_MAX: usize = 64;
pub const RECORD_LEN_MAX: usize = 1024;

/// The service that brought this one along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceParent {
    /// Its name.
    pub owner: Name,
    /// What this one is for it.
    pub role: Name,
    /// Starts before or after it.
    pub order: ChildOrder,
}

/// A service on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Data may be deleted; otherwise it is quarantined on its hosts.
    pub destroy: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its spec.
    pub spec: Arc<ServiceSpec>,
    /// Revision of that spec.
    pub revision: Revision,
    /// Earlier revisions, bounded by [`PREVIOUS_KEPT`].
    pub previous: BTreeMap<Revision, Arc<ServiceSpec>>,
    /// Absent for a service that the operator wrote.
    pub parent: Option<ServiceParent>,
    /// Made for the length of one drill; not shown, not in the spec.
    pub internal: Option<OperationId>,
    /// The cluster was formed. A recorded one-shot: never undone while the service exists.
    pub formed: bool,
    /// An operator stopped the update to this revision: it does not begin again by itself.
    pub held: Option<Revision>,
    /// The revision that went back to an earlier spec. It is rolled out as a rollback, and never rolled back itself.
    pub rolled_back: Option<Revision>,
    /// On its way out.
    pub removing: Option<Removal>,
    /// Facts that its kind recorded for good: a cluster's uuid, a deployment's id, an epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub records: BTreeMap<String, String>,
    /// Last entry that changed anything that decisions about it read.
    pub version: LogIndex,
}

/// Record: the revision at which the slot had the restart that its engine asked for.
#[must_use]
pub fn restarted_key(slot: u32) -> String {
    format!("restarted-{slot}")
}

impl Service {
    /// The spec of a revision, present or kept.
    #[must_use]
    pub fn spec_at(&self, revision: Revision) -> Option<&Arc<ServiceSpec>> {
        if revision == self.revision { Some(&self.spec) } else { self.previous.get(&revision) }
    }
}
