//! Galera's arbitrator (`garbd`): the third vote of a cluster of two members. Holds no data, gives and takes no copies.

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::network::Audience;
use muster_model::observed::MemberStatus;
use muster_model::plan::{Ask, Limits, OnChange, Rendered, StopSpec, UserIds};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::json;

use super::render;
use super::settings::{self, Settings as Owner};
use crate::kinds::settings::Fields;
use crate::kinds::{
    Child, ChildOrder, Kind, Layout, Observed, Problem, RenderContext, ServiceFacts, Survivability,
    UpdateStep, Wait, parts,
};

/// What it is for its owner.
pub const ROLE: &str = "arbitrator";
const CONFIG: &str = "/muster/garbd.cnf";
const LIMITS: Limits =
    Limits { memory_bytes: 64 * parts::MIB, cpu_millis: 0, pids: 50, shm_bytes: 16 * parts::MIB };

/// The kind `garbd`.
pub struct Arbitrator;

/// Its settings, written by its owner's kind.
struct Settings {
    network: Name,
    image: String,
    /// The service whose third vote it is.
    owner: Name,
}

impl Settings {
    fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let network = parts::network(&mut fields, "dbnet", platform);
        let image = parts::image(&mut fields, "image", settings::IMAGE);
        let owner = fields.get("owner", "write the name of a service of kind mariadb");
        let owner = owner.unwrap_or_else(|| parts::known_name("mariadb"));
        (Self { network, image, owner }, fields.finish())
    }
}

/// Name of the arbitrator of a service.
pub fn name_of(owner: &Name) -> Name {
    parts::known_name(&format!("{owner}-{ROLE}"))
}

/// The arbitrator, if the members alone are too few for a majority without one of them.
pub fn child(name: &Name, spec: &ServiceSpec, settings: &Owner) -> Option<Child> {
    if settings.arbitrators() == 0 {
        return None;
    }
    let own = json!({ "network": settings.network, "image": settings.image, "owner": name });
    let spec = ServiceSpec {
        kind: parts::known_name("garbd"),
        place: spec.place.clone(),
        survive: None,
        resources: Default::default(),
        update: spec.update.clone(),
        replace_after: None,
        renamed_from: None,
        settings: own.as_object().cloned().unwrap_or_default(),
    };
    Some(Child { role: parts::known_name(ROLE), spec, order: ChildOrder::AfterOwner })
}

impl Kind for Arbitrator {
    fn name(&self) -> &'static str {
        "garbd"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 32 * parts::MIB));
        let instead = "a service of kind `mariadb` with `members: 2` brings it";
        problems.extend(parts::refuse_alone(name, platform, "garbd", instead));
        problems
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::read(spec, None).0;
        Layout {
            slots: 1,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![settings.network],
            limits: parts::limits(spec, &LIMITS),
            one_per_host: true,
            never_with: vec![settings.owner],
            host_ports: Vec::new(),
            has_data: false,
            exclusive: false,
        }
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        let settings = Settings::read(context.spec, None).0;
        Rendered {
            image: settings.image.clone(),
            command: vec!["/usr/bin/garbd".to_owned(), "--cfg".to_owned(), CONFIG.to_owned()],
            first_command: None,
            env: BTreeMap::new(),
            user: UserIds { uid: 3306, gid: 3306 },
            // Read only at its start, as by members: one of them that is replaced restarts nothing.
            files: vec![parts::file(CONFIG, config(context, &settings), 0o444, OnChange::None)],
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            limits: parts::limits(context.spec, &LIMITS),
            capabilities: Vec::new(),
            stop: StopSpec { signal: "SIGTERM".to_owned(), timeout_ms: 10_000 },
            ports: vec![parts::port(render::REPLICATION_PORT, Audience::Members)],
            probes: vec![parts::probe("listens", 2_000, 1_500, Ask::Tcp { port: render::REPLICATION_PORT })],
            actions: BTreeMap::new(),
            release: None,
            system_id: None,
        }
    }

    /// Whether the members count its vote, they say themselves: by the size of the view that they see.
    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        seen.ready = seen.running && parts::answer(status, "listens").is_some_and(|answer| answer.ok);
        seen.caught_up = seen.ready;
        seen
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        parts::stateless_health(service)
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        parts::one_at_a_time(service, |member| self.may_stop(service, member))
    }

    /// While a member of its owner is missing, the other one has a majority only with it.
    fn may_stop(&self, service: &ServiceFacts<'_>, _member: MemberId) -> Result<(), Wait> {
        match service.owner_members.iter().find(|member| !parts::is_ready(member)) {
            Some(missing) => Err(Wait(format!(
                "slot {} of the members is not in step: the other one needs this vote",
                missing.slot
            ))),
            None => Ok(()),
        }
    }

    fn survivability(&self, _service: &ServiceFacts<'_>) -> Survivability {
        Survivability::default()
    }
}

fn config(context: &RenderContext<'_>, settings: &Settings) -> String {
    let (owner, members) = match context.owner {
        Some((owner, _, members)) => (owner, members),
        None => (&settings.owner, Default::default()),
    };
    let port = render::REPLICATION_PORT;
    let addresses: Vec<String> =
        members.iter().map(|peer| format!("{}:{port}", parts::address(peer, &settings.network))).collect();
    let me = parts::address(context.me, &settings.network);
    format!(
        "address=gcomm://{}\ngroup={}\nname={}\noptions=pc.recovery=false;pc.wait_prim_timeout=P1D;gmcast.listen_addr=tcp://{me}:{port};{}\n",
        addresses.join(","),
        render::group(context.platform_id, owner),
        parts::member_name(context.service, context.me.slot, context.me.member),
        render::timeouts(context.platform.detection),
    )
}
