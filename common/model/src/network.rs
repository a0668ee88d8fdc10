//! The private network as one host must have it: mesh, networks, blocks, who may reach which port.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{HostId, Name};
use crate::spec::Egress;

/// What one host must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// The mesh; absent while the platform has one host.
    #[serde(default)]
    pub mesh: Option<Mesh>,
    /// The networks that members of this host join.
    #[serde(default)]
    pub networks: Vec<NetworkPlan>,
    /// Every port of this host's members that somebody may reach. Nothing else is reachable.
    #[serde(default)]
    pub rules: Vec<PortRule>,
}

/// The mesh device `muster0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// This host's address in the mesh.
    pub address: Ipv4Addr,
    /// The mesh's whole subnet.
    pub subnet: Ipv4Net,
    /// UDP port.
    pub port: u16,
    /// MTU in bytes, also of every container interface.
    pub mtu: u16,
    /// The other hosts.
    pub peers: Vec<MeshPeer>,
}

/// Another host in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPeer {
    /// The host.
    pub host: HostId,
    /// Its WireGuard public key, base64.
    pub public_key: String,
    /// Its public address and port.
    pub endpoint: SocketAddr,
    /// Its address in the mesh.
    pub address: Ipv4Addr,
    /// Its blocks in all networks.
    pub blocks: Vec<Ipv4Net>,
}

/// One network on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// Its name.
    pub name: Name,
    /// The whole network.
    pub subnet: Ipv4Net,
    /// First address of this host's first block: the bridge's own, and the source of probes.
    pub gateway: Ipv4Addr,
    /// This host's blocks.
    pub blocks: Vec<Ipv4Net>,
    /// Blocks of other hosts, reached through the mesh.
    pub remote: Vec<Ipv4Net>,
    /// MTU in bytes; fixed when the network is made.
    pub mtu: u16,
    /// Whether its members may reach the internet.
    pub egress: Egress,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Who may open connections to a port of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Members of the service, of its child services and of its parent, and the agents of their hosts.
    Members,
    /// Every member of the networks that the service joins, and the agents of their hosts.
    Network,
    /// Published on a stated address of the host.
    Public,
}

/// Permission to reach one port of one member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRule {
    /// The network.
    pub network: Name,
    /// The member's address in it.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Sources allowed; a whole subnet for audience `network`.
    pub sources: Vec<Ipv4Net>,
    /// Reachable from anywhere through a published port.
    pub public: bool,
}
