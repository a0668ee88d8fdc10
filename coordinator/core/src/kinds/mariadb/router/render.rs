//! Configuration and container of a router: one template for each program. Decides nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use muster_model::ids::Name;
use muster_model::network::Audience;
use muster_model::plan::{Ask, FileSpec, Limits, OnChange, Rendered, StopSpec, TmpfsSpec, UserIds};

use super::choice::Router;
use super::{Settings, admin_secret};
use crate::kinds::mariadb::render::secret;
use crate::kinds::mariadb::settings::Settings as Owner;
use crate::kinds::mariadb::{MONITOR, PORT, READ_PORT};
use crate::kinds::{Peer, RenderContext, parts};

const PROXYSQL: &str = include_str!("proxysql.cnf");
const MAXSCALE: &str = include_str!("maxscale.cnf");
/// Weight of the first member; each further one has less.
const WEIGHT: u32 = 1_000;
/// The image is not ours: it must bear any user.
const USER: UserIds = UserIds { uid: 5000, gid: 5000 };

pub const LIMITS: Limits =
    Limits { memory_bytes: 256 * parts::MIB, cpu_millis: 0, pids: 200, shm_bytes: 16 * parts::MIB };

/// The owner's service as the router is told of it.
struct Target<'a> {
    service: &'a Name,
    settings: Owner,
    members: &'a [Peer],
}

pub fn render(context: &RenderContext<'_>, router: Router, settings: &Settings) -> Rendered {
    let (at, command): (&str, &[&str]) = match router {
        Router::Maxscale => {
            ("/run/maxscale", &["maxscale", "--nodaemon", "--log=stdout", "--config=/muster/maxscale.cnf"])
        }
        Router::Proxysql | Router::Haproxy => (
            "/run/proxysql",
            &["proxysql", "-f", "--initial", "-D", "/run/proxysql", "-c", "/muster/proxysql.cnf"],
        ),
    };
    Rendered {
        image: settings.image.clone(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        first_command: None,
        env: BTreeMap::new(),
        user: USER,
        files: file(context, router).into_iter().collect(),
        volumes: Vec::new(),
        tmpfs: vec![TmpfsSpec { path: at.to_owned(), bytes: 64 * parts::MIB }],
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 10_000 },
        ports: [PORT, READ_PORT].map(|port| parts::port(port, Audience::Network)).to_vec(),
        probes: vec![parts::probe("alive", 1_000, 1_000, Ask::Tcp { port: PORT })],
        actions: BTreeMap::new(),
        release: None,
        system_id: None,
    }
}

/// Nothing without an owner. It has no command of its own by which it reads the file anew: a change is a new container.
fn file(context: &RenderContext<'_>, router: Router) -> Option<FileSpec> {
    let (service, spec, members) = context.owner?;
    let target = Target { service, settings: Owner::of(spec), members };
    let (path, content) = match router {
        Router::Maxscale => ("/muster/maxscale.cnf", maxscale(&target)),
        Router::Proxysql | Router::Haproxy => (
            "/muster/proxysql.cnf",
            proxysql(&target).replace("@ADMIN@", &of(&admin_secret(context.service))),
        ),
    };
    let content = content
        .replace("@SERVICE@", service.as_str())
        .replace("@WRITE@", &PORT.to_string())
        .replace("@READ@", &READ_PORT.to_string())
        .replace("@MONITOR@", MONITOR)
        .replace("@PASSWORD@", &of(&secret(service, "monitor")));
    Some(parts::file(path, content, 0o400, OnChange::Restart))
}

/// Where a secret's value stands in a file.
fn of(secret: &str) -> String {
    format!("${{secret:{secret}}}")
}

impl Target<'_> {
    fn servers(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.members.iter().map(|peer| {
            let name = parts::member_name(self.service, peer.slot, peer.member);
            (name, parts::address(peer, &self.settings.network).to_string())
        })
    }
}

fn proxysql(target: &Target<'_>) -> String {
    let server = |((name, address), weight): ((String, String), u32)| {
        format!(
            "    {{ address=\"{address}\", port={PORT}, hostgroup=10, weight={weight}, comment=\"{name}\" }}"
        )
    };
    let weights = (1..=WEIGHT).rev();
    let servers: Vec<String> = target.servers().zip(weights).map(server).collect();
    let user = |user: &String| {
        let password = of(&secret(target.service, &format!("user-{user}")));
        format!(
            "    {{ username=\"{user}\", password=\"{password}\", default_hostgroup=10, transaction_persistent=1, active=1 }}"
        )
    };
    let users: Vec<String> = target.settings.users.iter().map(user).collect();
    PROXYSQL.replace("@SERVERS@", &servers.join(",\n")).replace("@USERS@", &users.join(",\n"))
}

fn maxscale(target: &Target<'_>) -> String {
    let mut servers = String::new();
    for (name, address) in target.servers() {
        let _ = write!(servers, "\n[{name}]\ntype=server\naddress={address}\nport={PORT}\n");
    }
    let names: Vec<String> = target.servers().map(|(name, _)| name).collect();
    MAXSCALE.replace("@SERVERS@", &servers).replace("@NAMES@", &names.join(","))
}
