//! What Raft replicates: the tables, and how they are read. Changed by `apply` only.

mod check;
mod host;
mod member;
mod operation;
mod security;
mod service;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use muster_model::ids::{HostId, LogIndex, MemberId, Name, OperationId, TaskId};
use muster_model::spec::PlatformSpec;
use muster_model::time::Timestamp;
use muster_model::view::EventView;
use serde::{Deserialize, Serialize};

pub use check::Violation;
pub use host::{Host, Liveness};
pub use member::{Member, Phase, Rendering};
pub use operation::{
    ATTEMPTS_MAX, DrillReport, NeedsOperator, OPERATIONS_KEPT, Operation, OperationKind, Outcome, Step,
    TaskRow,
};
pub use security::{
    AuditEntry, AuditLog, Certificate, CertificateNote, ClientRow, SecretRow, TokenRole, TokenRow,
};
pub use service::{
    PREVIOUS_KEPT, RECORD_LEN_MAX, RECORDS_MAX, Removal, Service, ServiceParent, restarted_key,
};

/// Events kept; older ones are forgotten.
pub const EVENTS_KEPT: usize = 2_000;

/// The platform: what `init` and `apply` said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// Random id, made at `init`; never the name.
    pub id: String,
    /// Its name.
    pub name: Name,
    /// How often the control plane was recovered from a disaster.
    pub incarnation: u64,
    /// The spec in force.
    pub spec: Arc<PlatformSpec>,
    /// The last file that was applied, as written; commands may have changed the spec since.
    pub yaml: Arc<str>,
    /// When the spec was last changed.
    pub spec_index: LogIndex,
}

/// A part of a network that belongs to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The host.
    pub host: HostId,
    /// The host's first block in this network: its first address is the gateway.
    pub first: bool,
}

/// The replicated state. Two coordinators at the same log index hold the same value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Format of this value, see [`crate::version`].
    pub format: u32,
    /// Last applied entry.
    pub index: LogIndex,
    /// Time of the last applied entry; never goes back.
    pub at: Timestamp,
    /// Absent before `init`.
    pub platform: Option<Platform>,
    /// Hosts by identity.
    pub hosts: BTreeMap<HostId, Host>,
    /// Blocks of each network, by their subnet.
    pub blocks: BTreeMap<Name, BTreeMap<Ipv4Net, Block>>,
    /// Services by name, children and internal ones too.
    pub services: BTreeMap<Name, Service>,
    /// Members that exist or whose container is not confirmed to be gone.
    pub members: BTreeMap<MemberId, Member>,
    /// Number of the next member.
    pub next_member: MemberId,
    /// Operations, the ended ones among them while they are kept.
    pub operations: BTreeMap<OperationId, Operation>,
    /// Number of the next operation.
    pub next_operation: OperationId,
    /// Tasks given to agents, until their operation has read the answer.
    pub tasks: BTreeMap<TaskId, TaskRow>,
    /// Number of the next task.
    pub next_task: TaskId,
    /// Results of drills, oldest first.
    pub drills: VecDeque<Arc<DrillReport>>,
    /// Sealed secrets by name.
    pub secrets: BTreeMap<String, SecretRow>,
    /// Join tokens by the hash of their text.
    pub tokens: BTreeMap<String, TokenRow>,
    /// Issued certificates by serial, until they have expired.
    pub certificates: BTreeMap<String, Certificate>,
    /// Names of the coordinators by their number; who is one, Raft knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coordinators: BTreeMap<u64, Name>,
    /// What each client was last told, so that a repeated call has no second effect.
    pub clients: BTreeMap<String, ClientRow>,
    /// Who did what.
    pub audit: AuditLog,
    /// What happened, oldest first.
    pub events: VecDeque<Arc<EventView>>,
    /// An operator lifted the brake at this time: hosts that went down before no longer count.
    pub brake_released: Option<Timestamp>,
}

impl State {
    /// The spec in force.
    #[must_use]
    pub fn spec(&self) -> Option<&Arc<PlatformSpec>> {
        self.platform.as_ref().map(|p| &p.spec)
    }

    /// Host of this name that has not gone.
    #[must_use]
    pub fn host_named(&self, name: &Name) -> Option<(&HostId, &Host)> {
        self.hosts.iter().find(|(_, host)| host.name == *name)
    }

    /// Name of a host; its id if it is not known.
    #[must_use]
    pub fn host_name(&self, id: &HostId) -> String {
        self.hosts.get(id).map_or_else(|| id.to_string(), |host| host.name.to_string())
    }

    /// The service that owns `name`, or `name` itself.
    #[must_use]
    pub fn root<'a>(&'a self, name: &'a Name) -> &'a Name {
        self.services.get(name).and_then(|s| s.parent.as_ref()).map_or(name, |parent| &parent.owner)
    }

    /// Direct children of a service.
    pub fn children<'a>(&'a self, owner: &'a Name) -> impl Iterator<Item = (&'a Name, &'a Service)> {
        self.services.iter().filter(move |(_, s)| s.parent.as_ref().is_some_and(|p| p.owner == *owner))
    }

    /// The owner and its children: what decisions about one of them look at.
    pub fn family<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (&'a Name, &'a Service)> {
        let root = self.root(name);
        self.services.get_key_value(root).into_iter().chain(self.children(root))
    }

    /// The version that decisions about a service are fenced with: the newest change in its family.
    #[must_use]
    pub fn fence(&self, name: &Name) -> LogIndex {
        self.family(name).map(|(_, service)| service.version).max().unwrap_or_default()
    }

    /// Members of a service that are not being retired, by slot.
    #[must_use]
    pub fn members_of(&self, service: &Name) -> BTreeMap<u32, (MemberId, &Member)> {
        self.members
            .iter()
            .filter(|(_, member)| member.slot.service == *service && member.phase == Phase::Active)
            .map(|(id, member)| (member.slot.index, (*id, member)))
            .collect()
    }

    /// Every member whose container may exist on a host.
    pub fn members_on<'a>(&'a self, host: &'a HostId) -> impl Iterator<Item = (MemberId, &'a Member)> {
        self.members.iter().filter(move |(_, member)| member.host == *host).map(|(id, m)| (*id, m))
    }

    /// The running operation that holds a service's family.
    #[must_use]
    pub fn holder(&self, service: &Name) -> Option<(OperationId, &Operation)> {
        let root = self.root(service);
        self.operations
            .iter()
            .find(|(_, op)| op.outcome.is_none() && self.root(&op.service) == root)
            .map(|(id, op)| (*id, op))
    }

    /// Gateway of a host in a network: the first address of its first block.
    #[must_use]
    pub fn gateway(&self, network: &Name, host: &HostId) -> Option<Ipv4Addr> {
        let blocks = self.blocks.get(network)?;
        let (net, _) = blocks.iter().find(|(_, block)| block.first && block.host == *host)?;
        crate::addresses::gateway(*net, self.spec()?.network(network)?.subnet)
    }

    /// Blocks of a host in a network, the first one first.
    #[must_use]
    pub fn blocks_of(&self, network: &Name, host: &HostId) -> Vec<Ipv4Net> {
        let mut found: Vec<(bool, Ipv4Net)> = self
            .blocks
            .get(network)
            .into_iter()
            .flatten()
            .filter(|(_, block)| block.host == *host)
            .map(|(net, block)| (!block.first, *net))
            .collect();
        found.sort();
        found.into_iter().map(|(_, net)| net).collect()
    }
}
