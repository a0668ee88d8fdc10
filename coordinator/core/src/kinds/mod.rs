//! What a kind of service is: one trait, one folder per kind, one line per kind in [`ALL`].
//!
//! A kind decides nothing about hosts; it says what its members need, renders them, reads their probes, and names
//! the next safe step. Everything here is pure: the same facts give the same answer on every coordinator.

mod accounts;
mod app;
mod describe;
mod etcd;
#[cfg(test)]
mod examples;
mod exporter;
#[cfg(test)]
pub(crate) mod golden;
mod haproxy;
#[cfg(test)]
mod injection;
mod mariadb;
mod metrics;
mod nats;
mod parts;
mod postgres;
mod procedure;
mod redis;
pub mod rotate;
mod s3;
mod settings;
pub(crate) mod tls;
pub mod versions;
mod votes;
mod writer;

pub use describe::schema_of;
pub use parts::{REPLACE_DATA_AFTER, others_tell};
pub use procedure::{OPERATORS_WORD, Procedure, ProcedureProgress, ProcedureStep, operator_said};
pub use tls::{CA, CA_SECRET};

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::{HostId, MemberId, Name, Revision};
use muster_model::network::Protocol;
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::{Guard, Limits, Rendered, Task};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::time::Timestamp;
use muster_model::view::{Health, Scheduling};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::TaskDraft;
use crate::state::SecretRow;
use haproxy::front::Front;
use metrics::Source;
use rotate::Rotation;
use tls::Tls;

/// Every kind, by name.
pub static ALL: [&dyn Kind; 13] = [
    &app::App,
    &etcd::Etcd,
    &exporter::Exporter,
    &haproxy::Haproxy,
    &mariadb::Mariadb,
    &mariadb::arbitrator::Arbitrator,
    &mariadb::router::MAXSCALE,
    &mariadb::router::PROXYSQL,
    &nats::Nats,
    &postgres::Postgres,
    &redis::Redis,
    &s3::S3,
    &writer::Writer,
];

/// The kind of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static dyn Kind> {
    ALL.iter().find(|kind| kind.name() == name).copied()
}

/// A mistake in a service's settings: path below the service (`members`, `ports.0.port`), what is wrong, what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path below `services.<name>`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Problem {
    /// At this path below the service.
    pub fn new(path: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into(), help: help.into() }
    }
}

/// A service that another one brings along.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// What it is for its owner: `etcd`, `proxy`. Its name is `<owner>-<role>`.
    pub role: Name,
    /// Its spec.
    pub spec: ServiceSpec,
    /// Starts before its owner, or after it.
    pub order: ChildOrder,
}

/// Start order of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildOrder {
    /// The owner waits for it.
    BeforeOwner,
    /// It waits for the owner.
    AfterOwner,
}

/// A port of a host's own address. Who publishes it on one address has it on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}

/// What a service's members need from hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Number of slots.
    pub slots: u32,
    /// Their indexes where these tell something; empty = 1 to `slots`.
    pub numbers: Vec<u32>,
    /// Slots of one of these lists never share a host.
    pub apart: Vec<Vec<u32>>,
    /// Networks that every member joins, the first one for probes.
    pub networks: Vec<Name>,
    /// Limits of each member; what the scheduler reserves.
    pub limits: Limits,
    /// Two members may never share a host.
    pub one_per_host: bool,
    /// Never on a host with a member of one of these other services: their votes would be lost together.
    pub never_with: Vec<Name>,
    /// Ports published on the host's own address.
    pub host_ports: Vec<HostPort>,
    /// Has data: stays on its host, is replaced late, never refilled on suspicion.
    pub has_data: bool,
    /// Runs in one place only: no second start without a confirmed stop of the first.
    pub exclusive: bool,
}

impl Layout {
    /// Indexes of all slots, in their order.
    #[must_use]
    pub fn indexes(&self) -> Vec<u32> {
        if self.numbers.is_empty() { (1..=self.slots).collect() } else { self.numbers.clone() }
    }

    /// Whether members of these two slots may be on one host, as far as `apart` says.
    #[must_use]
    pub fn may_share(&self, one: u32, other: u32) -> bool {
        !self.apart.iter().any(|list| list.contains(&one) && list.contains(&other))
    }
}

/// A secret that the platform makes when it does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretNeed {
    /// Full name, `<service>/<what>`.
    pub name: String,
}

/// A member as its peers see it when they are rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Slot index.
    pub slot: u32,
    /// Member number.
    pub member: MemberId,
    /// Name of its host.
    pub host: Name,
    /// Addresses by network.
    pub addresses: BTreeMap<Name, Ipv4Addr>,
    /// It is rendered with a certificate for its clients. Only connection strings may depend on it: it is no input of a
    /// rendering, or members would be rendered because they were.
    #[serde(skip)]
    pub tls: bool,
}

/// What a member is rendered from. Nothing else may influence the result.
#[derive(Debug, Clone)]
pub struct RenderContext<'a> {
    /// The platform's random id.
    pub platform_id: &'a str,
    /// The whole spec, for networks.
    pub platform: &'a PlatformSpec,
    /// The service.
    pub service: &'a Name,
    /// Its spec.
    pub spec: &'a ServiceSpec,
    /// The member to render.
    pub me: &'a Peer,
    /// All placed members of the service by slot, `me` among them.
    pub peers: &'a [Peer],
    /// Placed members of child services by role.
    pub children: &'a BTreeMap<Name, Vec<Peer>>,
    /// Owner: its name, spec and placed members.
    pub owner: Option<(&'a Name, &'a ServiceSpec, &'a [Peer])>,
    /// The services that [`Kind::uses`] names, with their placed members.
    pub uses: &'a BTreeMap<Name, Used<'a>>,
    /// The member joins a cluster that exists already (a replacement), instead of forming it.
    pub joins_existing: bool,
}

/// A service that another one connects to, as that one is rendered.
#[derive(Debug, Clone)]
pub struct Used<'a> {
    /// Its spec.
    pub spec: &'a ServiceSpec,
    /// Its placed members by slot.
    pub peers: Vec<Peer>,
    /// Placed members of its child services by role.
    pub children: BTreeMap<Name, Vec<Peer>>,
}

/// Why nothing happens: shown to operators as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait(pub String);

/// A member's condition as State keeps it: quantised, so that Raft is not flooded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Revision that ran when it was seen; counts only if it is the member's.
    pub revision: Revision,
    /// `container_hash` that ran.
    pub container_hash: String,
    /// Its container runs.
    pub running: bool,
    /// Its stop is confirmed by its agent.
    pub stopped: bool,
    /// As the engine says: `leader`, `replica`, `sync_standby`, ...
    pub role: Option<String>,
    /// Serves as its role asks.
    pub ready: bool,
    /// Has, or nearly has, everything acknowledged.
    pub caught_up: bool,
    /// The write-path probe: absent = not asked of this member.
    pub writes: Option<bool>,
    /// The engine's own system id.
    pub system_id: Option<String>,
    /// Restarts asked for by plan that were carried out.
    pub restarts_done: u64,
    /// Agent's restarts, start time: change with each start of the container.
    pub started_at: Option<Timestamp>,
    /// Restarts by the agent.
    pub restarts: u32,
    /// Times that it handed its leading role over after a stop, since its agent began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub releases: u32,
    /// The guard that does not let it be stopped now; empty = none, or nobody asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// Why the container that is to follow this one cannot be made; empty = none is to, or it can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub successor: String,
    /// What else its kind decides on: few, short and quantised.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// Short text for operators: why it waits, timeline, lag class. Must not change with every probe.
    pub detail: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// One member as decisions see it.
#[derive(Debug, Clone)]
pub struct MemberFacts {
    /// Slot index.
    pub slot: u32,
    /// Its number.
    pub member: MemberId,
    /// Its host.
    pub host: HostId,
    /// Name of the host.
    pub host_name: Name,
    /// The host's agent beats, and its members are not stopped for maintenance.
    pub host_up: bool,
    /// Since when that is so.
    pub host_since: Timestamp,
    /// Whether the host takes members, or is about to be emptied or stopped.
    pub scheduling: Scheduling,
    /// Its addresses by network.
    pub addresses: BTreeMap<Name, Ipv4Addr>,
    /// It was placed when the cluster existed already.
    pub joins_existing: bool,
    /// Since when it was last seen like this.
    pub seen_since: Timestamp,
    /// Its plan says run.
    pub started: bool,
    /// Revision of its rendered plan.
    pub revision: Revision,
    /// Its container is made of the newest rendering.
    pub current: bool,
    /// [`Kind::variant`] of its rendered plan.
    pub variant: String,
    /// What was seen, only if it belongs to the present revision and the host is up; otherwise absent = unknown.
    pub seen: Option<Observed>,
    /// It is not to run, and its agent, knowing that, confirmed that no container of it does, of whatever revision or none.
    pub stopped: bool,
    /// It is to run, and its agent has no container of it and cannot make one.
    pub missing: bool,
    /// An earlier container of it runs on and serves, because its agent cannot make the present one.
    pub kept: bool,
}

/// One service as decisions see it.
#[derive(Debug, Clone)]
pub struct ServiceFacts<'a> {
    /// Its name.
    pub name: &'a Name,
    /// Its spec.
    pub spec: &'a ServiceSpec,
    /// Newest revision.
    pub revision: Revision,
    /// Slots wanted.
    pub slots: u32,
    /// Placed members by slot.
    pub members: Vec<MemberFacts>,
    /// Child services by role.
    pub children: BTreeMap<Name, Self>,
    /// Placed members of the service that brought this one along; empty without one.
    pub owner_members: Vec<MemberFacts>,
    /// The cluster was formed once: a recorded one-shot, never undone.
    pub formed: bool,
    /// Facts that its kind recorded for good.
    pub records: &'a BTreeMap<String, String>,
    /// Sealed secrets of the platform by full name: that they exist, and their versions.
    pub secrets: &'a BTreeMap<String, SecretRow>,
    /// Number of hosts that are up.
    pub hosts_up: usize,
    /// Now, by the leader's clock.
    pub now: Timestamp,
}

/// The next step of a rolling update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateStep {
    /// Every member is at the newest revision and ready.
    Done,
    /// Not yet, for this reason.
    Wait(String),
    /// It cannot be done, for this reason: the update fails before anything else is touched.
    Fail(String),
    /// Give this member the newest rendering: it is stopped and created again.
    Recreate(MemberId),
    /// Move the leading role away from `from` first.
    Switch {
        /// The leader.
        from: MemberId,
        /// Where to.
        to: MemberId,
    },
}

/// Losses and what they stop, for one service. Empty lists = nothing stops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survivability {
    /// Hosts whose loss stops writes, with the reason.
    pub stops_writes: BTreeMap<HostId, String>,
    /// Hosts whose loss stops reads too.
    pub stops_reads: BTreeMap<HostId, String>,
    /// What may be lost although acknowledged, in one sentence; empty = nothing.
    pub may_lose: String,
}

/// A way for clients to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `write`, `read`, ...
    pub role: String,
    /// The connection string; `${secret:NAME}` where the password stands, [`CA`] where the path of the CA's certificate does.
    pub url: String,
}

/// How a drill's writer writes to a service; it calls the engines so too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WriterEngine {
    /// Rows of PostgreSQL.
    Postgres,
    /// Rows of MariaDB.
    Mariadb,
    /// Keys of Redis.
    Redis,
    /// Objects of S3.
    S3,
}

/// One kind of service.
pub trait Kind: Sync {
    /// `postgres`, `app`, ...
    fn name(&self) -> &'static str;

    /// Judges the settings; children are judged by their own kind.
    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem>;

    /// JSON schema of its settings; absent = no file may have a service of this kind.
    fn schema(&self) -> Option<Value> {
        None
    }

    /// Whether a service with members may become what is written now; otherwise why not, and what to do instead.
    fn may_become(
        &self,
        _name: &Name,
        _present: &ServiceSpec,
        _written: &ServiceSpec,
    ) -> Result<(), Problem> {
        Ok(())
    }

    /// Which versions of its engine an update may go to; absent = any.
    fn line(&self) -> Option<versions::Line> {
        None
    }

    /// Services that this one brings along.
    fn children(&self, _name: &Name, _spec: &ServiceSpec) -> Vec<Child> {
        Vec::new()
    }

    /// What its members need. Called only with a spec that `validate` accepted.
    fn layout(&self, name: &Name, spec: &ServiceSpec) -> Layout;

    /// Secrets that must exist before its members are rendered.
    fn secrets(&self, _name: &Name, _spec: &ServiceSpec) -> Vec<SecretNeed> {
        Vec::new()
    }

    /// Whether its members serve clients over TLS.
    fn tls(&self, _spec: &ServiceSpec) -> Tls {
        Tls::None
    }

    /// Who shows the service's certificate: its members, unless the proxies in front of them do.
    fn shown_by<'a>(&self, peers: &'a [Peer], _children: &'a BTreeMap<Name, Vec<Peer>>) -> &'a [Peer] {
        peers
    }

    /// The setting that says how many members there are, and its value for `count` of them; judged like any other
    /// change of the spec.
    ///
    /// # Errors
    /// Why this service cannot be scaled by members.
    fn scaled(&self, spec: &ServiceSpec, _count: u32) -> Result<(&'static str, Value), Wait> {
        Err(Wait(format!("a service of kind `{}` has no number of members to change", spec.kind)))
    }

    /// Services whose addresses its members are told: they are rendered again when those change.
    fn uses(&self, _spec: &ServiceSpec) -> Vec<Name> {
        Vec::new()
    }

    /// A member's container, files, probes and actions.
    fn render(&self, context: &RenderContext<'_>) -> Rendered;

    /// What the agent must see immediately before it stops a running member for a restart or a new container.
    fn stop_guard(&self, _context: &RenderContext<'_>) -> Option<Guard> {
        None
    }

    /// What of a rendered member must be the same in all of them, as a hash; empty = nothing.
    fn variant(&self, _rendered: &Rendered) -> String {
        String::new()
    }

    /// What a member's state and probes mean.
    fn interpret(&self, spec: &ServiceSpec, status: &MemberStatus) -> Observed;

    /// Whether an empty slot may be filled now, beyond there being a host for it.
    fn may_place(&self, _service: &ServiceFacts<'_>) -> Result<(), Wait> {
        Ok(())
    }

    /// Whether the member in `slot` may be started (again), beyond its host being there: the bootstrap order.
    fn may_start(&self, _service: &ServiceFacts<'_>, _slot: u32) -> Result<(), Wait> {
        Ok(())
    }

    /// The cluster exists: from now on nothing may ever initialise a second one. Recorded once.
    fn is_formed(&self, _service: &ServiceFacts<'_>) -> bool {
        false
    }

    /// How it is, with reasons.
    fn health(&self, service: &ServiceFacts<'_>) -> Health;

    /// What the page of the service says beside its members: quorum, who may take over, what waits.
    fn detail(&self, _service: &ServiceFacts<'_>) -> Vec<String> {
        Vec::new()
    }

    /// The next step of a rolling update to the newest revision.
    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep;

    /// Whether an operation that re-created or restarted a member is done with it.
    fn settled(&self, service: &ServiceFacts<'_>, member: MemberId) -> bool {
        let seen = service.members.iter().find(|m| m.member == member).and_then(|m| m.seen.as_ref());
        seen.is_some_and(|seen| seen.ready && seen.caught_up)
    }

    /// Whether a member may be stopped or restarted now, in an update or by an operator.
    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait>;

    /// Whether a member that is no longer wanted, because the service has fewer slots now, may leave.
    fn may_retire(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        self.may_stop(service, member)
    }

    /// Slots whose engines ask for a restart, in the order in which they may have it now.
    fn asks_for_restart(&self, _service: &ServiceFacts<'_>) -> Vec<u32> {
        Vec::new()
    }

    /// Work that must be done now and that this kind carries out itself: a cold start, a node to be made known.
    ///
    /// Asked whenever no operation holds the service, and between the steps of one that does. Observations may be some
    /// seconds old, so a procedure begins by asking again what it relies on.
    fn due(&self, _service: &ServiceFacts<'_>) -> Option<Procedure> {
        None
    }

    /// The next step of a procedure, given the answers of its tasks so far by their labels, oldest first.
    fn proceed(
        &self,
        _service: &ServiceFacts<'_>,
        procedure: &Procedure,
        _answers: &[(String, TaskOutcome)],
    ) -> ProcedureStep {
        ProcedureStep::Done(format!("this version does not know the procedure {}", procedure.name))
    }

    /// How one of its secrets is changed, and what clients see of it; `what` is its name without the service's.
    ///
    /// # Errors
    /// Why it cannot be changed.
    fn rotation(&self, _spec: &ServiceSpec, _what: &str) -> Result<Rotation, Wait> {
        Err(Wait(format!("a service of kind `{}` cannot be given new passwords yet", self.name())))
    }

    /// Tasks, by labels, after which its members accept the next values of these secrets beside the present ones.
    fn introduce(&self, _service: &ServiceFacts<'_>, _secrets: &[String]) -> Vec<(String, TaskDraft)> {
        Vec::new()
    }

    /// Tasks, by labels, after which the new values of these secrets are in force, and no others.
    fn enforce(&self, _service: &ServiceFacts<'_>, _secrets: &[String]) -> Vec<(String, TaskDraft)> {
        Vec::new()
    }

    /// Tasks, by labels, that succeed if the new values of these secrets are in force.
    fn confirm(&self, _service: &ServiceFacts<'_>, _secrets: &[String]) -> Vec<(String, TaskDraft)> {
        Vec::new()
    }

    /// Whether a procedure that waits for an operator is judged anew all the same, and goes on by itself when what it
    /// waited for has changed.
    fn goes_on_by_itself(&self, _service: &ServiceFacts<'_>) -> bool {
        false
    }

    /// Whether a drill may break something now.
    fn may_break(&self, service: &ServiceFacts<'_>) -> Result<(), Wait> {
        parts::all_serve(service)
    }

    /// Whether a drill may make a member stand still for a while.
    fn may_freeze(&self, _service: &ServiceFacts<'_>) -> Result<(), Wait> {
        Ok(())
    }

    /// Whether a lost member may be replaced on another host now.
    fn may_replace(&self, _service: &ServiceFacts<'_>, _member: MemberId) -> Result<(), Wait> {
        Ok(())
    }

    /// The guarded task that moves the leading role to `to`, or to the best member. `id` is filled in by the caller.
    fn switchover(&self, _service: &ServiceFacts<'_>, _to: Option<u32>) -> Result<Task, Wait> {
        Err(Wait("this kind has no leading role to switch".to_owned()))
    }

    /// The slot that leads now, if the kind has a leading role and it is known.
    fn leader(&self, service: &ServiceFacts<'_>) -> Option<u32> {
        let leads = |m: &&MemberFacts| m.seen.as_ref().is_some_and(|s| s.role.as_deref() == Some("leader"));
        service.members.iter().find(leads).map(|m| m.slot)
    }

    /// What a `haproxy` child serves in front of these members.
    fn front(&self, _name: &Name, _spec: &ServiceSpec, _members: &[Peer]) -> Front {
        Front::default()
    }

    /// How an `exporter` child asks a member for its metrics; absent = no such child.
    fn metrics(&self, _name: &Name, _spec: &ServiceSpec, _member: &Peer) -> Option<Source> {
        None
    }

    /// Each member looks after its owner's member in the slot of the same number: best on the same host, and of no
    /// consequence to anybody. It is moved there, and re-created, without an operation.
    fn beside_owner(&self) -> bool {
        false
    }

    /// Whether the slot leads: the leading one, or one of several where a service has more.
    fn leads(&self, service: &ServiceFacts<'_>, slot: u32) -> bool {
        self.leader(service) == Some(slot)
    }

    /// Its leading role moves by the engine's own election, at any loss and within moments: nobody moves it beforehand.
    fn elects_by_itself(&self) -> bool {
        false
    }

    /// Who leads instead of the slot when it has to give its role away; absent = whoever is best.
    fn heir(&self, _service: &ServiceFacts<'_>, _slot: u32) -> Option<u32> {
        None
    }

    /// The record (key, value) by which a switchover that an operator asked for is not undone again.
    fn operators_choice(&self, _service: &ServiceFacts<'_>, _to: u32) -> Option<(String, String)> {
        None
    }

    /// What an operator should know before it is applied, in sentences.
    fn remarks(&self, _name: &Name, _spec: &ServiceSpec) -> Vec<String> {
        Vec::new()
    }

    /// Which losses stop what.
    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability;

    /// How clients connect, given the placed members of the service and of its children.
    fn endpoints(
        &self,
        _name: &Name,
        _spec: &ServiceSpec,
        _peers: &[Peer],
        _children: &BTreeMap<Name, Vec<Peer>>,
        _user: Option<&str>,
    ) -> Vec<Endpoint> {
        Vec::new()
    }

    /// How a drill's writer writes through the endpoint of role `write`; absent = drills cannot be run on this kind.
    fn writer(&self, _spec: &ServiceSpec) -> Option<WriterEngine> {
        None
    }
}
