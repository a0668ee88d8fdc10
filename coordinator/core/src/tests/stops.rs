//! What counts as a confirmed stop: the word of an agent that knows of the order.

use muster_model::ids::LogIndex;
use muster_model::observed::{ContainerState, EngineStatus, MemberStatus, Refusal, Report};

use super::*;
use crate::command::Act;
use crate::facts::service_facts;
use crate::kinds::MemberFacts;
use crate::observe::from_report;

const SERVICE: &str = "pg-main";

fn first(world: &World) -> MemberId {
    world.state.members_of(&name(SERVICE))[&1].0
}

fn fact(world: &World) -> MemberFacts {
    let service = name(SERVICE);
    service_facts(&world.state, &service, world.now).unwrap().members[0].clone()
}

fn act(world: &mut World, act: Act) {
    let what = What::Service { service: name(SERVICE), seen: LogIndex(u64::MAX), acts: vec![act] };
    world.must(what);
}

/// The plan of the member's host as it is now gets its counter; nobody acts on it.
fn publish(world: &mut World) -> u64 {
    let host = world.state.members[&first(world)].host.clone();
    let of_host =
        |command: &Command| matches!(&command.what, What::PublishPlan { host: of, .. } if *of == host);
    let commands = reconcile::publish::publish(&world.state, world.now);
    if let Some(command) = commands.into_iter().find(of_host) {
        world.must(command.what);
    }
    world.state.hosts[&host].plan_counter
}

/// What the agent says of the member while it acts on the plan with this counter.
fn report(world: &mut World, counter: u64, state: ContainerState) {
    report_with(world, counter, state, |_| {});
}

fn report_with(world: &mut World, counter: u64, state: ContainerState, change: impl Fn(&mut MemberStatus)) {
    let member = first(world);
    let row = &world.state.members[&member];
    let host = row.host.clone();
    let there = !matches!(state, ContainerState::Absent | ContainerState::Refused { .. });
    let hash = row.rendering.as_ref().map(|r| r.container_hash.clone()).filter(|_| there).unwrap_or_default();
    let mut report = Report {
        boot: world.state.hosts[&host].boot.clone().unwrap(),
        generation: Generation { incarnation: 1, counter },
        engine: EngineStatus { answering: true, since: world.now, version: String::new() },
        facts: (*world.state.hosts[&host].facts).clone(),
        members: vec![MemberStatus {
            member,
            slot: row.slot.clone(),
            revision: Revision(1),
            container_hash: hash,
            state,
            restarts: 0,
            restarts_done: 0,
            releases: 0,
            system_id: None,
            refused: None,
            successor: None,
            probes: Vec::new(),
        }],
        answers: Vec::new(),
        conditions: Vec::new(),
        images: None,
        links: None,
    };
    change(&mut report.members[0]);
    for command in from_report(&world.state, &host, &report) {
        if let What::Observe(_) = command.what {
            world.must(command.what);
        }
    }
}

#[test]
fn what_was_seen_before_a_stop_was_ordered_does_not_confirm_it() {
    for state in [ContainerState::Stopped { code: Some(137) }, ContainerState::Absent] {
        let mut world = World::with_postgres();
        let member = first(&world);
        let before = publish(&mut world);
        report(&mut world, before, state.clone());
        assert!(!fact(&world).stopped, "its agent will start it again");
        act(&mut world, Act::Stop { member });
        assert!(!fact(&world).stopped, "{state:?} was seen before the order");
        let order = publish(&mut world);
        assert!(order > before);
        report(&mut world, before, state.clone());
        assert!(!fact(&world).stopped, "its agent does not know of the order yet");
        report(&mut world, order, state.clone());
        assert!(fact(&world).stopped, "{state:?} under the order");
        act(&mut world, Act::Start { member });
        let again = publish(&mut world);
        report(&mut world, again, state.clone());
        act(&mut world, Act::Stop { member });
        assert!(!fact(&world).stopped, "another order");
        // As it was before: the content of the plan that is published is the same.
        act(&mut world, Act::Start { member });
        act(&mut world, Act::Stop { member });
        let order = publish(&mut world);
        report(&mut world, order, state);
        assert!(fact(&world).stopped);
    }
}

#[test]
fn an_agent_that_does_not_know_yet_confirms_nothing() {
    let mut world = World::with_postgres();
    let member = first(&world);
    act(&mut world, Act::Stop { member });
    let order = publish(&mut world);
    report(&mut world, order, ContainerState::Unknown);
    assert!(!fact(&world).stopped);
    report(&mut world, order, ContainerState::Absent);
    assert!(fact(&world).stopped);
    // The host goes down, and its agent begins anew: what it said before is void.
    let host = world.state.members[&member].host.clone();
    let boot = Some(BootId("another".to_owned()));
    world.must(What::HostLiveness { host: host.clone(), liveness: Liveness::Down, boot: None });
    assert!(!fact(&world).stopped);
    world.must(What::HostLiveness { host, liveness: Liveness::Up, boot });
    assert!(!fact(&world).stopped);
    report(&mut world, order, ContainerState::Absent);
    assert!(fact(&world).stopped);
}

#[test]
fn a_member_without_a_container_is_missing_only_if_its_agent_cannot_make_one() {
    let mut world = World::with_postgres();
    let counter = publish(&mut world);
    report(&mut world, counter, ContainerState::Absent);
    assert!(!fact(&world).missing, "it is about to make one");
    let why = Refusal::VolumeLost { found: "nothing".to_owned() };
    report(&mut world, counter, ContainerState::Refused { why });
    assert!(fact(&world).missing);
}

#[test]
fn a_member_is_kept_while_an_earlier_container_serves_and_its_successor_cannot_be_made() {
    let mut world = World::new(1);
    world.apply_spec(&spec(serde_json::json!({ SERVICE: { "kind": "app", "image": "demo/web:1" } })));
    world.run_until("ready", |state| state.members.len() == 1 && all_ready(state));
    let counter = publish(&mut world);
    let running = || ContainerState::Running { since: Timestamp(1) };
    let why = || Some(Refusal::ImageMissing { image: "muster/nowhere:1".to_owned() });
    report_with(&mut world, counter, running(), |status| status.successor = why());
    assert!(!fact(&world).kept, "what runs is what is asked for");
    report_with(&mut world, counter, running(), |status| status.container_hash = "older".to_owned());
    assert!(!fact(&world).kept, "it is about to be replaced");
    report_with(&mut world, counter, running(), |status| {
        (status.container_hash, status.successor) = ("older".to_owned(), why());
    });
    let fact = fact(&world);
    assert!(fact.kept && fact.seen.is_none() && !fact.missing);
}
