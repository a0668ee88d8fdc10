//! How a MariaDB member is asked for its metrics: by mysqld_exporter, as a user that reads the server's state and no table.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::plan::OnChange;
use muster_model::spec::ServiceSpec;

use super::PORT;
use super::settings::Settings;
use crate::kinds::exporter::{self, AGAIN};
use crate::kinds::metrics::{self, PASSWORD_FILE, Source, USER};
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Child, Peer, parts};

/// Port of the exporter.
const METRICS_PORT: u16 = 9104;

/// The exporters, if they are wanted.
pub fn child(spec: &ServiceSpec, settings: &Settings) -> Option<Child> {
    let slots = (1..=settings.members).collect();
    let wanted = settings.metrics.as_ref()?;
    Some(exporter::child(spec, wanted, &settings.network, slots, METRICS_PORT))
}

pub fn source(service: &Name, settings: &Settings, member: &Peer) -> Source {
    let address = parts::address(member, &settings.network);
    let mut login = format!(
        "[client]\nhost={address}\nport={PORT}\nuser={USER}\npassword=${{secret:{}}}\n",
        metrics::secret(service)
    );
    let mut files = Vec::new();
    // The server asks everybody from outside for it.
    if settings.tls == Tls::Required {
        login.push_str(&format!("ssl-ca={}\n", tls::CA_FILE));
        files.push(tls::own_ca_file());
    }
    files.push(parts::file(PASSWORD_FILE, login, 0o400, OnChange::Reload(AGAIN.to_owned())));
    Source {
        command: vec![
            "/usr/bin/prometheus-mysqld-exporter".to_owned(),
            format!("--web.listen-address=:{METRICS_PORT}"),
            format!("--config.my-cnf={PASSWORD_FILE}"),
            "--log.level=warn".to_owned(),
        ],
        env: BTreeMap::new(),
        files,
        alive: "/",
    }
}
