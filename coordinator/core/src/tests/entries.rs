//! What apply refuses, and what it does once only.

use std::net::Ipv4Addr;

use muster_model::view::Scheduling;

use super::*;
use crate::command::{Act, Caller};
use crate::state::TokenRole;

#[test]
fn a_decision_on_an_older_state_has_no_effect() {
    let mut world = World::with_postgres();
    let service = name("pg-main");
    let seen = world.state.fence(&service);
    let (member, _) = world.state.members_of(&service)[&2];
    world.down(1);
    let before = world.state.members.clone();
    let acts = vec![Act::Restart { member }];
    let refused = world.propose(What::Service { service, seen, acts }).unwrap_err();
    assert!(matches!(refused, Rejected::Stale { .. }), "{refused}");
    assert_eq!(world.state.members, before);
}

#[test]
fn a_change_of_a_child_makes_decisions_about_its_owner_stale() {
    let mut world = World::with_postgres();
    let seen = world.state.fence(&name("pg-main"));
    let child = name("pg-main-etcd");
    let (member, _) = world.state.members_of(&child)[&1];
    let acts = vec![Act::Restart { member }];
    world.must(What::Service { service: child.clone(), seen: world.state.fence(&child), acts });
    assert!(world.state.fence(&name("pg-main")) > seen);
}

#[test]
fn a_refused_step_undoes_the_ones_before_it() {
    let mut world = World::with_postgres();
    let service = name("pg-main");
    let (member, _) = world.state.members_of(&service)[&2];
    let before = world.state.members.clone();
    let acts = vec![Act::Restart { member }, Act::Adopt { member }];
    let seen = world.state.fence(&service);
    assert!(world.propose(What::Service { service, seen, acts }).is_err());
    assert_eq!(world.state.members, before);
}

#[test]
fn a_repeated_call_gets_the_first_answer_and_has_no_second_effect() {
    let mut world = World::new(1);
    let caller = Caller { client: "cli-1".to_owned(), serial: 7 };
    let token = What::CreateToken {
        hash: "aa".to_owned(),
        role: TokenRole::Host,
        expires: world.now.after(Millis::seconds(900)),
    };
    let call = Command::from_actor("admin", Some(caller.clone()), token);
    let first = world.command(&call).unwrap();
    assert_eq!(world.command(&call).unwrap(), first);
    let next = Command { caller: Some(Caller { serial: 8, ..caller }), ..call };
    assert!(matches!(world.command(&next).unwrap_err(), Rejected::Exists { .. }));
}

#[test]
fn of_two_users_of_a_token_exactly_one_succeeds() {
    let mut world = World::new(1);
    let expires = world.now.after(Millis::seconds(900));
    world.must(What::CreateToken { hash: "aa".to_owned(), role: TokenRole::Host, expires });
    let take = |role, user: &str| What::UseToken { hash: "aa".to_owned(), role, user: user.to_owned() };
    let wrong = world.propose(take(TokenRole::Coordinator, "k1")).unwrap_err();
    assert!(wrong.to_string().contains("is for a host"), "{wrong}");
    world.must(take(TokenRole::Host, "k1"));
    world.must(take(TokenRole::Host, "k1"));
    let second = world.propose(take(TokenRole::Host, "k2")).unwrap_err();
    assert!(second.to_string().contains("was used already"), "{second}");
    world.now = expires;
    world.must(What::CreateToken {
        hash: "bb".to_owned(),
        role: TokenRole::Host,
        expires: Timestamp(expires.0 + 1),
    });
    world.now = Timestamp(expires.0 + 1);
    let late = What::UseToken { hash: "bb".to_owned(), role: TokenRole::Host, user: "k3".to_owned() };
    assert!(world.propose(late).unwrap_err().to_string().contains("has expired"));
}

#[test]
fn the_time_of_the_state_never_goes_back() {
    let mut world = World::new(1);
    let at = world.state.at;
    world.now = Timestamp(5);
    world.must(What::SetScheduling { host: host_id(1), scheduling: Scheduling::Cordoned, outage: false });
    assert_eq!(world.state.at, at);
}

#[test]
fn a_spec_planned_on_an_older_one_is_refused() {
    let mut world = World::new(3);
    let planned = world.state.index;
    world.apply_spec(&spec(postgres()));
    let second = What::ApplySpec { spec: spec(serde_json::json!({})), yaml: "".into(), at: Some(planned) };
    assert!(matches!(world.propose(second).unwrap_err(), Rejected::Stale { .. }));
}

#[test]
fn absence_from_the_spec_never_deletes() {
    let mut world = World::with_postgres();
    let empty = What::ApplySpec { spec: spec(serde_json::json!({})), yaml: "".into(), at: None };
    let why = world.propose(empty).unwrap_err().to_string();
    assert!(why.contains("muster service remove pg-main --keep-data|--destroy-data"), "{why}");
    assert_eq!(world.state.members.len(), 8);
}

#[test]
fn two_hosts_cannot_have_one_name_but_one_key_may_join_again() {
    let mut world = World::new(2);
    let again = |number: usize, called: &str| HostRegistration {
        id: host_id(number),
        name: name(called),
        address: "198.51.100.7".parse().unwrap(),
        zone: "z".to_owned(),
        labels: BTreeMap::new(),
        key_digest: String::new(),
    };
    assert!(world.propose(What::RegisterHost(again(9, "vps-1"))).is_err());
    let reply = world.must(What::RegisterHost(again(1, "vps-1")));
    assert_eq!(reply.mesh_address, Some(Ipv4Addr::new(10, 210, 0, 1)));
    assert_eq!(world.state.hosts[&host_id(1)].address.to_string(), "198.51.100.7");
}

#[test]
fn a_report_of_an_earlier_boot_is_refused() {
    let mut world = World::with_postgres();
    world.up(1, "boot-2");
    let (member, _) = world.state.members_on(&host_id(1)).next().unwrap();
    let old = What::Observe(Observation {
        host: host_id(1),
        boot: BootId("boot-1".to_owned()),
        generation: generation(1),
        members: vec![(member, Some(Observed { ready: true, ..Observed::default() }))],
        gone: Vec::new(),
        answers: Vec::new(),
    });
    assert!(world.propose(old).is_err());
    assert_eq!(world.state.members[&member].observed, None, "after a boot nothing is known");
}

#[test]
fn every_audited_action_is_chained_and_a_changed_line_is_found() {
    let mut world = World::new(1);
    for serial in 0..3 {
        let what = What::Audit { action: format!("refused call {serial}") };
        world.command(&Command::from_actor("viewer", None, what)).unwrap();
    }
    assert_eq!(world.state.audit.broken_at(), None);
    let mut forged = world.state.audit.clone();
    let entry = Arc::make_mut(&mut forged.entries[1]);
    entry.action = "nothing".to_owned();
    assert!(forged.broken_at().is_some());
}

#[test]
fn a_secret_is_replaced_only_by_who_knows_its_version() {
    let mut world = World::new(1);
    let put = |replaces| What::PutSecret {
        name: "a/b".to_owned(),
        sealed: "eA==".to_owned(),
        replaces,
        certificate: None,
    };
    world.must(put(0));
    assert!(world.propose(put(0)).is_err());
    world.must(put(1));
    assert_eq!(world.state.secrets["a/b"].version, 2);
}

#[test]
fn a_snapshot_is_the_same_state_again() {
    let world = World::with_postgres();
    let bytes = crate::version::encode_state(&world.state);
    assert_eq!(crate::version::decode_state(&bytes).unwrap(), world.state);
}

#[test]
fn old_bytes_are_read_and_newer_ones_refused() {
    let bytes = include_bytes!("../../fixtures/state-1.json");
    let state = crate::version::decode_state(bytes).unwrap();
    assert_eq!(state.platform.as_ref().unwrap().name, name("demo"));
    assert_eq!(state.members.len(), 8);
    assert_eq!(crate::version::encode_state(&state), bytes.trim_ascii_end(), "written as it was read");
    let entries = include_str!("../../fixtures/commands-1.jsonl");
    for line in entries.lines() {
        let command = crate::version::decode_command(line.as_bytes()).unwrap();
        assert_eq!(crate::version::encode_command(&command), line.as_bytes());
    }
    let newer = br#"{"format":99}"#;
    assert!(crate::version::decode_state(newer).unwrap_err().to_string().contains("format 99"));
}
