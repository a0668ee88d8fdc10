//! Carries out one step of `diff` for one member. It chooses nothing, and checks once more what could cost data.

use std::sync::atomic::Ordering;

use muster_model::observed::Refusal;
use muster_model::plan::{HostPlan, MemberPlan};

use crate::act;
use crate::ask;
use crate::diff::{Step, StepKind};
use crate::files::FilesError;
use crate::host::{Outcome, stop_is_guarded};
use crate::network;
use crate::profile;
use crate::runtime::EngineError;
use crate::shared::Shared;

/// Why a step stopped half-way.
enum Stopped {
    Engine(EngineError),
    Refused(Refusal),
    /// The plan has moved on.
    Outdated,
}

impl From<EngineError> for Stopped {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Carries out a step and says how it ended.
pub async fn carry_out(shared: &Shared, step: &Step) -> Outcome {
    match attempt(shared, step).await {
        Ok(outcome) => outcome,
        Err(Stopped::Engine(EngineError::NotAnswering(_)) | Stopped::Outdated) => Outcome::Unknown,
        // Somebody took it away under our hands: the next list tells, and it was no failed start.
        Err(Stopped::Engine(EngineError::Gone(_))) if !matches!(step.kind, StepKind::Create { .. }) => {
            Outcome::Unknown
        }
        Err(Stopped::Engine(EngineError::Refused(message) | EngineError::Gone(message))) => {
            tracing::warn!(member = %step.member, step = ?step.kind, message, "the engine refused");
            Outcome::Failed(Refusal::Engine { message })
        }
        Err(Stopped::Refused(why)) => {
            tracing::warn!(member = %step.member, step = ?step.kind, ?why, "refused");
            Outcome::Failed(why)
        }
    }
}

async fn attempt(shared: &Shared, step: &Step) -> Result<Outcome, Stopped> {
    let runtime = shared.runtime.as_ref();
    let container = step.container.as_deref().unwrap_or_default();
    let planned = || shared.planned(step.member).ok_or(Stopped::Outdated);
    match &step.kind {
        StepKind::Create { first } => {
            let (plan, member) = planned()?;
            prepare(shared, &plan, &member)?;
            let wanted = profile::container(&plan, &member, &shared.places(member.member), *first);
            runtime.create(&wanted).await?;
        }
        StepKind::Start => {
            let (plan, member) = planned()?;
            prepare(shared, &plan, &member)?;
            answer_for(shared, &member, false).await;
            runtime.start(container).await?;
        }
        StepKind::Stop { why } => {
            if let Some(guard) = guard_that_fails(shared, step).await {
                return Ok(Outcome::Guarded(guard));
            }
            tracing::info!(member = %step.member, why, "stopping");
            // A member that left the plan is stopped with the usual patience.
            let stop = planned().map(|(_, member)| member.rendered.stop).unwrap_or_else(|_| default_stop());
            runtime.stop(container, &stop).await?;
        }
        StepKind::Remove => runtime.remove(container).await?,
        StepKind::Attach { network, address } => runtime.attach(container, network, *address).await?,
        StepKind::Reload { actions } => {
            let (_, member) = planned()?;
            for name in actions {
                let Some(action) = member.rendered.actions.get(name) else { continue };
                if let Err(why) = act::action(runtime, &shared.target(step.member), action).await {
                    tracing::warn!(member = %step.member, action = name, ?why, "reload failed");
                    return Ok(Outcome::Unknown);
                }
            }
        }
        StepKind::Release { anyway } => {
            let (_, member) = planned()?;
            let Some(release) = &member.rendered.release else { return Ok(Outcome::Released(false)) };
            answer_for(shared, &member, true).await;
            let done = act::release(runtime, &shared.target(step.member), release, *anyway).await;
            tracing::info!(member = %step.member, anyway, ?done, "release");
            return Ok(Outcome::Released(done.is_ok()));
        }
        StepKind::Quarantine => {
            let (now, volumes) = (shared.clock.now(), &shared.volumes);
            let discard =
                shared.state().host.ledger.plan.as_ref().is_some_and(|p| p.discard.contains(&step.member));
            let gone =
                if discard { volumes.delete(step.member, now) } else { volumes.put_aside(step.member, now) };
            gone.map_err(|message| Stopped::Refused(Refusal::Engine { message }))?;
        }
        StepKind::Wait { .. } => {}
    }
    Ok(Outcome::Done)
}

/// The name of the member's guard, if it does not hold at this moment.
async fn guard_that_fails(shared: &Shared, step: &Step) -> Option<String> {
    let (_, member) = shared.planned(step.member)?;
    let guard = member.guard.as_ref().filter(|_| stop_is_guarded(&member))?;
    match ask::check(shared.runtime.as_ref(), &shared.target(step.member), guard).await {
        Ok(()) => {
            // From here on it is being stopped.
            shared.state().host.memory.entry(step.member).or_default().untouched = false;
            shared.changed.notify_one();
            None
        }
        Err(why) => {
            tracing::warn!(member = %step.member, why, "not stopped");
            Some(guard.name.clone())
        }
    }
}

/// While a member that hands over is gone, its peers are refused at its address instead of waiting for an answer.
async fn answer_for(shared: &Shared, member: &MemberPlan, gone: bool) {
    if member.rendered.release.is_none() || !shared.refuse_gone.load(Ordering::Relaxed) {
        return;
    }
    let addresses: Vec<_> = member.addresses.iter().map(|place| place.address).collect();
    let done =
        if gone { network::gone::refuse(&addresses).await } else { network::gone::lift(&addresses).await };
    if let Err(error) = done {
        tracing::warn!(member = %member.member, %error, gone, "connections to a stopped member");
    }
}

/// Data directories and files, immediately before a container is made or started.
fn prepare(shared: &Shared, plan: &HostPlan, member: &MemberPlan) -> Result<(), Stopped> {
    let (ledger, secrets) = {
        let state = shared.state();
        (state.host.ledger.volumes.get(&member.member).cloned(), state.secrets.clone())
    };
    let found = |found: String| Stopped::Refused(Refusal::VolumeLost { found });
    shared.volumes.prepare(plan, member, ledger.as_ref()).map_err(found)?;
    shared.files.sync(member, &secrets).map(drop).map_err(|error| {
        Stopped::Refused(match error {
            FilesError::SecretMissing(name) => Refusal::SecretMissing { name },
            other => Refusal::Engine { message: other.to_string() },
        })
    })
}

fn default_stop() -> muster_model::plan::StopSpec {
    muster_model::plan::StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 30_000 }
}
