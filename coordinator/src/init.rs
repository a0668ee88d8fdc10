//! `init` and `join`: how a directory becomes a coordinator's. Nothing here runs a coordinator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use muster_model::ids::Name;
use muster_proto::identity as pb;
use muster_proto::identity::identity_client::IdentityClient;
use muster_runtime::ca::{Ca, LEAF_LIFE};
use muster_runtime::clock::SystemClock;
use muster_runtime::context::Context;
use muster_runtime::dial::{self, Endpoints};
use muster_runtime::identity::{Identity, Role};
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc;
use muster_runtime::seal::SealKey;
use muster_runtime::secret::Secret;
use muster_runtime::tls::join_config;
use muster_runtime::token::{JoinToken, TokenKind};

use crate::home::{Home, Known, NodeFile};

/// What `init` is told.
#[derive(Debug)]
pub struct Init {
    /// The platform's name.
    pub platform: Name,
    /// This coordinator's name.
    pub name: Name,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Raft's timings.
    pub timings: String,
    /// Where the first operator's context goes.
    pub context: PathBuf,
}

/// Random text that tells this platform from every other, also from one of the same name.
fn platform_id() -> Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// Makes a platform: CA, identity of its first coordinator, context of its first operator.
///
/// # Errors
/// The directory is in use, or a file cannot be written.
pub fn init(home: &Home, wish: &Init) -> Result<()> {
    home.ensure_fresh()?;
    let now_ms = SystemClock::shared().now_ms();
    let ca = Ca::create(&wish.platform, now_ms)?;
    let seal = SealKey::generate()?;
    let key = home.key()?;
    let id = Name::new("1")?;
    let who =
        Identity { platform: wish.platform.clone(), role: Role::Coordinator, id, name: wish.name.clone() };
    let certificate = ca.issue(&key.csr(&wish.name)?, &who, certificate_life(), now_ms)?;
    let node = NodeFile {
        node: 1,
        name: wish.name.clone(),
        platform_id: platform_id()?,
        platform: wish.platform.clone(),
        advertise: wish.advertise,
        timings: wish.timings.clone(),
        known: vec![known(1, wish.advertise, &key)],
        has_log: false,
        incarnation: 1,
    };
    let operator = first_operator(&ca, wish, &key, now_ms)?;
    operator.store(&wish.context)?;
    ca.store(&home.bootstrap())?;
    home.store_first_operator(&operator.certificate_pem)?;
    home.store(&node, &certificate.pem, ca.pem(), &seal)
}

pub(crate) fn known(node: u64, endpoint: SocketAddr, key: &NodeKey) -> Known {
    Known { node, endpoint: endpoint.to_string(), key_digest: key.digest().to_string() }
}

pub(crate) fn first_operator(ca: &Ca, wish: &Init, coordinator: &NodeKey, now_ms: u64) -> Result<Context> {
    let key = NodeKey::generate()?;
    let name = Name::new("first-admin")?;
    let who =
        Identity { platform: wish.platform.clone(), role: Role::Admin, id: name.clone(), name: name.clone() };
    let issued = ca.issue(&key.csr(&name)?, &who, certificate_life(), now_ms)?;
    Ok(Context {
        platform: wish.platform.clone(),
        endpoints: vec![wish.advertise.to_string()],
        pins: vec![coordinator.digest()],
        ca_pem: ca.pem().to_owned(),
        certificate_pem: issued.pem,
        key_pem: key.pem(),
    })
}

/// Life of certificates: 30 days, or what `MUSTER_CERTIFICATE_LIFE_S` says (tests of renewal).
#[must_use]
pub fn certificate_life() -> Duration {
    let told = std::env::var("MUSTER_CERTIFICATE_LIFE_S").ok().and_then(|text| text.parse().ok());
    told.map_or(LEAF_LIFE, Duration::from_secs)
}

/// What `join` is told.
#[derive(Debug)]
pub struct Join {
    /// Coordinators to ask.
    pub coordinators: Vec<String>,
    /// The token.
    pub token: String,
    /// This coordinator's name.
    pub name: Name,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Raft's timings.
    pub timings: String,
}

/// Trades a token for this coordinator's identity.
///
/// # Errors
/// The token is refused, or no coordinator answers.
pub async fn join(home: &Home, wish: &Join) -> Result<()> {
    home.ensure_fresh()?;
    let token: JoinToken = wish.token.parse()?;
    let token = token.expect(TokenKind::Coordinator)?;
    let key = home.key()?;
    let endpoints = Endpoints::new(wish.coordinators.iter().cloned());
    let tls = join_config(token.ca().clone(), SystemClock::shared())?;
    let csr = key.csr(&wish.name)?;
    let request = pb::JoinRequest {
        token: token.reveal().expose().clone(),
        csr_pem: csr,
        name: wish.name.to_string(),
        advertise: wish.advertise.to_string(),
        ..pb::JoinRequest::default()
    };
    let reply = ask(&endpoints, tls, request).await?;
    let seal: [u8; 32] =
        reply.seal_key.as_ref().try_into().context("the coordinator sent no key for secrets")?;
    let known = reply.coordinators.iter();
    let node = NodeFile {
        node: reply.id.parse().context("the coordinator sent no number for this one")?,
        name: wish.name.clone(),
        platform_id: reply.platform_id,
        platform: Name::new(reply.platform_name)?,
        advertise: wish.advertise,
        timings: wish.timings.clone(),
        known: known
            .map(|c| Known { node: c.node, endpoint: c.address.clone(), key_digest: c.key_digest.clone() })
            .collect(),
        has_log: false,
        incarnation: reply.incarnation.max(1),
    };
    home.store(&node, &reply.certificate_pem, &reply.ca_pem, &SealKey::from_secret(Secret::new(seal)))
}

/// Asks until the leader has answered; only it can change the group.
async fn ask(
    endpoints: &Arc<Endpoints>,
    tls: Arc<rustls::ClientConfig>,
    request: pb::JoinRequest,
) -> Result<pb::JoinReply> {
    let mut last = None;
    for _ in 0..20 {
        let channel = dial::channel(Arc::clone(endpoints), Arc::clone(&tls));
        let call = rpc::within(rpc::CALL, IdentityClient::new(channel).join(request.clone())).await;
        match call {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) if status.code() == tonic::Code::Unavailable => {
                // Whoever answers was checked against the token's CA: its hint is believed, also for a new address.
                if let Some(leader) = status.metadata().get("muster-leader").and_then(|l| l.to_str().ok()) {
                    let others = endpoints.list().iter().filter(|known| *known != leader).cloned().collect();
                    endpoints.replace([vec![leader.to_owned()], others].concat());
                }
                last = Some(status);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(status) => bail!("{}", status.message()),
        }
    }
    bail!("no leader answered: {}", last.map(|s| s.message().to_owned()).unwrap_or_default())
}
