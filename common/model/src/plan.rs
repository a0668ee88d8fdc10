//! The host plan: the complete list of what one host must have. Execution has no choices left.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Generation, HostId, MemberId, Name, Revision, Slot, TaskId};
use crate::network::{Audience, HostNetwork, Protocol};

/// Longest answer of a probe or task, in bytes.
pub const ANSWER_LEN_MAX: usize = 4096;

/// Name under which the value of a secret that comes next is kept, until it is the present one.
#[must_use]
pub fn next_secret(name: &str) -> String {
    format!("{name}@next")
}

/// Name under which the value of a secret before the present one is kept, while servers may still want it.
#[must_use]
pub fn previous_secret(name: &str) -> String {
    format!("{name}@previous")
}

/// Everything a host must have, at one generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The platform's id: random, made at `init`; never its name.
    pub platform: String,
    /// The host it is for.
    pub host: HostId,
    /// Its age. An agent refuses older plans, and the same generation with other content.
    pub generation: Generation,
    /// Nothing may be stopped or removed by this plan (after a recovery, until the inventory was adopted).
    #[serde(default)]
    pub additive_only: bool,
    /// Mesh, networks, port rules.
    pub network: HostNetwork,
    /// Members that must be on the host.
    pub members: Vec<MemberPlan>,
    /// Members that are not in the plan any more and whose data an operator said to delete. Everybody else's data is
    /// put aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discard: Vec<MemberId>,
    /// Things to do once.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// What the agent keeps for a rebuild of the control plane, without reading it.
    #[serde(default)]
    pub carried: Vec<Carried>,
}

/// Spec and slot table of a service with members here, opaque to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The service.
    pub service: Name,
    /// Revision of its spec.
    pub revision: Revision,
    /// Encoded by the coordinator.
    pub bytes: String,
}

/// One member on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberPlan {
    /// Its slot.
    pub slot: Slot,
    /// Its number.
    pub member: MemberId,
    /// The revision that it was rendered from.
    pub revision: Revision,
    /// What the kind made of it; stored, so that a new coordinator version restarts nothing.
    pub rendered: Rendered,
    /// Its fixed addresses.
    pub addresses: Vec<Attachment>,
    /// Whether it must run.
    pub run: Run,
    /// Must hold immediately before the running member is stopped for a restart or for a new container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Restarts asked for so far; a container made or started under a lower number is restarted once.
    #[serde(default)]
    pub restarts: u64,
    /// The member had data before: an empty or missing data directory is `volume lost`, never a fresh start.
    #[serde(default)]
    pub has_data: bool,
}

/// Whether a member must run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// Running.
    Running,
    /// Stopped, its data kept.
    Stopped,
}

/// A member's place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: Name,
    /// The fixed address.
    pub address: Ipv4Addr,
}

/// A member's container, files, probes and actions, as rendered by its kind.
///
/// Addresses of peers appear only in files that can be reloaded, so that replacing one member restarts no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendered {
    /// Image: `name:tag` as the engine knows it, or `name@recipe` as its `muster.image` label says.
    pub image: String,
    /// Program and arguments. Empty = the image's own.
    pub command: Vec<String>,
    /// Variant of the command for the very first start of this member; never used again after it succeeded.
    #[serde(default)]
    pub first_command: Option<Vec<String>>,
    /// Environment; never a secret.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User and group ids inside the container.
    pub user: UserIds,
    /// Files, under `/muster` (one mounted directory, can be reloaded) or at a stated path.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// Data directories.
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    /// Memory file systems beside `/tmp` and `/run`.
    #[serde(default)]
    pub tmpfs: Vec<TmpfsSpec>,
    /// Limits.
    pub limits: Limits,
    /// Capabilities added to none.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// How it is stopped.
    pub stop: StopSpec,
    /// Ports with their audience. A port that is not listed is reachable by nobody.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// What is asked of it again and again.
    #[serde(default)]
    pub probes: Vec<ProbeSpec>,
    /// What can be done to it by name.
    #[serde(default)]
    pub actions: BTreeMap<String, ActionSpec>,
    /// What is done, after a confirmed stop, so that another member takes over at once.
    #[serde(default)]
    pub release: Option<ReleaseSpec>,
    /// Asks the running engine for its own system id, for the marker file.
    #[serde(default)]
    pub system_id: Option<Probe>,
}

impl Rendered {
    /// Hash over all that needs a new container when it changes: everything but reloadable files, probes, actions,
    /// release, port audiences and the variant of the first start.
    #[must_use]
    pub fn container_hash(&self) -> String {
        let mut fixed = self.clone();
        fixed.files.retain(|file| matches!(file.on_change, OnChange::Restart));
        fixed.probes.clear();
        fixed.actions.clear();
        fixed.release = None;
        fixed.system_id = None;
        fixed.first_command = None;
        for port in &mut fixed.ports {
            port.audience = Audience::Members;
        }
        fixed.ports.retain(|port| port.publish.is_some());
        hash_of(&fixed)
    }
}

/// SHA-256 over the JSON form, first 16 hex digits.
#[must_use]
pub fn hash_of<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_vec(value).expect("plain data always has a JSON form");
    hex::encode(&Sha256::digest(json)[..8])
}

/// User and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User id, not 0.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A rendered file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute path in the container.
    pub path: String,
    /// Text; `${secret:NAME}` is replaced by the agent, on a memory file system only.
    pub content: String,
    /// Unix mode.
    pub mode: u32,
    /// What a change of its content needs.
    pub on_change: OnChange,
}

/// What a changed file needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// A new container.
    Restart,
    /// The named action.
    Reload(String),
    /// Nothing: the program reads it when it needs it.
    None,
}

/// A data directory, kept under the agent's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its name.
    pub name: Name,
    /// Absolute path in the container.
    pub path: String,
}

/// A memory file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsSpec {
    /// Absolute path in the container.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Limits of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPU in thousandths of a core; 0 = no limit, nothing reserved.
    pub cpu_millis: u32,
    /// Processes.
    pub pids: u32,
    /// `/dev/shm` in bytes.
    pub shm_bytes: u64,
}

/// How a container is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// Signal, for example `SIGTERM`.
    pub signal: String,
    /// Time until it is killed, milliseconds.
    pub timeout_ms: u64,
}

/// One port of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The port.
    pub port: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who may reach it.
    pub audience: Audience,
    /// Address and port on the host, for audience `public`.
    #[serde(default)]
    pub publish: Option<SocketAddr>,
    /// The one network in which it may be reached; absent = each that the member joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Name>,
}

/// A repeated question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Its name, unique in the member.
    pub name: String,
    /// Milliseconds between two.
    pub every_ms: u64,
    /// The question.
    pub probe: Probe,
}

/// A question with a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Milliseconds until it counts as failed.
    pub timeout_ms: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked. Unless it says otherwise, of the member's own first address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// HTTP request; answer = status and body.
    Http(HttpAsk),
    /// TCP connect; answer = connected or not.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Program in the container; answer = exit code and output.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// One SQL statement; answer = first row as a JSON array of texts.
    Sql(SqlAsk),
    /// Commands to Redis; answer = JSON object, name of the call -> its answer.
    Resp(RespAsk),
    /// Keys of etcd under a prefix; answer = JSON object, key without the prefix -> value (parsed if it is JSON).
    EtcdRange {
        /// Members to try in turn.
        endpoints: Vec<SocketAddr>,
        /// The prefix.
        prefix: String,
    },
    /// A signed request to an S3 server.
    S3(S3Ask),
}

/// What is asked of an S3 server, and who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Ask {
    /// The port.
    pub port: u16,
    /// The access key.
    pub user: String,
    /// Name of the secret that is the secret key; absent = the access key itself, as in the login that everybody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What.
    pub what: S3What,
}

/// What can be asked of an S3 server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum S3What {
    /// Writes an object through this server, reads it back, compares and deletes it.
    Canary {
        /// The bucket; made if it is not there.
        bucket: String,
    },
    /// The deployment's id, drives and servers; answer = JSON object, much shorter than the server's own.
    Status,
    /// The deployment's id; answer = the id.
    DeploymentId,
    /// Any request; answer = status and body, done = 2xx.
    Request {
        /// `GET`, `PUT`, ...
        method: String,
        /// Path and query, encoded.
        path: String,
        /// Body; never a secret.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// Makes users, or gives them this secret key and policy.
    ImportUsers(Vec<S3User>),
    /// Brings to every drive what it lacks of all objects. Without a token it begins, and the answer is JSON with `token`. With
    /// it, it is waited for until the end or until the time is over; answer = JSON with `state` (`running`, `finished`,
    /// `gone`: the server knows it no more), `healed` and `failed` (objects) and `first`, one that failed.
    Heal {
        /// What the beginning answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// The bucket of the canaries, which come and go meanwhile.
        except: String,
    },
}

/// A user of an S3 server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3User {
    /// The access key.
    pub name: String,
    /// Name of the secret that is the secret key.
    pub secret: String,
    /// The policy that says what it may do.
    pub policy: String,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpAsk {
    /// `GET`, `POST`, ...
    pub method: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Body; `${secret:NAME}` is replaced.
    #[serde(default)]
    pub body: Option<String>,
    /// User name, and the name of the secret that is the password.
    #[serde(default)]
    pub basic_auth: Option<(String, String)>,
    /// Address instead of the member's own.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
}

/// An SQL statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlAsk {
    /// The protocol spoken.
    pub engine: SqlEngine,
    /// The port.
    pub port: u16,
    /// Login.
    pub user: String,
    /// Name of the secret that is the password.
    pub secret: String,
    /// Database.
    pub database: String,
    /// The statement.
    pub statement: String,
}

/// SQL protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SqlEngine {
    /// PostgreSQL.
    Postgres,
}

/// Commands in Redis' protocol, in their order. One that fails stops none after it; the whole succeeded if all did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RespAsk {
    /// The port.
    pub port: u16,
    /// Login.
    pub user: String,
    /// Name of the secret that is the password.
    pub secret: String,
    /// The commands.
    pub calls: Vec<RespCall>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RespCall {
    /// Its answer's key.
    pub name: String,
    /// Command and arguments; `${secret:NAME}` is replaced.
    pub words: Vec<String>,
    /// Address instead of the member's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// What of the answer is kept.
    #[serde(default, skip_serializing_if = "RespKeep::is_whole")]
    pub keep: RespKeep,
}

/// What of a command's answer is kept: answers of `INFO` are longer than what an agent passes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RespKeep {
    /// All: a text, a number, an array.
    #[default]
    Whole,
    /// These of the lines `name:value`, as an object of texts.
    Fields(Vec<String>),
    /// These of the words of each line, from 0, and all from `rest` on: an array of arrays of texts.
    Columns {
        /// Places of words.
        places: Vec<usize>,
        /// The first of the words that are kept whatever their number.
        rest: usize,
    },
}

impl RespKeep {
    const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }
}

/// A condition that is asked for immediately before acting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// What it protects, for the message when it refuses.
    pub name: String,
    /// The question.
    pub probe: Probe,
    /// What the answer must be.
    pub accept: Predicate,
}

/// A condition on an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicate {
    /// The probe succeeded (HTTP 2xx, exit code 0, connected, a row).
    Ok,
    /// The code (HTTP status, exit code) is this one.
    Code(i32),
    /// A value of the JSON answer, by RFC 6901 pointer, equals this one.
    Equals {
        /// The pointer.
        pointer: String,
        /// The value.
        value: serde_json::Value,
    },
    /// A number of the JSON answer is at most this one. A missing value is not.
    AtMost {
        /// The pointer.
        pointer: String,
        /// The bound.
        value: f64,
    },
    /// At least `count` elements of the array or object at the pointer fulfil the condition.
    Count {
        /// The pointer.
        pointer: String,
        /// The condition, with pointers relative to the element.
        accept: Box<Self>,
        /// The smallest number.
        at_least: usize,
    },
    /// All hold.
    All(Vec<Self>),
    /// One holds.
    Any(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
}

/// Something that can be done to a member by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionSpec {
    /// Must hold immediately before.
    #[serde(default)]
    pub guard: Option<Guard>,
    /// What is done.
    pub run: Act,
    /// Milliseconds until it counts as failed.
    pub timeout_ms: u64,
}

/// What can be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// HTTP request; 2xx = done.
    Http(HttpAsk),
    /// Program in the container; exit code 0 = done.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Signal to the container's first process.
    Signal {
        /// For example `SIGHUP`.
        signal: String,
    },
    /// Commands to Redis; all succeeded = done.
    Resp(RespAsk),
    /// Deletes an etcd key in one transaction, only if it still has this value and was not written since it was
    /// read; then reads it back.
    EtcdDelete {
        /// Members to try in turn.
        endpoints: Vec<SocketAddr>,
        /// The key.
        key: String,
        /// The value that it must have.
        value: String,
    },
    /// A signed request to an S3 server; 2xx = done.
    S3(S3Ask),
}

/// What lets another member take over, once this member's container is confirmed to have stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseSpec {
    /// Holds = nothing acknowledged can be lost: release first, start again afterwards. Otherwise restart in place.
    pub guard: Guard,
    /// The release.
    pub act: Act,
    /// Milliseconds for guard and act together.
    pub timeout_ms: u64,
    /// Restarts in place that must have failed before a release is tried although the guard does not hold.
    pub hopeless_after: u32,
}

/// Something to do once. Answered once; a task that an agent's crash interrupted is not done again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// The member it is done to.
    pub member: MemberId,
    /// Must hold immediately before; beside the action's own.
    #[serde(default)]
    pub guard: Option<Guard>,
    /// What is done.
    pub what: TaskKind,
    /// Milliseconds from its start until it counts as failed.
    pub timeout_ms: u64,
}

/// What a task can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The member's action of this name.
    Action {
        /// Its name.
        name: String,
    },
    /// Something that is not one of the member's named actions, because it has parameters (a switchover's candidate).
    Act {
        /// What.
        act: Act,
    },
    /// A program in the running container; answer = its output.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// A container of its own on the volumes of a stopped member; answer = its output.
    OneShot {
        /// Image; absent = the member's.
        image: Option<String>,
        /// Program and arguments.
        command: Vec<String>,
        /// Apart from the member, which may run: empty memory file systems stand where its volumes would be.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        apart: bool,
    },
    /// The beginning of a file in one of the member's volumes.
    ReadFile {
        /// The volume.
        volume: Name,
        /// Path inside it; may not leave it.
        path: String,
    },
    /// Free bytes on the disk of the member's volumes.
    FreeSpace,
    /// A drill's fault: kills the container, and holds its restart back. The hold ends by itself.
    Kill {
        /// Milliseconds for which the container is not started again; 0 = the usual rules.
        hold_ms: u64,
    },
    /// A drill's fault: every process of the container stands still. Undone by the agent when the time is over.
    Freeze {
        /// Milliseconds.
        for_ms: u64,
    },
    /// A drill's fault: all members of the host are killed and cut off, and the agent falls silent, as if the host had
    /// lost power. Undone by the agent when the time is over.
    KillHost {
        /// Milliseconds.
        for_ms: u64,
    },
}
