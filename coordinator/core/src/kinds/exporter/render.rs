//! The container of a program that serves one member's metrics. Decides nothing.

use std::collections::BTreeMap;

use muster_model::network::Audience;
use muster_model::plan::{Act, ActionSpec, Ask, Limits, PortSpec, Rendered, StopSpec, UserIds};

use super::Settings;
use crate::kinds::metrics::Source;
use crate::kinds::{Peer, RenderContext, kind, parts};

/// User and group of the image.
const USER: UserIds = UserIds { uid: 9187, gid: 9187 };
/// The action that lets the program begin anew: it reads its files at its start only. Its agent starts it again at once.
pub const AGAIN: &str = "again";

pub const LIMITS: Limits =
    Limits { memory_bytes: 64 * parts::MIB, cpu_millis: 0, pids: 100, shm_bytes: 16 * parts::MIB };

pub fn render(context: &RenderContext<'_>, settings: &Settings) -> Rendered {
    let source = source(context);
    let again =
        ActionSpec { guard: None, run: Act::Signal { signal: "SIGTERM".to_owned() }, timeout_ms: 5_000 };
    let port =
        PortSpec { only: Some(settings.readers.clone()), ..parts::port(settings.port, Audience::Network) };
    let alive = Ask::Http(parts::http("GET", settings.port, source.alive));
    Rendered {
        image: settings.image.clone(),
        command: source.command,
        first_command: None,
        env: source.env,
        user: USER,
        files: source.files,
        volumes: Vec::new(),
        tmpfs: Vec::new(),
        limits: parts::limits(context.spec, &LIMITS),
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 5_000 },
        ports: vec![port],
        probes: vec![parts::probe("alive", 5_000, 2_000, alive)],
        actions: BTreeMap::from([(AGAIN.to_owned(), again)]),
        release: None,
        system_id: None,
    }
}

/// What the owner's kind says of its member in this slot. Before that one has a place there is nobody to ask, which the
/// program says as long as it is so.
fn source(context: &RenderContext<'_>) -> Source {
    let said = context.owner.and_then(|(name, spec, members)| {
        let nobody = Peer { addresses: BTreeMap::new(), ..context.me.clone() };
        let member = members.iter().find(|member| member.slot == context.me.slot).unwrap_or(&nobody);
        kind(spec.kind.as_str())?.metrics(name, spec, member)
    });
    said.unwrap_or_else(|| Source {
        command: Vec::new(),
        env: BTreeMap::new(),
        files: Vec::new(),
        alive: "/",
    })
}
