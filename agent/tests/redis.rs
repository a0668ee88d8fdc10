//! The kind `redis` and the agent's typed questions against real servers of this machine's packages, on loopback and
//! without containers; skipped, loudly, where there are none.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_agent::act;
use muster_agent::ask::{self, Target};
use muster_agent::runtime::docker::DockerEngine;
use muster_core::kinds::{
    Kind, MemberFacts, OPERATORS_WORD, Observed, Peer, ProcedureStep, RenderContext, ServiceFacts, kind,
};
use muster_model::ids::{HostId, MemberId, Name, Revision, Slot};
use muster_model::observed::{Answer, ContainerState, MemberStatus, ProbeResult, TaskOutcome};
use muster_model::plan::{Act, Ask, Probe, Rendered, RespAsk, RespCall, RespKeep, TaskKind};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::time::Timestamp;
use muster_model::view::HealthWord;
use muster_runtime::secret::Secret;

static NO_SECRETS: BTreeMap<String, muster_core::state::SecretRow> = BTreeMap::new();

const SPEC: &str = r#"{"kind":"redis","network":"dbnet","node_timeout":"2s"}"#;
const PASSWORD: &str = "correct-horse";
/// Slot and host of each member, as the scheduler places them on three hosts.
const PLACES: [(u32, u32); 6] = [(11, 1), (12, 2), (21, 3), (22, 1), (31, 2), (32, 3)];

/// The servers of all tests have the same addresses.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// One server and its files.
struct Node {
    dir: tempfile::TempDir,
    peer: Peer,
    host: u32,
    rendered: Rendered,
    process: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn address(&self) -> Ipv4Addr {
        self.peer.addresses[&name("dbnet")]
    }

    /// The rendered files, with paths of this machine in place of the container's.
    fn write_files(&self) {
        let root = self.dir.path();
        fs::create_dir_all(root.join("data")).unwrap();
        fs::create_dir_all(root.join("muster/secrets")).unwrap();
        for file in &self.rendered.files {
            let mut text = file.content.clone();
            while let Some((before, rest)) = text.split_once("${secret:") {
                text = format!("{before}{PASSWORD}{}", rest.split_once('}').unwrap().1);
            }
            let text = text
                .replace("bind * -::*", &format!("bind {}", self.address()))
                .replace("/muster/", &format!("{}/muster/", root.display()))
                .replace("/data", &format!("{}/data", root.display()));
            fs::write(root.join(file.path.trim_start_matches('/')), text).unwrap();
        }
    }

    fn start(&mut self) {
        self.write_files();
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let script = self.dir.path().join("muster/start.sh");
        let process = Command::new("/bin/sh").arg(script).stdout(log).stderr(Stdio::null()).spawn();
        self.process = Some(process.unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// Six members, and what State would know of them.
struct World {
    spec: ServiceSpec,
    platform: PlatformSpec,
    service: Name,
    nodes: BTreeMap<u32, Node>,
    records: BTreeMap<String, String>,
    formed: bool,
    /// Slots whose hosts are down for long.
    gone: BTreeSet<u32>,
    /// What an operator was asked and said yes to.
    agreed: Vec<String>,
    engine: Arc<DockerEngine>,
    secrets: Arc<BTreeMap<String, Secret<Vec<u8>>>>,
}

fn peer(slot: u32, member: u64, last: u8, host: u32) -> Peer {
    let addresses = BTreeMap::from([(name("dbnet"), Ipv4Addr::new(127, 77, 0, last))]);
    Peer { slot, member: MemberId(member), host: name(&format!("host-{host}")), addresses, tls: false }
}

impl World {
    fn new() -> Self {
        let secrets = BTreeMap::from([("cache/admin".to_owned(), Secret::new(PASSWORD.as_bytes().to_vec()))]);
        let mut world = Self {
            spec: serde_json::from_str(SPEC).unwrap(),
            platform: serde_json::from_str(r#"{"muster":1,"platform":"demo"}"#).unwrap(),
            service: name("cache"),
            nodes: BTreeMap::new(),
            records: BTreeMap::new(),
            formed: false,
            gone: BTreeSet::new(),
            agreed: Vec::new(),
            engine: DockerEngine::new("/nonexistent"),
            secrets: Arc::new(secrets),
        };
        for (slot, host) in PLACES {
            world.place(peer(slot, slot.into(), slot as u8, host), host);
        }
        world.nodes.values_mut().for_each(Node::start);
        world
    }

    fn kind(&self) -> &'static dyn Kind {
        kind("redis").unwrap()
    }

    fn place(&mut self, me: Peer, host: u32) {
        let mut peers: Vec<Peer> =
            PLACES.map(|(slot, host)| peer(slot, slot.into(), slot as u8, host)).to_vec();
        peers.retain(|peer| peer.slot != me.slot);
        peers.push(me.clone());
        let rendered = self.kind().render(&RenderContext {
            platform_id: "p1",
            platform: &self.platform,
            service: &self.service,
            spec: &self.spec,
            me: &me,
            peers: &peers,
            children: &BTreeMap::new(),
            owner: None,
            uses: &BTreeMap::new(),
            joins_existing: self.formed,
        });
        let slot = me.slot;
        let node = Node { dir: tempfile::tempdir().unwrap(), peer: me, host, rendered, process: None };
        self.nodes.insert(slot, node);
    }

    fn target(&self, node: &Node) -> Target {
        Target { address: Some(node.address()), container: None, secrets: Arc::clone(&self.secrets) }
    }

    /// What the coordinator would store of one member.
    async fn observe(&self, node: &Node) -> Observed {
        let target = self.target(node);
        let mut probes = Vec::new();
        for probe in &node.rendered.probes {
            let answer = ask::ask(self.engine.as_ref(), &target, &probe.probe).await;
            probes.push(ProbeResult { name: probe.name.clone(), at: Timestamp(0), took_ms: 0, answer });
        }
        let state = match node.process {
            Some(_) => ContainerState::Running { since: Timestamp(1) },
            None => ContainerState::Stopped { code: Some(137) },
        };
        let status = MemberStatus {
            member: node.peer.member,
            slot: Slot { service: self.service.clone(), index: node.peer.slot },
            revision: Revision(1),
            container_hash: String::new(),
            state,
            restarts: 0,
            restarts_done: 0,
            releases: 0,
            system_id: None,
            refused: None,
            successor: None,
            probes,
        };
        self.kind().interpret(&self.spec, &status)
    }

    async fn members(&self) -> Vec<MemberFacts> {
        let mut members = Vec::new();
        for node in self.nodes.values() {
            members.push(MemberFacts {
                slot: node.peer.slot,
                member: node.peer.member,
                host: HostId::new(format!("{:016x}", node.host)).unwrap(),
                host_name: node.peer.host.clone(),
                addresses: node.peer.addresses.clone(),
                joins_existing: false,
                seen_since: Timestamp(0),
                variant: String::new(),
                host_up: !self.gone.contains(&node.peer.slot),
                host_since: Timestamp(0),
                scheduling: muster_model::view::Scheduling::Open,
                stopped: false,
                missing: false,
                kept: false,
                started: true,
                revision: Revision(1),
                current: true,
                seen: match self.gone.contains(&node.peer.slot) {
                    true => None,
                    false => Some(self.observe(node).await),
                },
            });
        }
        members
    }

    fn facts(&self, members: Vec<MemberFacts>, now: Timestamp) -> ServiceFacts<'_> {
        ServiceFacts {
            name: &self.service,
            spec: &self.spec,
            revision: Revision(1),
            slots: 6,
            members,
            children: BTreeMap::new(),
            owner_members: Vec::new(),
            formed: self.formed,
            records: &self.records,
            secrets: &NO_SECRETS,
            hosts_up: 3,
            now,
        }
    }

    /// Leader and agents until the members are as `until` wants them; the procedures that were carried out.
    async fn run(&mut self, what: &str, until: impl Fn(&dyn Kind, &ServiceFacts<'_>) -> bool) -> Vec<String> {
        let begin = Instant::now();
        let mut answers: Vec<(String, TaskOutcome)> = Vec::new();
        let mut done = Vec::new();
        loop {
            let members = self.members().await;
            let now = Timestamp(1_000_000 + begin.elapsed().as_millis() as u64);
            let facts = self.facts(members, now);
            let kind = self.kind();
            if !facts.formed && kind.is_formed(&facts) {
                self.formed = true;
                continue;
            }
            if until(kind, &facts) {
                return done;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{what}: {:?}\n{answers:?}\n{facts:#?}",
                kind.health(&facts)
            );
            let Some(due) = kind.due(&facts) else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            match kind.proceed(&facts, &due, &answers) {
                ProcedureStep::Task { label, task } => {
                    let node = self.nodes.values().find(|node| node.peer.member == task.member).unwrap();
                    let outcome = self.carry_out(node, &task).await;
                    done.push(due.name);
                    answers.push((label, outcome));
                }
                ProcedureStep::Record { key, value } => drop(self.records.insert(key, value)),
                ProcedureStep::NeedsOperator { reason, .. } if !self.gone.is_empty() => {
                    self.agreed.push(reason.clone());
                    answers.push((OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: reason }));
                }
                ProcedureStep::Wait(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    async fn carry_out(&self, node: &Node, task: &muster_core::command::TaskDraft) -> TaskOutcome {
        let target = self.target(node);
        if let Some(guard) = &task.guard
            && let Err(why) = ask::check(self.engine.as_ref(), &target, guard).await
        {
            return TaskOutcome::Refused { why };
        }
        let TaskKind::Act { act } = &task.what else { panic!("{task:?}") };
        match act::perform(self.engine.as_ref(), &target, act, Duration::from_secs(10)).await {
            Ok(answer) => TaskOutcome::Done { answer },
            Err(why) => TaskOutcome::Failed { why },
        }
    }

    /// One command to the member of a slot.
    async fn command(&self, slot: u32, words: &str) -> Answer {
        let call = RespCall {
            name: "it".to_owned(),
            words: words.split(' ').map(str::to_owned).collect(),
            address: None,
            keep: RespKeep::Whole,
        };
        let resp = RespAsk {
            port: 6379,
            user: "muster-admin".to_owned(),
            secret: "cache/admin".to_owned(),
            calls: vec![call],
        };
        let probe = Probe { timeout_ms: 2_000, ask: Ask::Resp(resp) };
        ask::ask(self.engine.as_ref(), &self.target(&self.nodes[&slot]), &probe).await
    }

    async fn keys(&self, slot: u32) -> u64 {
        let answer = self.command(slot, "DBSIZE").await;
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        body["it"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
    }
}

fn healthy(kind: &dyn Kind, facts: &ServiceFacts<'_>) -> bool {
    facts.formed && kind.health(facts).word == HealthWord::Healthy && kind.due(facts).is_none()
}

#[tokio::test]
async fn a_cluster_is_made_broken_and_mended() {
    if !Path::new("/usr/bin/redis-server").exists() {
        eprintln!("SKIPPED: no /usr/bin/redis-server (apt install redis-server)");
        return;
    }
    let _only = ONE_AT_A_TIME.lock().await;
    let mut world = World::new();
    let done = world.run("made", healthy).await;
    assert_eq!(done.first().map(String::as_str), Some("create"), "{done:?}");
    assert_eq!(world.records.len(), 6, "{:?}", world.records);

    // A killed master: its replica is elected, and after its return the masters spread again by themselves.
    world.nodes.get_mut(&11).unwrap().kill();
    world.run("elected", |kind, facts| kind.leads(facts, 12)).await;
    world.nodes.get_mut(&11).unwrap().start();
    let done = world.run("spread again", |kind, facts| healthy(kind, facts) && kind.leads(facts, 11)).await;
    assert!(done.iter().any(|name| name == "spread"), "{done:?}");

    // A master that lost its data in the moment of its death: its replica keeps every key.
    for number in 0..200 {
        world.command(11, &format!("SET {{18}}{number} x")).await;
    }
    let had = world.keys(12).await;
    assert!(had >= 200, "{had}");
    let master = world.nodes.get_mut(&11).unwrap();
    master.kill();
    fs::remove_dir_all(master.dir.path().join("data/appendonlydir")).unwrap();
    master.start();
    world.run("mended", |kind, facts| healthy(kind, facts) && kind.leads(facts, 11)).await;
    let kept = (world.keys(11).await, world.keys(12).await);
    assert!(kept.0 >= had && kept.1 >= had, "{kept:?} of {had}");

    // A member lost for good: another one takes its slot, and nobody remembers the old one.
    world.nodes.remove(&32);
    world.place(peer(32, 99, 99, 3), 3);
    world.nodes.get_mut(&32).unwrap().start();
    let done = world.run("replaced", healthy).await;
    assert!(done.iter().any(|name| name == "join") && done.iter().any(|name| name == "forget"), "{done:?}");
    for slot in [11, 12, 21, 22, 31, 32] {
        let nodes = world.command(slot, "CLUSTER NODES").await.body;
        assert_eq!(nodes.matches("\\n").count(), 6, "{slot}: {nodes}");
    }
    // A planned move loses nothing, and the guard refuses when there is nobody to move to.
    let members = world.members().await;
    let facts = world.facts(members, Timestamp(2_000_000));
    let task = world.kind().switchover(&facts, Some(12)).unwrap();
    let TaskKind::Act { act: Act::Resp(_) } = &task.what else { panic!("{task:?}") };
    let guard = task.guard.unwrap();
    let replica = world.target(&world.nodes[&12]);
    assert_eq!(ask::check(world.engine.as_ref(), &replica, &guard).await, Ok(()));
    let master = world.target(&world.nodes[&11]);
    assert!(ask::check(world.engine.as_ref(), &master, &guard).await.unwrap_err().contains("does not hold"));
}

/// The replica was started again while its master was already gone: it does not know how old its data is, and no vote
/// makes it master.
#[tokio::test]
async fn a_shard_whose_master_is_gone_for_good_is_taken_over_on_an_operators_word() {
    if !Path::new("/usr/bin/redis-server").exists() {
        eprintln!("SKIPPED: no /usr/bin/redis-server (apt install redis-server)");
        return;
    }
    let _only = ONE_AT_A_TIME.lock().await;
    let mut world = World::new();
    world.run("made", healthy).await;
    for number in 0..200 {
        world.command(11, &format!("SET {{18}}{number} x")).await;
    }
    let had = world.keys(12).await;
    assert!(had >= 200, "{had}");
    for slot in [11, 12] {
        world.nodes.get_mut(&slot).unwrap().kill();
    }
    world.gone = BTreeSet::from([11]);
    world.nodes.get_mut(&12).unwrap().start();
    let done = world.run("taken over", |kind, facts| kind.leads(facts, 12)).await;
    assert!(done.iter().any(|name| name == "takeover"), "{done:?}");
    assert_eq!(world.agreed.len(), 1, "{:?}", world.agreed);
    assert!(world.agreed[0].contains("cache/11 on host-1 is gone"), "{:?}", world.agreed);
    assert!(world.keys(12).await >= had);
    // The old master comes back after all: it follows, and the shard is led where it is.
    world.gone.clear();
    world.nodes.get_mut(&11).unwrap().start();
    let follows = |kind: &dyn Kind, facts: &ServiceFacts<'_>| {
        kind.health(facts).word == HealthWord::Healthy && (kind.leads(facts, 12) != kind.leads(facts, 11))
    };
    world.run("followed", follows).await;
    assert!(world.keys(11).await >= had && world.keys(12).await >= had);
}
