//! Does what a plan's actions and releases say, after asking their guard. Knows no kind of service.

use std::time::Duration;

use muster_model::plan::{Act, ActionSpec, Ask, Probe, ReleaseSpec};

use crate::ask::{self, Target, deadline, etcd};
use crate::runtime::ContainerRuntime;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// A guard did not hold; nothing was tried.
    Refused(String),
    /// Tried and failed, or its effect is not known.
    Failed(String),
}

/// Asks the action's guard, then acts; the answer.
///
/// # Errors
/// The guard does not hold, or it failed or took too long.
pub async fn action(
    runtime: &dyn ContainerRuntime,
    target: &Target,
    spec: &ActionSpec,
) -> Result<String, NotDone> {
    if let Some(guard) = &spec.guard {
        ask::check(runtime, target, guard).await.map_err(NotDone::Refused)?;
    }
    perform(runtime, target, &spec.run, deadline(spec.timeout_ms)).await.map_err(NotDone::Failed)
}

/// Hands over: with the guard, unless it is to be done anyway. Only after a confirmed stop.
///
/// # Errors
/// The guard does not hold, or it failed.
pub async fn release(
    runtime: &dyn ContainerRuntime,
    target: &Target,
    spec: &ReleaseSpec,
    anyway: bool,
) -> Result<String, NotDone> {
    let limit = deadline(spec.timeout_ms);
    let both = async {
        if !anyway {
            ask::check(runtime, target, &spec.guard).await.map_err(NotDone::Refused)?;
        }
        perform(runtime, target, &spec.act, limit).await.map_err(NotDone::Failed)
    };
    let late = |_| NotDone::Failed(format!("not done within {limit:?}"));
    tokio::time::timeout(limit, both).await.map_err(late)?
}

/// Acts; the answer.
///
/// # Errors
/// It failed or took longer than `limit`.
pub async fn perform(
    runtime: &dyn ContainerRuntime,
    target: &Target,
    act: &Act,
    limit: Duration,
) -> Result<String, String> {
    let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    match act {
        Act::Http(http) => as_probe(runtime, target, Ask::Http(http.clone()), timeout_ms).await,
        Act::Exec { argv } => as_probe(runtime, target, Ask::Exec { argv: argv.clone() }, timeout_ms).await,
        Act::Resp(resp) => as_probe(runtime, target, Ask::Resp(resp.clone()), timeout_ms).await,
        Act::S3(ask) => as_probe(runtime, target, Ask::S3(ask.clone()), timeout_ms).await,
        Act::Signal { signal } => {
            let container = target.container.as_deref().ok_or("the member has no container")?;
            let sent = runtime.signal(container, signal).await;
            sent.map(|()| String::new()).map_err(|error| error.to_string())
        }
        Act::EtcdDelete { endpoints, key, value } => {
            let done = tokio::time::timeout(limit, etcd::delete(endpoints, key, value, limit)).await;
            let late = |_| format!("no answer within {limit:?}");
            done.map_err(late)?.map(|()| format!("deleted {key}"))
        }
    }
}

async fn as_probe(
    runtime: &dyn ContainerRuntime,
    target: &Target,
    ask: Ask,
    timeout_ms: u64,
) -> Result<String, String> {
    let answer = ask::ask(runtime, target, &Probe { timeout_ms, ask }).await;
    if answer.ok {
        return Ok(answer.body);
    }
    Err(match answer.code {
        Some(code) => format!("{code}: {}", answer.body),
        None => answer.body,
    })
}
