//! One program beside each member of another service that serves that member's metrics to Prometheus. How it asks is the
//! owner's kind. Nothing waits for it, and nothing is stopped or moved because of it.

mod render;
#[cfg(test)]
mod tests;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::MemberStatus;
use muster_model::plan::Rendered;
use muster_model::spec::{FailureDomain, PlaceSpec, PlatformSpec, ServiceSpec};
use muster_model::view::{Health, HealthWord};
use serde_json::json;
use std::collections::BTreeMap;

use super::metrics::{self, Metrics};
use super::settings::Fields;
use super::{
    Child, ChildOrder, Endpoint, Kind, Layout, Observed, Peer, Problem, RenderContext, ServiceFacts,
    Survivability, UpdateStep, Wait, parts,
};

pub use render::AGAIN;

/// Most members that a service has.
const SLOTS_MAX: usize = 1_000;

/// The kind `exporter`.
pub struct Exporter;

/// Its settings, written by its owner's kind.
struct Settings {
    /// Where the members are that are asked.
    network: Name,
    /// Where the answers are served.
    readers: Name,
    image: String,
    port: u16,
    slots: Vec<u32>,
}

impl Settings {
    fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let network = parts::network(&mut fields, "dbnet", platform);
        let readers = fields.get("readers", "write the name of a network, for example monnet");
        let readers = readers.unwrap_or_else(|| parts::known_name("monnet"));
        let image = parts::image(&mut fields, "image", metrics::IMAGE);
        let port = fields.number("port", 1, u64::from(u16::MAX)).unwrap_or(9187) as u16;
        let slots: Vec<u32> = fields.get("slots", "write the slots of the owner").unwrap_or_default();
        if slots.len() > SLOTS_MAX {
            fields.problem("slots", "more slots than a service has", "write the slots of the owner");
        }
        (Self { network, readers, image, port, slots }, fields.finish())
    }

    /// The readers' network first: there its probe asks, too.
    fn networks(&self) -> Vec<Name> {
        let mut networks = vec![self.readers.clone()];
        networks.extend((self.network != self.readers).then(|| self.network.clone()));
        networks
    }
}

/// The child of a service with these slots, whose programs serve at `port`.
pub fn child(owner: &ServiceSpec, metrics: &Metrics, network: &Name, slots: Vec<u32>, port: u16) -> Child {
    let own = json!({
        "network": network,
        "readers": metrics.network,
        "image": metrics.image,
        "port": port,
        "slots": slots,
    });
    let spec = ServiceSpec {
        kind: parts::known_name("exporter"),
        // Where a member is, its program may be too, whatever zones the others are in.
        place: PlaceSpec { spread: FailureDomain::default(), ..owner.place.clone() },
        survive: None,
        resources: Default::default(),
        update: owner.update.clone(),
        replace_after: None,
        renamed_from: None,
        settings: own.as_object().cloned().unwrap_or_default(),
    };
    Child { role: parts::known_name(metrics::WHAT), spec, order: ChildOrder::AfterOwner }
}

impl Kind for Exporter {
    fn name(&self) -> &'static str {
        "exporter"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 16 * parts::MIB));
        problems.extend(parts::refuse_alone(
            name,
            platform,
            "exporter",
            "write `metrics: true` in the service that is to be looked at",
        ));
        problems
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::read(spec, None).0;
        Layout {
            slots: settings.slots.len() as u32,
            networks: settings.networks(),
            numbers: settings.slots,
            apart: Vec::new(),
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: false,
            never_with: Vec::new(),
            host_ports: Vec::new(),
            has_data: false,
            exclusive: false,
        }
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context, &Settings::read(context.spec, None).0)
    }

    /// Ready = it answers; whether it reaches its member is for whoever reads its answer, which says so.
    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        seen.ready = seen.running && parts::answer(status, "alive").is_some_and(|answer| answer.ok);
        seen.caught_up = seen.ready;
        seen
    }

    /// Never worse than degraded: what it looks at serves all the same.
    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        let health = parts::stateless_health(service);
        let word = match health.word {
            HealthWord::Critical | HealthWord::Down => HealthWord::Degraded,
            other => other,
        };
        parts::health(word, health.reasons)
    }

    fn beside_owner(&self) -> bool {
        true
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        parts::one_at_a_time(service, |member| self.may_stop(service, member))
    }

    fn may_stop(&self, _service: &ServiceFacts<'_>, _member: MemberId) -> Result<(), Wait> {
        Ok(())
    }

    fn survivability(&self, _service: &ServiceFacts<'_>) -> Survivability {
        Survivability::default()
    }

    /// What Prometheus reads.
    fn endpoints(
        &self,
        _name: &Name,
        spec: &ServiceSpec,
        peers: &[Peer],
        _children: &BTreeMap<Name, Vec<Peer>>,
        _user: Option<&str>,
    ) -> Vec<Endpoint> {
        let settings = Settings::read(spec, None).0;
        let url = |peer: &Peer| {
            format!("http://{}:{}/metrics", parts::address(peer, &settings.readers), settings.port)
        };
        peers.iter().map(|peer| Endpoint { role: metrics::WHAT.to_owned(), url: url(peer) }).collect()
    }
}
