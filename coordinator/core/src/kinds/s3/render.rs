//! A member's container: one command, environment and image for all, addresses only in the hosts file. Decides nothing.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{
    Ask, FileSpec, HttpAsk, Limits, OnChange, Probe, Rendered, S3Ask, S3What, StopSpec, UserIds, VolumeSpec,
};

use super::settings::{Mode, Settings};
use super::{CONSOLE_PORT, GATE_PORT, PORT};
use crate::kinds::tls::Tls;
use crate::kinds::{RenderContext, parts};

/// User and group of the image.
const USER: UserIds = UserIds { uid: 9000, gid: 9000 };
/// The login of the whole deployment; the members know each other by it.
pub const ROOT: &str = "muster";
/// The login of a server that was told none.
const KNOWN: &str = "minioadmin";
/// Every canary lies there.
pub const BUCKET: &str = "muster-canary";

pub const LIMITS: Limits =
    Limits { memory_bytes: 1024 * parts::MIB, cpu_millis: 0, pids: 500, shm_bytes: 16 * parts::MIB };

/// Name of one of the service's secrets.
pub fn secret(service: &Name, what: &str) -> String {
    format!("{service}/{what}")
}

/// A signed request of the platform's own.
pub fn signed(service: &Name, what: S3What) -> S3Ask {
    S3Ask { port: PORT, user: ROOT.to_owned(), secret: Some(secret(service, "root")), what }
}

pub fn render(context: &RenderContext<'_>) -> Rendered {
    let settings = Settings::of(context.spec);
    let service = context.service;
    let path = |index: u32| format!("/data{index}");
    let volume =
        |index: u32| VolumeSpec { name: parts::known_name(&format!("data{index}")), path: path(index) };
    let mut volumes: Vec<VolumeSpec> = (1..=settings.erasure.drives).map(volume).collect();
    volumes.push(VolumeSpec { name: parts::known_name("state"), path: "/state".to_owned() });
    let ask = |what| Ask::S3(signed(service, what));
    // Where TLS is a must, nobody passes the proxies by: the servers themselves speak without. Nor where the servers tell
    // their metrics to whoever reaches them; a single one has nobody in front.
    let told = settings.metrics.is_some() && settings.mode == Mode::Distributed;
    let direct = if settings.tls == Tls::Required || told { Audience::Members } else { Audience::Network };
    Rendered {
        image: settings.image.clone(),
        command: command(service, &settings),
        first_command: None,
        env: environment(&settings),
        user: USER,
        files: files(context, &settings),
        volumes,
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 30_000 },
        ports: vec![
            parts::port(PORT, direct),
            parts::port(CONSOLE_PORT, direct),
            parts::port(GATE_PORT, Audience::Members),
        ],
        probes: vec![
            parts::probe("live", 1_000, 1_000, get(PORT, "/minio/health/live")),
            parts::probe("gate", 1_000, 1_000, get(GATE_PORT, "/ready")),
            parts::probe("canary", 2_000, 4_000, ask(S3What::Canary { bucket: BUCKET.to_owned() })),
            parts::probe("spare", 2_000, 3_000, get(PORT, "/minio/health/cluster?maintenance=true")),
            parts::probe("status", 3_000, 3_000, ask(S3What::Status)),
            parts::probe("known", 60_000, 3_000, known_login()),
        ],
        actions: BTreeMap::new(),
        release: None,
        system_id: Some(Probe { timeout_ms: 3_000, ask: ask(S3What::DeploymentId) }),
    }
}

fn get(port: u16, path: &str) -> Ask {
    Ask::Http(HttpAsk { ..parts::http("GET", port, path) })
}

/// Must be refused: a server whose login files it could not see would let everybody in.
fn known_login() -> Ask {
    let what = S3What::Request {
        method: "GET".to_owned(),
        path: "/minio/admin/v3/info".to_owned(),
        body: String::new(),
    };
    Ask::S3(S3Ask { port: PORT, user: KNOWN.to_owned(), secret: None, what })
}

/// The servers compare this text with each other, letter by letter: it names slots, never hosts or addresses.
fn command(service: &Name, settings: &Settings) -> Vec<String> {
    let drives = match settings.erasure.drives {
        1 => "/data1".to_owned(),
        count => format!("/data{{1...{count}}}"),
    };
    let what = match settings.mode {
        Mode::Single => drives,
        Mode::Distributed => format!("http://{service}-{{1...{}}}:{PORT}{drives}", settings.erasure.hosts),
    };
    let (address, console) = (format!(":{PORT}"), format!(":{CONSOLE_PORT}"));
    ["minio", "server", "--address", &address, "--console-address", &console, &what]
        .map(str::to_owned)
        .to_vec()
}

/// What begins with `MINIO_` is compared too; the rest is for the entrypoint.
fn environment(settings: &Settings) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from(
        [
            ("MINIO_ROOT_USER_FILE", "/muster/secrets/root-user"),
            ("MINIO_ROOT_PASSWORD_FILE", "/muster/secrets/root-password"),
            // Names are looked up again this often, so that a peer may move to another address.
            ("MINIO_DNS_CACHE_TTL", "2s"),
            ("MINIO_UPDATE", "off"),
            ("MUSTER_SERVER", "127.0.0.1:9000"),
            ("MUSTER_READY", ":9002"),
            ("MUSTER_STATE", "/state"),
            // Longer than the proxies need to see it.
            ("MUSTER_DRAIN", "1500ms"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if settings.metrics.is_some() {
        // The other way is a token made of the root login. Who reaches them is settled by the ports and the proxies.
        environment.insert("MINIO_PROMETHEUS_AUTH_TYPE".to_owned(), "public".to_owned());
    }
    if settings.own_parity {
        let class = format!("EC:{}", settings.erasure.parity);
        environment.insert("MINIO_STORAGE_CLASS_STANDARD".to_owned(), class);
    }
    environment
}

fn files(context: &RenderContext<'_>, settings: &Settings) -> Vec<FileSpec> {
    let password = format!("${{secret:{}}}", secret(context.service, "root"));
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for peer in context.peers {
        let address = parts::address(peer, &settings.network);
        hosts.push_str(&format!("{address} {}-{}\n", context.service, peer.slot));
    }
    vec![
        parts::file("/muster/secrets/root-user", ROOT.to_owned(), 0o400, OnChange::Restart),
        parts::file("/muster/secrets/root-password", password, 0o400, OnChange::Restart),
        // Rewritten in place: a running server looks its peers up again.
        parts::file("/etc/hosts", hosts, 0o444, OnChange::None),
    ]
}
