//! Keeps the host's network and disk as they should be, beside the worker, so that neither waits for the other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use muster_model::network::HostNetwork;
use muster_runtime::tasks::TaskGroup;

use crate::disk::Disk;
use crate::network::engine::NetworkEngine;
use crate::network::{Network, Problem};
use crate::shared::{Shared, pause};

/// Between two looks: flushed rules are back well within 10 s.
const PERIOD: Duration = Duration::from_secs(5);
/// Longest time that one look may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Whatever brings the host's network to the plan.
pub trait NetworkKeeper: Send {
    /// Brings it there; what is wrong afterwards.
    fn ensure<'a>(&'a mut self, plan: &'a HostNetwork) -> BoxFuture<'a, Vec<Problem>>;
}

impl<E: NetworkEngine> NetworkKeeper for Network<E> {
    fn ensure<'a>(&'a mut self, plan: &'a HostNetwork) -> BoxFuture<'a, Vec<Problem>> {
        Box::pin(Self::ensure(self, plan))
    }
}

/// Runs until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn keep_network(
    shared: Arc<Shared>,
    mut keeper: Box<dyn NetworkKeeper>,
    group: TaskGroup,
) -> Result<(), Infallible> {
    let token = group.token();
    while !token.is_cancelled() {
        let plan = shared.state().host.plan().map(|plan| plan.network.clone());
        if let Some(plan) = plan {
            token.run_until_cancelled(ensure(&shared, keeper.as_mut(), plan)).await;
        }
        token.run_until_cancelled(pause(PERIOD, &shared.network_wake)).await;
    }
    Ok(())
}

async fn ensure(shared: &Shared, keeper: &mut dyn NetworkKeeper, plan: HostNetwork) {
    let Ok(problems) = tokio::time::timeout(LIMIT, keeper.ensure(&plan)).await else {
        tracing::warn!("the network could not be looked at in time");
        return;
    };
    let conditions = problems.iter().map(Problem::condition).collect();
    let news = {
        let mut state = shared.state();
        let now = Some((plan, problems));
        let news = state.network != now;
        state.network = now;
        news
    };
    shared.say("network", conditions);
    if news {
        shared.wake.notify_one();
    }
}

/// Watches the disk, runs until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn keep_disk(shared: Arc<Shared>, disk: Disk, group: TaskGroup) -> Result<(), Infallible> {
    let token = group.token();
    while !token.is_cancelled() {
        match tokio::task::block_in_place(|| disk.look()) {
            Ok(fill) => {
                let condition = disk.condition(fill);
                let mut state = shared.state();
                let changed = state.gates.disk_full != fill.full();
                state.gates.disk_full = fill.full();
                state.facts.disk_bytes = fill.bytes;
                state.facts.disk_free_percent = fill.free_percent();
                drop(state);
                shared.say("disk", condition.into_iter().collect());
                if changed {
                    shared.wake.notify_one();
                }
            }
            Err(error) => tracing::warn!(error, "the disk cannot be looked at"),
        }
        token.run_until_cancelled(tokio::time::sleep(PERIOD)).await;
    }
    Ok(())
}
