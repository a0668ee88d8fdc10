//! The agent against a real Docker Engine: everything that hands of others may do is repaired, foreign things stay.
//!
//! Needs root, an engine (`DOCKER_HOST` or the default socket), its CLI and a static busybox; skips loudly without.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_agent::diff::Gates;
use muster_agent::files::{Files, SecretMap};
use muster_agent::prober;
use muster_agent::runtime::ContainerRuntime;
use muster_agent::runtime::docker::DockerEngine;
use muster_agent::shared::{Ours, Shared};
use muster_agent::worker;
use muster_model::ids::{BootId, Generation, HostId, MemberId, Name, Revision, Slot, TaskId};
use muster_model::network::HostNetwork;
use muster_model::observed::{ContainerState, MemberStatus, Refusal, TaskOutcome};
use muster_model::plan::{
    Ask, FileSpec, HostPlan, Limits, MemberPlan, OnChange, Probe, ProbeSpec, Rendered, Run, StopSpec, Task,
    TaskKind, UserIds, VolumeSpec,
};
use muster_runtime::clock::SystemClock;
use muster_runtime::secret::Secret;
use muster_runtime::tasks::{OnError, TaskGroup};

const IMAGE: &str = "muster-agent-test@1";
const SECRET: &str = "s3cret-canary";
const SOON: Duration = Duration::from_secs(10);

fn socket() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned())
}

fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").arg("-H").arg(socket()).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// An image of one static program, made without a registry.
fn image(dir: &Path) -> Result<(), String> {
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("bin")).map_err(|e| e.to_string())?;
    for directory in ["muster", "data", "tmp", "run"] {
        std::fs::create_dir_all(root.join(directory)).map_err(|e| e.to_string())?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).map_err(|e| format!("busybox: {e}"))?;
    for program in ["sh", "cat", "sleep", "id", "ls"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(program)).map_err(|e| e.to_string())?;
    }
    let tar = dir.join("image.tar");
    let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
    made.map_err(|e| e.to_string())?;
    let label = format!("LABEL muster.image={IMAGE}");
    docker(&["import", "-c", &label, tar.to_str().unwrap(), "muster-agent-test:1"]).map(drop)
}

fn member() -> MemberPlan {
    let script = "echo started; cat /muster/key; echo; exec sleep 1000";
    let rendered = Rendered {
        image: IMAGE.to_owned(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        first_command: None,
        env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        user: UserIds { uid: 12_345, gid: 12_346 },
        files: vec![FileSpec {
            path: "/muster/key".to_owned(),
            content: "${secret:web/key}".to_owned(),
            mode: 0o400,
            on_change: OnChange::None,
        }],
        volumes: vec![VolumeSpec { name: Name::new("data").unwrap(), path: "/data".to_owned() }],
        tmpfs: Vec::new(),
        limits: Limits { memory_bytes: 64 << 20, cpu_millis: 0, pids: 50, shm_bytes: 1 << 20 },
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGKILL".to_owned(), timeout_ms: 1_000 },
        ports: Vec::new(),
        probes: vec![ProbeSpec {
            name: "key".to_owned(),
            every_ms: 200,
            probe: Probe {
                timeout_ms: 5_000,
                ask: Ask::Exec { argv: vec!["cat".into(), "/muster/key".into()] },
            },
        }],
        actions: BTreeMap::new(),
        release: None,
        system_id: None,
    };
    MemberPlan {
        slot: Slot { service: Name::new("agent-test").unwrap(), index: 1 },
        member: MemberId(1),
        revision: Revision(3),
        rendered,
        addresses: Vec::new(),
        run: Run::Running,
        restarts: 0,
        guard: None,
        has_data: false,
    }
}

struct World {
    shared: Arc<Shared>,
    plan: HostPlan,
}

impl World {
    async fn accept(&mut self) {
        self.plan.generation = self.plan.generation.next();
        let secrets = SecretMap::from([("web/key".to_owned(), Secret::new(SECRET.as_bytes().to_vec()))]);
        self.shared.accept(self.plan.clone(), secrets).await.unwrap();
    }

    fn status(&self) -> Option<MemberStatus> {
        self.shared.report().members.into_iter().next()
    }

    async fn until(&self, what: &str, holds: impl Fn(&MemberStatus) -> bool) -> MemberStatus {
        let begun = Instant::now();
        loop {
            match self.status() {
                Some(status) if holds(&status) => {
                    eprintln!("{what}: {:?}", begun.elapsed());
                    return status;
                }
                other => assert!(begun.elapsed() < SOON, "{what}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_running(&self, what: &str) -> MemberStatus {
        self.until(what, |status| matches!(status.state, ContainerState::Running { .. })).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hands_of_others_are_repaired_and_foreign_things_stay() {
    let dir = tempfile::tempdir().unwrap();
    let ready = docker(&["version"]).and_then(|_| image(dir.path()));
    if let Err(why) = ready {
        eprintln!("SKIPPED: no Docker Engine to test with at {}: {why}", socket());
        return;
    }
    let platform = format!("agent-test-{}", std::process::id());
    let host = HostId::new("0123456789abcdef").unwrap();
    let ours = Ours { host: host.clone(), platform: platform.clone(), boot: BootId("boot".to_owned()) };
    let engine = DockerEngine::new(&socket());
    let files = Files::open(&dir.path().join("run")).unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let runtime = Arc::clone(&engine) as Arc<dyn ContainerRuntime>;
    let shared = Shared::open(ours, &state, files, runtime, SystemClock::shared()).unwrap();
    shared.state().gates = Gates::default();
    shared.state().network = Some((HostNetwork::default(), Vec::new()));
    let group = TaskGroup::new();
    group.spawn("worker", OnError::Shutdown, worker::run(Arc::clone(&shared), group.clone()));
    group.spawn("engine", OnError::Shutdown, worker::watch_engine(Arc::clone(&shared), group.clone()));
    group.spawn("prober", OnError::Shutdown, prober::run(Arc::clone(&shared), group.clone()));
    let plan = HostPlan {
        platform: platform.clone(),
        host,
        generation: Generation { incarnation: 1, counter: 0 },
        additive_only: false,
        network: HostNetwork::default(),
        members: vec![member()],
        discard: Vec::new(),
        tasks: Vec::new(),
        carried: Vec::new(),
    };
    let mut world = World { shared: Arc::clone(&shared), plan };
    docker(&["rm", "-f", "agent-test-foreign", "muster-agent-test-1-m1"]).ok();
    docker(&["create", "--name", "agent-test-foreign", "muster-agent-test:1", "/bin/sleep", "9"]).unwrap();

    world.accept().await;
    world.until_running("first start").await;
    profile_is_hardened();
    world.until("probe", |s| s.probes.first().is_some_and(|p| p.answer.body == SECRET)).await;
    repairs(&world, dir.path()).await;
    tasks(&mut world).await;
    world.plan.members.clear();
    world.plan.tasks.clear();
    world.accept().await;
    let begun = Instant::now();
    while docker(&["inspect", "muster-agent-test-1-m1"]).is_ok() || !quarantined(&state) {
        assert!(begun.elapsed() < SOON, "not gone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let foreign = docker(&["inspect", "-f", "{{.State.Status}}", "agent-test-foreign"]).unwrap();
    assert_eq!(foreign, "created");
    group.drain(SOON).await.unwrap();
    docker(&["rm", "-f", "agent-test-foreign"]).unwrap();
    docker(&["rmi", "muster-agent-test:1"]).unwrap();
    rustix::mount::unmount(dir.path().join("run"), rustix::mount::UnmountFlags::DETACH).ok();
}

fn quarantined(state: &Path) -> bool {
    std::fs::read_dir(state.join("quarantine")).unwrap().count() == 1
}

fn profile_is_hardened() {
    let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
                  {{.HostConfig.Privileged}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.PidsLimit}} \
                  {{.HostConfig.NetworkMode}} {{.HostConfig.LogConfig.Config}}";
    let profile = docker(&["inspect", "-f", format, "muster-agent-test-1-m1"]).unwrap();
    assert_eq!(
        profile,
        "12345:12346 true [ALL] [no-new-privileges:true] false no 50 none map[max-file:3 max-size:10m]"
    );
    let all = docker(&["inspect", "muster-agent-test-1-m1"]).unwrap();
    assert!(!all.contains(SECRET));
}

async fn repairs(world: &World, dir: &Path) {
    let id = || docker(&["inspect", "-f", "{{.Id}}", "muster-agent-test-1-m1"]).unwrap_or_default();
    let before = id();
    docker(&["rm", "-f", "muster-agent-test-1-m1"]).unwrap();
    let begun = Instant::now();
    while id().is_empty() || id() == before {
        assert!(begun.elapsed() < SOON, "not made again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.until_running("rm -f").await;
    docker(&["kill", "muster-agent-test-1-m1"]).unwrap();
    world.until("kill", |s| s.restarts > 0 && matches!(s.state, ContainerState::Running { .. })).await;
    let key = dir.join("run/1/muster/key");
    std::fs::write(&key, "edited").unwrap();
    let begun = Instant::now();
    while std::fs::read_to_string(&key).unwrap_or_default() != SECRET {
        assert!(begun.elapsed() < SOON, "not repaired");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("file edited: {:?}", begun.elapsed());
    docker(&["system", "prune", "-af", "--volumes", "--filter", "label=muster.platform"]).unwrap();
    world.until_running("prune").await;
    let logs = docker(&["logs", "muster-agent-test-1-m1"]).unwrap();
    assert!(logs.starts_with("started"), "{logs}");
}

async fn tasks(world: &mut World) {
    let task = |id: u64, what: TaskKind| Task {
        id: TaskId(id),
        member: MemberId(1),
        guard: None,
        what,
        timeout_ms: 8_000,
    };
    let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    world.plan.tasks = vec![
        task(1, TaskKind::Exec { argv: argv(&["sh", "-c", "echo 7 > /data/seqno"]) }),
        task(2, TaskKind::ReadFile { volume: Name::new("data").unwrap(), path: "seqno".to_owned() }),
        task(3, TaskKind::Kill { hold_ms: 60_000 }),
        task(4, TaskKind::OneShot { image: None, command: argv(&["/bin/cat", "/data/seqno"]), apart: false }),
        task(
            5,
            TaskKind::OneShot {
                image: None,
                command: argv(&["/bin/sh", "-c", "echo no >&2; exit 3"]),
                apart: false,
            },
        ),
    ];
    world.accept().await;
    let held =
        |status: &MemberStatus| matches!(status.state, ContainerState::Refused { why: Refusal::Held { .. } });
    world.until("killed and held", held).await;
    let begun = Instant::now();
    while world.shared.report().answers.len() < 5 {
        assert!(begun.elapsed() < SOON, "{:?}", world.shared.report().answers);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcomes: Vec<TaskOutcome> =
        world.shared.report().answers.into_iter().map(|answer| answer.outcome).collect();
    let done = |answer: &str| TaskOutcome::Done { answer: answer.to_owned() };
    assert_eq!(outcomes[..4], [done(""), done("7\n"), done("killed"), done("7\n")]);
    assert_eq!(outcomes[4], TaskOutcome::Failed { why: "3: no\n".to_owned() });
}
