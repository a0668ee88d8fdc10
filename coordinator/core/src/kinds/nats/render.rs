//! A NATS server's container: its one configuration file, ports, probes. Decides nothing about when it starts.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{Act, ActionSpec, Ask, Limits, OnChange, Rendered, StopSpec, UserIds, VolumeSpec};

use super::settings::Settings;
use crate::kinds::{RenderContext, parts};

const TEMPLATE: &str = include_str!("nats.conf");
/// Clients.
pub const CLIENT_PORT: u16 = 4222;
/// Servers among themselves.
const ROUTE_PORT: u16 = 6222;
/// Health and statistics.
const MONITOR_PORT: u16 = 8222;
/// User and group of the image.
const USER: UserIds = UserIds { uid: 4222, gid: 4222 };

pub const LIMITS: Limits =
    Limits { memory_bytes: 256 * parts::MIB, cpu_millis: 0, pids: 100, shm_bytes: 16 * parts::MIB };

/// Full name of a secret of the service.
pub fn secret(service: &Name, what: &str) -> String {
    format!("{service}/{what}")
}

pub fn render(context: &RenderContext<'_>) -> Rendered {
    let settings = Settings::of(context.spec);
    let ask = |path: &str| Ask::Http(parts::http("GET", MONITOR_PORT, path));
    // Reads users and routes again; connections stay.
    let reload =
        ActionSpec { guard: None, run: Act::Signal { signal: "SIGHUP".to_owned() }, timeout_ms: 5_000 };
    Rendered {
        image: settings.image.clone(),
        command: ["/usr/sbin/nats-server", "-c", "/muster/nats.conf"].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files: vec![parts::file(
            "/muster/nats.conf",
            config(context, &settings),
            0o400,
            OnChange::Reload("reload".to_owned()),
        )],
        volumes: vec![VolumeSpec { name: parts::known_name("data"), path: "/data".to_owned() }],
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        // Lame duck: clients are asked to go elsewhere before it ends.
        stop: StopSpec { signal: "SIGUSR2".to_owned(), timeout_ms: 45_000 },
        ports: vec![
            parts::port(CLIENT_PORT, Audience::Network),
            parts::port(ROUTE_PORT, Audience::Members),
            parts::port(MONITOR_PORT, Audience::Members),
        ],
        probes: vec![
            parts::probe("health", 1_000, 2_000, ask("/healthz")),
            parts::probe("streams", 2_000, 2_000, ask("/jsz")),
        ],
        actions: BTreeMap::from([("reload".to_owned(), reload)]),
        release: None,
        system_id: None,
    }
}

fn config(context: &RenderContext<'_>, settings: &Settings) -> String {
    let service = context.service;
    let password = |what: &str| format!("${{secret:{}}}", secret(service, what));
    let user = |user: &String| {
        format!("{{ user: \"{user}\", password: \"{}\" }}", password(&format!("user-{user}")))
    };
    let users: Vec<String> = settings.users.iter().map(user).collect();
    let memory = parts::limits(context.spec, &LIMITS).memory_bytes / 4;
    TEMPLATE
        .replace("@NAME@", &parts::member_name(service, context.me.slot, context.me.member))
        .replace("@SERVICE@", service.as_str())
        .replace("@CLIENT_PORT@", &CLIENT_PORT.to_string())
        .replace("@MONITOR_PORT@", &MONITOR_PORT.to_string())
        .replace("@MEMORY@", &memory.to_string())
        .replace("@STORAGE@", &settings.storage.to_string())
        .replace("@USERS@", &users.join(", "))
        .replace("@CLUSTER@", &cluster(context, settings))
}

/// One server alone is no cluster, and would wait for others.
fn cluster(context: &RenderContext<'_>, settings: &Settings) -> String {
    if settings.members == 1 {
        return String::new();
    }
    let service = context.service;
    let password = format!("${{secret:{}}}", secret(service, "route"));
    let routes: Vec<String> = context
        .peers
        .iter()
        .map(|peer| {
            let address = parts::address(peer, &settings.network);
            format!("\"nats://route:{password}@{address}:{ROUTE_PORT}\"")
        })
        .collect();
    format!(
        "cluster: {{\n  name: \"{}-{service}\"\n  listen: \"0.0.0.0:{ROUTE_PORT}\"\n  \
         authorization: {{ user: \"route\", password: \"{password}\", timeout: 3 }}\n  routes: [ {} ]\n}}",
        context.platform_id,
        routes.join(", ")
    )
}
