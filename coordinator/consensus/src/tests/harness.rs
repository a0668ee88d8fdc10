//! Nodes in one process that talk over plain loopback TCP. Must not use more than the public API.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

use super::dark;
use crate::log::Sizes;
use crate::{
    Config, Consensus, DialError, Dialer, Disk, Encode, Node, NodeId, OsDisk, SnapshotPolicy, StartError,
    StateMachine, Timings,
};

pub const WAIT: Duration = Duration::from_secs(15);
pub const SIZES: Sizes = Sizes { segment: 4 << 20, reserve: 64 << 10 };
/// A new leader within 0.8 s, on a machine that is busy with other tests, too.
pub const FAST: Timings = Timings {
    heartbeat: Duration::from_millis(60),
    election_min: Duration::from_millis(200),
    election_max: Duration::from_millis(400),
    snapshot: Duration::from_secs(15),
};

/// Every payload in order with its time.
pub type Seen = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// Replies with how many payloads it has seen.
#[derive(Default)]
pub struct Notebook {
    pub seen: Seen,
}

impl StateMachine for Notebook {
    fn apply(&mut self, _index: u64, at_ms: u64, payload: &[u8]) -> Vec<u8> {
        let mut seen = self.seen.lock().unwrap();
        seen.push((at_ms, payload.to_vec()));
        seen.len().to_string().into_bytes()
    }

    fn snapshot(&self) -> Encode {
        let copy = self.seen.lock().unwrap().clone();
        Box::new(move || postcard::to_allocvec(&copy).unwrap())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        *self.seen.lock().unwrap() = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(())
    }
}

struct Plain {
    dark: watch::Receiver<bool>,
}

impl Dialer for Plain {
    fn dial(&self, node: &Node) -> Pin<Box<dyn Future<Output = Result<Channel, DialError>> + Send>> {
        let address = node.endpoint.clone();
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let dark = self.dark.clone();
        let connector = tower::service_fn(move |_| {
            let (address, dark) = (address.clone(), dark.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                Ok::<_, std::io::Error>(TokioIo::new(dark::Stream::new(stream, dark)))
            }
        });
        Box::pin(async move {
            let endpoint = endpoint.map_err(|error| DialError(error.to_string()))?;
            endpoint.connect_with_connector(connector).await.map_err(|error| DialError(error.to_string()))
        })
    }
}

pub fn dialer(dark: watch::Receiver<bool>) -> Arc<dyn Dialer> {
    Arc::new(Plain { dark })
}

/// A node and its server.
pub struct Running {
    pub node: Node,
    pub consensus: Consensus,
    pub seen: Seen,
    server: AbortHandle,
    dark: watch::Sender<bool>,
}

impl Running {
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(_, line)| String::from_utf8(line.clone()).unwrap()).collect()
    }

    /// Stalls every connection from and to the node; the node itself runs on.
    pub fn set_dark(&self, dark: bool) {
        self.dark.send_replace(dark);
    }

    /// Cuts the node off and stops it without handing anything over.
    pub async fn kill(self) {
        self.server.abort();
        self.consensus.halt().await;
    }
}

pub fn config(id: NodeId, disk: Arc<dyn Disk>, expect_existing: bool) -> Config {
    let snapshots = SnapshotPolicy {
        entries: 40,
        min_interval: Duration::ZERO,
        keep: 10,
        interval: Duration::from_secs(60),
        ..SnapshotPolicy::default()
    };
    Config { node_id: id, platform: "test".into(), disk, timings: FAST, snapshots, expect_existing }
}

pub async fn start_on(node: Node, disk: Arc<dyn Disk>, listener: TcpListener) -> Running {
    start(config(node.id, disk, false), node, listener).await.unwrap()
}

pub async fn start(config: Config, node: Node, listener: TcpListener) -> Result<Running, StartError> {
    let notebook = Notebook::default();
    let seen = Arc::clone(&notebook.seen);
    let clock = Arc::new(|| 1_000);
    let (dark, darkness) = watch::channel(false);
    let peers = dialer(darkness.clone());
    let consensus = Consensus::start_with(config, Box::new(notebook), peers, clock, SIZES).await?;
    let service = consensus.raft_service();
    let incoming = TcpListenerStream::new(listener).map_ok(move |s| dark::Stream::new(s, darkness.clone()));
    let serve = Server::builder().add_service(service).serve_with_incoming(incoming);
    let mut tasks = tokio::task::JoinSet::new();
    let server = tasks.spawn(async move { serve.await.unwrap() });
    tasks.detach_all();
    Ok(Running { node, consensus, seen, server, dark })
}

pub async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// An address of the loopback network that no other cluster of this process has. The port of a killed node is free
/// for anybody: a node of another test, with the same name and number and no certificates here, would answer for it.
fn own_address() -> Ipv4Addr {
    static CLUSTERS: AtomicU16 = AtomicU16::new(0);
    let [high, low] = CLUSTERS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1)
}

pub fn node_at(id: NodeId, address: SocketAddr) -> Node {
    Node { id, endpoint: address.to_string(), key: format!("key-{id}") }
}

/// Several nodes with directories of their own.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    address: Ipv4Addr,
    timings: Timings,
    pub nodes: BTreeMap<NodeId, Running>,
}

impl Cluster {
    /// One node that has initialised the platform, then the others joined and promoted.
    pub async fn of(count: u64) -> Self {
        Self::timed(count, FAST).await
    }

    /// The same with other times.
    pub async fn timed(count: u64, timings: Timings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, address: own_address(), timings, nodes: BTreeMap::new() };
        cluster.add(1).await;
        let first = &cluster.nodes[&1];
        first.consensus.initialize(first.node.clone()).await.unwrap();
        cluster.leader().await;
        for id in 2..=count {
            cluster.join(id).await;
        }
        cluster
    }

    pub fn path(&self, id: NodeId) -> std::path::PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Starts a node on a fresh port.
    pub async fn add(&mut self, id: NodeId) {
        let listener = TcpListener::bind((self.address, 0)).await.unwrap();
        let node = node_at(id, listener.local_addr().unwrap());
        let config = Config { timings: self.timings, ..config(id, disk(&self.path(id)), false) };
        let running = start(config, node, listener).await.unwrap();
        self.nodes.insert(id, running);
    }

    pub async fn join(&mut self, id: NodeId) {
        let leader = self.leader().await;
        self.add(id).await;
        let node = self.nodes[&id].node.clone();
        let leader = &self.nodes[&leader].consensus;
        leader.add_learner(node, WAIT).await.unwrap();
        leader.promote([id], WAIT).await.unwrap();
    }

    /// Starts a stopped node where it was.
    pub async fn restart(&mut self, node: Node) {
        let listener = TcpListener::bind(&node.endpoint).await.unwrap();
        let config = Config { timings: self.timings, ..config(node.id, disk(&self.path(node.id)), true) };
        let running = start(config, node.clone(), listener).await.unwrap();
        self.nodes.insert(node.id, running);
    }

    /// The one leader that all running nodes agree on.
    pub async fn leader(&self) -> NodeId {
        let deadline = Instant::now() + WAIT;
        loop {
            let seen: Vec<_> = self.nodes.values().map(|n| n.consensus.leader()).collect();
            if let Some(Some(leader)) = seen.first()
                && seen.iter().all(|other| *other == Some(*leader))
                && let Some(node) = self.nodes.get(leader)
                && node.consensus.watch_leadership().borrow().am_leader
            {
                return *leader;
            }
            assert!(Instant::now() < deadline, "no leader in time: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    pub async fn propose(&self, on: NodeId, line: &str) -> u64 {
        self.nodes[&on].consensus.propose(line.as_bytes().to_vec(), WAIT).await.unwrap().index
    }

    /// Every node has the same lines, after each of them has read linearizably.
    pub async fn same_lines(&self) -> Vec<String> {
        for node in self.nodes.values() {
            node.consensus.linearizable(WAIT).await.unwrap();
        }
        let all: Vec<_> = self.nodes.values().map(Running::lines).collect();
        assert!(all.iter().all(|lines| *lines == all[0]), "{all:?}");
        all[0].clone()
    }
}

/// Waits for a stopped node in this process, whose last snapshot may still be on its way to the disk.
pub fn disk(path: &Path) -> Arc<dyn Disk> {
    let deadline = Instant::now() + WAIT;
    loop {
        match OsDisk::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            opened => return Arc::new(opened.unwrap()),
        }
    }
}
