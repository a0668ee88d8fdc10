//! Waits for operations and for a platform that is as its spec says, with live progress. Starts nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use muster_model::ids::{LogIndex, Name, OperationId};
use muster_model::time::{Millis, Timestamp};
use muster_model::view::{EventView, HealthWord, OperationState, OperationView, PlatformView, ServiceView};
use muster_proto::control::{EventsRequest, OperationsRequest};

use crate::client::{Client, PATIENCE, WATCHING, collect, decode};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::Tone;
use crate::pages::{operation_word, tone_of};
use crate::progress::Progress;

const POLL: Duration = Duration::from_millis(500);
/// A platform counts as settled when nothing is to be done for this long: the coordinator may be about to begin.
const SETTLED: Millis = Millis(2_000);

/// Follows an operation to its end, or until it needs an operator.
///
/// # Errors
/// No coordinator answered for a minute, or the reader is gone.
pub async fn operation(
    client: &Client,
    console: &Console,
    id: OperationId,
    mut on_change: impl AsyncFnMut(&OperationView) -> Result<()>,
) -> Result<OperationView> {
    let mut progress = Progress::new(console);
    let mut seen = None;
    let key = |view: &OperationView| format!("{} {}", view.kind, view.id);
    loop {
        let view = client.operation(id, WATCHING).await?;
        for (at, text) in new_lines(&view.log, seen.as_ref()) {
            progress.say(*at, view.service.as_str(), text)?;
        }
        seen = view.log.last().cloned().or(seen);
        if view.state != OperationState::Running {
            progress.end(&key(&view));
            return Ok(view);
        }
        progress.show(Timestamp(client.now_ms()), &key(&view), Tone::Plain, &view.step)?;
        on_change(&view).await?;
        tokio::time::sleep(POLL).await;
    }
}

/// The lines after the last one that was seen; old ones may have been dropped meanwhile.
fn new_lines<'a>(
    log: &'a [(Timestamp, String)],
    seen: Option<&(Timestamp, String)>,
) -> &'a [(Timestamp, String)] {
    let after = seen.and_then(|seen| log.iter().rposition(|line| line == seen));
    &log[after.map_or(0, |at| at + 1)..]
}

/// The exit code of an operation that is no longer running.
#[must_use]
pub const fn operation_exit(state: OperationState) -> Exit {
    match state {
        OperationState::Done | OperationState::Running => Exit::Ok,
        OperationState::NeedsOperator
        | OperationState::Failed
        | OperationState::Cancelled
        | OperationState::RolledBack => Exit::Paused,
    }
}

/// Says how an operation ended, as an error if it did not end well.
///
/// # Errors
/// It failed, was cancelled or rolled back, or needs an operator (exit 4).
pub fn judge(view: &OperationView) -> Result<()> {
    let exit = operation_exit(view.state);
    if exit == Exit::Ok {
        return Ok(());
    }
    let word = operation_word(view.state);
    let message = format!("{} {} of {} {word}: {}", view.kind, view.id, view.service, view.step);
    let hint = match (&view.remedy, view.state) {
        (Some(remedy), _) => remedy.clone(),
        (None, OperationState::NeedsOperator) => {
            format!("`muster op continue {0}` goes on, `muster op cancel {0}` ends it", view.id)
        }
        _ => format!("`muster op watch {}` shows what it did", view.id),
    };
    Err(Failure::new(exit, message).hint(hint).into())
}

/// What was known before an apply, so that what comes after can be told apart.
#[derive(Debug, Clone, Default)]
pub struct Before {
    operations: BTreeSet<OperationId>,
}

impl Before {
    /// Reads it.
    ///
    /// # Errors
    /// No coordinator answered.
    pub async fn read(client: &Client) -> Result<Self> {
        let all = all_operations(client).await?;
        let ended = all.into_iter().filter(|one| one.ended.is_some());
        Ok(Self { operations: ended.map(|one| one.id).collect() })
    }
}

async fn all_operations(client: &Client) -> Result<Vec<OperationView>> {
    let request = OperationsRequest { ended_too: true };
    let view = client.call(PATIENCE, async |mut control| control.operations(request).await).await?;
    decode(&view)
}

/// Waits until no operation runs and every one of `services` is healthy.
///
/// # Errors
/// An operation did not end well or needs an operator, or time is up (exit 4 each, with what it waits for).
pub async fn settled(
    client: &Client,
    console: &Console,
    services: &BTreeSet<Name>,
    before: &Before,
    applied: LogIndex,
    timeout: Duration,
) -> Result<PlatformView> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut progress = Progress::new(console);
    let mut next_event = applied.0;
    let mut good_since: Option<Timestamp> = None;
    loop {
        let view = client.status(WATCHING).await?;
        for event in events_from(client, next_event).await? {
            next_event = next_event.max(event.index.0 + 1);
            if concerns(&event.about, services, &view) {
                progress.say(event.at, &event.about, &event.text)?;
            }
        }
        show(&mut progress, &view, services)?;
        let ours = view.operations.iter().filter(|one| belongs(&one.service, services, &view.services));
        for one in ours.clone() {
            judge(one)?;
        }
        if ours.count() == 0 && waiting_for(&view, services).is_empty() {
            let since = *good_since.get_or_insert(view.at);
            if view.at.since(since) >= SETTLED {
                drop(progress);
                judge_ended(client, services, before, &view).await?;
                return Ok(view);
            }
        } else {
            good_since = None;
        }
        if tokio::time::Instant::now() >= deadline {
            drop(progress);
            return Err(too_late(&view, services, timeout));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn events_from(client: &Client, from: u64) -> Result<Vec<EventView>> {
    let request = EventsRequest { from, tail: 0, follow: false };
    let mut stream = client.call(WATCHING, async |mut control| control.events(request).await).await?;
    match collect(&mut stream).await {
        Ok(views) => views.iter().map(decode).collect(),
        // Asked for again in a moment, from the same place.
        Err(_) => Ok(Vec::new()),
    }
}

/// Whether a service is one of ours or a child of one.
fn belongs(name: &Name, services: &BTreeSet<Name>, all: &[ServiceView]) -> bool {
    let owner = all.iter().find(|one| one.name == *name).and_then(|one| one.owner.as_ref());
    services.contains(name) || owner.is_some_and(|owner| services.contains(owner))
}

/// An event is about a slot, a service or a host.
fn concerns(about: &str, services: &BTreeSet<Name>, view: &PlatformView) -> bool {
    let service = about.split('/').next().unwrap_or(about);
    Name::new(service).is_ok_and(|name| belongs(&name, services, &view.services))
}

fn show(progress: &mut Progress, view: &PlatformView, services: &BTreeSet<Name>) -> Result<()> {
    for one in view.services.iter().filter(|one| belongs(&one.name, services, &view.services)) {
        let ready = one.members.iter().filter(|member| member.ready).count();
        let why = one.health.reasons.first().map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("{} {ready}/{} ready{why}", one.health.word, one.members.len());
        progress.show(view.at, one.name.as_str(), tone_of(one.health.word), &text)?;
    }
    for one in &view.operations {
        if belongs(&one.service, services, &view.services) {
            progress.show(
                view.at,
                &format!("{} {} of {}", one.kind, one.id, one.service),
                Tone::Plain,
                &one.step,
            )?;
        }
    }
    Ok(())
}

/// What is not as it should be yet, one line each.
fn waiting_for(view: &PlatformView, services: &BTreeSet<Name>) -> Vec<String> {
    let mut lines = Vec::new();
    for name in services.iter().filter(|name| !view.services.iter().any(|one| one.name == **name)) {
        lines.push(format!("{name} is not there yet"));
    }
    for one in view.services.iter().filter(|one| belongs(&one.name, services, &view.services)) {
        if one.health.word != HealthWord::Healthy {
            lines.push(format!("{} is {}: {}", one.name, one.health.word, one.health.reasons.join("; ")));
        }
    }
    lines
}

fn too_late(view: &PlatformView, services: &BTreeSet<Name>, timeout: Duration) -> anyhow::Error {
    let mut lines = waiting_for(view, services);
    for one in &view.operations {
        lines.push(format!("{} {} of {}: {}", one.kind, one.id, one.service, one.step));
    }
    let message =
        format!("not reached within {timeout:?}; it still goes on. Waits for:\n  {}", lines.join("\n  "));
    Failure::new(Exit::Paused, message).hint("`muster status --watch` shows how it goes on").into()
}

/// Everything is healthy, but perhaps because an update went back.
async fn judge_ended(
    client: &Client,
    services: &BTreeSet<Name>,
    before: &Before,
    view: &PlatformView,
) -> Result<()> {
    let mut ended = all_operations(client).await?;
    ended.retain(|one| {
        !before.operations.contains(&one.id) && belongs(&one.service, services, &view.services)
    });
    judge_last(ended)
}

/// A failed one that was followed by a good one is mended, unless that one only takes it back.
fn judge_last(mut ended: Vec<OperationView>) -> Result<()> {
    ended.retain(|one| !matches!(one.kind.as_str(), "drill" | "rollback"));
    ended.sort_by_key(|one| one.id);
    for name in ended.iter().map(|one| &one.service).collect::<BTreeSet<_>>() {
        let last = ended.iter().rev().find(|one| one.service == *name);
        last.map_or(Ok(()), judge)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use crate::pages::sample;

    #[test]
    fn only_new_lines_of_a_log_are_shown() {
        let log: Vec<_> = (0..5).map(|at| (Timestamp(at), at.to_string())).collect();
        assert_eq!(new_lines(&log, None).len(), 5);
        assert_eq!(new_lines(&log, Some(&log[3])), &log[4..]);
        assert_eq!(new_lines(&log, Some(&log[4])), &[]);
        assert_eq!(new_lines(&log, Some(&(Timestamp(9), "dropped".to_owned()))).len(), 5);
    }

    #[test]
    fn events_of_children_and_slots_concern_their_service() {
        let view = sample::platform();
        let services = BTreeSet::from([sample::name("pg-main")]);
        for ours in ["pg-main", "pg-main/2", "pg-main-etcd", "pg-main-etcd/1"] {
            assert!(concerns(ours, &services, &view), "{ours}");
        }
        for other in ["web", "web/1", "h1", "pg-main2", ""] {
            assert!(!concerns(other, &services, &view), "{other}");
        }
    }

    #[test]
    fn what_is_waited_for_is_named_with_its_reason() {
        let view = sample::platform();
        let services = BTreeSet::from([sample::name("pg-main"), sample::name("cache"), sample::name("web")]);
        let expected = [
            "cache is not there yet",
            "pg-main is degraded: pg-main/3 on h3: host is down",
            "pg-main-etcd is degraded: 2 of 3 members are healthy",
        ];
        assert_eq!(waiting_for(&view, &services), expected);
        let error = too_late(&view, &services, Duration::from_secs(5));
        assert_eq!(exit::of(&error), Exit::Paused);
        assert!(error.to_string().contains("update 9 of pg-main"), "{error}");
    }

    #[test]
    fn a_paused_operation_is_exit_4_with_its_remedy() {
        let error = judge(&sample::operation()).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Paused);
        assert_eq!(exit::hint(&error).unwrap(), "muster op continue 9, or muster op cancel 9");
        let done = OperationView { state: OperationState::Done, ..sample::operation() };
        assert!(judge(&done).is_ok());
    }

    #[test]
    fn an_update_that_was_taken_back_did_not_go_well_and_one_that_was_mended_did() {
        let ended = |id, kind: &str, state| OperationView {
            id: OperationId(id),
            kind: kind.to_owned(),
            state,
            ..sample::operation()
        };
        let undone =
            [ended(3, "update", OperationState::RolledBack), ended(4, "rollback", OperationState::Done)];
        assert_eq!(exit::of(&judge_last(undone.to_vec()).unwrap_err()), Exit::Paused);
        let mended = [ended(4, "update", OperationState::Done), ended(3, "update", OperationState::Failed)];
        assert!(judge_last(mended.to_vec()).is_ok());
    }
}
