//! How a Redis service takes new passwords: a user may have two, so every member accepts both until all accept the new one.

use muster_model::plan::{Act, Ask, Guard, Predicate, Probe, RespAsk, RespCall, TaskKind, next_secret};

use super::render::{self, ADMIN, REPLICA, USERS_MS};
use super::{PORT, metrics};
use crate::command::TaskDraft;
use crate::kinds::metrics::WHAT;
use crate::kinds::rotate::{CONFIRMED_MAX, Rotation, action, check, what};
use crate::kinds::{ServiceFacts, Wait, tls};

const TIMEOUT_MS: u64 = 5_000;

pub fn rotation(what: &str) -> Result<Rotation, Wait> {
    Ok(Rotation::smooth(match what {
        "admin" | "replica" | WHAT => "clients see nothing: only the platform and the members use it",
        _ => {
            "open connections stay; both passwords are good until every member takes the new one, then only that"
        }
    }))
}

/// The user that logs in with a secret.
fn user(what: &str) -> &str {
    match what {
        "admin" => ADMIN,
        "replica" => REPLICA,
        WHAT => metrics::USER,
        other => other.strip_prefix("user-").unwrap_or(other),
    }
}

/// The certificate is none: members read it anew by themselves.
fn passwords(secrets: &[String]) -> Vec<&String> {
    secrets.iter().filter(|name| what(name) != tls::WHAT).collect()
}

pub fn introduce(service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
    let words = |words: Vec<String>| RespCall { words, ..render::call("", "") };
    let calls = |(at, name): (usize, &String)| RespCall {
        name: at.to_string(),
        ..words(vec![
            "ACL".to_owned(),
            "SETUSER".to_owned(),
            user(what(name)).to_owned(),
            format!(">${{secret:{}}}", next_secret(name)),
        ])
    };
    let secrets = passwords(secrets);
    let accept: Vec<RespCall> = secrets.iter().copied().enumerate().map(calls).collect();
    let login = secrets.iter().find(|name| what(name) == "replica").map(|name| RespCall {
        name: "masterauth".to_owned(),
        ..words(vec![
            "CONFIG".to_owned(),
            "SET".to_owned(),
            "masterauth".to_owned(),
            format!("${{secret:{}}}", next_secret(name)),
        ])
    });
    // All members accept the new one before the first of them logs in with it.
    let rounds =
        [("accepts the new passwords", accept), ("follows with the new one", login.into_iter().collect())];
    let mut tasks = Vec::new();
    for (verb, calls) in rounds.into_iter().filter(|(_, calls)| !calls.is_empty()) {
        tasks.extend(service.members.iter().map(|member| {
            let what = TaskKind::Act { act: Act::Resp(render::admin(service.name, calls.clone())) };
            let task = TaskDraft { member: member.member, guard: None, what, timeout_ms: TIMEOUT_MS };
            (format!("{}/{} {verb}", service.name, member.slot), task)
        }));
    }
    tasks
}

pub fn enforce(service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
    let only = |member: &crate::kinds::MemberFacts| {
        let label = format!("{}/{} takes the new passwords only", service.name, member.slot);
        (label, action(member.member, "users", USERS_MS))
    };
    let concerned = !passwords(secrets).is_empty();
    service.members.iter().filter(|_| concerned).map(only).collect()
}

pub fn confirm(service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
    let Some(member) = service.members.first() else { return Vec::new() };
    let logins = passwords(secrets).into_iter().map(|name| {
        let user = user(what(name));
        let ask = RespAsk {
            port: PORT,
            user: user.to_owned(),
            secret: name.clone(),
            calls: vec![render::call("ping", "PING")],
        };
        let guard = Guard {
            name: format!("{user} logs in with the new password"),
            probe: Probe { timeout_ms: 2_000, ask: Ask::Resp(ask) },
            accept: Predicate::Ok,
        };
        (guard.name.clone(), check(member.member, guard))
    });
    logins.take(CONFIRMED_MAX).collect()
}
