//! Ports of the hosts' own addresses that two want: services among themselves, and services and the platform.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use muster_model::ids::Name;
use muster_model::network::Protocol;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::{CoordinatorView, Diagnostic};
use muster_spec::Places;

use crate::kinds::{self, HostPort};
use crate::scheduler::not_allowed;
use crate::state::State;

const OTHER_PORT: &str = "publish on another port";

/// Ports that a file gives away twice, told at the second place; the first one is named with its line.
#[must_use]
pub fn clashes(spec: &PlatformSpec, places: &Places) -> Vec<Diagnostic> {
    let mesh = HostPort { port: spec.mesh.port, protocol: Protocol::Udp };
    let mut taken: BTreeMap<HostPort, Vec<&Name>> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, service) in &spec.services {
        for port in published(name, service) {
            let path = publisher(name, service, port);
            if port == mesh {
                let message = format!("host port {port} is the mesh's, see {}", place(places, "mesh.port"));
                found.push(places.diagnostic(&path, message, OTHER_PORT));
            }
            let others = taken.entry(port).or_default();
            let other = others.iter().find(|other| may_meet(service, &spec.services[**other]));
            if let Some(other) = other {
                let there = place(places, &publisher(other, &spec.services[*other], port));
                let message = format!("host port {port} is published by `{other}` already, see {there}");
                let help = "publish on another port, or give the two different hosts under `place.hosts`";
                found.push(places.diagnostic(&path, message, help));
            }
            others.push(name);
        }
    }
    found
}

/// Ports that a coordinator listens on, of services that may come to its host.
pub fn of_coordinators(
    state: &State,
    spec: &PlatformSpec,
    places: &Places,
    coordinators: &[CoordinatorView],
) -> Vec<Diagnostic> {
    let endpoints = coordinators.iter().filter_map(|one| one.endpoint.parse::<SocketAddr>().ok());
    let listening: Vec<SocketAddr> = endpoints.collect();
    let mut found = Vec::new();
    for (name, service) in &spec.services {
        for port in published(name, service).into_iter().filter(|port| port.protocol == Protocol::Tcp) {
            let allowed = state.hosts.values().filter(|host| not_allowed(&service.place, host).is_none());
            let meets = |address: std::net::IpAddr| {
                listening.iter().find(|one| one.port() == port.port && one.ip() == address)
            };
            let Some((host, endpoint)) = allowed.clone().find_map(|host| Some((host, meets(host.address)?)))
            else {
                continue;
            };
            let message = format!(
                "on host {} port {port} is the coordinator's, which listens on {endpoint}",
                host.name
            );
            let help = "publish on another port, or keep the service off that host with `place`";
            found.push(places.diagnostic(&publisher(name, service, port), message, help));
        }
    }
    found
}

fn published(name: &Name, service: &ServiceSpec) -> Vec<HostPort> {
    kinds::kind(service.kind.as_str()).map(|kind| kind.layout(name, service).host_ports).unwrap_or_default()
}

/// Two services that name no common host never share one.
fn may_meet(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    let (one, other) = (&one.place.hosts, &other.place.hosts);
    one.is_empty() || other.is_empty() || one.iter().any(|host| other.contains(host))
}

/// A field in words, with its line if it is written.
fn place(places: &Places, path: &str) -> String {
    match places.line_of(path) {
        Some(line) => format!("`{path}` in line {line}"),
        None => format!("the default of `{path}`"),
    }
}

/// Where a service publishes this port of the host.
fn publisher(name: &Name, service: &ServiceSpec, port: HostPort) -> String {
    let ports = service.settings.get("ports").and_then(|ports| ports.as_array());
    let publishes = |entry: &serde_json::Value| {
        let udp = entry["protocol"].as_str() == Some("udp");
        udp == (port.protocol == Protocol::Udp)
            && entry["publish"].as_str().is_some_and(|address| address.ends_with(&format!(":{}", port.port)))
    };
    match ports.and_then(|ports| ports.iter().position(publishes)) {
        Some(index) => format!("services.{name}.ports.{index}.publish"),
        None => format!("services.{name}.ports"),
    }
}
