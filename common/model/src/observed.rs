//! What agents see and say: written by agents, read by the coordinator's leader.

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, Generation, MemberId, Revision, Slot, TaskId};
use crate::image::HeldImage;
use crate::link::Links;
use crate::time::Timestamp;

/// Code of the condition that a host still runs members of the platform that it belonged to before.
pub const FOUND_MEMBERS: &str = "found-members";

/// Codes of the conditions that a host's disk is more than 85 % full (nothing new is placed there), and that it is full
/// (nothing new is started there).
pub const DISK_NEARLY_FULL: &str = "disk-nearly-full";
/// See [`DISK_NEARLY_FULL`].
pub const DISK_FULL: &str = "disk-full";

/// What an agent says of its host: complete each time, sent on change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The agent's run.
    pub boot: BootId,
    /// The plan that it acts on; zero = none yet.
    pub generation: Generation,
    /// The Docker Engine.
    pub engine: EngineStatus,
    /// The host.
    pub facts: HostFacts,
    /// Every member of the plan, and every other container of ours that is still there.
    pub members: Vec<MemberStatus>,
    /// Answers to tasks of the present plan.
    pub answers: Vec<TaskAnswer>,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// Images of the platform that are here; absent = not looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<HeldImage>>,
    /// The way to the other hosts; absent = not measured yet, or no mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Links>,
}

/// The Docker Engine as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Answers within its deadline.
    pub answering: bool,
    /// Since when this is so.
    pub since: Timestamp,
    /// Engine and API version.
    pub version: String,
}

/// Size and addresses of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Version of the agent.
    pub agent_version: String,
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk of the agent's root, bytes.
    pub disk_bytes: u64,
    /// Free there, in steps of 1 %.
    pub disk_free_percent: u8,
    /// WireGuard public key, base64.
    pub mesh_key: String,
    /// Images of ours: `name@recipe` labels and tags.
    pub images: Vec<String>,
}

/// One member as its host has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub member: MemberId,
    /// Its slot.
    pub slot: Slot,
    /// Revision of the container that is there.
    pub revision: Revision,
    /// [`crate::plan::Rendered::container_hash`] of the container that is there; empty = none.
    pub container_hash: String,
    /// Its container.
    pub state: ContainerState,
    /// Restarts that the agent made by itself since the container was created.
    pub restarts: u32,
    /// Restarts asked for by the plan that were carried out.
    pub restarts_done: u64,
    /// Times that it handed its leading role over after a stop, since the agent began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub releases: u32,
    /// The engine's own system id, once known.
    pub system_id: Option<String>,
    /// The guard that does not let it be stopped for a restart or a new container now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the container that is to follow the running one cannot be made; the running one is kept meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Refusal>,
    /// Last result of each probe.
    pub probes: Vec<ProbeResult>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The container of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// A step is under way, or the engine does not answer.
    Unknown,
    /// No container.
    Absent,
    /// There, not running, confirmed by the engine.
    Stopped {
        /// Exit code; absent = never started.
        code: Option<i64>,
    },
    /// Running.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// The agent cannot or must not start it.
    Refused {
        /// Why.
        why: Refusal,
    },
}

/// Why an agent does not start a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The image is not on the host.
    ImageMissing {
        /// The image.
        image: String,
    },
    /// The data directory is missing, empty or another member's.
    VolumeLost {
        /// What was found.
        found: String,
    },
    /// A secret has not arrived.
    SecretMissing {
        /// Its name.
        name: String,
    },
    /// It failed too often; next try at this time.
    BackingOff {
        /// When.
        until: Timestamp,
    },
    /// A drill holds it back until this time.
    Held {
        /// When.
        until: Timestamp,
    },
    /// Its guard did not hold; asked again at this time.
    Guard {
        /// What the guard protects.
        name: String,
        /// When.
        until: Timestamp,
    },
    /// Its network or its port rules are not in place.
    NetworkNotReady {
        /// What is wrong.
        problem: String,
    },
    /// The disk is nearly full.
    DiskFull,
    /// The engine refused.
    Engine {
        /// Its message.
        message: String,
    },
}

/// One answer to one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The probe.
    pub name: String,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// The answer.
    pub answer: Answer,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP 2xx, exit code 0, connected, a row.
    pub ok: bool,
    /// HTTP status or exit code.
    pub code: Option<i32>,
    /// Body, output, row or error message, cut at [`crate::plan::ANSWER_LEN_MAX`] bytes.
    pub body: String,
}

/// The one answer to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAnswer {
    /// The task.
    pub id: TaskId,
    /// When.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: TaskOutcome,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutcome {
    /// Done.
    Done {
        /// The answer, at most [`crate::plan::ANSWER_LEN_MAX`] bytes.
        answer: String,
    },
    /// A guard did not hold; nothing was done.
    Refused {
        /// Which, and what it saw.
        why: String,
    },
    /// Tried and failed, or timed out.
    Failed {
        /// Why.
        why: String,
    },
    /// The agent went away while it ran; whether it took effect is not known.
    Interrupted,
}

/// Something about a host that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    /// Stable short name, for example `disk-full`, `nft-flushed`, `foreign-plan`.
    pub code: String,
    /// One sentence with the remedy.
    pub text: String,
}
