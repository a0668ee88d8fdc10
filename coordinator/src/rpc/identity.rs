//! Joining and renewing: who gets a certificate, and for which name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_consensus::{Consensus, Node};
use muster_core::command::{Command, HostRegistration, What};
use muster_core::state::TokenRole;
use muster_model::ids::{HostId, Name};
use muster_proto::identity as pb;
use muster_proto::identity::identity_server::Identity as IdentityService;
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::access;
use muster_runtime::audit::{Audit, Refusal};
use muster_runtime::identity::{Identity, Role};
use muster_runtime::server::Peer;
use muster_runtime::token::{JoinToken, TokenKind};
use tonic::{Code, Request, Response, Status};

use crate::authority::Authority;
use crate::proposer::Proposer;
use crate::replica::Replica;
use crate::{group, status};

/// What this program says that it is.
pub const PROGRAM: &str = concat!("muster-coordinator ", env!("CARGO_PKG_VERSION"));

/// Most labels of a host.
const LABELS_MAX: usize = 64;
/// Longest wait for a change of the group.
const GROUP: Duration = Duration::from_secs(5);

/// Answers joiners and holders of certificates.
pub struct Identities {
    /// Raft.
    pub consensus: Consensus,
    /// The state.
    pub replica: Replica,
    /// Changes.
    pub proposer: Proposer,
    /// Certificates.
    pub authority: Authority,
    /// Those who were refused.
    pub audit: Arc<dyn Audit>,
    /// Random text of this process.
    pub run: String,
}

#[tonic::async_trait]
impl IdentityService for Identities {
    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloReply>, Status> {
        let hello = request.into_inner();
        let protocol = agree(hello.protocol_min, hello.protocol_max)?;
        let state = self.replica.state();
        let platform = state.platform.as_ref();
        Ok(Response::new(pb::HelloReply {
            protocol,
            features: Vec::new(),
            program: PROGRAM.to_owned(),
            platform_id: platform.map(|p| p.id.clone()).unwrap_or_default(),
            platform_name: platform.map(|p| p.name.to_string()).unwrap_or_default(),
            run: self.run.clone(),
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        let address = request.extensions().get::<Peer>().map(|peer| peer.address);
        let join = request.into_inner();
        let token = match self.checked_token(&join).await {
            Ok(token) => token,
            Err(status) => {
                if let (Some(address), true) = (address, status.code() != Code::Unavailable) {
                    let method = Some("Join".to_owned());
                    let reason = status.message().to_owned();
                    self.audit.refused(&Refusal { address, identity: None, method, reason });
                }
                return Err(status);
            }
        };
        let name = name_of("name", &join.name)?;
        let reply = match token.kind() {
            TokenKind::Host => self.join_host(&token, name, join).await?,
            TokenKind::Coordinator => self.join_coordinator(&token, name, &join).await?,
        };
        Ok(Response::new(reply))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let old = access::certificate(&request)?.clone();
        let csr = request.into_inner().csr_pem;
        // The new certificate must be for the same key: an expired one proves nothing about another.
        if request_key(&csr)? != old.key.as_str() {
            return Err(Status::permission_denied(
                "a certificate is renewed for the same key only; join again to change the key",
            ));
        }
        let actor = old.identity.to_string();
        let issued = self
            .authority
            .issue(&csr, &old.identity, &actor)
            .await
            .map_err(|error| refused_request(&error))?;
        Ok(Response::new(pb::RenewReply {
            certificate_pem: issued.pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            coordinators: self.coordinators(),
        }))
    }
}

fn refused_request(error: &anyhow::Error) -> Status {
    match error.downcast_ref::<muster_runtime::ca::CaError>() {
        Some(reason) => Status::invalid_argument(reason.to_string()),
        None => status::internal(error),
    }
}

/// The newest protocol that both sides speak.
///
/// # Errors
/// There is none; both ranges are named.
pub fn agree(min: u32, max: u32) -> Result<u32, Status> {
    let protocol = max.min(PROTOCOL_MAX);
    if protocol < min.max(PROTOCOL_MIN) {
        let ours = format!("{PROTOCOL_MIN} to {PROTOCOL_MAX}");
        let remedy = "install versions that are at most one release apart";
        return Err(Status::failed_precondition(format!(
            "no common protocol: this coordinator speaks {ours}, the caller {min} to {max}; {remedy}"
        )));
    }
    Ok(protocol)
}

fn name_of(field: &str, text: &str) -> Result<Name, Status> {
    Name::new(text).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

impl Identities {
    fn coordinators(&self) -> Vec<pb::Endpoint> {
        let endpoint = |member: muster_consensus::Member| pb::Endpoint {
            node: member.node.id,
            address: member.node.endpoint,
            key_digest: member.node.key,
        };
        self.consensus.status().members.into_iter().map(endpoint).collect()
    }

    fn platform(&self) -> Result<(String, Name), Status> {
        let state = self.replica.state();
        let platform =
            state.platform.as_ref().ok_or_else(|| Status::unavailable("the platform is not ready"))?;
        Ok((platform.id.clone(), platform.name.clone()))
    }

    /// Looks at a token before anything is proposed: guesses of outsiders must not fill the log. Whether it can still
    /// be used is decided when the entry is applied.
    async fn checked_token(&self, join: &pb::JoinRequest) -> Result<JoinToken, Status> {
        let token: JoinToken = join.token.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let leads = self.consensus.watch_leadership().borrow().am_leader;
        // Only the leader can change the group.
        if token.kind() == TokenKind::Coordinator && !leads {
            return Err(status::not_leader(group::leader_endpoint(&self.consensus).as_deref()));
        }
        self.consensus.linearizable(GROUP).await.map_err(|error| status::read(&error))?;
        let ours = self.authority.ca_digest().map_err(|error| status::internal(&error))?;
        if *token.ca() != ours {
            return Err(Status::permission_denied("this join token is another platform's"));
        }
        if !self.replica.state().tokens.contains_key(token.hash().as_str()) {
            return Err(Status::permission_denied(
                "this join token is not known: make a new one with `muster token`",
            ));
        }
        Ok(token)
    }

    /// Uses the token up for this key. Of two users exactly one gets through; the same key may repeat it.
    async fn use_token(&self, token: &JoinToken, role: TokenRole, user: &str) -> Result<u64, Status> {
        let what = What::UseToken { hash: token.hash().to_string(), role, user: user.to_owned() };
        let command = Command::from_actor(format!("joiner {}", &user[..16.min(user.len())]), None, what);
        let reply = self.proposer.propose(&command).await.map_err(|error| status::change(&error))?;
        Ok(reply.index.0)
    }

    async fn join_host(
        &self,
        token: &JoinToken,
        name: Name,
        join: pb::JoinRequest,
    ) -> Result<pb::JoinReply, Status> {
        let address: IpAddr = join.advertise.parse().map_err(|_| {
            Status::invalid_argument(format!(
                "advertise: `{}` is not an IP address of the host",
                join.advertise
            ))
        })?;
        let (platform_id, platform) = self.platform()?;
        let key = request_key(&join.csr_pem)?;
        let id = HostId::new(&key[..16]).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut labels = checked_labels(join.labels)?;
        let mut zone = join.zone;
        // One that joins again keeps what it does not say.
        if let Some(known) = self.replica.state().hosts.get(&id) {
            if zone.is_empty() {
                zone.clone_from(&known.zone);
            }
            if labels.is_empty() {
                labels.clone_from(&known.labels);
            }
        }
        if zone.is_empty() {
            zone = name.to_string();
        }
        self.refuse_taken_name(&name, &id)?;
        self.use_token(token, TokenRole::Host, &key).await?;
        let host =
            HostRegistration { id: id.clone(), name: name.clone(), address, zone, labels, key_digest: key };
        let command = Command::from_actor(format!("host {name}"), None, What::RegisterHost(host));
        self.proposer.propose(&command).await.map_err(|error| status::change(&error))?;
        let id_name = name_of("id", id.as_str())?;
        let who = Identity { platform: platform.clone(), role: Role::Agent, id: id_name, name };
        let issued = self.authority.issue(&join.csr_pem, &who, &who.to_string()).await;
        let issued = issued.map_err(|error| refused_request(&error))?;
        Ok(pb::JoinReply {
            certificate_pem: issued.pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            platform_id,
            platform_name: platform.to_string(),
            id: id.to_string(),
            coordinators: self.coordinators(),
            seal_key: bytes::Bytes::new(),
            incarnation: 0,
        })
    }

    /// Said before the token is used up, so that a mistyped name does not cost a token.
    fn refuse_taken_name(&self, name: &Name, id: &HostId) -> Result<(), Status> {
        let state = self.replica.state();
        match state.host_named(name) {
            Some((other, _)) if other != id => Err(Status::already_exists(format!(
                "another host is called {name}: join with --name and another name"
            ))),
            _ => Ok(()),
        }
    }

    async fn join_coordinator(
        &self,
        token: &JoinToken,
        name: Name,
        join: &pb::JoinRequest,
    ) -> Result<pb::JoinReply, Status> {
        let address: SocketAddr = join.advertise.parse().map_err(|_| {
            Status::invalid_argument(format!("advertise: `{}` is not an address with a port", join.advertise))
        })?;
        let (platform_id, platform) = self.platform()?;
        let key = request_key(&join.csr_pem)?;
        let endpoint = address.to_string();
        let known = self.coordinators().into_iter().find(|c| c.key_digest == key);
        if known.is_none() && self.coordinators().iter().any(|c| c.address == endpoint) {
            return Err(Status::already_exists(format!("another coordinator listens on {endpoint}")));
        }
        // The entry's index is a number that no other coordinator ever had.
        let used_at = self.use_token(token, TokenRole::Coordinator, &key).await?;
        let node = known.map_or(used_at, |known| known.node);
        let id = name_of("id", &node.to_string())?;
        let who = Identity { platform: platform.clone(), role: Role::Coordinator, id, name: name.clone() };
        let issued = self.authority.issue(&join.csr_pem, &who, &who.to_string()).await;
        let issued = issued.map_err(|error| refused_request(&error))?;
        let naming = Command::internal(What::NameCoordinator { node, name });
        self.proposer.propose(&naming).await.map_err(|error| status::change(&error))?;
        let member = Node { id: node, endpoint: endpoint.clone(), key: key.clone() };
        let added = self.consensus.add_learner(member, GROUP).await;
        added.map_err(|error| {
            Status::unavailable(format!("adding the coordinator: {error}; run join again"))
        })?;
        Ok(pb::JoinReply {
            certificate_pem: issued.pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            platform_id,
            platform_name: platform.to_string(),
            id: node.to_string(),
            coordinators: self.coordinators(),
            seal_key: bytes::Bytes::copy_from_slice(self.authority.seal_key().expose()),
            incarnation: self.replica.state().platform.as_ref().map_or(1, |p| p.incarnation),
        })
    }
}

/// Digest of the key that a request is for; the CA checks its signature later.
fn request_key(csr_pem: &str) -> Result<String, Status> {
    let key = muster_runtime::ca::request_key(csr_pem);
    key.map(|digest| digest.to_string()).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn checked_labels(
    labels: std::collections::HashMap<String, String>,
) -> Result<BTreeMap<String, String>, Status> {
    let good =
        |text: &str| !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_graphic());
    if labels.len() > LABELS_MAX || labels.iter().any(|(key, value)| !good(key) || !good(value)) {
        return Err(Status::invalid_argument(format!(
            "labels: at most {LABELS_MAX}, keys and values of 1 to 63 visible ASCII characters"
        )));
    }
    Ok(labels.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_without_overlap_are_refused_with_both_ranges() {
        assert_eq!(agree(1, 9).unwrap(), PROTOCOL_MAX);
        let refused = agree(PROTOCOL_MAX + 1, PROTOCOL_MAX + 2).unwrap_err();
        assert!(refused.message().contains("speaks"), "{refused}");
    }
}
