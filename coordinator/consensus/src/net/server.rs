//! Answers the other coordinators. Must check everything before openraft sees it: who asks is the
//! authorisation layer's business, what is asked is ours.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use muster_proto::raft::raft_server::Raft as RaftRpc;
use muster_proto::raft::{
    Applied, HelloReply, HelloRequest, Message, NotLeader, ProposeReply, ProposeRequest, ReadIndexReply,
    ReadIndexRequest, SnapshotChunk, propose_reply, read_index_reply,
};
use openraft::raft::TransferLeaderRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::history::{
    self, AppendMessage, PROTOCOL_MAX, PROTOCOL_MIN, SnapshotVote, TransferAnswer, TransferMessage,
    VoteMessage, WireBody,
};
use crate::node::{Core, ProposeRefusal, ReadRefusal};
use crate::snapshot::{MAX_BYTES, SnapshotFile, Snapshots};
use crate::{convert, machine};

/// Sessions remembered; more than any cluster has connections. Forgotten ones say Hello again.
const SESSIONS: usize = 256;
/// The longest that a forwarded request may wait.
const FORWARD_LIMIT: Duration = Duration::from_secs(60);
/// A snapshot chunk must arrive within this time.
const CHUNK_LIMIT: Duration = Duration::from_secs(10);

type Answer<T> = Result<Response<T>, Status>;

/// The tonic service of one node, from [`Consensus::raft_service`](crate::Consensus::raft_service).
#[derive(Clone)]
pub struct RaftService {
    /// Weak, because connections outlive a node that was stopped inside a running process.
    core: Weak<Core>,
    sessions: Arc<Sessions>,
    /// One snapshot at a time.
    receiving: Arc<tokio::sync::Mutex<()>>,
}

struct Sessions {
    next: AtomicU64,
    known: Mutex<VecDeque<u64>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> u64 {
        // Numbers start at a random point, so that one from before a restart is not known by chance.
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let mut known = self.lock();
        known.push_back(session);
        if known.len() > SESSIONS {
            known.pop_front();
        }
        session
    }

    fn check(&self, session: u64) -> Result<(), Status> {
        if self.lock().contains(&session) {
            return Ok(());
        }
        Err(Status::unauthenticated("say Hello first"))
    }
}

impl RaftService {
    pub(crate) fn new(core: Weak<Core>, first_session: u64) -> Self {
        let sessions = Sessions { next: AtomicU64::new(first_session), known: Mutex::default() };
        Self { core, sessions: Arc::new(sessions), receiving: Arc::default() }
    }

    /// Refused like an unknown session, which tells the caller that nothing was read.
    fn core(&self) -> Result<Arc<Core>, Status> {
        self.core.upgrade().ok_or_else(|| Status::unauthenticated("this node has stopped"))
    }

    fn open<T: DeserializeOwned>(&self, message: &Message) -> Result<T, Status> {
        self.sessions.check(message.session)?;
        history::decode(&message.payload).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Writes a stream of chunks to a file of its own and installs it.
    async fn receive(&self, mut chunks: Streaming<SnapshotChunk>) -> Result<SnapshotVote, Status> {
        let first = next(&mut chunks).await?.ok_or_else(|| Status::invalid_argument("no chunk"))?;
        self.sessions.check(first.session)?;
        let header: SnapshotVote =
            history::decode(&first.header).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Ok(_one) = self.receiving.try_lock() else {
            return Err(Status::resource_exhausted("another snapshot is arriving"));
        };
        let core = self.core()?;
        let unfinished = core.snapshots.begin().map_err(full)?;
        let mut size = 0;
        while let Some(chunk) = next(&mut chunks).await? {
            let at = size;
            size += chunk.data.len() as u64;
            if size > MAX_BYTES {
                return Err(Status::invalid_argument("the snapshot is too large"));
            }
            let file = Arc::clone(&unfinished.file);
            blocking(move || file.write_at(&chunk.data, at)).await?.map_err(full)?;
        }
        let snapshot =
            blocking(move || Snapshots::verify(unfinished)).await?.map_err(Status::invalid_argument)?;
        Self::install(&core, header, snapshot).await
    }

    /// Openraft asserts what is checked here; a forged or foreign snapshot must not stop the node.
    async fn install(core: &Core, header: SnapshotVote, file: SnapshotFile) -> Result<SnapshotVote, Status> {
        let refuse = |why: &str| Status::invalid_argument(format!("snapshot refused: {why}"));
        let (head, vote) = (&file.head, header.vote);
        if head.platform != core.platform {
            return Err(refuse("it is of another platform"));
        }
        if !vote.committed || (head.last.term, head.last.node) > (vote.term, vote.node) {
            return Err(refuse("it is newer than its leader"));
        }
        if head.membership_at.is_none_or(|at| at.index > head.last.index)
            || head.membership.configs.is_empty()
        {
            return Err(refuse("it has no membership"));
        }
        if let Some(committed) = core.committed()
            && (head.last.term, head.last.node) > (committed.term, committed.node)
            && head.last.index <= committed.index
        {
            return Err(refuse("it contradicts what is committed here"));
        }
        let meta = machine::meta(head).map_err(|error| refuse(&error.to_string()))?;
        let snapshot = openraft::Snapshot { meta, snapshot: file };
        let answer = core
            .raft
            .install_full_snapshot(convert::to_vote(vote), snapshot)
            .await
            .map_err(|error| stopped(&error))?;
        Ok(SnapshotVote { vote: convert::vote(&answer.vote) })
    }
}

#[tonic::async_trait]
impl RaftRpc for RaftService {
    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloReply> {
        let core = self.core()?;
        let hello = request.into_inner();
        if hello.platform != core.platform {
            return Err(Status::permission_denied("this node is of another platform"));
        }
        if hello.target != core.id || hello.node == core.id {
            return Err(Status::failed_precondition(format!("this is node {}", core.id)));
        }
        if hello.protocol_min > PROTOCOL_MAX || hello.protocol_max < PROTOCOL_MIN {
            let text = format!("protocols {PROTOCOL_MIN} to {PROTOCOL_MAX} are spoken here");
            return Err(Status::failed_precondition(text));
        }
        let protocol = hello.protocol_max.min(PROTOCOL_MAX);
        Ok(Response::new(HelloReply { protocol, features: Vec::new(), session: self.sessions.open() }))
    }

    async fn append(&self, request: Request<Message>) -> Answer<Message> {
        let core = self.core()?;
        let message: AppendMessage = self.open(request.get_ref())?;
        core.heard.note();
        let bytes: u64 = message.entries.iter().map(|entry| size(&entry.body)).sum();
        if bytes > 0 && !core.log.admits(bytes) {
            return Err(Status::resource_exhausted("disk full"));
        }
        let append =
            convert::to_append(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = within(core.timings.append(), core.raft.append_entries(append)).await?;
        reply(&convert::append_answer(&answer))
    }

    async fn vote(&self, request: Request<Message>) -> Answer<Message> {
        let core = self.core()?;
        let message: VoteMessage = self.open(request.get_ref())?;
        let (vote, limit) = (convert::to_vote_request(&message), core.timings.append());
        let answer = if message.pre {
            within(limit, core.raft.pre_vote(vote)).await?
        } else {
            within(limit, core.raft.vote(vote)).await?
        };
        reply(&convert::vote_answer(&answer))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Answer<Message> {
        let core = self.core()?;
        let receive = self.receive(request.into_inner());
        let answer = timeout(core.timings.snapshot, receive)
            .await
            .map_err(|_| Status::deadline_exceeded("the snapshot took too long"))??;
        reply(&answer)
    }

    async fn transfer_leader(&self, request: Request<Message>) -> Answer<Message> {
        let core = self.core()?;
        let message: TransferMessage = self.open(request.get_ref())?;
        let transfer = TransferLeaderRequest::new(
            convert::to_vote(message.from),
            message.to,
            message.last.map(convert::to_log_id),
        );
        let answer = within(core.timings.append(), core.raft.handle_transfer_leader(transfer)).await?;
        reply(&TransferAnswer { accepted: answer.is_ok() })
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Answer<ProposeReply> {
        let core = self.core()?;
        let request = request.into_inner();
        self.sessions.check(request.session)?;
        let wait = Duration::from_millis(request.wait_ms.into()).min(FORWARD_LIMIT);
        let outcome = match core.propose_here(request.payload, wait).await {
            Ok(applied) => {
                propose_reply::Outcome::Applied(Applied { index: applied.index, reply: applied.reply.into() })
            }
            Err(ProposeRefusal::NotLeader(leader)) => {
                propose_reply::Outcome::NotLeader(NotLeader { leader: leader.unwrap_or(0) })
            }
            Err(ProposeRefusal::Unknown) => propose_reply::Outcome::Unknown(true),
            Err(ProposeRefusal::DiskFull) => propose_reply::Outcome::DiskFull(true),
            Err(ProposeRefusal::TooLarge) => propose_reply::Outcome::TooLarge(true),
            Err(ProposeRefusal::Stopped) => return Err(Status::unavailable("this node has stopped")),
        };
        Ok(Response::new(ProposeReply { outcome: Some(outcome) }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Answer<ReadIndexReply> {
        let core = self.core()?;
        let request = request.into_inner();
        self.sessions.check(request.session)?;
        let wait = Duration::from_millis(request.wait_ms.into()).min(FORWARD_LIMIT);
        let outcome = match core.read_index_here(wait).await {
            Ok(index) => read_index_reply::Outcome::Index(index),
            Err(ReadRefusal::NotLeader(leader)) => {
                read_index_reply::Outcome::NotLeader(NotLeader { leader: leader.unwrap_or(0) })
            }
            Err(ReadRefusal::NoQuorum) => read_index_reply::Outcome::NoQuorum(true),
            Err(ReadRefusal::Stopped) => return Err(Status::unavailable("this node has stopped")),
        };
        Ok(Response::new(ReadIndexReply { outcome: Some(outcome) }))
    }
}

fn size(body: &WireBody) -> u64 {
    match body {
        WireBody::Normal { payload, .. } => 64 + payload.0.len() as u64,
        // Membership and a leader's first entry may use the reserve.
        WireBody::Blank | WireBody::Membership(_) => 0,
    }
}

async fn next(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    timeout(CHUNK_LIMIT, chunks.message()).await.map_err(|_| Status::deadline_exceeded("no chunk in time"))?
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

async fn within<T, E: std::fmt::Display>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Status> {
    match timeout(limit, work).await {
        Ok(result) => result.map_err(|error| stopped(&error)),
        Err(_) => Err(Status::deadline_exceeded("not done in time")),
    }
}

fn stopped(error: &impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn full(error: std::io::Error) -> Status {
    Status::resource_exhausted(format!("snapshot: {error}"))
}

fn reply<T: Serialize>(answer: &T) -> Answer<Message> {
    let payload = history::encode(answer).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(Message { session: 0, payload: payload.into() }))
}
