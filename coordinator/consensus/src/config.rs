//! Settings of one node and the presets behind them; must not read files or the environment.

use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::StartError;
use crate::types::NodeId;

/// Milliseconds since the epoch, read by a proposing leader. Only the simulator and tests lie.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Election and heartbeat times. After the leader's death a new one is there within about
/// `election_max` plus up to `election_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats; also the deadline of each, so it must exceed the round trip.
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// Deadline of a whole snapshot transfer.
    pub snapshot: Duration,
}

impl Timings {
    /// One data centre: a new leader within about a second.
    pub const LAN: Self = Self::of(80, 250, 500, 60);
    /// Rented hosts with up to 30 ms between them.
    pub const VPS: Self = Self::of(100, 300, 600, 120);
    /// Across regions, up to 150 ms: a new leader within about two seconds.
    pub const WAN: Self = Self::of(200, 600, 1200, 300);

    const fn of(heartbeat: u64, min: u64, max: u64, snapshot_secs: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(min),
            election_max: Duration::from_millis(max),
            snapshot: Duration::from_secs(snapshot_secs),
        }
    }

    /// Deadline of one append; longer than a heartbeat, since it may wait for a slow disk.
    pub(crate) fn append(&self) -> Duration {
        self.election_max * 2
    }

    /// Deadline of dialling including Hello.
    pub(crate) fn dial(&self) -> Duration {
        self.election_max * 2
    }
}

/// When a snapshot is taken: at the first of the three limits, `entries` not before `min_interval`
/// after the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Entries since the last snapshot.
    pub entries: u64,
    /// Bytes of entries held in memory. At half of it a snapshot is taken, above it the oldest entries
    /// that are in a snapshot go.
    pub bytes: u64,
    /// Age of the last snapshot, if anything was applied since.
    pub interval: Duration,
    pub min_interval: Duration,
    /// Entries kept behind a snapshot, so that a follower that was briefly away needs no snapshot.
    pub keep: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            entries: 5000,
            bytes: 4 << 20,
            interval: Duration::from_secs(600),
            min_interval: Duration::from_secs(10),
            keep: 500,
        }
    }
}

/// Everything a node needs to know about itself.
#[derive(Clone)]
pub struct Config {
    pub node_id: NodeId,
    /// Identifies one incarnation of one platform: messages and snapshots of any other are refused.
    pub platform: String,
    /// Usually [`OsDisk`](crate::OsDisk), opened on a directory of its own.
    pub disk: Arc<dyn Disk>,
    pub timings: Timings,
    pub snapshots: SnapshotPolicy,
    /// True when this node was a member before; then an empty directory is refused.
    pub expect_existing: bool,
}

impl Config {
    pub(crate) fn raft(&self) -> Result<openraft::Config, StartError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: self.platform.clone(),
            heartbeat_interval: ms(self.timings.heartbeat),
            election_timeout_min: ms(self.timings.election_min),
            election_timeout_max: ms(self.timings.election_max),
            install_snapshot_timeout: ms(self.timings.snapshot),
            max_payload_entries: 256,
            max_append_entries: Some(256),
            // Snapshots are triggered by `upkeep`, which also knows time and bytes.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.snapshots.keep,
            api_channel_size: Some(1024),
            enable_pre_vote: Some(true),
            // Apply is not durable here: a leader that restarts must win an election first.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| StartError::Config(error.to_string()))
    }
}
