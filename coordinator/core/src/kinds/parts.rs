//! Small parts of a rendered member and of judgements that several kinds share. Decides nothing of one kind alone.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::{HostId, MemberId, Name};
use muster_model::network::{Audience, Protocol};
use muster_model::observed::{Answer, ContainerState, MemberStatus};
use muster_model::plan::{Ask, FileSpec, HttpAsk, Limits, OnChange, PortSpec, Predicate, Probe, ProbeSpec};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::time::Millis;
use muster_model::view::{Health, HealthWord, Scheduling};

use super::settings::Fields;
use super::{MemberFacts, Observed, Peer, Problem, ServiceFacts, UpdateStep};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// The smallest memory limit that is accepted.
const MEMORY_MIN: u64 = 16 * MIB;

/// What a member calls itself in its engine. Contains the member's number: one that was replaced and comes back late must
/// never be taken for the new one in its slot, least of all by itself.
pub fn member_name(service: &Name, slot: u32, member: MemberId) -> String {
    format!("{service}-{slot}-{member}")
}

/// Members that make a majority of `count`.
pub const fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The kind's default limits, with what the spec says instead.
pub fn limits(spec: &ServiceSpec, default: &Limits) -> Limits {
    let millis = |cpus: f64| (cpus * 1000.0).round().clamp(1.0, f64::from(u32::MAX)) as u32;
    Limits {
        memory_bytes: spec.resources.memory.map_or(default.memory_bytes, |size| size.0),
        cpu_millis: spec.resources.cpus.map_or(default.cpu_millis, millis),
        pids: spec.resources.pids.unwrap_or(default.pids),
        shm_bytes: default.shm_bytes,
    }
}

/// Judges the limits; `memory_min` is what the kind cannot run without.
pub fn judge_resources(spec: &ServiceSpec, memory_min: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |path: &str, message: String, help: String| {
        problems.push(Problem { path: format!("resources.{path}"), message, help });
    };
    let least = memory_min.max(MEMORY_MIN) / MIB;
    if let Some(memory) = spec.resources.memory.filter(|memory| memory.0 < least * MIB) {
        refuse(
            "memory",
            format!("{memory} is too little for this kind"),
            format!("write {least}MiB or more"),
        );
    }
    if let Some(cpus) = spec.resources.cpus.filter(|cpus| !(0.01..=1024.0).contains(cpus)) {
        refuse(
            "cpus",
            format!("{cpus} cores make no limit"),
            "write for example 0.5, at least 0.01".to_owned(),
        );
    }
    if let Some(pids) = spec.resources.pids.filter(|pids| *pids < 16) {
        refuse("pids", format!("{pids} processes are too few"), "write 16 or more".to_owned());
    }
    problems
}

/// The setting `network`: one that exists.
pub fn network(fields: &mut Fields<'_>, default: &str, platform: Option<&PlatformSpec>) -> Name {
    const HELP: &str = "write the name of a network, for example dbnet";
    let name = fields.get("network", HELP);
    if let Some(name) = &name
        && platform.is_some_and(|platform| platform.network(name).is_none())
    {
        fields.problem(
            "network",
            format!("there is no network `{name}`"),
            "write it under `networks:` first",
        );
    }
    name.unwrap_or_else(|| known_name(default))
}

/// The setting `image`.
pub fn image(fields: &mut Fields<'_>, key: &'static str, default: &str) -> String {
    let help = format!("write name:tag, for example {default}");
    let image: Option<String> = fields.get(key, &help);
    if let Some(image) = &image
        && !image_is_good(image)
    {
        fields.problem(key, "not the name of an image", help);
    }
    image.unwrap_or_else(|| default.to_owned())
}

/// Whether a text can be the name of an image: `[registry[:port]/]path[:tag][@sha256:digest]`.
pub fn image_is_good(image: &str) -> bool {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let digest_is_good = digest.is_empty() && !image.ends_with('@')
        || digest.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].split_once(':') {
        Some((last, tag)) => (&name[..slash + last.len()], Some(tag)),
        None => (name, None),
    };
    let tag_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let tag_is_good = tag.is_none_or(|tag| {
        (1..=128).contains(&tag.len()) && tag.chars().all(tag_char) && !tag.starts_with(['.', '-'])
    });
    let mut parts = path.split('/');
    let registry = path.contains('/').then(|| parts.clone().next().unwrap_or_default());
    let registry = registry.filter(|first| first.contains(['.', ':']) || *first == "localhost");
    if registry.is_some() {
        parts.next();
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part_is_good = |part: &str| {
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || "._-".contains(c))
    };
    let host = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    image.len() <= 255
        && digest_is_good
        && tag_is_good
        && registry.is_none_or(|r| r.chars().all(host) && r.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && parts.all(part_is_good)
}

/// A name written in this program.
pub fn known_name(text: &str) -> Name {
    Name::new(text).expect("names written in the program are names")
}

/// Refuses a kind that exists only as a part of other services.
pub fn refuse_alone(name: &Name, platform: &PlatformSpec, kind: &str, instead: &str) -> Vec<Problem> {
    if !platform.services.contains_key(name) {
        return Vec::new();
    }
    vec![Problem {
        path: "kind".to_owned(),
        message: format!("`{kind}` runs only as a part of other services"),
        help: instead.to_owned(),
    }]
}

/// A file.
pub fn file(path: &str, content: String, mode: u32, on_change: OnChange) -> FileSpec {
    FileSpec { path: path.to_owned(), content, mode, on_change }
}

/// A TCP port that is not published.
pub fn port(port: u16, audience: Audience) -> PortSpec {
    PortSpec { port, protocol: Protocol::Tcp, audience, publish: None, only: None }
}

/// A request without body or password to the member itself.
pub fn http(method: &str, port: u16, path: &str) -> HttpAsk {
    HttpAsk {
        method: method.to_owned(),
        port,
        path: path.to_owned(),
        body: None,
        basic_auth: None,
        address: None,
    }
}

/// A repeated question.
pub fn probe(name: &str, every_ms: u64, timeout_ms: u64, ask: Ask) -> ProbeSpec {
    ProbeSpec { name: name.to_owned(), every_ms, probe: Probe { timeout_ms, ask } }
}

/// A value of the answer equals this text.
pub fn equals(pointer: impl Into<String>, value: &str) -> Predicate {
    Predicate::Equals { pointer: pointer.into(), value: value.into() }
}

/// A peer's address in a network.
pub fn address(peer: &Peer, network: &Name) -> std::net::Ipv4Addr {
    // A member is placed with an address in each of its networks; one without cannot be reached, and says so.
    peer.addresses.get(network).copied().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED)
}

/// The last answer to a probe, only from a container that runs.
pub fn answer<'a>(status: &'a MemberStatus, probe: &str) -> Option<&'a Answer> {
    matches!(status.state, ContainerState::Running { .. }).then_some(())?;
    status.probes.iter().find(|result| result.name == probe).map(|result| &result.answer)
}

/// The JSON body of the last answer to a probe, if that succeeded.
pub fn answer_json(status: &MemberStatus, probe: &str) -> Option<serde_json::Value> {
    let answer = answer(status, probe).filter(|answer| answer.ok)?;
    serde_json::from_str(&answer.body).ok()
}

/// What every kind reads from a status in the same way; the rest is the kind's.
pub fn observed(status: &MemberStatus) -> Observed {
    let (running, started_at) = match status.state {
        ContainerState::Running { since } => (true, Some(since)),
        _ => (false, None),
    };
    Observed {
        revision: status.revision,
        container_hash: status.container_hash.clone(),
        running,
        stopped: matches!(status.state, ContainerState::Stopped { .. } | ContainerState::Absent),
        system_id: status.system_id.clone(),
        restarts_done: status.restarts_done,
        started_at,
        restarts: status.restarts,
        releases: status.releases,
        refused: status.refused.clone().unwrap_or_default(),
        successor: status.successor.as_ref().map(waits_for).unwrap_or_default(),
        detail: match &status.state {
            ContainerState::Refused { why } => waits_for(why),
            _ => String::new(),
        },
        ..Observed::default()
    }
}

/// Why an agent makes or starts no container, for operators.
fn waits_for(why: &muster_model::observed::Refusal) -> String {
    use muster_model::observed::Refusal;
    match why {
        Refusal::ImageMissing { image } => {
            format!("image missing: {image} (`muster image push` brings it there)")
        }
        Refusal::VolumeLost { found } => format!("volume lost: {found}"),
        Refusal::SecretMissing { name } => format!("secret {name} has not arrived"),
        // The time of the next try changes with each try; operators see it in the logs.
        Refusal::BackingOff { .. } => "it failed several times, the next try follows".to_owned(),
        Refusal::Held { .. } => "held back by a drill".to_owned(),
        Refusal::Guard { name, .. } => format!("not stopped: {name}: does not hold"),
        Refusal::NetworkNotReady { problem } => format!("network not ready: {problem}"),
        Refusal::DiskFull => "disk full".to_owned(),
        Refusal::Engine { message } => format!("engine refused: {message}"),
    }
}

/// The member was seen to serve as its role asks.
pub fn is_ready(member: &MemberFacts) -> bool {
    member.seen.as_ref().is_some_and(|seen| seen.ready)
}

/// The member was seen in this role.
pub fn has_role(member: &MemberFacts, role: &str) -> bool {
    member.seen.as_ref().is_some_and(|seen| seen.role.as_deref() == Some(role))
}

/// Time that a host may be down before members with data on it are given up, unless the spec says another.
pub const REPLACE_DATA_AFTER: Millis = Millis::seconds(900);

/// Its host has been down for as long as the spec lets members with data wait for theirs.
pub fn is_given_up(service: &ServiceFacts<'_>, member: &MemberFacts) -> bool {
    let after = service.spec.replace_after.map_or(REPLACE_DATA_AFTER, |span| span.0);
    let held = member.scheduling == Scheduling::Maintenance;
    !member.host_up && !held && service.now.since(member.host_since) >= after
}

/// Why a member is not ready, for operators.
pub fn why_not_ready(service: &ServiceFacts<'_>, member: &MemberFacts) -> String {
    let who = format!("{}/{} on {}", service.name, member.slot, member.host_name);
    match &member.seen {
        _ if !member.host_up && member.scheduling == Scheduling::Maintenance => {
            format!("{who}: host is in maintenance")
        }
        _ if !member.host_up => format!("{who}: host is down"),
        _ if !member.started => format!("{who}: not started yet"),
        None if member.missing => {
            format!("{who}: no container can be made of it; `muster ps {}` says why", service.name)
        }
        None if member.kept => {
            format!(
                "{who}: serves as before, its new container cannot be made; `muster ps {}` says why",
                service.name
            )
        }
        None => format!("{who}: nothing seen of it yet"),
        Some(seen) if !seen.detail.is_empty() => format!("{who}: {}", seen.detail),
        Some(seen) if !seen.running => format!("{who}: not running"),
        Some(_) => format!("{who}: not ready"),
    }
}

/// Every other member is ready; otherwise the first reason why not.
pub fn others_ready(
    service: &ServiceFacts<'_>,
    member: muster_model::ids::MemberId,
) -> Result<(), super::Wait> {
    match service.members.iter().find(|other| other.member != member && !is_ready(other)) {
        Some(other) => Err(super::Wait(why_not_ready(service, other))),
        None => Ok(()),
    }
}

/// Whether to re-create a member that does not serve takes nothing away: it does not run at all, or everybody else serves,
/// or no host is missing: several members may have got an image that does not work. A member that waits for a lost host (an
/// election, a view without it) runs, does not serve, and is needed.
pub fn is_broken(service: &ServiceFacts<'_>, member: &MemberFacts) -> bool {
    let stopped = member.seen.as_ref().is_some_and(|seen| !seen.running);
    member.host_up && !is_ready(member) && (stopped || others_tell(service, member.member))
}

/// What the others say of a member that runs and does not serve: that it is the only one, or that it waits for no lost host.
pub fn others_tell(service: &ServiceFacts<'_>, member: muster_model::ids::MemberId) -> bool {
    others_ready(service, member).is_ok() || service.members.iter().all(|other| other.host_up)
}

/// Every slot is filled, and every member serves and has everything acknowledged; otherwise the first reason why not.
pub fn all_serve(service: &ServiceFacts<'_>) -> Result<(), super::Wait> {
    let behind =
        |member: &&MemberFacts| !member.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up);
    if let Some(member) = service.members.iter().find(behind) {
        let who = format!("{}/{} on {}", service.name, member.slot, member.host_name);
        return Err(super::Wait(match is_ready(member) {
            true => format!("{who}: has not caught up"),
            false => why_not_ready(service, member),
        }));
    }
    if service.members.len() < service.slots as usize {
        let (filled, all) = (service.members.len(), service.slots);
        return Err(super::Wait(format!("only {filled} of {all} slots are filled")));
    }
    Ok(())
}

/// Healthy if there are no reasons against it.
pub fn health(word: HealthWord, reasons: Vec<String>) -> Health {
    Health { word, reasons }
}

/// For each host: how many of `members` are left when it is lost too.
pub fn left_without_host<'a>(
    members: impl Iterator<Item = &'a MemberFacts> + Clone,
) -> BTreeMap<HostId, usize> {
    let hosts: BTreeSet<&HostId> = members.clone().map(|member| &member.host).collect();
    let left = |host: &HostId| members.clone().filter(|m| m.host_up && m.host != *host).count();
    hosts.into_iter().map(|host| (host.clone(), left(host))).collect()
}

/// The next step of an update without a leading role that must move: members that do not serve first (nothing is
/// lost with them), then the others one by one, a leader last.
pub fn one_at_a_time(
    service: &ServiceFacts<'_>,
    may_stop: impl Fn(muster_model::ids::MemberId) -> Result<(), super::Wait>,
) -> UpdateStep {
    let outdated = || service.members.iter().filter(|member| !member.current);
    if let Some(broken) = outdated().find(|member| is_broken(service, member)) {
        return UpdateStep::Recreate(broken.member);
    }
    if let Some(waiting) = service.members.iter().find(|member| !is_ready(member)) {
        return UpdateStep::Wait(why_not_ready(service, waiting));
    }
    let Some(next) = outdated().min_by_key(|member| (has_role(member, "leader"), member.slot)) else {
        return UpdateStep::Done;
    };
    match may_stop(next.member) {
        Ok(()) => UpdateStep::Recreate(next.member),
        Err(super::Wait(why)) => UpdateStep::Wait(why),
    }
}

/// Health of a service whose members are all alike and keep nothing.
pub fn stateless_health(service: &ServiceFacts<'_>) -> Health {
    let slots = service.slots as usize;
    let ready = service.members.iter().filter(|member| is_ready(member)).count();
    let known = |member: &&MemberFacts| member.seen.is_some() || member.missing || member.kept;
    let (seen, kept) = (service.members.iter().filter(known).count(), service.members.iter().any(|m| m.kept));
    let mut reasons: Vec<String> =
        service.members.iter().filter(|m| !is_ready(m)).map(|m| why_not_ready(service, m)).collect();
    if service.members.len() < slots {
        reasons.push(format!("{} of {slots} members are placed", service.members.len()));
    }
    let word = match ready {
        _ if ready >= slots => HealthWord::Healthy,
        0 if seen == 0 => HealthWord::Unknown,
        _ if kept => HealthWord::Degraded,
        0 => HealthWord::Down,
        1 => HealthWord::Critical,
        _ => HealthWord::Degraded,
    };
    health(word, reasons)
}

/// What stops a service whose members are all alike: the loss of the host that has the last of them.
pub fn stateless_survivability(service: &ServiceFacts<'_>) -> super::Survivability {
    let mut result = super::Survivability::default();
    for (host, left) in left_without_host(service.members.iter()) {
        if left == 0 {
            let why = format!("no other member of {} is left", service.name);
            result.stops_writes.insert(host.clone(), why.clone());
            result.stops_reads.insert(host, why);
        }
    }
    result
}
