//! How the leading role moves: the release of a stopped leader's lock, and a switchover. Both are data with guards.

use std::net::SocketAddr;

use muster_model::ids::{MemberId, Name, TaskId};
use muster_model::plan::{Act, Ask, Guard, Predicate, Probe, ReleaseSpec, Task, TaskKind};
use serde_json::{Value, json};

use super::settings::Settings;
use super::{REST_PORT, render};
use crate::kinds::{RenderContext, etcd, parts};

/// Largest lag of a candidate, in bytes.
const LAG_MAX: f64 = 1_048_576.0;
/// Restarts in place that must fail before the lock is released without a synchronous standby.
const HOPELESS_AFTER: u32 = 3;
/// Patroni answers when it is over; it gives up after its ttl.
const SWITCHOVER_TIMEOUT_MS: u64 = 45_000;

/// Deletes the lock of this member, if it has it, once its container is confirmed to have stopped.
///
/// The guard holds while the record of synchronous standbys names this member as leader and one that streams: then that
/// one has every acknowledged row. Without synchronous mode the record is not there, and the member is restarted in
/// place.
pub fn release(context: &RenderContext<'_>, settings: &Settings) -> ReleaseSpec {
    let (endpoints, prefix) = lock_store(context, settings);
    let me = parts::member_name(context.service, context.me.slot, context.me.member);
    let standby = |name: &str| {
        // `/` is written `~1` in a pointer.
        let member = format!("/members~1{name}");
        Predicate::All(vec![
            parts::equals("/sync/sync_standby", name),
            parts::equals(format!("{member}/state"), "running"),
            parts::equals(format!("{member}/replication_state"), "streaming"),
        ])
    };
    let others = context.peers.iter().filter(|peer| peer.member != context.me.member);
    let accept = Predicate::All(vec![
        parts::equals("/leader", &me),
        parts::equals("/sync/leader", &me),
        Predicate::Any(
            others
                .map(|peer| standby(&parts::member_name(context.service, peer.slot, peer.member)))
                .collect(),
        ),
    ]);
    let ask = Ask::EtcdRange { endpoints: endpoints.clone(), prefix: prefix.clone() };
    ReleaseSpec {
        guard: Guard {
            name: "a synchronous standby streams".to_owned(),
            probe: Probe { timeout_ms: 1_000, ask },
            accept,
        },
        act: Act::EtcdDelete { endpoints, key: format!("{prefix}leader"), value: me },
        timeout_ms: 3_000,
        hopeless_after: HOPELESS_AFTER,
    }
}

/// Where the lock is: members of etcd to try in turn, and the prefix of its keys.
fn lock_store(context: &RenderContext<'_>, settings: &Settings) -> (Vec<SocketAddr>, String) {
    // The one on this host first: another host may be dark, and each try of it costs time.
    let mut locks: Vec<_> = render::etcd_peers(context).collect();
    locks.sort_by_key(|peer| (peer.host != context.me.host, peer.slot));
    let endpoints = locks
        .into_iter()
        .map(|peer| SocketAddr::from((parts::address(peer, &settings.network), etcd::CLIENT_PORT)))
        .collect();
    (endpoints, format!("/muster/{}/{}/", context.platform_id, context.service))
}

/// Holds while this member does not have the lock, somebody else has it, and, among three or more, another replica
/// streams. Absent for a member that is alone.
pub fn stop_guard(context: &RenderContext<'_>, settings: &Settings) -> Option<Guard> {
    let names = |peer: &crate::kinds::Peer| parts::member_name(context.service, peer.slot, peer.member);
    let others: Vec<String> =
        context.peers.iter().filter(|peer| peer.member != context.me.member).map(names).collect();
    if others.is_empty() {
        return None;
    }
    let (endpoints, prefix) = lock_store(context, settings);
    let leads = |name: &String| parts::equals("/leader", name);
    let streams = |name: &String| parts::equals(format!("/members~1{name}/replication_state"), "streaming");
    let mut accept = vec![Predicate::Any(others.iter().map(leads).collect())];
    if others.len() > 1 {
        accept.push(Predicate::Any(others.iter().map(streams).collect()));
    }
    Some(Guard {
        name: "another member leads, and another one streams".to_owned(),
        probe: Probe { timeout_ms: 2_000, ask: Ask::EtcdRange { endpoints, prefix } },
        accept: Predicate::All(accept),
    })
}

/// The task that moves the lock from one member to another, if the candidate is good at that moment.
pub fn switchover(service: &Name, settings: &Settings, from: (u32, MemberId), to: (u32, MemberId)) -> Task {
    let leader = parts::member_name(service, from.0, from.1);
    let candidate = parts::member_name(service, to.0, to.1);
    let role = if settings.synchronous { "sync_standby" } else { "replica" };
    let member = |parts: Vec<Predicate>| Predicate::Count {
        pointer: "/members".to_owned(),
        accept: Box::new(Predicate::All(parts)),
        at_least: 1,
    };
    let accept = Predicate::All(vec![
        member(vec![parts::equals("/name", &leader), parts::equals("/role", "leader")]),
        member(vec![
            parts::equals("/name", &candidate),
            parts::equals("/role", role),
            parts::equals("/state", "streaming"),
            Predicate::AtMost { pointer: "/lag".to_owned(), value: LAG_MAX },
        ]),
        Predicate::Not(Box::new(Predicate::Equals {
            pointer: "/pause".to_owned(),
            value: Value::Bool(true),
        })),
    ]);
    let ask = Ask::Http(parts::http("GET", REST_PORT, "/cluster"));
    let body = json!({ "leader": leader, "candidate": candidate }).to_string();
    Task {
        id: TaskId(0),
        member: from.1,
        guard: Some(Guard {
            name: format!("{candidate} streams, and the cluster is not paused"),
            probe: Probe { timeout_ms: 3_000, ask },
            accept,
        }),
        what: TaskKind::Act { act: Act::Http(render::patroni_post(service, "/switchover", Some(body))) },
        timeout_ms: SWITCHOVER_TIMEOUT_MS,
    }
}
