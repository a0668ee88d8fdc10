//! PostgreSQL under Patroni: the trait's answers, each given by a file of its own. Decides nothing itself.

mod apart;
mod decide;
mod metrics;
mod observe;
mod parameters;
mod reclone;
mod release;
mod render;
mod rotate;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::{Guard, Rendered, Task};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::{Map, Value, json};

use self::settings::{Mode, Settings};
use super::describe::describe;
use super::haproxy::front::{Check, Front, Listener, Mode as ProxyMode, Port, Server, Vital};
use super::metrics::{Source, WHAT};
use super::rotate::Rotation;
use super::tls::{self, Tls};
use super::versions::Line;
use super::{
    Child, ChildOrder, Endpoint, Kind, Layout, Observed, Peer, Problem, Procedure, ProcedureStep,
    RenderContext, SecretNeed, ServiceFacts, Survivability, UpdateStep, Wait, WriterEngine, parts,
};
use crate::command::TaskDraft;

/// Clients and replication.
pub const PORT: u16 = 5432;
/// Patroni's REST API.
pub const REST_PORT: u16 = 8008;
/// Port of the proxies that leads to the leader.
const WRITE_PORT: u16 = 5000;
/// Port of the proxies that leads to replicas that stream.
const READ_PORT: u16 = 5001;
const PROXIES: u32 = 2;
/// The data of one major version cannot be read by another one.
const LINE: Line = Line {
    engine: "PostgreSQL",
    fixed: 1,
    back: true,
    instead: "write it as it was, or make a second service of the new version beside it and copy the data",
};

/// The kind `postgres`.
pub struct Postgres;

impl Kind for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 256 * parts::MIB));
        problems.extend(settings::judge_name(name));
        problems
    }

    fn children(&self, _name: &Name, spec: &ServiceSpec) -> Vec<Child> {
        let settings = Settings::of(spec);
        let child = |role: &str, kind: &str, order, own: Value| {
            let mut map = Map::new();
            map.insert("network".to_owned(), json!(settings.network));
            map.extend(own.as_object().cloned().unwrap_or_default());
            let spec = ServiceSpec {
                kind: parts::known_name(kind),
                place: spec.place.clone(),
                survive: None,
                resources: Default::default(),
                update: spec.update.clone(),
                replace_after: None,
                renamed_from: None,
                settings: map,
            };
            Child { role: parts::known_name(role), spec, order }
        };
        // What is lost with its host is replaced on another one, at the same time as its owner's member.
        let replaced = |child: Child| Child {
            spec: ServiceSpec { replace_after: spec.replace_after, ..child.spec },
            ..child
        };
        let locks = if settings.mode == Mode::Single { 1 } else { 3 };
        let etcd = json!({ "members": locks, "image": settings.etcd_image });
        let mut children = vec![replaced(child("etcd", "etcd", ChildOrder::BeforeOwner, etcd))];
        if settings.mode == Mode::Ha {
            let proxy = json!({ "replicas": PROXIES, "image": settings.proxy_image });
            children.push(child("proxy", "haproxy", ChildOrder::AfterOwner, proxy));
        }
        children.extend(metrics::child(spec, &settings));
        children
    }

    fn schema(&self) -> Option<Value> {
        Some(describe(|fields| drop(Settings::from_fields(fields, None))))
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::of(spec);
        Layout {
            slots: settings.members,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![settings.network],
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: true,
            never_with: Vec::new(),
            host_ports: Vec::new(),
            has_data: true,
            // Patroni's lock decides who writes, and a replacement has a name of its own: a lost replica may be
            // replaced while the old one is only silent. A single member is the only copy.
            exclusive: settings.mode == Mode::Single,
        }
    }

    fn scaled(&self, spec: &ServiceSpec, count: u32) -> Result<(&'static str, Value), Wait> {
        match Settings::of(spec).mode {
            Mode::Ha => Ok(("members", json!(count))),
            Mode::Single => Err(Wait(
                "it is `single`: write `mode: ha` in the file and apply it; the data stays".to_owned(),
            )),
        }
    }

    fn may_become(&self, name: &Name, old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Problem> {
        if (Settings::of(old).mode, Settings::of(new).mode) == (Mode::Ha, Mode::Single) {
            let message = format!("service `{name}` cannot become `single`: its etcd is not made smaller");
            return Err(Problem::new("mode", message, "write `mode: ha` and `members: 2` instead"));
        }
        let (old, new) = (Settings::of(old), Settings::of(new));
        super::etcd::LINE.judge("etcd_image", &old.etcd_image, &new.etcd_image)?;
        LINE.judge("image", &old.image, &new.image)
    }

    fn line(&self) -> Option<Line> {
        Some(LINE)
    }

    fn secrets(&self, name: &Name, spec: &ServiceSpec) -> Vec<SecretNeed> {
        let settings = Settings::of(spec);
        let own = ["superuser", "replication", "rewind", "restapi", "probe"];
        let own = own.into_iter().chain(settings.metrics.as_ref().map(|_| WHAT)).map(str::to_owned);
        own.chain(settings.users.iter().map(|user| format!("user-{user}")))
            .map(|what| SecretNeed { name: render::secret(name, &what) })
            .collect()
    }

    fn tls(&self, spec: &ServiceSpec) -> Tls {
        Settings::of(spec).tls
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context)
    }

    fn stop_guard(&self, context: &RenderContext<'_>) -> Option<Guard> {
        release::stop_guard(context, &Settings::of(context.spec))
    }

    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        observe::interpret(status)
    }

    fn may_start(&self, service: &ServiceFacts<'_>, slot: u32) -> Result<(), Wait> {
        decide::may_start(service, slot)
    }

    fn is_formed(&self, service: &ServiceFacts<'_>) -> bool {
        decide::is_formed(service)
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        decide::health(service, &Settings::of(service.spec))
    }

    fn detail(&self, service: &ServiceFacts<'_>) -> Vec<String> {
        decide::detail(service, &Settings::of(service.spec))
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        decide::next_update(service, &Settings::of(service.spec))
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_stop(service, &Settings::of(service.spec), member)
    }

    /// A Patroni that stood still can go on taking writes until its next look at the lock.
    fn may_freeze(&self, _service: &ServiceFacts<'_>) -> Result<(), Wait> {
        Err(Wait("Patroni is never frozen: what wakes up would still believe that it leads".to_owned()))
    }

    fn may_replace(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_replace(service, member)
    }

    fn switchover(&self, service: &ServiceFacts<'_>, to: Option<u32>) -> Result<Task, Wait> {
        let settings = Settings::of(service.spec);
        let from = decide::leader(service).ok_or_else(|| Wait("no leader is known".to_owned()))?;
        if to == Some(from.slot) {
            return Err(Wait(format!("{}/{} leads already", service.name, from.slot)));
        }
        let to = decide::candidate(service, &settings, to)?;
        let pair = |member: &super::MemberFacts| (member.slot, member.member);
        Ok(release::switchover(service.name, &settings, pair(from), pair(to)))
    }

    fn rotation(&self, _spec: &ServiceSpec, what: &str) -> Result<Rotation, Wait> {
        rotate::rotation(what)
    }

    fn enforce(&self, service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
        rotate::enforce(service, secrets)
    }

    fn confirm(&self, service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
        rotate::confirm(service, secrets)
    }

    fn asks_for_restart(&self, service: &ServiceFacts<'_>) -> Vec<u32> {
        decide::asks_for_restart(service)
    }

    fn due(&self, service: &ServiceFacts<'_>) -> Option<Procedure> {
        // What an asynchronous leader had and nobody else has is for an operator to look at.
        let synchronous = Settings::of(service.spec).synchronous;
        reclone::due(service).filter(|_| synchronous).or_else(|| apart::due(service))
    }

    fn proceed(
        &self,
        service: &ServiceFacts<'_>,
        procedure: &Procedure,
        answers: &[(String, TaskOutcome)],
    ) -> ProcedureStep {
        if procedure.name == reclone::RECLONE {
            return reclone::proceed(service, procedure, answers);
        }
        apart::proceed(service, answers)
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
            check_port: Some(REST_PORT),
            options: "",
        };
        let listener = |name, port, note, options, uri| Listener {
            name,
            ports: vec![Port::Plain(port)],
            mode: ProxyMode::Tcp,
            note,
            options,
            check: Check::Http { method: "OPTIONS", uri },
            servers: members.iter().map(server).collect(),
        };
        let (write, read) = (
            "Only the holder of the lock answers 200 here.",
            "Never plain /replica: that is 200 also for a replica that does not stream.",
        );
        Front {
            listeners: vec![
                listener("write", WRITE_PORT, write, Vec::new(), "/primary"),
                listener(
                    "read",
                    READ_PORT,
                    read,
                    vec!["balance leastconn".to_owned()],
                    "/replica?lag=16MB&replication_state=streaming",
                ),
            ],
            vital: Some(Vital { listener: "write", stands: "leader", fails: "no leader" }),
            holds: false,
        }
    }

    fn metrics(&self, name: &Name, spec: &ServiceSpec, member: &Peer) -> Option<Source> {
        Some(metrics::source(name, &Settings::of(spec), member))
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        decide::survivability(service, &Settings::of(service.spec))
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
        let secured = match tls::offered(settings.tls, peers) {
            true => format!("&sslmode=verify-full&sslrootcert={}", tls::CA),
            false => String::new(),
        };
        let url = |servers: &[Peer], port: u16, session: &str| {
            let servers: Vec<String> = servers
                .iter()
                .map(|peer| format!("{}:{port}", parts::address(peer, &settings.network)))
                .collect();
            // A host that is dark must cost seconds, not the system's minutes.
            format!(
                "postgresql://{user}:{password}@{}/{}?target_session_attrs={session}&connect_timeout=3\
                 &tcp_user_timeout=5000&keepalives_idle=5{secured}",
                servers.join(","),
                database.name
            )
        };
        let endpoint = |role: &str, url: String| Endpoint { role: role.to_owned(), url };
        match children.get(&parts::known_name("proxy")) {
            Some(proxies) => vec![
                endpoint("write", url(proxies, WRITE_PORT, "read-write")),
                endpoint("read", url(proxies, READ_PORT, "any")),
            ],
            None => vec![
                endpoint("write", url(peers, PORT, "read-write")),
                endpoint("read", url(peers, PORT, "any")),
            ],
        }
    }

    fn writer(&self, _spec: &ServiceSpec) -> Option<WriterEngine> {
        Some(WriterEngine::Postgres)
    }
}
