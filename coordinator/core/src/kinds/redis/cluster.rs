//! A cluster as its members see it: which of them lead, who follows whom, who should lead where. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::HostId;
use muster_model::view::Scheduling;

use super::observe::{AT, FOLLOWS, KNOWS, MASTER, OPEN, SLOT_COUNT, STATE, YOUNG};
use super::settings::Settings;
use crate::kinds::{MemberFacts, ServiceFacts, parts};

/// Hash slots of every cluster.
pub const HASH_SLOTS: u32 = 16_384;
/// A slot's index is its shard times this, plus its place in the shard: neither more shards nor more replicas change it.
const PER_SHARD: u32 = 10;

/// The shard of a slot.
pub const fn shard_of(slot: u32) -> u32 {
    slot / PER_SHARD
}

/// The slot of a shard whose member is its master unless something happened.
pub const fn home(shard: u32) -> u32 {
    shard * PER_SHARD + 1
}

/// Indexes of all slots.
pub fn numbers(settings: &Settings) -> Vec<u32> {
    let copies = |shard: u32| (0..=settings.replicas).map(move |copy| home(shard) + copy);
    (1..=settings.shards).flat_map(copies).collect()
}

/// Members of a shard never share a host, and neither do masters.
pub fn apart(settings: &Settings) -> Vec<Vec<u32>> {
    let all = numbers(settings);
    let shard = |shard: u32| all.iter().copied().filter(|slot| shard_of(*slot) == shard).collect();
    let masters = (1..=settings.shards).map(home).collect();
    (1..=settings.shards).map(shard).chain([masters]).collect()
}

/// A hash slot on its way between a node and another one.
pub struct OpenSlot<'a> {
    pub slot: u32,
    /// The node takes it in; otherwise it gives it away.
    pub taken_in: bool,
    /// The other node.
    pub with: &'a str,
}

impl<'a> OpenSlot<'a> {
    /// From `SLOT-<-ID` or `SLOT->-ID`.
    fn read(text: &'a str) -> Option<Self> {
        let taken = text.split_once("-<-").map(|(slot, with)| (slot, true, with));
        let given = || text.split_once("->-").map(|(slot, with)| (slot, false, with));
        let (slot, taken_in, with) = taken.or_else(given)?;
        Some(Self { slot: slot.parse().ok()?, taken_in, with })
    }
}

/// A member that was seen, with what it says of itself and of the others.
pub struct Node<'a> {
    pub fact: &'a MemberFacts,
    pub id: &'a str,
    pub at: Ipv4Addr,
    /// Number of hash slots that it owns.
    pub slots: u32,
    pub master: bool,
    pub follows: Option<&'a str>,
    pub knows: Vec<&'a str>,
    /// Hash slots on their way.
    pub open: Vec<OpenSlot<'a>>,
    /// Sees the cluster as complete.
    pub ok: bool,
}

impl Node<'_> {
    /// Takes writes for hash slots.
    pub const fn leads(&self) -> bool {
        self.master && self.slots > 0
    }

    /// Started so lately that the election of its present master may not be over and done with.
    pub fn young(&self) -> bool {
        self.fact.seen.as_ref().is_none_or(|seen| seen.facts.contains_key(YOUNG))
    }

    /// Its shard.
    pub const fn shard(&self) -> u32 {
        shard_of(self.fact.slot)
    }

    /// Could take its master's place without a loss.
    pub fn in_sync(&self) -> bool {
        !self.master && self.fact.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up)
    }
}

/// Everybody who was seen, by slot.
pub fn nodes<'a>(service: &'a ServiceFacts<'_>) -> Vec<Node<'a>> {
    let node = |fact: &'a MemberFacts| {
        let seen = fact.seen.as_ref().filter(|seen| seen.running)?;
        let text = |key: &str| seen.facts.get(key).map(String::as_str);
        Some(Node {
            fact,
            id: seen.system_id.as_deref()?,
            at: text(AT)?.parse().ok()?,
            slots: text(SLOT_COUNT)?.parse().ok()?,
            master: parts::has_role(fact, MASTER),
            follows: text(FOLLOWS),
            knows: text(KNOWS)?.split(',').filter(|id| !id.is_empty()).collect(),
            open: text(OPEN).unwrap_or_default().split(',').filter_map(OpenSlot::read).collect(),
            ok: text(STATE) == Some("ok"),
        })
    };
    service.members.iter().filter_map(node).collect()
}

/// The member that leads a shard. Just after an election the old one may still say that it does; one that serves goes
/// first.
pub fn master_of<'n, 'a>(nodes: &'n [Node<'a>], shard: u32) -> Option<&'n Node<'a>> {
    let leading = || nodes.iter().filter(|node| node.leads() && node.shard() == shard);
    leading().find(|node| parts::is_ready(node.fact)).or_else(|| leading().next())
}

/// Everybody who is wanted was seen. Others may be there too: the spec can change before there is a cluster.
pub fn all_there(nodes: &[Node<'_>], settings: &Settings) -> bool {
    numbers(settings).iter().all(|slot| nodes.iter().any(|node| node.fact.slot == *slot))
}

/// Every hash slot has a master.
pub fn is_covered(nodes: &[Node<'_>]) -> bool {
    nodes.iter().filter(|node| node.leads()).map(|node| node.slots).sum::<u32>() == HASH_SLOTS
}

/// All hash slots are at other shards: this one has none yet, or none any more, and serves nothing.
pub fn is_idle(nodes: &[Node<'_>], shard: u32) -> bool {
    is_covered(nodes) && master_of(nodes, shard).is_none()
}

/// The member that will lead a shard that has no hash slots yet.
pub fn empty_master<'n, 'a>(nodes: &'n [Node<'a>], shard: u32) -> Option<&'n Node<'a>> {
    let empty = nodes.iter().find(|node| node.fact.slot == home(shard) && node.master && node.slots == 0);
    empty.filter(|_| master_of(nodes, shard).is_none())
}

/// Members that lead, by host.
pub fn masters_by_host<'a>(nodes: &[Node<'a>]) -> BTreeMap<&'a HostId, Vec<u32>> {
    let mut hosts: BTreeMap<&HostId, Vec<u32>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.leads()) {
        hosts.entry(&node.fact.host).or_default().push(node.fact.slot);
    }
    hosts
}

/// The key under which an operator's choice of a shard's master is recorded.
pub fn choice_key(shard: u32) -> String {
    format!("master-{shard}")
}

/// The slot that an operator chose to lead a shard.
pub fn chosen(service: &ServiceFacts<'_>, shard: u32) -> Option<u32> {
    service.records.get(&choice_key(shard))?.parse().ok()
}

/// Which member is made master instead of which, so that no host has more masters than it must: the two slots.
///
/// What an operator chose stays. Where no replica's host is free, a shard goes home: all homes are on hosts of their own.
pub fn move_for_spread(service: &ServiceFacts<'_>, nodes: &[Node<'_>]) -> Option<(u32, u32)> {
    let hosts = masters_by_host(nodes);
    let crowded = nodes.iter().filter(|node| {
        node.leads()
            && hosts.get(&node.fact.host).is_some_and(|masters| masters.len() > 1)
            && chosen(service, node.shard()) != Some(node.fact.slot)
    });
    let crowded: Vec<&Node<'_>> = crowded.collect();
    let heirs = |from: &Node<'_>| {
        let shard = from.shard();
        // No master goes where everything is about to leave or to be stopped.
        let stays = |n: &&Node<'_>| matches!(n.fact.scheduling, Scheduling::Open | Scheduling::Cordoned);
        let copies = nodes.iter().filter(|n| n.shard() == shard && n.in_sync());
        let mut heirs: Vec<&Node<'_>> = copies.filter(stays).collect();
        heirs.sort_by_key(|node| (node.fact.slot != home(shard), node.fact.slot));
        heirs
    };
    let is_free = |node: &&Node<'_>| !hosts.contains_key(&node.fact.host);
    let direct = crowded.iter().find_map(|from| Some((*from, heirs(from).into_iter().find(is_free)?)));
    let back = || {
        let away = nodes.iter().filter(|n| n.leads() && n.fact.slot != home(n.shard()));
        let movable = away.filter(|n| chosen(service, n.shard()) != Some(n.fact.slot));
        let home_of = |from: &Node<'_>| heirs(from).into_iter().find(|n| n.fact.slot == home(n.shard()));
        movable.into_iter().find_map(|from| Some((from, home_of(from)?)))
    };
    let found = direct.or_else(|| if crowded.is_empty() { None } else { back() });
    found.map(|(from, to)| (from.fact.slot, to.fact.slot))
}
