//! The settings of a `mariadb` service: reading, judging, defaults. Renders nothing.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::spec::{PlatformSpec, ServiceSpec, Size};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::router::choice::Router;
use crate::kinds::accounts::{self, Database, Reserved};
use crate::kinds::metrics::{self, Metrics};
use crate::kinds::settings::Fields;
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Problem, haproxy, parts};

/// The image if the spec names none.
pub const IMAGE: &str = "muster/mariadb:10.11";
/// Names of members are cut by the server at 64 bytes and must stay different.
const SERVICE_NAME_MAX: usize = 40;
const PARAMETERS_MAX: usize = 200;
const GCACHE_MIN: u64 = 32 * parts::MIB;
const GCACHE_DEFAULT: u64 = 128 * parts::MIB;
const GCACHE_MAX: u64 = 64 << 30;

/// So few members that a third vote is needed to tell a lost one from a lost majority.
const WITH_ARBITRATOR: u32 = 2;

/// Names that belong to the server or the platform.
const RESERVED: Reserved = Reserved {
    users: &["mysql", "root", "mariadb_sys"],
    prefixes: &["muster_"],
    databases: &["mysql", "information_schema", "performance_schema", "sys", "muster"],
};

/// What the service, Galera or the safety of acknowledged rows depends on.
const FORBIDDEN: [&str; 31] = [
    "basedir",
    "bind_address",
    "binlog_format",
    "datadir",
    "default_storage_engine",
    "init_connect",
    "init_file",
    "innodb_autoinc_lock_mode",
    "innodb_data_home_dir",
    "innodb_doublewrite",
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_method",
    "innodb_force_recovery",
    "innodb_log_group_home_dir",
    "innodb_read_only",
    "innodb_undo_directory",
    "log_bin",
    "log_error",
    "pid_file",
    "plugin_dir",
    "plugin_load",
    "plugin_load_add",
    "port",
    "read_only",
    "require_secure_transport",
    "skip_grant_tables",
    "skip_networking",
    "skip_ssl",
    "socket",
    "tmpdir",
    "user",
];

/// How many members, and what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Galera: survives the loss of a host.
    #[default]
    Ha,
    /// One member, without Galera.
    Single,
}

/// The settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many members, and what for.
    pub mode: Mode,
    /// Members.
    pub members: u32,
    /// The network that clients and members are in.
    pub network: Name,
    /// Image of the members.
    pub image: String,
    /// The program in front of the members.
    pub router: Router,
    /// Image of the proxy child.
    pub proxy_image: String,
    /// How many bytes of writes a member may miss and still catch up without copying everything.
    pub gcache: u64,
    /// Whether clients are served over TLS.
    pub tls: Tls,
    /// Variables of the server, beside ours.
    pub parameters: BTreeMap<String, Value>,
    /// Exporters beside the members.
    pub metrics: Option<Metrics>,
    /// Users, at least one.
    pub users: Vec<String>,
    /// Databases, at least one.
    pub databases: Vec<Database>,
}

impl Settings {
    /// The settings of a spec that was accepted.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self::read(spec, None).0
    }

    /// Votes that hold no data.
    pub const fn arbitrators(&self) -> u32 {
        matches!(self.mode, Mode::Ha) as u32 * (self.members == WITH_ARBITRATOR) as u32
    }

    /// Votes of a whole cluster.
    pub const fn votes(&self) -> u32 {
        self.members + self.arbitrators()
    }

    /// Reads and judges.
    pub fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let settings = Self::from_fields(&mut fields, platform);
        (settings, fields.finish())
    }

    /// Asks for every setting that there is.
    pub fn from_fields(fields: &mut Fields<'_>, platform: Option<&PlatformSpec>) -> Self {
        let mode: Mode = fields.get("mode", "write `ha` or `single`").unwrap_or_default();
        let members = match mode {
            Mode::Ha => fields.number("members", 2, 7).unwrap_or(3) as u32,
            Mode::Single => fields.number("members", 1, 1).unwrap_or(1) as u32,
        };
        if members % 2 == 0 && members != WITH_ARBITRATOR {
            let help = "write 3, 5 or 7, or 2 (an arbitrator on a third host has the third vote)";
            fields.problem("members", "an even number of members cannot be halved safely", help);
        }
        let network = parts::network(fields, "dbnet", platform);
        let image = parts::image(fields, "image", IMAGE);
        let router = read_router(fields, mode);
        let proxy_image = parts::image(fields, "proxy_image", haproxy::IMAGE);
        let gcache = read_gcache(fields);
        let tls = read_tls(fields, router);
        let metrics = metrics::settings(fields, platform, metrics::IMAGE);
        let parameters = read_parameters(fields);
        let users = accounts::users(fields, &RESERVED);
        let databases = accounts::databases(fields, &users, &RESERVED);
        Self {
            mode,
            members,
            network,
            image,
            router,
            proxy_image,
            gcache,
            tls,
            metrics,
            parameters,
            users,
            databases,
        }
    }
}

/// Judges the name of the service.
pub fn judge_name(name: &Name) -> Option<Problem> {
    (name.as_str().len() > SERVICE_NAME_MAX).then(|| Problem {
        path: String::new(),
        message: format!("the name of a mariadb service has at most {SERVICE_NAME_MAX} characters"),
        help: "take a shorter name".to_owned(),
    })
}

fn read_router(fields: &mut Fields<'_>, mode: Mode) -> Router {
    let help = "write `haproxy`, `proxysql` or `maxscale`";
    let router: Router = fields.get("router", help).unwrap_or_default();
    if router == Router::Haproxy {
        return router;
    }
    if mode == Mode::Single {
        fields.problem("router", "a single member has no proxies", "leave it out");
    } else if !fields.has("proxy_image") {
        let message = format!("there is no image of ours for `router: {}`", router.name());
        let help = "write `proxy_image:` with an image of your own, for example registry.example/router:1";
        fields.problem("router", message, help);
    }
    router
}

/// Another router speaks the protocol itself, and has no certificate.
fn read_tls(fields: &mut Fields<'_>, router: Router) -> Tls {
    let tls = tls::setting(fields);
    if router == Router::Haproxy {
        return tls;
    }
    if fields.has("tls") && tls != Tls::None {
        let message = format!("`router: {}` serves no TLS", router.name());
        fields.problem("tls", message, "leave it out, or leave `router` out");
    }
    Tls::None
}

fn read_gcache(fields: &mut Fields<'_>) -> u64 {
    let help = "write a size from 32MiB to 64GiB, for example 512MiB";
    let Some(size) = fields.get::<Size>("gcache", help) else { return GCACHE_DEFAULT };
    if !(GCACHE_MIN..=GCACHE_MAX).contains(&size.0) {
        fields.problem("gcache", format!("{size} is out of range"), help);
    }
    size.0
}

fn read_parameters(fields: &mut Fields<'_>) -> BTreeMap<String, Value> {
    let help = "write a mapping of the server's variables, for example max_connections: 400";
    let Some(parameters) = fields.get::<BTreeMap<String, Value>>("parameters", help) else {
        return BTreeMap::new();
    };
    if parameters.len() > PARAMETERS_MAX {
        fields.problem("parameters", format!("more than {PARAMETERS_MAX} variables"), help);
        return BTreeMap::new();
    }
    for (name, value) in &parameters {
        let short: String = name.chars().take(80).collect();
        let path = format!("parameters.{short}");
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 63 || !name.chars().all(good) {
            fields.problem(&path, "not the name of a variable", "use a-z, 0-9 and `_`");
        } else if FORBIDDEN.contains(&name.as_str()) || name.starts_with("wsrep") {
            fields.problem(&path, "is set by the platform", "leave it out");
        } else if name.starts_with("ssl") {
            fields.problem(&path, "is set by the platform", "leave it out, and write `tls:` of the service");
        } else if !is_value(value) {
            fields.problem(&path, "not a value", "write a number, a word, true or false");
        }
    }
    parameters
}

/// One line of a configuration file that cannot become two, and into which no agent fills a secret.
fn is_value(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => {
            text.len() <= 500 && !text.chars().any(|c| c.is_control() || c == '#') && !text.contains("${")
        }
        _ => false,
    }
}
