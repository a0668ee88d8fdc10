//! Our networks in the Docker Engine: made when missing, never changed under a member, removed when nobody uses them.

use std::collections::BTreeSet;
use std::path::Path;

use muster_model::network::NetworkPlan;

use super::engine::{EngineNetwork, NetworkEngine, wanted};
use super::names;
use super::problem::Problem;
use super::routes::{Route, overlap};

/// Whether the kernel has an interface of this name.
#[must_use]
pub fn interface_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// What a pass looks at.
pub struct Seen<'a> {
    /// All networks of the engine.
    pub networks: &'a [EngineNetwork],
    /// All routes of the host.
    pub routes: &'a [Route],
    /// Interfaces that are ours.
    pub ours: &'a BTreeSet<String>,
}

/// Makes what is missing. A network that differs is made anew only if no container is attached to it.
pub async fn ensure<E: NetworkEngine>(
    engine: &E,
    platform: &str,
    plans: &[NetworkPlan],
    seen: &Seen<'_>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for plan in plans {
        let made = match wanted(plan, platform) {
            Ok(wanted) => one(engine, plan, &wanted, seen).await,
            Err(text) => Err(Problem::network("net-plan", &plan.name, text)),
        };
        problems.extend(made.err());
    }
    for stale in leftovers(seen.networks, plans, platform) {
        // The engine refuses while a container is attached; then it stays, and stays protected, until the next pass.
        if engine.remove_network(&stale.id).await.is_ok() {
            tracing::info!(network = stale.name, "network removed: no member of this host needs it");
        }
    }
    problems
}

/// Networks of ours that the plan does not have.
pub fn leftovers<'a>(
    networks: &'a [EngineNetwork],
    plans: &[NetworkPlan],
    platform: &str,
) -> Vec<&'a EngineNetwork> {
    let planned: BTreeSet<String> = plans.iter().map(|plan| names::engine_network(&plan.name)).collect();
    let ours = |network: &&EngineNetwork| network.platform() == Some(platform);
    networks.iter().filter(ours).filter(|network| !planned.contains(&network.name)).collect()
}

async fn one<E: NetworkEngine>(
    engine: &E,
    plan: &NetworkPlan,
    wanted: &EngineNetwork,
    seen: &Seen<'_>,
) -> Result<(), Problem> {
    let refused = |code, text: String| Err(Problem::network(code, &plan.name, text));
    let there = seen.networks.iter().find(|network| network.name == wanted.name);
    if let Some(there) = there {
        if there.platform() != wanted.platform() {
            return refused(
                "net-foreign",
                format!(
                    "Docker network {0} exists and is not ours: remove or rename it (`docker network rm {0}`)",
                    there.name
                ),
            );
        }
        let mut wrong = there.differences(wanted);
        if !interface_exists(&names::bridge(&plan.name)) {
            wrong.push("its bridge is gone".to_owned());
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if engine.remove_network(&there.id).await.is_err() {
            return refused(
                "net-options",
                format!(
                    "Docker network {} is in use and not as it must be ({}): stop the containers attached to it, it is \
                     then made anew within 10 s",
                    there.name,
                    wrong.join("; ")
                ),
            );
        }
        tracing::warn!(
            network = there.name,
            wrong = wrong.join("; "),
            "unused network removed to make it anew"
        );
    }
    if let Some(text) = conflict(plan, wanted, seen) {
        return refused("net-overlap", text);
    }
    engine.create_network(wanted).await.or_else(|error| {
        refused("net-create", format!("Docker network {} cannot be made: {error}", wanted.name))
    })?;
    tracing::info!(network = wanted.name, subnet = %plan.subnet, gateway = %plan.gateway, "network made");
    Ok(())
}

/// What else on this host uses addresses of a network that is to be made.
fn conflict(plan: &NetworkPlan, wanted: &EngineNetwork, seen: &Seen<'_>) -> Option<String> {
    let remedy = "remove it, or give the network another subnet in the platform's spec";
    let name = &plan.name;
    let clashes = |network: &&EngineNetwork| {
        let inside = |net: &ipnet::Ipv4Net| net.contains(&plan.subnet) || plan.subnet.contains(net);
        network.name != wanted.name && network.subnets.iter().any(inside)
    };
    if let Some(other) = seen.networks.iter().find(clashes) {
        return Some(format!(
            "network {name} ({}) overlaps Docker network {} {:?}: {remedy}",
            plan.subnet, other.name, other.subnets
        ));
    }
    let (net, device) = overlap(seen.routes, plan.subnet, seen.ours)?;
    Some(format!("network {name} ({}) overlaps the route to {net} through {device}: {remedy}", plan.subnet))
}
