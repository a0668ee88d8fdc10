//! A stateless (or simple) program in containers: what its settings say, kept running. Knows nothing about the program.

mod render;
mod settings;
#[cfg(test)]
mod tests;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::MemberStatus;
use muster_model::plan::Rendered;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;

use self::settings::Settings;
use serde_json::Value;

use super::describe::describe;
use super::{
    HostPort, Kind, Layout, Observed, Problem, RenderContext, ServiceFacts, Survivability, UpdateStep, Wait,
    parts,
};

/// The kind `app`.
pub struct App;

impl Kind for App {
    fn name(&self) -> &'static str {
        "app"
    }

    fn validate(&self, _name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 0));
        problems
    }

    fn schema(&self) -> Option<Value> {
        Some(describe(|fields| drop(Settings::from_fields(fields, None))))
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::of(spec);
        let published = settings.ports.iter().filter_map(|port| {
            port.publish.map(|address| HostPort { port: address.port(), protocol: port.protocol })
        });
        let host_ports: Vec<HostPort> = published.collect();
        let has_data = !settings.volumes.is_empty();
        Layout {
            slots: settings.replicas,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: settings.networks,
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: !host_ports.is_empty(),
            never_with: Vec::new(),
            host_ports,
            has_data,
            exclusive: has_data,
        }
    }

    fn uses(&self, spec: &ServiceSpec) -> Vec<Name> {
        Settings::of(spec).uses.into_iter().map(|used| used.service).collect()
    }

    fn scaled(&self, _spec: &ServiceSpec, count: u32) -> Result<(&'static str, Value), Wait> {
        Ok(("replicas", Value::from(count)))
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context)
    }

    /// Ready = its probe succeeds, or, without one, it runs.
    fn interpret(&self, spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        if !seen.running {
            return seen;
        }
        let answer = parts::answer(status, "ready").map(|answer| answer.ok);
        seen.ready = match Settings::of(spec).probe {
            Some(_) => answer == Some(true),
            None => true,
        };
        if !seen.ready {
            seen.detail =
                if answer.is_some() { "probe fails" } else { "probe did not answer yet" }.to_owned();
        }
        seen.caught_up = seen.ready;
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
