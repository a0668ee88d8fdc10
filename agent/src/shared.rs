//! What the agent's tasks share: one lock around all that is known, and two bells. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_model::ids::{BootId, Generation, HostId, MemberId};
use muster_model::link::Links;
use muster_model::network::HostNetwork;
use muster_model::observed::{Condition, EngineStatus, FOUND_MEMBERS, HostFacts, ProbeResult, Report};
use muster_model::plan::{HostPlan, MemberPlan};
use muster_model::time::Timestamp;
use muster_runtime::clock::SharedClock;
use muster_runtime::host_bundle::Kept;
use muster_runtime::state_dir::StateError;
use tokio::sync::Notify;

use crate::ask::Target;
use crate::diff::Facts;
use crate::diff::{Gates, Step};
use crate::fault::{LASTS_MAX, What};
use crate::files::{Files, SecretMap};
use crate::host::Host;
use crate::images::desk::ImageDesk;
use crate::ledger::{Accepted, PlanRefused};
use crate::network::Problem;
use crate::profile::Places;
use crate::reset::{DownHost, Tracker};
use crate::runtime::ContainerRuntime;
use crate::secrets::{SecretStore, SecretsError};
use crate::seen::Seen;
use crate::status::status;
use crate::store::Store;
use crate::volumes::Volumes;

/// Conditions of one host; more would be noise.
const CONDITIONS_MAX: usize = 100;

/// Between two looks at whether a drill silences this agent.
const SILENCE_LOOK: Duration = Duration::from_millis(100);

/// Why a plan update had no effect.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The plan.
    #[error(transparent)]
    Refused(#[from] PlanRefused),
    /// The disk.
    #[error("plan cannot be stored: {0}")]
    Store(#[from] StateError),
    /// The secrets.
    #[error("secrets cannot be stored: {0}")]
    Secrets(#[from] SecretsError),
}

/// Wall time at the start, moved on by the monotonic clock: a clock that is set later moves no deadline.
#[derive(Debug)]
pub struct Steady {
    clock: SharedClock,
    offset_ms: u64,
}

impl Steady {
    /// From now on.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let monotonic = u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let offset_ms = clock.now_ms().saturating_sub(monotonic);
        Self { clock, offset_ms }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let monotonic = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.offset_ms.saturating_add(monotonic))
    }
}

/// Everything known at the moment.
pub struct State {
    /// Ledger and memory.
    pub host: Host,
    /// The last confirmed list; kept while the engine is silent, so that probes go on.
    pub seen: Vec<Seen>,
    /// The engine.
    pub engine: EngineStatus,
    /// Gates of the last round.
    pub gates: Gates,
    /// Steps of the last round.
    pub steps: Vec<Step>,
    /// Last results by member and probe.
    pub probes: BTreeMap<(MemberId, String), ProbeResult>,
    /// Probes that failed once after they had worked: the last good answer still counts.
    pub missed: BTreeSet<(MemberId, String)>,
    /// Secrets.
    pub secrets: Arc<SecretMap>,
    /// Conditions by who says them.
    pub conditions: BTreeMap<&'static str, Vec<Condition>>,
    /// What the network task last brought about, and what was wrong then.
    pub network: Option<(HostNetwork, Vec<Problem>)>,
    /// The host.
    pub facts: HostFacts,
    /// The way to the other hosts, as measured last.
    pub links: Option<Links>,
    /// Members with a task under way.
    pub tasks_under_way: BTreeSet<MemberId>,
    /// Deaths heard of and steps ended so far. A look at the engine that began before the last of them is old: what it
    /// shows as stopped may have been started since, and the other way round.
    pub turns: u64,
    /// The turn at which the last whole look at the engine began; absent = none since it answers.
    pub looked: Option<u64>,
    /// The turn at which the last step of a member ended: until a look began after it, nobody knows what it has.
    pub acted: BTreeMap<MemberId, u64>,
    /// The ledger on disk is the ledger here.
    pub data_written: bool,
}

/// The parts of one agent.
pub struct Shared {
    /// Who we are.
    pub host: HostId,
    /// The platform's id.
    pub platform: String,
    /// This run.
    pub boot: BootId,
    /// The engine.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Rendered files.
    pub files: Files,
    /// Data directories.
    pub volumes: Volumes,
    /// Time.
    pub clock: Steady,
    /// Rung when the worker should look again.
    pub wake: Notify,
    /// Rung when a network of ours may have gone, or the plan changed.
    pub network_wake: Notify,
    /// Rung when the leader says of other hosts that they are down.
    pub down_wake: Notify,
    /// Rung when a drill's fault has begun.
    pub fault_wake: Notify,
    /// Images that are offered, and those that are here.
    pub images: ImageDesk,
    /// Rung when the report may have changed.
    pub changed: Notify,
    /// Connections to a stopped member that hands over are refused by this host's packet filter.
    pub refuse_gone: AtomicBool,
    store: Store,
    secret_store: SecretStore,
    state: Mutex<State>,
    resets: Mutex<Tracker>,
    // One writer at a time, so that an older ledger never replaces a newer one.
    writing: tokio::sync::Mutex<()>,
}

/// Who this agent is.
#[derive(Debug, Clone)]
pub struct Ours {
    /// The host.
    pub host: HostId,
    /// The platform's id.
    pub platform: String,
    /// This run.
    pub boot: BootId,
}

impl Shared {
    /// Reads what is stored under `state` and interrupts what an earlier agent had begun.
    ///
    /// # Errors
    /// Something stored cannot be read: it is never replaced by nothing.
    pub fn open(
        ours: Ours,
        state: &Path,
        files: Files,
        runtime: Arc<dyn ContainerRuntime>,
        clock: SharedClock,
    ) -> anyhow::Result<Arc<Self>> {
        let store = Store::new(state);
        let secret_store = SecretStore::open(state)?;
        let clock = Steady::new(clock);
        let mut host = Host { ledger: store.load()?, ..Host::default() };
        host.ledger.interrupt_tasks(clock.now());
        resume_faults(&mut host, clock.now());
        store.save_ledger(&host.ledger)?;
        let found = host.ledger.former(&ours.platform).map(found_members);
        let engine = EngineStatus { answering: false, since: clock.now(), version: String::new() };
        let initial = State {
            host,
            seen: Vec::new(),
            engine,
            gates: Gates::default(),
            steps: Vec::new(),
            probes: BTreeMap::new(),
            missed: BTreeSet::new(),
            secrets: Arc::new(secret_store.load()?),
            conditions: found.map(|found| ("adoption", vec![found])).into_iter().collect(),
            network: None,
            facts: HostFacts::default(),
            links: None,
            tasks_under_way: BTreeSet::new(),
            turns: 0,
            looked: None,
            acted: BTreeMap::new(),
            data_written: true,
        };
        Ok(Arc::new(Self {
            host: ours.host,
            platform: ours.platform,
            boot: ours.boot,
            runtime,
            files,
            volumes: Volumes::open(state)?,
            clock,
            wake: Notify::new(),
            network_wake: Notify::new(),
            down_wake: Notify::new(),
            fault_wake: Notify::new(),
            images: ImageDesk::default(),
            changed: Notify::new(),
            refuse_gone: AtomicBool::new(false),
            store,
            secret_store,
            state: Mutex::new(initial),
            resets: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
        }))
    }

    /// All that is known. Never held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a drill makes this agent silent, or until it may speak.
    pub async fn until_silent(&self, silent: bool) {
        loop {
            let now = self.clock.now();
            if self.state().host.ledger.faults.iter().any(|fault| fault.silences(now)) == silent {
                return;
            }
            tokio::time::sleep(SILENCE_LOOK).await;
        }
    }

    /// What is known of dark hosts. Never held across an await.
    pub fn resets(&self) -> MutexGuard<'_, Tracker> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in which other hosts are down, as the leader says.
    pub fn tell_down(&self, down: Vec<DownHost>) {
        self.resets().tell(down, self.clock.now());
        self.down_wake.notify_one();
    }

    /// Keeps, unread, what a rebuild of the control plane would need.
    ///
    /// # Errors
    /// It cannot be stored.
    pub async fn keep(&self, kept: Kept) -> Result<(), StateError> {
        let _writing = self.writing.lock().await;
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.keep(&kept)).await;
        written.unwrap_or(Ok(()))
    }

    /// Takes a plan with its secrets: stored first, acted on afterwards.
    ///
    /// # Errors
    /// It is not for us, old, or cannot be stored; then everything stays as it was.
    pub async fn accept(&self, plan: HostPlan, secrets: SecretMap) -> Result<Accepted, UpdateError> {
        let _writing = self.writing.lock().await;
        let mut trial = self.state().host.ledger.clone();
        let accepted = trial.accept(plan.clone(), &self.host, &self.platform);
        let accepted = accepted.inspect_err(|error| {
            if matches!(error, PlanRefused::Found(_)) {
                return;
            }
            let condition = Condition { code: "foreign-plan".to_owned(), text: error.to_string() };
            self.say("plan", vec![condition]);
        })?;
        // A plan that may only add leaves members alone that it does not name: they need what they had.
        let mut secrets = secrets;
        if plan.additive_only {
            for (name, value) in self.state().secrets.iter() {
                secrets.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        // A secret may be new under an unchanged plan: its text names the secret, not its value.
        tokio::task::block_in_place(|| {
            self.secret_store.store(&secrets)?;
            if let Some(taken) = trial.plan.as_ref().filter(|_| accepted == Accepted::Newer) {
                // First, since it says how the plan came.
                self.store.save_ledger(&trial)?;
                self.store.save_plan(taken)?;
            }
            Ok::<_, UpdateError>(())
        })?;
        {
            let mut state = self.state();
            state.secrets = Arc::new(secrets);
            state.host.ledger.accept(plan, &self.host, &self.platform)?;
            state.conditions.remove("plan");
        }
        self.wake.notify_one();
        self.network_wake.notify_one();
        self.changed.notify_one();
        Ok(accepted)
    }

    /// Id of the platform whose containers are here: the one before, while members of it run on.
    #[must_use]
    pub fn acting_platform(&self) -> String {
        let state = self.state();
        let former = state.host.ledger.former(&self.platform);
        former.map_or_else(|| self.platform.clone(), |plan| plan.platform.clone())
    }

    /// The generation of this platform's plan that is acted on; zero = none yet.
    #[must_use]
    pub fn generation(&self) -> Generation {
        let state = self.state();
        match state.host.ledger.former(&self.platform) {
            Some(_) => Generation::default(),
            None => state.host.ledger.generation(),
        }
    }

    /// Writes the ledger as it is now.
    ///
    /// # Errors
    /// It cannot be written: what was to be done must not be done.
    pub async fn persist(&self) -> Result<(), String> {
        let _writing = self.writing.lock().await;
        let ledger = self.state().host.ledger.clone();
        let written = tokio::task::block_in_place(|| self.store.save_ledger(&ledger));
        written.map_err(|error| error.to_string())
    }

    /// Says, in the name of one part of the agent, what an operator should know now.
    pub fn say(&self, who: &'static str, conditions: Vec<Condition>) {
        let mut state = self.state();
        if state.conditions.get(who).is_none_or(|said| *said != conditions) {
            state.conditions.insert(who, conditions);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Where a member's things are.
    #[must_use]
    pub fn places(&self, member: MemberId) -> Places {
        Places { files: self.files.of(member), data: self.volumes.of(member) }
    }

    /// Plan and member, if it is still planned.
    #[must_use]
    pub fn planned(&self, member: MemberId) -> Option<(HostPlan, MemberPlan)> {
        let state = self.state();
        let plan = state.host.plan()?;
        Some((plan.clone(), state.host.member(member)?.clone()))
    }

    /// For questions about a member.
    #[must_use]
    pub fn target(&self, member: MemberId) -> Target {
        let state = self.state();
        let planned = state.host.member(member);
        Target {
            address: planned.and_then(|member| member.addresses.first()).map(|first| first.address),
            container: state.seen.iter().find(|c| c.member == member).map(|c| c.id.clone()),
            secrets: Arc::clone(&state.secrets),
        }
    }

    /// The complete report as of now.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.state();
        // Safety: what was seen before a step ended may show what that step started as stopped, and an agent that has not
        // looked yet as having nothing: a coordinator would take either for a confirmed stop.
        let unsure = state.acted.iter().filter(|(_, turn)| state.looked.is_none_or(|looked| looked < **turn));
        let busy = state.host.busy.iter().chain(unsure.map(|(member, _)| member)).copied().collect();
        let facts = Facts { busy: &busy, ..state.host.facts(&state.gates) };
        let probes = |member: MemberId| -> Vec<ProbeResult> {
            let of_member = state.probes.iter().filter(|((of, _), _)| *of == member);
            of_member.map(|(_, result)| result.clone()).collect()
        };
        let looked = state.engine.answering && state.looked.is_some();
        let seen = looked.then_some(state.seen.as_slice());
        // Numbers of members mean nothing to another platform: of those found here only the condition tells.
        let ours = state.host.plan().filter(|plan| plan.platform == self.platform);
        let members = ours.map(|plan| status(plan, seen, &facts, &state.steps, &probes));
        let mut conditions: Vec<Condition> = state.conditions.values().flatten().cloned().collect();
        conditions.truncate(CONDITIONS_MAX);
        Report {
            boot: self.boot.clone(),
            generation: ours.map(|plan| plan.generation).unwrap_or_default(),
            engine: state.engine.clone(),
            facts: state.facts.clone(),
            members: members.unwrap_or_default(),
            answers: state.host.ledger.answers(),
            conditions,
            images: self.images.held(),
            links: state.links.clone(),
        }
    }
}

/// What runs here and belongs to the platform before.
fn found_members(plan: &HostPlan) -> Condition {
    let slots: Vec<String> = plan.members.iter().map(|member| member.slot.to_string()).collect();
    let text = format!(
        "found here, not in the spec: {}; of platform {}, they run on as they are, and nothing is placed beside them: \
         docs/install.md, \"A host from a lost platform\"",
        slots.join(", "),
        plan.platform
    );
    Condition { code: FOUND_MEMBERS.to_owned(), text }
}

/// Faults of an earlier agent go on, before anything is started. None lasts longer than it could: clocks are set.
fn resume_faults(host: &mut Host, now: Timestamp) {
    let latest = now.after(LASTS_MAX);
    for fault in &mut host.ledger.faults {
        fault.until = fault.until.min(latest);
    }
    let dark = host.ledger.faults.iter().filter(|fault| fault.what == What::Dark).map(|fault| fault.until);
    if let Some(until) = dark.max().filter(|until| *until > now) {
        host.hold_all(until);
    }
}

/// Waits at most this long, less if `wake` rings.
pub(crate) async fn pause(span: Duration, wake: &Notify) {
    tokio::select! {
        () = tokio::time::sleep(span) => {}
        () = wake.notified() => {}
    }
}
