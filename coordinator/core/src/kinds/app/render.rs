//! An application's container, as its settings say. Decides nothing.

use std::collections::BTreeMap;

use muster_model::plan::{Ask, FileSpec, Limits, OnChange, Rendered, UserIds, VolumeSpec};

use super::settings::{AppProbe, Settings, Use};
use crate::kinds::{RenderContext, kind, parts, tls};

pub const LIMITS: Limits =
    Limits { memory_bytes: 256 * parts::MIB, cpu_millis: 0, pids: 200, shm_bytes: 64 * parts::MIB };

pub fn render(context: &RenderContext<'_>) -> Rendered {
    let settings = Settings::of(context.spec);
    let probes = settings.probe.iter().map(|(probe, every_ms, timeout_ms)| {
        let ask = match probe.clone() {
            AppProbe::Http { port, path } => Ask::Http(parts::http("GET", port, &path)),
            AppProbe::Tcp { port } => Ask::Tcp { port },
            AppProbe::Exec { argv } => Ask::Exec { argv },
        };
        parts::probe("ready", *every_ms, *timeout_ms, ask)
    });
    let own = settings
        .files
        .iter()
        .map(|file| parts::file(&file.path, file.content.clone(), file.mode, OnChange::Restart));
    let mut files: Vec<FileSpec> =
        own.chain(settings.uses.iter().flat_map(|used| connection_files(context, used))).collect();
    files.extend(tls::ca_file(&files, OnChange::None));
    Rendered {
        image: settings.image.clone(),
        command: settings.command.clone(),
        first_command: None,
        env: settings.env.clone(),
        user: UserIds { uid: settings.user, gid: settings.user },
        files,
        volumes: settings
            .volumes
            .iter()
            .map(|volume| VolumeSpec { name: volume.name.clone(), path: volume.path.clone() })
            .collect(),
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: settings.stop.clone(),
        ports: settings.ports.clone(),
        probes: probes.collect(),
        actions: BTreeMap::new(),
        release: None,
        system_id: None,
    }
}

/// One file per role of the used service, `/muster/SERVICE/write` and so on: the connection string with its password.
///
/// A changed address restarts nothing: each string names several addresses, of which the others stay good, and the
/// application finds the new one at its next start.
fn connection_files(context: &RenderContext<'_>, using: &Use) -> Vec<FileSpec> {
    let Some(used) = context.uses.get(&using.service) else { return Vec::new() };
    let Some(kind) = kind(used.spec.kind.as_str()) else { return Vec::new() };
    kind.endpoints(&using.service, used.spec, &used.peers, &used.children, using.user.as_deref())
        .into_iter()
        .map(|endpoint| {
            let path = format!("/muster/{}/{}", using.service, endpoint.role);
            parts::file(&path, endpoint.url.replace(tls::CA, tls::CA_FILE), 0o400, OnChange::None)
        })
        .collect()
}
