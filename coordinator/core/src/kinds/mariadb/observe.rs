//! What a member says of itself means: role, readiness, detail. Quantised: the same condition gives the same value.

use muster_model::observed::MemberStatus;
use muster_model::spec::ServiceSpec;
use serde_json::Value;

use super::settings::{Mode, Settings};
use crate::kinds::{Observed, parts};

/// Clients write here.
pub const LEADER: &str = "leader";
/// In step with the others.
pub const REPLICA: &str = "replica";
/// Gives a copy of its data to another.
pub const DONOR: &str = "donor";
/// Takes a copy, or what it missed.
pub const JOINING: &str = "joining";
/// Runs without the others: serves nothing.
pub const APART: &str = "apart";
/// The history of a member that has none, or has lost track of it.
pub const NO_HISTORY: &str = "00000000-0000-0000-0000-000000000000";
/// Says a member whose server runs and finds nobody.
pub const WAITS: &str = "waits for the others";
/// Longest of a member's own words that are shown.
const WHY_MAX: usize = 240;
/// A longer queue of foreign writes is not caught up.
const QUEUE_MAX: u64 = 20;
/// Classes in which the reach of the write cache is told, hours.
const REACHES: [u32; 6] = [48, 24, 12, 6, 3, 1];

pub fn interpret(spec: &ServiceSpec, status: &MemberStatus) -> Observed {
    let mut seen = parts::observed(status);
    if !seen.running {
        return seen;
    }
    let Some(said) = parts::answer_json(status, "status") else {
        seen.detail = "does not answer".to_owned();
        return seen;
    };
    let settings = Settings::of(spec);
    let (synced, writer) = (said["synced"] == true, said["writer"] == true);
    let uuid = said["uuid"].as_str().filter(|uuid| synced && *uuid != NO_HISTORY);
    let has_history = uuid.is_some();
    if let Some(uuid) = uuid {
        seen.system_id = Some(uuid.to_owned());
    }
    seen.role = Some(role(&said, synced, writer).to_owned());
    seen.writes = writer.then(|| said["writes"] == true);
    seen.ready = synced && has_history && said["leaving"] != true && seen.writes != Some(false);
    seen.caught_up = seen.ready && said["queue"].as_u64().unwrap_or(0) <= QUEUE_MAX;
    seen.detail = detail(&said, &settings, synced, has_history).join(", ");
    seen
}

fn role(said: &Value, synced: bool, writer: bool) -> &'static str {
    match said["state"].as_str().unwrap_or_default() {
        _ if writer => LEADER,
        _ if synced => REPLICA,
        "Donor/Desynced" => DONOR,
        "Joining" | "Joined" => JOINING,
        state if state.contains("Joining") || state.contains("SST") || state.contains("IST") => JOINING,
        _ => APART,
    }
}

fn detail(said: &Value, settings: &Settings, synced: bool, has_history: bool) -> Vec<String> {
    let mut detail = Vec::new();
    let why = said["why"].as_str().unwrap_or_default();
    if !synced && !why.is_empty() {
        detail.push(why.chars().take(WHY_MAX).collect());
    }
    if synced && !has_history {
        detail.push("has lost track of its history (uuid all zero)".to_owned());
    }
    if synced && said["writer"] == true && said["writes"] != true {
        detail.push("writes do not get through".to_owned());
    }
    if said["leaving"] == true {
        detail.push("stops".to_owned());
    }
    if settings.mode == Mode::Single || !synced {
        return detail;
    }
    if let Some(size) = said["size"].as_u64().filter(|size| *size < u64::from(settings.votes())) {
        let what = if settings.arbitrators() > 0 { "votes" } else { "members" };
        detail.push(format!("sees {size} of {} {what}", settings.votes()));
    }
    if said["queue"].as_u64().is_some_and(|queue| queue > QUEUE_MAX) {
        detail.push("behind".to_owned());
    }
    if let Some(hours) = said["reach_hours"].as_f64() {
        let class = REACHES.into_iter().find(|class| hours >= f64::from(*class));
        detail.push(class.map_or_else(
            || "write cache reaches less than 1 h".to_owned(),
            |class| format!("write cache reaches {class} h or more"),
        ));
    }
    detail
}
