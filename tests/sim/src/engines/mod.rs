//! What runs inside the containers, one folder for each fake engine. This is ground truth: the core sees it only through
//! probes and tasks, as late and as wrong as the network lets them be.

pub mod etcd;
mod mariadb;
mod postgres;
mod redis;
mod replicated;
mod s3;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::{Answer, ProbeResult, TaskOutcome};
use muster_model::plan::{Act, Ask, Guard, MemberPlan, S3Ask, S3What, Task, TaskKind};

use self::mariadb::Galera;
use self::postgres::Database;
use self::redis::Redis;
use self::replicated::Replicated;
use self::s3::Minio;
use crate::host::{Container, FakeHost};
use crate::plant::Plant;
use crate::rng::Rng;
use crate::world::stamp;

/// Names of the services; of a container it tells the engine.
pub const POSTGRES: &str = "pg-main";
/// Galera, or one server alone.
pub const MARIADB: &str = "maria";
/// A cluster, or one server alone.
pub const REDIS: &str = "cache";
/// One master and its replicas.
pub const REPLICATED: &str = "session";
/// MinIO.
pub const S3: &str = "store";

/// The simulated time, chance and hosts of one step.
pub struct Moment<'a> {
    /// The hosts.
    pub hosts: &'a mut [FakeHost],
    /// Milliseconds since the beginning.
    pub now: u64,
    /// Chance.
    pub rng: &'a mut Rng,
}

impl Moment<'_> {
    fn reach(&self, one: usize, other: usize) -> bool {
        reach(&self.hosts[one], &self.hosts[other], self.now)
    }
}

/// What an engine says: an answer, or an error.
pub type Said = Result<String, String>;

fn yes(text: impl Into<String>) -> Said {
    Ok(text.into())
}

fn no(text: impl Into<String>) -> Said {
    Err(text.into())
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Postgres,
    Mariadb,
    Redis,
    Replicated,
    S3,
    Plain,
}

fn which(service: &Name) -> Which {
    match service.as_str() {
        POSTGRES => Which::Postgres,
        MARIADB => Which::Mariadb,
        REDIS => Which::Redis,
        REPLICATED => Which::Replicated,
        S3 => Which::S3,
        name if name.ends_with("-etcd") => Which::Postgres,
        _ => Which::Plain,
    }
}

/// Runs, and its program had time to begin; a bad image never does.
#[must_use]
pub fn serves(container: &Container, now: u64) -> bool {
    container.seen.running()
        && container.serves_at <= now
        && !container.made_of.rendered.image.contains("bad")
}

/// Members on these hosts reach each other.
#[must_use]
pub fn reach(a: &FakeHost, b: &FakeHost, now: u64) -> bool {
    a.number == b.number || (a.on(now) && b.on(now) && a.mesh_at <= now && b.mesh_at <= now)
}

/// The members of a service that run, with their host's place.
fn runs(hosts: &[FakeHost], service: &str, now: u64) -> Vec<(MemberId, usize)> {
    let mut found = Vec::new();
    for (at, host) in hosts.iter().enumerate().filter(|(_, host)| host.on(now)) {
        let here =
            host.containers.iter().filter(|(_, c)| c.seen.slot.service.as_str() == service && serves(c, now));
        found.extend(here.map(|(id, _)| (*id, at)));
    }
    found
}

/// A file as the running member sees it: the agent keeps those up to date that need no new container.
fn file<'a>(host: &'a FakeHost, member: MemberId, path: &str) -> &'a str {
    let in_plan = |plan: &'a MemberPlan| plan.rendered.files.iter().find(|file| file.path == path);
    let planned = host.agent.member(member).and_then(in_plan);
    let made_of = || host.containers.get(&member).and_then(|c| in_plan(&c.made_of));
    planned.or_else(made_of).map_or("", |file| file.content.as_str())
}

/// All engines of the platform.
#[derive(Debug, Default)]
pub struct Engines {
    postgres: Database,
    mariadb: Galera,
    redis: Redis,
    replicated: Replicated,
    s3: Minio,
}

impl Engines {
    /// With a planted bug, or without.
    #[must_use]
    pub fn new(plant: Option<Plant>) -> Self {
        Self {
            postgres: Database::new(plant),
            mariadb: Galera::new(plant),
            redis: Redis::new(plant),
            replicated: Replicated::new(plant),
            s3: Minio::new(plant),
        }
    }

    /// One moment.
    ///
    /// # Errors
    /// What must never happen, if it did.
    pub fn tick(&mut self, moment: &mut Moment<'_>) -> Result<(), String> {
        self.postgres.tick(moment.hosts, moment.now)?;
        self.mariadb.tick(moment)?;
        self.redis.tick(moment)?;
        self.replicated.tick(moment)?;
        self.s3.tick(moment)
    }

    /// A container is told to stop, politely.
    pub fn stop(&mut self, container: &Container, now: u64) {
        let member = container.seen.member;
        match which(&container.seen.slot.service) {
            // A database that is told to stop gives its lock back.
            Which::Postgres => {
                self.postgres.release(member, true);
            }
            Which::Mariadb => self.mariadb.stop(member),
            Which::Redis => self.redis.stop(member),
            Which::Replicated => self.replicated.stop(member, now),
            Which::S3 => self.s3.stop(member),
            Which::Plain => {}
        }
    }

    /// Lets another member take over from one that stopped.
    pub fn release(&mut self, member: MemberId, anyway: bool) -> bool {
        self.postgres.release(member, anyway)
    }

    /// Whether a container truly does what its role asks.
    #[must_use]
    pub fn ready(&self, hosts: &[FakeHost], host: &FakeHost, member: MemberId, now: u64) -> bool {
        let Some(container) = host.containers.get(&member).filter(|c| serves(c, now)) else { return false };
        match which(&container.seen.slot.service) {
            Which::Postgres => self.postgres.ready(hosts, host, member, now),
            Which::Mariadb => self.mariadb.ready(member),
            Which::Redis => self.redis.ready(member),
            Which::Replicated => self.replicated.ready(member, now),
            Which::S3 => self.s3.ready(hosts, member, now),
            Which::Plain => true,
        }
    }

    /// What the probes of a container say.
    #[must_use]
    pub fn probes(&self, hosts: &[FakeHost], at: usize, member: MemberId, now: u64) -> Vec<ProbeResult> {
        let host = &hosts[at];
        let Some(container) = host.containers.get(&member).filter(|c| serves(c, now)) else {
            return Vec::new();
        };
        if which(&container.seen.slot.service) == Which::Postgres {
            return self.postgres.probes(hosts, host, member, now);
        }
        let planned = host.agent.member(member).unwrap_or(&container.made_of);
        let probes = planned.rendered.probes.iter().map(|probe| ProbeResult {
            name: probe.name.clone(),
            at: stamp(now),
            took_ms: 1,
            answer: answer(self.ask(hosts, at, member, &probe.probe.ask, now)),
        });
        probes.collect()
    }

    /// The engine's own id, as its plan asks for it.
    #[must_use]
    pub fn system_id(&self, hosts: &[FakeHost], at: usize, member: MemberId, now: u64) -> Option<String> {
        let container = hosts[at].containers.get(&member).filter(|c| serves(c, now))?;
        let probe = container.made_of.rendered.system_id.as_ref()?;
        self.ask(hosts, at, member, &probe.ask, now).ok().filter(|id| !id.is_empty())
    }

    fn ask(&self, hosts: &[FakeHost], at: usize, member: MemberId, ask: &Ask, now: u64) -> Said {
        let container = hosts[at].containers.get(&member).filter(|c| serves(c, now));
        match container.map(|c| which(&c.seen.slot.service)) {
            None | Some(Which::Postgres) => no("no answer"),
            Some(Which::Mariadb) => self.mariadb.ask(member, ask, now),
            Some(Which::S3) => self.s3.ask(hosts, member, ask, now),
            Some(Which::Redis) => match ask {
                Ask::Resp(ask) => self.redis.ask(hosts, at, member, ask, now),
                _ => no("no answer"),
            },
            Some(Which::Replicated) => match ask {
                Ask::Resp(ask) => self.replicated.ask(hosts, at, member, ask, now),
                _ => no("no answer"),
            },
            Some(Which::Plain) => yes("{}"),
        }
    }

    /// Does a task: asks its guard, then acts.
    pub fn task(&mut self, moment: &mut Moment<'_>, at: usize, task: &Task) -> TaskOutcome {
        let now = moment.now;
        if let Some(why) =
            task.guard.as_ref().and_then(|guard| self.refused(moment.hosts, at, task.member, guard, now))
        {
            return TaskOutcome::Refused { why };
        }
        let container = moment.hosts[at].containers.get(&task.member);
        let service = container.map(|c| &c.seen.slot.service);
        let planned = || moment.hosts[at].agent.member(task.member).map(|plan| &plan.slot.service);
        let Some(engine) = service.or_else(planned).map(which) else {
            return TaskOutcome::Failed { why: "no such member".to_owned() };
        };
        let running = container.is_some_and(|c| c.seen.running());
        let serving = container.is_some_and(|c| serves(c, now));
        let said = match (engine, &task.what) {
            (Which::Postgres, TaskKind::Act { act: Act::Http(ask) }) => {
                return self.postgres.task(moment.hosts, at, task.member, ask, now);
            }
            (Which::S3, TaskKind::OneShot { image: Some(image), apart: true, .. }) => {
                match image.contains("bad") {
                    true => no("the throw-away server takes no object"),
                    false => yes("passed"),
                }
            }
            (_, TaskKind::OneShot { .. }) if running => {
                return TaskOutcome::Refused { why: "the member runs".to_owned() };
            }
            (Which::Mariadb, TaskKind::OneShot { command, .. }) => {
                self.mariadb.one_shot(task.member, command)
            }
            (Which::Mariadb, TaskKind::Exec { argv }) if serving => self.mariadb.exec(task.member, argv),
            (Which::Redis, TaskKind::Act { act: Act::Resp(ask) }) if serving => {
                self.redis.act(moment, at, task.member, ask)
            }
            (Which::Replicated, TaskKind::Act { act: Act::Resp(ask) }) if serving => {
                self.replicated.act(moment, at, task.member, ask)
            }
            (Which::Redis, TaskKind::Exec { argv }) if serving => {
                self.redis.rebalance(moment, task.member, argv)
            }
            (
                Which::S3,
                TaskKind::Act { act: Act::S3(S3Ask { what: S3What::Heal { token: Some(_), .. }, .. }) },
            ) if serving => self.s3.heal_all(moment.hosts, task.member, now),
            (Which::S3, TaskKind::Act { act: Act::S3(ask) }) if serving => {
                self.s3.ask(moment.hosts, task.member, &Ask::S3(ask.clone()), now)
            }
            _ => no("not simulated, or it does not run"),
        };
        match said {
            Ok(answer) => TaskOutcome::Done { answer },
            Err(why) => TaskOutcome::Failed { why },
        }
    }

    fn refused(
        &self,
        hosts: &[FakeHost],
        at: usize,
        member: MemberId,
        guard: &Guard,
        now: u64,
    ) -> Option<String> {
        if hosts[at].containers.get(&member).is_some_and(|c| which(&c.seen.slot.service) == Which::Postgres) {
            // Its model judges the candidate itself.
            return None;
        }
        let seen = answer(self.ask(hosts, at, member, &guard.probe.ask, now));
        (!guard.accept.holds(&seen)).then(|| format!("{}: does not hold, saw {}", guard.name, seen.body))
    }

    /// Whether the data of this member is on others too, so that its loss alone loses nothing.
    #[must_use]
    pub fn spares(&self, service: &Name, member: MemberId) -> bool {
        match which(service) {
            Which::Postgres => self.postgres.spares(member),
            Which::Mariadb => self.mariadb.spares(member),
            Which::Redis => self.redis.spares(member),
            Which::Replicated => self.replicated.spares(member),
            Which::S3 => self.s3.spares(member),
            Which::Plain => self.postgres.spares(member),
        }
    }

    /// Destroys the data of a stopped member, but not its identity, if its kind can be hit so.
    pub fn empty(&mut self, service: &Name, member: MemberId) -> bool {
        match which(service) {
            Which::Redis => self.redis.empty(member),
            Which::Replicated => return self.replicated.empty(member),
            _ => return false,
        }
        true
    }

    /// An operator says that a host is off, or that what it has does not matter.
    pub fn word(&mut self, host: usize, now: u64) {
        self.replicated.word(host, now);
    }

    /// What is still missing in the engines themselves when everything should be right. `ruined` = data was destroyed.
    #[must_use]
    pub fn missing(&self, ruined: bool) -> Option<String> {
        let postgres =
            || (!ruined && !self.postgres.whole()).then(|| "no synchronous standby streams".to_owned());
        postgres()
            .or_else(|| self.mariadb.missing().filter(|_| !ruined))
            .or_else(|| self.redis.missing().filter(|_| !ruined))
            .or_else(|| self.replicated.missing().filter(|_| !ruined))
            .or_else(|| self.s3.missing())
    }
}

fn answer(said: Said) -> Answer {
    let ok = said.is_ok();
    let body = said.unwrap_or_else(|why| why);
    Answer { ok, code: Some(if ok { 200 } else { 503 }), body }
}
