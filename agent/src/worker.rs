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
use crate::seen::{Seen, SeenState};
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

/// Hears what the engine says: rings the bells, and acts on a death at once. Connects again when the engine went away.
///
/// # Errors
/// Never.
pub async fn watch_engine(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    let token = group.token();
    while !token.is_cancelled() {
        let follow = async {
            let mut changes = shared.runtime.changes();
            while let Some(change) = changes.next().await {
                match change {
                    Change::Died { container, code } => died(&shared, &group, &container, code).await,
                    Change::Network => shared.network_wake.notify_one(),
                    Change::Container => {}
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

/// A death that the engine confirmed: what follows from it does not wait until the engine has cleaned up.
pub async fn died(shared: &Arc<Shared>, group: &TaskGroup, container: &str, code: i64) {
    let (seen, gates) = {
        let mut state = shared.state();
        let Some(dead) = state.seen.iter_mut().find(|c| c.id == container && c.running()) else { return };
        dead.state = SeenState::Stopped { code };
        state.turns += 1;
        (state.seen.clone(), state.gates.clone())
    };
    let turn = shared.state().turns;
    if let Some(decided) = decide(shared, turn, seen, gates, shared.clock.now()) {
        launch(shared, group, decided).await;
    }
}

/// One look, and the steps that follow from it; how long until the next.
pub async fn round(shared: &Arc<Shared>, group: &TaskGroup) -> Duration {
    let turn = shared.state().turns;
    let (seen, images) = match look(shared).await {
        Ok(found) => found,
        Err(error) => {
            note_engine(shared, Err(&error));
            return SILENT_PERIOD;
        }
    };
    note_engine(shared, Ok(()));
    let Some(plan) = shared.state().host.plan().cloned() else {
        let mut state = shared.state();
        state.seen = seen;
        state.looked = Some(turn);
        return PERIOD;
    };
    let gates = gates(shared, &plan, &seen, images);
    let now = shared.clock.now();
    let Some(decided) = decide(shared, turn, seen, gates, now) else { return Duration::ZERO };
    shared.state().looked = Some(turn);
    if !launch(shared, group, decided).await {
        return SILENT_PERIOD;
    }
    tasks::start_due(shared, group).await;
    until_next(&shared.state(), now)
}

/// Starts the steps that were decided on; false = the ledger cannot be written, so nothing was begun.
async fn launch(shared: &Arc<Shared>, group: &TaskGroup, decided: Decided) -> bool {
    shared.changed.notify_one();
    say_refusals(shared, &decided.steps);
    if decided.persist
        && let Err(error) = shared.persist().await
    {
        abandon(shared, &decided.begun, &error);
        return false;
    }
    for step in decided.begun {
        let worker = Arc::clone(shared);
        group.spawn("step", OnError::Log, async move {
            take(&worker, &step).await;
            Ok::<_, Infallible>(())
        });
    }
    true
}

async fn look(shared: &Shared) -> Result<(Vec<Seen>, BTreeSet<String>), EngineError> {
    if shared.state().engine.version.is_empty() {
        let version = shared.runtime.version().await?;
        shared.runtime.sweep(&shared.acting_platform()).await?;
        shared.state().engine.version = version;
    }
    let images = shared.runtime.images().await?.into_iter().collect();
    Ok((shared.runtime.list(&shared.acting_platform()).await?, images))
}

fn note_engine(shared: &Shared, answered: Result<(), &EngineError>) {
    let mut state = shared.state();
    state.looked = state.looked.filter(|_| answered.is_ok());
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
                "Docker gives no answer since {} ({error}); nothing is started, stopped or counted as dead: \
                 `systemctl status docker`",
                utc(since)
            ),
        }
    });
    shared.say("engine", conditions.into_iter().collect());
}

/// For people.
fn utc(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.map_or_else(
        || "long".to_owned(),
        |at| format!("{} {:02}:{:02}:{:02} UTC", at.date(), at.hour(), at.minute(), at.second()),
    )
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

/// What follows from a look.
struct Decided {
    /// All steps, waits too.
    steps: Vec<Step>,
    /// Those that were begun.
    begun: Vec<Step>,
    /// The ledger must be written before they are carried out.
    persist: bool,
}

/// Takes the look in, and begins the steps. Absent = the look is old: it began before the turn that was the last one.
///
/// Safety: an old look can show a container that was just started as stopped. Taken for a crash, its member would be
/// released, or started twice.
fn decide(shared: &Shared, turn: u64, seen: Vec<Seen>, gates: Gates, now: Timestamp) -> Option<Decided> {
    let mut state = shared.state();
    if state.turns != turn {
        return None;
    }
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
    state.missed.retain(|(member, _)| running.contains(member));
    state.gates = gates;
    state.steps.clone_from(&steps);
    state.seen = seen;
    Some(Decided { steps, begun, persist })
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
    let persist = {
        let mut state = shared.state();
        state.turns += 1;
        let turn = state.turns;
        if !matches!(step.kind, StepKind::Attach { .. } | StepKind::Reload { .. }) {
            state.acted.insert(step.member, turn);
        }
        state.host.finish(shared.clock.now(), step, outcome.clone())
    };
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
                format!("image {image} is not on this host: `muster image push {image}` where it is"),
            ),
            Refusal::VolumeLost { found } => (
                "volume-lost",
                format!(
                    "{found}; nothing is started on it: mount or restore the directory, or replace the member"
                ),
            ),
            Refusal::Guard { .. }
            | Refusal::NetworkNotReady { .. }
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
    let due = state.host.memory.values().flat_map(|memory| {
        [Some(memory.next_start), memory.held_until, memory.refused.as_ref().map(|(_, at)| *at)]
    });
    let soonest = due.flatten().filter(|at| *at > now).min();
    soonest.map_or(PERIOD, |at| Duration::from_millis(at.since(now).0 + 1).min(PERIOD))
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
