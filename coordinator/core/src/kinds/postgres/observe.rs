//! What a Patroni member's probes mean: role, readiness, lag class. Quantised: the same condition gives the same value.

use muster_model::observed::MemberStatus;
use serde_json::Value;

use crate::kinds::versions::VERSION;
use crate::kinds::{Observed, parts};

/// Holds the lock and takes writes.
pub const LEADER: &str = "leader";
/// Has every acknowledged row.
pub const SYNC_STANDBY: &str = "sync_standby";
/// Follows.
pub const REPLICA: &str = "replica";
/// Part of the detail of a member of a paused cluster.
pub const PAUSED: &str = "paused";
/// Part of the detail of a replica that runs without its leader.
pub const NOT_STREAMING: &str = "does not stream";
/// The fact that a parameter takes effect only after a restart, as the server itself says.
pub const ASKS_FOR_RESTART: &str = "asks-for-restart";
/// A replica that is behind by more is not caught up, in bytes.
const LAG_MAX: u64 = 16 * parts::MIB;

pub fn interpret(status: &MemberStatus) -> Observed {
    let mut seen = parts::observed(status);
    if !seen.running {
        return seen;
    }
    // Patroni answers 503 on some members that are there; the body counts.
    let body: Option<Value> =
        parts::answer(status, "patroni").and_then(|answer| serde_json::from_str(&answer.body).ok());
    let Some(body) = body else {
        seen.detail = "Patroni does not answer".to_owned();
        return seen;
    };
    // 150020 is 15.20.
    let version = body["server_version"].as_u64().map(|n| format!("{}.{}", n / 10_000, n % 10_000));
    seen.facts.extend(version.map(|version| (VERSION.to_owned(), version)));
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    if seen.system_id.is_none() {
        seen.system_id = text("/database_system_identifier").map(str::to_owned);
    }
    let state = text("/state").unwrap_or("unknown");
    let streaming = text("/replication_state") == Some("streaming");
    let role = match text("/role") {
        Some("primary" | "master") => LEADER,
        _ if body["sync_standby"] == true => SYNC_STANDBY,
        _ => REPLICA,
    };
    let mut detail = Vec::new();
    if role == LEADER {
        seen.writes = parts::answer(status, "write").map(beats);
        seen.ready = state == "running" && seen.writes == Some(true);
        seen.caught_up = seen.ready;
        if state == "running" && seen.writes == Some(false) {
            detail.push("writes do not get through".to_owned());
        }
    } else {
        seen.ready = state == "running" && streaming;
        seen.caught_up = seen.ready && lag(status).is_some_and(|lag| lag <= LAG_MAX);
        match (state, streaming) {
            ("running", false) => detail.push(NOT_STREAMING.to_owned()),
            ("running", true) if !seen.caught_up => detail.push("far behind".to_owned()),
            _ => {}
        }
    }
    if state != "running" {
        detail.push(state.to_owned());
    } else if let Some(timeline) = body["timeline"].as_u64() {
        detail.push(format!("timeline {timeline}"));
    }
    if body["pending_restart"] == true {
        detail.push("a parameter waits for a restart".to_owned());
        seen.facts.insert(ASKS_FOR_RESTART.to_owned(), "yes".to_owned());
    }
    if body["pause"] == true {
        detail.push(PAUSED.to_owned());
    }
    seen.role = Some(role.to_owned());
    seen.detail = detail.join(", ");
    seen
}

/// The write-path probe's row is a number where a heartbeat was committed.
fn beats(answer: &muster_model::observed::Answer) -> bool {
    let row: Option<Vec<String>> = serde_json::from_str(&answer.body).ok();
    answer.ok && row.is_some_and(|row| row.first().is_some_and(|beats| beats.parse::<u64>().is_ok()))
}

/// How far this member is behind, as the cluster's own view says; the name is the only link to it.
fn lag(status: &MemberStatus) -> Option<u64> {
    let me = parts::member_name(&status.slot.service, status.slot.index, status.member);
    let cluster = parts::answer_json(status, "cluster")?;
    let members = cluster["members"].as_array()?;
    members.iter().find(|member| member["name"] == me.as_str())?["lag"].as_u64()
}
