//! An etcd member's container: files, ports, probes. Decides nothing about when it starts.

use std::collections::BTreeMap;

use muster_model::network::Audience;
use muster_model::plan::{Ask, Limits, OnChange, Rendered, StopSpec, UserIds, VolumeSpec};

use super::{CLIENT_PORT, Settings};
use crate::kinds::{Peer, RenderContext, parts};

const TEMPLATE: &str = include_str!("etcd.yaml");
pub const PEER_PORT: u16 = 2380;
/// User and group of the image.
const USER: UserIds = UserIds { uid: 2379, gid: 2379 };

pub const LIMITS: Limits =
    Limits { memory_bytes: 256 * parts::MIB, cpu_millis: 0, pids: 200, shm_bytes: 16 * parts::MIB };

pub fn render(context: &RenderContext<'_>, settings: &Settings) -> Rendered {
    let post = |path: &str, body: &str| {
        Ask::Http(muster_model::plan::HttpAsk {
            body: Some(body.to_owned()),
            ..parts::http("POST", CLIENT_PORT, path)
        })
    };
    Rendered {
        image: settings.image.clone(),
        command: ["/usr/local/bin/etcd", "--config-file", "/muster/etcd.yaml"].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files: vec![parts::file("/muster/etcd.yaml", config(context, settings), 0o444, OnChange::None)],
        volumes: vec![VolumeSpec { name: parts::known_name("data"), path: "/data".to_owned() }],
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 20_000 },
        ports: vec![parts::port(CLIENT_PORT, Audience::Members), parts::port(PEER_PORT, Audience::Members)],
        probes: vec![
            parts::probe("health", 1_000, 2_000, Ask::Http(parts::http("GET", CLIENT_PORT, "/health"))),
            parts::probe("status", 2_000, 2_000, post("/v3/maintenance/status", "{}")),
            parts::probe("alarm", 10_000, 2_000, post("/v3/maintenance/alarm", r#"{"action":"GET"}"#)),
        ],
        actions: BTreeMap::new(),
        release: None,
        system_id: None,
    }
}

fn config(context: &RenderContext<'_>, settings: &Settings) -> String {
    let name = |peer: &Peer| parts::member_name(context.service, peer.slot, peer.member);
    let address = |peer: &Peer| parts::address(peer, &settings.network);
    let cluster: Vec<String> = context
        .peers
        .iter()
        .map(|peer| format!("{}=http://{}:{PEER_PORT}", name(peer), address(peer)))
        .collect();
    TEMPLATE
        .replace("@NAME@", &name(context.me))
        .replace("@ADDRESS@", &address(context.me).to_string())
        .replace("@CLUSTER@", &cluster.join(","))
        // Two platforms, or two services of one, never mix, whatever addresses they use.
        .replace("@TOKEN@", &format!("{}-{}", context.platform_id, context.service))
        .replace("@STATE@", if context.joins_existing { "existing" } else { "new" })
}
