//! Sends what openraft asks for to one peer. Must put a deadline on everything.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_proto::raft::{Message, SnapshotChunk};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use crate::config::Timings;
use crate::convert;
use crate::history::{self, AppendAnswer, SnapshotVote, TransferAnswer, TransferMessage, VoteAnswer};
use crate::net::peer::{CallError, Lane, Link, Peers};
use crate::snapshot::SnapshotFile;
use crate::types::{Address, Node, NodeId, Types, Vote};

/// Bytes of a snapshot per message.
const CHUNK: u64 = 1 << 20;

/// Hands out clients; all of one peer share its connections.
pub(crate) struct Network {
    peers: Arc<Peers>,
    timings: Timings,
}

impl Network {
    pub fn new(peers: Arc<Peers>, timings: Timings) -> Self {
        Self { peers, timings }
    }

    fn client(&self, id: NodeId, address: &Address, append: Lane, limit: Duration) -> Client {
        Client {
            peers: Arc::clone(&self.peers),
            node: address.node(id),
            append,
            limit,
            timings: self.timings,
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Address) -> Client {
        self.client(target, node, Lane::Log, self.timings.append())
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Address) -> Client {
        self.client(target, node, Lane::Beat, self.timings.heartbeat)
    }
}

pub(crate) struct Client {
    peers: Arc<Peers>,
    node: Node,
    /// Lane and deadline of appends; heartbeats are appends on a lane of their own.
    append: Lane,
    limit: Duration,
    timings: Timings,
}

type Failed = RPCError<Types>;

impl Client {
    /// One unary call with our own encoding on both sides.
    async fn exchange<Q, A, F>(
        &self,
        lane: Lane,
        limit: Duration,
        question: &Q,
        send: impl Fn(Link, Message) -> F,
    ) -> Result<A, Failed>
    where
        Q: Serialize,
        A: DeserializeOwned,
        F: Future<Output = Result<Response<Message>, Status>> + Send,
    {
        let payload = bytes::Bytes::from(history::encode(question).map_err(|error| network(&error))?);
        let peer = self.peers.get(&self.node, lane);
        let answer = peer
            .call(limit, |link| {
                let message = Message { session: link.session, payload: payload.clone() };
                send(link, message)
            })
            .await
            .map_err(failed)?;
        history::decode(&answer.into_inner().payload).map_err(|error| network(&error))
    }
}

fn network(error: &(impl std::error::Error + 'static)) -> Failed {
    RPCError::Network(NetworkError::new(error))
}

/// A peer that is away or full is left alone for a moment, anything else is repeated at once.
fn failed(error: CallError) -> Failed {
    match error {
        CallError::Unreachable(_) | CallError::Failed(_) => RPCError::Unreachable(Unreachable::new(&error)),
        CallError::Timeout => network(&error),
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failed> {
        let message = convert::append(&request);
        let answer: AppendAnswer = self
            .exchange(self.append, self.limit, &message, |mut link, message| async move {
                link.client.append(message).await
            })
            .await?;
        Ok(convert::to_append_answer(answer))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        self.ask_vote(&request, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        self.ask_vote(&request, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let send = self.send_snapshot(vote, snapshot.snapshot);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Types>, Failed> {
        let message = TransferMessage {
            from: convert::vote(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(convert::log_id),
        };
        let answer: TransferAnswer = self
            .exchange(Lane::Beat, option.hard_ttl(), &message, |mut link, message| async move {
                link.client.transfer_leader(message).await
            })
            .await?;
        if !answer.accepted {
            tracing::info!(node = self.node.id, "the leadership was declined");
        }
        Ok(Ok(()))
    }
}

impl Client {
    async fn ask_vote(
        &self,
        request: &VoteRequest<Types>,
        pre: bool,
        limit: Duration,
    ) -> Result<VoteResponse<Types>, Failed> {
        let message = convert::vote_message(request, pre);
        let answer: VoteAnswer = self
            .exchange(Lane::Beat, limit, &message, |mut link, message| async move {
                link.client.vote(message).await
            })
            .await?;
        Ok(convert::to_vote_answer(&answer))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotFile,
    ) -> Result<SnapshotResponse<Types>, Failed> {
        let header = history::encode(&SnapshotVote { vote: convert::vote(&vote) });
        let header = bytes::Bytes::from(header.map_err(|error| network(&error))?);
        let size = snapshot.file.size().map_err(|error| network(&error))?;
        let peer = self.peers.get(&self.node, Lane::Bulk);
        let answer = peer
            .call(self.timings.snapshot, |mut link| {
                let first = SnapshotChunk {
                    session: link.session,
                    header: header.clone(),
                    data: bytes::Bytes::new(),
                };
                let chunks = chunks(snapshot.clone(), size);
                async move {
                    let stream = futures::stream::once(async { first }).chain(chunks);
                    link.client.snapshot(Request::new(stream)).await
                }
            })
            .await
            .map_err(failed)?;
        let answer: SnapshotVote =
            history::decode(&answer.into_inner().payload).map_err(|error| network(&error))?;
        Ok(SnapshotResponse::new(convert::to_vote(answer.vote)))
    }
}

/// The file in pieces. A read that fails ends the stream early, which the receiver's checksum finds.
fn chunks(snapshot: SnapshotFile, size: u64) -> impl futures::Stream<Item = SnapshotChunk> + Send {
    futures::stream::unfold(0, move |at| {
        let file = Arc::clone(&snapshot.file);
        async move {
            if at >= size {
                return None;
            }
            let length = CHUNK.min(size - at);
            let read = tokio::task::spawn_blocking(move || {
                let mut data = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
                file.read_at(&mut data, at).map(|()| data)
            });
            match read.await {
                Ok(Ok(data)) => {
                    let chunk = SnapshotChunk { session: 0, header: bytes::Bytes::new(), data: data.into() };
                    Some((chunk, at + length))
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "a snapshot cannot be read");
                    None
                }
                Err(_) => None,
            }
        }
    })
}
