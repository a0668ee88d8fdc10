//! Dead-host reset: connections to members of a host that is down, and dark from where we stand, are refused and
//! destroyed, so that clients go on at once instead of waiting for a host that says nothing. Promotes nothing.

pub(crate) mod echo;
mod tracker;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use muster_model::ids::HostId;
use muster_model::observed::Condition;
use muster_runtime::tasks::TaskGroup;
use tokio::time::{MissedTickBehavior, interval};

pub use self::tracker::{DownHost, Tracker};

use self::echo::Echo;
use crate::network::dead;
use crate::shared::Shared;

/// Between two questions to each host.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Refusals in the kernel are renewed this often; they end there by themselves when this agent is gone.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Asks, judges and resets until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn run(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    group.token().run_until_cancelled(keep(&shared)).await;
    Ok(())
}

async fn keep(shared: &Shared) {
    loop {
        let ended = match Echo::open() {
            Ok(echo) => watch(shared, echo).await,
            Err(error) => error,
        };
        shared.resets().asked_nobody();
        tracing::warn!(error = %ended, "hosts cannot be asked for an echo; nothing is reset");
        let text =
            format!("hosts cannot be asked for an echo ({ended}): no connection to a dark host is reset");
        shared.say("reset", vec![Condition { code: "no-echo".to_owned(), text }]);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Works until the socket fails; says how.
async fn watch(shared: &Shared, mut echo: Echo) -> std::io::Error {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kernel = Kernel::default();
    let mut peers = BTreeMap::new();
    loop {
        tokio::select! {
            answer = echo.answer() => match answer {
                Ok((address, _)) => {
                    if let Some(host) = peers.get(&address) {
                        shared.resets().answer(host, shared.clock.now());
                    }
                    continue;
                }
                Err(error) => return error,
            },
            _ = ticks.tick() => {
                peers = addresses(shared);
                let hosts: BTreeSet<HostId> = peers.values().cloned().collect();
                shared.resets().asking(&hosts, shared.clock.now());
                for address in peers.keys() {
                    if let Err(error) = echo.ask(*address).await {
                        return error;
                    }
                }
            }
            () = shared.down_wake.notified() => {}
        }
        let now = shared.clock.now();
        let (wanted, conditions) = {
            let resets = shared.resets();
            (resets.reset(now), resets.conditions(now))
        };
        shared.say("reset", conditions);
        kernel.bring_to(shared, wanted).await;
    }
}

/// The other hosts by their address in the mesh.
fn addresses(shared: &Shared) -> BTreeMap<Ipv4Addr, HostId> {
    let state = shared.state();
    let mesh = state.host.plan().and_then(|plan| plan.network.mesh.as_ref());
    mesh.into_iter().flat_map(|mesh| &mesh.peers).map(|peer| (peer.address, peer.host.clone())).collect()
}

/// What the kernel was told to refuse.
#[derive(Default)]
struct Kernel {
    refused: Option<BTreeSet<Ipv4Addr>>,
    told: Option<tokio::time::Instant>,
}

impl Kernel {
    /// Safety of this order: refused first, destroyed afterwards; otherwise clients connect again into the dark.
    async fn bring_to(&mut self, shared: &Shared, wanted: BTreeSet<Ipv4Addr>) {
        let same = self.refused.as_ref() == Some(&wanted);
        let fresh = wanted.is_empty() || self.told.is_some_and(|told| told.elapsed() < RENEW_EVERY);
        if same && fresh {
            return;
        }
        if let Err(error) = dead::refuse(&wanted).await {
            tracing::error!(%error, "connections to dark hosts cannot be refused");
            self.refused = None;
            return;
        }
        self.told = Some(tokio::time::Instant::now());
        let before = self.refused.replace(wanted.clone()).unwrap_or_default();
        let new: Vec<Ipv4Addr> = wanted.difference(&before).copied().collect();
        if !new.is_empty() {
            tracing::warn!(addresses = ?new, "dark: connections are refused and destroyed");
            destroy(shared, &new).await;
        }
        if before.difference(&wanted).next().is_some() {
            tracing::info!(addresses = ?wanted, "refusals lifted; these stay");
        }
    }
}

/// Destroys connections to these addresses inside every member of this host.
async fn destroy(shared: &Shared, addresses: &[Ipv4Addr]) {
    let containers: Vec<String> = {
        let state = shared.state();
        state.seen.iter().filter(|seen| seen.running()).map(|seen| seen.id.clone()).collect()
    };
    let inside = containers.iter().map(async |container| {
        let process = shared.runtime.first_process(container).await.map_err(|error| error.to_string())?;
        dead::destroy(process, addresses).await.map_err(|error| error.to_string())
    });
    for result in futures::future::join_all(inside).await {
        if let Err(error) = result {
            tracing::warn!(error, "connections to dark hosts stay open inside a member until it uses them");
        }
    }
}
