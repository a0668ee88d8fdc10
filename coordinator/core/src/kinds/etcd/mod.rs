//! etcd as the lock keeper of another service: all members start together, one at a time is touched afterwards.

mod join;
mod render;
#[cfg(test)]
mod tests;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::Rendered;
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;

use super::settings::Fields;
use super::versions::Line;
use super::{
    Kind, Layout, Observed, Problem, Procedure, ProcedureStep, RenderContext, ServiceFacts, Survivability,
    UpdateStep, Wait, parts, votes,
};

/// The image if the spec names none.
pub const IMAGE: &str = "muster/etcd:3.6.16";
/// Its members change their common version only together, and never back.
pub const LINE: Line = Line { engine: "etcd", fixed: 1, back: false, instead: "write it as it was" };
/// Clients, and the gateway that speaks JSON.
pub const CLIENT_PORT: u16 = 2379;

/// Follows without a vote until it has everything.
const LEARNER: &str = "learner";
/// The role of the member that leads.
pub const LEADER: &str = "leader";

/// The kind `etcd`.
pub struct Etcd;

/// Its settings.
struct Settings {
    members: u32,
    network: Name,
    image: String,
}

impl Settings {
    fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let members = fields.number("members", 1, 7).unwrap_or(3) as u32;
        if members.is_multiple_of(2) {
            fields.problem("members", "an even number of members", "write 1, 3, 5 or 7");
        }
        let network = parts::network(&mut fields, "dbnet", platform);
        let image = parts::image(&mut fields, "image", IMAGE);
        (Self { members, network, image }, fields.finish())
    }
}

impl Kind for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 64 * parts::MIB));
        // Its client port knows no passwords, so it must never be what an application connects to.
        problems.extend(parts::refuse_alone(name, platform, "etcd", "a `postgres` service brings its own"));
        problems
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::read(spec, None).0;
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
            // A lost one is taken off the cluster's list before another one is put on it: it may still run, alone.
            exclusive: false,
        }
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context, &Settings::read(context.spec, None).0)
    }

    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        let mut seen = parts::observed(status);
        if !seen.running {
            return seen;
        }
        let healthy = parts::answer_json(status, "health").is_some_and(|body| body["health"] == "true");
        let body = parts::answer_json(status, "status").unwrap_or_default();
        let me = &body["header"]["member_id"];
        seen.system_id = me.as_str().map(str::to_owned);
        // Absent or "0" while there is no leader; the gateway leaves zeroes out.
        let learner = body["isLearner"] == true;
        let leader = Some(&body["leader"]).filter(|id| id.as_str().is_some_and(|id| id != "0"));
        let role = |id| match (id == me, learner) {
            (true, _) => LEADER,
            (false, true) => LEARNER,
            (false, false) => "follower",
        };
        seen.role = leader.map(|id| role(id).to_owned());
        let alarm = parts::answer_json(status, "alarm")
            .and_then(|body| Some(body["alarms"].as_array()?.first()?["alarm"].as_str()?.to_owned()));
        seen.ready = healthy && leader.is_some() && alarm.is_none() && !learner;
        seen.caught_up = seen.ready;
        seen.writes = Some(seen.ready);
        seen.detail = match (alarm, leader) {
            (Some(alarm), _) => format!("alarm {alarm}"),
            (None, None) => "no leader".to_owned(),
            (None, Some(_)) if learner => "has no vote yet".to_owned(),
            (None, Some(_)) if !healthy => "not healthy".to_owned(),
            _ => String::new(),
        };
        seen
    }

    fn may_place(&self, service: &ServiceFacts<'_>) -> Result<(), Wait> {
        join::may_place(service)
    }

    /// All at once, but only when every address is known: the first start writes the member list for good. One that
    /// comes later only when the others know it.
    fn may_start(&self, service: &ServiceFacts<'_>, slot: u32) -> Result<(), Wait> {
        let stranger = |m: &&super::MemberFacts| m.slot == slot && join::is_stranger(service, m);
        if service.formed && service.members.iter().any(|m| stranger(&m)) {
            return Err(Wait(format!("the other members of {} do not know it yet", service.name)));
        }
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

    fn due(&self, service: &ServiceFacts<'_>) -> Option<Procedure> {
        join::due(service)
    }

    fn proceed(
        &self,
        service: &ServiceFacts<'_>,
        procedure: &Procedure,
        answers: &[(String, TaskOutcome)],
    ) -> ProcedureStep {
        join::proceed(service, procedure, answers)
    }

    /// Only with a majority that can agree on the change, and one change at a time.
    fn may_replace(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        let others = || service.members.iter().filter(|m| m.member != member);
        if let Some(other) = others().find(|m| m.host_up && !parts::is_ready(m)) {
            return Err(Wait(parts::why_not_ready(service, other)));
        }
        let (ready, need) =
            (others().filter(|m| parts::is_ready(m)).count(), parts::majority(service.slots as usize));
        if ready < need {
            return Err(Wait(format!(
                "{ready} other members of {} are healthy, {need} must agree",
                service.name
            )));
        }
        Ok(())
    }

    /// A member that is only stopped would still be counted in every majority.
    fn may_retire(&self, service: &ServiceFacts<'_>, _member: MemberId) -> Result<(), Wait> {
        Err(Wait(format!("{} is not made smaller", service.name)))
    }

    fn elects_by_itself(&self) -> bool {
        true
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        votes::survivability(service)
    }
}
