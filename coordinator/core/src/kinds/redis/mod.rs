//! Redis and Valkey: the trait's answers, each given by a file of its own. Decides nothing itself.

mod cluster;
mod decide;
mod observe;
mod render;
mod repair;
mod rotate;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::{Rendered, Task};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;

use self::settings::{Mode, Settings};
use super::rotate::Rotation;
use super::{
    Endpoint, Kind, Layout, Observed, Peer, Problem, Procedure, ProcedureStep, RenderContext, SecretNeed,
    ServiceFacts, Survivability, UpdateStep, Wait, WriterEngine, parts,
};
use crate::command::TaskDraft;

/// Clients.
pub const PORT: u16 = 6379;
/// Members among themselves.
const BUS_PORT: u16 = 16_379;

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
        Ok(())
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
            one_per_host: false,
            apart_from: Vec::new(),
            host_ports: Vec::new(),
            has_data: true,
            // The cluster's own votes decide who writes, and a replacement is another node: a lost member may be
            // replaced while the old one is only silent. A single member is the only copy.
            exclusive: !cluster,
        }
    }

    fn secrets(&self, name: &Name, spec: &ServiceSpec) -> Vec<SecretNeed> {
        let users = Settings::of(spec).users;
        let own = ["admin", "replica"].map(str::to_owned);
        own.into_iter()
            .chain(users.iter().map(|user| format!("user-{user}")))
            .map(|what| SecretNeed { name: render::secret(name, &what) })
            .collect()
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
            Mode::Cluster => decide::is_formed(service),
        }
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        decide::health(service, &Settings::of(service.spec))
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        decide::next_update(service, &Settings::of(service.spec))
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

    fn enforce(&self, service: &ServiceFacts<'_>, _secrets: &[String]) -> Vec<(String, TaskDraft)> {
        rotate::enforce(service)
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
        decide::leader(service)
    }

    fn leads(&self, service: &ServiceFacts<'_>, slot: u32) -> bool {
        decide::leads(service, slot)
    }

    fn heir(&self, service: &ServiceFacts<'_>, slot: u32) -> Option<u32> {
        decide::heir(service, slot)
    }

    fn operators_choice(&self, _service: &ServiceFacts<'_>, to: u32) -> Option<(String, String)> {
        Some((cluster::choice_key(cluster::shard_of(to)), to.to_string()))
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        decide::survivability(service, &Settings::of(service.spec))
    }

    fn endpoints(
        &self,
        name: &Name,
        spec: &ServiceSpec,
        peers: &[Peer],
        _children: &BTreeMap<Name, Vec<Peer>>,
        user: Option<&str>,
    ) -> Vec<Endpoint> {
        let settings = Settings::of(spec);
        let user = user.or_else(|| settings.users.first().map(String::as_str));
        let Some(user) = user.filter(|user| settings.users.iter().any(|known| known == user)) else {
            return Vec::new();
        };
        let password = format!("${{secret:{}}}", render::secret(name, &format!("user-{user}")));
        let address = |peer: &Peer| format!("{}:{PORT}", parts::address(peer, &settings.network));
        let servers: Vec<String> = peers.iter().map(address).collect();
        // Any member tells a client that knows clusters about all others.
        let cluster = if settings.mode == Mode::Cluster { "?cluster=true" } else { "" };
        let url = format!("redis://{user}:{password}@{}/0{cluster}", servers.join(","));
        ["write", "read"].map(|role| Endpoint { role: role.to_owned(), url: url.clone() }).to_vec()
    }

    fn writer(&self, _spec: &ServiceSpec) -> Option<WriterEngine> {
        Some(WriterEngine::Redis)
    }
}
