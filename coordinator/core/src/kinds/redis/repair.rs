//! What a cluster needs by itself, one thing at a time: to be made, to know a new member, to forget an old one, to have
//! its masters on hosts of their own. Level-triggered: judged afresh from what the members say before each step. Pure.

use std::collections::BTreeSet;

use muster_model::ids::MemberId;
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Ask, Guard, Predicate, Probe, RespCall, TaskKind};
use muster_model::time::{Millis, Timestamp};
use serde_json::json;

use super::cluster::{self, HASH_SLOTS, Node, empty_master, home, master_of, nodes};
use super::need::{Need, Step, commands};
use super::settings::{Mode, Settings};
use super::{PORT, decide, master, render, succession, takeover};
use crate::command::TaskDraft;
use crate::kinds::{Procedure, ProcedureStep, ServiceFacts, parts};

/// Masters go back to hosts of their own.
const SPREAD: &str = "spread";
/// A hash slot that stayed between two shards is put right.
const MEND: &str = "mend-slots";
/// Hash slots go from shard to shard.
const RESHARD: &str = "reshard";
/// Time until what a step did is seen: probes, reports and gossip.
const SEEN_WITHIN: Millis = Millis::seconds(15);
/// Pause after a step that was refused or failed.
const RETRY_AFTER: Millis = Millis::seconds(2);
/// Tries of one step.
const TRIES_MAX: usize = 8;
/// Longest move of hash slots; what it did not reach is moved by the next one.
const RESHARD_TIMEOUT_MS: u64 = 600_000;

/// The work that is due.
pub fn due(service: &ServiceFacts<'_>, settings: &Settings) -> Option<Procedure> {
    let need = need(service, settings, &[])?;
    if matches!(need.step, Step::Wait) {
        return None;
    }
    Some(Procedure {
        name: need.procedure.to_owned(),
        why: need.what,
        // A drill is not over before the masters are spread; an update has members that are not current until its end.
        can_wait: need.procedure == RESHARD,
        arguments: Default::default(),
    })
}

/// The next step, whatever the work was called when it began.
pub fn proceed(
    service: &ServiceFacts<'_>,
    settings: &Settings,
    answers: &[(String, TaskOutcome)],
) -> ProcedureStep {
    let Some(need) = need(service, settings, answers) else {
        return ProcedureStep::Done("the members are as they should be".to_owned());
    };
    let task = match need.step {
        Step::Record { key, value } => return ProcedureStep::Record { key, value },
        Step::Wait => return ProcedureStep::Wait(need.what),
        Step::Start(members) => return ProcedureStep::Start(members),
        Step::Succeed(loss) => return succession::succeed(service, settings, loss, answers),
        Step::Task(task) => task,
        Step::Ask { reason, remedy, then } => match takeover::unanswered(&reason, &remedy, answers) {
            Some(question) => return question,
            None => then,
        },
    };
    let tries: Vec<(Timestamp, &TaskOutcome)> =
        answers.iter().filter_map(|(label, outcome)| Some((began(label, &need.what)?, outcome))).collect();
    if let Some((at, outcome)) = tries.last() {
        let since = service.now.since(*at);
        let why = match outcome {
            TaskOutcome::Done { .. } if since < SEEN_WITHIN => {
                return ProcedureStep::Wait(format!("{}: waits until it is seen", need.what));
            }
            TaskOutcome::Done { .. } => "done, and not seen afterwards",
            TaskOutcome::Refused { why } | TaskOutcome::Failed { why } => why,
            TaskOutcome::Interrupted => "interrupted, whether it took effect is not known",
        };
        if tries.len() >= TRIES_MAX {
            let reason = format!("{}: {why} ({} tries)", need.what, tries.len());
            let slot = service.members.iter().find(|m| m.member == task.member).map_or(1, |m| m.slot);
            return ProcedureStep::stuck(service.name.as_str(), slot, reason);
        }
        if since < RETRY_AFTER {
            return ProcedureStep::Wait(format!("{}: {why}", need.what));
        }
    }
    ProcedureStep::Task { label: format!("{} @{}", need.what, service.now.0), task }
}

/// When the task of this label began, if it was this one.
pub fn began(label: &str, what: &str) -> Option<Timestamp> {
    let at = label.strip_prefix(what)?.strip_prefix(" @")?;
    at.parse().ok().map(Timestamp)
}

/// The first thing that is missing.
fn need(service: &ServiceFacts<'_>, settings: &Settings, answers: &[(String, TaskOutcome)]) -> Option<Need> {
    match settings.mode {
        Mode::Single => return None,
        Mode::Replicated => return master::need(service, settings, answers),
        Mode::Cluster => {}
    }
    let nodes = nodes(service);
    if !service.formed {
        return making(service, settings, &nodes);
    }
    takeover::need(service, settings, &nodes, answers)
        .or_else(|| mend(service, settings, &nodes))
        .or_else(|| meet(service, &nodes, "join"))
        .or_else(|| follow(service, &nodes, "join"))
        .or_else(|| note(service, &nodes))
        .or_else(|| forget(service, &nodes))
        .or_else(|| reshard(settings, &nodes))
        .or_else(|| spread(service, settings, &nodes))
}

/// From empty members to a cluster. Nothing begins before all of them answer.
fn making(service: &ServiceFacts<'_>, settings: &Settings, nodes: &[Node<'_>]) -> Option<Need> {
    const NAME: &str = "create";
    if !cluster::all_there(nodes, settings) {
        return None;
    }
    if nodes.iter().all(|node| node.knows.len() <= 1 && node.slots == 0) {
        return Some(hand_out(service, settings, nodes));
    }
    let covered: u32 = nodes.iter().filter(|node| node.master).map(|node| node.slots).sum();
    if covered < HASH_SLOTS && nodes.iter().all(|node| node.knows.len() <= 1) {
        // A try that was cut off: the rest is handed out, what is taken stays.
        return Some(hand_out(service, settings, nodes));
    }
    let wait = || Need { procedure: NAME, what: "members agree".to_owned(), step: Step::Wait };
    meet(service, nodes, NAME)
        .or_else(|| follow(service, nodes, NAME))
        .or_else(|| if decide::is_formed(service, settings) { None } else { Some(wait()) })
}

fn at(node: &Node<'_>, name: &str, words: &str) -> RespCall {
    RespCall { address: Some(node.at), ..render::call(&format!("{name}-{}", node.fact.slot), words) }
}

/// Hash slots in equal parts to the masters, which have neither keys nor slots; distinct epochs spare them a quarrel.
fn hand_out(service: &ServiceFacts<'_>, settings: &Settings, nodes: &[Node<'_>]) -> Need {
    let (mut calls, mut empty, mut accept) = (Vec::new(), Vec::new(), Vec::new());
    let shards = settings.shards;
    let wanted = |node: &&Node<'_>| node.fact.slot == home(node.shard()) && node.shard() <= shards;
    for node in nodes.iter().filter(wanted).filter(|node| node.slots == 0) {
        let shard = node.shard();
        let from = (shard - 1) * HASH_SLOTS / shards;
        let to = shard * HASH_SLOTS / shards - 1;
        calls.push(at(node, "slots", &format!("CLUSTER ADDSLOTSRANGE {from} {to}")));
        calls.push(at(node, "epoch", &format!("CLUSTER SET-CONFIG-EPOCH {shard}")));
        let keys = at(node, "keys", "DBSIZE");
        accept.push(Predicate::Equals { pointer: format!("/{}", keys.name), value: json!(0) });
        empty.push(keys);
    }
    let guard = Guard {
        name: "members that get hash slots are empty".to_owned(),
        probe: Probe { timeout_ms: 5_000, ask: Ask::Resp(render::admin(service.name, empty)) },
        accept: Predicate::All(accept),
    };
    let member = nodes.first().map_or(MemberId(0), |node| node.fact.member);
    Need {
        procedure: "create",
        what: "hash slots are handed out".to_owned(),
        step: commands(service, member, Some(guard), calls),
    }
}

/// Members that the others do not know, or that do not know them, are introduced by one that has hash slots.
///
/// Safety: one that knows strangers is of another cluster. Introducing it would make one of the two.
fn meet(service: &ServiceFacts<'_>, nodes: &[Node<'_>], procedure: &'static str) -> Option<Need> {
    let ids: BTreeSet<&str> = nodes.iter().map(|node| node.id).collect();
    let hub =
        nodes.iter().find(|n| n.leads() && n.knows.len() > 1).or_else(|| nodes.iter().find(|n| n.leads()))?;
    let known = known_ids(service, nodes);
    let apart = |node: &&Node<'_>| {
        let stranger = node.knows.iter().any(|id| !known.contains(*id));
        node.id != hub.id && !stranger && !(hub.knows.contains(&node.id) && node.knows.contains(&hub.id))
    };
    let lonely: Vec<&Node<'_>> = nodes.iter().filter(apart).collect();
    if lonely.is_empty() {
        // Introduced, and the news is still on its way to somebody.
        let missing = nodes.iter().find(|node| !ids.iter().all(|id| node.knows.contains(id)))?;
        let strange = missing.knows.iter().any(|id| !known.contains(*id));
        let what = format!("{}/{} gets to know the others", service.name, missing.fact.slot);
        return (!strange).then_some(Need { procedure, what, step: Step::Wait });
    }
    let titles: Vec<String> = lonely.iter().map(|node| node.fact.slot.to_string()).collect();
    let calls = lonely.iter().map(|node| {
        let words = format!("CLUSTER MEET {} {PORT}", node.at);
        render::call(&format!("meet-{}", node.fact.slot), &words)
    });
    let step = commands(service, hub.fact.member, None, calls.collect());
    Some(Need { procedure, what: format!("slots {} are introduced", titles.join(", ")), step })
}

/// Members without hash slots, and replicas of a foreign master, follow the master of their shard.
fn follow(service: &ServiceFacts<'_>, nodes: &[Node<'_>], procedure: &'static str) -> Option<Need> {
    let covered: u32 = nodes.iter().filter(|node| node.leads()).map(|node| node.slots).sum();
    // Safety: what follows a master that is gone may be the last copy of its shard, and would copy an empty one.
    let fresh = |node: &Node<'_>| node.follows.is_none() || covered >= HASH_SLOTS;
    let master_of = |node: &Node<'_>| {
        let empty = || empty_master(nodes, node.shard()).filter(|_| fresh(node));
        master_of(nodes, node.shard()).or_else(empty)
    };
    let lost = |node: &&Node<'_>| {
        let master = master_of(node);
        let right = master.is_none_or(|master| node.follows == Some(master.id) || node.id == master.id);
        let owns = node.master && node.slots > 0;
        !owns && !right && master.is_some_and(|master| node.knows.contains(&master.id))
    };
    let lost: Vec<&Node<'_>> = nodes.iter().filter(lost).collect();
    let first = lost.first()?;
    let calls = lost.iter().filter_map(|node| {
        let master = master_of(node)?;
        Some(at(node, "follow", &format!("CLUSTER REPLICATE {}", master.id)))
    });
    // The server itself refuses for a master with keys or hash slots.
    let step = commands(service, first.fact.member, None, calls.collect());
    let titles: Vec<String> = lost.iter().map(|node| node.fact.slot.to_string()).collect();
    Some(Need { procedure, what: format!("slots {} follow their masters", titles.join(", ")), step })
}

fn record_key(slot: u32) -> String {
    format!("node-{slot}")
}

/// Node ids of members outlive their hosts' silence: who is a stranger must be known then too.
fn note(service: &ServiceFacts<'_>, nodes: &[Node<'_>]) -> Option<Need> {
    nodes.iter().find_map(|node| {
        let (key, value) = (record_key(node.fact.slot), format!("{} {}", node.fact.member, node.id));
        let what = format!("the node of slot {} is recorded", node.fact.slot);
        let recorded = service.records.get(&key) == Some(&value);
        (!recorded).then_some(Need { procedure: "join", what, step: Step::Record { key, value } })
    })
}

/// Ids of all placed members: as seen now, or as recorded.
fn known_ids<'a>(service: &'a ServiceFacts<'_>, nodes: &[Node<'a>]) -> BTreeSet<&'a str> {
    let recorded = service.members.iter().filter_map(|member| recorded(service, member.slot, member.member));
    recorded.chain(nodes.iter().map(|node| node.id)).collect()
}

/// The node id of a member, as recorded.
pub fn recorded<'a>(service: &'a ServiceFacts<'_>, slot: u32, member: MemberId) -> Option<&'a str> {
    let (number, id) = service.records.get(&record_key(slot))?.split_once(' ')?;
    (number == member.to_string()).then_some(id)
}

/// Nodes that are no member any more are forgotten by all at once: a node that is left out would tell the others again.
///
/// Safety: only while every hash slot has a master among the members, and every member's id is known.
fn forget(service: &ServiceFacts<'_>, nodes: &[Node<'_>]) -> Option<Need> {
    let seen = |member: MemberId| nodes.iter().any(|node| node.fact.member == member);
    let all_known =
        service.members.iter().all(|m| seen(m.member) || recorded(service, m.slot, m.member).is_some());
    if !cluster::is_covered(nodes) || !all_known || service.members.len() < service.slots as usize {
        return None;
    }
    let known = known_ids(service, nodes);
    let mut calls = Vec::new();
    for node in nodes {
        let strangers = node.knows.iter().filter(|id| !known.contains(*id));
        calls.extend(
            strangers
                .enumerate()
                .map(|(number, id)| at(node, &format!("forget{number}"), &format!("CLUSTER FORGET {id}"))),
        );
    }
    let member = nodes.iter().find(|node| node.leads())?.fact.member;
    (!calls.is_empty()).then(|| Need {
        procedure: "forget",
        what: "nodes that left are forgotten".to_owned(),
        step: commands(service, member, None, calls),
    })
}

/// Hash slots go to shards that have none yet, and away from shards that are no longer wanted, by the engine's own tool
/// in the container of a master. It moves key by key, and can be cut off at any point: the next one goes on.
fn reshard(settings: &Settings, nodes: &[Node<'_>]) -> Option<Need> {
    let wanted = cluster::numbers(settings);
    let stay = nodes.iter().filter(|node| node.leads() && wanted.contains(&node.fact.slot));
    let by = stay.min_by_key(|node| node.fact.slot)?;
    let leaving: Vec<&Node<'_>> =
        nodes.iter().filter(|node| node.leads() && !wanted.contains(&node.fact.slot)).collect();
    let empty: Vec<u32> =
        (1..=settings.shards).filter(|shard| empty_master(nodes, *shard).is_some()).collect();
    if (leaving.is_empty() && empty.is_empty()) || !nodes.iter().all(|node| node.ok) {
        return None;
    }
    let weights: Vec<String> = leaving.iter().map(|node| format!("{}=0", node.id)).collect();
    let arguments = match weights.is_empty() {
        true => "--cluster-use-empty-masters".to_owned(),
        false => format!("--cluster-weight {}", weights.join(" ")),
    };
    let rebalance = format!("$cli rebalance $at --cluster-threshold 1 {arguments} --cluster-yes");
    let what = match leaving.first() {
        Some(node) => format!("hash slots leave shard {}", node.shard()),
        None => format!("hash slots move to shard {}", empty.first().copied().unwrap_or_default()),
    };
    Some(Need { procedure: RESHARD, what, step: by_tool(settings, by, &rebalance) })
}

/// A hash slot was on its way when one of its two masters was lost. The one that was elected knows nothing of the move; the
/// other one goes on with it for ever, and takes no writes while it misses its partner: it is told who has the slot now. Once
/// all are there the engine's own tool brings the keys of such a slot together at that master; before, it refuses to.
///
/// Safety: only while every hash slot has a master, or the tool would give those without one to somebody who lacks the data.
fn mend(service: &ServiceFacts<'_>, settings: &Settings, nodes: &[Node<'_>]) -> Option<Need> {
    let leads = |id: &str| nodes.iter().any(|node| node.id == id && node.master);
    let is_torn = |node: &&Node<'_>| node.master && node.open.iter().any(|open| !leads(open.with));
    let torn = nodes.iter().find(is_torn).filter(|_| cluster::is_covered(nodes))?;
    let told: Vec<RespCall> =
        torn.open.iter().filter_map(|open| new_owner(service, nodes, torn, open)).collect();
    let at_slot = torn.fact.slot;
    if !torn.ok && !told.is_empty() {
        let what = format!("slot {at_slot} is told who has the hash slot that it was to take");
        return Some(Need { procedure: MEND, what, step: commands(service, torn.fact.member, None, told) });
    }
    let by = nodes.iter().filter(|node| node.leads()).min_by_key(|node| node.fact.slot)?;
    let what = format!("a hash slot that stayed between two shards is mended at slot {at_slot}");
    let all = nodes.len() == service.members.len();
    all.then(|| Need { procedure: MEND, what, step: by_tool(settings, by, "$cli check $at") })
}

/// Tells a node which master has a hash slot that it was to take from a node that leads no more. The slot stays open there,
/// so that the keys which it has of it can still be moved.
fn new_owner(
    service: &ServiceFacts<'_>,
    nodes: &[Node<'_>],
    torn: &Node<'_>,
    open: &cluster::OpenSlot<'_>,
) -> Option<RespCall> {
    let of = service.members.iter().find(|m| recorded(service, m.slot, m.member) == Some(open.with));
    let master = of.and_then(|member| master_of(nodes, cluster::shard_of(member.slot)))?;
    let words = format!("CLUSTER SETSLOT {} NODE {}", open.slot, master.id);
    (open.taken_in && master.id != open.with).then(|| at(torn, &format!("owner{}", open.slot), &words))
}

/// Commands of the engine's own tool in the container of a member, after it has put right what an earlier one left.
fn by_tool(settings: &Settings, by: &Node<'_>, last: &str) -> Step {
    let client = settings.flavour.client();
    // Where all know it: the tool tells the sources to send to this address, and 127.0.0.1 is themselves there.
    let at = by.at;
    let script = format!(
        "export REDISCLI_AUTH=$(cat /muster/secrets/admin); cli='{client} --user muster-admin --no-auth-warning --cluster'; \
         at={at}:{PORT}; $cli fix $at >/dev/null; \
         {last} >/tmp/reshard 2>&1; code=$?; tail -n 3 /tmp/reshard; exit $code"
    );
    Step::Task(Box::new(TaskDraft {
        member: by.fact.member,
        guard: None,
        what: TaskKind::Exec { argv: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec() },
        timeout_ms: RESHARD_TIMEOUT_MS,
    }))
}

/// Masters that piled up on a host after a failover go back to hosts of their own, once everybody is in sync.
fn spread(service: &ServiceFacts<'_>, settings: &Settings, nodes: &[Node<'_>]) -> Option<Need> {
    let all = service.members.len() == settings.members() as usize;
    let quiet = service.members.iter().all(|member| member.current && parts::is_ready(member));
    if !all || !quiet || !nodes.iter().all(|node| node.ok) {
        return None;
    }
    let (from, to) = cluster::move_for_spread(service, nodes)?;
    let heir = nodes.iter().find(|node| node.fact.slot == to && !node.young())?;
    let task = decide::promote(service, heir);
    let step = Step::Task(Box::new(TaskDraft {
        member: task.member,
        guard: task.guard,
        what: task.what,
        timeout_ms: task.timeout_ms,
    }));
    Some(Need { procedure: SPREAD, what: format!("slot {to} leads its shard instead of slot {from}"), step })
}
