//! Chooses a host, addresses and blocks for one slot. Deterministic: the same state gives the same choice.

mod filter;

pub use filter::not_allowed;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::{HostId, Name};
use muster_model::plan::Attachment;

use crate::addresses;
use crate::command::NewBlock;
use crate::facts::{kind_of, layout_of};
use crate::kinds::{HostPort, Layout};
use crate::state::{Host, Member, Phase, Service, State};

/// Where a member goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The host.
    pub host: HostId,
    /// Its addresses.
    pub addresses: Vec<Attachment>,
    /// Blocks that these need.
    pub blocks: Vec<NewBlock>,
}

/// Why no host fits: how many hosts each filter refused, with its words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoHost {
    /// Words of a filter -> names of hosts.
    pub refused: BTreeMap<String, Vec<Name>>,
    /// Setting of the service that keeps hosts away -> how many.
    fields: BTreeMap<&'static str, usize>,
}

impl NoHost {
    fn add(&mut self, host: &Name, unfit: Unfit) {
        self.refused.entry(unfit.why).or_default().push(host.clone());
        if let Some(field) = unfit.field {
            *self.fields.entry(field).or_default() += 1;
        }
    }

    /// Path, below the service, of the setting that keeps most hosts away; absent = none does, there are too few.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        self.fields.iter().max_by_key(|(_, hosts)| **hosts).map(|(field, _)| *field)
    }
}

/// Why a host cannot take a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// In words that follow the host's name.
    pub why: String,
    /// Path of the setting that asks too much, below the service; absent = it is not for a setting.
    pub field: Option<&'static str>,
}

impl std::fmt::Display for NoHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.refused.is_empty() {
            return f.write_str("no host has joined");
        }
        f.write_str("no host fits: ")?;
        for (at, (why, hosts)) in self.refused.iter().enumerate() {
            let names: Vec<&str> = hosts.iter().map(Name::as_str).collect();
            write!(f, "{}{} {why}", if at == 0 { "" } else { "; " }, names.join(", "))?;
        }
        Ok(())
    }
}

/// The order in which hosts are preferred: fields from the top, smaller is better. The last two make it total.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Not where its owner's member is, although it is for that one.
    astray: bool,
    /// Members of the same service on this host.
    same_service: usize,
    /// Empty slots of the same service that could still go there: the host that few others can take comes first.
    wanted_by_others: usize,
    /// Members that were in this slot and leave the host, or are to be replaced there.
    leaving: usize,
    /// Members of the same service in its zone.
    same_zone: usize,
    /// Members of any service.
    members: usize,
    /// Name, then identity.
    name: Name,
    host: HostId,
}

/// One slot to fill, with everything that filters and the score read.
pub(crate) struct Request<'a> {
    pub state: &'a State,
    pub service: &'a Name,
    pub row: &'a Service,
    pub layout: &'a Layout,
    /// The slot.
    pub slot: u32,
    /// Active members of the service in its other slots.
    pub siblings: Vec<&'a Member>,
}

/// Chooses a host for a slot of the service. A member that is in it does not count: it is to be replaced.
pub fn choose(state: &State, service: &Name, layout: &Layout, slot: u32) -> Result<Choice, NoHost> {
    let Some(row) = state.services.get(service) else { return Err(NoHost::default()) };
    let active = state.members.values().filter(|m| m.is_of(service) && m.phase == Phase::Active);
    let siblings = active.filter(|m| m.slot.index != slot).collect();
    let request = Request { state, service, row, layout, slot, siblings };
    let mut refused = NoHost::default();
    let mut best: Option<(Score, Choice)> = None;
    for (id, host) in &state.hosts {
        match fit(&request, id, host) {
            Err(unfit) => refused.add(&host.name, unfit),
            Ok(choice) => {
                let score = score(&request, id, host);
                if best.as_ref().is_none_or(|(present, _)| score < *present) {
                    best = Some((score, choice));
                }
            }
        }
    }
    best.map(|(_, choice)| choice).ok_or(refused)
}

/// What each host is for a slot: its score, or why it cannot take it.
#[must_use]
pub fn verdicts(state: &State, service: &Name, layout: &Layout, slot: u32) -> Vec<(Name, String)> {
    let Some(row) = state.services.get(service) else { return Vec::new() };
    let active = state.members.values().filter(|m| m.is_of(service) && m.phase == Phase::Active);
    let siblings = active.filter(|m| m.slot.index != slot).collect();
    let request = Request { state, service, row, layout, slot, siblings };
    let verdict = |id: &HostId, host: &Host| match fit(&request, id, host) {
        Err(unfit) => unfit.why,
        Ok(_) => {
            let score = score(&request, id, host);
            format!(
                "fits: {} other members of the service, {} in its zone, {} members in all",
                score.same_service, score.same_zone, score.members
            )
        }
    };
    state.hosts.iter().map(|(id, host)| (host.name.clone(), verdict(id, host))).collect()
}

fn fit(request: &Request<'_>, id: &HostId, host: &Host) -> Result<Choice, Unfit> {
    for filter in filter::ALL {
        filter(request, id, host)?;
    }
    let (addresses, blocks) =
        find_addresses(request, id).map_err(|why| Unfit { why, field: Some("network") })?;
    Ok(Choice { host: id.clone(), addresses, blocks })
}

fn score(request: &Request<'_>, id: &HostId, host: &Host) -> Score {
    let leaving = |m: &&Member| m.is_of(request.service) && m.slot.index == request.slot;
    let on_host = || request.state.members.values().filter(|m| m.host == *id);
    let zone_of = |m: &Member| request.state.hosts.get(&m.host).map(|h| h.zone.as_str());
    let here = request.siblings.iter().filter(|m| m.host == *id).map(|m| m.slot.index);
    let filled = |slot: &u32| *slot == request.slot || request.siblings.iter().any(|m| m.slot.index == *slot);
    let empty = request.layout.indexes().into_iter().filter(|slot| !filled(slot));
    let fits = |slot: &u32| here.clone().all(|other| request.layout.may_share(*slot, other));
    Score {
        astray: beside(request.state, request.row, request.slot).is_some_and(|best| best != id),
        same_service: here.clone().count(),
        wanted_by_others: empty.filter(fits).count(),
        leaving: on_host().filter(leaving).count(),
        same_zone: request.siblings.iter().filter(|m| zone_of(m) == Some(host.zone.as_str())).count(),
        members: on_host().count(),
        name: host.name.clone(),
        host: id.clone(),
    }
}

/// The host that is best for a slot, because its owner's member that it is for is there; absent = any.
pub(crate) fn beside<'a>(state: &'a State, row: &Service, slot: u32) -> Option<&'a HostId> {
    let parent = row.parent.as_ref().filter(|_| kind_of(row).is_some_and(|kind| kind.beside_owner()))?;
    let looked_after =
        |m: &&Member| m.is_of(&parent.owner) && m.slot.index == slot && m.phase == Phase::Active;
    state.members.values().find(looked_after).map(|member| &member.host)
}

fn find_addresses(request: &Request<'_>, id: &HostId) -> Result<(Vec<Attachment>, Vec<NewBlock>), String> {
    let mut addresses = Vec::new();
    let mut blocks = Vec::new();
    for network in &request.layout.networks {
        let (address, block) = find_address(request.state, network, id)?;
        addresses.push(Attachment { network: network.clone(), address });
        blocks.extend(block.map(|net| NewBlock { network: network.clone(), net }));
    }
    Ok((addresses, blocks))
}

/// Lowest free address in the host's blocks of a network, or the first of the lowest free block.
fn find_address(
    state: &State,
    network: &Name,
    id: &HostId,
) -> Result<(Ipv4Addr, Option<ipnet::Ipv4Net>), String> {
    let spec = state.spec().and_then(|spec| spec.network(network));
    let Some(subnet) = spec.map(|spec| spec.subnet) else {
        return Err(format!("cannot join network {network}, which does not exist"));
    };
    let taken = |address: &Ipv4Addr| {
        state
            .members
            .values()
            .flat_map(|m| &m.addresses)
            .any(|a| a.network == *network && a.address == *address)
    };
    let own = state.blocks_of(network, id);
    for (at, block) in own.iter().enumerate() {
        if let Some(free) = addresses::for_members(*block, at == 0, subnet).find(|a| !taken(a)) {
            return Ok((free, None));
        }
    }
    let rows = state.blocks.get(network);
    let is_free = |block: &ipnet::Ipv4Net| rows.is_none_or(|rows| !rows.contains_key(block));
    let usable = |block: &ipnet::Ipv4Net| addresses::for_members(*block, own.is_empty(), subnet).next();
    let found =
        addresses::blocks(subnet).filter(is_free).find_map(|block| Some((usable(&block)?, Some(block))));
    found.ok_or_else(|| format!("cannot get an address: network {network} ({subnet}) is full"))
}

/// Ports on the host's own address that its members have published.
pub(crate) fn host_ports(state: &State, id: &HostId) -> BTreeMap<HostPort, Name> {
    let mut ports = BTreeMap::new();
    for (_, member) in state.members_on(id) {
        let service = state.services.get(&member.slot.service);
        let layout = service.and_then(|row| layout_of(&member.slot.service, row));
        for port in layout.map(|l| l.host_ports).unwrap_or_default() {
            ports.insert(port, member.slot.service.clone());
        }
    }
    ports
}
