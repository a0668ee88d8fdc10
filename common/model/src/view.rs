//! What operators are shown; also the stable keys of `-o json`. Made by the coordinator, printed by the CLI.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{HostId, LogIndex, MemberId, Name, OperationId, Revision, Slot};
use crate::observed::{Condition, HostFacts};
use crate::time::Timestamp;

/// How a service is, in five words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthWord {
    /// As the spec says.
    Healthy,
    /// Serving, with less redundancy than the spec says.
    Degraded,
    /// Serving, but the next single failure stops writes or loses acknowledged data.
    Critical,
    /// No writes.
    Down,
    /// Too few members answered lately to know.
    Unknown,
}

impl fmt::Display for HealthWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

/// Health with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The word.
    pub word: HealthWord,
    /// Why it is not `healthy`; empty if it is.
    pub reasons: Vec<String>,
}

/// Liveness of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Its agent beats.
    Ready,
    /// Silent for a moment; nothing moves.
    Suspect,
    /// Silent for longer than the preset.
    Down,
}

/// Whether a host takes members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// Takes new members.
    #[default]
    Open,
    /// Keeps what it has, takes nothing new.
    Cordoned,
    /// Is being emptied.
    Draining,
    /// Members are stopped on purpose.
    Maintenance,
}

/// The whole platform at one index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlatformView {
    /// Its name.
    pub platform: Name,
    /// The state that this was read from.
    pub index: LogIndex,
    /// When, by the leader's clock.
    pub at: Timestamp,
    /// The coordinators.
    pub coordinators: Vec<CoordinatorView>,
    /// The hosts.
    pub hosts: Vec<HostView>,
    /// The services, children after their owner.
    pub services: Vec<ServiceView>,
    /// Operations that have not ended.
    pub operations: Vec<OperationView>,
    /// Things an operator should know, most serious first.
    pub notices: Vec<String>,
}

/// One coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorView {
    /// Its number.
    pub id: u64,
    /// Where it listens.
    pub endpoint: String,
    /// Leads now.
    pub leader: bool,
    /// Has a vote.
    pub voter: bool,
    /// Answered lately, as the leader knows; absent = the leader does not know.
    pub reachable: Option<bool>,
}

/// The coordinators in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// False = no majority answers: this is only what the asked coordinator knew last.
    pub agreed: bool,
    /// The last entry of the asked coordinator's log.
    pub last_log: u64,
    /// By number.
    pub coordinators: Vec<CoordinatorDetail>,
}

/// One coordinator in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorDetail {
    /// Its number; never used for another one.
    pub id: u64,
    /// Its name; absent = it has not told it yet.
    pub name: Option<Name>,
    /// Where it listens.
    pub endpoint: String,
    /// The host with that address.
    pub host: Option<Name>,
    /// Leads now.
    pub leader: bool,
    /// Has a vote.
    pub voter: bool,
    /// It answered the coordinator that was asked.
    pub reachable: bool,
    /// Last entry of the log that it is known to have; absent = nobody leads.
    pub matched: Option<u64>,
    /// Entries that it is behind the leader.
    pub lag: Option<u64>,
    /// Its version; absent = it did not answer.
    pub version: Option<String>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// Its identity.
    pub id: HostId,
    /// Its name.
    pub name: Name,
    /// Its public address.
    pub address: String,
    /// Its failure domain.
    pub zone: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its agent beats.
    pub liveness: Liveness,
    /// Since when.
    pub since: Timestamp,
    /// Whether it takes members.
    pub scheduling: Scheduling,
    /// In maintenance, and nothing of the platform runs on it any more.
    #[serde(default)]
    pub rests: bool,
    /// Its agent's present run, another one after each start; empty = it never connected.
    #[serde(default)]
    pub run: String,
    /// Its size.
    pub facts: HostFacts,
    /// Members placed on it.
    pub members: u32,
    /// What its agent reports.
    pub conditions: Vec<Condition>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: Name,
    /// The service that it is a child of.
    pub owner: Option<Name>,
    /// Revision of its spec.
    pub revision: Revision,
    /// How it is.
    pub health: Health,
    /// Its members by slot.
    pub members: Vec<MemberView>,
    /// What it promises: what survives what, and what may be lost.
    pub promises: Vec<String>,
    /// Versions, quorum, who may take over, what waits for a restart, what happened last; one sentence each.
    #[serde(default)]
    pub details: Vec<String>,
    /// The operation that holds it.
    pub operation: Option<OperationId>,
    /// Where clients connect, by role.
    pub endpoints: BTreeMap<String, Vec<String>>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its slot.
    pub slot: Slot,
    /// Its number.
    pub member: MemberId,
    /// Name of its host.
    pub host: Name,
    /// Its addresses by network.
    pub addresses: BTreeMap<Name, String>,
    /// `running`, `stopped`, `waiting`, `unknown`, ...
    pub state: String,
    /// `leader`, `replica`, `sync_standby`, ... as the engine says.
    pub role: Option<String>,
    /// Serves as its role asks.
    pub ready: bool,
    /// Revision that runs.
    pub revision: Revision,
    /// Since when its container runs.
    pub running_since: Option<Timestamp>,
    /// Restarts by the agent.
    pub restarts: u32,
    /// Lag, timeline, or what it waits for.
    pub detail: String,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Going on.
    Running,
    /// Waits for an operator.
    NeedsOperator,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Ended by an operator.
    Cancelled,
    /// Undid itself.
    RolledBack,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its number.
    pub id: OperationId,
    /// `update`, `switchover`, `drill`, ...
    pub kind: String,
    /// The service that it holds.
    pub service: Name,
    /// How it stands.
    pub state: OperationState,
    /// What it does now, or why it ended.
    pub step: String,
    /// What to do, if it needs an operator.
    pub remedy: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What it did so far, oldest first.
    pub log: Vec<(Timestamp, String)>,
    /// Its result, if it has one (a drill's report).
    pub result: Option<serde_json::Value>,
}

/// What an apply would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Pass it to `apply --at` so that nobody's change in between is overwritten.
    pub index: LogIndex,
    /// What changes.
    pub changes: Vec<ChangeView>,
    /// What the scheduler says: where members go, or why they cannot.
    pub placement: Vec<String>,
    /// Which losses stop writes, stop reads or lose data, per service.
    pub survivability: Vec<String>,
    /// What an operator should think about.
    pub warnings: Vec<String>,
    /// What must be decided first, each at its field; an apply is refused (exit 3) while there are any.
    pub refusals: Vec<Diagnostic>,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// `+`, `-`, `~` (in place), `+/-` (members are re-created).
    pub mark: String,
    /// What changes, for example `service pg-main: image`.
    pub what: String,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Where in the log.
    pub index: LogIndex,
    /// When.
    pub at: Timestamp,
    /// Host, service, slot or operation that it is about.
    pub about: String,
    /// One sentence.
    pub text: String,
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The service or host.
    pub about: String,
    /// What is known, by subject.
    pub sections: Vec<ExplainSection>,
    /// What happened to it last, oldest first.
    pub events: Vec<EventView>,
}

/// One subject of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainSection {
    /// The subject.
    pub title: String,
    /// One sentence each.
    pub lines: Vec<String>,
}

/// What the loss of hosts, or of coordinators, would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIfView {
    /// What is lost: names of hosts, or addresses of coordinators.
    pub host: String,
    /// Each service that operators wrote.
    pub services: Vec<LossView>,
    /// What it does to the coordinators, if any of them is lost with it.
    pub control_plane: Option<String>,
}

/// What a loss does to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossView {
    /// The service.
    pub service: Name,
    /// Its kind.
    pub kind: Name,
    /// Writes go on, perhaps after the leading role has moved.
    pub writes: bool,
    /// Reads go on.
    pub reads: bool,
    /// Writes would go on if one more host, whichever, were lost then.
    #[serde(default)]
    pub bears_another: bool,
    /// When what is lost is there again; empty = nothing of it is lost.
    #[serde(default)]
    pub repair: String,
    /// The leading role is on the host and moves.
    pub moves: bool,
    /// Its members keep data.
    pub data: bool,
    /// Members that serve now.
    pub copies: u32,
    /// Members that still serve after it.
    pub copies_left: u32,
    /// Why, or what happens first; empty = nothing happens to it.
    pub why: String,
    /// What may be lost although acknowledged; empty = nothing.
    pub may_lose: String,
}

/// One way for clients to connect. Holds a password if the caller may see it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnView {
    /// `write`, `read`, ...
    pub role: String,
    /// The connection string.
    pub url: String,
}

/// One secret. Never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// Full name, `<service>/<what>`.
    pub name: String,
    /// The service that it belongs to.
    pub service: Name,
    /// Grows with each change.
    pub version: u64,
    /// When it got its value; 0 = not known.
    pub changed: Timestamp,
    /// All members are stopped and started, together, when it is changed.
    pub stops: bool,
    /// It cannot be changed.
    pub refused: bool,
    /// What a client sees when it is changed, or why it cannot be.
    pub rotation: String,
}

/// A key that an operator's certificate was issued for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorView {
    /// The operator.
    pub name: String,
    /// `admin`, `operator` or `viewer`.
    pub role: String,
    /// Beginning of the key's SHA-256, hex.
    pub key: String,
    /// Serial of the newest certificate of that key.
    pub serial: String,
    /// Until when it is good.
    pub expires: Timestamp,
    /// Why the key was revoked, once it was.
    pub revoked: Option<String>,
}

/// One entry of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// Where in the log.
    pub index: LogIndex,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What, and how it ended.
    pub action: String,
}

/// A problem in a spec file, with its place and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Line from 1.
    pub line: u64,
    /// Column from 1.
    pub column: u64,
    /// Path of the field, for example `services.pg-main.members`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}
