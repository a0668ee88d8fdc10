//! An operator who talks to one chosen coordinator, over the wire like the CLI.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_model::view::{AuditView, PlatformView};
use muster_proto::control as pb;
use muster_proto::control::control_client::ControlClient;
use muster_proto::identity::RenewRequest;
use muster_proto::identity::identity_client::IdentityClient;
use muster_runtime::clock::SharedClock;
use muster_runtime::context::Context;
use muster_runtime::dial::{self, Endpoints};
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc::within;
use muster_runtime::snapshot_file;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::transport::Channel;

/// Longest wait for one answer.
pub const ANSWER: Duration = Duration::from_secs(10);

/// An operator at one coordinator.
pub struct Operator {
    /// As whom.
    pub context: Context,
    channel: Channel,
}

impl Operator {
    /// With this context, at this coordinator only.
    ///
    /// # Panics
    /// The context cannot be used.
    #[must_use]
    pub fn new(context: &Path, at: SocketAddr, clock: &SharedClock) -> Self {
        let context = Context::load(context).expect("the context can be read");
        let tls = context.tls(Arc::clone(clock)).expect("the context can be used");
        let channel =
            dial::channel(Endpoints::new([at.to_string()]), tls.client_config().expect("TLS works"));
        Self { context, channel }
    }

    /// Calls for operators.
    #[must_use]
    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    /// The connection itself.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The platform.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// The answer is not a platform.
    pub async fn status(&self) -> Result<PlatformView, Status> {
        let reply = within(ANSWER, self.control().status(pb::StatusRequest::default())).await?;
        Ok(serde_json::from_slice(&reply.into_inner().json).expect("a platform"))
    }

    /// The audit log, one line each: who, and what.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// An entry is none.
    pub async fn audit(&self) -> Result<Vec<String>, Status> {
        let stream = within(ANSWER, self.control().audit(pb::EventsRequest::default())).await?;
        let views: Vec<pb::View> = stream.into_inner().collect::<Result<_, _>>().await?;
        let entry = |view: &pb::View| serde_json::from_slice::<AuditView>(&view.json).expect("an entry");
        Ok(views.iter().map(entry).map(|entry| format!("{}: {}", entry.actor, entry.action)).collect())
    }

    /// A join token.
    ///
    /// # Errors
    /// As the coordinator says.
    pub async fn token(&self, role: &str, life_seconds: u32) -> Result<String, Status> {
        self.token_as(None, role, life_seconds).await
    }

    /// A join token, as this call of this client.
    ///
    /// # Errors
    /// As the coordinator says.
    pub async fn token_as(
        &self,
        caller: Option<pb::Caller>,
        role: &str,
        life_seconds: u32,
    ) -> Result<String, Status> {
        let request = pb::CreateTokenRequest { caller, role: role.to_owned(), life_seconds };
        Ok(within(ANSWER, self.control().create_token(request)).await?.into_inner().token)
    }

    /// Makes a spec the desired state, as this call of this client; where in the log, 0 = it was refused for what it says.
    /// With `at`, it is refused if the spec was changed behind that place.
    ///
    /// # Errors
    /// As the coordinator says; `Aborted` if the spec was changed behind `at`.
    pub async fn apply(&self, caller: Option<pb::Caller>, yaml: String, at: u64) -> Result<u64, Status> {
        let request = pb::SpecRequest { caller, yaml, at };
        Ok(within(ANSWER, self.control().apply(request)).await?.into_inner().index)
    }

    /// The state, as it is saved.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// The file is damaged.
    pub async fn snapshot(&self) -> Result<serde_json::Value, Status> {
        let stream =
            within(ANSWER, self.control().save_snapshot(pb::SaveSnapshotRequest {})).await?.into_inner();
        let parts: Vec<pb::SnapshotData> = stream.collect::<Result<_, _>>().await?;
        let file: Vec<u8> = parts.into_iter().flat_map(|part| part.data).collect();
        let (_, state) = snapshot_file::decode(&file).expect("a snapshot");
        Ok(serde_json::from_slice(state).expect("a state"))
    }

    /// Cordons a host, or opens it again; where in the log.
    ///
    /// # Errors
    /// As the coordinator says.
    pub async fn schedule(
        &self,
        caller: Option<pb::Caller>,
        host: &str,
        scheduling: &str,
    ) -> Result<u64, Status> {
        let (host, scheduling) = (host.to_owned(), scheduling.to_owned());
        let request = pb::SetSchedulingRequest { caller, host, scheduling, accept_outage: false };
        Ok(within(ANSWER, self.control().set_scheduling(request)).await?.into_inner().index)
    }

    /// Renews this operator's certificate and stores the context.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// The context cannot be written.
    pub async fn renew(&self, to: &Path) -> Result<(), Status> {
        let key = NodeKey::from_pem(self.context.key_pem.expose()).expect("the context's key is one");
        let name = self.context.platform.clone();
        let request = RenewRequest { csr_pem: key.csr(&name).expect("a request can be signed") };
        let mut identity = IdentityClient::new(self.channel.clone());
        let reply = within(ANSWER, identity.renew(request)).await?.into_inner();
        let context = Context { certificate_pem: reply.certificate_pem, ..self.context.clone() };
        context.store(to).expect("the context can be written");
        Ok(())
    }
}
