//! A drill: what its file says, and how far a running one is. How it proceeds is `reconcile::drill`'s work.

use muster_model::ids::{HostId, MemberId, Name};
use muster_model::spec::Span;
use muster_model::time::{Millis, Timestamp};
use muster_model::view::HealthWord;
use serde::{Deserialize, Serialize};

use crate::facts::{kind_of, service_facts};
use crate::kinds::{Kind, MemberFacts, ServiceFacts, Wait};
use crate::state::{OperationKind, State};

/// The format of drill file that this version reads.
pub const DRILL_FORMAT: u32 = 1;
/// Most writes per second that a drill may ask for.
const WRITES_PER_SECOND_MAX: u32 = 1_000;
/// How long a fault may last that ends by itself.
const HOLD_LEAST: Millis = Millis::seconds(1);
const HOLD_MAX: Millis = Millis::seconds(600);
/// Longest time that a drill may take for any of its spans.
const SPAN_MAX: Millis = Millis::seconds(3_600);

/// A drill file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillSpec {
    /// Format of the file, see [`DRILL_FORMAT`].
    pub drill: u32,
    /// Its name.
    pub name: Name,
    /// The service that it is done to.
    pub service: Name,
    /// The member that it is done to, by role.
    #[serde(default)]
    pub target: Target,
    /// What is done.
    pub fault: Fault,
    /// Who does it.
    #[serde(default, skip_serializing_if = "Hand::is_agent")]
    pub by: Hand,
    /// How long it lasts: what was killed is not started again, what was frozen stands still. `0s` = the agent's usual
    /// rules, for what is killed.
    #[serde(default = "no_time")]
    pub hold: Span,
    /// Writes per second of the drill's writer.
    #[serde(default = "default_writes")]
    pub writes_per_second: u32,
    /// Steady writing before the fault.
    #[serde(default = "default_warmup")]
    pub warmup: Span,
    /// Longest time from the fault until the service must be healthy again.
    #[serde(default = "default_observe")]
    pub observe: Span,
    /// What counts as passed.
    #[serde(default)]
    pub thresholds: Thresholds,
}

const fn no_time() -> Span {
    Span(Millis(0))
}
const fn default_writes() -> u32 {
    50
}
const fn default_warmup() -> Span {
    Span(Millis::seconds(5))
}
const fn default_observe() -> Span {
    Span(Millis::seconds(90))
}

/// The member that a drill is done to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The one that takes writes.
    #[default]
    Leader,
    /// One that does not.
    Replica,
    /// The one that acknowledges before the client is answered.
    SyncStandby,
}

/// What a drill does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The target's container is killed by its agent.
    KillContainer,
    /// The containers of all members of the service are killed at once, each by its agent.
    FullOutage,
    /// The target's container stands still.
    Freeze,
    /// The target's whole host is lost.
    KillHost,
}

/// Who does a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    /// The agent of the target's host, which also undoes it.
    #[default]
    Agent,
    /// Somebody outside, who then says `fault-done`: only for a host's power.
    Outside,
}

impl Hand {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_agent(&self) -> bool {
        *self == Self::Agent
    }
}

/// What counts as passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Longest time without an acknowledged write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto: Option<Span>,
    /// Most acknowledged writes that may be missing afterwards.
    pub lost: u64,
}

impl DrillSpec {
    /// An agent kills everything on a host with it, of other services too.
    #[must_use]
    pub fn takes_a_host(&self) -> bool {
        self.fault == Fault::KillHost && self.by == Hand::Agent
    }

    /// What is wrong with it; absent = nothing.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.drill != DRILL_FORMAT {
            return Some(format!("`drill: {}`: this version reads format {DRILL_FORMAT}", self.drill));
        }
        if !(20..=WRITES_PER_SECOND_MAX).contains(&self.writes_per_second) {
            return Some(format!("`writes_per_second` must be 20 to {WRITES_PER_SECOND_MAX}"));
        }
        if self.by == Hand::Outside && self.fault != Fault::KillHost {
            return Some("`by: outside` is for `fault: kill-host` only".to_owned());
        }
        let lasts = match self.fault {
            Fault::Freeze => true,
            Fault::KillHost => self.takes_a_host(),
            Fault::KillContainer | Fault::FullOutage => false,
        };
        if lasts && !(HOLD_LEAST..=HOLD_MAX).contains(&self.hold.0) {
            return Some(format!("`hold` must be {} to {} for this fault", Span(HOLD_LEAST), Span(HOLD_MAX)));
        }
        let spans = [("hold", self.hold), ("warmup", self.warmup), ("observe", self.observe)];
        let long = spans.into_iter().find(|(_, span)| span.0 > SPAN_MAX);
        long.map(|(name, _)| format!("`{name}` may be at most {}", Span(SPAN_MAX)))
    }
}

/// Where a running drill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillStep {
    /// The writer is placed and must write steadily.
    Writer,
    /// It writes steadily; the fault comes when the warm-up is over.
    WarmUp,
    /// The agent was told to do the fault.
    Fault,
    /// Somebody outside must do the fault and say `fault-done`.
    AwaitFault,
    /// The fault is done; waits until the service is healthy, or the time is over.
    Observe,
    /// The writer is asked what became of its writes.
    Verify,
    /// The writer is removed; then the drill ends.
    CleanUp,
}

/// What a running drill knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DrillProgress {
    /// The internal service that is its writer.
    pub writer: Option<Name>,
    /// The member that it is done to.
    pub target: Option<MemberId>,
    /// That member's host.
    pub target_host: Option<HostId>,
    /// How often its agent had released it before the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<u32>,
    /// When the fault was done.
    pub fault_at: Option<Timestamp>,
    /// When the service was healthy again.
    pub healthy_at: Option<Timestamp>,
    /// What the writer found.
    pub summary: Option<serde_json::Value>,
    /// Why it failed.
    pub failure: Option<String>,
    /// `fault-done` was said.
    pub fault_said: Option<Timestamp>,
}

/// Why a drill would be unsafe now, or cannot be done; absent = it may begin. Asked before it is started, when it
/// begins, and again immediately before the fault.
#[must_use]
pub fn refusal(state: &State, spec: &DrillSpec, now: Timestamp) -> Option<String> {
    if let Some(problem) = spec.problem() {
        return Some(problem);
    }
    if let Some((_, host)) = state.hosts.iter().find(|(_, host)| !host.is_up()) {
        return Some(format!("host {} is down", host.name));
    }
    if let Some((_, host)) = state.hosts.iter().find(|(_, host)| !host.engine.0) {
        return Some(format!("the Docker Engine of host {} does not answer", host.name));
    }
    if let Some((id, operation)) = state.holder(&spec.service) {
        let own = matches!(&operation.kind, OperationKind::Drill(drill) if **drill == *spec);
        if !own && !operation.is_housekeeping() {
            return Some(format!("operation {id} ({}) holds the service", operation.kind.name()));
        }
    }
    let Some(service) = state.services.get(&spec.service) else {
        return Some(format!("there is no service `{}`", spec.service));
    };
    let facts = service_facts(state, &spec.service, now).zip(kind_of(service));
    let Some((facts, kind)) = facts else { return Some("this version does not know its kind".to_owned()) };
    if kind.writer(facts.spec).is_none() {
        return Some(format!("there are no drills for the kind `{}`", kind.name()));
    }
    if let Err(Wait(why)) = kind.may_break(&facts) {
        return Some(why);
    }
    let health = kind.health(&facts);
    if health.word != HealthWord::Healthy {
        return Some(format!("the service is {}: {}", health.word, health.reasons.join("; ")));
    }
    let Some(target) = target_of(&facts, kind, spec.target) else {
        return Some("no member has the target's role".to_owned());
    };
    match spec.fault {
        Fault::Freeze => kind.may_freeze(&facts).err().map(|Wait(why)| why),
        Fault::KillHost => neighbours(state, &target.host, &spec.service, now),
        Fault::KillContainer | Fault::FullOutage => None,
    }
}

/// Why the other services with members on a host would not bear its loss.
fn neighbours(state: &State, host: &HostId, drilled: &Name, now: Timestamp) -> Option<String> {
    let root = state.root(drilled);
    let mut others: Vec<&Name> = state.members_on(host).map(|(_, member)| &member.slot.service).collect();
    others.retain(|name| state.root(name) != root);
    others.sort_unstable();
    others.dedup();
    others.into_iter().find_map(|name| {
        if let Some((id, operation)) = state.holder(name) {
            return Some(format!(
                "operation {id} ({}) holds `{name}` on the same host",
                operation.kind.name()
            ));
        }
        let health = kind_of(state.services.get(name)?)?.health(&service_facts(state, name, now)?);
        (health.word != HealthWord::Healthy).then(|| format!("`{name}` on the same host is {}", health.word))
    })
}

/// The member that a drill would be done to now.
#[must_use]
pub fn target_of<'a>(
    facts: &'a ServiceFacts<'_>,
    kind: &dyn Kind,
    target: Target,
) -> Option<&'a MemberFacts> {
    let leader = kind.leader(facts);
    let fitting = facts.members.iter().filter(|member| fits(facts, kind, member, target));
    fitting.min_by_key(|member| (target == Target::Leader && Some(member.slot) != leader, member.slot))
}

/// Whether a member plays the part that a drill is aimed at. Where members have no roles, all are alike: each takes
/// writes, and each is one of several.
#[must_use]
pub fn fits(facts: &ServiceFacts<'_>, kind: &dyn Kind, member: &MemberFacts, target: Target) -> bool {
    let role = |member: &MemberFacts| member.seen.as_ref().and_then(|seen| seen.role.clone());
    let alike = facts.members.iter().all(|member| role(member).is_none());
    let leads = kind.leads(facts, member.slot);
    match target {
        Target::Leader => leads || alike,
        Target::Replica => facts.members.len() > 1 && (!leads || alike),
        Target::SyncStandby => role(member).as_deref() == Some("sync_standby"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_file_is_strict_and_its_numbers_have_limits() {
        let json = r#"{"drill":1,"name":"kill-primary","service":"pg-main","fault":"kill-container"}"#;
        let drill: DrillSpec = serde_json::from_str(json).unwrap();
        assert_eq!(drill.problem(), None);
        assert_eq!(drill.target, Target::Leader);
        let many = DrillSpec { writes_per_second: 5_000, ..drill.clone() };
        assert!(many.problem().unwrap().contains("writes_per_second"));
        let old = DrillSpec { drill: 2, ..drill };
        assert!(old.problem().unwrap().contains("format 1"));
        assert!(serde_json::from_str::<DrillSpec>(&json.replace("\"drill\"", "\"dril\"")).is_err());
    }
}
