//! MariaDB with Galera: the trait's answers, each given by a file of its own. Decides nothing itself.

pub mod arbitrator;
mod cold_start;
mod decide;
mod metrics;
mod observe;
mod render;
pub mod router;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name, TaskId};
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::{Ask, Guard, Predicate, Probe, Rendered, Task, TaskKind};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::Value;

use self::router::choice::Router;
use self::settings::{Mode, Settings};
use super::describe::describe;
use super::haproxy::front::{self, Check, Front, Listener, Mode as ProxyMode, Port, Server, Vital};
use super::metrics::{Source, WHAT};
use super::rotate::{self, Rotation};
use super::tls::{self, Tls};
use super::versions::Line;
use super::{
    Child, Endpoint, Kind, Layout, Observed, Peer, Problem, Procedure, ProcedureStep, RenderContext,
    SecretNeed, ServiceFacts, Survivability, UpdateStep, Wait, WriterEngine, parts,
};
use crate::command::TaskDraft;

/// Clients of a member itself; of the proxies, the way to the one that takes writes.
pub const PORT: u16 = 3306;
/// The proxies' way to any member in step.
const READ_PORT: u16 = 3307;
/// The login of a router that judges members itself.
const MONITOR: &str = "muster_monitor";
/// Where a member says how it is, to the proxies and to its agent.
const CHECK_PORT: u16 = 9200;
const PROXIES: u32 = 2;
/// A series (10.11) is what other engines call a major version: its tables are upgraded once, and members of two series
/// replicate only by luck.
const LINE: Line = Line {
    engine: "MariaDB",
    fixed: 2,
    back: true,
    instead: "write it as it was, or make another service beside it and copy the data",
};
/// Record: the history that all members of the cluster belong to.
const HISTORY: &str = "history";
/// Record: the members that had everything when all were in step.
const HOLDERS: &str = "holders";
const SWITCHOVER_TIMEOUT_MS: u64 = 15_000;

/// The kind `mariadb`.
pub struct Mariadb;

impl Kind for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 256 * parts::MIB));
        problems.extend(settings::judge_name(name));
        problems
    }

    fn children(&self, name: &Name, spec: &ServiceSpec) -> Vec<Child> {
        let settings = Settings::of(spec);
        let proxies = || {
            let mut proxy = front::child(spec, &settings.network, PROXIES, &settings.proxy_image);
            proxy.spec.kind = parts::known_name(settings.router.name());
            proxy
        };
        let proxies = (settings.mode == Mode::Ha).then(proxies);
        let arbitrator = arbitrator::child(name, spec, &settings);
        proxies.into_iter().chain(arbitrator).chain(metrics::child(spec, &settings)).collect()
    }

    fn may_become(&self, name: &Name, present: &ServiceSpec, written: &ServiceSpec) -> Result<(), Problem> {
        if Settings::of(present).mode != Settings::of(written).mode {
            let help = "write it as it was, or make another service beside it and copy the data";
            return Err(Problem::new("mode", format!("the mode of `{name}` cannot be changed"), help));
        }
        if Settings::of(present).router != Settings::of(written).router {
            let help = "write it as it was, or make another service beside it and copy the data";
            return Err(Problem::new("router", format!("the router of `{name}` cannot be changed"), help));
        }
        LINE.judge("image", &Settings::of(present).image, &Settings::of(written).image)
    }

    fn line(&self) -> Option<Line> {
        Some(LINE)
    }

    fn schema(&self) -> Option<Value> {
        Some(describe(|fields| drop(Settings::from_fields(fields, None))))
    }

    fn layout(&self, name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::of(spec);
        let arbitrated = settings.arbitrators() > 0;
        Layout {
            slots: settings.members,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![settings.network],
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: true,
            never_with: arbitrated.then(|| arbitrator::name_of(name)).into_iter().collect(),
            host_ports: Vec::new(),
            has_data: true,
            // A majority decides who writes: a lost member may be replaced while the old one is only silent. A single
            // member is the only copy.
            exclusive: settings.mode == Mode::Single,
        }
    }

    fn secrets(&self, name: &Name, spec: &ServiceSpec) -> Vec<SecretNeed> {
        let settings = Settings::of(spec);
        let users = settings.users.iter().map(|user| format!("user-{user}"));
        let monitor = (settings.router != Router::Haproxy).then(|| "monitor".to_owned());
        let metrics = settings.metrics.as_ref().map(|_| WHAT.to_owned());
        let all = users.chain(monitor).chain(metrics);
        all.map(|what| SecretNeed { name: render::secret(name, &what) }).collect()
    }

    fn tls(&self, spec: &ServiceSpec) -> Tls {
        Settings::of(spec).tls
    }

    fn metrics(&self, name: &Name, spec: &ServiceSpec, member: &Peer) -> Option<Source> {
        Some(metrics::source(name, &Settings::of(spec), member))
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context)
    }

    fn interpret(&self, spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        observe::interpret(spec, status)
    }

    fn may_start(&self, service: &ServiceFacts<'_>, slot: u32) -> Result<(), Wait> {
        decide::may_start(service, slot)
    }

    fn is_formed(&self, service: &ServiceFacts<'_>) -> bool {
        decide::is_formed(service)
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        decide::health(service)
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        decide::next_update(service)
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_stop(service, member)
    }

    fn rotation(&self, spec: &ServiceSpec, _what: &str) -> Result<Rotation, Wait> {
        let router = Settings::of(spec).router;
        if router != Router::Haproxy {
            return Err(Wait(format!("router {} reads its passwords only when it is made", router.name())));
        }
        Ok(Rotation::smooth(
            "open sessions stay; a user has one password, so a new login with the old one is refused within a second",
        ))
    }

    /// Only the one that clients write to does it; it reaches the others as a row does.
    fn enforce(&self, service: &ServiceFacts<'_>, _secrets: &[String]) -> Vec<(String, TaskDraft)> {
        let give = |member: &super::MemberFacts| {
            let label = format!("{}/{} is given the new passwords", service.name, member.slot);
            (label, rotate::action(member.member, "converge", render::CONVERGE_MS))
        };
        service.members.iter().map(give).collect()
    }

    fn due(&self, service: &ServiceFacts<'_>) -> Option<Procedure> {
        (Settings::of(service.spec).mode == Mode::Ha).then(|| cold_start::due(service))?
    }

    fn proceed(
        &self,
        service: &ServiceFacts<'_>,
        procedure: &Procedure,
        answers: &[(String, TaskOutcome)],
    ) -> ProcedureStep {
        cold_start::proceed(service, procedure, answers)
    }

    fn goes_on_by_itself(&self, _service: &ServiceFacts<'_>) -> bool {
        true
    }

    fn may_replace(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_replace(service, member)
    }

    fn switchover(&self, service: &ServiceFacts<'_>, to: Option<u32>) -> Result<Task, Wait> {
        let router = Settings::of(service.spec).router;
        if router != Router::Haproxy {
            return Err(Wait(format!(
                "router {} chooses the member that takes writes itself",
                router.name()
            )));
        }
        let from = decide::leader(service).ok_or_else(|| Wait("no writer is known".to_owned()))?;
        if to == Some(from.slot) {
            return Err(Wait(format!("clients write to {}/{} already", service.name, from.slot)));
        }
        let to = decide::candidate(service, to)?;
        let guard = Guard {
            name: "the member is in step, with no writes waiting".to_owned(),
            probe: Probe { timeout_ms: 2_000, ask: Ask::Http(parts::http("GET", CHECK_PORT, "/status")) },
            accept: Predicate::All(vec![
                Predicate::Equals { pointer: "/synced".to_owned(), value: true.into() },
                Predicate::Equals { pointer: "/leaving".to_owned(), value: false.into() },
                Predicate::AtMost { pointer: "/queue".to_owned(), value: 20.0 },
            ]),
        };
        Ok(Task {
            id: TaskId(0),
            member: to.member,
            guard: Some(guard),
            what: TaskKind::Exec { argv: render::program(&["take"]) },
            timeout_ms: SWITCHOVER_TIMEOUT_MS,
        })
    }

    fn leader(&self, service: &ServiceFacts<'_>) -> Option<u32> {
        decide::leader(service).map(|member| member.slot)
    }

    fn front(&self, name: &Name, spec: &ServiceSpec, members: &[Peer]) -> Front {
        let network = Settings::of(spec).network;
        let server = |peer: &Peer| Server {
            name: parts::member_name(name, peer.slot, peer.member),
            address: parts::address(peer, &network),
            port: PORT,
            check_port: Some(CHECK_PORT),
            options: "",
        };
        let listener = |name, port, note, options: &[&str], uri| Listener {
            name,
            ports: vec![Port::Plain(port)],
            mode: ProxyMode::Tcp,
            note,
            options: options.iter().map(|line| (*line).to_owned()).collect(),
            check: Check::Http { method: "GET", uri },
            servers: members.iter().map(server).collect(),
        };
        Front {
            listeners: vec![
                listener(
                    "write",
                    PORT,
                    "One member answers 200 here: the one whose name is in a row that Galera replicates.",
                    &[],
                    "/write",
                ),
                listener(
                    "read",
                    READ_PORT,
                    "Every member in step; a moment behind the writer unless a session sets wsrep_sync_wait.",
                    &["balance leastconn"],
                    "/read",
                ),
            ],
            vital: Some(Vital { listener: "write", stands: "writer", fails: "no writer" }),
            holds: false,
        }
    }

    fn remarks(&self, name: &Name, spec: &ServiceSpec) -> Vec<String> {
        let settings = Settings::of(spec);
        let votes = (settings.arbitrators() > 0).then(|| {
            "two members have the data, an arbitrator on a third host only votes: a lost host keeps writes; a member that needs \
             a whole copy is given it by the one that takes the writes"
                .to_owned()
        });
        let remarks = settings.router.remark().into_iter().chain(votes);
        remarks.map(|remark| format!("{name}: {remark}")).collect()
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        decide::survivability(service)
    }

    fn endpoints(
        &self,
        name: &Name,
        spec: &ServiceSpec,
        peers: &[Peer],
        children: &BTreeMap<Name, Vec<Peer>>,
        user: Option<&str>,
    ) -> Vec<Endpoint> {
        let settings = Settings::of(spec);
        let Some(user) = user.or_else(|| settings.users.first().map(String::as_str)) else {
            return Vec::new();
        };
        if !settings.users.iter().any(|known| known == user) {
            return Vec::new();
        }
        let owned = settings.databases.iter().find(|database| database.owner == user);
        let Some(database) = owned.or_else(|| settings.databases.first()) else { return Vec::new() };
        let password = format!("${{secret:{}}}", render::secret(name, &format!("user-{user}")));
        // The words of MySQL's own strings: the certificate must be of this CA, and for the address that is dialled.
        let secured = match tls::offered(settings.tls, peers) {
            true => format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={}", tls::CA),
            false => String::new(),
        };
        let url = |servers: &[Peer], port: u16| {
            let servers: Vec<String> = servers
                .iter()
                .map(|peer| format!("{}:{port}", parts::address(peer, &settings.network)))
                .collect();
            format!("mysql://{user}:{password}@{}/{}{secured}", servers.join(","), database.name)
        };
        let endpoint = |role: &str, url: String| Endpoint { role: role.to_owned(), url };
        match children.get(&parts::known_name("proxy")) {
            Some(proxies) => {
                vec![endpoint("write", url(proxies, PORT)), endpoint("read", url(proxies, READ_PORT))]
            }
            None => vec![endpoint("write", url(peers, PORT)), endpoint("read", url(peers, PORT))],
        }
    }

    fn writer(&self, _spec: &ServiceSpec) -> Option<WriterEngine> {
        Some(WriterEngine::Mariadb)
    }
}
