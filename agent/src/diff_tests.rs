//! Tests of `diff`: one table-like test for each promise.

use muster_model::ids::Revision;
use muster_model::plan::OnChange;
use muster_model::plan::{FileSpec, VolumeSpec};

use super::*;
use crate::fixtures::{member, name, plan, release};
use crate::ledger::KnownVolumes;
use crate::release::Episode;

#[derive(Default)]
struct World {
    memory: BTreeMap<MemberId, Memory>,
    ledger: Ledger,
    gates: Gates,
    busy: BTreeSet<MemberId>,
}

const M: MemberId = MemberId(1);
const NOW: Timestamp = Timestamp(1_000_000);

impl World {
    fn ready() -> Self {
        let mut world = Self::default();
        world.gates.images.insert("muster/busybox:1.35".to_owned());
        world
    }

    fn steps(&self, plan: &HostPlan, seen: &[Seen]) -> Vec<StepKind> {
        let facts =
            Facts { memory: &self.memory, ledger: &self.ledger, gates: &self.gates, busy: &self.busy };
        diff(plan, seen, &facts, NOW).into_iter().map(|step| step.kind).collect()
    }

    fn crashed(mut self, episode: Episode, crashes: u32) -> Self {
        let phase = Phase::Crashed(episode);
        self.memory.insert(M, Memory { phase, crashes, ..Memory::default() });
        self.ledger.started.insert(M);
        self
    }
}

fn seen(of: &MemberPlan, state: SeenState) -> Seen {
    Seen {
        id: format!("id-{}", of.member),
        name: container_name(&of.slot, of.member),
        member: of.member,
        slot: of.slot.clone(),
        revision: Revision(1),
        hash: of.rendered.container_hash(),
        restarts: of.restarts,
        first: false,
        addresses: of.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
        state,
    }
}

const RUNNING: SeenState = SeenState::Running { since: Timestamp(1) };
const EXITED: SeenState = SeenState::Stopped { code: 137 };

#[test]
fn from_nothing_to_running_and_then_nothing_more() {
    let world = World::ready();
    let plan = plan(1, vec![member(1)]);
    let mine = &plan.members[0];
    assert_eq!(world.steps(&plan, &[]), [StepKind::Create { first: false }]);
    assert_eq!(world.steps(&plan, &[seen(mine, SeenState::Created)]), [StepKind::Start]);
    assert_eq!(world.steps(&plan, &[seen(mine, RUNNING)]), []);
}

#[test]
fn each_thing_that_is_missing_is_named() {
    let plan = plan(1, vec![member(1)]);
    let why = |change: fn(&mut Gates)| {
        let mut world = World::ready();
        change(&mut world.gates);
        match world.steps(&plan, &[]).remove(0) {
            StepKind::Wait { why } => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(why(|g| g.images.clear()), Refusal::ImageMissing { .. }));
    let lost = |g: &mut Gates| g.volumes_lost.extend([(M, "gone".to_owned())]);
    assert!(matches!(why(lost), Refusal::VolumeLost { .. }));
    let secret = |g: &mut Gates| g.secrets_missing.extend([(M, "pg/app".to_owned())]);
    assert!(matches!(why(secret), Refusal::SecretMissing { .. }));
    let network = |g: &mut Gates| g.network.extend([(M, "nft".to_owned())]);
    assert!(matches!(why(network), Refusal::NetworkNotReady { .. }));
    assert_eq!(why(|g| g.disk_full = true), Refusal::DiskFull);
}

#[test]
fn a_full_disk_does_not_keep_down_what_ran_before() {
    let mut world = World::ready().crashed(Episode::default(), 1);
    world.gates.disk_full = true;
    let plan = plan(1, vec![member(1)]);
    assert_eq!(world.steps(&plan, &[seen(&plan.members[0], EXITED)]), [StepKind::Start]);
}

#[test]
fn a_changed_member_is_stopped_removed_and_made_again_but_not_for_a_missing_image() {
    let mut world = World::ready();
    let mut plan = plan(1, vec![member(1)]);
    let old = seen(&plan.members[0], RUNNING);
    plan.members[0].rendered.command.push("more".to_owned());
    assert!(matches!(world.steps(&plan, std::slice::from_ref(&old))[..], [StepKind::Stop { .. }]));
    assert_eq!(world.steps(&plan, &[Seen { state: EXITED, ..old.clone() }]), [StepKind::Remove]);
    world.gates.images.clear();
    assert!(matches!(world.steps(&plan, &[old])[..], [StepKind::Wait { .. }]));
}

#[test]
fn a_restart_asked_for_is_done_once() {
    let world = World::ready();
    let mut plan = plan(1, vec![member(1)]);
    let old = seen(&plan.members[0], RUNNING);
    plan.members[0].restarts = 2;
    assert!(matches!(world.steps(&plan, &[old])[..], [StepKind::Stop { .. }]));
    assert_eq!(world.steps(&plan, &[seen(&plan.members[0], RUNNING)]), []);
}

#[test]
fn an_additive_plan_stops_and_removes_nothing() {
    let world = World::ready();
    let mut plan = plan(1, vec![member(1)]);
    plan.additive_only = true;
    let old = seen(&plan.members[0], RUNNING);
    let stray = seen(&member(2), RUNNING);
    plan.members[0].rendered.command.push("more".to_owned());
    assert_eq!(world.steps(&plan, &[old, stray]), []);
    plan.members[0].run = Run::Stopped;
    assert_eq!(world.steps(&plan, &[seen(&plan.members[0], RUNNING)]), []);
}

#[test]
fn what_is_not_in_the_plan_goes_and_its_data_is_put_aside_only_then() {
    let mut world = World::ready();
    let plan = plan(1, vec![]);
    let stray = seen(&member(2), RUNNING);
    let volumes = KnownVolumes {
        slot: stray.slot.clone(),
        made: BTreeSet::new(),
        with_data: BTreeSet::new(),
        system_id: None,
    };
    world.ledger.volumes.insert(MemberId(2), volumes);
    assert!(matches!(world.steps(&plan, std::slice::from_ref(&stray))[..], [StepKind::Stop { .. }]));
    assert_eq!(world.steps(&plan, &[Seen { state: EXITED, ..stray }]), [StepKind::Remove]);
    assert_eq!(world.steps(&plan, &[]), [StepKind::Quarantine]);
}

#[test]
fn the_first_starts_command_is_never_replayed_once_it_succeeded() {
    let mut world = World::ready();
    let mut plan = plan(1, vec![member(1)]);
    plan.members[0].rendered.first_command = Some(vec!["form".to_owned()]);
    assert_eq!(world.steps(&plan, &[]), [StepKind::Create { first: true }]);
    let first = Seen { first: true, ..seen(&plan.members[0], EXITED) };
    assert_eq!(world.steps(&plan, std::slice::from_ref(&first)), [StepKind::Start]);
    world.ledger.first_done.insert(M);
    assert_eq!(world.steps(&plan, std::slice::from_ref(&first)), [StepKind::Remove]);
    assert_eq!(world.steps(&plan, &[Seen { state: RUNNING, ..first.clone() }]), []);
    assert_eq!(world.steps(&plan, &[]), [StepKind::Create { first: false }]);
    plan.additive_only = true;
    assert_eq!(world.steps(&plan, &[first]), [StepKind::Remove]);
}

#[test]
fn a_crash_is_released_before_it_is_started_even_while_held() {
    let mut plan = plan(1, vec![member(1)]);
    plan.members[0].rendered.release = Some(release());
    let mine = plan.members[0].clone();
    let world = World::ready().crashed(Episode::default(), 1);
    for containers in [vec![seen(&mine, EXITED)], vec![]] {
        assert_eq!(world.steps(&plan, &containers), [StepKind::Release { anyway: false }]);
    }
    let asked = Episode { asked: true, ..Episode::default() };
    let mut held = World::ready().crashed(asked, 1);
    held.memory.entry(M).or_default().hold(Timestamp(NOW.0 + 1));
    let waits = held.steps(&plan, &[seen(&mine, EXITED)]);
    assert!(matches!(waits[..], [StepKind::Wait { why: Refusal::Held { .. } }]));
    let hopeless = World::ready().crashed(asked, 4);
    assert_eq!(hopeless.steps(&plan, &[seen(&mine, EXITED)]), [StepKind::Release { anyway: true }]);
    let running = World::ready().crashed(Episode::default(), 1);
    assert_eq!(running.steps(&plan, &[seen(&mine, RUNNING)]), []);
}

#[test]
fn a_planned_stop_releases_nothing() {
    let mut plan = plan(1, vec![member(1)]);
    plan.members[0].rendered.release = Some(release());
    let mut world = World::ready();
    world.ledger.started.insert(M);
    world.memory.entry(M).or_default().stopped_by_plan();
    assert_eq!(world.steps(&plan, &[]), [StepKind::Create { first: false }]);
}

#[test]
fn a_busy_member_gets_no_step() {
    let mut world = World::ready();
    world.busy.insert(M);
    world.busy.insert(MemberId(2));
    assert_eq!(world.steps(&plan(1, vec![member(1)]), &[seen(&member(2), RUNNING)]), []);
}

#[test]
fn a_lost_network_is_joined_again_and_a_reload_follows_its_file() {
    let mut world = World::ready();
    let mut plan = plan(1, vec![member(1)]);
    let mut mine = seen(&plan.members[0], RUNNING);
    mine.addresses.clear();
    let attach = StepKind::Attach { network: name("proxy"), address: [172, 30, 0, 9].into() };
    assert_eq!(world.steps(&plan, std::slice::from_ref(&mine)), [attach]);
    mine.state = EXITED;
    assert_eq!(world.steps(&plan, &[mine]), [StepKind::Remove]);
    plan.members[0].rendered.files.push(FileSpec {
        path: "/muster/x".to_owned(),
        content: "y".to_owned(),
        mode: 0o444,
        on_change: OnChange::Reload("reload".to_owned()),
    });
    world.memory.entry(M).or_default().reloads.insert("reload".to_owned());
    let running = [seen(&plan.members[0], RUNNING)];
    assert!(matches!(&world.steps(&plan, &running)[..], [StepKind::Reload { .. }]));
}

#[test]
fn a_copy_of_a_member_is_removed_first() {
    let world = World::ready();
    let mut plan = plan(1, vec![member(1)]);
    plan.members[0].rendered.volumes.push(VolumeSpec { name: name("data"), path: "/data".to_owned() });
    let mine = seen(&plan.members[0], EXITED);
    let copy = Seen { id: "copy".to_owned(), name: "other".to_owned(), state: RUNNING, ..mine.clone() };
    assert!(matches!(world.steps(&plan, &[copy.clone(), mine.clone()])[..], [StepKind::Stop { .. }]));
    plan.additive_only = true;
    assert_eq!(world.steps(&plan, &[copy, mine]), []);
}
