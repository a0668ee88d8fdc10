//! Which sources may reach which port of which member: the audiences of ports, as addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use muster_model::ids::{MemberId, Name};
use muster_model::network::{Audience, PortRule};

use crate::state::{Member, State};

/// The rules of the members of one host. What no rule names is reachable by nobody.
#[must_use]
pub fn rules(state: &State, members: &[(MemberId, &Member)]) -> Vec<PortRule> {
    let mut rules = Vec::new();
    for (_, member) in members {
        let Some(rendering) = &member.rendering else { continue };
        for port in &rendering.rendered.ports {
            let here = |network| port.only.as_ref().is_none_or(|only| only == network);
            for place in member.addresses.iter().filter(|place| here(&place.network)) {
                let Some(sources) = sources(state, member, &place.network, port.audience) else { continue };
                rules.push(PortRule {
                    network: place.network.clone(),
                    address: place.address,
                    port: port.port,
                    protocol: port.protocol,
                    sources,
                    public: port.audience == Audience::Public,
                });
            }
        }
    }
    rules.sort();
    rules.dedup();
    rules
}

fn sources(state: &State, member: &Member, network: &Name, audience: Audience) -> Option<Vec<Ipv4Net>> {
    match audience {
        Audience::Members => Some(family_addresses(state, &member.slot.service, network)),
        Audience::Network | Audience::Public => {
            let subnet = state.spec()?.network(network)?.subnet;
            Some(vec![subnet])
        }
    }
}

/// Addresses of the service's members, its owner's and siblings', and of the agents of their hosts.
///
/// Members being retired keep theirs: their containers may still have to say goodbye to their peers.
fn family_addresses(state: &State, service: &Name, network: &Name) -> Vec<Ipv4Net> {
    let mut found: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let names: BTreeSet<&Name> = state.family(service).map(|(name, _)| name).collect();
    for member in state.members.values().filter(|m| names.contains(&m.slot.service)) {
        found.extend(member.addresses.iter().filter(|a| a.network == *network).map(|a| a.address));
        found.extend(state.gateway(network, &member.host));
    }
    found.into_iter().map(Ipv4Net::from).collect()
}
