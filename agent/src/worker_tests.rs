//! Tests of the worker with an engine in memory: a fault at every call, crashes, hands of others, a frozen engine.

use std::os::unix::fs::MetadataExt;

use muster_model::ids::TaskId;
use muster_model::observed::{ContainerState, TaskOutcome};
use muster_model::plan::{
    Ask, FileSpec, Guard, MemberPlan, OnChange, Predicate, Probe, Task, TaskKind, UserIds, VolumeSpec,
};
use muster_runtime::clock::SystemClock;
use muster_runtime::secret::Secret;

use super::*;
use crate::files::{Files, SecretMap};
use crate::fixtures::{self, PLATFORM, name};
use crate::runtime::fake::Fake;
use crate::seen::SeenState;
use crate::shared::Ours;

const M: MemberId = MemberId(1);

struct World {
    dir: tempfile::TempDir,
    engine: Arc<Fake>,
    shared: Arc<Shared>,
    group: TaskGroup,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Fake::with_image("muster/busybox:1.35"));
        let shared = open(dir.path(), &engine);
        Self { dir, engine, shared, group: TaskGroup::new() }
    }

    fn member(&self) -> MemberPlan {
        let mut member = fixtures::member(1);
        let owner = std::fs::metadata(self.dir.path()).unwrap();
        member.rendered.user = UserIds { uid: owner.uid(), gid: owner.gid() };
        member
    }

    async fn accept(&self, counter: u64, members: Vec<MemberPlan>) {
        self.accept_plan(fixtures::plan(counter, members)).await;
    }

    async fn accept_plan(&self, plan: HostPlan) {
        let network = plan.network.clone();
        let secrets = SecretMap::from([("web/key".to_owned(), Secret::new(b"s3cret".to_vec()))]);
        self.shared.accept(plan, secrets).await.unwrap();
        self.shared.state().network = Some((network, Vec::new()));
    }

    /// Rounds until nothing is under way and the last one began nothing, but no waiting for time to pass.
    async fn settle(&self) {
        for _ in 0..40 {
            round(&self.shared, &self.group).await;
            while !self.group.running().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn state(&self) -> ContainerState {
        self.shared.report().members[0].state.clone()
    }

    fn only(&self) -> (String, SeenState) {
        let containers = self.engine.containers();
        assert_eq!(containers.len(), 1, "{containers:?}");
        containers.into_iter().map(|(id, (_, state))| (id, state)).next().unwrap()
    }
}

fn open(dir: &std::path::Path, engine: &Arc<Fake>) -> Arc<Shared> {
    open_as(PLATFORM, dir, engine)
}

fn open_as(platform: &str, dir: &std::path::Path, engine: &Arc<Fake>) -> Arc<Shared> {
    let ours = Ours {
        host: fixtures::host(),
        platform: platform.to_owned(),
        boot: muster_model::ids::BootId("boot".to_owned()),
    };
    let files = Files::without_mount(&dir.join("run"));
    Shared::open(ours, dir, files, Arc::clone(engine) as _, SystemClock::shared()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_starts_crashes_and_comes_back() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let (id, _) = world.only();
    assert!(matches!(world.state(), ContainerState::Running { .. }));
    world.engine.exit(&id, 1);
    world.settle().await;
    assert!(matches!(world.only().1, SeenState::Running { .. }));
    assert_eq!(world.shared.report().members[0].restarts, 1);
    world.engine.remove_by_force(&id);
    // The second crash within a minute waits half a second.
    world.settle().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.settle().await;
    assert_ne!(world.only().0, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_any_call_only_delays() {
    for nth in 0..6 {
        let world = World::new();
        world.engine.fail_at(nth);
        world.accept(1, vec![world.member()]).await;
        world.settle().await;
        let mut changed = world.member();
        changed.rendered.command.push("more".to_owned());
        world.accept(2, vec![changed.clone()]).await;
        world.settle().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        world.settle().await;
        let (id, state) = world.only();
        assert!(matches!(state, SeenState::Running { .. }), "fault {nth}: {:?}", world.engine.calls());
        let made = world.engine.containers().remove(&id).unwrap().0;
        assert_eq!(made.command, changed.rendered.command, "fault {nth}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_host_keeps_its_members_plan_and_secrets_and_says_so() {
    let mut world = World::new();
    world.accept(7, vec![world.member()]).await;
    world.settle().await;
    let before = world.engine.containers();
    let stored = |file: &str| std::fs::read(world.dir.path().join(file)).unwrap();
    let plan = stored("plan.json");

    // As after `join --adopt`: the same state, the id of another platform, an agent that begins anew.
    world.shared = open_as("rebuilt", world.dir.path(), &world.engine);
    let offered = HostPlan { platform: "rebuilt".to_owned(), ..fixtures::plan(1, vec![]) };
    for offered in [offered.clone(), HostPlan { members: vec![world.member()], ..offered }] {
        let refused = world.shared.accept(offered, SecretMap::new()).await.unwrap_err();
        assert!(refused.to_string().contains("as they are"), "{refused}");
    }
    world.shared.state().network = Some((fixtures::plan(7, vec![]).network, Vec::new()));
    world.settle().await;
    assert_eq!(world.engine.containers(), before, "neither restarted nor made again");
    assert_eq!(stored("plan.json"), plan);

    let report = world.shared.report();
    assert_eq!((report.generation, report.members.len()), (muster_model::ids::Generation::default(), 0));
    let found = report.conditions.iter().find(|c| c.code == muster_model::observed::FOUND_MEMBERS).unwrap();
    assert!(found.text.contains("found here, not in the spec: web/1;"), "{found:?}");
    assert_eq!(world.shared.acting_platform(), PLATFORM);

    // It still looks after them, with their secrets.
    let (id, _) = world.only();
    world.engine.exit(&id, 1);
    world.settle().await;
    assert!(matches!(world.only().1, SeenState::Running { .. }));
    assert!(world.shared.state().secrets.contains_key("web/key"));
}

/// `exec` inside a container of the engine in memory ends with code 0.
fn guard(code: i32) -> Guard {
    let ask = Ask::Exec { argv: vec!["ask".to_owned()] };
    Guard {
        name: "another one leads".to_owned(),
        probe: Probe { timeout_ms: 100, ask },
        accept: Predicate::Code(code),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_does_not_hold_keeps_a_member_running_until_it_holds() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let (id, _) = world.only();
    let mut changed = world.member();
    changed.rendered.command.push("more".to_owned());
    changed.guard = Some(guard(1));
    world.accept(2, vec![changed.clone()]).await;
    world.settle().await;
    assert_eq!(world.only().0, id);
    let status = world.shared.report().members.remove(0);
    assert_eq!(status.refused.as_deref(), Some("another one leads"));
    assert!(matches!(status.state, ContainerState::Running { .. }), "{status:?}");
    // To stay stopped is the coordinator's decision alone; to be crashed is nobody's.
    world.engine.exit(&id, 1);
    world.settle().await;
    assert_ne!(world.only().0, id, "a stopped one is made anew without a question");
    assert_eq!(world.shared.report().members[0].refused, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_holds_lets_the_step_through() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let (id, _) = world.only();
    let mut restarted = world.member();
    (restarted.restarts, restarted.guard) = (1, Some(guard(0)));
    world.accept(2, vec![restarted]).await;
    world.settle().await;
    assert_ne!(world.only().0, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_engine_is_a_condition_and_nothing_else() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let before = world.engine.calls().len();
    world.engine.freeze(true);
    round(&world.shared, &world.group).await;
    let report = world.shared.report();
    assert!(!report.engine.answering);
    assert_eq!(report.members[0].state, ContainerState::Unknown);
    assert!(report.conditions.iter().any(|c| c.code == "engine-not-answering"));
    world.engine.freeze(false);
    world.settle().await;
    let report = world.shared.report();
    assert!(report.engine.answering && report.conditions.is_empty(), "{report:?}");
    assert_eq!(world.engine.calls().len(), before);
    assert_eq!(report.members[0].restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_starts_everything_from_what_is_stored() {
    let world = World::new();
    let mut member = world.member();
    member.rendered.files.push(FileSpec {
        path: "/muster/key".to_owned(),
        content: "${secret:web/key}".to_owned(),
        mode: 0o400,
        on_change: OnChange::None,
    });
    world.accept(1, vec![member]).await;
    world.settle().await;
    let (id, _) = world.only();
    std::fs::remove_dir_all(world.dir.path().join("run")).unwrap();
    world.engine.exit(&id, 255);
    let rebooted = World { shared: open(world.dir.path(), &world.engine), ..world };
    rebooted.shared.state().network = Some(Default::default());
    rebooted.settle().await;
    assert!(matches!(rebooted.only().1, SeenState::Running { .. }));
    let key = rebooted.dir.path().join("run/1/muster/key");
    assert_eq!(std::fs::read_to_string(key).unwrap(), "s3cret");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_data_is_never_replaced_by_an_empty_directory() {
    let world = World::new();
    let mut member = world.member();
    member.rendered.volumes.push(VolumeSpec { name: name("data"), path: "/data".to_owned() });
    world.accept(1, vec![member]).await;
    world.settle().await;
    let volume = world.dir.path().join("members/1/data");
    std::fs::write(volume.join("data/file"), "x").unwrap();
    world.settle().await;
    let (id, _) = world.only();
    world.engine.exit(&id, 1);
    std::fs::remove_dir_all(&volume).unwrap();
    world.settle().await;
    let state = world.state();
    assert!(matches!(state, ContainerState::Refused { why: Refusal::VolumeLost { .. } }), "{state:?}");
    assert!(!volume.exists());
    assert!(world.shared.report().conditions.iter().any(|c| c.code == "volume-lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leaves_the_plan_goes_and_its_data_is_kept() {
    let world = World::new();
    let mut member = world.member();
    member.rendered.volumes.push(VolumeSpec { name: name("data"), path: "/data".to_owned() });
    world.accept(1, vec![member]).await;
    world.settle().await;
    world.accept(2, vec![]).await;
    world.settle().await;
    assert!(world.engine.containers().is_empty());
    assert!(!world.dir.path().join("members/1").exists());
    assert_eq!(std::fs::read_dir(world.dir.path().join("quarantine")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_done_once_and_a_kill_holds_the_restart() {
    let world = World::new();
    let mut plan = fixtures::plan(1, vec![world.member()]);
    world.accept_plan(plan.clone()).await;
    world.settle().await;
    let task =
        |id: u64, what: TaskKind| Task { id: TaskId(id), member: M, guard: None, what, timeout_ms: 1_000 };
    plan.generation.counter = 2;
    plan.tasks = vec![
        task(1, TaskKind::Exec { argv: vec!["true".to_owned()] }),
        task(2, TaskKind::Kill { hold_ms: 60_000 }),
        task(3, TaskKind::OneShot { image: None, command: vec!["look".to_owned()], apart: false }),
    ];
    world.accept_plan(plan).await;
    world.settle().await;
    let outcomes: Vec<TaskOutcome> =
        world.shared.report().answers.into_iter().map(|answer| answer.outcome).collect();
    let done = |answer: &str| TaskOutcome::Done { answer: answer.to_owned() };
    assert_eq!(outcomes, [done("out"), done("killed"), done("once")]);
    assert_eq!(world.only().1, SeenState::Stopped { code: 137 });
    assert!(matches!(world.state(), ContainerState::Refused { why: Refusal::Held { .. } }));
    let execs = world.engine.calls().iter().filter(|call| call.starts_with("exec")).count();
    assert_eq!(execs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_container_apart_may_run_beside_its_member() {
    let world = World::new();
    let mut plan = fixtures::plan(1, vec![world.member()]);
    world.accept_plan(plan.clone()).await;
    world.settle().await;
    let task = |id: u64, apart: bool| {
        let what = TaskKind::OneShot { image: None, command: vec!["look".to_owned()], apart };
        Task { id: TaskId(id), member: M, guard: None, what, timeout_ms: 1_000 }
    };
    plan.generation.counter = 2;
    plan.tasks = vec![task(1, false), task(2, true)];
    world.accept_plan(plan).await;
    world.settle().await;
    let outcomes: Vec<TaskOutcome> =
        world.shared.report().answers.into_iter().map(|answer| answer.outcome).collect();
    let refused = TaskOutcome::Refused { why: "the member runs".to_owned() };
    assert_eq!(outcomes, [refused, TaskOutcome::Done { answer: "once".to_owned() }]);
    assert!(matches!(world.state(), ContainerState::Running { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_crash_interrupted_is_not_done_again() {
    let world = World::new();
    let mut plan = fixtures::plan(1, vec![world.member()]);
    plan.tasks.push(Task {
        id: TaskId(9),
        member: M,
        guard: None,
        what: TaskKind::FreeSpace,
        timeout_ms: 1_000,
    });
    world.accept_plan(plan).await;
    world.shared.state().host.ledger.begin_task(TaskId(9));
    world.shared.persist().await.unwrap();
    let again = open(world.dir.path(), &world.engine);
    assert_eq!(again.report().answers[0].outcome, TaskOutcome::Interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_said_with_its_remedy() {
    let world = World::new();
    let mut member = world.member();
    member.rendered.image = "muster/none:1".to_owned();
    world.accept(1, vec![member]).await;
    world.settle().await;
    assert!(matches!(world.state(), ContainerState::Refused { why: Refusal::ImageMissing { .. } }));
    let said = &world.shared.report().conditions[0];
    assert!(said.code == "image-missing" && said.text.contains("muster image push"), "{said:?}");
    assert!(world.engine.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_kept_while_its_successor_cannot_be_made_and_that_is_said() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let (id, _) = world.only();
    let mut member = world.member();
    member.rendered.image = "muster/none:1".to_owned();
    world.accept(2, vec![member]).await;
    world.settle().await;
    let status = world.shared.report().members.remove(0);
    assert!(matches!(status.state, ContainerState::Running { .. }) && world.only().0 == id, "{status:?}");
    assert_eq!(status.successor, Some(Refusal::ImageMissing { image: "muster/none:1".to_owned() }));
    world.accept(3, vec![world.member()]).await;
    world.settle().await;
    assert_eq!(world.shared.report().members[0].successor, None, "it is what is asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_plan_is_refused_and_said() {
    let world = World::new();
    world.accept(5, vec![]).await;
    let other = fixtures::plan(5, vec![world.member()]);
    assert!(world.shared.accept(other, SecretMap::new()).await.is_err());
    assert!(world.shared.report().conditions.iter().any(|c| c.code == "foreign-plan"));
    world.accept(6, vec![]).await;
    assert!(world.shared.report().conditions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_acted_on_before_the_engine_has_cleaned_up() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let (id, _) = world.only();
    let before = world.engine.calls().len();
    // The list still says that it runs.
    died(&world.shared, &world.group, &id, 137).await;
    died(&world.shared, &world.group, "foreign", 1).await;
    while !world.group.running().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.engine.calls()[before..], [format!("start {id}")]);
    world.settle().await;
    assert_eq!(world.engine.calls().len(), before + 1);
    assert_eq!(world.shared.report().members[0].restarts, 1);
}

/// Otherwise a stop that is ordered just then would be confirmed by what was there before the start.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_a_member_before_a_look_that_began_after_its_last_step() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    assert_eq!(world.state(), ContainerState::Unknown, "the engine was not looked at yet");
    note_engine(&world.shared, Ok(()));
    assert_eq!(world.state(), ContainerState::Unknown, "it answers, but its list was not read yet");
    world.settle().await;
    assert!(matches!(world.state(), ContainerState::Running { .. }));
    let (id, _) = world.only();
    died(&world.shared, &world.group, &id, 137).await;
    while !world.group.running().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.state(), ContainerState::Unknown, "it was started after the look");
    world.settle().await;
    assert!(matches!(world.state(), ContainerState::Running { .. }));
}

/// Found on a loaded machine: a replica more changed the certificate of all members, and while each read it anew the
/// service was told to be down and another master was about to be chosen.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_reads_its_files_anew_runs_all_the_while() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let step = |kind| Step { member: M, container: Some(world.only().0), kind };
    let reload = step(StepKind::Reload { actions: ["tls".to_owned()].into() });
    world.shared.state().host.begin(&reload);
    assert!(matches!(world.state(), ContainerState::Running { .. }), "{:?}", world.state());
    take(&world.shared, &reload).await;
    assert!(matches!(world.state(), ContainerState::Running { .. }), "no look is needed to know");
    world.shared.state().host.begin(&step(StepKind::Stop { why: "a test" }));
    assert_eq!(world.state(), ContainerState::Unknown);
}

/// Found on a loaded machine: the list was asked for before the start and read after it, the member was taken for
/// crashed, released while it ran, and its peers were refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_from_before_a_step_ended_decides_nothing() {
    let world = World::new();
    world.accept(1, vec![world.member()]).await;
    world.settle().await;
    let before = world.shared.state().turns;
    let mut old = world.shared.state().seen.clone();
    old[0].state = SeenState::Stopped { code: 0 };
    world.shared.state().turns += 1;
    let gates = world.shared.state().gates.clone();
    let now = world.shared.clock.now();
    assert!(decide(&world.shared, before, old.clone(), gates.clone(), now).is_none());
    assert!(matches!(world.state(), ContainerState::Running { .. }));
    let fresh = world.shared.state().turns;
    let decided = decide(&world.shared, fresh, old, gates, now).unwrap();
    assert_eq!(decided.begun.len(), 1, "{:?}", decided.steps);
}
