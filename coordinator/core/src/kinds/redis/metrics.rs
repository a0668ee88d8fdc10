//! How a Redis member is asked for its metrics: by redis_exporter, as a user that learns how the server is and sees no key.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::plan::OnChange;
use muster_model::spec::ServiceSpec;

use super::settings::{Mode, Settings};
use super::{PORT, cluster};
use crate::kinds::exporter::{self, AGAIN};
use crate::kinds::metrics::{self, PASSWORD_FILE, Source};
use crate::kinds::{Child, Peer, parts};

/// Port of the exporter.
const METRICS_PORT: u16 = 9121;
/// Its user, and what that may: nothing that reads keys, settings (passwords are among them) or other clients.
pub const USER: &str = "muster-metrics";
pub const RIGHTS: &str = "resetchannels -@all +ping +info +select +client|setname +cluster|info +slowlog|len \
                          +slowlog|get +latency|latest";

/// The exporters, if they are wanted.
pub fn child(spec: &ServiceSpec, settings: &Settings) -> Option<Child> {
    let slots = match settings.mode {
        Mode::Cluster => cluster::numbers(settings),
        Mode::Single | Mode::Replicated => (1..=settings.members()).collect(),
    };
    let wanted = settings.metrics.as_ref()?;
    Some(exporter::child(spec, wanted, &settings.network, slots, METRICS_PORT))
}

pub fn source(service: &Name, settings: &Settings, member: &Peer) -> Source {
    let url = format!("redis://{}:{PORT}", parts::address(member, &settings.network));
    // The file is a table of passwords by address.
    let passwords = format!("{{\"{url}\": \"${{secret:{}}}\"}}\n", metrics::secret(service));
    let words = [
        "/usr/bin/prometheus-redis-exporter",
        "-web.listen-address",
        &format!(":{METRICS_PORT}"),
        "-redis.addr",
        &url,
        "-redis.user",
        USER,
        "-redis.password-file",
        PASSWORD_FILE,
        "-connection-timeout",
        "3s",
        // It asks CONFIG for everything, which its user may not: each time would be a line in the server's list of refusals.
        "-config-command",
        "INFO",
    ];
    Source {
        command: words.map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        files: vec![parts::file(PASSWORD_FILE, passwords, 0o400, OnChange::Reload(AGAIN.to_owned()))],
        alive: "/health",
    }
}
