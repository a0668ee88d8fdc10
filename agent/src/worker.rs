//! The loop: look at the engine, decide with `diff`, start the steps. It waits for no step, and never for a coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use muster_model::ids::MemberId;
use muster_model::observed::{Condition, EngineStatus, Refusal};
use muster_model::plan::{HostPlan, Run};
use muster_model::time::Timestamp;
use muster_runtime::tasks::{OnError, TaskGroup};

use crate::diff::{Gates, Step, StepKind};
use crate::files::FilesError;
use crate::host::Outcome;
use crate::runtime::{Change, EngineError};
use crate::seen::Seen;
use crate::shared::{Shared, State, pause};
use crate::steps::carry_out;
use crate::tasks;

/// Longest time between two looks: what somebody removed or edited is put right well within 10 s.
const PERIOD: Duration = Duration::from_secs(4);
/// Between two looks at an engine that does not answer.
const SILENT_PERIOD: Duration = Duration::from_secs(1);

/// Runs until the group is cancelled.
///
/// # Errors
/// Never: whatever goes wrong is said and tried again.
pub async fn run(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    let token = group.token();
    while !token.is_cancelled() {
        let next = round(&shared, &group).await;
        token.run_until_cancelled(pause(next, &shared.wake)).await;
    }
    Ok(())
}

/// Rings the bells when the engine says that something changed; connects again when it went away.
///
/// # Errors
/// Never.
pub async fn watch_engine(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    let token = group.token();
    while !token.is_cancelled() {
        let follow = async {
            let mut changes = shared.runtime.changes();
            while let Some(change) = changes.next().await {
                if change == Change::Network {
                    shared.network_wake.notify_one();
                }
                shared.wake.notify_one();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            // What happened while we were away shows in a full list.
            shared.wake.notify_one();
        };
        token.run_until_cancelled(follow).await;
    }
    Ok(())
}

/// One look, and the steps that follow from it; how long until the next.
pub async fn round(shared: &Arc<Shared>, group: &TaskGroup) -> Duration {
    let listed = look(shared).await;
    let (seen, images) = match listed {
        Ok(found) => found,
        Err(error) => {
            note_engine(shared, Err(&error));
            return SILENT_PERIOD;
        }
    };
    note_engine(shared, Ok(()));
    let Some(plan) = shared.state().host.plan().cloned() else {
        shared.state().seen = seen;
        return PERIOD;
    };
    let gates = gates(shared, &plan, &seen, images);
    let now = shared.clock.now();
    let (steps, persist, begun) = decide(shared, seen, gates, now);
    shared.changed.notify_one();
    say_refusals(shared, &steps);
    if persist && let Err(error) = shared.persist().await {
        abandon(shared, &begun, &error);
        return SILENT_PERIOD;
    }
    for step in begun {
        let worker = Arc::clone(shared);
        group.spawn("step", OnError::Log, async move {
            take(&worker, &step).await;
            Ok::<_, Infallible>(())
        });
    }
    tasks::start_due(shared, group).await;
    until_next(&shared.state(), now)
}

async fn look(shared: &Shared) -> Result<(Vec<Seen>, BTreeSet<String>), EngineError> {
    if shared.state().engine.version.is_empty() {
        let version = shared.runtime.version().await?;
        shared.runtime.sweep(&shared.platform).await?;
        shared.state().engine.version = version;
    }
    let images = shared.runtime.images().await?.into_iter().collect();
    Ok((shared.runtime.list(&shared.platform).await?, images))
}

fn note_engine(shared: &Shared, answered: Result<(), &EngineError>) {
    let mut state = shared.state();
    if state.engine.answering != answered.is_ok() {
        let since = shared.clock.now();
        let version = state.engine.version.clone();
        state.engine = EngineStatus { answering: answered.is_ok(), since, version };
    }
    let since = state.engine.since;
    drop(state);
    let conditions = answered.err().map(|error| {
        tracing::warn!(%error, "no look at the engine");
        Condition {
            code: "engine-not-answering".to_owned(),
            text: format!(
                "Docker gives no answer since {} ms of the epoch ({error}); nothing is started, stopped or counted as \
                 dead: `systemctl status docker`",
                since.0
            ),
        }
    });
    shared.say("engine", conditions.into_iter().collect());
}

/// What must be there before a start; repairs files on the way.
fn gates(shared: &Shared, plan: &HostPlan, seen: &[Seen], images: BTreeSet<String>) -> Gates {
    let (busy, known, secrets, network, disk_full) = {
        let state = shared.state();
        let known = state.host.ledger.volumes.clone();
        (
            state.host.busy.clone(),
            known,
            Arc::clone(&state.secrets),
            state.network.clone(),
            state.gates.disk_full,
        )
    };
    let mut gates = Gates { images, disk_full, ..Gates::default() };
    let mut kept: BTreeSet<MemberId> = seen.iter().map(|container| container.member).collect();
    let mut problems = Vec::new();
    for member in &plan.members {
        let id = member.member;
        kept.insert(id);
        if member.run == Run::Stopped || busy.contains(&id) {
            continue;
        }
        let running = seen.iter().any(|container| container.member == id && container.running());
        match shared.files.sync(member, &secrets) {
            Ok(due) if running => shared.state().host.reload_due(id, due),
            Ok(_) => {}
            Err(FilesError::SecretMissing(name)) => drop(gates.secrets_missing.insert(id, name)),
            Err(error) => problems.push(Condition {
                code: "files".to_owned(),
                text: format!("files of {} cannot be written: {error}", member.slot),
            }),
        }
        let volumes = shared.volumes.check(plan, member, known.get(&id));
        if let Some(lost) = volumes.lost {
            gates.volumes_lost.insert(id, lost);
        }
        let mut state = shared.state();
        if state.host.data_seen(id, volumes.with_data) {
            state.data_written = false;
        }
        drop(state);
        let networks = || member.addresses.iter().map(|a| &a.network);
        let problem = match &network {
            Some((done, problems)) if *done == plan.network => {
                problems.iter().find(|p| p.stops_member(networks())).map(|p| p.text.clone())
            }
            _ if member.addresses.is_empty() => None,
            _ => Some("networks are being set up".to_owned()),
        };
        gates.network.extend(problem.map(|problem| (id, problem)));
    }
    shared.files.keep_only(&kept);
    shared.say("files", problems);
    gates
}

/// Takes the look in, and begins the steps; those that were begun, and whether the ledger must be written first.
fn decide(shared: &Shared, seen: Vec<Seen>, gates: Gates, now: Timestamp) -> (Vec<Step>, bool, Vec<Step>) {
    let mut state = shared.state();
    let mut persist = state.host.observe(now, &seen) || !state.data_written;
    let steps = state.host.steps(now, &seen, &gates);
    let begun: Vec<Step> =
        steps.iter().filter(|step| !matches!(step.kind, StepKind::Wait { .. })).cloned().collect();
    for step in &begun {
        persist |= state.host.begin(step);
    }
    state.data_written = true;
    let running: BTreeSet<MemberId> = seen.iter().filter(|c| c.running()).map(|c| c.member).collect();
    state.probes.retain(|(member, _), _| running.contains(member));
    state.gates = gates;
    state.steps.clone_from(&steps);
    state.seen = seen;
    (steps, persist, begun)
}

/// The ledger could not be written, so nothing may be done.
fn abandon(shared: &Shared, begun: &[Step], error: &str) {
    tracing::error!(error, "ledger cannot be written; no step is taken");
    let mut state = shared.state();
    state.data_written = false;
    for step in begun {
        state.host.busy.remove(&step.member);
    }
}

async fn take(shared: &Arc<Shared>, step: &Step) {
    tracing::info!(member = %step.member, kind = ?step.kind, "step");
    let outcome = carry_out(shared, step).await;
    let persist = shared.state().host.finish(shared.clock.now(), step, outcome.clone());
    if persist && let Err(error) = shared.persist().await {
        tracing::error!(error, "ledger cannot be written");
    }
    if matches!(outcome, Outcome::Done | Outcome::Released(_)) {
        shared.wake.notify_one();
    } else {
        shared.changed.notify_one();
        tokio::time::sleep(Duration::from_millis(100)).await;
        shared.wake.notify_one();
    }
}

/// Refusals that an operator can do something about.
fn say_refusals(shared: &Shared, steps: &[Step]) {
    let mut said = BTreeMap::new();
    for step in steps {
        let StepKind::Wait { why } = &step.kind else { continue };
        let (code, text) = match why {
            Refusal::ImageMissing { image } => (
                "image-missing",
                format!("image {image} is not on this host: `docker save {image} | ssh HOST docker load`"),
            ),
            Refusal::VolumeLost { found } => (
                "volume-lost",
                format!(
                    "{found}; nothing is started on it: mount or restore the directory, or replace the member"
                ),
            ),
            Refusal::NetworkNotReady { .. }
            | Refusal::SecretMissing { .. }
            | Refusal::BackingOff { .. }
            | Refusal::Held { .. }
            | Refusal::DiskFull
            | Refusal::Engine { .. } => continue,
        };
        said.insert(text.clone(), Condition { code: code.to_owned(), text });
    }
    shared.say("members", said.into_values().collect());
}

/// How long until something is due by itself.
fn until_next(state: &State, now: Timestamp) -> Duration {
    let due = state.host.memory.values().flat_map(|memory| [Some(memory.next_start), memory.held_until]);
    let soonest = due.flatten().filter(|at| *at > now).min();
    soonest.map_or(PERIOD, |at| Duration::from_millis(at.since(now).0 + 1).min(PERIOD))
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
