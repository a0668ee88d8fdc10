//! HAProxy in front of another service: stable addresses that find the members that serve. What they are is the owner's.

pub mod front;
mod render;
#[cfg(test)]
mod tests;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::MemberStatus;
use muster_model::plan::Rendered;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;

use super::settings::Fields;
use super::{
    Kind, Layout, Observed, Problem, RenderContext, ServiceFacts, Survivability, UpdateStep, Wait, parts,
};

/// The image if the spec names none.
pub const IMAGE: &str = "muster/haproxy:2.6";

/// Longest of its own words about its write path that are shown.
const DETAIL_MAX: usize = 40;

/// The kind `haproxy`.
pub struct Haproxy;

/// Its settings.
struct Settings {
    replicas: u32,
    network: Name,
    image: String,
}

impl Settings {
    fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let replicas = fields.number("replicas", 1, 9).unwrap_or(2) as u32;
        let network = parts::network(&mut fields, "dbnet", platform);
        let image = parts::image(&mut fields, "image", IMAGE);
        (Self { replicas, network, image }, fields.finish())
    }
}

impl Kind for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 32 * parts::MIB));
        problems.extend(parts::refuse_alone(
            name,
            platform,
            "haproxy",
            "a service that needs one brings its own",
        ));
        problems
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::read(spec, None).0;
        Layout {
            slots: settings.replicas,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![settings.network],
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: true,
            never_with: Vec::new(),
            host_ports: Vec::new(),
            has_data: false,
            exclusive: false,
        }
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context, &Settings::read(context.spec, None).0)
    }

    /// Ready = it works; whether anybody serves behind it is its owner's health, and holds up no update of it.
    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        if !seen.running {
            return seen;
        }
        let ok = |probe| parts::answer(status, probe).map(|answer| answer.ok);
        seen.ready = ok("alive") == Some(true);
        seen.caught_up = seen.ready;
        seen.writes = ok("write");
        if let Some(answer) = parts::answer(status, "write").filter(|answer| seen.ready && !answer.ok) {
            let words: String =
                answer.body.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
            seen.detail = format!("sees {}", words.get(..DETAIL_MAX).unwrap_or(&words));
        }
        seen
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        parts::stateless_health(service)
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        parts::one_at_a_time(service, |member| self.may_stop(service, member))
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        parts::others_ready(service, member)
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        parts::stateless_survivability(service)
    }
}
