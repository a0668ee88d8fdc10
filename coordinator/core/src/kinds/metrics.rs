//! Metrics for Prometheus, as far as kinds share them: the settings, and how a member is asked. Asks nobody itself.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::plan::FileSpec;
use muster_model::spec::PlatformSpec;

use super::parts;
use super::settings::Fields;

/// The image of the programs that ask databases, if the spec names none.
pub const IMAGE: &str = "muster/exporters:12";
/// Role of the child whose members ask, and the secret with which they log in, without the service's name.
pub const WHAT: &str = "metrics";
/// The login of those programs, where a service has logins of its own.
pub const USER: &str = "muster_metrics";
/// Where a program that asks finds its password.
pub const PASSWORD_FILE: &str = "/muster/password";

/// The settings of a service that has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The network from which the metrics can be read, and from no other.
    pub network: Name,
    /// Image of the programs.
    pub image: String,
}

/// How one member is asked for its metrics, in the words of its own kind. Plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Program and arguments; it serves `/metrics` at the child's port.
    pub command: Vec<String>,
    /// Environment; never a secret.
    pub env: BTreeMap<String, String>,
    /// Files; one that changes at run time names the action [`super::exporter::AGAIN`].
    pub files: Vec<FileSpec>,
    /// A path that answers without asking the member.
    pub alive: &'static str,
}

/// The settings `metrics`, `metrics_network` and `metrics_image`, that is `usual` if not written; absent = not wanted.
pub fn settings(
    fields: &mut Fields<'_>,
    platform: Option<&PlatformSpec>,
    usual: &'static str,
) -> Option<Metrics> {
    let wanted = fields.get("metrics", "write true or false").unwrap_or(false);
    let key = "metrics_network";
    let network: Option<Name> = fields.get(key, "write the name of a network, for example monnet");
    let network = network.unwrap_or_else(|| parts::known_name("monnet"));
    if platform.is_some_and(|platform| platform.network(&network).is_none()) {
        let message = format!("there is no network `{network}`");
        fields.problem(key, message, "write it under `networks:` first");
    }
    let image = parts::image(fields, "metrics_image", usual);
    wanted.then_some(Metrics { network, image })
}

/// Name of the secret with which the programs of a service log in.
pub fn secret(service: &Name) -> String {
    format!("{service}/{WHAT}")
}
