//! What one fake MariaDB process knows. Decides nothing.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::rows::Row;

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first database is being made.
    Making { until: u64 },
    /// Begins a cluster with what it has; anew = by a mark.
    Begins { anew: bool },
    /// Waits until the others have noticed that it was gone.
    Missed,
    /// Runs without the others.
    Apart,
    /// Takes what it missed, or a whole copy.
    Joining { until: u64, whole: bool },
    /// In step.
    Synced,
}

impl Stage {
    /// Part of a component with a majority.
    pub const fn primary(self) -> bool {
        matches!(self, Self::Joining { .. } | Self::Synced)
    }

    /// Speaks to the others.
    pub const fn speaks(self) -> bool {
        matches!(self, Self::Joining { .. } | Self::Synced | Self::Apart)
    }
}

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    pub host: usize,
    pub begun: u64,
    pub own: Option<Ipv4Addr>,
    /// Addresses that it was told at its start.
    pub peers: Vec<Ipv4Addr>,
    pub cluster: bool,
    pub stage: Stage,
    /// The view that it is in.
    pub view: Option<u64>,
    /// What it received; more than what is on its disk.
    pub at: Option<Row>,
    /// It answered at least once.
    pub looked: bool,
    /// When a write got through, while clients write here.
    pub beaten: Option<u64>,
    /// It was told to stop.
    pub leaving: bool,
}

/// Of `member.json`: whether there is a cluster, and the addresses of its members.
pub fn told(text: &str) -> (bool, Vec<Ipv4Addr>) {
    let config: Value = serde_json::from_str(text).unwrap_or_default();
    let peers = config["peers"].as_object().into_iter().flatten();
    (config["cluster"] == true, peers.filter_map(|(_, address)| address.as_str()?.parse().ok()).collect())
}
