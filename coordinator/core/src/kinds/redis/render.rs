//! A Redis member's container: files, ports, probes, actions. Decides nothing about when it starts.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{
    Act, ActionSpec, Ask, FileSpec, Limits, OnChange, PortSpec, Rendered, RespAsk, RespCall, RespKeep,
    StopSpec, UserIds, VolumeSpec,
};
use muster_model::spec::ServiceSpec;

use super::settings::{Mode, Settings};
use super::{BUS_PORT, PORT, TLS_PORT, master, metrics};
use crate::kinds::metrics::WHAT;
use crate::kinds::tls::{self, Tls};
use crate::kinds::{RenderContext, parts};

const CONFIG: &str = include_str!("redis.conf");
const CLUSTER: &str = include_str!("cluster.conf");
const START: &str = include_str!("start.sh");
const REPLICATED: &str = include_str!("replicated.conf");
const START_REPLICA: &str = include_str!("replica.sh");
const USERS: &str = include_str!("users.sh");
const TLS: &str = include_str!("tls.sh");
/// What is said of TLS, beside everything else: a running server is told anew.
const TLS_CONFIG: &str = "/muster/tls.conf";
/// The action that tells it.
const TLS_ACTION: &str = "tls";
/// User and group of the image.
const USER: UserIds = UserIds { uid: 6379, gid: 6379 };
/// The platform's own user.
pub const ADMIN: &str = "muster-admin";
/// The user by which a member follows another one.
pub const REPLICA: &str = "muster-replica";
/// The proxies' user. It has no password, and learns how the server is and nothing else.
pub const CHECK: &str = "muster-check";
/// Longest time of the action that gives the server its users.
pub const USERS_MS: u64 = 10_000;
const TLS_MS: u64 = 10_000;

pub const LIMITS: Limits =
    Limits { memory_bytes: 256 * parts::MIB, cpu_millis: 0, pids: 100, shm_bytes: 16 * parts::MIB };

/// Tags whose hash slots lie in the middle of each sixteenth of all: some of them belong to every shard.
pub const TAGS: [&str; 16] =
    ["18", "249", "72", "223", "19", "2", "64", "222", "265", "34", "404", "155", "264", "22", "219", "48"];

/// Name of one of the service's secrets.
pub fn secret(service: &Name, what: &str) -> String {
    format!("{service}/{what}")
}

/// Commands as the platform's own user.
pub fn admin(service: &Name, calls: Vec<RespCall>) -> RespAsk {
    RespAsk { port: PORT, user: ADMIN.to_owned(), secret: secret(service, "admin"), calls }
}

/// One command, its words separated by spaces; the whole answer is kept.
pub fn call(name: &str, words: &str) -> RespCall {
    let words = words.split(' ').map(str::to_owned).collect();
    RespCall { name: name.to_owned(), words, address: None, keep: RespKeep::Whole }
}

/// What is read of `INFO`.
pub fn info() -> RespCall {
    let fields = [
        "redis_version",
        "valkey_version",
        "role",
        "uptime_in_seconds",
        "loading",
        "master_link_status",
        "master_sync_in_progress",
        "master_last_io_seconds_ago",
        "connected_slaves",
        "aof_last_write_status",
        "rdb_last_bgsave_status",
    ];
    RespCall { keep: RespKeep::Fields(fields.map(str::to_owned).to_vec()), ..call("info", "INFO") }
}

/// What is read of `INFO` where the platform says who follows whom.
pub fn replication() -> RespCall {
    let fields = ["role", "loading", "master_host", "master_link_status", "master_sync_in_progress"]
        .into_iter()
        .chain(["master_last_io_seconds_ago", "slave_repl_offset", "aof_last_write_status"]);
    RespCall { keep: RespKeep::Fields(fields.map(str::to_owned).collect()), ..call("info", "INFO") }
}

/// What is read of `CLUSTER INFO`.
pub fn cluster_info() -> RespCall {
    let fields = ["cluster_state", "cluster_known_nodes", "cluster_slots_assigned"];
    RespCall { keep: RespKeep::Fields(fields.map(str::to_owned).to_vec()), ..call("cluster", "CLUSTER INFO") }
}

/// The table of nodes: id, address, flags, master, state of the link, hash slots.
fn nodes() -> RespCall {
    RespCall {
        keep: RespKeep::Columns { places: vec![0, 1, 2, 3, 7], rest: 8 },
        ..call("nodes", "CLUSTER NODES")
    }
}

fn beats(mode: Mode) -> Vec<RespCall> {
    match mode {
        Mode::Single => vec![call("beat", "SET muster:beat 1")],
        // Counted: after a loss of power it tells which replica has more, when the servers' own positions are gone.
        Mode::Replicated => vec![call("beat", "INCR muster:beat")],
        Mode::Cluster => TAGS.map(|tag| call(tag, &format!("SET muster:beat:{{{tag}}} 1"))).to_vec(),
    }
}

fn without_position(mut call: RespCall) -> RespCall {
    if let RespKeep::Fields(fields) = &mut call.keep {
        fields.retain(|field| field != "slave_repl_offset");
    }
    call
}

pub fn render(context: &RenderContext<'_>) -> Rendered {
    let settings = Settings::of(context.spec);
    let service = context.service;
    // A position changes with every write: it is asked for when it matters.
    let mut calls = match settings.mode {
        Mode::Replicated => vec![without_position(replication()), master::said(None)],
        Mode::Single | Mode::Cluster => vec![info()],
    };
    let mut ports = client_ports(settings.tls);
    if settings.mode == Mode::Cluster {
        calls.extend([cluster_info(), nodes()]);
        ports.push(parts::port(BUS_PORT, Audience::Members));
    }
    Rendered {
        image: settings.image.clone(),
        // The script ends by becoming the server: it is the first process, and nothing is in between.
        command: ["/bin/sh", "/muster/start.sh"].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files: files(context, &settings),
        volumes: vec![VolumeSpec { name: parts::known_name("data"), path: "/data".to_owned() }],
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 30_000 },
        ports,
        probes: vec![
            parts::probe("redis", 1_000, 2_000, Ask::Resp(admin(service, calls))),
            parts::probe("write", 2_000, 2_000, Ask::Resp(admin(service, beats(settings.mode)))),
        ],
        actions: BTreeMap::from([
            ("users".to_owned(), script_action("/muster/users.sh", USERS_MS)),
            (TLS_ACTION.to_owned(), script_action("/muster/tls.sh", TLS_MS)),
        ]),
        release: None,
        system_id: None,
    }
}

fn script_action(path: &str, timeout_ms: u64) -> ActionSpec {
    let argv = ["/bin/sh", path].map(str::to_owned).to_vec();
    ActionSpec { guard: None, run: Act::Exec { argv }, timeout_ms }
}

/// Where TLS is a must, the plain port is for members, their proxies and the platform only.
fn client_ports(tls: Tls) -> Vec<PortSpec> {
    let plain = if tls == Tls::Required { Audience::Members } else { Audience::Network };
    let secured = (tls != Tls::None).then(|| parts::port(TLS_PORT, Audience::Network));
    std::iter::once(parts::port(PORT, plain)).chain(secured).collect()
}

/// Members talk to each other without: what crosses between hosts is encrypted by the mesh.
fn tls_config(tls: Tls) -> String {
    match tls {
        Tls::None => "tls-port 0\n".to_owned(),
        Tls::Optional | Tls::Required => {
            let file = tls::FILE;
            format!("tls-cert-file {file}\ntls-key-file {file}\ntls-auth-clients no\ntls-port {TLS_PORT}\n")
        }
    }
}

fn files(context: &RenderContext<'_>, settings: &Settings) -> Vec<FileSpec> {
    let peers: Vec<String> = context
        .peers
        .iter()
        .filter(|peer| peer.member != context.me.member)
        .map(|peer| format!("{}\n", parts::address(peer, &settings.network)))
        .collect();
    let script = |text: &str| {
        text.replace("@MEMBER@", &context.me.member.to_string())
            .replace("@ADDRESS@", &parts::address(context.me, &settings.network).to_string())
            .replace("@SERVER@", settings.flavour.server())
            .replace("@CLIENT@", settings.flavour.client())
            .replace("@PORT@", &PORT.to_string())
    };
    let start = match settings.mode {
        Mode::Replicated => START_REPLICA,
        Mode::Single | Mode::Cluster => START,
    };
    let admin = format!("${{secret:{}}}", secret(context.service, "admin"));
    let again = OnChange::Reload(TLS_ACTION.to_owned());
    let mut files = vec![
        parts::file("/muster/redis.conf", config(context, settings), 0o400, OnChange::Restart),
        parts::file("/muster/start.sh", script(start), 0o444, OnChange::Restart),
        parts::file("/muster/users.sh", script(USERS), 0o444, OnChange::None),
        parts::file(
            "/muster/users.acl",
            users(context, settings),
            0o400,
            OnChange::Reload("users".to_owned()),
        ),
        parts::file("/muster/secrets/admin", admin, 0o400, OnChange::None),
        parts::file("/muster/peers", peers.concat(), 0o444, OnChange::None),
        parts::file(TLS_CONFIG, tls_config(settings.tls), 0o444, again),
        parts::file("/muster/tls.sh", script(TLS), 0o444, OnChange::None),
    ];
    if settings.tls != Tls::None {
        files.push(tls::file(context.service, TLS_ACTION));
    }
    files
}

fn config(context: &RenderContext<'_>, settings: &Settings) -> String {
    let mut text = CONFIG.to_owned();
    text.push_str(match settings.mode {
        Mode::Single => "",
        Mode::Replicated => REPLICATED,
        Mode::Cluster => CLUSTER,
    });
    let memory = memory(context.spec, settings);
    text.replace("@PORT@", &PORT.to_string())
        .replace("@REPLICA_SECRET@", &secret(context.service, "replica"))
        .replace("@MAXMEMORY@", &memory.to_string())
        // What a replica missed while it was away for a moment; the rest it copies.
        .replace("@BACKLOG@", &(memory / 16).max(parts::MIB).to_string())
        .replace("@EVICTION@", settings.eviction.name())
        .replace("@MIN_REPLICAS@", &settings.min_replicas.to_string())
        .replace("@NODE_TIMEOUT@", &settings.node_timeout.0.to_string())
        .replace("@ADDRESS@", &parts::address(context.me, &settings.network).to_string())
}

/// Memory for data: the rest of the limit is for buffers, and for the copy that a rewrite of the log works on.
pub fn memory(spec: &ServiceSpec, settings: &Settings) -> u64 {
    settings.maxmemory.map_or_else(|| parts::limits(spec, &LIMITS).memory_bytes / 100 * 60, |size| size.0)
}

/// Who may do what. The user without a name is off.
fn users(context: &RenderContext<'_>, settings: &Settings) -> String {
    let password = |what: &str| format!(">${{secret:{}}}", secret(context.service, what));
    let mut lines = vec![
        "user default off".to_owned(),
        format!("user {ADMIN} on {} ~* &* +@all", password("admin")),
        format!("user {REPLICA} on {} +psync +replconf +ping", password("replica")),
    ];
    if settings.mode == Mode::Replicated {
        lines.push(format!("user {CHECK} on nopass -@all +info"));
    }
    if settings.metrics.is_some() {
        lines.push(format!("user {} on {} {}", metrics::USER, password(WHAT), metrics::RIGHTS));
    }
    // What a client that knows clusters asks for, and nothing that changes the server or looks at other clients.
    const RIGHTS: &str = "~* &* +@all -@admin -@dangerous +info +keys +sort +role +cluster|slots +cluster|shards \
                          +cluster|nodes +cluster|info +cluster|myid +cluster|keyslot +cluster|countkeysinslot";
    for user in &settings.users {
        lines.push(format!("user {user} on {} {RIGHTS}", password(&format!("user-{user}"))));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}
