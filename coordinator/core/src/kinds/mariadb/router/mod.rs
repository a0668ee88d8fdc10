//! ProxySQL and MaxScale in front of a `mariadb` service, from an image that the operator brings. Nothing depends on them, and
//! they choose the member that takes writes themselves.

pub mod choice;
mod render;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::MemberStatus;
use muster_model::plan::Rendered;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;

use self::choice::Router;
use crate::kinds::settings::Fields;
use crate::kinds::{
    Kind, Layout, Observed, Problem, RenderContext, SecretNeed, ServiceFacts, Survivability, UpdateStep,
    Wait, parts,
};

/// The kinds `proxysql` and `maxscale`.
pub struct SqlRouter(Router);

/// The kind `proxysql`.
pub static PROXYSQL: SqlRouter = SqlRouter(Router::Proxysql);
/// The kind `maxscale`.
pub static MAXSCALE: SqlRouter = SqlRouter(Router::Maxscale);

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
        let image = parts::image(&mut fields, "image", "registry.example/router:1");
        (Self { replicas, network, image }, fields.finish())
    }
}

/// Secret of the login by which ProxySQL itself is changed, from inside its container only.
fn admin_secret(service: &Name) -> String {
    format!("{service}/admin")
}

impl Kind for SqlRouter {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 64 * parts::MIB));
        let instead = "a service of kind `mariadb` brings it by `router:`";
        problems.extend(parts::refuse_alone(name, platform, self.0.name(), instead));
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

    fn secrets(&self, name: &Name, _spec: &ServiceSpec) -> Vec<SecretNeed> {
        match self.0 {
            Router::Proxysql => vec![SecretNeed { name: admin_secret(name) }],
            Router::Maxscale | Router::Haproxy => Vec::new(),
        }
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context, self.0, &Settings::read(context.spec, None).0)
    }

    /// Ready = it takes connections; whether anybody serves behind it, it does not say.
    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        seen.ready = seen.running && parts::answer(status, "alive").is_some_and(|answer| answer.ok);
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
