//! What an operator may write under a `redis` service. Reads and judges; renders nothing.

use std::collections::BTreeSet;

use muster_model::ids::Name;
use muster_model::spec::{PlatformSpec, ServiceSpec, Size, Span};
use muster_model::time::Millis;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::kinds::metrics::{self, Metrics};
use crate::kinds::settings::Fields;
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Problem, haproxy, parts, versions};

/// The user if the spec names none.
const DEFAULT_USER: &str = "app";
const USERS_MAX: usize = 50;
/// What agents report of a cluster's table of nodes fits for so many.
pub const MEMBERS_MAX: u32 = 24;
const NODE_TIMEOUT: Millis = Millis::seconds(5);
/// Older ones send a client of a cluster that came over TLS to the other members' plain ports.
const REDIRECTS_TLS: [u32; 2] = [7, 2];

/// How members belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One member.
    Single,
    /// One master and its replicas; who leads is the platform's word.
    Replicated,
    /// Shards, each with a master and its replicas, that elect among themselves.
    Cluster,
}

/// Which program the image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl Flavour {
    /// The server in the image.
    pub const fn server(self) -> &'static str {
        match self {
            Self::Redis => "/usr/bin/redis-server",
            Self::Valkey => "/usr/bin/valkey-server",
        }
    }

    /// The client in the image.
    pub const fn client(self) -> &'static str {
        match self {
            Self::Redis => "/usr/bin/redis-cli",
            Self::Valkey => "/usr/bin/valkey-cli",
        }
    }

    const fn image(self) -> &'static str {
        match self {
            Self::Redis => "muster/redis:7.0",
            Self::Valkey => "muster/valkey:8.1",
        }
    }
}

/// What is done when the memory is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Eviction {
    /// Writes are refused.
    Noeviction,
    /// Keys used least recently go.
    AllkeysLru,
    /// Keys used least often go.
    AllkeysLfu,
    /// The same among keys that expire.
    VolatileLru,
    /// Those that expire first go.
    VolatileTtl,
}

impl Eviction {
    /// As the server calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noeviction => "noeviction",
            Self::AllkeysLru => "allkeys-lru",
            Self::AllkeysLfu => "allkeys-lfu",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileTtl => "volatile-ttl",
        }
    }
}

/// The settings.
pub struct Settings {
    pub mode: Mode,
    pub flavour: Flavour,
    /// Masters of a cluster.
    pub shards: u32,
    /// Replicas of each master.
    pub replicas: u32,
    pub network: Name,
    pub image: String,
    /// Image of the proxy child.
    pub proxy_image: String,
    /// Silence after which the others vote for another master.
    pub node_timeout: Millis,
    /// A master with fewer replicas in sync refuses writes.
    pub min_replicas: u32,
    /// Memory for data; absent = a share of the member's limit.
    pub maxmemory: Option<Size>,
    pub eviction: Eviction,
    /// TLS of clients.
    pub tls: Tls,
    /// Exporters beside the members.
    pub metrics: Option<Metrics>,
    pub users: Vec<String>,
}

impl Settings {
    /// Of a spec that was accepted.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self::read(spec, None).0
    }

    /// With every mistake.
    pub fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let settings = Self::from_fields(&mut fields, platform);
        (settings, fields.finish())
    }

    /// Asks for every setting that there is.
    pub fn from_fields(fields: &mut Fields<'_>, platform: Option<&PlatformSpec>) -> Self {
        let mode = fields.get("mode", "write single, replicated or cluster").unwrap_or(Mode::Cluster);
        let flavour = fields.get("flavour", "write redis or valkey").unwrap_or(Flavour::Redis);
        let mut shards = fields.number("shards", 3, 12).unwrap_or(3) as u32;
        let mut replicas = fields.number("replicas", 1, 5).unwrap_or(1) as u32;
        let network = parts::network(fields, "cachenet", platform);
        let image = parts::image(fields, "image", flavour.image());
        let proxy_image = parts::image(fields, "proxy_image", haproxy::IMAGE);
        let node_timeout = node_timeout(fields);
        let min_replicas = fields.number("min_replicas", 0, 5).unwrap_or(0) as u32;
        let maxmemory = fields.get("maxmemory", "write a size such as 256MiB");
        let help = "write noeviction, allkeys-lru, allkeys-lfu, volatile-lru or volatile-ttl";
        let eviction = fields.get("eviction", help).unwrap_or(Eviction::Noeviction);
        let tls = read_tls(fields, mode, flavour, &image);
        let metrics = metrics::settings(fields, platform, metrics::IMAGE);
        let users = read_users(fields);
        let none: &[&'static str] = match mode {
            Mode::Single => &["shards", "replicas", "node_timeout", "min_replicas", "proxy_image"],
            Mode::Replicated => &["shards", "node_timeout"],
            Mode::Cluster => &["proxy_image"],
        };
        for key in none {
            if fields.has(key) {
                fields.problem(key, "this mode has none", "leave it out, or write another mode");
            }
        }
        if mode != Mode::Cluster {
            shards = 1;
        }
        if mode == Mode::Single {
            replicas = 0;
        } else if shards * (1 + replicas) > MEMBERS_MAX {
            let members = shards * (1 + replicas);
            fields.problem(
                "shards",
                format!("{members} members"),
                format!("write at most {MEMBERS_MAX} in all"),
            );
        } else if min_replicas > replicas {
            fields.problem(
                "min_replicas",
                "more than there are replicas",
                format!("write at most {replicas}"),
            );
        }
        Self {
            mode,
            flavour,
            shards,
            replicas,
            network,
            image,
            proxy_image,
            node_timeout,
            min_replicas,
            maxmemory,
            eviction,
            tls,
            metrics,
            users,
        }
    }

    /// Members in all.
    pub const fn members(&self) -> u32 {
        self.shards * (1 + self.replicas)
    }
}

/// Where redirects would lead astray there is none, unless it is asked for: then that is a mistake.
fn read_tls(fields: &mut Fields<'_>, mode: Mode, flavour: Flavour, image: &str) -> Tls {
    let written = fields.has("tls");
    let wanted = tls::setting(fields);
    let redirects = flavour == Flavour::Valkey || versions::is_at_least(image, &REDIRECTS_TLS);
    if mode != Mode::Cluster || redirects {
        return wanted;
    }
    if written && wanted != Tls::None {
        fields.problem(
            "tls",
            "a cluster of Redis before 7.2 sends clients that came over TLS to ports without it",
            "write `flavour: valkey`, an image whose tag is 7.2 or newer, or `none`",
        );
    }
    Tls::None
}

fn node_timeout(fields: &mut Fields<'_>) -> Millis {
    let help = "write a duration from 1s to 60s";
    let span = fields.get::<Span>("node_timeout", help).map_or(NODE_TIMEOUT, |span| span.0);
    if !(1_000..=60_000).contains(&span.0) {
        fields.problem("node_timeout", format!("{} is out of range", Span(span)), help);
    }
    span
}

fn read_users(fields: &mut Fields<'_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    let users = fields.list("users", USERS_MAX, "write a list of `- name: NAME`", |user| {
        let name: String = user.required("name", "write the user's name")?;
        if name.is_empty() || name.len() > 63 || !name.chars().all(inner) {
            user.problem("name", "not a user's name", "use a-z, 0-9, `_` and `-`, at most 63");
        } else if name == "default" || name.starts_with("muster-") {
            user.problem(
                "name",
                format!("`{name}` belongs to the server or the platform"),
                "take another name",
            );
        } else if !seen.insert(name.clone()) {
            user.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        Some(name)
    });
    if users.is_empty() { vec![DEFAULT_USER.to_owned()] } else { users }
}
