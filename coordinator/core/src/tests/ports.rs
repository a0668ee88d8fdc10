//! Ports of the hosts that two want are refused with both places named.

use muster_model::view::{CoordinatorView, Diagnostic};
use muster_spec::{Parsed, parse};

use super::*;
use crate::{dry_run, ports};

/// A service that publishes `port` on its line 8; `more` stands below it.
fn publishing(service: &str, port: &str, more: &str) -> String {
    format!(
        "  {service}:\n    kind: app\n    image: a:1\n    ports:\n      - port: 7\n        audience: public\n{more}        publish: {port}\n"
    )
}

fn file(mesh: &str, services: &[String]) -> String {
    format!("muster: 1\nplatform: demo\n{mesh}services:\n{}", services.concat())
}

fn clashes(yaml: &str) -> Vec<Diagnostic> {
    let Parsed { spec, places } = parse(yaml).unwrap_or_else(|found| panic!("{found:?}\n{yaml}"));
    ports::clashes(&spec, &places)
}

#[test]
fn two_services_and_the_mesh_are_named_with_their_lines() {
    let two = [publishing("a", "0.0.0.0:80", ""), publishing("b", "127.0.0.1:80", "")];
    let found = clashes(&file("", &two));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].line, found[0].path.as_str()), (17, "services.b.ports.0.publish"));
    let message = "host port 80/tcp is published by `a` already, see `services.a.ports.0.publish` in line 10";
    assert_eq!(found[0].message, message);

    let udp = [publishing("a", "0.0.0.0:51820", "        protocol: udp\n")];
    let found = clashes(&file("", &udp));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("the mesh's, see the default of `mesh.port`"), "{found:?}");
    let found = clashes(&file("mesh:\n  port: 53\n", &[udp[0].replace("51820", "53")]));
    assert!(found[0].message.contains("`mesh.port` in line 4") && found[0].line == 13, "{found:?}");
}

#[test]
fn other_protocols_and_hosts_that_never_meet_do_not_clash() {
    let tcp = publishing("a", "0.0.0.0:53", "");
    let udp = publishing("b", "0.0.0.0:53", "        protocol: udp\n");
    assert_eq!(clashes(&file("", &[tcp, udp])), Vec::new());
    assert_eq!(clashes(&file("", &[publishing("a", "0.0.0.0:51820", "")])), Vec::new());
    let on = |service: &str, hosts: &str| {
        publishing(service, "0.0.0.0:80", "") + &format!("    place: {{hosts: [{hosts}]}}\n")
    };
    assert_eq!(clashes(&file("", &[on("a", "vps-1"), on("b", "vps-2")])), Vec::new());
    let three = [on("a", "vps-1"), on("b", "vps-2"), on("c", "vps-2, vps-3")];
    let found = clashes(&file("", &three));
    assert!(found.len() == 1 && found[0].message.contains("by `b`"), "{found:?}");
}

#[test]
fn a_coordinators_port_is_refused_on_its_host_only() {
    let world = World::new(3);
    let coordinator = |endpoint: &str| CoordinatorView {
        id: 1,
        endpoint: endpoint.to_owned(),
        leader: true,
        voter: true,
        reachable: Some(true),
    };
    let plan = |yaml: &str, endpoint: &str| {
        let Parsed { spec, places } = parse(yaml).unwrap();
        dry_run::plan(&world.state, &Arc::new(spec), &places, world.now, &[coordinator(endpoint)]).refusals
    };
    let yaml = file("", &[publishing("a", "0.0.0.0:7443", "")]);
    let found = plan(&yaml, "203.0.113.2:7443");
    assert_eq!((found.len(), found[0].line), (1, 10), "{found:?}");
    let message = "on host vps-2 port 7443/tcp is the coordinator's, which listens on 203.0.113.2:7443";
    assert_eq!(found[0].message, message);
    assert_eq!(plan(&yaml, "203.0.113.2:7444"), Vec::new());
    assert_eq!(plan(&yaml, "203.0.113.9:7443"), Vec::new(), "a coordinator on a machine of its own");
    let elsewhere = yaml.clone() + "    place: {hosts: [vps-1]}\n";
    assert_eq!(plan(&elsewhere, "203.0.113.2:7443"), Vec::new());
    let udp = yaml.replace("audience: public\n", "audience: public\n        protocol: udp\n");
    assert_eq!(plan(&udp, "203.0.113.2:7443"), Vec::new());
}
