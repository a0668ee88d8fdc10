//! The life of a running coordinator: read the log, serve, lead when elected, hand over, end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use muster_consensus::{Config, Consensus, Node, OsDisk, SnapshotPolicy, Timings};
use muster_core::command::{Command, Rejected, What};
use muster_proto::agents::agents_server::AgentsServer;
use muster_proto::control::control_server::ControlServer;
use muster_proto::identity::identity_server::IdentityServer;
use muster_runtime::access::Access;
use muster_runtime::audit::Audit;
use muster_runtime::clock::{SharedClock, SystemClock};
use muster_runtime::net::Listener;
use muster_runtime::rpc::MESSAGE_MAX;
use muster_runtime::server::{self, Limits};
use muster_runtime::tasks::{OnError, TaskGroup, termination};
use muster_runtime::tls::Tls;
use tonic::service::Routes;

use crate::authority::{Authority, CA_KEY, record};
use crate::dialer::TlsDialer;
use crate::home::{Home, NodeFile};
use crate::leader::{Heard, Leader};
use crate::proposer::{ChangeError, Proposer};
use crate::pushes::Pushes;
use crate::refusals::RefusalLog;
use crate::replica::Replica;
use crate::revoked::Revoked;
use crate::rpc::agents::AgentSessions;
use crate::rpc::control::Controls;
use crate::rpc::identity::Identities;
use crate::sessions::Sessions;
use crate::standing::Lost;
use crate::{admin, renew, saved, standing, table};
use muster_runtime::spool::Spool;

/// How long the handover of leadership may take.
const HANDOVER: Duration = Duration::from_secs(3);
/// Between two looks at archives of images that may be over.
const SWEEP: Duration = Duration::from_secs(2);
/// How long tasks may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything a running coordinator is made of; cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// Raft.
    pub consensus: Consensus,
    /// The state.
    pub replica: Replica,
    /// Changes.
    pub proposer: Proposer,
    /// CA and secrets.
    pub authority: Authority,
    /// Connected agents.
    pub sessions: Sessions,
    /// Images on their way to hosts.
    pub pushes: Pushes,
    /// Their archives.
    pub spool: Spool,
    /// What this node heard of hosts while it leads.
    pub heard: Heard,
    /// Random text of this process.
    pub run: String,
    /// TLS, with the keys that are pinned.
    pub tls: Arc<Tls>,
    /// The time.
    pub clock: SharedClock,
    /// Tasks of the process.
    pub tasks: TaskGroup,
}

/// What `run` is told.
#[derive(Debug)]
pub struct Wish {
    /// Address to listen on; absent = all at the port that others use.
    pub listen: Option<SocketAddr>,
    /// Address at which others must know it; absent = not checked.
    pub advertise: Option<SocketAddr>,
    /// Snapshots that it keeps.
    pub snapshots: saved::Schedule,
}

/// Runs until SIGTERM, or until something without which it must not go on has failed.
///
/// # Errors
/// It cannot start, or failed; [`Final`] if it would again.
pub async fn run(home: &Home, wish: &Wish) -> Result<()> {
    let _lock = home.lock()?;
    let node = home.node()?;
    if let Some(why) = home.removed()? {
        return Err(Final(why).into());
    }
    if let Some(other) = wish.advertise.filter(|other| *other != node.advertise) {
        return Err(Final(format!(
            "this is coordinator {} at {}, which cannot become {other}: others know it by that address. Remove it and \
             join a new one with --advertise {other}: docs/tasks/coordinators.md",
            node.name, node.advertise
        ))
        .into());
    }
    let clock = SystemClock::shared();
    let tls = Arc::new(home.tls(&node, Arc::clone(&clock))?);
    standing::warn_of_foreign_address(&node);
    standing::refuse_double(home, &node, &tls).await.map_err(|error| Final(error.to_string()))?;
    let parts = start(home, &node, &tls, &clock).await?;
    let port = node.advertise.port();
    let listen = wish.listen.unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    serve(&parts, listen).await?;
    tracing::info!(%listen, node = node.node, platform = %node.platform, "serving");
    match home.bootstrap_ca()? {
        Some(ca) => form(home, &node, &parts, &ca).await?,
        // A removal may have been interrupted.
        None => home.end_bootstrap()?,
    }
    lead(&parts);
    admin::start(home, &parts)?;
    renew::start(home, &node, &parts);
    saved::start(home, &parts, wish.snapshots);
    sweep_images(&parts);
    wait_for_end(home, &node, &parts).await
}

/// Takes archives away once nobody needs them.
fn sweep_images(parts: &Parts) {
    let (parts, stop) = (parts.clone(), parts.tasks.token());
    let tasks = parts.tasks.clone();
    tasks.spawn("images", OnError::Log, async move {
        let mut tick = tokio::time::interval(SWEEP);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let (over, keep) = (parts.pushes.over(parts.clock.monotonic()), parts.pushes.under_way());
            let spool = parts.spool.clone();
            let swept = tokio::task::spawn_blocking(move || {
                over.iter().for_each(|sha256| spool.remove(sha256));
                spool.sweep(&keep);
            });
            swept.await.ok();
        }
        Ok::<(), std::convert::Infallible>(())
    });
}

/// An end after which a start would end in the same way: systemd does not try again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Final(String);

async fn start(home: &Home, node: &NodeFile, tls: &Arc<Tls>, clock: &SharedClock) -> Result<Parts> {
    let disk = OsDisk::open(&home.path("log")).context("opening the log")?;
    let config = Config {
        node_id: node.node,
        platform: node.group(),
        disk: Arc::new(disk),
        timings: timings(&node.timings)?,
        snapshots: SnapshotPolicy::default(),
        expect_existing: node.has_log,
    };
    let replica = Replica::default();
    let wall = Arc::clone(clock);
    let consensus = Consensus::start(
        config,
        Box::new(replica.clone()),
        Arc::new(TlsDialer(Arc::clone(tls))),
        Arc::new(move || wall.now_ms()),
    )
    .await?;
    if !node.has_log {
        home.store_node(&NodeFile { has_log: true, ..node.clone() })?;
    }
    let proposer = Proposer::new(consensus.clone());
    let seal = home.seal_key()?;
    let ca_pem = home.ca_pem()?;
    let authority = Authority::new(&ca_pem, seal, replica.clone(), proposer.clone(), Arc::clone(clock));
    Ok(Parts {
        consensus,
        replica,
        proposer,
        authority,
        sessions: Sessions::default(),
        pushes: Pushes::default(),
        spool: Spool::new(&home.path("images")),
        heard: Heard::default(),
        run: random_text()?,
        tls: Arc::clone(tls),
        clock: Arc::clone(clock),
        tasks: TaskGroup::new(),
    })
}

fn random_text() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(hex::encode(bytes))
}

fn timings(name: &str) -> Result<Timings> {
    match name {
        "lan" => Ok(Timings::LAN),
        "vps" => Ok(Timings::VPS),
        "wan" => Ok(Timings::WAN),
        other => bail!("timings `{other}` are not known: lan, vps or wan"),
    }
}

async fn serve(parts: &Parts, listen: SocketAddr) -> Result<()> {
    let listener = Listener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    let refusals = Arc::new(RefusalLog::start(&parts.tasks, parts.proposer.clone()));
    let access = Access {
        table: table::table()?,
        revocations: Arc::new(Revoked(parts.replica.clone())),
        pins: Arc::clone(parts.tls.pins()),
        clock: Arc::clone(&parts.clock),
        audit: Arc::clone(&refusals) as Arc<dyn Audit>,
    };
    let identities = Identities {
        consensus: parts.consensus.clone(),
        replica: parts.replica.clone(),
        proposer: parts.proposer.clone(),
        authority: parts.authority.clone(),
        audit: refusals,
        run: parts.run.clone(),
    };
    let agents = AgentSessions {
        consensus: parts.consensus.clone(),
        replica: parts.replica.clone(),
        sessions: parts.sessions.clone(),
        pushes: parts.pushes.clone(),
        spool: parts.spool.clone(),
        clock: Arc::clone(&parts.clock),
        tasks: parts.tasks.clone(),
    };
    let control = ControlServer::new(Controls::new(parts.clone()));
    let routes = Routes::new(parts.consensus.raft_service())
        .add_service(IdentityServer::new(identities).max_decoding_message_size(256 * 1024))
        .add_service(AgentsServer::new(agents).max_decoding_message_size(MESSAGE_MAX))
        .add_service(control.max_decoding_message_size(1024 * 1024));
    server::start(
        &parts.tasks,
        listener,
        parts.tls.server_config()?,
        Arc::new(access),
        Limits::default(),
        routes,
    );
    Ok(())
}

/// The first run of a new platform: a group of one, the platform's row, the CA's key sealed in the log.
async fn form(home: &Home, node: &NodeFile, parts: &Parts, ca: &muster_runtime::ca::Ca) -> Result<()> {
    let key = home.key()?.digest().to_string();
    let first = Node { id: node.node, endpoint: node.advertise.to_string(), key };
    if let Err(error) = parts.consensus.initialize(first).await {
        // A first run that was interrupted: the group exists, the rest may be missing.
        tracing::info!(%error, "the group exists already");
    }
    let init = What::Init { id: node.platform_id.clone(), name: node.platform.clone() };
    once(&parts.proposer, init).await?;
    for certificate in &home.first_certificates()? {
        once(&parts.proposer, record(certificate)).await?;
    }
    if !parts.replica.state().secrets.contains_key(CA_KEY) {
        once(&parts.proposer, parts.authority.seal(CA_KEY, ca.key_pem().expose().as_bytes())?).await?;
    }
    home.end_bootstrap()
}

/// A recorded one-shot: done already is as good as done now.
async fn once(proposer: &Proposer, what: What) -> Result<()> {
    match proposer.propose(&Command::from_actor("init", None, what)).await {
        Ok(_) | Err(ChangeError::Rejected(Rejected::Exists { .. } | Rejected::Stale { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that only a leader does lives inside [`Leader`] and ends with its leadership.
fn lead(parts: &Parts) {
    let (parts, stop) = (parts.clone(), parts.tasks.token());
    let tasks = parts.tasks.clone();
    tasks.spawn("lead", OnError::Shutdown, async move {
        let mut leadership = parts.consensus.watch_leadership();
        let duty = async {
            loop {
                if leadership.wait_for(|now| now.am_leader).await.is_err() {
                    return;
                }
                tracing::info!("this coordinator leads");
                let lost = async { drop(leadership.wait_for(|now| !now.am_leader).await) };
                Leader::new(parts.clone()).lead_until(lost).await;
                tracing::info!("this coordinator no longer leads");
            }
        };
        stop.run_until_cancelled(duty).await;
        Ok::<(), std::convert::Infallible>(())
    });
}

async fn wait_for_end(home: &Home, node: &NodeFile, parts: &Parts) -> Result<()> {
    let stop = parts.tasks.token();
    let failure = tokio::select! {
        ended = termination() => ended.err().map(anyhow::Error::from),
        reason = parts.consensus.failed() => Some(anyhow::Error::msg(reason)),
        () = stop.cancelled() => Some(anyhow::Error::msg("a task without which it cannot go on has failed")),
        lost = standing::lost(home, node, parts) => Some(end_of(home, lost)),
    };
    match failure {
        // In memory may be more than on disk: stop at once, hand nothing over.
        Some(reason) => {
            parts.consensus.halt().await;
            Err(reason)
        }
        None => {
            parts.consensus.shutdown(HANDOVER).await;
            Ok(parts.tasks.drain(DRAIN).await?)
        }
    }
}

fn end_of(home: &Home, lost: Lost) -> anyhow::Error {
    let why = match lost {
        Lost::Unfit(why) => why,
        Lost::Removed(why) => {
            if let Err(error) = home.mark_removed(&why) {
                tracing::error!(error = format!("{error:#}"), "the removal could not be written down");
            }
            why
        }
    };
    Final(why).into()
}
