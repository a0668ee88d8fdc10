//! How a PostgreSQL service takes new passwords. A role has one at a time: the leader is given the new one by
//! `converge.py`, Patroni reads its own anew. Sessions that are open are never asked again.

use muster_model::plan::{Ask, Guard, Predicate, Probe, SqlAsk};

use super::decide;
use super::render::{self, CONVERGE_MS, RELOAD_MS};
use crate::command::TaskDraft;
use crate::kinds::rotate::{CONFIRMED_MAX, Rotation, action, check, what};
use crate::kinds::{ServiceFacts, Wait, metrics};

/// Begins the name of a user's secret.
const USER: &str = "user-";
/// What Patroni itself logs in with, or is asked with.
const PATRONIS: [&str; 4] = ["superuser", "replication", "rewind", "restapi"];

pub fn rotation(what: &str) -> Result<Rotation, Wait> {
    Ok(Rotation::smooth(if what.starts_with(USER) {
        "open sessions stay; a role has one password, so a new login with the old one is refused within a second"
    } else {
        "clients see nothing: only the platform uses it"
    }))
}

pub fn enforce(service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
    let leader = decide::leader(service).map(|leader| {
        let label = format!("{}/{} is given the new passwords", service.name, leader.slot);
        (label, action(leader.member, "converge", CONVERGE_MS))
    });
    let patronis = secrets.iter().any(|name| PATRONIS.contains(&what(name)));
    let reloads = service.members.iter().filter(|_| patronis).map(|member| {
        let label = format!("Patroni of {}/{} reads its passwords", service.name, member.slot);
        (label, action(member.member, "reload", RELOAD_MS))
    });
    leader.into_iter().chain(reloads).collect()
}

pub fn confirm(service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
    let Some(leader) = decide::leader(service) else { return Vec::new() };
    let logins = secrets.iter().filter_map(|name| {
        let user = match what(name) {
            "probe" => render::PROBE_USER,
            metrics::WHAT => metrics::USER,
            what => what.strip_prefix(USER)?,
        };
        let ask = Ask::Sql(SqlAsk {
            secret: name.clone(),
            user: user.to_owned(),
            ..render::sql(service.name, "SELECT 1")
        });
        let guard = Guard {
            name: format!("{user} logs in with the new password"),
            probe: Probe { timeout_ms: 3_000, ask },
            accept: Predicate::Ok,
        };
        Some((guard.name.clone(), check(leader.member, guard)))
    });
    logins.take(CONFIRMED_MAX).collect()
}
