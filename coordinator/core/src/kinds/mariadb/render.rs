//! A member's container: files, ports, probes, actions. Decides nothing about when it starts.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{
    Act, ActionSpec, Ask, FileSpec, Limits, OnChange, Probe, Rendered, StopSpec, TmpfsSpec, UserIds,
    VolumeSpec,
};
use muster_model::spec::Detection;
use serde_json::{Map, Value, json};

use super::router::choice::Router;
use super::settings::{Mode, Settings};
use super::{CHECK_PORT, MONITOR, PORT};
use crate::kinds::metrics::WHAT;
use crate::kinds::tls::{self, Tls};
use crate::kinds::{RenderContext, parts};

const TEMPLATE: &str = include_str!("mariadb.cnf");
const CLUSTER: &str = include_str!("cluster.cnf");
/// What the image runs: the only parent of the server.
pub const PROGRAM: &str = "muster-mariadb";
/// Whole copies, replication, and what a member missed.
const COPY_PORT: u16 = 4444;
pub const REPLICATION_PORT: u16 = 4567;
const MISSED_PORT: u16 = 4568;
/// User and group of the image.
const USER: UserIds = UserIds { uid: 3306, gid: 3306 };

/// The action, and the program's verb, that has the server read its certificate and its demand for TLS anew.
const TLS: &str = "tls";
/// Lines of the server's own section. Key and certificate are one file. What may change without a restart stands in the file
/// that is read with it.
const SERVER_TLS: &str = "
ssl-cert=/muster/tls.pem
ssl-key=/muster/tls.pem
!include /muster/tls.cnf";

/// Longest time of each action.
pub const CONVERGE_MS: u64 = 30_000;

pub const LIMITS: Limits =
    Limits { memory_bytes: 512 * parts::MIB, cpu_millis: 0, pids: 1_000, shm_bytes: 16 * parts::MIB };

/// Name of one of the service's secrets.
pub fn secret(service: &Name, what: &str) -> String {
    format!("{service}/{what}")
}

/// A call of the image's program.
pub fn program(words: &[&str]) -> Vec<String> {
    [PROGRAM].iter().chain(words).map(|word| (*word).to_owned()).collect()
}

pub fn render(context: &RenderContext<'_>) -> Rendered {
    let settings = Settings::of(context.spec);
    let get = |path: &str| Ask::Http(parts::http("GET", CHECK_PORT, path));
    // Only the member in the lowest slot of a cluster that was never formed may begin one, at its very first start.
    let first = context.peers.iter().map(|peer| peer.slot).min() == Some(context.me.slot);
    let forms = settings.mode == Mode::Ha && first && !context.joins_existing;
    let mut ports = vec![parts::port(PORT, Audience::Network), parts::port(CHECK_PORT, Audience::Members)];
    if settings.mode == Mode::Ha {
        let replication = [COPY_PORT, REPLICATION_PORT, MISSED_PORT];
        ports.extend(replication.map(|port| parts::port(port, Audience::Members)));
    }
    Rendered {
        image: settings.image.clone(),
        command: program(&["run"]),
        first_command: forms.then(|| program(&["run", "--form"])),
        env: BTreeMap::new(),
        user: USER,
        files: files(context, &settings),
        volumes: vec![VolumeSpec { name: parts::known_name("data"), path: "/data".to_owned() }],
        tmpfs: vec![TmpfsSpec { path: "/run/mysqld".to_owned(), bytes: parts::MIB }],
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        // It hands the writing over first, and the server writes out what it has.
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 120_000 },
        ports,
        probes: vec![parts::probe("status", 1_000, 1_500, get("/status"))],
        actions: actions(&settings),
        release: None,
        system_id: Some(Probe { timeout_ms: 2_000, ask: get("/uuid") }),
    }
}

fn actions(settings: &Settings) -> BTreeMap<String, ActionSpec> {
    let action =
        |verb| ActionSpec { guard: None, run: Act::Exec { argv: program(&[verb]) }, timeout_ms: CONVERGE_MS };
    let words = ["converge", TLS];
    let all = if settings.tls == Tls::None { &words[..1] } else { &words[..] };
    all.iter().map(|verb| ((*verb).to_owned(), action(*verb))).collect()
}

fn files(context: &RenderContext<'_>, settings: &Settings) -> Vec<FileSpec> {
    let me = parts::member_name(context.service, context.me.slot, context.me.member);
    let ha = settings.mode == Mode::Ha;
    let mut peers = Map::new();
    for peer in context.peers.iter().filter(|_| ha) {
        let name = parts::member_name(context.service, peer.slot, peer.member);
        peers.insert(name, json!(parts::address(peer, &settings.network)));
    }
    let mut member = json!({
        "name": me,
        "cluster": ha,
        "check_port": CHECK_PORT,
        "gcache_bytes": settings.gcache,
        "peers": peers,
        "users": settings.users,
        "databases": settings.databases,
    });
    if settings.router != Router::Haproxy {
        // MaxScale asks the server for the accounts of clients; ProxySQL is told them.
        member["monitor"] = json!({ "user": MONITOR, "reads_accounts": settings.router == Router::Maxscale });
    }
    if settings.metrics.is_some() {
        member["metrics"] = json!(true);
    }
    let converge = || OnChange::Reload("converge".to_owned());
    let mut files = vec![
        parts::file("/muster/mariadb.cnf", config(context, settings, &me), 0o444, OnChange::Restart),
        parts::file("/muster/member.json", format!("{member:#}\n"), 0o444, converge()),
    ];
    if ha {
        files.push(parts::file("/muster/peers.cnf", addresses(&peers), 0o444, OnChange::None));
    }
    if settings.tls != Tls::None {
        files.push(parts::file(
            "/muster/tls.cnf",
            must(settings.tls),
            0o444,
            OnChange::Reload(TLS.to_owned()),
        ));
        files.push(tls::file(context.service, TLS));
        files.push(tls::own_ca_file());
    }
    let monitor = (settings.router != Router::Haproxy).then(|| "monitor".to_owned());
    let metrics = settings.metrics.as_ref().map(|_| WHAT.to_owned());
    let users = settings.users.iter().map(|user| format!("user-{user}"));
    for what in users.chain(monitor).chain(metrics) {
        let content = format!("${{secret:{}}}", secret(context.service, &what));
        files.push(parts::file(&format!("/muster/secrets/{what}"), content, 0o400, converge()));
    }
    files
}

fn addresses(peers: &Map<String, Value>) -> String {
    let all: Vec<&str> = peers.values().filter_map(Value::as_str).collect();
    format!("[mysqld]\nwsrep-cluster-address=gcomm://{}\n", all.join(","))
}

/// Whether clients without TLS are refused. Who comes through the socket of the server is not asked: the program beside the
/// server, and copies between members.
fn must(tls: Tls) -> String {
    let on = if tls == Tls::Required { "ON" } else { "OFF" };
    format!("[mysqld]\nrequire-secure-transport={on}\n")
}

fn config(context: &RenderContext<'_>, settings: &Settings, me: &str) -> String {
    let memory_mib = parts::limits(context.spec, &LIMITS).memory_bytes / parts::MIB;
    let ours = [
        ("innodb_buffer_pool_size", json!(format!("{}M", memory_mib / 4))),
        ("innodb_log_file_size", json!("64M")),
        ("table_open_cache", json!(400)),
        ("performance_schema", json!(false)),
    ];
    let mut all: BTreeMap<String, Value> =
        ours.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(settings.parameters.clone());
    let line = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}={text}"),
        Value::Bool(on) => format!("{name}={}", if *on { "ON" } else { "OFF" }),
        other => format!("{name}={other}"),
    };
    let lines: Vec<String> = all.iter().map(line).collect();
    let cluster =
        if settings.mode == Mode::Ha { cluster(context, settings, me) } else { "wsrep-on=OFF".to_owned() };
    let tls = if settings.tls == Tls::None { "" } else { SERVER_TLS };
    // The operator's texts come last: what looks like a place of the template in them stays a text.
    TEMPLATE
        .replace("@CLUSTER@", cluster.trim_end())
        .replace("@PARAMETERS@", &format!("{}{tls}", lines.join("\n")))
}

/// Name of the cluster. The platform's id is part of it: two clusters that meet by mistake refuse each other.
pub fn group(platform_id: &str, service: &Name) -> String {
    format!("{platform_id}-{service}")
}

/// After this long without a word, a member is put out of the view; writes stand still until then.
pub const fn timeouts(detection: Detection) -> &'static str {
    match detection {
        Detection::Lan => "evs.suspect_timeout=PT3S;evs.inactive_timeout=PT10S",
        Detection::Vps => "evs.suspect_timeout=PT5S;evs.inactive_timeout=PT15S",
        Detection::Wan => "evs.suspect_timeout=PT10S;evs.inactive_timeout=PT30S",
    }
}

fn cluster(context: &RenderContext<'_>, settings: &Settings, me: &str) -> String {
    CLUSTER
        .replace("@CLUSTER_NAME@", &group(context.platform_id, context.service))
        .replace("@NAME@", me)
        .replace("@ADDRESS@", &parts::address(context.me, &settings.network).to_string())
        .replace("@GCACHE@", &(settings.gcache / parts::MIB).to_string())
        .replace("@TIMEOUTS@", timeouts(context.platform.detection))
}
