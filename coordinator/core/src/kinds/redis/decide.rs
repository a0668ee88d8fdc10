//! Health, gates and order of a `redis` service, from roles, links and the cluster's own state. Pure; renders nothing.

use std::collections::BTreeMap;

use muster_model::ids::MemberId;
use muster_model::plan::{Act, Ask, Guard, Predicate, Probe, Task, TaskKind};
use muster_model::view::{Health, HealthWord};

use super::cluster::{self, Node, master_of, masters_by_host, nodes};
use super::settings::{Mode, Settings};
use super::{render, replicated, term};
use crate::kinds::{MemberFacts, ServiceFacts, Survivability, UpdateStep, Wait, parts};

/// The cluster's own votes take this long at most once they have begun.
const FAILOVER_TIMEOUT_MS: u64 = 8_000;

/// Every hash slot has a master that serves, and everybody agrees. Shards that came or are to go meanwhile have no part
/// in it: their hash slots move once there is a cluster.
pub fn is_formed(service: &ServiceFacts<'_>, settings: &Settings) -> bool {
    let nodes = nodes(service);
    let good =
        |node: &Node<'_>| node.ok && (parts::is_ready(node.fact) || cluster::is_idle(&nodes, node.shard()));
    cluster::all_there(&nodes, settings) && cluster::is_covered(&nodes) && nodes.iter().all(good)
}

pub fn health(service: &ServiceFacts<'_>, settings: &Settings) -> Health {
    let mut reasons: Vec<String> = service
        .members
        .iter()
        .filter(|member| !parts::is_ready(member))
        .map(|member| parts::why_not_ready(service, member))
        .collect();
    let slots = service.slots as usize;
    if service.members.len() < slots {
        reasons.push(format!("{} of {slots} members are placed", service.members.len()));
    }
    let seen = service.members.iter().filter(|member| member.seen.is_some()).count();
    if settings.mode == Mode::Single {
        let word = match service.members.first() {
            Some(member) if parts::is_ready(member) => HealthWord::Healthy,
            _ if seen == 0 => HealthWord::Unknown,
            _ => HealthWord::Down,
        };
        return parts::health(word, reasons);
    }
    if !service.formed {
        reasons.insert(0, format!("{} is being made", service.name));
        return parts::health(HealthWord::Down, reasons);
    }
    if settings.mode == Mode::Replicated {
        return replicated::health(service, settings, reasons);
    }
    if seen < parts::majority(slots) {
        return parts::health(HealthWord::Unknown, reasons);
    }
    let word = serving(service, settings, &mut reasons);
    parts::health(word, reasons)
}

/// The word of a cluster that exists: the worst that any of its conditions asks for.
fn serving(service: &ServiceFacts<'_>, settings: &Settings, reasons: &mut Vec<String>) -> HealthWord {
    let nodes = nodes(service);
    let missing = service.members.iter().any(|member| !parts::is_ready(member));
    let unplaced = service.members.len() < service.slots as usize;
    let mut word = if missing || unplaced { HealthWord::Degraded } else { HealthWord::Healthy };
    let mut at_least = |worse: HealthWord, reason: String| {
        word = word.max(worse);
        reasons.push(reason);
    };
    if nodes.iter().filter(|node| !node.ok).count() * 2 > nodes.len() {
        at_least(HealthWord::Down, "the members see the cluster as failed".to_owned());
    }
    for shard in 1..=settings.shards {
        let replicas = nodes.iter().filter(|node| node.shard() == shard && node.in_sync()).count();
        match master_of(&nodes, shard) {
            None if cluster::empty_master(&nodes, shard).is_some() => {
                at_least(HealthWord::Degraded, format!("shard {shard} has no hash slots yet"));
            }
            None => at_least(HealthWord::Down, format!("shard {shard} has no master")),
            Some(master) if !parts::is_ready(master.fact) => {
                at_least(HealthWord::Down, format!("shard {shard} takes no writes"));
            }
            Some(_) if replicas == 0 => {
                at_least(
                    HealthWord::Critical,
                    format!("shard {shard} is on one host only: no replica is in sync"),
                );
            }
            Some(_) => {}
        }
    }
    for (host, masters) in masters_by_host(&nodes) {
        let name = service.members.iter().find(|m| m.host == *host).map_or("?", |m| m.host_name.as_str());
        let count = masters.len();
        if count > 1 && count * 2 >= settings.shards as usize {
            let why = format!(
                "host {name} has {count} of {} masters: without it nobody is elected",
                settings.shards
            );
            at_least(HealthWord::Critical, why);
        } else if count > 1 {
            at_least(HealthWord::Degraded, format!("host {name} has {count} masters"));
        }
    }
    word
}

/// Whether the member in this slot takes writes, in a cluster for hash slots.
pub fn leads(service: &ServiceFacts<'_>, settings: &Settings, slot: u32) -> bool {
    if settings.mode == Mode::Replicated {
        return term::leader(service).is_some_and(|leader| leader.slot == slot);
    }
    nodes(service).iter().any(|node| node.fact.slot == slot && node.leads())
}

/// The first of the masters.
pub fn leader(service: &ServiceFacts<'_>, settings: &Settings) -> Option<u32> {
    if settings.mode == Mode::Replicated {
        return term::leader(service).filter(|leader| parts::is_ready(leader)).map(|leader| leader.slot);
    }
    let nodes = nodes(service);
    let ready = |node: &&Node<'_>| node.leads() && parts::is_ready(node.fact);
    nodes.iter().find(ready).map(|node| node.fact.slot)
}

/// The replica that takes the place of the master in `slot`.
pub fn heir(service: &ServiceFacts<'_>, settings: &Settings, slot: u32) -> Option<u32> {
    if settings.mode == Mode::Replicated {
        return replicated::heir(service, settings);
    }
    let nodes = nodes(service);
    let hosts = masters_by_host(&nodes);
    let here = cluster::shard_of(slot);
    let fits = nodes.iter().filter(|n| n.shard() == here && n.fact.slot != slot && n.in_sync());
    let load = |node: &Node<'_>| hosts.get(&node.fact.host).map_or(0, Vec::len);
    fits.min_by_key(|n| (!n.fact.current, load(n), n.fact.slot)).map(|node| node.fact.slot)
}

/// A step that takes `member` away for a moment is safe: everything else stands, and it takes no writes.
pub fn may_stop(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> Result<(), Wait> {
    if settings.mode == Mode::Single {
        return Ok(());
    }
    let row = service.members.iter().find(|m| m.member == member);
    if let Some(row) = row.filter(|row| leads(service, settings, row.slot)) {
        let heir = heir(service, settings, row.slot).map_or_else(String::new, |slot| format!(" --to {slot}"));
        return Err(Wait(format!(
            "it is a master: `muster service switchover {}{heir}` first",
            service.name
        )));
    }
    others_ready(service, settings, member)
}

/// Whether everybody else serves who has a part in it.
fn others_ready(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> Result<(), Wait> {
    match missing(service, settings).into_iter().find(|other| other.member != member) {
        Some(other) => Err(Wait(parts::why_not_ready(service, other))),
        None => Ok(()),
    }
}

/// Members that do not serve, without those that answer and whose shard has no hash slots: they get some, or leave, only once no
/// operation holds the service, so nothing may wait for them.
fn missing<'a>(service: &'a ServiceFacts<'_>, settings: &Settings) -> Vec<&'a MemberFacts> {
    let nodes = if settings.mode == Mode::Cluster { nodes(service) } else { Vec::new() };
    let answers = |m: &MemberFacts| nodes.iter().any(|node| node.fact.member == m.member);
    let idle = |m: &MemberFacts| answers(m) && cluster::is_idle(&nodes, cluster::shard_of(m.slot));
    service.members.iter().filter(|m| !parts::is_ready(m) && !idle(m)).collect()
}

/// A member that was re-created is done with when it serves, or runs where it has nothing to serve.
pub fn settled(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> bool {
    let Some(row) = service.members.iter().find(|m| m.member == member) else { return false };
    let good = row.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up);
    let nodes = nodes(service);
    let answers = nodes.iter().any(|node| node.fact.member == member);
    good || settings.mode == Mode::Cluster && answers && cluster::is_idle(&nodes, cluster::shard_of(row.slot))
}

/// A member that is no longer wanted leaves once it has no hash slots; then the others forget it.
///
/// Replicas too stay until the shards that remain have everything: a shard that is being emptied must not have one copy only.
pub fn may_retire(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> Result<(), Wait> {
    if settings.mode == Mode::Cluster {
        let stays = cluster::numbers(settings);
        let nodes = nodes(service);
        let owned: u32 =
            nodes.iter().filter(|n| n.leads() && stays.contains(&n.fact.slot)).map(|n| n.slots).sum();
        if owned < cluster::HASH_SLOTS {
            let lacking = cluster::HASH_SLOTS - owned;
            return Err(Wait(format!("{lacking} hash slots are not at the members that stay")));
        }
    }
    match service.members.iter().find(|m| m.member == member) {
        Some(row) if leads(service, settings, row.slot) => {
            let what = if settings.mode == Mode::Cluster { "has hash slots" } else { "leads" };
            Err(Wait(format!("{}/{} {what}", service.name, row.slot)))
        }
        // The whole shard goes: until its hash slots have moved, its replica is their only other copy.
        Some(row) if settings.mode == Mode::Cluster && leaves_with_slots(service, settings, row.slot) => {
            Err(Wait(format!("shard {} has hash slots", cluster::shard_of(row.slot))))
        }
        // Others that leave with it keep nobody waiting.
        _ => match service.members.iter().find(|other| {
            let stays = match settings.mode {
                Mode::Cluster => cluster::numbers(settings).contains(&other.slot),
                Mode::Single | Mode::Replicated => other.slot <= settings.members(),
            };
            other.member != member && stays && !parts::is_ready(other)
        }) {
            Some(other) => Err(Wait(parts::why_not_ready(service, other))),
            None => Ok(()),
        },
    }
}

fn leaves_with_slots(service: &ServiceFacts<'_>, settings: &Settings, slot: u32) -> bool {
    let shard = cluster::shard_of(slot);
    shard > settings.shards && nodes(service).iter().any(|node| node.shard() == shard && node.leads())
}

/// A new member copies the master of its shard; the others forget the old one.
pub fn may_replace(service: &ServiceFacts<'_>, settings: &Settings, member: MemberId) -> Result<(), Wait> {
    let lost = |why: &str| Err(Wait(why.to_owned()));
    if settings.mode == Mode::Single {
        return lost("it is the only copy of its data");
    }
    if settings.mode == Mode::Replicated {
        return replicated::may_replace(service, member);
    }
    let Some(slot) = service.members.iter().find(|m| m.member == member).map(|m| m.slot) else {
        return lost("it is not known");
    };
    let nodes = nodes(service);
    match master_of(&nodes, cluster::shard_of(slot)) {
        Some(master) if master.fact.member != member && parts::is_ready(master.fact) => Ok(()),
        _ => lost("its shard has no other member that takes writes"),
    }
}

/// Members that do not serve, replicas, then each master after it gave its role away.
pub fn next_update(service: &ServiceFacts<'_>, settings: &Settings) -> UpdateStep {
    if settings.mode == Mode::Single {
        return parts::one_at_a_time(service, |_| Ok(()));
    }
    let leads = |member: &MemberFacts| leads(service, settings, member.slot);
    let outdated = || service.members.iter().filter(|member| !member.current);
    let waits = |m: &MemberFacts| settings.mode == Mode::Replicated && replicated::waits(service, m);
    if let Some(broken) = outdated().find(|m| parts::is_broken(service, m) && !leads(m) && !waits(m)) {
        return UpdateStep::Recreate(broken.member);
    }
    if let Some(waiting) = missing(service, settings).first() {
        return UpdateStep::Wait(parts::why_not_ready(service, waiting));
    }
    let Some(next) = outdated().min_by_key(|member| (leads(member), member.slot)) else {
        return UpdateStep::Done;
    };
    if leads(next) {
        let heir = heir(service, settings, next.slot);
        let to = heir.and_then(|slot| service.members.iter().find(|member| member.slot == slot));
        return match to {
            Some(to) => UpdateStep::Switch { from: next.member, to: to.member },
            None => {
                UpdateStep::Wait(format!("{}/{} has no replica that is in sync", service.name, next.slot))
            }
        };
    }
    match may_stop(service, settings, next.member) {
        Ok(()) => UpdateStep::Recreate(next.member),
        Err(Wait(why)) => UpdateStep::Wait(why),
    }
}

/// The task that makes the member in slot `to` the master of its shard, with the old master's help: nothing is lost.
pub fn switchover(service: &ServiceFacts<'_>, settings: &Settings, to: Option<u32>) -> Result<Task, Wait> {
    if settings.mode == Mode::Single {
        return Err(Wait("a single member has nobody to give its role to".to_owned()));
    }
    if settings.mode == Mode::Replicated {
        return replicated::switchover(service, settings, to);
    }
    let nodes = nodes(service);
    let Some(slot) = to else {
        let replicas: Vec<String> = nodes
            .iter()
            .filter(|n| n.in_sync())
            .map(|n| format!("--to {} (shard {})", n.fact.slot, n.shard()))
            .collect();
        let replicas = replicas.join(", ");
        return Err(Wait(format!(
            "every shard has a master of its own: say which replica takes over: {replicas}"
        )));
    };
    let Some(node) = nodes.iter().find(|node| node.fact.slot == slot) else {
        return Err(Wait(format!("{}/{slot} is not seen", service.name)));
    };
    if node.leads() {
        return Err(Wait(format!("{}/{slot} is the master of its shard already", service.name)));
    }
    if !node.in_sync() {
        return Err(Wait(format!("{}/{slot} is not in sync with its master", service.name)));
    }
    Ok(promote(service, node))
}

/// Makes a replica that is in sync the master of its shard.
pub fn promote(service: &ServiceFacts<'_>, node: &Node<'_>) -> Task {
    let recent = ["0", "1"].map(|seconds| parts::equals("/info/master_last_io_seconds_ago", seconds));
    let accept = Predicate::All(vec![
        parts::equals("/info/role", "slave"),
        parts::equals("/info/master_link_status", "up"),
        parts::equals("/info/master_sync_in_progress", "0"),
        parts::equals("/cluster/cluster_state", "ok"),
        Predicate::Any(recent.to_vec()),
    ]);
    let ask = Ask::Resp(render::admin(service.name, vec![render::info(), render::cluster_info()]));
    Task {
        id: muster_model::ids::TaskId(0),
        member: node.fact.member,
        guard: Some(Guard {
            name: format!("{}/{} follows its master without lag", service.name, node.fact.slot),
            probe: Probe { timeout_ms: 2_000, ask },
            accept,
        }),
        what: TaskKind::Act {
            act: Act::Resp(render::admin(service.name, vec![render::call("failover", "CLUSTER FAILOVER")])),
        },
        timeout_ms: FAILOVER_TIMEOUT_MS,
    }
}

pub fn survivability(service: &ServiceFacts<'_>, settings: &Settings) -> Survivability {
    let mut result = Survivability::default();
    let mut stop = |host: &muster_model::ids::HostId, why: String| {
        result.stops_writes.entry(host.clone()).or_insert_with(|| why.clone());
        result.stops_reads.entry(host.clone()).or_insert(why);
    };
    if settings.mode == Mode::Single {
        for (host, _) in parts::left_without_host(service.members.iter()) {
            stop(&host, format!("no other member of {} is left", service.name));
        }
        result.may_lose =
            "everything, with the disk of its one host; with that host's power what was written in the \
                           last second"
                .to_owned();
        return result;
    }
    if settings.mode == Mode::Replicated {
        return replicated::survivability(service);
    }
    let nodes = nodes(service);
    // Before anybody was seen, or while a shard's master is not: the one that it will be.
    let master =
        |shard: u32| master_of(&nodes, shard).map_or_else(|| cluster::home(shard), |node| node.fact.slot);
    let masters: BTreeMap<u32, u32> = (1..=settings.shards).map(|shard| (master(shard), shard)).collect();
    let hosts: std::collections::BTreeSet<_> = service.members.iter().map(|member| &member.host).collect();
    for host in hosts {
        let left: Vec<&MemberFacts> =
            service.members.iter().filter(|m| m.host_up && m.host != *host).collect();
        for shard in 1..=settings.shards {
            if !left.iter().any(|member| cluster::shard_of(member.slot) == shard) {
                stop(host, format!("no other member of shard {shard} is left"));
            }
        }
        let voters = left.iter().filter(|member| masters.contains_key(&member.slot)).count();
        if voters < parts::majority(settings.shards as usize) {
            stop(host, format!("{voters} of {} masters are left, too few to elect another", settings.shards));
        }
    }
    let timeout = muster_model::spec::Span(settings.node_timeout);
    result.may_lose = format!(
        "acknowledged writes when a master is lost: those that its replicas had not received yet (usually the last \
         milliseconds), and those that a master took while it was cut off from the others (up to {timeout})"
    );
    result
}
