//! One-time tasks of a plan: begun once, recorded before anything is done, answered once. In order for each member.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use muster_model::ids::{MemberId, TaskId};
use muster_model::observed::{TaskAnswer, TaskOutcome};
use muster_model::plan::{Ask, MemberPlan, Probe, Task, TaskKind};
use muster_model::time::Millis;
use muster_runtime::tasks::{OnError, TaskGroup};

use crate::act::{self, NotDone};
use crate::ask::{self, cut, deadline};
use crate::disk::Disk;
use crate::fault;
use crate::profile;
use crate::runtime::{ContainerRuntime, NewContainer};
use crate::shared::Shared;

/// After its own limit a task has this long to clear away what it made.
const CLEARING: Duration = Duration::from_secs(30);
/// Longest hold that a drill can ask for.
const HOLD_MAX: Millis = Millis(600_000);

/// Begins every task whose member has none under way.
pub async fn start_due(shared: &Arc<Shared>, group: &TaskGroup) {
    let mut begun: Vec<Task> = Vec::new();
    {
        let mut state = shared.state();
        let planned = state.host.plan().map(|plan| plan.tasks.clone()).unwrap_or_default();
        for task in planned {
            let member = task.member;
            let exclusive = exclusive(&task.what);
            let taken =
                state.tasks_under_way.contains(&member) || (exclusive && state.host.busy.contains(&member));
            if !taken && !state.host.ledger.tasks.contains_key(&task.id) {
                state.host.ledger.begin_task(task.id);
                state.tasks_under_way.insert(member);
                if exclusive {
                    state.host.busy.insert(member);
                }
                begun.push(task);
            }
        }
    }
    if begun.is_empty() {
        return;
    }
    if let Err(error) = shared.persist().await {
        // Not recorded, so not begun.
        tracing::error!(error, "ledger cannot be written; no task is begun");
        let mut state = shared.state();
        for task in &begun {
            state.host.ledger.tasks.remove(&task.id);
            release_member(&mut state, task);
        }
        return;
    }
    for task in begun {
        let shared = Arc::clone(shared);
        group.spawn("task", OnError::Log, async move {
            finish(&shared, task).await;
            Ok::<_, Infallible>(())
        });
    }
}

/// Tasks during which the member gets no step.
const fn exclusive(what: &TaskKind) -> bool {
    matches!(what, TaskKind::OneShot { apart: false, .. } | TaskKind::Kill { .. } | TaskKind::KillHost { .. })
}

fn release_member(state: &mut crate::shared::State, task: &Task) {
    state.tasks_under_way.remove(&task.member);
    if exclusive(&task.what) {
        state.host.busy.remove(&task.member);
    }
}

async fn finish(shared: &Shared, task: Task) {
    // What is under way ends by its own limit first, and clears away what it made.
    let limit = deadline(task.timeout_ms) + CLEARING;
    let outcome = match tokio::time::timeout(limit, attempt(shared, &task)).await {
        Ok(Ok(answer)) => TaskOutcome::Done { answer: cut(answer) },
        Ok(Err(NotDone::Refused(why))) => TaskOutcome::Refused { why: cut(why) },
        Ok(Err(NotDone::Failed(why))) => TaskOutcome::Failed { why: cut(why) },
        Err(_) => TaskOutcome::Failed { why: format!("not done within {limit:?}") },
    };
    tracing::info!(task = %task.id, member = %task.member, ?outcome, "task");
    let answer = TaskAnswer { id: task.id, at: shared.clock.now(), outcome };
    {
        let mut state = shared.state();
        state.host.ledger.answer_task(answer);
        release_member(&mut state, &task);
    }
    if let Err(error) = shared.persist().await {
        tracing::error!(error, "answer cannot be written");
    }
    shared.changed.notify_one();
    shared.wake.notify_one();
}

async fn attempt(shared: &Shared, task: &Task) -> Result<String, NotDone> {
    let failed = |text: &str| NotDone::Failed(text.to_owned());
    let runtime = shared.runtime.as_ref();
    let target = shared.target(task.member);
    if let Some(guard) = &task.guard {
        ask::check(runtime, &target, guard).await.map_err(NotDone::Refused)?;
    }
    let (plan, member) = shared.planned(task.member).ok_or_else(|| failed("no such member"))?;
    let limit = deadline(task.timeout_ms);
    match &task.what {
        TaskKind::Action { name } => {
            let action = member.rendered.actions.get(name);
            act::action(runtime, &target, action.ok_or_else(|| failed("no such action"))?).await
        }
        TaskKind::Act { act } => act::perform(runtime, &target, act, limit).await.map_err(NotDone::Failed),
        TaskKind::Exec { argv } => {
            let ask = Ask::Exec { argv: argv.clone() };
            let answer = ask::ask(runtime, &target, &Probe { timeout_ms: task.timeout_ms, ask }).await;
            if answer.ok { Ok(answer.body) } else { Err(NotDone::Failed(answer.body)) }
        }
        TaskKind::OneShot { image, command, apart } => {
            if !apart && running(shared, task.member) {
                return Err(NotDone::Refused("the member runs".to_owned()));
            }
            if !apart {
                let known = shared.state().host.ledger.volumes.get(&task.member).cloned();
                shared.volumes.prepare(&plan, &member, known.as_ref()).map_err(NotDone::Failed)?;
            }
            let secrets = Arc::clone(&shared.state().secrets);
            shared.files.sync(&member, &secrets).map_err(|error| NotDone::Failed(error.to_string()))?;
            let places = shared.places(task.member);
            let mut wanted = profile::one_shot(&plan, &member, &places, image.as_deref(), command);
            if *apart {
                profile::set_apart(&mut wanted, &member);
            }
            once(runtime, &wanted, task.id, limit).await
        }
        TaskKind::ReadFile { volume, path } => {
            shared.volumes.read_file(task.member, volume, path).map_err(NotDone::Failed)
        }
        TaskKind::FreeSpace => {
            let fill = Disk::new(&free_space_root(shared, &member)).fill().map_err(NotDone::Failed)?;
            Ok(fill.free.to_string())
        }
        TaskKind::Freeze { for_ms } => fault::freeze(shared, task.member, Millis(*for_ms)).await,
        TaskKind::KillHost { for_ms } => fault::darken(shared, Millis(*for_ms)).await,
        TaskKind::Kill { hold_ms } => kill(shared, task.member, Millis(*hold_ms)).await,
    }
}

/// Its output, if it ended well.
async fn once(
    runtime: &dyn ContainerRuntime,
    wanted: &NewContainer,
    id: TaskId,
    limit: Duration,
) -> Result<String, NotDone> {
    let ended = runtime.run_once(wanted, id, limit).await;
    let ended = ended.map_err(|error| NotDone::Failed(error.to_string()))?;
    let output = String::from_utf8_lossy(&ended.output).into_owned();
    if ended.code == 0 { Ok(output) } else { Err(NotDone::Failed(format!("{}: {output}", ended.code))) }
}

// Safety of this order: the hold comes first, or the restart could win.
async fn kill(shared: &Shared, member: MemberId, hold: Millis) -> Result<String, NotDone> {
    if !running(shared, member) {
        return Err(NotDone::Refused("the member does not run".to_owned()));
    }
    let hold = Millis(hold.0.min(HOLD_MAX.0));
    if hold.0 > 0 {
        let until = shared.clock.now().after(hold);
        shared.state().host.memory.entry(member).or_default().hold(until);
    }
    let container = shared.target(member).container.unwrap_or_default();
    let killed = shared.runtime.signal(&container, "SIGKILL").await;
    killed.map(|()| "killed".to_owned()).map_err(|error| NotDone::Failed(error.to_string()))
}

fn running(shared: &Shared, member: MemberId) -> bool {
    shared.state().seen.iter().any(|container| container.member == member && container.running())
}

fn free_space_root(shared: &Shared, member: &MemberPlan) -> std::path::PathBuf {
    let root = shared.volumes.of(member.member);
    match member.rendered.volumes.first() {
        Some(volume) if root.exists() => profile::data_dir(&root, volume.name.as_str()),
        _ => shared.volumes.root().to_owned(),
    }
}
