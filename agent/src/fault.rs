//! Drills' faults that last: a container that stands still, a host that is as good as lost. This agent alone undoes them,
//! when their time is over, coordinator or not; they are in the ledger, so its own restart changes nothing.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_model::ids::MemberId;
use muster_model::plan::HostPlan;
use muster_model::time::{Millis, Timestamp};
use muster_runtime::tasks::TaskGroup;
use serde::{Deserialize, Serialize};

use crate::act::NotDone;
use crate::freezer;
use crate::network::dark;
use crate::shared::{Shared, pause};

/// Longest time that a fault may last, whatever it was asked for and whatever a clock says afterwards.
pub const LASTS_MAX: Millis = Millis(600_000);
/// The answer to the task goes out before the agent falls silent.
const SILENT_AFTER: Millis = Millis(1_000);
/// Between two looks; a fault outlasts its time by at most this much.
const LOOK: Duration = Duration::from_millis(500);

/// A fault under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting {
    /// When it began.
    pub since: Timestamp,
    /// When it is undone.
    pub until: Timestamp,
    /// What it is.
    pub what: What,
}

/// What a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All processes of a container stand still.
    Frozen {
        /// The switch that lets them go on.
        switch: PathBuf,
    },
    /// Nothing of this host answers: members are killed and cut off, the agent is silent.
    Dark,
}

impl Lasting {
    /// The agent says nothing.
    #[must_use]
    pub fn silences(&self, now: Timestamp) -> bool {
        self.what == What::Dark && now >= self.since.after(SILENT_AFTER) && now < self.until
    }
}

/// Freezes a member's container.
///
/// # Errors
/// It does not run, or cannot be frozen; then it is not.
pub async fn freeze(shared: &Shared, member: MemberId, lasts: Millis) -> Result<String, NotDone> {
    let failed = |error: String| NotDone::Failed(error);
    let container = shared.target(member).container.ok_or_else(|| failed("it does not run".to_owned()))?;
    let process =
        shared.runtime.first_process(&container).await.map_err(|error| failed(error.to_string()))?;
    let switch = freezer::switch(process).map_err(failed)?;
    begin(shared, lasts, What::Frozen { switch }).await
}

/// Kills and cuts off every member of this host.
///
/// # Errors
/// It could not be done as a whole; then it is undone.
pub async fn darken(shared: &Shared, lasts: Millis) -> Result<String, NotDone> {
    begin(shared, lasts, What::Dark).await
}

// Safety of this order: what is on disk is undone by the next agent too, so it is there before anything is done.
async fn begin(shared: &Shared, lasts: Millis, what: What) -> Result<String, NotDone> {
    let since = shared.clock.now();
    let fault = Lasting { since, until: since.after(Millis(lasts.0.min(LASTS_MAX.0))), what };
    shared.state().host.ledger.faults.push(fault.clone());
    if let Err(error) = shared.persist().await {
        forget(shared, &fault);
        return Err(NotDone::Failed(error));
    }
    tracing::warn!(?fault, "a drill's fault begins");
    let done = apply(shared, &fault).await;
    shared.fault_wake.notify_one();
    match done {
        Ok(()) => Ok("done".to_owned()),
        Err(error) => {
            // Undone at the next look, which is at once.
            for other in shared.state().host.ledger.faults.iter_mut().filter(|other| **other == fault) {
                other.until = since;
            }
            Err(NotDone::Failed(error))
        }
    }
}

async fn apply(shared: &Shared, fault: &Lasting) -> Result<(), String> {
    match &fault.what {
        What::Frozen { switch } => freezer::freeze(switch),
        What::Dark => {
            let plan = shared.state().host.plan().cloned().ok_or("there is no plan")?;
            shared.state().host.hold_all(fault.until);
            cut(&plan, fault.until.since(shared.clock.now())).await?;
            kill_all(shared).await
        }
    }
}

async fn cut(plan: &HostPlan, lasts: Millis) -> Result<(), String> {
    dark::cut(&plan.network, lasts).await.map_err(|error| error.to_string())
}

async fn kill_all(shared: &Shared) -> Result<(), String> {
    let running: Vec<String> = {
        let state = shared.state();
        state.seen.iter().filter(|container| container.running()).map(|c| c.id.clone()).collect()
    };
    let kills = running.iter().map(|container| shared.runtime.signal(container, "SIGKILL"));
    let results = futures::future::join_all(kills).await;
    results.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(error.to_string()))
}

/// Undoes faults when their time is over, until the group is cancelled.
///
/// # Errors
/// Never: what cannot be undone is tried again.
pub async fn run(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    let token = group.token();
    token.run_until_cancelled(again(&shared)).await;
    while !token.is_cancelled() {
        look(&shared).await;
        token.run_until_cancelled(pause(LOOK, &shared.fault_wake)).await;
    }
    Ok(())
}

/// What an earlier agent began goes on: the kernel may have been restarted since, or the rules flushed.
async fn again(shared: &Shared) {
    let (plan, faults) = {
        let state = shared.state();
        (state.host.plan().cloned(), state.host.ledger.faults.clone())
    };
    let now = shared.clock.now();
    for fault in faults.iter().filter(|fault| fault.what == What::Dark && fault.until > now) {
        if let Some(plan) = &plan
            && let Err(error) = cut(plan, fault.until.since(now)).await
        {
            tracing::error!(error, "a drill's fault cannot go on");
        }
    }
}

async fn look(shared: &Shared) {
    let now = shared.clock.now();
    let over: Vec<Lasting> = {
        let state = shared.state();
        state.host.ledger.faults.iter().filter(|fault| fault.until <= now).cloned().collect()
    };
    for fault in over {
        let undone = match &fault.what {
            What::Frozen { switch } => freezer::thaw(switch),
            What::Dark => dark::lift().await.map_err(|error| error.to_string()),
        };
        if let Err(error) = undone {
            tracing::error!(?fault, error, "a drill's fault cannot be undone; tried again");
            continue;
        }
        tracing::warn!(?fault, "a drill's fault is undone");
        forget(shared, &fault);
        if let Err(error) = shared.persist().await {
            tracing::error!(error, "ledger cannot be written");
        }
        shared.wake.notify_one();
    }
}

fn forget(shared: &Shared, fault: &Lasting) {
    shared.state().host.ledger.faults.retain(|other| other != fault);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dark_host_is_silent_from_a_second_after_its_beginning_to_its_end() {
        let fault = Lasting { since: Timestamp(5_000), until: Timestamp(35_000), what: What::Dark };
        assert!(!fault.silences(Timestamp(5_999)));
        assert!(fault.silences(Timestamp(6_000)) && fault.silences(Timestamp(34_999)));
        assert!(!fault.silences(Timestamp(35_000)));
        let frozen = Lasting { what: What::Frozen { switch: PathBuf::new() }, ..fault };
        assert!(!frozen.silences(Timestamp(10_000)));
    }
}
