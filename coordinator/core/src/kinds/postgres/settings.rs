//! The settings of a `postgres` service: reading, judging, defaults. Renders nothing.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::Name;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parameters;
use crate::kinds::accounts::{self, Database, Reserved};
use crate::kinds::metrics::{self, Metrics};
use crate::kinds::settings::Fields;
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Problem, etcd, haproxy, parts};

/// The image if the spec names none.
pub const IMAGE: &str = "muster/postgres:15";
/// Names of members are cut by the server at 63 bytes and must stay different.
const SERVICE_NAME_MAX: usize = 40;
/// Names that belong to the server or the platform.
const RESERVED: Reserved = Reserved {
    users: &["postgres"],
    prefixes: &["pg_", "muster_"],
    databases: &["postgres", "template0", "template1"],
};
const PARAMETERS_MAX: usize = 200;
const EXTENSIONS_MAX: usize = 100;
/// What Debian's server brings along, without what reads the server's files or looks into its pages and its log.
const EXTENSIONS: [&str; 37] = [
    "amcheck",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dblink",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "intagg",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "moddatetime",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_trgm",
    "pg_visibility",
    "pgcrypto",
    "pgrowlocks",
    "pgstattuple",
    "postgres_fdw",
    "seg",
    "tablefunc",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "xml2",
];

/// What the service, Patroni or the safety of acknowledged rows depends on.
const FORBIDDEN: [&str; 29] = [
    "archive_cleanup_command",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "restore_command",
    "ssl",
    "synchronous_commit",
    "synchronous_standby_names",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
    "zero_damaged_pages",
];

/// How many members, and what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Survives the loss of a host.
    #[default]
    Ha,
    /// One member. Run by Patroni with one etcd all the same: the same data becomes `ha` by adding members to it.
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
    /// Image of the etcd child.
    pub etcd_image: String,
    /// Image of the proxy child.
    pub proxy_image: String,
    /// An acknowledged row is on two hosts.
    pub synchronous: bool,
    /// Parameters of the server, beside ours.
    pub parameters: BTreeMap<String, Value>,
    /// TLS of clients.
    pub tls: Tls,
    /// Exporters beside the members.
    pub metrics: Option<Metrics>,
    /// Users, at least one.
    pub users: Vec<String>,
    /// Databases, at least one.
    pub databases: Vec<Database>,
    /// Extensions that are made where they are missing; never removed.
    pub extensions: Vec<Extension>,
}

/// An extension of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extension {
    /// Its name, as the server knows it.
    pub name: String,
    /// The database that has it.
    pub database: String,
}

impl Settings {
    /// The settings of a spec that was accepted.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self::read(spec, None).0
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
        let network = parts::network(fields, "dbnet", platform);
        let image = parts::image(fields, "image", IMAGE);
        let etcd_image = parts::image(fields, "etcd_image", etcd::IMAGE);
        let proxy_image = parts::image(fields, "proxy_image", haproxy::IMAGE);
        let synchronous = fields.get("synchronous", "write true or false").unwrap_or(true);
        let tls = tls::setting(fields);
        let metrics = metrics::settings(fields, platform, metrics::IMAGE);
        let parameters = read_parameters(fields);
        let users = accounts::users(fields, &RESERVED);
        let databases = accounts::databases(fields, &users, &RESERVED);
        let extensions = read_extensions(fields, &databases);
        Self {
            mode,
            members,
            network,
            image,
            etcd_image,
            proxy_image,
            synchronous: synchronous && mode == Mode::Ha,
            parameters,
            tls,
            metrics,
            users,
            databases,
            extensions,
        }
    }
}

/// Judges the name of the service.
pub fn judge_name(name: &Name) -> Option<Problem> {
    (name.as_str().len() > SERVICE_NAME_MAX).then(|| Problem {
        path: String::new(),
        message: format!("the name of a postgres service has at most {SERVICE_NAME_MAX} characters"),
        help: "take a shorter name".to_owned(),
    })
}

fn read_extensions(fields: &mut Fields<'_>, databases: &[Database]) -> Vec<Extension> {
    let mut seen = BTreeSet::new();
    let help = "write a list of `- {name: NAME, database: DATABASE}`";
    fields.list("extensions", EXTENSIONS_MAX, help, |extension| {
        let name: String = extension.required("name", "write the extension's name, for example pg_trgm")?;
        let database: Option<String> = extension.get("database", "write the name of one of `databases:`");
        let database = database.or_else(|| Some(databases.first()?.name.clone()))?;
        if !EXTENSIONS.contains(&name.as_str()) {
            let help = format!("take one of {}", EXTENSIONS.join(", "));
            extension.problem("name", "not one of the extensions that may be had", help);
        } else if !databases.iter().any(|known| known.name == database) {
            let help = "add it to `databases:`, or name one of them";
            extension.problem("database", "no such database in this service", help);
        } else if !seen.insert((name.clone(), database.clone())) {
            extension.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        Some(Extension { name, database })
    })
}

fn read_parameters(fields: &mut Fields<'_>) -> BTreeMap<String, Value> {
    let help = "write a mapping of PostgreSQL's parameters, for example work_mem: 8MB";
    let Some(parameters) = fields.get::<BTreeMap<String, Value>>("parameters", help) else {
        return BTreeMap::new();
    };
    if parameters.len() > PARAMETERS_MAX {
        fields.problem("parameters", format!("more than {PARAMETERS_MAX} parameters"), help);
        return BTreeMap::new();
    }
    for (name, value) in &parameters {
        let short: String = name.chars().take(80).collect();
        let path = format!("parameters.{short}");
        if name.len() > 63 {
            fields.problem(&path, "not the name of a parameter", "use a-z, 0-9, `_` and `.`");
        } else if name == "synchronous_commit" || name == "synchronous_standby_names" {
            fields.problem(&path, "decides what an acknowledged row is worth", "set `synchronous:` instead");
        } else if FORBIDDEN.contains(&name.as_str())
            || name.starts_with("recovery_")
            || name.starts_with("ssl_")
        {
            fields.problem(&path, "is set by the platform", "leave it out");
        } else if let Some((message, help)) = parameters::judge(name, value) {
            fields.problem(&path, message, help);
        }
    }
    parameters
}
