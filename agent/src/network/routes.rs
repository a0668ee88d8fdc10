//! Routes to the blocks of other hosts, and what overlaps our subnets. Only routes of our own protocol number are changed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use muster_model::network::{HostNetwork, NetworkPlan};
use serde::Deserialize;

use super::command::{CommandError, run};
use super::names::DEVICE;

/// Marks our routes, so that stale ones are found.
const PROTOCOL: &str = "157";

/// One line of `ip -j route`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
    #[serde(default)]
    prefsrc: Option<Ipv4Addr>,
    #[serde(default)]
    protocol: String,
}

impl Route {
    fn destination(&self) -> Option<Ipv4Net> {
        let host = || self.dst.parse::<Ipv4Addr>().ok().map(Ipv4Net::from);
        self.dst.parse().ok().or_else(host)
    }
}

/// All IPv4 routes of the host, of every table.
pub async fn read() -> Result<Vec<Route>, CommandError> {
    let listing = run("ip", &["-j", "-4", "route", "show", "table", "all"], "").await?;
    Ok(serde_json::from_str(&listing).unwrap_or_default())
}

/// Our own routes, as `ip route del` wants them.
///
/// # Errors
/// They cannot be read.
pub async fn ours() -> Result<Vec<String>, CommandError> {
    let routes = read().await?;
    let own = routes.iter().filter(|route| route.protocol == PROTOCOL);
    Ok(own.map(|route| format!("{} dev {} proto {PROTOCOL}", route.dst, route.dev)).collect())
}

/// The first foreign route into `subnet`: not the default route, not through a device of ours.
#[must_use]
pub fn overlap<'a>(
    routes: &'a [Route],
    subnet: Ipv4Net,
    ours: &BTreeSet<String>,
) -> Option<(&'a str, &'a str)> {
    let touches = |route: &&Route| {
        let net = route.destination();
        net.is_some_and(|net| net.prefix_len() > 0 && (net.contains(&subnet) || subnet.contains(&net)))
    };
    let foreign = |route: &&Route| route.protocol != PROTOCOL && !ours.contains(&route.dev);
    routes.iter().filter(foreign).find(touches).map(|route| (route.dst.as_str(), route.dev.as_str()))
}

/// Adds missing routes, removes stale ones. `ready` are the networks whose bridge is there.
pub async fn ensure(plan: &HostNetwork, ready: &[&NetworkPlan]) -> Result<(), CommandError> {
    for change in changes(&read().await?, &wanted(plan, ready)) {
        let args: Vec<&str> = change.split(' ').collect();
        run("ip", &args, "").await?;
    }
    Ok(())
}

/// Destination and source address of every route. The source makes the host itself a member of the network, so
/// that its probes arrive on other hosts from an address that their rules know.
fn wanted(plan: &HostNetwork, ready: &[&NetworkPlan]) -> BTreeSet<(Ipv4Net, Ipv4Addr)> {
    let Some(mesh) = &plan.mesh else { return BTreeSet::new() };
    let blocks = ready.iter().flat_map(|net| net.remote.iter().map(|block| (block.trunc(), net.gateway)));
    blocks.chain([(mesh.subnet.trunc(), mesh.address)]).collect()
}

fn changes(there: &[Route], wanted: &BTreeSet<(Ipv4Net, Ipv4Addr)>) -> Vec<String> {
    let ours: Vec<(Ipv4Net, &Route)> = there
        .iter()
        .filter(|route| route.protocol == PROTOCOL)
        .filter_map(|route| Some((route.destination()?, route)))
        .collect();
    let stale = ours.iter().filter(|(net, _)| !wanted.iter().any(|(wanted, _)| wanted == net));
    let mut changes: Vec<String> =
        stale.map(|(net, route)| format!("route del {net} dev {} proto {PROTOCOL}", route.dev)).collect();
    for (net, source) in wanted {
        let good = |(have, route): &(Ipv4Net, &Route)| {
            have == net && route.dev == DEVICE && route.prefsrc == Some(*source)
        };
        if !ours.iter().any(good) {
            changes.push(format!("route replace {net} dev {DEVICE} proto {PROTOCOL} src {source}"));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Vec<Route> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn only_what_differs_is_changed_and_only_our_own() {
        let there = parse(
            r#"[{"dst":"default","gateway":"198.19.1.1","dev":"eth0","flags":[]},
                {"dst":"10.9.0.0/16","dev":"eth1","protocol":"static"},
                {"dst":"172.31.10.32/28","dev":"muster0","protocol":"157","prefsrc":"172.31.10.17"},
                {"dst":"172.31.10.48","dev":"muster0","protocol":"157","prefsrc":"172.31.10.17"}]"#,
        );
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let gateway = Ipv4Addr::new(172, 31, 10, 17);
        let wanted = [(net("172.31.10.32/28"), gateway), (net("172.31.10.64/28"), gateway)].into();
        assert_eq!(
            changes(&there, &wanted),
            [
                "route del 172.31.10.48/32 dev muster0 proto 157",
                "route replace 172.31.10.64/28 dev muster0 proto 157 src 172.31.10.17"
            ]
        );
    }

    #[test]
    fn a_foreign_route_into_a_subnet_is_found_but_the_default_route_is_not() {
        let routes = parse(
            r#"[{"dst":"default","dev":"eth0"},{"dst":"0.0.0.0/0","dev":"eth0"},
                {"dst":"172.31.0.0/16","dev":"eth1"},
                {"dst":"172.31.10.0/24","dev":"mu-dbnet"}]"#,
        );
        let ours = ["mu-dbnet".to_owned()].into();
        let found = overlap(&routes, "172.31.10.0/24".parse().unwrap(), &ours);
        assert_eq!(found, Some(("172.31.0.0/16", "eth1")));
        assert_eq!(overlap(&routes, "172.30.0.0/24".parse().unwrap(), &ours), None);
    }
}
