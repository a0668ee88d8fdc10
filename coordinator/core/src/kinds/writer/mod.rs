//! A drill's writer: one member, placed by the coordinator, never written by an operator. Knows no engine itself.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::network::Audience;
use muster_model::observed::MemberStatus;
use muster_model::plan::{
    Act, ActionSpec, Ask, FileSpec, Limits, OnChange, Rendered, StopSpec, UserIds, VolumeSpec,
};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::json;

use super::settings::Fields;
use super::{
    Kind, Layout, Observed, Problem, RenderContext, ServiceFacts, Survivability, UpdateStep, Wait, kind,
    parts, tls,
};

/// The image of this version.
const IMAGE: &str = concat!("muster/writer:", env!("CARGO_PKG_VERSION"));
const PROGRAM: &str = "/usr/local/bin/muster-writer";
const CONFIG: &str = "/muster/writer.json";
const STATUS_PORT: u16 = 9_099;
/// Fewer would not see a gap of half a second.
const WRITES_MIN: u64 = 20;
const WRITES_DEFAULT: u64 = 50;
/// User and group of the image.
const USER: UserIds = UserIds { uid: 10_001, gid: 10_001 };
const LIMITS: Limits =
    Limits { memory_bytes: 64 * parts::MIB, cpu_millis: 0, pids: 50, shm_bytes: 16 * parts::MIB };

/// The kind `writer`.
pub struct Writer;

/// Its settings.
struct Settings {
    target: Option<Name>,
    network: Name,
    image: String,
    writes_per_second: u64,
}

impl Settings {
    fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let target = fields.required("target", "write the name of the service that is written to");
        let network = parts::network(&mut fields, "dbnet", platform);
        let image = parts::image(&mut fields, "image", IMAGE);
        let writes_per_second =
            fields.number("writes_per_second", WRITES_MIN, 1_000).unwrap_or(WRITES_DEFAULT);
        (Self { target, network, image, writes_per_second }, fields.finish())
    }

    fn of(spec: &ServiceSpec) -> Self {
        Self::read(spec, None).0
    }
}

fn files(context: &RenderContext<'_>, settings: &Settings) -> Vec<FileSpec> {
    let mut files = vec![parts::file(CONFIG, config(context, settings), 0o400, OnChange::Restart)];
    files.extend(tls::ca_file(&files, OnChange::Restart));
    files
}

fn config(context: &RenderContext<'_>, settings: &Settings) -> String {
    let target = settings.target.as_ref().and_then(|name| context.uses.get_key_value(name));
    let known = target.and_then(|(name, used)| Some((name, used, kind(used.spec.kind.as_str())?)));
    let endpoints = known
        .map(|(name, used, kind)| kind.endpoints(name, used.spec, &used.peers, &used.children, None))
        .unwrap_or_default();
    let write = endpoints
        .into_iter()
        .find(|endpoint| endpoint.role == "write")
        .map(|end| end.url.replace(tls::CA, tls::CA_FILE));
    let config = json!({
        "engine": known.and_then(|(_, used, kind)| kind.writer(used.spec)),
        "endpoints": write.into_iter().collect::<Vec<String>>(),
        "run": format!("{}-{}", context.service, context.me.member),
        "ledger": "/data/ledger",
        "listen": format!("0.0.0.0:{STATUS_PORT}"),
        "writes_per_second": settings.writes_per_second,
    });
    format!("{config:#}\n")
}

impl Kind for Writer {
    fn name(&self) -> &'static str {
        "writer"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::refuse_alone(name, platform, "writer", "`muster drill run` places it"));
        problems
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        Layout {
            slots: 1,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![Settings::of(spec).network],
            limits: parts::limits(spec, &LIMITS),
            one_per_host: false,
            never_with: Vec::new(),
            host_ports: Vec::new(),
            // Its ledger is worth nothing on another host, and there must be one at a time.
            has_data: true,
            exclusive: true,
        }
    }

    fn uses(&self, spec: &ServiceSpec) -> Vec<Name> {
        Settings::of(spec).target.into_iter().collect()
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        let settings = Settings::of(context.spec);
        let argv = |verb: &str| [PROGRAM, verb, "--config", CONFIG].map(str::to_owned).to_vec();
        let verify = ActionSpec { guard: None, run: Act::Exec { argv: argv("verify") }, timeout_ms: 240_000 };
        Rendered {
            image: settings.image.clone(),
            command: argv("run"),
            first_command: None,
            env: BTreeMap::new(),
            user: USER,
            files: files(context, &settings),
            volumes: vec![VolumeSpec { name: parts::known_name("ledger"), path: "/data".to_owned() }],
            tmpfs: Vec::new(),
            limits: parts::limits(context.spec, &LIMITS),
            capabilities: Vec::new(),
            stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 10_000 },
            ports: vec![parts::port(STATUS_PORT, Audience::Members)],
            probes: vec![parts::probe(
                "status",
                1_000,
                1_000,
                Ask::Http(parts::http("GET", STATUS_PORT, "/status")),
            )],
            actions: BTreeMap::from([("verify".to_owned(), verify)]),
            release: None,
            system_id: None,
        }
    }

    /// Ready = it has been acknowledged steadily for a while; a gap makes it not ready for a while.
    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        if !seen.running {
            return seen;
        }
        let steady = parts::answer_json(status, "status").is_some_and(|body| body["steady"] == true);
        seen.ready = steady;
        seen.caught_up = steady;
        seen.writes = Some(steady);
        if !steady {
            seen.detail = "writes are not steady".to_owned();
        }
        seen
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        parts::stateless_health(service)
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        parts::one_at_a_time(service, |_| Ok(()))
    }

    fn may_stop(&self, _service: &ServiceFacts<'_>, _member: MemberId) -> Result<(), Wait> {
        Ok(())
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        parts::stateless_survivability(service)
    }
}
