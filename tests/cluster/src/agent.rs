//! A minimal agent: joins, keeps a session with beats and reports, renews. It runs no containers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_model::ids::{BootId, Generation, Name};
use muster_model::observed::{Condition, EngineStatus, HostFacts, MemberStatus, Report};
use muster_model::plan::HostPlan;
use muster_model::time::Timestamp;
use muster_proto::agents::agents_client::AgentsClient;
use muster_proto::agents::{AgentHello, Beat, FromAgent, ToAgent, from_agent, to_agent};
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::identity::{JoinReply, JoinRequest, RenewRequest};
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::clock::SharedClock;
use muster_runtime::dial::{self, Endpoints};
use muster_runtime::host_bundle::Kept;
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc::within;
use muster_runtime::tasks::{OnError, TaskGroup};
use muster_runtime::tls::{Credentials, PinnedKeys, Tls, Trust, join_config};
use muster_runtime::token::JoinToken;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::operator::ANSWER;

/// A host's agent.
pub struct Agent {
    /// Its key.
    pub key: NodeKey,
    /// Its name.
    pub name: Name,
    /// What joining gave it.
    pub joined: JoinReply,
    clock: SharedClock,
}

/// Presents a token as a host would.
///
/// # Errors
/// As the coordinator says.
///
/// # Panics
/// The token has not the form of one.
pub async fn ask_to_join(
    at: SocketAddr,
    token: &str,
    key: &NodeKey,
    name: &str,
    clock: &SharedClock,
) -> Result<JoinReply, Status> {
    let read: JoinToken = token.parse().expect("a token's form");
    let tls = join_config(read.ca().clone(), Arc::clone(clock)).expect("TLS works");
    send_join(dial::channel(Endpoints::new([at.to_string()]), tls), token, key, name).await
}

/// Presents a token over a connection of one's own choice.
///
/// # Errors
/// As the coordinator says.
///
/// # Panics
/// The name is none.
pub async fn send_join(
    channel: Channel,
    token: &str,
    key: &NodeKey,
    name: &str,
) -> Result<JoinReply, Status> {
    let request = JoinRequest {
        token: token.to_owned(),
        csr_pem: key.csr(&Name::new(name).expect("a name")).expect("a request can be signed"),
        name: name.to_owned(),
        advertise: "127.0.0.1".to_owned(),
        ..JoinRequest::default()
    };
    Ok(within(ANSWER, IdentityClient::new(channel).join(request)).await?.into_inner())
}

impl Agent {
    /// Joins.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// The system has no randomness.
    pub async fn join(at: SocketAddr, token: &str, name: &str, clock: &SharedClock) -> Result<Self, Status> {
        let key = NodeKey::generate().expect("keys can be made");
        Self::join_with(key, at, token, name, clock).await
    }

    /// Joins with a key that there is already.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// The name is none.
    pub async fn join_with(
        key: NodeKey,
        at: SocketAddr,
        token: &str,
        name: &str,
        clock: &SharedClock,
    ) -> Result<Self, Status> {
        let joined = ask_to_join(at, token, &key, name, clock).await?;
        Ok(Self { key, name: Name::new(name).expect("a name"), joined, clock: Arc::clone(clock) })
    }

    /// A new connection with the present certificate.
    ///
    /// # Panics
    /// The certificate cannot be used.
    #[must_use]
    pub fn channel(&self, at: SocketAddr) -> Channel {
        let (certificate, ca) = (&self.joined.certificate_pem, &self.joined.ca_pem);
        let credentials = Credentials::new(&self.key, certificate, ca).expect("our certificate");
        let platform = Name::new(&self.joined.platform_name).expect("a name");
        let trust = Trust::new(platform, &[ca]).expect("a CA");
        let pins = self.joined.coordinators.iter().filter_map(|one| one.key_digest.parse().ok());
        let pins = Arc::new(PinnedKeys::new(pins));
        let tls = Tls::new(Some(credentials), Arc::new(trust), pins, Arc::clone(&self.clock));
        dial::channel(Endpoints::new([at.to_string()]), tls.client_config().expect("TLS works"))
    }

    /// Renews the certificate for this key, which should be the agent's own.
    ///
    /// # Errors
    /// As the coordinator says.
    ///
    /// # Panics
    /// A request cannot be signed.
    pub async fn renew(&mut self, at: SocketAddr, key: &NodeKey) -> Result<(), Status> {
        let request = RenewRequest { csr_pem: key.csr(&self.name).expect("a request can be signed") };
        let mut identity = IdentityClient::new(self.channel(at));
        self.joined.certificate_pem =
            within(ANSWER, identity.renew(request)).await?.into_inner().certificate_pem;
        Ok(())
    }

    /// Opens a session; `boot` names this run of the agent.
    ///
    /// # Errors
    /// As the coordinator says; `Unavailable` if it does not lead.
    pub async fn session(&self, at: SocketAddr, boot: &str) -> Result<Session, Status> {
        let (out, outbound) = mpsc::channel(16);
        let hello = AgentHello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            boot: boot.to_owned(),
            ..AgentHello::default()
        };
        drop(out.try_send(said(from_agent::Message::Hello(hello))));
        let mut client = AgentsClient::new(self.channel(at));
        let mut inbound = within(ANSWER, client.session(ReceiverStream::new(outbound))).await?.into_inner();
        match within(ANSWER, inbound.message()).await?.and_then(|message| message.message) {
            Some(to_agent::Message::Welcome(_)) => Ok(Session::run(boot, out, inbound)),
            other => Err(Status::unavailable(format!("no welcome: {other:?}"))),
        }
    }
}

/// A message of an agent.
#[must_use]
pub const fn said(message: from_agent::Message) -> FromAgent {
    FromAgent { message: Some(message) }
}

/// What came in so far.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Beats acknowledged.
    pub acks: u64,
    /// The newest plan.
    pub plan: Option<HostPlan>,
    /// The secrets that came with it.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// What it is to keep for a rebuild.
    pub kept: Option<Kept>,
    /// When and why the session ended.
    pub ended: Option<(Instant, String)>,
}

/// A session that beats by itself.
pub struct Session {
    boot: String,
    out: mpsc::Sender<FromAgent>,
    heard: watch::Receiver<Heard>,
    tasks: TaskGroup,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Session {
    fn run(boot: &str, out: mpsc::Sender<FromAgent>, inbound: Streaming<ToAgent>) -> Self {
        let (tell, heard) = watch::channel(Heard::default());
        let tasks = TaskGroup::new();
        let stop = tasks.token();
        tasks.spawn("listen", OnError::Log, async move {
            stop.run_until_cancelled(listen(inbound, tell)).await;
            Ok::<(), Status>(())
        });
        let (stop, beats) = (tasks.token(), out.clone());
        tasks.spawn("beat", OnError::Log, async move {
            stop.run_until_cancelled(beat(beats)).await;
            Ok::<(), Status>(())
        });
        Self { boot: boot.to_owned(), out, heard, tasks }
    }

    /// What came in so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Sends anything. False = the session is over.
    pub async fn send(&self, message: from_agent::Message) -> bool {
        self.out.send(said(message)).await.is_ok()
    }

    /// Reports a host of 4 cores and 8 GiB with these members.
    ///
    /// # Panics
    /// The session is over.
    pub async fn report(&self, generation: Generation, members: Vec<MemberStatus>) {
        self.report_with(generation, members, Vec::new()).await;
    }

    /// The same with conditions of the host.
    ///
    /// # Panics
    /// The session is over.
    pub async fn report_with(
        &self,
        generation: Generation,
        members: Vec<MemberStatus>,
        conditions: Vec<Condition>,
    ) {
        const GIB: u64 = 1 << 30;
        let facts = HostFacts {
            agent_version: "0.1.0".to_owned(),
            cpu_millis: 4_000,
            memory_bytes: 8 * GIB,
            disk_bytes: 100 * GIB,
            disk_free_percent: 90,
            ..HostFacts::default()
        };
        let engine = EngineStatus { answering: true, since: Timestamp(1), version: "27.0".to_owned() };
        let boot = BootId(self.boot.clone());
        let (answers, images, links) = (Vec::new(), None, None);
        let report = Report { boot, generation, engine, facts, members, answers, conditions, images, links };
        let json = serde_json::to_vec(&report).expect("plain data has a JSON form");
        assert!(self.send(from_agent::Message::Report(json.into())).await, "the session is over");
    }
}

async fn beat(out: mpsc::Sender<FromAgent>) {
    for sequence in 1.. {
        let beat = Beat { sequence, ..Beat::default() };
        if out.send(said(from_agent::Message::Beat(beat))).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn listen(mut inbound: Streaming<ToAgent>, tell: watch::Sender<Heard>) {
    let why = loop {
        match inbound.message().await {
            Ok(Some(ToAgent { message: Some(to_agent::Message::Ack(_)) })) => {
                tell.send_modify(|heard| heard.acks += 1);
            }
            Ok(Some(ToAgent { message: Some(to_agent::Message::Plan(update)) })) => {
                let plan = serde_json::from_slice(&update.plan).expect("a host plan");
                let secrets =
                    update.secrets.into_iter().map(|(name, value)| (name, value.to_vec())).collect();
                tell.send_modify(|heard| (heard.plan, heard.secrets) = (Some(plan), secrets));
            }
            Ok(Some(ToAgent { message: Some(to_agent::Message::Keepsake(keepsake)) })) => {
                let body = String::from_utf8(keepsake.body.to_vec()).expect("text");
                let kept = Kept { incarnation: keepsake.incarnation, index: keepsake.index, body };
                tell.send_modify(|heard| heard.kept = Some(kept));
            }
            Ok(Some(ToAgent { message: Some(to_agent::Message::NotLeader(_)) })) => {
                break "no leader".to_owned();
            }
            Ok(Some(_)) => {}
            Ok(None) => break "closed".to_owned(),
            Err(status) => break status.to_string(),
        }
    };
    tell.send_modify(|heard| heard.ended = Some((Instant::now(), why)));
}
