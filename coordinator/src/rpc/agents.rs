//! An agent's session: first Hello, then beats and reports in, plans and log requests out. An agent speaks only for
//! the host that its certificate names.

use std::pin::Pin;
use std::sync::Arc;

use muster_consensus::Consensus;
use muster_core::state::State;
use muster_model::ids::{BootId, HostId};
use muster_model::image::PushState;
use muster_model::observed::Report;
use muster_proto::agents::agents_server::Agents;
use muster_proto::agents::{
    Ack, AgentHello, DownHost, FromAgent, ImagePartReply, ImagePartRequest, ImageStateReply,
    ImageStateRequest, NotLeader, ToAgent, Welcome, from_agent, to_agent,
};
use muster_runtime::access;
use muster_runtime::clock::SharedClock;
use muster_runtime::tasks::{OnError, TaskGroup};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::pushes::Pushes;
use crate::replica::Replica;
use crate::sessions::Sessions;
use crate::{group, rpc};
use muster_runtime::spool::Spool;

/// Beats a second are two.
const BEAT_EVERY_MS: u32 = 500;
/// Longest wait for the first message.
const HELLO: std::time::Duration = std::time::Duration::from_secs(5);
/// Longest text about an image.
const TEXT_LEN_MAX: usize = 500;
/// Longest `boot` text.
const BOOT_LEN_MAX: usize = 64;

/// Serves agents.
pub struct AgentSessions {
    /// Raft, for hints.
    pub consensus: Consensus,
    /// The state.
    pub replica: Replica,
    /// The table of sessions.
    pub sessions: Sessions,
    /// Images on their way to hosts.
    pub pushes: Pushes,
    /// Their archives.
    pub spool: Spool,
    /// The time.
    pub clock: SharedClock,
    /// Tasks of the process.
    pub tasks: TaskGroup,
}

type Out = Pin<Box<dyn Stream<Item = Result<ToAgent, Status>> + Send>>;

#[tonic::async_trait]
impl Agents for AgentSessions {
    type SessionStream = Out;

    async fn session(&self, request: Request<Streaming<FromAgent>>) -> Result<Response<Out>, Status> {
        let host = host_of(&request)?;
        let mut incoming = request.into_inner();
        let hello = first(&mut incoming).await?;
        let protocol = rpc::identity::agree(hello.protocol_min, hello.protocol_max)?;
        if hello.boot.is_empty() || hello.boot.len() > BOOT_LEN_MAX {
            return Err(Status::invalid_argument(format!("boot: 1 to {BOOT_LEN_MAX} characters")));
        }
        let Some((number, from)) = self.sessions.begin(&host, BootId(hello.boot), self.clock.monotonic())
        else {
            return Ok(Response::new(self.elsewhere()));
        };
        // The state is looked at after the session is in the table: a leader has applied what makes it lead.
        if !self.replica.state().hosts.contains_key(&host) {
            self.sessions.end(&host, number);
            return Err(Status::permission_denied("this host was removed from the platform"));
        }
        let welcome = Welcome { protocol, beat_every_ms: BEAT_EVERY_MS };
        let (to, out) = mpsc::channel(4);
        drop(to.try_send(ToAgent { message: Some(to_agent::Message::Welcome(welcome)) }));
        let reader = Reader {
            host,
            number,
            sessions: self.sessions.clone(),
            clock: Arc::clone(&self.clock),
            consensus: self.consensus.clone(),
            replica: self.replica.clone(),
            to,
        };
        self.tasks.spawn("agent session", OnError::Log, reader.run(incoming));
        let out = ReceiverStream::new(out).merge(ReceiverStream::new(from)).map(Ok);
        Ok(Response::new(Box::pin(out)))
    }

    async fn image_part(
        &self,
        request: Request<ImagePartRequest>,
    ) -> Result<Response<ImagePartReply>, Status> {
        let host = host_of(&request)?;
        let ImagePartRequest { sha256, offset } = request.into_inner();
        if !self.pushes.may_fetch(&host, &sha256, offset, self.clock.monotonic()) {
            return Err(Status::not_found("no such image is pushed to this host now"));
        }
        let spool = self.spool.clone();
        let read = tokio::task::spawn_blocking(move || spool.part(&sha256, offset)).await;
        let data = read.map_err(|error| Status::internal(error.to_string()))?;
        let data = data.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(ImagePartReply { data: data.into() }))
    }

    async fn image_state(
        &self,
        request: Request<ImageStateRequest>,
    ) -> Result<Response<ImageStateReply>, Status> {
        let host = host_of(&request)?;
        let ImageStateRequest { sha256, state, text } = request.into_inner();
        let state: PushState = state.parse().map_err(Status::invalid_argument)?;
        let text: String = text.chars().take(TEXT_LEN_MAX).collect();
        self.pushes.answered(&host, &sha256, state, &text, self.clock.monotonic());
        Ok(Response::new(ImageStateReply {}))
    }
}

fn host_of<T>(request: &Request<T>) -> Result<HostId, Status> {
    let identity = access::identity(request)?;
    HostId::new(identity.id.as_str()).map_err(|error| Status::permission_denied(error.to_string()))
}

async fn first(incoming: &mut Streaming<FromAgent>) -> Result<AgentHello, Status> {
    let message = tokio::time::timeout(HELLO, incoming.message()).await;
    match message.map_err(|_| Status::deadline_exceeded("no Hello"))?? {
        Some(FromAgent { message: Some(from_agent::Message::Hello(hello)) }) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message of a session must be Hello")),
    }
}

impl AgentSessions {
    fn elsewhere(&self) -> Out {
        let leader = group::leader_endpoint(&self.consensus).unwrap_or_default();
        let message = to_agent::Message::NotLeader(NotLeader { leader });
        Box::pin(tokio_stream::once(Ok(ToAgent { message: Some(message) })))
    }
}

/// The other hosts that are down. Whether they are dark too each agent finds out for itself.
fn down_hosts(state: &State, asking: &HostId) -> Vec<DownHost> {
    let down = state.hosts.iter().filter(|(id, host)| *id != asking && !host.is_up());
    let said = down.map(|(id, host)| {
        let addresses = state.members_on(id).flat_map(|(_, member)| &member.addresses);
        DownHost {
            host: id.to_string(),
            name: host.name.to_string(),
            addresses: addresses.map(|attachment| attachment.address.to_string()).collect(),
        }
    });
    said.collect()
}

/// Reads one session to its end.
struct Reader {
    host: HostId,
    number: u64,
    sessions: Sessions,
    clock: SharedClock,
    consensus: Consensus,
    replica: Replica,
    to: mpsc::Sender<ToAgent>,
}

impl Reader {
    async fn run(self, mut incoming: Streaming<FromAgent>) -> Result<(), Status> {
        // Every end, clean or not, means "disconnected"; the sweep of connections and keepalive bound its delay.
        while let Ok(Some(FromAgent { message: Some(message) })) = incoming.message().await {
            if !self.take(message).await {
                break;
            }
        }
        self.sessions.end(&self.host, self.number);
        Ok(())
    }

    /// False = the session is over.
    async fn take(&self, message: from_agent::Message) -> bool {
        match message {
            from_agent::Message::Hello(_) => false,
            from_agent::Message::Beat(beat) => {
                let known = self.sessions.beat(&self.host, self.number, self.clock.monotonic());
                let ack = Ack {
                    sequence: beat.sequence,
                    coordinators: group::endpoints(&self.consensus),
                    down: down_hosts(&self.replica.state(), &self.host),
                    quiet: self
                        .replica
                        .state()
                        .operations
                        .values()
                        .all(|operation| operation.outcome.is_some()),
                };
                known && self.to.send(ToAgent { message: Some(to_agent::Message::Ack(ack)) }).await.is_ok()
            }
            from_agent::Message::Report(json) => {
                match serde_json::from_slice::<Report>(&json) {
                    Ok(report) => self.sessions.report(&self.host, self.number, report),
                    Err(error) => {
                        tracing::warn!(host = %self.host, %error, "an agent's report cannot be read");
                    }
                }
                true
            }
            from_agent::Message::Log(chunk) => {
                self.sessions.log_chunk(&self.host, chunk).await;
                true
            }
        }
    }
}
