//! A host's row.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use muster_model::ids::{BootId, LogIndex, Name};
use muster_model::observed::{Condition, HostFacts};
use muster_model::time::Timestamp;
use muster_model::view::Scheduling;
use serde::{Deserialize, Serialize};

/// Whether a host's agent beats, as agreed by the coordinators. *Suspect* is known to the leader only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It beats.
    Up,
    /// Silent for longer than the preset, or never heard of.
    Down,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: Name,
    /// Its public address.
    pub address: IpAddr,
    /// Its failure domain.
    pub zone: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of its public key, hex.
    pub key_digest: String,
    /// Its address in the mesh, fixed.
    pub mesh_address: Ipv4Addr,
    /// Written by liveness transitions.
    pub liveness: Liveness,
    /// Since when it is so.
    pub since: Timestamp,
    /// The agent's run; absent = never connected.
    pub boot: Option<BootId>,
    /// Written by operators.
    pub scheduling: Scheduling,
    /// In maintenance: services that cannot bear its absence are stopped all the same, on the operator's word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outage_accepted: bool,
    /// In maintenance: its plan stops every member. Written by `RestHost`, ended with the maintenance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resting: bool,
    /// Written by reports.
    pub facts: Arc<HostFacts>,
    /// Whether its Docker Engine answers, and since when that is so.
    pub engine: (bool, Timestamp),
    /// What its agent complains about.
    pub conditions: Vec<Condition>,
    /// Counter of the published plan; 0 = none yet.
    pub plan_counter: u64,
    /// Hash of the published plan's content.
    pub plan_hash: String,
    /// After a recovery, until it is known what its agent has: what was found there and is not in the spec. While it is
    /// set, the host's plans stop and remove nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Vec<String>>,
    /// Last entry that changed this row.
    pub version: LogIndex,
}

impl Host {
    /// Its agent beats.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.liveness == Liveness::Up
    }

    /// Its members can be counted on: its agent beats, and they are not stopped for maintenance.
    #[must_use]
    pub fn works(&self) -> bool {
        self.is_up() && !self.resting
    }

    /// An operator has it in hand: what is silent on it is not replaced.
    #[must_use]
    pub fn is_in_maintenance(&self) -> bool {
        self.scheduling == Scheduling::Maintenance
    }
}
