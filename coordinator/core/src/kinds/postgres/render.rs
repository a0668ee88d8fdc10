//! A Patroni member's container: files, ports, probes, actions. Decides nothing about when it starts.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{
    Act, ActionSpec, Ask, FileSpec, HttpAsk, Limits, OnChange, Probe, Rendered, SqlAsk, SqlEngine, StopSpec,
    TmpfsSpec, UserIds, VolumeSpec,
};
use muster_model::spec::{Detection, ServiceSpec};
use serde_json::{Value, json};

use super::settings::Settings;
use super::{PORT, REST_PORT, release};
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Peer, RenderContext, etcd, metrics, parts};

const TEMPLATE: &str = include_str!("patroni.yml");
const CONVERGE: &str = include_str!("converge.py");
/// User and group of the image.
const USER: UserIds = UserIds { uid: 5432, gid: 5432 };

pub const LIMITS: Limits =
    Limits { memory_bytes: 512 * parts::MIB, cpu_millis: 0, pids: 1_000, shm_bytes: 128 * parts::MIB };

/// Longest time of the actions.
pub const CONVERGE_MS: u64 = 30_000;
pub const RELOAD_MS: u64 = 10_000;

/// The user of the probes.
pub const PROBE_USER: &str = "muster_probe";

/// Beats on a leader; on a replica only says that it is one.
const BEAT: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE muster.beat()::text END";
const SYSTEM_ID: &str = "SELECT system_identifier::text FROM pg_control_system()";

/// Name of one of the service's secrets.
pub fn secret(service: &Name, what: &str) -> String {
    format!("{service}/{what}")
}

/// A request to Patroni that changes something.
pub fn patroni_post(service: &Name, path: &str, body: Option<String>) -> HttpAsk {
    HttpAsk {
        body,
        basic_auth: Some(("muster".to_owned(), secret(service, "restapi"))),
        ..parts::http("POST", REST_PORT, path)
    }
}

/// A statement as the user of the probes.
pub fn sql(service: &Name, statement: &str) -> SqlAsk {
    SqlAsk {
        engine: SqlEngine::Postgres,
        port: PORT,
        user: PROBE_USER.to_owned(),
        secret: secret(service, "probe"),
        database: "postgres".to_owned(),
        statement: statement.to_owned(),
    }
}

pub fn render(context: &RenderContext<'_>) -> Rendered {
    let settings = Settings::of(context.spec);
    let service = context.service;
    let get = |path: &str| Ask::Http(parts::http("GET", REST_PORT, path));
    let sql = |statement: &str| Ask::Sql(sql(service, statement));
    Rendered {
        image: settings.image.clone(),
        // The image's first process is tini, Patroni its only child: when Patroni dies the container dies, and the
        // server with it. Never a supervisor in between.
        command: ["/opt/patroni/bin/patroni", "/muster/patroni.yml"].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files: files(context, &settings),
        volumes: vec![VolumeSpec { name: parts::known_name("data"), path: "/data".to_owned() }],
        tmpfs: vec![TmpfsSpec { path: "/run/postgresql".to_owned(), bytes: parts::MIB }],
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 60_000 },
        ports: vec![parts::port(PORT, Audience::Network), parts::port(REST_PORT, Audience::Members)],
        probes: vec![
            parts::probe("patroni", 1_000, 2_000, get("/patroni")),
            parts::probe("cluster", 2_000, 2_000, get("/cluster")),
            parts::probe("write", 1_000, 2_000, sql(BEAT)),
        ],
        actions: actions(service),
        release: Some(release::release(context, &settings)),
        system_id: Some(Probe { timeout_ms: 2_000, ask: sql(SYSTEM_ID) }),
    }
}

fn actions(service: &Name) -> BTreeMap<String, ActionSpec> {
    let action = |run, timeout_ms| ActionSpec { guard: None, run, timeout_ms };
    let converge = ["/opt/patroni/bin/python", "/muster/converge.py"].map(str::to_owned).to_vec();
    BTreeMap::from([
        ("reload".to_owned(), action(Act::Http(patroni_post(service, "/reload", None)), RELOAD_MS)),
        ("converge".to_owned(), action(Act::Exec { argv: converge }, CONVERGE_MS)),
    ])
}

fn files(context: &RenderContext<'_>, settings: &Settings) -> Vec<FileSpec> {
    let mut wanted = json!({
        "settings": dynamic(context, settings),
        "users": settings.users,
        "databases": settings.databases,
    });
    if !settings.extensions.is_empty() {
        wanted["extensions"] = json!(settings.extensions);
    }
    if settings.metrics.is_some() {
        wanted["metrics"] = json!(true);
    }
    let reload = OnChange::Reload("reload".to_owned());
    let converge = OnChange::Reload("converge".to_owned());
    let mut files = vec![
        parts::file("/muster/patroni.yml", config(context, settings), 0o400, reload),
        parts::file("/muster/converge.py", CONVERGE.to_owned(), 0o444, OnChange::None),
        parts::file("/muster/converge.json", format!("{wanted:#}\n"), 0o444, converge.clone()),
    ];
    if settings.tls != Tls::None {
        // Patroni has the server read it anew even if nothing else changed.
        files.push(tls::file(context.service, "reload"));
        files.push(tls::own_ca_file());
    }
    let users = settings.users.iter().map(|user| format!("user-{user}"));
    let own = ["superuser", "replication", "rewind", "probe", "restapi"];
    let own = own.into_iter().chain(settings.metrics.as_ref().map(|_| metrics::WHAT)).map(str::to_owned);
    for what in own.chain(users) {
        let content = format!("${{secret:{}}}", secret(context.service, &what));
        files.push(parts::file(&format!("/muster/secrets/{what}"), content, 0o400, converge.clone()));
    }
    files
}

/// Patroni's dynamic settings: at bootstrap from `patroni.yml`, afterwards kept so by `converge.py`.
fn dynamic(context: &RenderContext<'_>, settings: &Settings) -> Value {
    // ttl >= loop_wait + 2 * retry_timeout, and Patroni accepts no ttl below 20.
    let (ttl, loop_wait, retry_timeout) = match context.platform.detection {
        Detection::Lan | Detection::Vps => (20, 5, 5),
        Detection::Wan => (30, 10, 10),
    };
    json!({
        "ttl": ttl,
        "loop_wait": loop_wait,
        "retry_timeout": retry_timeout,
        "maximum_lag_on_failover": parts::MIB,
        // With a synchronous standby it is faster, and loses nothing, to let that one take over.
        "primary_start_timeout": if settings.synchronous { 0 } else { 30 },
        "synchronous_mode": settings.synchronous,
        "synchronous_mode_strict": false,
        "failsafe_mode": true,
        "check_timeline": true,
        "member_slots_ttl": "30min",
        // The history lies beside the lock; unbounded it would outgrow the answer that the release is decided on.
        "max_timelines_history": 5,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": parameters(context.spec, settings),
        },
    })
}

fn parameters(spec: &ServiceSpec, settings: &Settings) -> BTreeMap<String, Value> {
    let memory_mib = parts::limits(spec, &LIMITS).memory_bytes / parts::MIB;
    let ours = [
        ("max_connections", json!(100)),
        ("max_wal_senders", json!(10)),
        ("max_replication_slots", json!(10)),
        ("wal_log_hints", json!("on")),
        // A member that is away must not fill the leader's disk.
        ("max_slot_wal_keep_size", json!("2GB")),
        ("wal_keep_size", json!("128MB")),
        ("shared_buffers", json!(format!("{}MB", memory_mib / 4))),
        ("effective_cache_size", json!(format!("{}MB", memory_mib / 2))),
        ("password_encryption", json!("scram-sha-256")),
        // A dark standby holds up every commit until the server sees it.
        ("wal_sender_timeout", json!("5s")),
        ("wal_receiver_timeout", json!("5s")),
        ("wal_retrieve_retry_interval", json!("1s")),
        ("tcp_keepalives_idle", json!(5)),
        ("tcp_keepalives_interval", json!(2)),
        ("tcp_keepalives_count", json!(3)),
        ("log_line_prefix", json!("%m [%p] %q%u@%d ")),
        ("log_timezone", json!("UTC")),
        ("timezone", json!("UTC")),
    ];
    let mut all: BTreeMap<String, Value> =
        ours.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(settings.parameters.clone());
    all
}

fn config(context: &RenderContext<'_>, settings: &Settings) -> String {
    let etcd: Vec<String> = etcd_peers(context)
        .map(|peer| format!("    - {}:{}", parts::address(peer, &settings.network), etcd::CLIENT_PORT))
        .collect();
    let me = context.me;
    TEMPLATE
        .replace("@NAME@", &parts::member_name(context.service, me.slot, me.member))
        .replace("@SERVICE@", context.service.as_str())
        .replace("@PLATFORM@", context.platform_id)
        .replace("@ADDRESS@", &parts::address(me, &settings.network).to_string())
        .replace("@ETCD@", &etcd.join("\n"))
        // What an asynchronous leader had and nobody else has is for an operator to look at.
        .replace("@RECLONE@", if settings.synchronous { "true" } else { "false" })
        .replace("@TLS@", &server_tls(settings))
        .replace("@HBA@", &hba(context, settings))
        // It has the operator's texts: last, so that what looks like a place of the template in them stays a text.
        .replace("@BOOTSTRAP@", &bootstrap(context, settings))
}

/// Parameters of this member alone, as lines after others.
fn server_tls(settings: &Settings) -> String {
    match settings.tls {
        Tls::None => String::new(),
        Tls::Optional | Tls::Required => {
            let file = tls::FILE;
            format!("\n    ssl: 'on'\n    ssl_cert_file: {file}\n    ssl_key_file: {file}")
        }
    }
}

/// Only a member of a cluster that was never formed may initialise one.
fn bootstrap(context: &RenderContext<'_>, settings: &Settings) -> String {
    let method = if context.joins_existing {
        "  # The cluster exists: this member copies it, and never initialises another one.\n  \
           method: never\n  never:\n    command: /bin/false"
    } else {
        "  initdb:\n    - data-checksums\n    - encoding: UTF8\n    - locale: C.UTF-8"
    };
    format!("  dcs: {}\n{method}", dynamic(context, settings))
}

/// Etcd members of the service.
pub fn etcd_peers<'a>(context: &RenderContext<'a>) -> impl Iterator<Item = &'a Peer> {
    context.children.get(&parts::known_name("etcd")).into_iter().flatten()
}

/// Who may log in from where. The first line that fits decides.
fn hba(context: &RenderContext<'_>, settings: &Settings) -> String {
    let anywhere = context
        .platform
        .network(&settings.network)
        .map_or_else(|| "0.0.0.0/0".to_owned(), |network| network.subnet.to_string());
    let mut lines = vec![
        "local all postgres peer".to_owned(),
        "local replication muster_replication scram-sha-256".to_owned(),
        "host all postgres 127.0.0.1/32 scram-sha-256".to_owned(),
        "host replication muster_replication 127.0.0.1/32 scram-sha-256".to_owned(),
    ];
    for peer in context.peers {
        let address = parts::address(peer, &settings.network);
        lines.push(format!("host replication muster_replication {address}/32 scram-sha-256"));
        lines.push(format!("host postgres muster_rewind {address}/32 scram-sha-256"));
    }
    lines.push(format!("host postgres muster_probe {anywhere} scram-sha-256"));
    let mut own = "postgres,muster_replication,muster_rewind,muster_probe".to_owned();
    if settings.metrics.is_some() {
        let user = metrics::USER;
        lines.push(format!("host postgres {user} {anywhere} scram-sha-256"));
        own = format!("{own},{user}");
    }
    lines.push(format!("host all {own} all reject"));
    lines.push("host replication all all reject".to_owned());
    let clients = if settings.tls == Tls::Required { "hostssl" } else { "host" };
    lines.push(format!("{clients} all all {anywhere} scram-sha-256"));
    lines.iter().map(|line| format!("    - {line}")).collect::<Vec<_>>().join("\n")
}
