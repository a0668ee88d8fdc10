//! One connection per peer and purpose: dialled in the background, greeted with Hello, replaced when
//! it fails. Must not know what is said on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::Shared;
use muster_proto::raft::HelloRequest;
use muster_proto::raft::raft_client::RaftClient;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::config::Timings;
use crate::history::{PROTOCOL_MAX, PROTOCOL_MIN};
use crate::net::dialer::Dialer;
use crate::types::{Node, NodeId};

/// Largest message to or from a peer, bytes.
pub(crate) const MESSAGE_LIMIT: usize = 4 << 20;
/// After a failed dial the next one waits this long.
const REDIAL: Duration = Duration::from_millis(100);

/// What a connection is for; bulk never delays beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Heartbeats, votes, transfers.
    Beat,
    /// Appends.
    Log,
    /// Snapshots.
    Bulk,
    /// Forwarded proposals and read indexes.
    Forward,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// It may have been received.
    #[error("{0}")]
    Failed(Status),
    #[error("no answer in time")]
    Timeout,
}

pub(crate) struct Peers {
    me: NodeId,
    platform: String,
    dialer: Arc<dyn Dialer>,
    timings: Timings,
    known: Mutex<BTreeMap<(NodeId, Lane), Arc<Peer>>>,
}

impl Peers {
    pub fn new(me: NodeId, platform: String, dialer: Arc<dyn Dialer>, timings: Timings) -> Self {
        Self { me, platform, dialer, timings, known: Mutex::default() }
    }

    /// The connection to this node; a changed endpoint or key gets a new one.
    pub fn get(self: &Arc<Self>, node: &Node, lane: Lane) -> Arc<Peer> {
        let mut known = lock(&self.known);
        let peer = known.entry((node.id, lane)).or_insert_with(|| Arc::new(Peer::new(self, node)));
        if peer.node != *node {
            *peer = Arc::new(Peer::new(self, node));
        }
        Arc::clone(peer)
    }

    /// Closes all connections.
    pub fn close(&self) {
        lock(&self.known).clear();
    }

    async fn connect(self: Arc<Self>, node: Node) -> Result<Link, String> {
        let channel = self.dialer.dial(&node).await.map_err(|error| error.to_string())?;
        let mut client = RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let hello = HelloRequest {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: Vec::new(),
            platform: self.platform.clone(),
            node: self.me,
            target: node.id,
        };
        let reply = client.hello(hello).await.map_err(|status| status.message().to_owned())?.into_inner();
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&reply.protocol) {
            return Err(format!("node {} chose protocol {}", node.id, reply.protocol));
        }
        Ok(Link { client, session: reply.session, born: Instant::now() })
    }
}

/// A greeted connection.
#[derive(Clone)]
pub(crate) struct Link {
    pub client: RaftClient<Channel>,
    pub session: u64,
    born: Instant,
}

type Dialling = Shared<oneshot::Receiver<Result<Link, String>>>;

pub(crate) struct Peer {
    peers: std::sync::Weak<Peers>,
    node: Node,
    dial: Duration,
    /// A link without any answer for this long is replaced.
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dialling: Option<Dialling>,
    dialled_at: Option<Instant>,
    last_answer: Option<Instant>,
    /// Calls since the last answer.
    unanswered: u32,
    tasks: JoinSet<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    fn new(peers: &Arc<Peers>, node: &Node) -> Self {
        Self {
            peers: Arc::downgrade(peers),
            node: node.clone(),
            dial: peers.timings.dial(),
            patience: peers.timings.election_max * 3,
            state: Mutex::default(),
        }
    }

    /// Runs one call within `limit`, dialling included. A link that the callee does not know any
    /// more is greeted again and the call repeated once, which is safe: it was refused unread.
    pub async fn call<T, F>(&self, limit: Duration, op: impl Fn(Link) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let deadline = Instant::now() + limit;
        let mut repeated = false;
        loop {
            let link = match timeout_at(deadline, self.link()).await {
                Ok(link) => link.map_err(CallError::Unreachable)?,
                Err(_) => return Err(CallError::Unreachable("not connected in time".into())),
            };
            match timeout_at(deadline, op(link)).await {
                Err(_) => return Err(CallError::Timeout),
                Ok(Ok(answer)) => {
                    self.answered();
                    return Ok(answer);
                }
                Ok(Err(status)) if status.code() == Code::Unauthenticated && !repeated => {
                    self.reset();
                    repeated = true;
                }
                Ok(Err(status)) if status.code() == Code::Unauthenticated => {
                    self.reset();
                    return Err(CallError::Unreachable(status.message().to_owned()));
                }
                Ok(Err(status)) => {
                    match status.code() {
                        // The callee itself said no: the connection is fine.
                        Code::ResourceExhausted | Code::InvalidArgument | Code::FailedPrecondition => {
                            self.answered();
                        }
                        _ => self.reset(),
                    }
                    return Err(CallError::Failed(status));
                }
            }
        }
    }

    fn answered(&self) {
        let mut state = lock(&self.state);
        state.last_answer = Some(Instant::now());
        state.unanswered = 0;
    }

    fn reset(&self) {
        lock(&self.state).dialling = None;
    }

    /// The greeted connection. Dialling goes on when the caller gives up, so that a deadline shorter
    /// than a handshake cannot keep two nodes apart for ever.
    async fn link(&self) -> Result<Link, String> {
        let dialling = self.dialling()?;
        let gone = |_| "dialling was given up".to_owned();
        let link = dialling.await.map_err(gone).and_then(|result| result);
        if link.is_err() {
            self.reset();
        }
        link
    }

    fn dialling(&self) -> Result<Dialling, String> {
        let mut state = lock(&self.state);
        state.unanswered = state.unanswered.saturating_add(1);
        if let Some(dialling) = &state.dialling {
            let silent = match dialling.peek() {
                Some(Ok(Ok(link))) => {
                    let since = state.last_answer.map_or(link.born, |answer| answer.max(link.born));
                    state.unanswered > 3 && since.elapsed() > self.patience
                }
                _ => false,
            };
            if !silent {
                return Ok(dialling.clone());
            }
        }
        if state.dialled_at.is_some_and(|at| at.elapsed() < REDIAL) {
            return Err("dialled just now, without success".into());
        }
        let peers = self.peers.upgrade().ok_or("this node has stopped")?;
        let (sender, receiver) = oneshot::channel();
        let (node, limit) = (self.node.clone(), self.dial);
        // At most one dial at a time: the one before has ended or is of no use any more.
        state.tasks = JoinSet::new();
        state.tasks.spawn(async move {
            let late = |_| Err("no connection in time".to_owned());
            let result = timeout(limit, peers.connect(node)).await.unwrap_or_else(late);
            // Nobody may be waiting any more; the next call finds the result in the shared future.
            drop(sender.send(result));
        });
        let dialling = receiver.shared();
        state.dialled_at = Some(Instant::now());
        state.dialling = Some(dialling.clone());
        Ok(dialling)
    }
}
