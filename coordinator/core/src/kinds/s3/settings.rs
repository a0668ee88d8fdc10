//! The settings of an `s3` service: reading, judging, defaults. Renders nothing.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::Name;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::erasure::{DRIVES_MAX, Erasure};
use crate::kinds::metrics::{self, Metrics};
use crate::kinds::settings::Fields;
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Problem, haproxy, parts};

/// The image if the spec names none.
pub const IMAGE: &str = "muster/minio:2026-02-12";
/// User and bucket of a service that names none.
const DEFAULT: &str = "app";
/// Buckets, policies and users, each; every one is a step when they are declared.
const DECLARED_MAX: usize = 20;
/// Fewer hosts do not keep writes when one is lost.
const HOSTS_MIN: u64 = 3;
const HOSTS_DEFAULT: u64 = 3;
const DRIVES_PER_HOST_MAX: u64 = 4;

/// How many members, and what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Survives the loss of a host.
    #[default]
    Distributed,
    /// One host, one drive.
    Single,
}

/// What a user may do with its buckets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Access {
    #[default]
    ReadWrite,
    ReadOnly,
    WriteOnly,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Older versions of objects are kept.
    pub versioning: bool,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Its access key.
    pub name: String,
    /// Name of its policy.
    pub policy: String,
    /// The bucket that its connection string names.
    pub bucket: Option<String>,
}

/// The settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many members, and what for.
    pub mode: Mode,
    /// Hosts, drives, parity.
    pub erasure: Erasure,
    /// Parity is not the server's own choice.
    pub own_parity: bool,
    /// The network that clients and members are in.
    pub network: Name,
    /// Image of the members.
    pub image: String,
    /// Image of the proxy child.
    pub proxy_image: String,
    /// Proxies.
    pub proxies: u32,
    /// TLS of clients: it ends at the proxies.
    pub tls: Tls,
    /// Exporters; they are relays, so what they run is a proxy's image.
    pub metrics: Option<Metrics>,
    /// Buckets, at least one.
    pub buckets: Vec<Bucket>,
    /// Policies by name, those made of `access` among them.
    pub policies: BTreeMap<String, Value>,
    /// Users, at least one.
    pub users: Vec<User>,
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
        let mode: Mode = fields.get("mode", "write `distributed` or `single`").unwrap_or_default();
        let (erasure, own_parity) = read_layout(fields, mode);
        let network = parts::network(fields, "stornet", platform);
        let image = parts::image(fields, "image", IMAGE);
        let proxy_image = parts::image(fields, "proxy_image", haproxy::IMAGE);
        let proxies = fields.number("proxies", 1, 9).unwrap_or(2) as u32;
        let tls = read_tls(fields, mode);
        let metrics = metrics::settings(fields, platform, haproxy::IMAGE);
        let buckets = read_buckets(fields);
        let mut policies = read_policies(fields);
        let users = read_users(fields, &buckets, &mut policies);
        Self {
            mode,
            erasure,
            own_parity,
            network,
            image,
            proxy_image,
            proxies,
            tls,
            metrics,
            buckets,
            policies,
            users,
        }
    }
}

/// A single server has no proxy where TLS could end.
fn read_tls(fields: &mut Fields<'_>, mode: Mode) -> Tls {
    let written = fields.has("tls");
    let wanted = tls::setting(fields);
    if mode == Mode::Distributed {
        return wanted;
    }
    if written && wanted != Tls::None {
        let help = "leave it out, or write `mode: distributed`";
        fields.problem("tls", "a single server has no proxy where TLS could end", help);
    }
    Tls::None
}

fn read_layout(fields: &mut Fields<'_>, mode: Mode) -> (Erasure, bool) {
    if mode == Mode::Single {
        fields.number("hosts", 1, 1);
        fields.number("drives", 1, 1);
        return (Erasure { hosts: 1, drives: 1, parity: 0 }, false);
    }
    let hosts = fields.number("hosts", HOSTS_MIN, u64::from(DRIVES_MAX)).unwrap_or(HOSTS_DEFAULT) as u32;
    let drives = fields.number("drives", 1, DRIVES_PER_HOST_MAX).unwrap_or(1) as u32;
    let total = hosts * drives;
    if total > DRIVES_MAX {
        fields.problem(
            "drives",
            format!("{total} drives are too many for one service"),
            format!("hosts times drives is at most {DRIVES_MAX}: take fewer, or a second service"),
        );
    }
    let parity = fields.number("parity", 1, u64::from(total / 2)).map(|parity| parity as u32);
    let default = Erasure::default_parity(total);
    let erasure = Erasure { hosts, drives, parity: parity.unwrap_or(default) };
    if parity.is_some() && !erasure.host_loss_keeps_writes() {
        fields.problem(
            "parity",
            format!("with parity {} the loss of one host stops writes", erasure.parity),
            format!("write more, or leave it out: then it is {default}"),
        );
    }
    (erasure, parity.is_some_and(|parity| parity != default))
}

fn is_bucket(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&text.len())
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-')
}

fn is_key(text: &str) -> bool {
    (3..=20).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_ours(text: &str) -> bool {
    text.starts_with("muster")
}

fn read_buckets(fields: &mut Fields<'_>) -> Vec<Bucket> {
    let mut seen = BTreeSet::new();
    let buckets = fields.list("buckets", DECLARED_MAX, "write a list of `- name: NAME`", |bucket| {
        let name: String = bucket.required("name", "write the bucket's name")?;
        if !is_bucket(&name) || is_ours(&name) {
            bucket.problem(
                "name",
                "not a bucket's name",
                "use a-z, 0-9 and `-`, 3 to 63, not beginning with `muster`",
            );
        } else if !seen.insert(name.clone()) {
            bucket.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        let versioning = bucket.get("versioning", "write true or false").unwrap_or(false);
        Some(Bucket { name, versioning })
    });
    if buckets.is_empty() { vec![Bucket { name: DEFAULT.to_owned(), versioning: false }] } else { buckets }
}

fn read_policies(fields: &mut Fields<'_>) -> BTreeMap<String, Value> {
    let mut policies = BTreeMap::new();
    let help = "write a list of `- {name: NAME, document: {Version: ..., Statement: [...]}}`";
    let read = fields.list("policies", DECLARED_MAX, help, |policy| {
        let name: String = policy.required("name", "write the policy's name")?;
        let document: Map<String, Value> = policy.required("document", "write the policy as a mapping")?;
        if !is_key(&name) || is_ours(&name) {
            policy.problem(
                "name",
                "not a policy's name",
                "use a-z, 0-9 and `-`, 3 to 20, not beginning with `muster`",
            );
        }
        if !document.get("Statement").is_some_and(Value::is_array) {
            policy.problem("document", "has no list `Statement`", help);
        }
        Some((name, Value::Object(document)))
    });
    for (name, document) in read {
        if policies.insert(name.clone(), document).is_some() {
            fields.problem("policies", format!("`{name}` is there twice"), "remove one of them");
        }
    }
    policies
}

fn read_users(
    fields: &mut Fields<'_>,
    buckets: &[Bucket],
    policies: &mut BTreeMap<String, Value>,
) -> Vec<User> {
    let mut seen = BTreeSet::new();
    let mut made = BTreeMap::new();
    let all: Vec<String> = buckets.iter().map(|bucket| bucket.name.clone()).collect();
    let help = "write a list of `- {name: NAME, buckets: [BUCKET], access: readwrite}`";
    let mut users = fields.list("users", DECLARED_MAX, help, |user| {
        let name: String = user.required("name", "write the user's name, its access key")?;
        if !is_key(&name) || is_ours(&name) {
            user.problem(
                "name",
                "not a user's name",
                "use a-z, 0-9 and `-`, 3 to 20, not beginning with `muster`",
            );
        } else if !seen.insert(name.clone()) {
            user.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        let own: Option<Vec<String>> = user.get("buckets", "write a list of names of `buckets:`");
        let access: Option<Access> = user.get("access", "write readwrite, readonly or writeonly");
        let policy: Option<String> = user.get("policy", "write the name of one of `policies:`");
        let mut named = BTreeSet::new();
        for (index, bucket) in own.iter().flatten().enumerate() {
            let place = format!("buckets.{index}");
            if !all.contains(bucket) {
                user.problem(
                    &place,
                    format!("no bucket `{bucket}` in this service"),
                    "add it to `buckets:` first",
                );
            } else if !named.insert(bucket) {
                user.problem(&place, format!("`{bucket}` is there twice"), "remove one of them");
            }
        }
        if let Some(policy) = policy.as_ref().filter(|policy| !policies.contains_key(*policy)) {
            user.problem("policy", format!("no policy `{policy}`"), "add it to `policies:` first");
        } else if policy.is_some() && access.is_some() {
            user.problem("policy", "beside `access`", "write one of them");
        }
        let own = own.unwrap_or_else(|| all.clone());
        let bucket = own.first().cloned();
        let policy = policy.unwrap_or_else(|| {
            let name = format!("muster-{name}");
            made.insert(name.clone(), grant(&own, access.unwrap_or_default()));
            name
        });
        Some(User { name, policy, bucket })
    });
    if users.is_empty() {
        let policy = format!("muster-{DEFAULT}");
        made.insert(policy.clone(), grant(&all, Access::ReadWrite));
        users.push(User { name: DEFAULT.to_owned(), policy, bucket: all.first().cloned() });
    }
    policies.extend(made);
    users
}

/// A policy for these buckets.
fn grant(buckets: &[String], access: Access) -> Value {
    let objects: &[&str] = match access {
        Access::ReadWrite => &["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
        Access::ReadOnly => &["s3:GetObject"],
        Access::WriteOnly => &["s3:PutObject", "s3:AbortMultipartUpload"],
    };
    let on = |below: &str| buckets.iter().map(|b| format!("arn:aws:s3:::{b}{below}")).collect::<Vec<_>>();
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": ["s3:GetBucketLocation", "s3:ListBucket"], "Resource": on("") },
            { "Effect": "Allow", "Action": objects, "Resource": on("/*") },
        ],
    })
}
