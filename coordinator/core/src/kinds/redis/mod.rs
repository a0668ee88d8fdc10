//! Redis and Valkey: the trait's answers, each given by a file of its own. Decides nothing itself.

mod cluster;
mod decide;
mod front;
mod master;
mod metrics;
mod need;
mod observe;
mod render;
mod repair;
mod replicated;
#[cfg(test)]
mod replicated_tests;
mod rotate;
mod settings;
mod succession;
mod takeover;
mod term;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::{Rendered, Task};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::{Value, json};

use self::settings::{Mode, Settings};
use super::describe::describe;
use super::haproxy::front::Front;
use super::metrics::{Source, WHAT};
use super::rotate::Rotation;
use super::tls::{self, Tls};
use super::versions::Line;
use super::{
    Child, Endpoint, Kind, Layout, Observed, Peer, Problem, Procedure, ProcedureStep, RenderContext,
    SecretNeed, ServiceFacts, Survivability, UpdateStep, Wait, WriterEngine, parts,
};
use crate::command::TaskDraft;

/// Clients.
pub const PORT: u16 = 6379;
/// Clients over TLS.
pub const TLS_PORT: u16 = 6381;
/// Members among themselves.
const BUS_PORT: u16 = 16_379;
/// A replica may be newer than its master, never older: it could not read what it is sent.
const LINE: Line = Line {
    engine: "the server",
    fixed: 1,
    back: false,
    instead: "write it as it was, or make another service beside it and copy the keys",
};

/// The kind `redis`.
pub struct Redis;

impl Kind for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn validate(&self, _name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let (settings, mut problems) = Settings::read(spec, Some(platform));
        problems.extend(parts::judge_resources(spec, 64 * parts::MIB));
        let limit = parts::limits(spec, &render::LIMITS).memory_bytes;
        if problems.is_empty() && render::memory(spec, &settings) > limit / 10 * 9 {
            problems.push(Problem {
                path: "maxmemory".to_owned(),
                message: "leaves no room for the server itself".to_owned(),
                help: "raise `resources.memory`, or write at most 9/10 of it".to_owned(),
            });
        }
        problems
    }

    fn may_become(&self, name: &Name, present: &ServiceSpec, written: &ServiceSpec) -> Result<(), Problem> {
        let (present, written) = (Settings::of(present), Settings::of(written));
        let help = "write it as it was, or make another service beside it and copy the keys";
        if present.mode != written.mode {
            return Err(Problem::new("mode", format!("the mode of `{name}` cannot be changed"), help));
        }
        if present.flavour != written.flavour {
            let message = format!(
                "the flavour of `{name}` cannot be changed: the files of one may be unreadable for the other"
            );
            return Err(Problem::new("flavour", message, help));
        }
        LINE.judge("image", &present.image, &written.image)
    }

    fn line(&self) -> Option<Line> {
        Some(LINE)
    }

    fn children(&self, _name: &Name, spec: &ServiceSpec) -> Vec<Child> {
        let settings = Settings::of(spec);
        front::child(spec, &settings).into_iter().chain(metrics::child(spec, &settings)).collect()
    }

    fn scaled(&self, spec: &ServiceSpec, count: u32) -> Result<(&'static str, Value), Wait> {
        match Settings::of(spec).mode {
            Mode::Replicated if count >= 2 => Ok(("replicas", json!(count - 1))),
            Mode::Replicated => Err(Wait("a master needs a replica: at least two members".to_owned())),
            _ => {
                Err(Wait("say `shards` or `replicas` in the file instead of a number of members".to_owned()))
            }
        }
    }

    fn schema(&self) -> Option<Value> {
        Some(describe(|fields| drop(Settings::from_fields(fields, None))))
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::of(spec);
        let cluster = settings.mode == Mode::Cluster;
        Layout {
            slots: settings.members(),
            numbers: if cluster { cluster::numbers(&settings) } else { Vec::new() },
            apart: if cluster { cluster::apart(&settings) } else { Vec::new() },
            networks: vec![settings.network],
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: settings.mode == Mode::Replicated,
            never_with: Vec::new(),
            host_ports: Vec::new(),
            has_data: true,
            // The cluster's own votes decide who writes, or the recorded term, and a replacement is another node: a lost
            // member may be replaced while the old one is only silent. A single member is the only copy.
            exclusive: settings.mode == Mode::Single,
        }
    }

    fn secrets(&self, name: &Name, spec: &ServiceSpec) -> Vec<SecretNeed> {
        let settings = Settings::of(spec);
        let own = ["admin", "replica"].into_iter().chain(settings.metrics.as_ref().map(|_| WHAT));
        own.map(str::to_owned)
            .chain(settings.users.iter().map(|user| format!("user-{user}")))
            .map(|what| SecretNeed { name: render::secret(name, &what) })
            .collect()
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
        observe::interpret(&Settings::of(spec), status)
    }

    fn is_formed(&self, service: &ServiceFacts<'_>) -> bool {
        match Settings::of(service.spec).mode {
            Mode::Single => service.members.iter().any(parts::is_ready),
            Mode::Replicated => replicated::is_formed(service),
            Mode::Cluster => decide::is_formed(service, &Settings::of(service.spec)),
        }
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        decide::health(service, &Settings::of(service.spec))
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        decide::next_update(service, &Settings::of(service.spec))
    }

    fn settled(&self, service: &ServiceFacts<'_>, member: MemberId) -> bool {
        decide::settled(service, &Settings::of(service.spec), member)
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_stop(service, &Settings::of(service.spec), member)
    }

    fn may_retire(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_retire(service, &Settings::of(service.spec), member)
    }

    fn may_replace(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_replace(service, &Settings::of(service.spec), member)
    }

    fn rotation(&self, _spec: &ServiceSpec, what: &str) -> Result<Rotation, Wait> {
        rotate::rotation(what)
    }

    fn introduce(&self, service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
        rotate::introduce(service, secrets)
    }

    fn enforce(&self, service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
        rotate::enforce(service, secrets)
    }

    fn confirm(&self, service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
        rotate::confirm(service, secrets)
    }

    fn due(&self, service: &ServiceFacts<'_>) -> Option<Procedure> {
        repair::due(service, &Settings::of(service.spec))
    }

    fn proceed(
        &self,
        service: &ServiceFacts<'_>,
        _procedure: &Procedure,
        answers: &[(String, TaskOutcome)],
    ) -> ProcedureStep {
        repair::proceed(service, &Settings::of(service.spec), answers)
    }

    fn switchover(&self, service: &ServiceFacts<'_>, to: Option<u32>) -> Result<Task, Wait> {
        decide::switchover(service, &Settings::of(service.spec), to)
    }

    fn leader(&self, service: &ServiceFacts<'_>) -> Option<u32> {
        decide::leader(service, &Settings::of(service.spec))
    }

    fn leads(&self, service: &ServiceFacts<'_>, slot: u32) -> bool {
        decide::leads(service, &Settings::of(service.spec), slot)
    }

    fn heir(&self, service: &ServiceFacts<'_>, slot: u32) -> Option<u32> {
        decide::heir(service, &Settings::of(service.spec), slot)
    }

    fn operators_choice(&self, service: &ServiceFacts<'_>, to: u32) -> Option<(String, String)> {
        let cluster = Settings::of(service.spec).mode == Mode::Cluster;
        cluster.then(|| (cluster::choice_key(cluster::shard_of(to)), to.to_string()))
    }

    fn goes_on_by_itself(&self, service: &ServiceFacts<'_>) -> bool {
        Settings::of(service.spec).mode != Mode::Single
    }

    fn front(&self, name: &Name, spec: &ServiceSpec, members: &[Peer]) -> Front {
        front::front(name, &Settings::of(spec), members)
    }

    fn remarks(&self, name: &Name, spec: &ServiceSpec) -> Vec<String> {
        let settings = Settings::of(spec);
        let said = format!(
            "{name}: one master, {} replicas; another master leads once the old one's agent confirms its stop, or an operator \
             says that it is off: a host that does not answer proves nothing",
            settings.replicas
        );
        (settings.mode == Mode::Replicated).then_some(said).into_iter().collect()
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
        let user = user.or_else(|| settings.users.first().map(String::as_str));
        let Some(user) = user.filter(|user| settings.users.iter().any(|known| known == user)) else {
            return Vec::new();
        };
        let password = format!("${{secret:{}}}", render::secret(name, &format!("user-{user}")));
        let secured = tls::offered(settings.tls, peers);
        let scheme = if secured { "rediss" } else { "redis" };
        // Any member tells a client that knows clusters about all others.
        let cluster = (settings.mode == Mode::Cluster).then(|| "cluster=true".to_owned());
        let options: Vec<String> =
            cluster.into_iter().chain(secured.then(|| format!("ssl_ca_certs={}", tls::CA))).collect();
        let options = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
        let url = |servers: &[Peer], port: u16| {
            let address = |peer: &Peer| format!("{}:{port}", parts::address(peer, &settings.network));
            let servers: Vec<String> = servers.iter().map(address).collect();
            format!("{scheme}://{user}:{password}@{}/0{options}", servers.join(","))
        };
        let (servers, write_port, read_port) = match (children.get(&parts::known_name("proxy")), secured) {
            (Some(proxies), false) => (proxies.as_slice(), PORT, front::READ_PORT),
            (Some(proxies), true) => (proxies.as_slice(), TLS_PORT, front::READ_TLS_PORT),
            (None, false) => (peers, PORT, PORT),
            (None, true) => (peers, TLS_PORT, TLS_PORT),
        };
        [("write", write_port), ("read", read_port)]
            .map(|(role, port)| Endpoint { role: role.to_owned(), url: url(servers, port) })
            .to_vec()
    }

    fn writer(&self, _spec: &ServiceSpec) -> Option<WriterEngine> {
        Some(WriterEngine::Redis)
    }
}
