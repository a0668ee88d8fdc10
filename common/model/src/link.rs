//! What hosts measure of the mesh between them, and how that is shown.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::{HostId, Name};
use crate::time::Timestamp;

/// The way from a host to another one, through the mesh, as the host itself measured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The other host.
    pub to: HostId,
    /// Its address in the mesh.
    pub address: Ipv4Addr,
    /// Small echoes asked for in the last round, and answered.
    pub asked: u32,
    /// Answers among them.
    pub answered: u32,
    /// Median time until an answer, microseconds; absent = no answer.
    pub round_trip_us: Option<u64>,
    /// Largest packet that was answered whole, bytes with the IP header; absent = none, or not tried.
    pub packet: Option<u16>,
    /// Seconds since the last handshake of the tunnel; absent = never.
    pub handshake_s: Option<u64>,
}

/// All links of a host, measured in one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// When the round ended, by the host's clock.
    pub at: Timestamp,
    /// Whether the host forwards packets: without it no member reaches another host.
    pub forwards: bool,
    /// UDP port of the mesh.
    pub port: u16,
    /// The mesh's MTU, bytes.
    pub mtu: u16,
    /// One for each other host of the mesh.
    pub links: Vec<Link>,
}

impl Links {
    /// What is the same in two rounds while nothing changes.
    #[must_use]
    pub fn without_times(&self) -> Self {
        let mut same = self.clone();
        same.at = Timestamp::default();
        for link in &mut same.links {
            link.round_trip_us = None;
            link.handshake_s = link.handshake_s.map(|_| 0);
        }
        same
    }
}

/// A cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellView {
    /// Who measured.
    pub from: Name,
    /// The other end.
    pub to: Name,
    /// Median time until an answer, microseconds; absent = no answer.
    pub round_trip_us: Option<u64>,
    /// Largest packet that was answered whole, bytes; absent = none.
    pub packet: Option<u16>,
    /// What is wrong, with the remedy; empty = nothing.
    pub wrong: String,
}

/// The whole matrix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetView {
    /// Every ordered pair of hosts.
    pub cells: Vec<CellView>,
    /// What is wrong with a host rather than with a pair, with the remedy.
    pub hosts: Vec<HostWrong>,
}

/// Something wrong with a host's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostWrong {
    /// The host.
    pub host: Name,
    /// What, and the remedy.
    pub wrong: String,
}

impl NetView {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.hosts.is_empty() && self.cells.iter().all(|cell| cell.wrong.is_empty())
    }
}
