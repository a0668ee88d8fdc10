//! How a PostgreSQL member is asked for its metrics: by postgres_exporter, with a login that reads statistics only.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::plan::OnChange;
use muster_model::spec::ServiceSpec;

use super::PORT;
use super::settings::Settings;
use crate::kinds::exporter::{self, AGAIN};
use crate::kinds::metrics::{self, PASSWORD_FILE, Source, USER};
use crate::kinds::{Child, Peer, parts};

/// Port of the exporter.
const METRICS_PORT: u16 = 9187;

/// The exporters, if they are wanted.
pub fn child(spec: &ServiceSpec, settings: &Settings) -> Option<Child> {
    let slots = (1..=settings.members).collect();
    let wanted = settings.metrics.as_ref()?;
    Some(exporter::child(spec, wanted, &settings.network, slots, METRICS_PORT))
}

/// Plain: it is beside the member, and between hosts the mesh encrypts. The server lets this login in without TLS always.
pub fn source(service: &Name, settings: &Settings, member: &Peer) -> Source {
    let address = parts::address(member, &settings.network);
    let env = [
        ("DATA_SOURCE_URI", format!("{address}:{PORT}/postgres?sslmode=disable&connect_timeout=3")),
        ("DATA_SOURCE_USER", USER.to_owned()),
        ("DATA_SOURCE_PASS_FILE", PASSWORD_FILE.to_owned()),
    ];
    let password = format!("${{secret:{}}}", metrics::secret(service));
    Source {
        command: vec![
            "/usr/bin/prometheus-postgres-exporter".to_owned(),
            format!("--web.listen-address=:{METRICS_PORT}"),
            "--log.level=warn".to_owned(),
        ],
        env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value))),
        files: vec![parts::file(PASSWORD_FILE, password, 0o400, OnChange::Reload(AGAIN.to_owned()))],
        alive: "/",
    }
}
