//! One coordinator's part in the Raft group: starting, proposing, reading, stopping. This is the
//! whole interface of the crate; nothing of openraft is visible through it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_proto::raft::raft_server::RaftServer;
use muster_proto::raft::{ProposeRequest, ReadIndexRequest, propose_reply, read_index_reply};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::{Clock, Config};
use crate::error::{ProposeError, ReadError, StartError};
use crate::identity::Identity;
use crate::leadership::{self, Leadership};
use crate::log::{self, LogStore, Sizes};
use crate::machine::Machine;
use crate::net::{CallError, Dialer, Lane, Network, Peers, RaftService};
use crate::node::{Applied, Core, PAYLOAD_LIMIT, ProposeRefusal, Raft, ReadRefusal};
use crate::snapshot::Snapshots;
use crate::state_machine::StateMachine;
use crate::succession::{self, Heard};
use crate::types::{Node, NodeId};
use crate::upkeep;

/// Between two tries while no leader is known.
const RETRY: Duration = Duration::from_millis(30);

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) core: Arc<Core>,
    peers: Arc<Peers>,
    service: RaftService,
    pub(crate) leadership: watch::Receiver<Leadership>,
    failure: watch::Receiver<Option<String>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Consensus {
    /// Recovers the node from its disk, or makes a new one there. It takes no part in anything until
    /// its service is served and, on the first node of a platform, [`Consensus::initialize`] is called.
    ///
    /// # Errors
    /// Refuses a corrupt log, a directory of another node, and an empty one where a log must be.
    pub async fn start(
        config: Config,
        state: Box<dyn StateMachine>,
        dialer: Arc<dyn Dialer>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        Self::start_with(config, state, dialer, clock, Sizes::default()).await
    }

    pub(crate) async fn start_with(
        config: Config,
        state: Box<dyn StateMachine>,
        dialer: Arc<dyn Dialer>,
        clock: Clock,
        sizes: Sizes,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(config.raft()?);
        let (failed, failure) = watch::channel(None);
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening, sizes)).await;
        let (memory, writer, snapshots) = opened.map_err(|error| StartError::Raft(error.to_string()))??;
        let log = LogStore::start(memory, writer, sizes, failed.clone())?;
        let (applied_at, applied) = watch::channel(0);
        let machine = Machine::new(config.platform.clone(), state, Arc::clone(&snapshots), applied_at);
        let peers = Arc::new(Peers::new(config.node_id, config.platform.clone(), dialer, config.timings));
        let network = Network::new(Arc::clone(&peers), config.timings);
        let raft = Raft::new(config.node_id, raft_config, network, log.clone(), machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let core = Arc::new(Core {
            id: config.node_id,
            platform: config.platform,
            timings: config.timings,
            raft,
            log,
            snapshots,
            applied,
            clock,
            heard: Heard::now(),
        });
        let first_session = u64::from_be_bytes(random()?);
        let service = RaftService::new(Arc::downgrade(&core), first_session);
        let (leader_at, leadership) = watch::channel(Leadership::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(leadership::follow(core.raft.clone(), leader_at, failed));
        tasks.spawn(upkeep::snapshots(core.raft.clone(), core.log.clone(), config.snapshots));
        let beat = config.timings.heartbeat;
        tasks.spawn(succession::watch(core.raft.clone(), core.heard.clone(), beat));
        let tasks = Arc::new(Mutex::new(tasks));
        Ok(Self { core, peers, service, leadership, failure, tasks })
    }

    /// The service that peers talk to. The caller mounts it where only coordinators get in.
    pub fn raft_service(&self) -> RaftServer<RaftService> {
        RaftServer::new(self.service.clone())
            .max_decoding_message_size(crate::net::MESSAGE_LIMIT)
            .max_encoding_message_size(crate::net::MESSAGE_LIMIT)
    }

    /// Commits and applies a payload, wherever the leader is.
    ///
    /// # Errors
    /// See [`ProposeError`]; only after `Unknown` may it still take effect.
    pub async fn propose(
        &self,
        payload: impl Into<Bytes>,
        within: Duration,
    ) -> Result<Applied, ProposeError> {
        let payload = payload.into();
        let deadline = Instant::now() + within;
        loop {
            let refusal = match self.propose_once(&payload, deadline).await {
                Ok(applied) => return Ok(applied),
                Err(refusal) => refusal,
            };
            match refusal {
                ProposeRefusal::NotLeader(_) => self.pause(deadline).await.ok_or(ProposeError::NoLeader)?,
                ProposeRefusal::Unknown => return Err(ProposeError::Unknown),
                ProposeRefusal::DiskFull => return Err(ProposeError::DiskFull),
                ProposeRefusal::TooLarge => return Err(ProposeError::TooLarge { limit: PAYLOAD_LIMIT }),
                ProposeRefusal::Stopped => return Err(ProposeError::Stopped),
            }
        }
    }

    async fn propose_once(&self, payload: &Bytes, deadline: Instant) -> Result<Applied, ProposeRefusal> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let leader = match self.core.propose_here(payload.clone(), wait).await {
            Err(ProposeRefusal::NotLeader(Some(leader))) if leader != self.core.id => leader,
            other => return other,
        };
        let node = self.node(leader).ok_or(ProposeRefusal::NotLeader(None))?;
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let peer = self.peers.get(&node, Lane::Forward);
        let call = peer.call(wait, |mut link| {
            let request = ProposeRequest { session: link.session, payload: payload.clone(), wait_ms };
            async move { link.client.propose(request).await }
        });
        let reply = tokio::select! {
            reply = call => reply,
            // A host that went dark answers nothing: do not wait for it longer than for its successor.
            () = self.deposed(leader) => Err(CallError::Timeout),
        };
        match reply {
            Err(CallError::Unreachable(_)) => Err(ProposeRefusal::NotLeader(None)),
            Err(CallError::Failed(_) | CallError::Timeout) => Err(ProposeRefusal::Unknown),
            Ok(reply) => match reply.into_inner().outcome {
                Some(propose_reply::Outcome::Applied(applied)) => {
                    Ok(Applied { index: applied.index, reply: applied.reply.into() })
                }
                Some(propose_reply::Outcome::NotLeader(_)) => Err(ProposeRefusal::NotLeader(None)),
                Some(propose_reply::Outcome::DiskFull(_)) => Err(ProposeRefusal::DiskFull),
                Some(propose_reply::Outcome::TooLarge(_)) => Err(ProposeRefusal::TooLarge),
                Some(propose_reply::Outcome::Unknown(_)) | None => Err(ProposeRefusal::Unknown),
            },
        }
    }

    /// After this returns, the state on this node reflects everything acknowledged anywhere before
    /// the call. Returns the index that was confirmed; at least that much is applied here.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn linearizable(&self, within: Duration) -> Result<u64, ReadError> {
        let deadline = Instant::now() + within;
        loop {
            match self.read_index(deadline).await {
                Ok(index) if self.core.wait_applied(index, deadline).await => return Ok(index),
                Ok(index) => return Err(ReadError::Behind { index }),
                Err(ReadRefusal::Stopped) => return Err(ReadError::Stopped),
                Err(ReadRefusal::NotLeader(_) | ReadRefusal::NoQuorum) => {
                    self.pause(deadline).await.ok_or(ReadError::NoLeader)?;
                }
            }
        }
    }

    async fn read_index(&self, deadline: Instant) -> Result<u64, ReadRefusal> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let leader = match self.core.read_index_here(wait).await {
            Err(ReadRefusal::NotLeader(Some(leader))) if leader != self.core.id => leader,
            other => return other,
        };
        let node = self.node(leader).ok_or(ReadRefusal::NotLeader(None))?;
        // A dead leader must not use up the whole deadline: the next one can be asked again.
        let limit = wait.min(self.core.timings.election_max);
        let wait_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let peer = self.peers.get(&node, Lane::Forward);
        let reply = peer
            .call(limit, |mut link| {
                let request = ReadIndexRequest { session: link.session, wait_ms };
                async move { link.client.read_index(request).await }
            })
            .await;
        match reply.map(|reply| reply.into_inner().outcome) {
            Ok(Some(read_index_reply::Outcome::Index(index))) => Ok(index),
            Ok(Some(read_index_reply::Outcome::NoQuorum(_))) => Err(ReadRefusal::NoQuorum),
            Ok(Some(read_index_reply::Outcome::NotLeader(_)) | None) | Err(_) => {
                Err(ReadRefusal::NotLeader(None))
            }
        }
    }

    /// Waits until this leader is none any more, and as long again as its last answers may take.
    async fn deposed(&self, leader: NodeId) {
        let mut leadership = self.leadership.clone();
        // An error means that this node stops, which ends the wait as well.
        drop(leadership.wait_for(|now| now.leader != Some(leader)).await);
        tokio::time::sleep(self.core.timings.heartbeat).await;
    }

    /// Waits a moment for another leader; `None` when the deadline is over.
    async fn pause(&self, deadline: Instant) -> Option<()> {
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        let moment = deadline.min(Instant::now() + RETRY);
        // Either a change or the end of the moment.
        drop(timeout_at(moment, leadership.changed()).await);
        (Instant::now() < deadline).then_some(())
    }

    /// The leader as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leadership.borrow().leader
    }

    /// Changes of the leadership, latest value only.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Index of the last applied entry, for those who act after every change.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.core.applied.clone()
    }

    /// Resolves, with the reason, only when the disk or Raft itself failed. The process should exit
    /// then: what is in memory may not be on disk.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // All senders are gone after an orderly stop, which is no failure.
            Err(_) => std::future::pending().await,
        }
    }

    /// Hands leadership over if this node has it, then stops. Takes up to `within` for the former.
    pub async fn shutdown(&self, within: Duration) {
        if self.leadership.borrow().am_leader
            && let Err(error) = self.transfer_leader(None, within).await
        {
            tracing::warn!(%error, "leadership was not handed over");
        }
        self.halt().await;
    }

    /// Stops at once, as a crash would, but with all files closed.
    pub async fn halt(&self) {
        self.core.log.stop_waiting();
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop in order");
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.peers.close();
        self.core.log.close().await;
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<Node> {
        self.status().members.into_iter().map(|member| member.node).find(|node| node.id == id)
    }
}

/// Checks or creates what is on disk.
fn open(config: &Config, sizes: Sizes) -> Result<(log::Memory, log::Writer, Arc<Snapshots>), StartError> {
    let disk = &config.disk;
    let lost = || StartError::LogLost {
        node: config.node_id,
        platform: config.platform.clone(),
        dir: disk.describe(""),
    };
    let identity = match Identity::load(&**disk)? {
        Some(identity) => identity,
        None if config.expect_existing => return Err(lost()),
        None => {
            log::wipe_unfinished(&**disk)?;
            let identity = Identity::new(&config.platform, config.node_id, random()?);
            log::create(&**disk, identity.log_id().unwrap_or_default(), sizes, &log::Memory::default())?;
            identity.store(&**disk)?;
            identity
        }
    };
    identity.check(&**disk, &config.platform, config.node_id)?;
    let log_id = identity.log_id().unwrap_or_default();
    let (memory, writer) = log::open(disk, log_id, sizes)?.ok_or_else(lost)?;
    let snapshots = Snapshots::open(Arc::clone(disk))?;
    // Read now, so that a damaged one is reported with its name.
    snapshots.newest()?;
    Ok((memory, writer, Arc::new(snapshots)))
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Io(std::io::Error::other(error)))?;
    Ok(bytes)
}
