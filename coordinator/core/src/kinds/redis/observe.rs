//! What a Redis member's probes mean: role, readiness, its own view of the cluster. Quantised: the same condition gives
//! the same value.

use std::collections::BTreeSet;

use muster_model::observed::MemberStatus;
use serde_json::Value;

use super::settings::{Mode, Settings};
use super::term::{NOBODY, NOBODY_YET};
use crate::kinds::versions::VERSION;
use crate::kinds::{Observed, parts};

/// Takes writes for its hash slots.
pub const MASTER: &str = "master";
/// Follows a master.
pub const REPLICA: &str = "replica";
/// Part of the cluster's table of hash slots that this node owns.
pub const SLOTS: &str = "slots";
/// Id of the node that this one follows; its address where there is no cluster.
pub const FOLLOWS: &str = "follows";
/// How many hash slots it owns.
pub const SLOT_COUNT: &str = "slot_count";
/// Ids of all nodes that this one knows.
pub const KNOWS: &str = "knows";
/// Hash slots that are on their way, each with the other node: `SLOT-<-ID` is taken in, `SLOT->-ID` given away, separated by
/// commas. Absent = none.
pub const OPEN: &str = "open";
/// More are not on their way at once: the engine's own tool moves one after another.
const OPEN_MAX: usize = 4;
/// `ok` or `fail`, as the node judges the whole cluster.
pub const STATE: &str = "state";
/// The address that it announces.
pub const AT: &str = "at";
/// There while the server runs for less than [`votes_ms`].
pub const YOUNG: &str = "young";
/// The term that its data is of, as text; empty = of none. Absent = it did not say.
pub const TERM: &str = "term";
/// It reads its data.
pub const LOADING: &str = "loading";
/// Longest list of ranges that is kept.
const RANGES_LEN_MAX: usize = 400;
/// Longest text that can be a term.
const TERM_LEN_MAX: usize = 48;
/// Seconds of silence from its master after which a replica counts as behind.
const SILENCE_MAX: u64 = 5;

/// How long a server that won an election goes on counting its votes, in milliseconds: if it loses its next master in that
/// time it makes itself master again, under a claim that the others do not accept, and is no candidate for long after.
/// Seen of Redis 7.0.15; source: `clusterHandleSlaveFailover`, `auth_timeout`.
fn votes_ms(settings: &Settings) -> u64 {
    (settings.node_timeout.0 * 2).max(2_000)
}

pub fn interpret(settings: &Settings, status: &MemberStatus) -> Observed {
    let mode = settings.mode;
    let mut seen = parts::observed(status);
    if !seen.running {
        return seen;
    }
    let body: Option<Value> =
        parts::answer(status, "redis").and_then(|answer| serde_json::from_str(&answer.body).ok());
    let Some(body) = body.filter(|body| body["info"]["role"].is_string()) else {
        seen.detail = "Redis does not answer: `muster logs` says why".to_owned();
        return seen;
    };
    let info = |field: &str| body["info"][field].as_str().unwrap_or_default();
    // Valkey says a version of Redis beside its own, which is not its own.
    let version = [info("valkey_version"), info("redis_version")].into_iter().find(|text| !text.is_empty());
    seen.facts.extend(version.map(|version| (VERSION.to_owned(), version.to_owned())));
    let master = info("role") == "master";
    seen.role = Some(if master { MASTER } else { REPLICA }.to_owned());
    let uptime: u64 = info("uptime_in_seconds").parse().unwrap_or_default();
    if mode == Mode::Cluster && uptime.saturating_mul(1_000) <= votes_ms(settings) {
        seen.facts.insert(YOUNG.to_owned(), "yes".to_owned());
    }
    let slots = match mode {
        Mode::Cluster => cluster(&mut seen, &body),
        Mode::Replicated => replicated(&mut seen, &body),
        Mode::Single => 1,
    };
    if info("loading") == "1" {
        if mode == Mode::Replicated {
            seen.facts.insert(LOADING.to_owned(), "yes".to_owned());
        }
        seen.detail = "loads its data".to_owned();
    } else if info("aof_last_write_status") == "err" {
        seen.detail = "cannot write its log to the disk".to_owned();
    } else if master {
        seen.writes = if slots > 0 { writes(status) } else { None };
        let state = mode != Mode::Cluster || seen.facts.get(STATE).is_some_and(|state| state == "ok");
        seen.ready = slots > 0 && state && seen.writes != Some(false);
        seen.caught_up = seen.ready;
        seen.detail = match (slots, state, seen.writes) {
            (0, ..) => "has no hash slots".to_owned(),
            (_, false, _) => "sees the cluster as failed".to_owned(),
            (_, _, Some(false)) => "writes do not get through".to_owned(),
            (_, _, None) => "no write was tried yet".to_owned(),
            _ => seen.facts.get(SLOTS).map(|slots| format!("hash slots {slots}")).unwrap_or_default(),
        };
    } else {
        let silent = info("master_last_io_seconds_ago").parse::<u64>().is_ok_and(|s| s > SILENCE_MAX);
        seen.ready = info("master_link_status") == "up" && info("master_sync_in_progress") == "0";
        seen.caught_up = seen.ready && !silent;
        seen.detail = match (seen.ready, info("master_sync_in_progress")) {
            (true, _) => String::new(),
            (false, "1") => "copies its master's data".to_owned(),
            (false, _) if [NOBODY, NOBODY_YET].iter().any(|at| info("master_host") == at.to_string()) => {
                "waits to be told whom to follow".to_owned()
            }
            (false, _) => "has no link to its master".to_owned(),
        };
    }
    seen
}

/// Takes in whom it follows and which term its data is of. It has no hash slots to own.
fn replicated(seen: &mut Observed, body: &Value) -> usize {
    let master = body["info"]["master_host"].as_str().unwrap_or_default();
    if !master.is_empty() {
        seen.facts.insert(FOLLOWS.to_owned(), master.to_owned());
    }
    let term = match &body["term"] {
        Value::Null => Some(""),
        Value::String(term) if term.len() <= TERM_LEN_MAX => Some(term.as_str()),
        // An error, or what an application wrote there: no answer.
        _ => None,
    };
    seen.facts.extend(term.map(|term| (TERM.to_owned(), term.to_owned())));
    1
}

/// Takes in the node's own view of the cluster; the number of its hash slots.
fn cluster(seen: &mut Observed, body: &Value) -> usize {
    let mut knows = BTreeSet::new();
    let mut open = Vec::new();
    let mut ranges = Vec::new();
    let lines = body["nodes"].as_array().into_iter().flatten();
    for line in lines {
        let words: Vec<&str> = line.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let [id, address, flags, follows, _link, slots @ ..] = words.as_slice() else { continue };
        let has = |flag: &str| flags.split(',').any(|other| other == flag);
        if has("myself") {
            seen.system_id = Some((*id).to_owned());
            let address = address.split(':').next().unwrap_or_default();
            seen.facts.insert(AT.to_owned(), address.to_owned());
            if *follows != "-" {
                seen.facts.insert(FOLLOWS.to_owned(), (*follows).to_owned());
            }
            ranges = slots.iter().filter(|range| !range.starts_with('[')).copied().collect();
            open = slots.iter().filter_map(|range| range.strip_prefix('[')?.strip_suffix(']')).collect();
        }
        // A node in handshake has an id for the moment only.
        if !has("handshake") {
            knows.insert(*id);
        }
    }
    let count: usize = ranges.iter().map(|range| range_len(range)).sum();
    let mut text = ranges.join(" ");
    if text.len() > RANGES_LEN_MAX {
        text = format!("{count} in {} ranges", ranges.len());
    }
    let state = body["cluster"]["cluster_state"].as_str().unwrap_or("fail");
    let facts = [
        (SLOTS, text),
        (SLOT_COUNT, count.to_string()),
        (KNOWS, knows.into_iter().collect::<Vec<_>>().join(",")),
        (STATE, state.to_owned()),
    ];
    seen.facts.extend(facts.map(|(key, value)| (key.to_owned(), value)));
    open.truncate(OPEN_MAX);
    if !open.is_empty() {
        seen.facts.insert(OPEN.to_owned(), open.join(","));
    }
    count
}

/// Hash slots in `N` or `FROM-TO`.
fn range_len(range: &str) -> usize {
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if to >= from => to - from + 1,
        _ => 0,
    }
}

/// Whether a heartbeat was written; nothing if none of the keys belongs to this member.
fn writes(status: &MemberStatus) -> Option<bool> {
    let answer = parts::answer(status, "write")?;
    let Ok(Value::Object(beats)) = serde_json::from_str(&answer.body) else { return Some(false) };
    // A key of another shard, or of a replica: no answer about writes.
    let elsewhere = |beat: &Value| {
        let error = beat["error"].as_str().unwrap_or_default();
        ["MOVED", "ASK", "READONLY"].iter().any(|word| error.starts_with(word))
    };
    let own: Vec<&Value> = beats.values().filter(|beat| !elsewhere(beat)).collect();
    (!own.is_empty()).then(|| own.iter().all(|beat| **beat == "OK" || beat.is_u64()))
}
