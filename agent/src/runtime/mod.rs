//! What the agent needs of a container engine. Docker is named in `docker` only.

pub mod docker;
mod docker_body;
pub mod docker_facts;
mod docker_images;
pub mod docker_leftovers;
pub mod docker_networks;
#[cfg(test)]
pub mod fake;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use muster_model::ids::{Name, TaskId};
use muster_model::network::Protocol;
use muster_model::plan::{Limits, StopSpec, UserIds};

use crate::seen::Seen;

/// Label with the platform's id: the only thing that makes a container ours.
pub const LABEL_PLATFORM: &str = "muster.platform";

/// Why the engine did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No answer in time, or nobody listens: whether it was done is not known.
    #[error("the container engine does not answer: {0}")]
    NotAnswering(String),
    /// It answered no.
    #[error("{0}")]
    Refused(String),
    /// What was named is not there, or on its way out.
    #[error("{0}")]
    Gone(String),
}

/// A call to the engine; every one has a deadline.
pub type Call<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// A container to be made: complete, nothing is left to defaults that matter.
#[derive(Debug, Clone, PartialEq)]
pub struct NewContainer {
    /// Its name.
    pub name: String,
    /// `name:tag`, or `name@recipe` as the image's `muster.image` label says.
    pub image: String,
    /// Program and arguments; empty = the image's own.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Who runs inside.
    pub user: UserIds,
    /// Name inside.
    pub hostname: String,
    /// What of the host it sees.
    pub mounts: Vec<Bind>,
    /// Memory file systems: path and size in bytes.
    pub tmpfs: BTreeMap<String, u64>,
    /// Limits.
    pub limits: Limits,
    /// Capabilities added to none.
    pub capabilities: Vec<String>,
    /// Networks with fixed addresses; none = no network at all.
    pub addresses: Vec<(Name, Ipv4Addr)>,
    /// Published ports: inside, protocol, where on the host.
    pub ports: Vec<(u16, Protocol, SocketAddr)>,
    /// How it is stopped.
    pub stop: StopSpec,
}

/// A path of the host seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host; must exist.
    pub source: PathBuf,
    /// Inside.
    pub target: String,
    /// Cannot be written inside.
    pub read_only: bool,
}

/// How a program inside ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Exit code.
    pub code: i64,
    /// Beginning of what it wrote.
    pub output: Vec<u8>,
}

/// Something that others, or we, did to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The first process of a container, and with it all others, has ended. The engine says so before it has cleaned
    /// up, and answers no question about the container until then (measured: 0.5 s).
    Died {
        /// The engine's id.
        container: String,
        /// Exit code.
        code: i64,
    },
    /// A container, or its place in a network, or an image.
    Container,
    /// A network was removed.
    Network,
}

/// The container engine of this host.
pub trait ContainerRuntime: Send + Sync {
    /// Engine and API version, for people. Refused if the API is too old.
    fn version(&self) -> Call<'_, String>;
    /// Every container with this platform's label, one-shot ones excepted. Complete, or an error.
    fn list<'a>(&'a self, platform: &'a str) -> Call<'a, Vec<Seen>>;
    /// Tags of all images, and the `muster.image` labels of ours.
    fn images(&self) -> Call<'_, Vec<String>>;
    /// Makes a container; its id.
    fn create<'a>(&'a self, container: &'a NewContainer) -> Call<'a, String>;
    /// Starts it; started already is fine.
    fn start<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// Stops it and waits until it has; stopped already, or gone, is fine.
    fn stop<'a>(&'a self, id: &'a str, stop: &'a StopSpec) -> Call<'a, ()>;
    /// Sends a signal to its first process.
    fn signal<'a>(&'a self, id: &'a str, signal: &'a str) -> Call<'a, ()>;
    /// Number of its first process on the host.
    fn first_process<'a>(&'a self, id: &'a str) -> Call<'a, u32>;
    /// Takes a stopped container away; gone already is fine. Its volumes are no business of the engine.
    fn remove<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// Puts it into a network.
    fn attach<'a>(&'a self, id: &'a str, network: &'a Name, address: Ipv4Addr) -> Call<'a, ()>;
    /// Runs a program inside.
    fn exec<'a>(&'a self, id: &'a str, argv: &'a [String], deadline: Duration) -> Call<'a, Exited>;
    /// Makes a container, runs it to its end, takes it away.
    fn run_once<'a>(
        &'a self,
        container: &'a NewContainer,
        task: TaskId,
        deadline: Duration,
    ) -> Call<'a, Exited>;
    /// Takes away what interrupted [`Self::run_once`] calls left behind.
    fn sweep<'a>(&'a self, platform: &'a str) -> Call<'a, ()>;
    /// Its output: the last `tail` lines, then what follows.
    fn logs<'a>(&'a self, id: &'a str, tail: u32, follow: bool) -> BoxStream<'a, Result<Bytes, EngineError>>;
    /// What changed, as it changes; ends when the engine goes away.
    fn changes(&self) -> BoxStream<'_, Change>;
}
