//! How a server is asked for its metrics: it serves them itself, so its exporter only relays that one page.

use std::collections::BTreeMap;

use muster_model::plan::OnChange;
use muster_model::spec::ServiceSpec;

use super::PORT;
use super::settings::Settings;
use crate::kinds::exporter::{self, AGAIN};
use crate::kinds::metrics::Source;
use crate::kinds::{Child, Peer, parts};

/// Port of the relay.
const METRICS_PORT: u16 = 9290;
/// Where the relay's own settings are.
const RELAY: &str = "/muster/relay.cfg";
const TEMPLATE: &str = include_str!("relay.cfg");
/// The proxies' line that keeps clients from the servers' metrics.
pub const REFUSED: &str = "http-request deny deny_status 404 if { path,url_dec -m beg /minio/v2/metrics /minio/v3/metrics \
                           /minio/metrics /minio/prometheus }";

/// The relays, if they are wanted.
pub fn child(spec: &ServiceSpec, settings: &Settings) -> Option<Child> {
    let slots = (1..=settings.erasure.hosts).collect();
    let wanted = settings.metrics.as_ref()?;
    Some(exporter::child(spec, wanted, &settings.network, slots, METRICS_PORT))
}

pub fn source(settings: &Settings, member: &Peer) -> Source {
    let server = format!("{}:{PORT}", parts::address(member, &settings.network));
    let config = TEMPLATE.replace("@PORT@", &METRICS_PORT.to_string()).replace("@SERVER@", &server);
    Source {
        command: ["/usr/sbin/haproxy", "-db", "-f", RELAY].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        files: vec![parts::file(RELAY, config, 0o444, OnChange::Reload(AGAIN.to_owned()))],
        alive: "/alive",
    }
}
