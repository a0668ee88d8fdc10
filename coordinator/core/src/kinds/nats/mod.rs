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
use muster_model::view::{Health, HealthWord};

use self::settings::Settings;
use super::{
    Endpoint, Kind, Layout, Observed, Peer, Problem, RenderContext, SecretNeed, ServiceFacts, Survivability,
    UpdateStep, Wait, parts,
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

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::of(spec);
        Layout {
            slots: settings.members,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![settings.network],
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: true,
            apart_from: Vec::new(),
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
        let me = render::member_name(&status.slot.service, status.slot.index, status.member);
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
        let placed = service.members.len();
        if service.formed || placed >= service.slots as usize {
            return Ok(());
        }
        Err(Wait(format!("{placed} of {} members of {} are placed", service.slots, service.name)))
    }

    fn is_formed(&self, service: &ServiceFacts<'_>) -> bool {
        ready(service) >= parts::majority(service.slots as usize)
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        let slots = service.slots as usize;
        let need = parts::majority(slots);
        let waiting = service.members.iter().filter(|m| !parts::is_ready(m));
        let mut reasons: Vec<String> = waiting.map(|m| parts::why_not_ready(service, m)).collect();
        if service.members.len() < slots {
            reasons.push(format!("{} of {slots} members are placed", service.members.len()));
        }
        let word = match ready(service) {
            ready if ready >= slots => HealthWord::Healthy,
            _ if service.members.iter().filter(|m| m.seen.is_some()).count() < need => HealthWord::Unknown,
            ready if ready < need => HealthWord::Down,
            ready if ready == need => HealthWord::Critical,
            _ => HealthWord::Degraded,
        };
        parts::health(word, reasons)
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        parts::one_at_a_time(service, |member| self.may_stop(service, member))
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        parts::others_ready(service, member)
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        let need = parts::majority(service.slots as usize);
        let mut result = Survivability {
            may_lose:
                "messages outside of streams, and streams with one replica when their server's disk is lost"
                    .to_owned(),
            ..Survivability::default()
        };
        for (host, left) in
            parts::left_without_host(service.members.iter()).into_iter().filter(|(_, l)| *l < need)
        {
            let why = format!("{left} of {} members of {} are left", service.slots, service.name);
            result.stops_writes.insert(host.clone(), why.clone());
            if left == 0 {
                result.stops_reads.insert(host, why);
            }
        }
        result
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

fn ready(service: &ServiceFacts<'_>) -> usize {
    service.members.iter().filter(|member| parts::is_ready(member)).count()
}
