//! TLS of client connections, as far as kinds share it: the setting, the secret, the file. Issues no certificate.

use muster_model::ids::Name;
use muster_model::plan::{FileSpec, OnChange};
use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::Fields;
use super::{Peer, parts};

/// Where a member finds its private key and, after it, its certificate: one file, so that the two always fit.
pub const FILE: &str = "/muster/tls.pem";
/// Stands in a connection string for the path of the platform's CA certificate; whoever uses the string fills it in.
pub const CA: &str = "${ca}";
/// The name under which an agent is given the CA's certificate, as if it were a secret.
pub const CA_SECRET: &str = "/ca";

/// Where a member that is a client finds the CA's certificate.
pub const CA_FILE: &str = "/muster/ca.pem";

/// Whether clients are served over TLS, with a certificate of the platform's CA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Without only.
    None,
    /// Over TLS, and without: between hosts everything is encrypted all the same.
    #[default]
    Optional,
    /// Over TLS only.
    Required,
}

/// The setting `tls`.
pub fn setting(fields: &mut Fields<'_>) -> Tls {
    fields.get("tls", "write `optional`, `required` or `none`").unwrap_or_default()
}

/// That secret's name without its service's.
pub const WHAT: &str = "tls";

/// Name of the secret with a service's key and certificate.
pub fn secret(service: &Name) -> String {
    format!("{service}/{WHAT}")
}

/// The file with key and certificate, read anew by the action `reload`.
pub fn file(service: &Name, reload: &str) -> FileSpec {
    let content = format!("${{secret:{}}}", secret(service));
    parts::file(FILE, content, 0o400, OnChange::Reload(reload.to_owned()))
}

/// The file with the CA's certificate, if one of these names it.
pub fn ca_file(files: &[FileSpec], on_change: OnChange) -> Option<FileSpec> {
    let named = files.iter().any(|file| file.content.contains(CA_FILE));
    named.then(|| FileSpec { on_change, ..own_ca_file() })
}

/// The same for a member's own tools, which may be clients of its service.
pub fn own_ca_file() -> FileSpec {
    parts::file(CA_FILE, format!("${{secret:{CA_SECRET}}}"), 0o444, OnChange::None)
}

/// Every member is rendered with a certificate: one from before TLS was there has none until it is rendered anew.
pub fn offered(tls: Tls, members: &[Peer]) -> bool {
    tls != Tls::None && members.iter().all(|member| member.tls)
}
