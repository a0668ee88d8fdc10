//! A proxy's container: the owner's members as servers, checked through their REST port. Decides nothing.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{Act, ActionSpec, Ask, Limits, OnChange, Rendered, StopSpec, UserIds};

use super::{READ_PORT, Settings, WRITE_PORT};
use crate::kinds::{Peer, RenderContext, parts, postgres};

const TEMPLATE: &str = include_str!("haproxy.cfg");
const HEALTH_PORT: u16 = 8404;
/// User and group of the image.
const USER: UserIds = UserIds { uid: 5000, gid: 5000 };

pub const LIMITS: Limits =
    Limits { memory_bytes: 128 * parts::MIB, cpu_millis: 0, pids: 100, shm_bytes: 16 * parts::MIB };

pub fn render(context: &RenderContext<'_>, settings: &Settings) -> Rendered {
    let ask = |path: &str| Ask::Http(parts::http("GET", HEALTH_PORT, path));
    // Its first process is the master; it checks the new file and keeps the old processes if that is bad.
    let reload =
        ActionSpec { guard: None, run: Act::Signal { signal: "SIGUSR2".to_owned() }, timeout_ms: 5_000 };
    Rendered {
        image: settings.image.clone(),
        command: ["/usr/sbin/haproxy", "-W", "-db", "-f", "/muster/haproxy.cfg"].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files: vec![parts::file(
            "/muster/haproxy.cfg",
            config(context, &settings.network),
            0o444,
            OnChange::Reload("reload".to_owned()),
        )],
        volumes: Vec::new(),
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 10_000 },
        ports: vec![
            parts::port(WRITE_PORT, Audience::Network),
            parts::port(READ_PORT, Audience::Network),
            parts::port(HEALTH_PORT, Audience::Members),
        ],
        probes: vec![
            parts::probe("alive", 1_000, 1_000, ask("/alive")),
            parts::probe("write", 2_000, 1_000, ask("/write")),
        ],
        actions: BTreeMap::from([("reload".to_owned(), reload)]),
        release: None,
        system_id: None,
    }
}

fn config(context: &RenderContext<'_>, network: &Name) -> String {
    let owner = context.owner.map(|(name, _, peers)| (name, peers));
    let server = |name: &Name, peer: &Peer| {
        let member = postgres::member_name(name, peer.slot, peer.member);
        let address = parts::address(peer, network);
        format!("    server {member} {address}:{} check port {}", postgres::PORT, postgres::REST_PORT)
    };
    let servers: Vec<String> = owner
        .into_iter()
        .flat_map(|(name, peers)| peers.iter().map(move |peer| server(name, peer)))
        .collect();
    TEMPLATE.replace("@SERVERS@", &servers.join("\n"))
}
