//! What the network needs of the Docker Engine, and which networks it must have there. No call is made here.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use muster_model::network::NetworkPlan;

use super::names::{DEVICE, bridge, engine_network};
use crate::runtime::LABEL_PLATFORM;

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Prefix length of the part of a block from which the engine itself may choose addresses.
const TAIL_LEN: u8 = 30;

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub String);

/// A network as the engine has it, or should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineNetwork {
    /// The engine's id; empty before it is made.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its subnets.
    pub subnets: Vec<Ipv4Net>,
    /// The bridge's address.
    pub gateway: Option<Ipv4Addr>,
    /// Where the engine may choose addresses by itself.
    pub range: Option<Ipv4Net>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// The part of the Docker Engine that deals with networks. Every call has a deadline.
pub trait NetworkEngine: Send + Sync {
    /// All networks, foreign ones too.
    fn networks(&self) -> impl Future<Output = Result<Vec<EngineNetwork>, EngineError>> + Send;
    /// Makes one.
    fn create_network(&self, wanted: &EngineNetwork) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Removes one; the engine refuses while containers use it.
    fn remove_network(&self, id: &str) -> impl Future<Output = Result<(), EngineError>> + Send;
}

/// How a network of the plan must look in the engine; an error is one sentence for the operator.
pub fn wanted(plan: &NetworkPlan, platform: &str) -> Result<EngineNetwork, String> {
    let Some(last) = plan.blocks.last() else {
        return Err(format!("network {} has no block on this host", plan.name));
    };
    if !plan.subnet.contains(&plan.gateway) || !plan.subnet.contains(last) {
        return Err(format!(
            "network {}: gateway {} or block {last} is outside {}",
            plan.name, plan.gateway, plan.subnet
        ));
    }
    let options = [
        (BRIDGE_NAME, bridge(&plan.name)),
        ("com.docker.network.driver.mtu", plan.mtu.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", "false".to_owned()),
        ("com.docker.network.bridge.trusted_host_interfaces", DEVICE.to_owned()),
    ];
    Ok(EngineNetwork {
        id: String::new(),
        name: engine_network(&plan.name),
        driver: "bridge".to_owned(),
        labels: [(LABEL_PLATFORM.to_owned(), platform.to_owned())].into(),
        subnets: vec![plan.subnet.trunc()],
        gateway: Some(plan.gateway),
        range: Some(tail(*last)),
        options: options.map(|(key, value)| (key.to_owned(), value)).into(),
    })
}

/// The last /30 of a block: a container that somebody starts by hand cannot take the address of a stopped member.
fn tail(block: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new(block.broadcast(), TAIL_LEN.max(block.prefix_len())).map_or(block, |net| net.trunc())
}

impl EngineNetwork {
    /// The platform that it belongs to.
    #[must_use]
    pub fn platform(&self) -> Option<&str> {
        self.labels.get(LABEL_PLATFORM).map(String::as_str)
    }

    /// Its bridge.
    #[must_use]
    pub fn bridge(&self) -> Option<&str> {
        self.options.get(BRIDGE_NAME).map(String::as_str)
    }

    /// What of an existing network differs from what is wanted and cannot be changed; empty = nothing.
    ///
    /// The range is not compared: it belongs to the last block at the time when the network was made.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, have: String, want: String| {
            if have != want {
                found.push(format!("{what} is {have}, must be {want}"));
            }
        };
        compare("driver", self.driver.clone(), wanted.driver.clone());
        compare("subnet", format!("{:?}", self.subnets), format!("{:?}", wanted.subnets));
        compare("gateway", format!("{:?}", self.gateway), format!("{:?}", wanted.gateway));
        for (key, want) in &wanted.options {
            let have = self.options.get(key).map_or("not set", String::as_str);
            compare(key, have.to_owned(), want.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use muster_model::ids::Name;
    use muster_model::spec::Egress;

    use super::*;

    fn plan() -> NetworkPlan {
        NetworkPlan {
            name: Name::new("dbnet").unwrap(),
            subnet: "172.31.10.0/24".parse().unwrap(),
            gateway: [172, 31, 10, 17].into(),
            blocks: vec!["172.31.10.16/28".parse().unwrap()],
            remote: Vec::new(),
            mtu: 1370,
            egress: Egress::Deny,
        }
    }

    #[test]
    fn the_engine_may_choose_only_from_the_end_of_the_last_block() {
        let made = wanted(&plan(), "p1").unwrap();
        assert_eq!(made.range.unwrap().to_string(), "172.31.10.28/30");
        assert_eq!(made.bridge(), Some("mu-dbnet"));
        assert_eq!(made.platform(), Some("p1"));
    }

    #[test]
    fn a_second_block_is_no_difference_but_another_mtu_is() {
        let there = wanted(&plan(), "p1").unwrap();
        let mut grown = plan();
        grown.blocks.push("172.31.10.64/28".parse().unwrap());
        assert!(there.differences(&wanted(&grown, "p1").unwrap()).is_empty());
        grown.mtu = 1420;
        let found = there.differences(&wanted(&grown, "p1").unwrap());
        assert_eq!(found, ["com.docker.network.driver.mtu is 1370, must be 1420"]);
    }

    #[test]
    fn a_network_without_a_block_or_with_a_gateway_elsewhere_is_refused() {
        let mut none = plan();
        none.blocks.clear();
        assert!(wanted(&none, "p1").is_err());
        let mut outside = plan();
        outside.gateway = [10, 0, 0, 1].into();
        assert!(wanted(&outside, "p1").unwrap_err().contains("outside"));
    }
}
