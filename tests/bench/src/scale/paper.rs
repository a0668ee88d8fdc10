//! The decisions alone: a state of so many hosts is filled without disk or network, then judged again and again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use muster_core::apply::apply;
use muster_core::command::{Command, HostRegistration, LogMeta, What};
use muster_core::observe::from_report;
use muster_core::state::{Liveness, State};
use muster_core::{plan, reconcile};
use muster_model::ids::{BootId, HostId, Name};
use muster_model::observed::{EngineStatus, HostFacts, Report};
use muster_model::time::Timestamp;

use super::fleet;
use muster_bench::rounds::median;

const GIB: u64 = 1 << 30;
/// Looks at the finished state.
const LOOKS: usize = 21;
/// Rounds after which a platform that is not finished is given up.
const ROUNDS_MAX: u64 = 4_000;

/// What was measured for one size.
pub struct Paper {
    /// Hosts.
    pub hosts: usize,
    /// Members that run.
    pub members: usize,
    /// From the spec to every member running, decisions only.
    pub filled: Duration,
    /// Entries for that.
    pub entries: u64,
    /// Median of a look of all reconcilers at the finished state, milliseconds.
    pub look_ms: f64,
    /// Median of what one host's unchanged report costs, milliseconds.
    pub report_ms: f64,
}

struct Filling {
    state: State,
    now: u64,
    /// Plans that were reported on, by host.
    reported: BTreeMap<HostId, u64>,
}

impl Filling {
    fn agree(&mut self, command: &Command) -> Result<()> {
        let meta = LogMeta { index: self.state.index.next(), at: Timestamp(self.now) };
        apply(&mut self.state, command, meta).map(drop).map_err(|rejected| anyhow!("{rejected}"))
    }

    fn enter(&mut self, what: What) -> Result<()> {
        self.agree(&Command::internal(what))
    }

    fn host(&mut self, number: usize) -> Result<()> {
        let id = HostId::new(format!("{number:016x}")).context("an id")?;
        let address = Ipv4Addr::from(0x0a40_0000 + u32::try_from(number)?);
        self.enter(What::RegisterHost(HostRegistration {
            id: id.clone(),
            name: Name::new(format!("vps-{number}"))?,
            address: address.into(),
            zone: format!("zone-{}", number % 3),
            labels: BTreeMap::new(),
            key_digest: String::new(),
        }))?;
        let boot = Some(BootId("first".to_owned()));
        self.enter(What::HostLiveness { host: id, liveness: Liveness::Up, boot })
    }

    fn report(&self, id: &HostId) -> Option<Report> {
        let host = self.state.hosts.get(id)?;
        let planned = plan::published(&self.state, id);
        Some(Report {
            boot: host.boot.clone()?,
            generation: planned.as_ref().map(|plan| plan.generation).unwrap_or_default(),
            engine: EngineStatus { answering: true, since: Timestamp(1), version: "27.0".to_owned() },
            facts: HostFacts {
                agent_version: "0.1.0".to_owned(),
                cpu_millis: 16_000,
                memory_bytes: 64 * GIB,
                disk_bytes: 100 * GIB,
                disk_free_percent: 90,
                mesh_key: format!("{id}"),
                ..HostFacts::default()
            },
            members: planned.as_ref().map(fleet::done).unwrap_or_default(),
            answers: Vec::new(),
            conditions: Vec::new(),
            images: None,
            links: None,
        })
    }

    /// All decisions and all reports until nothing is left to do.
    fn settle(&mut self) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            let before = self.state.index;
            self.now += 100;
            for command in reconcile::run(&self.state, Timestamp(self.now)) {
                // What another decision of this round made stale is decided again in the next.
                drop(self.agree(&command));
            }
            let hosts: Vec<HostId> = self.state.hosts.keys().cloned().collect();
            for id in hosts {
                let counter = self.state.hosts.get(&id).map_or(0, |host| host.plan_counter);
                if self.reported.insert(id.clone(), counter) == Some(counter) {
                    continue;
                }
                let Some(report) = self.report(&id) else { continue };
                for change in from_report(&self.state, &id, &report) {
                    self.agree(&change)?;
                }
            }
            if self.state.index == before {
                return Ok(());
            }
        }
        Err(anyhow!("not finished after {ROUNDS_MAX} rounds"))
    }
}

/// Fills a platform of so many hosts with so many members each, and measures.
///
/// # Errors
/// It cannot be filled.
pub fn paper(hosts: usize, members: usize) -> Result<Paper> {
    let mut filling = Filling { state: State::default(), now: 1_000_000, reported: BTreeMap::new() };
    filling.enter(What::Init { id: "f00d".to_owned(), name: Name::new("shop")? })?;
    for number in 1..=hosts {
        filling.host(number)?;
    }
    let yaml = fleet::spec(hosts, members);
    let parsed = muster_spec::parse(&yaml).map_err(|found| anyhow!("{found:?}"))?;
    filling.settle()?;
    let (began, first) = (Instant::now(), filling.state.index.0);
    filling.enter(What::ApplySpec { spec: Arc::new(parsed.spec), yaml: Arc::from(yaml), at: None })?;
    filling.settle()?;
    let filled = began.elapsed();
    let state = &filling.state;
    let run =
        state.members.values().filter(|member| member.observed.as_ref().is_some_and(|o| o.running)).count();
    ensure!(run >= hosts * members, "{run} of {} members run", hosts * members);
    let look = || {
        let began = Instant::now();
        let commands = reconcile::run(state, Timestamp(filling.now + 100));
        (began.elapsed(), commands.len())
    };
    let looks: Vec<(Duration, usize)> = (0..LOOKS).map(|_| look()).collect();
    ensure!(looks.iter().all(|(_, commands)| *commands == 0), "a finished platform is not left alone");
    let one = HostId::new(format!("{:016x}", 1)).context("an id")?;
    let report = filling.report(&one).context("a report")?;
    let reports = (0..LOOKS).map(|_| {
        let began = Instant::now();
        let changes = from_report(state, &one, &report).len();
        (began.elapsed(), changes)
    });
    Ok(Paper {
        hosts,
        members: run,
        filled,
        entries: state.index.0 - first,
        look_ms: median(looks.iter().map(|(took, _)| took.as_secs_f64() * 1_000.0)),
        report_ms: median(reports.map(|(took, _)| took.as_secs_f64() * 1_000.0)),
    })
}
