//! NATS with JetStream: servers that replicate streams among themselves by votes; one is touched at a time.

mod render;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::MemberStatus;
use muster_model::plan::Rendered;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::Value;

use self::settings::Settings;
use super::describe::describe;
use super::{
    Endpoint, Kind, Layout, Observed, Peer, Problem, RenderContext, SecretNeed, ServiceFacts, Survivability,
    UpdateStep, Wait, parts, votes,
};

/// The kind `nats`.
pub struct Nats;

impl Kind for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn validate(&self, _name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 64 * parts::MIB));
        problems
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
            // A server is one vote of every stream that it holds; the others count it until it is taken off by hand.
            exclusive: true,
        }
    }

    fn secrets(&self, name: &Name, spec: &ServiceSpec) -> Vec<SecretNeed> {
        let users = Settings::of(spec).users;
        let own = ["route", "system"].map(str::to_owned);
        own.into_iter()
            .chain(users.iter().map(|user| format!("user-{user}")))
            .map(|what| SecretNeed { name: render::secret(name, &what) })
            .collect()
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context)
    }

    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        if !seen.running {
            return seen;
        }
        let streams = parts::answer_json(status, "streams").unwrap_or_default();
        let me = parts::member_name(&status.slot.service, status.slot.index, status.member);
        let leader = streams.pointer("/meta_cluster/leader").and_then(|leader| leader.as_str());
        seen.role = leader.map(|leader| if leader == me { "leader" } else { "follower" }.to_owned());
        let health = parts::answer(status, "health");
        seen.ready = health.is_some_and(|answer| answer.ok);
        seen.caught_up = seen.ready;
        seen.detail = match health {
            Some(answer) if answer.ok => String::new(),
            Some(_) => "its streams are not whole yet".to_owned(),
            None => "does not answer".to_owned(),
        };
        seen
    }

    /// All at once, when every address is known.
    fn may_start(&self, service: &ServiceFacts<'_>, _slot: u32) -> Result<(), Wait> {
        votes::all_placed(service)
    }

    fn is_formed(&self, service: &ServiceFacts<'_>) -> bool {
        votes::has_majority(service)
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        votes::health(service)
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        parts::one_at_a_time(service, |member| self.may_stop(service, member))
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        parts::others_ready(service, member)
    }

    fn elects_by_itself(&self) -> bool {
        true
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        let may_lose =
            "messages outside of streams, and streams with one replica when their server's disk is lost";
        Survivability { may_lose: may_lose.to_owned(), ..votes::survivability(service) }
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
        let known = |user: &&str| settings.users.iter().any(|known| known == user);
        let Some(user) = user.or_else(|| settings.users.first().map(String::as_str)).filter(known) else {
            return Vec::new();
        };
        let password = format!("${{secret:{}}}", render::secret(name, &format!("user-{user}")));
        let server = |peer: &Peer| {
            let address = parts::address(peer, &settings.network);
            format!("nats://{user}:{password}@{address}:{}", render::CLIENT_PORT)
        };
        let servers: Vec<String> = peers.iter().map(server).collect();
        vec![Endpoint { role: "write".to_owned(), url: servers.join(",") }]
    }
}
