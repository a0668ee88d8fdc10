//! The packet filter as text: who may open connections to which port of which member. Rendering only; loading it is
//! `filter_load.rs`.
//!
//! A drop is final in netfilter, an accept is not: the drops stand here, before Docker's own chains are asked. Two
//! tables say the same, because frames between two members on one bridge pass the first only where `br_netfilter`
//! is loaded and switched on: `inet muster` (connections, with states) and `bridge muster` (frames, without states:
//! a TCP segment that opens no connection needs no permission).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use muster_model::network::{PortRule, Protocol};
use muster_model::spec::Egress;

use super::names::DEVICE;

/// One network on this host, as the filter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bridge.
    pub bridge: String,
    /// The whole network.
    pub subnet: Ipv4Net,
    /// Whether its members may open connections that leave our networks, the host's own ports included.
    pub egress: Egress,
}

/// Everything that the filter is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The mesh's subnet.
    pub mesh: Option<Ipv4Net>,
    /// The networks.
    pub segments: Vec<Segment>,
    /// The ports.
    pub rules: Vec<PortRule>,
}

/// A port of a member.
type Port = (Ipv4Addr, &'static str, u16);

impl Ruleset {
    /// Nothing to protect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mesh.is_none() && self.segments.is_empty()
    }

    /// Table `inet muster`.
    #[must_use]
    pub fn inet(&self) -> String {
        let bridges = self.segments.iter().map(|segment| quoted(&segment.bridge));
        let ours = bridges.clone().chain([quoted(DEVICE)]);
        let inside = |segment: &&Segment| segment.egress == Egress::Allow;
        let pair = |segment: &Segment| format!("{} . {}", quoted(&segment.bridge), segment.subnet.trunc());
        let outward = self.segments.iter().filter(inside);
        let mut text = String::from("table inet muster {\n");
        set(&mut text, "bridges", "type ifname", bridges);
        set(&mut text, "ours", "type ifname", ours);
        set(&mut text, "nets", "type ipv4_addr; flags interval", self.nets());
        set(&mut text, "segments", "type ifname . ipv4_addr; flags interval", self.segments.iter().map(pair));
        set(&mut text, "outward", "type ifname . ipv4_addr; flags interval", outward.clone().map(pair));
        let outward_nets = outward.map(|segment| segment.subnet.trunc().to_string());
        set(&mut text, "outward_nets", "type ipv4_addr; flags interval", outward_nets);
        set(&mut text, "audience", AUDIENCE, self.audience());
        set(&mut text, "public", "type ipv4_addr . inet_proto . inet_service", self.public());
        text.push_str(INET_CHAINS);
        text.push_str("}\n");
        text
    }

    /// Table `bridge muster`.
    #[must_use]
    pub fn bridge(&self) -> String {
        let subnets = self.segments.iter().map(|segment| segment.subnet.trunc().to_string());
        let mut text = String::from("table bridge muster {\n");
        set(&mut text, "nets", "type ipv4_addr; flags interval", subnets);
        set(&mut text, "audience", AUDIENCE, self.audience());
        text.push_str(BRIDGE_CHAIN);
        text.push_str("}\n");
        text
    }

    fn nets(&self) -> impl Iterator<Item = String> {
        let subnets = self.segments.iter().map(|segment| segment.subnet.trunc());
        let all: Vec<Ipv4Net> = subnets.chain(self.mesh.map(|mesh| mesh.trunc())).collect();
        Ipv4Net::aggregate(&all).into_iter().map(|net| net.to_string())
    }

    /// `address . protocol . port . source`. Sources of one port are merged: the kernel refuses overlapping ones.
    fn audience(&self) -> impl Iterator<Item = String> {
        let mut ports: BTreeMap<Port, Vec<Ipv4Net>> = BTreeMap::new();
        for rule in &self.rules {
            ports.entry(port(rule)).or_default().extend(rule.sources.iter().map(Ipv4Net::trunc));
        }
        ports.into_iter().flat_map(|((address, protocol, port), sources)| {
            let line = move |source| format!("{address} . {protocol} . {port} . {source}");
            Ipv4Net::aggregate(&sources).into_iter().map(line)
        })
    }

    fn public(&self) -> impl Iterator<Item = String> {
        let mut ports: Vec<Port> = self.rules.iter().filter(|rule| rule.public).map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().map(|(address, protocol, port)| format!("{address} . {protocol} . {port}"))
    }
}

fn port(rule: &PortRule) -> Port {
    let protocol = match rule.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    (rule.address, protocol, rule.port)
}

fn quoted(interface: &str) -> String {
    format!("\"{interface}\"")
}

/// An empty set has no `elements` line: nft refuses an empty one.
fn set(text: &mut String, name: &str, kind: &str, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    // Writing to a string cannot fail.
    let _ = write!(text, "\tset {name} {{ {kind};");
    if !elements.is_empty() {
        let _ = write!(text, " elements = {{ {} }}", elements.join(", "));
    }
    text.push_str(" }\n");
}

const AUDIENCE: &str = "type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval";

// Safety of this order: what egress denies is dropped before `established` is accepted, so that a network that is
// closed loses its open connections too; `ct direction original` leaves answers to published ports alone.
const INET_CHAINS: &str = r#"	chain raw {
		type filter hook prerouting priority -310; policy accept;
		iifname @ours accept
		iifname "lo" accept
		ip saddr @nets counter drop
		ip daddr @nets counter drop
	}
	chain input {
		type filter hook input priority -10; policy accept;
		iifname != @ours accept
		ct state established,related accept
		meta nfproto ipv6 drop
		iifname . ip saddr @outward accept
		icmp type echo-request accept
		counter drop
	}
	chain forward {
		type filter hook forward priority -10; policy accept;
		iifname != @ours oifname != @ours accept
		meta nfproto ipv6 counter drop
		oifname "muster0" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
		iifname @bridges oifname != @ours iifname . ip saddr != @outward ct direction original counter drop
		ct state established,related accept
		oifname @bridges jump towards_member
		oifname "muster0" jump towards_mesh
		iifname "muster0" counter drop
	}
	chain towards_member {
		ct status & dnat == dnat ip daddr . meta l4proto . th dport @public accept
		iifname . ip saddr @segments iifname . ip daddr @segments ip daddr . meta l4proto . th dport . ip saddr @audience accept
		iifname "muster0" oifname . ip saddr @segments oifname . ip daddr @segments ip daddr . meta l4proto . th dport . ip saddr @audience accept
		counter drop
	}
	chain towards_mesh {
		iifname . ip saddr @segments iifname . ip daddr @segments accept
		counter drop
	}
	chain outward {
		type nat hook postrouting priority 90; policy accept;
		ip saddr @outward_nets ip daddr != @nets oifname != @ours masquerade
	}
"#;

const BRIDGE_CHAIN: &str = r"	chain forward {
		type filter hook forward priority -10; policy accept;
		ip saddr != @nets ip daddr != @nets accept
		ether type arp accept
		ether type != ip counter drop
		ip frag-off & 0x1fff != 0 accept
		tcp flags != syn / syn,ack accept
		ip daddr . ip protocol . th dport . ip saddr @audience accept
		ip saddr . ip protocol . udp sport . ip daddr @audience accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
		counter drop
	}
";

#[cfg(test)]
mod tests {
    use muster_model::ids::Name;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn rule(port: u16, sources: &[&str], public: bool) -> PortRule {
        PortRule {
            network: Name::new("dbnet").unwrap(),
            address: [172, 31, 10, 18].into(),
            port,
            protocol: Protocol::Tcp,
            sources: sources.iter().map(|source| net(source)).collect(),
            public,
        }
    }

    pub(crate) fn example() -> Ruleset {
        let segment = |bridge: &str, subnet: &str, egress| Segment {
            bridge: bridge.into(),
            subnet: net(subnet),
            egress,
        };
        Ruleset {
            mesh: Some(net("10.210.0.0/16")),
            segments: vec![
                segment("mu-dbnet", "172.31.10.0/24", Egress::Deny),
                segment("mu-proxy", "172.30.0.0/24", Egress::Allow),
            ],
            rules: vec![
                rule(5432, &["172.31.10.0/24"], false),
                rule(8008, &["172.31.10.34/32", "172.31.10.33/32"], false),
                rule(5432, &["172.31.10.34/32"], true),
            ],
        }
    }

    #[test]
    fn the_filter_is_written_as_in_the_golden_file() {
        let text = format!("{}{}", example().inet(), example().bridge());
        let golden = include_str!("filter.golden.nft");
        assert_eq!(text, golden, "new text:\n{text}");
    }

    #[test]
    fn sources_that_contain_each_other_are_merged() {
        let lines: Vec<String> = example().audience().collect();
        assert_eq!(
            lines,
            [
                "172.31.10.18 . tcp . 5432 . 172.31.10.0/24",
                "172.31.10.18 . tcp . 8008 . 172.31.10.33/32",
                "172.31.10.18 . tcp . 8008 . 172.31.10.34/32"
            ]
        );
    }

    #[test]
    fn a_host_without_networks_has_empty_sets_without_elements() {
        let empty = Ruleset::default();
        assert!(empty.is_empty());
        assert!(!empty.bridge().contains("elements"));
    }
}
