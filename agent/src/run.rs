//! `muster-agent run`: puts the parts together, runs them until a signal, ends them within a deadline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use muster_model::ids::BootId;
use muster_model::observed::HostFacts;
use muster_model::time::Millis;
use muster_runtime::clock::SystemClock;
use muster_runtime::state_dir::StateDir;
use muster_runtime::tasks::{OnError, TaskGroup, termination};

use crate::disk::Disk;
use crate::files::Files;
use crate::identity_dir::{IdentityDir, mesh_key, mesh_key_path};
use crate::images::{self, ImageKeeper};
use crate::keeper::{keep_disk, keep_network};
use crate::network::Network;
use crate::runtime::docker::DockerEngine;
use crate::shared::{Ours, Shared};
use crate::{fault, links, prober, renew, reset, session, worker};

/// Longest time for all tasks to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state directory.
    pub state: PathBuf,
    /// Rendered files, on a memory file system.
    pub files: PathBuf,
    /// Docker's socket.
    pub docker: String,
    /// Images that nothing has needed for so long are removed; zero = none.
    pub image_grace: Millis,
}

/// Runs until SIGTERM. Members go on running.
///
/// # Errors
/// The host has not joined, its state cannot be read, or a vital part failed.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let held = StateDir::open(&settings.state)?;
    let state = held.path();
    let dir = IdentityDir::new(state);
    ensure!(dir.exists(), "this host has not joined a platform: run `muster-agent join`");
    let clock = SystemClock::shared();
    let record = dir.record()?;
    let link = Arc::new(dir.link(Arc::clone(&clock))?);
    let docker = DockerEngine::new(&settings.docker);
    let files = Files::open(&settings.files).context("directory of rendered files")?;
    let ours = Ours {
        host: record.host.clone(),
        platform: record.platform_id.clone(),
        boot: BootId(random_text()?),
    };
    let shared = Shared::open(ours, state, files, Arc::clone(&docker) as _, Arc::clone(&clock))?;
    shared.refuse_gone.store(true, Ordering::Relaxed);
    shared.state().facts = facts(state)?;
    let images = ImageKeeper {
        shared: Arc::clone(&shared),
        link: Arc::clone(&link),
        engine: Arc::clone(&docker) as _,
        state: state.to_owned(),
        grace: settings.image_grace,
    };
    let network = Network::new(docker, shared.acting_platform(), mesh_key_path(state));
    let group = TaskGroup::new();
    let same = || Arc::clone(&shared);
    // The worker first: it needs no coordinator.
    group.spawn("worker", OnError::Shutdown, worker::run(same(), group.clone()));
    group.spawn("engine", OnError::Shutdown, worker::watch_engine(same(), group.clone()));
    group.spawn("network", OnError::Shutdown, keep_network(same(), Box::new(network), group.clone()));
    group.spawn("disk", OnError::Shutdown, keep_disk(same(), Disk::new(state), group.clone()));
    group.spawn("prober", OnError::Shutdown, prober::run(same(), group.clone()));
    group.spawn("faults", OnError::Shutdown, fault::run(same(), group.clone()));
    group.spawn("reset", OnError::Shutdown, reset::run(same(), group.clone()));
    group.spawn("session", OnError::Shutdown, session::run(same(), Arc::clone(&link), group.clone()));
    group.spawn("links", OnError::Log, links::run(same(), group.clone()));
    group.spawn("images", OnError::Log, images::run(images, group.clone()));
    group.spawn("renew", OnError::Shutdown, renew::run(link, clock, group.clone()));
    tracing::info!(host = %record.host, name = %record.name, platform = record.platform_name, "agent runs");
    let ended = group.token();
    tokio::select! {
        signal = termination() => signal?,
        () = ended.cancelled() => {}
    }
    tracing::info!("agent ends; members go on");
    group.drain(DRAIN).await?;
    Ok(())
}

fn facts(state: &Path) -> anyhow::Result<HostFacts> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = rustix::system::sysinfo();
    Ok(HostFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu_millis: u64::try_from(cores).unwrap_or(1) * 1000,
        memory_bytes: info.totalram * u64::from(info.mem_unit),
        mesh_key: mesh_key(state)?,
        ..HostFacts::default()
    })
}

fn random_text() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(hex::encode(bytes))
}
