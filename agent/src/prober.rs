//! Asks each running member's probes at their intervals, and once its engine's system id. At most one question of each
//! kind is under way; results are kept, not judged.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use muster_model::ids::MemberId;
use muster_model::observed::{Answer, Condition, ProbeResult};
use muster_model::plan::Probe;
use muster_runtime::tasks::TaskGroup;
use tokio::time::Instant;

use crate::ask;
use crate::shared::Shared;

/// Shortest interval that a plan can ask for.
const SHORTEST: Duration = Duration::from_millis(100);
/// Between two questions for the system id.
const SYSTEM_ID_PERIOD: Duration = Duration::from_secs(10);
/// Longest sleep, so that new members are noticed.
const LOOK: Duration = Duration::from_millis(250);
/// Longest system id.
const SYSTEM_ID_MAX: usize = 128;

/// Which question: a named probe, or the system id.
type Key = (MemberId, Option<String>);

struct Due {
    key: Key,
    every: Duration,
    probe: Probe,
}

/// Runs until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn run(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    group.token().run_until_cancelled(ask_all(&shared)).await;
    Ok(())
}

async fn ask_all(shared: &Arc<Shared>) {
    let mut next: BTreeMap<Key, Instant> = BTreeMap::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let wanted = wanted(shared);
        next.retain(|key, _| wanted.iter().any(|due| due.key == *key));
        let mut soonest = now + LOOK;
        for due in wanted {
            let at = next.entry(due.key.clone()).or_insert(now);
            if *at > now {
                soonest = soonest.min(*at);
                continue;
            }
            // Not again before it was answered: pushed far away here, put right when the answer comes.
            *at = now + ask::deadline(due.probe.timeout_ms) + due.every;
            under_way.push(question(shared, due, now));
        }
        tokio::select! {
            () = tokio::time::sleep_until(soonest) => {}
            Some((key, again)) = under_way.next(), if !under_way.is_empty() => {
                next.entry(key).and_modify(|at| *at = again);
            }
        }
    }
}

async fn question(shared: &Arc<Shared>, due: Due, started: Instant) -> (Key, Instant) {
    let target = shared.target(due.key.0);
    let answer = ask::ask(shared.runtime.as_ref(), &target, &due.probe).await;
    let took = started.elapsed();
    match &due.key.1 {
        Some(name) => keep(shared, due.key.0, name, answer, took).await,
        None => system_id(shared, due.key.0, &answer).await,
    }
    (due.key, (started + due.every).max(Instant::now()))
}

/// Questions to every member that runs.
fn wanted(shared: &Shared) -> Vec<Due> {
    let state = shared.state();
    let Some(plan) = state.host.plan() else { return Vec::new() };
    let mut due = Vec::new();
    for member in &plan.members {
        let runs = state.seen.iter().any(|c| c.member == member.member && c.running());
        if !runs {
            continue;
        }
        for spec in &member.rendered.probes {
            due.push(Due {
                key: (member.member, Some(spec.name.clone())),
                every: Duration::from_millis(spec.every_ms).max(SHORTEST),
                probe: spec.probe.clone(),
            });
        }
        if let Some(probe) = &member.rendered.system_id {
            due.push(Due { key: (member.member, None), every: SYSTEM_ID_PERIOD, probe: probe.clone() });
        }
    }
    due
}

async fn keep(shared: &Shared, member: MemberId, name: &str, answer: Answer, took: Duration) {
    let result = ProbeResult {
        name: name.to_owned(),
        at: shared.clock.now(),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        answer,
    };
    let (changed, persist) = {
        let mut state = shared.state();
        let runs = state.seen.iter().any(|c| c.member == member && c.running());
        if !runs {
            return;
        }
        let persist = result.answer.ok && state.host.probe_succeeded(member);
        let key = (member, name.to_owned());
        let worked = state.probes.get(&key).is_some_and(|old| old.answer.ok);
        if result.answer.ok {
            state.missed.remove(&key);
        } else if worked && state.missed.insert(key.clone()) {
            // One miss is noise: the next one counts. A container that stops is a fact, and told at once.
            return;
        }
        let answer = result.answer.clone();
        let old = state.probes.insert(key, result);
        (old.is_none_or(|old| old.answer != answer), persist)
    };
    if changed {
        shared.changed.notify_one();
    }
    if persist && let Err(error) = shared.persist().await {
        tracing::error!(error, "ledger cannot be written");
    }
}

async fn system_id(shared: &Shared, member: MemberId, answer: &Answer) {
    let Some(id) = read_system_id(answer) else { return };
    let known = {
        let mut state = shared.state();
        let Some(known) = state.host.ledger.volumes.get_mut(&member) else { return };
        match &known.system_id {
            Some(before) if *before == id => return,
            Some(before) => {
                let text = format!(
                    "member {member} answers with system id {id}, its data had {before}: its directory was exchanged \
                     while it ran; stop it and restore the right one"
                );
                drop(state);
                let code = "system-id".to_owned();
                return shared.say("system-id", vec![Condition { code, text }]);
            }
            None => known.system_id = Some(id.clone()),
        }
        known.clone()
    };
    let marked = shared.volumes.set_system_id(member, &known, &id);
    if let Err(error) = marked.and(shared.persist().await) {
        tracing::error!(error, "system id cannot be recorded");
    }
    shared.changed.notify_one();
}

/// The first text of a row, or the whole answer.
fn read_system_id(answer: &Answer) -> Option<String> {
    if !answer.ok {
        return None;
    }
    let first = serde_json::from_str::<Vec<Option<String>>>(&answer.body).ok();
    let id = match first {
        Some(row) => row.into_iter().next()??,
        None => answer.body.trim().to_owned(),
    };
    (!id.is_empty() && id.len() <= SYSTEM_ID_MAX && id.chars().all(|c| c.is_ascii_graphic())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_id_is_one_short_word() {
        let read = |body: &str| read_system_id(&Answer { ok: true, code: None, body: body.to_owned() });
        assert_eq!(read("[\"7301\",\"x\"]").as_deref(), Some("7301"));
        assert_eq!(read(" uuid-1 \n").as_deref(), Some("uuid-1"));
        assert_eq!(read("[null]"), None);
        assert_eq!(read("two words"), None);
        assert_eq!(read(""), None);
    }
}
