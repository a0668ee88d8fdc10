//! `muster-agent join`: trades a token for an identity. Nothing is written before the coordinator has agreed.

use std::collections::BTreeMap;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use muster_model::ids::{HostId, Name};
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::identity::{HelloRequest, JoinReply, JoinRequest};
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::clock::SystemClock;
use muster_runtime::dial::{self, Endpoints};
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc;
use muster_runtime::state_dir::StateDir;
use muster_runtime::tls;
use muster_runtime::token::{JoinToken, TokenKind};

use crate::identity_dir::{Coordinator, IdentityDir, Record, mesh_key};

/// What an operator says when a host joins.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Coordinators to ask, `host:port`.
    pub coordinators: Vec<String>,
    /// The token.
    pub token: String,
    /// Name of the host; absent = its host name.
    pub name: Option<String>,
    /// Its public address; absent = the one that reaches the coordinator.
    pub advertise: Option<String>,
    /// Failure domain.
    pub zone: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Exchange the identity and keep everything else.
    pub adopt: bool,
}

/// Joins; the record that was written.
///
/// # Errors
/// The host has joined already, the token is wrong, or no coordinator agrees.
pub async fn join(state: &Path, wish: Wish) -> anyhow::Result<Record> {
    let held = StateDir::open(state).context("is the agent running? stop it first")?;
    let state = held.path();
    let dir = IdentityDir::new(state);
    if dir.exists() && !wish.adopt {
        let record = dir.record()?;
        bail!(
            "this host is `{}` of platform {} already; to move it to a rebuilt platform use --adopt",
            record.name,
            record.platform_name
        );
    }
    let token = wish.token.parse::<JoinToken>()?.expect(TokenKind::Host)?;
    let name = match &wish.name {
        Some(name) => Name::new(name)?,
        None if dir.exists() => dir.record()?.name,
        None => host_name()?,
    };
    // The key is the host: it survives an adoption.
    let key = if dir.exists() { dir.key()? } else { NodeKey::generate()? };
    let request = JoinRequest {
        token: token.reveal().expose().clone(),
        csr_pem: key.csr(&name)?,
        name: name.to_string(),
        advertise: match wish.advertise {
            Some(address) => address,
            None => own_address(&wish.coordinators)?,
        },
        zone: wish.zone.unwrap_or_default(),
        labels: wish.labels.into_iter().collect(),
        mesh_key: mesh_key(state)?,
    };
    let reply = ask(&wish.coordinators, &token, request).await?;
    let host = HostId::new(reply.id.clone())?;
    ensure!(host.as_str() == key.digest().short(), "the coordinator gave an identity for another key");
    let coordinators = reply.coordinators.iter().map(|endpoint| Coordinator {
        address: endpoint.address.clone(),
        key: endpoint.key_digest.parse().ok(),
    });
    let record = Record {
        format: 1,
        platform_id: reply.platform_id.clone(),
        platform_name: reply.platform_name.clone(),
        host,
        name,
        coordinators: coordinators.collect(),
        adopted: wish.adopt,
    };
    dir.create(&key, &record, &reply.certificate_pem, &reply.ca_pem)?;
    Ok(record)
}

async fn ask(coordinators: &[String], token: &JoinToken, request: JoinRequest) -> anyhow::Result<JoinReply> {
    let tls = tls::join_config(token.ca().clone(), SystemClock::shared())?;
    let channel = dial::channel(Endpoints::new(coordinators.iter().cloned()), tls);
    let mut client = IdentityClient::new(channel).max_decoding_message_size(rpc::MESSAGE_MAX);
    rpc::within(rpc::CALL, client.hello(hello())).await.map_err(readable)?;
    let reply = rpc::within(rpc::CALL, client.join(request)).await.map_err(readable)?;
    Ok(reply.into_inner())
}

/// The first call on every connection.
#[must_use]
pub fn hello() -> HelloRequest {
    HelloRequest {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: Vec::new(),
        program: concat!("muster-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// A status in words for people: who could not be reached, or what the coordinator said.
fn readable(status: tonic::Status) -> anyhow::Error {
    match dial::unreachable(&status) {
        Some(unreachable) => anyhow::anyhow!("{unreachable}"),
        None => anyhow::anyhow!("{}", status.message()),
    }
}

fn host_name() -> anyhow::Result<Name> {
    let uname = rustix::system::uname();
    let text = uname.nodename().to_string_lossy().to_lowercase();
    let short = text.split('.').next().unwrap_or_default();
    Name::new(short).context("the host name is no name for a host; give one with --name")
}

/// The address from which the first reachable coordinator would be reached. Sends nothing.
fn own_address(coordinators: &[String]) -> anyhow::Result<String> {
    let found = coordinators.iter().find_map(|coordinator| {
        let to = coordinator.to_socket_addrs().ok()?.next()?;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    });
    found.context("this host's own address could not be found; give one with --advertise")
}
