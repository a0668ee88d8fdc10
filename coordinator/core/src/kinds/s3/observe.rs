//! What a member's probes mean. Quantised: the same condition gives the same value.

use muster_model::observed::MemberStatus;
use serde_json::Value;

use crate::kinds::{Observed, parts};

/// Fact: without it the others could not write, or a drive is being filled.
pub const NEEDED: &str = "needed";
/// Fact: it answers, but takes no object; perhaps it has not met enough others that are as it is.
pub const WAITING: &str = "waiting";
/// Begins the detail of a member whose drive is being filled.
pub const HEALS: &str = "heals";
/// The detail of a member that lets everybody in.
pub const KNOWN_LOGIN: &str = "lets in the login that everybody knows";

/// Longest reason in a detail, in characters.
const REASON_MAX: usize = 120;

pub fn interpret(status: &MemberStatus) -> Observed {
    let mut seen = parts::observed(status);
    if !seen.running {
        return seen;
    }
    let ok = |probe| parts::answer(status, probe).map(|answer| answer.ok);
    let canary = ok("canary");
    let mut detail = Vec::new();
    if ok("known") == Some(true) {
        detail.push(KNOWN_LOGIN.to_owned());
    }
    let drives = drives(status);
    let known = drives.is_some();
    let (healing, offline) = drives.unwrap_or_default();
    seen.writes = canary;
    seen.ready = canary == Some(true) && ok("gate") == Some(true);
    // Not to know whether it heals is not to know that it is whole.
    seen.caught_up = seen.ready && known && healing.is_none() && !offline;
    if ok("spare").is_some_and(|spare| !spare) {
        seen.facts.insert(NEEDED.to_owned(), "yes".to_owned());
    }
    if ok("live") == Some(true) && canary != Some(true) {
        seen.facts.insert(WAITING.to_owned(), "yes".to_owned());
    }
    if let Some(healing) = healing {
        detail.push(healing);
    } else if offline {
        detail.push("a drive of its own is offline".to_owned());
    }
    match parts::answer(status, "canary") {
        Some(answer) if answer.ok && !seen.ready => detail.push("not given requests yet".to_owned()),
        Some(answer) if answer.ok => {}
        None => detail.push("no canary yet".to_owned()),
        Some(answer) => {
            let why: String = answer.body.chars().take(REASON_MAX).collect();
            detail.push(format!("canary failed: {why}"));
        }
    }
    seen.detail = detail.join(", ");
    seen
}

/// Of the member's own drives: how far healing is, in steps of ten percent; and whether one is offline.
/// Nothing if the server did not say.
fn drives(status: &MemberStatus) -> Option<(Option<String>, bool)> {
    let body = parts::answer_json(status, "status")?;
    let me = format!("{}-{}:", status.slot.service, status.slot.index);
    let mine = |drive: &&Value| drive["server"].as_str().is_some_and(|server| server.starts_with(&me));
    let drives: Vec<&Value> = body["drives"].as_array().into_iter().flatten().filter(mine).collect();
    let offline = drives.iter().any(|drive| !matches!(drive["state"].as_str(), Some("ok" | "")));
    let healing = drives.iter().find(|drive| drive.get("healed").is_some());
    let progress = healing.map(|drive| {
        let number = |key: &str| drive[key].as_u64().unwrap_or(0);
        match number("total") {
            0 => HEALS.to_owned(),
            total => format!("{HEALS}, {} %", (number("healed") * 10 / total).min(9) * 10),
        }
    });
    Some((progress, offline))
}
