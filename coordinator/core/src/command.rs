//! What may be asked of State, and what comes back. Data only; `apply` decides nothing but whether it still fits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use muster_model::ids::{BootId, Generation, HostId, LogIndex, MemberId, Name, OperationId, Revision};
use muster_model::observed::{Condition, HostFacts, TaskAnswer};
use muster_model::plan::{Attachment, Guard, TaskKind};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::time::Timestamp;
use muster_model::view::Scheduling;
use serde::{Deserialize, Serialize};

use crate::drill::DrillProgress;
use crate::kinds::{Observed, ProcedureProgress};
use crate::state::{
    CertificateNote, Liveness, NeedsOperator, OperationKind, Outcome, Rendering, ServiceParent, Step,
    TokenRole,
};

/// Where and when an entry was agreed on. Time and ids come in with the entry; `apply` has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogMeta {
    /// Position in the log.
    pub index: LogIndex,
    /// The proposing leader's clock; `apply` never lets it go back.
    pub at: Timestamp,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Calling program and its number of this call: a repeated call has no second effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// Who is named in the audit log; absent = the platform itself, not audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What is asked.
    pub what: What,
}

/// A calling program and its number of the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Random text of the program.
    pub client: String,
    /// A number that it never uses twice.
    pub serial: u64,
}

impl Command {
    /// A command of the platform itself.
    #[must_use]
    pub const fn internal(what: What) -> Self {
        Self { caller: None, actor: None, what }
    }

    /// A command of a person or another program.
    #[must_use]
    pub fn from_actor(actor: impl Into<String>, caller: Option<Caller>, what: What) -> Self {
        Self { caller, actor: Some(actor.into()), what }
    }
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Makes the platform.
    Init {
        /// Random id.
        id: String,
        /// Its name.
        name: Name,
    },
    /// A host joins, or one that is known joins again with the same key.
    RegisterHost(HostRegistration),
    /// A host's agent began or ceased to beat.
    HostLiveness {
        /// The host.
        host: HostId,
        /// The new state.
        liveness: Liveness,
        /// The agent's run, if it is up.
        boot: Option<BootId>,
    },
    /// What an agent says of its host.
    HostFacts {
        /// The host.
        host: HostId,
        /// The agent's run.
        boot: BootId,
        /// Size and addresses.
        facts: Arc<HostFacts>,
        /// Whether its Docker Engine answers, and since when.
        engine: (bool, Timestamp),
        /// What it complains about.
        conditions: Vec<Condition>,
    },
    /// What was found on a host after a recovery and is not in the spec.
    HostInventory {
        /// The host.
        host: HostId,
        /// Members with their slots; absent = nothing that is not wanted, or an operator gives it up.
        found: Option<Vec<String>>,
    },
    /// Whether a host takes members.
    SetScheduling {
        /// The host.
        host: HostId,
        /// The new state.
        scheduling: Scheduling,
        /// For maintenance: services that cannot bear its absence may stop.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outage: bool,
    },
    /// The members of a host that is being prepared for maintenance are stopped, all at once: every service bears it.
    RestHost {
        /// The host.
        host: HostId,
        /// The newest [`crate::state::State::fence`] of the services on it when it was decided.
        seen: LogIndex,
    },
    /// Takes a host off the platform for good. It must be empty, or down with nothing left on it that is wanted.
    RemoveHost {
        /// The host.
        host: HostId,
    },
    /// Makes a spec the desired state. It was validated before; `apply` does not judge it again.
    ApplySpec {
        /// The spec.
        spec: Arc<PlatformSpec>,
        /// The file as written.
        yaml: Arc<str>,
        /// The index that the operator's plan was made at; refused if the spec changed since. Absent = not checked.
        at: Option<LogIndex>,
    },
    /// Steps on one service, decided together on the state of index `seen`.
    Service {
        /// The service.
        service: Name,
        /// [`crate::state::State::fence`] when it was decided.
        seen: LogIndex,
        /// The steps; all or none.
        acts: Vec<Act>,
    },
    /// What an agent saw of its members: only what changed.
    Observe(Observation),
    /// The leader is about to send this plan to a host.
    PublishPlan {
        /// The host.
        host: HostId,
        /// Counter of this plan: the present one plus one.
        counter: u64,
        /// Hash of its content.
        hash: String,
        /// Retiring members that its content leaves out.
        dropped: Vec<MemberId>,
        /// Members of which it says something for the first time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        told: Vec<MemberId>,
    },
    /// Starts an operation.
    StartOperation {
        /// The service.
        service: Name,
        /// What to do.
        kind: OperationKind,
        /// [`crate::state::State::fence`] when it was decided; absent = an operator's wish, valid on any state.
        seen: Option<LogIndex>,
    },
    /// The next step of an operation.
    Advance(Box<Advance>),
    /// An operator's word to an operation.
    SteerOperation {
        /// The operation.
        operation: OperationId,
        /// The word.
        verb: Verb,
    },
    /// Stores a secret.
    PutSecret {
        /// Full name, `<service>/<what>`.
        name: String,
        /// Sealed bytes, base64.
        sealed: String,
        /// The version that it replaces: 0 = it must not exist yet.
        replaces: u64,
        /// What it says, if it is a certificate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<CertificateNote>,
    },
    /// Stores a join token.
    CreateToken {
        /// Hash of its text, hex.
        hash: String,
        /// What it is for.
        role: TokenRole,
        /// Until when.
        expires: Timestamp,
    },
    /// Uses up a join token. Of two users exactly one succeeds.
    UseToken {
        /// Hash of its text, hex.
        hash: String,
        /// What it is used for.
        role: TokenRole,
        /// Who uses it: digest of the user's key. The same user may repeat it.
        user: String,
    },
    /// Records a certificate before it is handed out.
    RecordCertificate {
        /// Serial, hex.
        serial: String,
        /// The URI of its SAN.
        subject: String,
        /// SHA-256 of its public key, hex.
        key_digest: String,
        /// Until when.
        expires: Timestamp,
    },
    /// Revokes a certificate.
    RevokeCertificate {
        /// Serial, hex.
        serial: String,
        /// Why.
        why: String,
    },
    /// A coordinator's name: Raft knows it by number and address only.
    NameCoordinator {
        /// Its number.
        node: u64,
        /// Its name.
        name: Name,
    },
    /// A coordinator is out of the group for good: its keys do not count any more.
    RemoveCoordinator {
        /// Its number.
        node: u64,
    },
    /// Removes a service: the one way in which a service goes.
    RemoveService {
        /// The service.
        service: Name,
        /// Delete its data instead of keeping it aside.
        destroy: bool,
    },
    /// Lifts the brake: hosts that are down now no longer stop replacements.
    ReleaseBrake,
    /// Records something that was refused before it came here.
    Audit {
        /// What, and how it ended.
        action: String,
    },
}

/// A host that joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRegistration {
    /// Its identity.
    pub id: HostId,
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
}

/// What an agent saw of its members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The host.
    pub host: HostId,
    /// The agent's run.
    pub boot: BootId,
    /// The plan that the agent acts on.
    pub generation: Generation,
    /// Members whose condition changed.
    pub members: Vec<(MemberId, Option<Observed>)>,
    /// Retiring members of which nothing is left on the host.
    pub gone: Vec<MemberId>,
    /// Answers to tasks.
    pub answers: Vec<TaskAnswer>,
}

/// A block that a placement needs beside those the host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlock {
    /// The network.
    pub network: Name,
    /// The block.
    pub net: Ipv4Net,
}

/// One step on a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Adds this service itself: a child, or a drill's writer.
    Create {
        /// Its spec.
        spec: Arc<ServiceSpec>,
        /// Its owner, if it is a child.
        parent: Option<ServiceParent>,
        /// The drill that it is for.
        internal: Option<OperationId>,
    },
    /// Gives a child its new spec as a new revision.
    SetSpec {
        /// The spec.
        spec: Arc<ServiceSpec>,
    },
    /// Marks the service as on its way out.
    MarkRemoved {
        /// Delete its data.
        destroy: bool,
    },
    /// Forgets the service; it must have no members.
    Forget,
    /// Puts a new member into a slot.
    Place {
        /// The slot.
        slot: u32,
        /// The number that it will get; must be the next one.
        member: MemberId,
        /// Its host.
        host: HostId,
        /// Its addresses.
        addresses: Vec<Attachment>,
        /// Blocks that these need.
        blocks: Vec<NewBlock>,
        /// It joins a cluster that exists.
        joins_existing: bool,
    },
    /// Gives a member a rendering that needs no new container (or its first one).
    Render {
        /// The member.
        member: MemberId,
        /// The rendering.
        rendering: Rendering,
    },
    /// Stores the newest rendering, which needs a new container and waits for its turn.
    Pend {
        /// The member.
        member: MemberId,
        /// The rendering; absent = the present one is the newest again.
        rendering: Option<Rendering>,
    },
    /// The pending rendering takes effect: the member is stopped and created again.
    Adopt {
        /// The member.
        member: MemberId,
    },
    /// The member must run.
    Start {
        /// The member.
        member: MemberId,
    },
    /// The member's container is stopped, its data kept; it stays so until `Start`, or until the operation ends.
    Stop {
        /// The member.
        member: MemberId,
    },
    /// A fact about the service that its kind needs later. Replaces an earlier one of the same key.
    Record {
        /// Its name, for the kind.
        key: String,
        /// Its value.
        value: String,
    },
    /// The next values of these secrets of the service become the present ones; those before are kept for now.
    PromoteSecrets {
        /// Full names.
        names: Vec<String>,
    },
    /// The values before the present ones are no longer needed.
    ForgetPrevious {
        /// Full names of the secrets.
        names: Vec<String>,
    },
    /// The member's container is stopped and started once.
    Restart {
        /// The member.
        member: MemberId,
    },
    /// The member is no longer wanted.
    Retire {
        /// The member.
        member: MemberId,
        /// Why, for the history.
        why: String,
        /// Delete its data.
        destroy: bool,
        /// An operator said that it never comes back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lost: bool,
    },
    /// The cluster was formed.
    Formed,
    /// The member has data from now on.
    HasData {
        /// The member.
        member: MemberId,
    },
    /// The update to this revision does not begin again by itself; absent = it may.
    Hold {
        /// The revision.
        revision: Option<Revision>,
    },
    /// The previous spec becomes the newest revision, also in the platform's spec.
    GoBack,
}

/// An operator's word to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Try again.
    Continue,
    /// End it.
    Cancel,
    /// The fault of a drill was done from outside.
    FaultDone,
}

/// A task that an operation gives to an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDraft {
    /// The member.
    pub member: MemberId,
    /// Must hold immediately before.
    pub guard: Option<Guard>,
    /// What is done.
    pub what: TaskKind,
    /// Milliseconds from its start until it counts as failed.
    pub timeout_ms: u64,
}

/// The next step of an operation, with everything that it does to State at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advance {
    /// The operation.
    pub operation: OperationId,
    /// Its epoch when this was decided.
    pub epoch: u64,
    /// [`crate::state::State::fence`] of its service when this was decided.
    pub seen: LogIndex,
    /// The new step; absent = the same.
    pub step: Option<Step>,
    /// When that step counts as failed.
    pub deadline: Option<Timestamp>,
    /// Tries of that step so far.
    pub attempts: u32,
    /// Members still to be restarted; absent = the same.
    pub todo: Option<Vec<MemberId>>,
    /// What it does or waits for now.
    pub status: String,
    /// A line for its log and the history.
    pub note: Option<String>,
    /// It waits for an operator.
    pub needs_operator: Option<NeedsOperator>,
    /// Progress of a drill; absent = the same.
    pub drill: Option<Box<DrillProgress>>,
    /// Progress of a procedure; absent = the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<Box<ProcedureProgress>>,
    /// Its result.
    pub result: Option<serde_json::Value>,
    /// It ends.
    pub outcome: Option<Outcome>,
    /// Steps on services.
    pub acts: Vec<(Name, Vec<Act>)>,
    /// A new task. Older ones of the operation are taken back.
    pub task: Option<TaskDraft>,
    /// Given at the same time as `task`, to other members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_tasks: Vec<TaskDraft>,
    /// Outstanding and answered tasks are taken back.
    pub clear_tasks: bool,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The entry that did it.
    pub index: LogIndex,
    /// The operation that it created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// The address in the mesh of the host that it registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_address: Option<Ipv4Addr>,
}

/// Why a command had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// The state that it was decided on is no longer the present one. Decide again.
    #[error("decided on entry {seen}, but {about} changed at {now}")]
    Stale {
        /// What changed.
        about: String,
        /// Decided on.
        seen: LogIndex,
        /// Changed at.
        now: LogIndex,
    },
    /// No `init` yet.
    #[error("the platform is not initialised: run `muster-coordinator init`")]
    NotInitialised,
    /// What it names does not exist.
    #[error("there is no {what} `{name}`")]
    Unknown {
        /// `host`, `service`, ...
        what: String,
        /// Its name.
        name: String,
    },
    /// What it wants to make exists.
    #[error("{what} `{name}` exists already")]
    Exists {
        /// `host`, `service`, ...
        what: String,
        /// Its name.
        name: String,
    },
    /// Another operation holds the service.
    #[error("operation {operation} ({kind}) holds `{service}`: `muster op watch {operation}`")]
    Held {
        /// The service.
        service: Name,
        /// The operation.
        operation: OperationId,
        /// What it does.
        kind: String,
    },
    /// A join token that cannot be used.
    #[error("this join token {why}: make a new one with `muster token`")]
    Token {
        /// `is not known`, `has expired`, `was used already`, `is for a coordinator`.
        why: String,
    },
    /// It does not fit the state.
    #[error("{why}")]
    Unfit {
        /// Why.
        why: String,
    },
}
