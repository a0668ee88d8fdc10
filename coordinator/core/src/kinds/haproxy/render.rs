//! A proxy's container: the listeners that the owner's kind wants. Decides nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use muster_model::network::Audience;
use muster_model::plan::{Act, ActionSpec, Ask, Limits, OnChange, Rendered, StopSpec, UserIds};

use super::Settings;
use super::front::{Check, Front, Listener, Mode, Port, Server, Vital};
use crate::kinds::{RenderContext, kind, parts, tls};

const TEMPLATE: &str = include_str!("haproxy.cfg");
const HOLD: &str = include_str!("hold.lua");
const HOLD_AT: &str = "/muster/hold.lua";
const HEALTH_PORT: u16 = 8404;
/// User and group of the image.
const USER: UserIds = UserIds { uid: 5000, gid: 5000 };

pub const LIMITS: Limits =
    Limits { memory_bytes: 128 * parts::MIB, cpu_millis: 0, pids: 100, shm_bytes: 16 * parts::MIB };

pub fn render(context: &RenderContext<'_>, settings: &Settings) -> Rendered {
    let front = front(context);
    let ask = |path: &str| Ask::Http(parts::http("GET", HEALTH_PORT, path));
    // Its first process is the master; it checks the new file and keeps the old processes if that is bad.
    let reload =
        ActionSpec { guard: None, run: Act::Signal { signal: "SIGUSR2".to_owned() }, timeout_ms: 5_000 };
    let reloaded =
        |path: &str, text: String| parts::file(path, text, 0o444, OnChange::Reload("reload".to_owned()));
    let mut files = vec![reloaded("/muster/haproxy.cfg", config(&front))];
    let owner = context.owner.filter(|_| front.ends_tls());
    files.extend(owner.map(|(name, ..)| tls::file(name, "reload")));
    files.extend(front.holds.then(|| reloaded(HOLD_AT, HOLD.to_owned())));
    Rendered {
        image: settings.image.clone(),
        command: ["/usr/sbin/haproxy", "-W", "-db", "-f", "/muster/haproxy.cfg"].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files,
        volumes: Vec::new(),
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 10_000 },
        ports: front
            .listeners
            .iter()
            .flat_map(|listener| &listener.ports)
            .map(|port| parts::port(port.number(), Audience::Network))
            .chain([parts::port(HEALTH_PORT, Audience::Members)])
            .collect(),
        probes: vec![
            parts::probe("alive", 1_000, 1_000, ask("/alive")),
            parts::probe("write", 2_000, 1_000, ask("/write")),
        ],
        actions: BTreeMap::from([("reload".to_owned(), reload)]),
        release: None,
        system_id: None,
    }
}

/// What the owner's kind wants; nothing if there is no owner, or it wants no proxy.
fn front(context: &RenderContext<'_>) -> Front {
    let Some((name, spec, members)) = context.owner else { return Front::default() };
    kind(spec.kind.as_str()).map(|kind| kind.front(name, spec, members)).unwrap_or_default()
}

fn config(front: &Front) -> String {
    let listeners: String = front.listeners.iter().map(listener).collect();
    let scripts = if front.holds { format!("    lua-load {HOLD_AT}\n") } else { String::new() };
    TEMPLATE
        .replace("@SCRIPTS@", &scripts)
        .replace("@VITAL@", &front.vital.map(vital).unwrap_or_default())
        .replace("@LISTENERS@", &listeners)
}

fn vital(vital: Vital) -> String {
    let Vital { listener, stands, fails } = vital;
    let answer = "    http-request return";
    let text = "content-type text/plain string";
    format!(
        "{answer} status 200 {text} \"{stands}\" if {{ path /write }} {{ nbsrv({listener}) gt 0 }}\n\
         {answer} status 503 {text} \"{fails}\" if {{ path /write }}\n"
    )
}

fn listener(listener: &Listener) -> String {
    let mut text = format!("\n# {}\nlisten {}\n", listener.note, listener.name);
    let mut lines: Vec<String> = listener.ports.iter().map(|port| bind(*port)).collect();
    if listener.mode == Mode::Http {
        lines.push("mode http".to_owned());
    }
    lines.extend(listener.options.iter().cloned());
    match &listener.check {
        Check::Http { method, uri } => lines.extend([
            "option httpchk".to_owned(),
            format!("http-check send meth {method} uri {uri}"),
            "http-check expect status 200".to_owned(),
        ]),
        Check::Lines(check) => lines.extend(check.iter().cloned()),
        Check::As(_) => {}
    }
    lines.extend(listener.servers.iter().map(|one| server(one, &listener.check)));
    for line in lines {
        let _ = writeln!(text, "    {line}");
    }
    text
}

fn bind(port: Port) -> String {
    match port {
        Port::Plain(number) => format!("bind *:{number}"),
        Port::Secured(number) => format!("bind *:{number} ssl crt {} ssl-min-ver TLSv1.2", tls::FILE),
    }
}

fn server(server: &Server, check: &Check) -> String {
    let how = match check {
        Check::As(other) => format!("track {other}/{}", server.name),
        Check::Http { .. } | Check::Lines(_) => "check".to_owned(),
    };
    let mut line = format!("server {} {}:{} {how}", server.name, server.address, server.port);
    if let Some(port) = server.check_port {
        let _ = write!(line, " port {port}");
    }
    if !server.options.is_empty() {
        let _ = write!(line, " {}", server.options);
    }
    line
}
