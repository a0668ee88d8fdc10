//! Golden files and decisions of this kind.

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::TaskOutcome;
use muster_model::plan::TaskKind;
use muster_model::spec::ServiceSpec;
use muster_model::time::Timestamp;
use muster_model::view::HealthWord;
use serde_json::{Value, json};

use super::arbitrator::Arbitrator;
use super::{HISTORY, HOLDERS, Mariadb};
use crate::kinds::golden::{
    arbitrated, arbitrator_of, child_of, compare, facts, member, name, owner_of, peer, problems, refused,
    running, spec,
};
use crate::kinds::tls::Tls;
use crate::kinds::{Kind, MemberFacts, OPERATORS_WORD, Procedure, ProcedureStep, ServiceFacts, UpdateStep};

const HA: &str = r#"{"kind":"mariadb"}"#;
const WRITTEN: &str = r#"{"kind":"mariadb","members":5,"image":"registry.example/db:11","gcache":"1GiB",
    "parameters":{"max_connections":400,"sql_mode":"ANSI","slow_query_log":true},"users":[{"name":"shop"},{"name":"report"}],
    "databases":[{"name":"shop"},{"name":"facts","owner":"report"}],"resources":{"memory":"1GiB","cpus":1.5}}"#;
const UUID: &str = "5a3f7c1e-0000-11ef-8000-000000000001";

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let mut scene = owner_of(HA);
    for index in 0..scene.peers.len() {
        compare(&format!("mariadb/ha-{}", index + 1), &scene.render(index));
    }
    scene.peers[1] = peer(2, 9, 36);
    scene.joins_existing = true;
    compare("mariadb/joins", &scene.render(1));
    compare("mariadb/written", &owner_of(WRITTEN).render(1));
    compare("mariadb/required", &owner_of(r#"{"kind":"mariadb","tls":"required"}"#).render(0));
    compare("mariadb/without-tls", &owner_of(r#"{"kind":"mariadb","tls":"none"}"#).render(0));
    for router in ["proxysql", "maxscale"] {
        let written = with_router(router);
        compare(&format!("mariadb/{router}"), &child_of(&written, "proxy").render(0));
        compare(&format!("mariadb/behind-{router}"), &owner_of(&written).render(0));
    }
    const TWO: &str = r#"{"kind":"mariadb","members":2}"#;
    compare("mariadb/arbitrated", &arbitrated(TWO).render(0));
    compare("mariadb/arbitrator", &arbitrator_of(TWO).render(0));
    compare("mariadb/proxy", &child_of(HA, "proxy").render(0));
    let mut single = owner_of(r#"{"kind":"mariadb","mode":"single"}"#);
    single.peers.truncate(1);
    single.children.clear();
    compare("mariadb/single", &single.render(0));
}

/// A service behind another router than ours.
fn with_router(router: &str) -> String {
    format!(
        r#"{{"kind":"mariadb","router":"{router}","proxy_image":"registry.example/router:1","users":[{{"name":"shop"}},{{"name":"report"}}]}}"#
    )
}

#[test]
fn a_router_of_the_operators_says_what_it_costs_and_takes_over_what_it_decides() {
    for (router, licence) in [("proxysql", "GPL 3"), ("maxscale", "Business Source License 1.1")] {
        let (service, spec) = (name("orders"), spec(&with_router(router)));
        let remarks = Mariadb.remarks(&service, &spec).join("\n");
        assert!(remarks.contains(licence) && remarks.contains("nobody has run it"), "{remarks}");
        let all = cluster(&service, &spec, ["leader", "replica", "replica"]);
        assert!(Mariadb.switchover(&all, None).is_err() && Mariadb.rotation(&spec, "user-shop").is_err());
        assert_eq!(Mariadb.tls(&spec), Tls::None);
        assert!(Mariadb.may_become(&service, &crate::kinds::golden::spec(HA), &spec).is_err());
    }
    let (service, spec) = (name("orders"), spec(HA));
    assert!(Mariadb.remarks(&service, &spec).is_empty() && Mariadb.rotation(&spec, "user-app").is_ok());
    let plain = |router: &str| format!(r#"{{"kind":"{router}","image":"registry.example/router:1"}}"#);
    refused(&plain("proxysql"), "kind");
    refused(&plain("maxscale"), "kind");
}

#[test]
fn a_replaced_member_restarts_no_other_and_begins_nothing() {
    let mut scene = owner_of(HA);
    let before = scene.render(0);
    assert!(before.first_command.is_some() && scene.render(1).first_command.is_none());
    scene.peers[1] = peer(2, 9, 36);
    let after = scene.render(0);
    assert_ne!(before.files, after.files);
    assert_eq!(before.container_hash(), after.container_hash());
    scene.joins_existing = true;
    assert_eq!(scene.render(0).first_command, None);
}

#[test]
fn tls_becomes_a_must_without_a_restart_and_strings_say_it_once_every_member_has_a_certificate() {
    let with = |tls: &str| owner_of(&format!(r#"{{"kind":"mariadb","tls":"{tls}"}}"#));
    let (optional, required, none) =
        (with("optional").render(0), with("required").render(0), with("none").render(0));
    assert_ne!(optional.files, required.files);
    assert_eq!(optional.container_hash(), required.container_hash());
    assert_ne!(
        optional.container_hash(),
        none.container_hash(),
        "the server begins with TLS or never has it"
    );
    assert!(!none.actions.contains_key("tls") && optional.actions.contains_key("tls"));
    let url = |tls: &str, from_before: usize| {
        let mut scene = with(tls);
        scene.peers[..from_before].iter_mut().for_each(|peer| peer.tls = false);
        Mariadb.endpoints(&scene.service, &scene.spec, &scene.peers, &scene.children, None).remove(0).url
    };
    let secured = "?ssl-mode=VERIFY_IDENTITY&ssl-ca=${ca}";
    assert!(url("optional", 0).ends_with(secured) && url("required", 0).ends_with(secured));
    assert!(!url("none", 0).contains("ssl") && !url("optional", 1).contains("ssl"));
}

#[test]
fn wrong_settings_are_refused_with_path_and_remedy() {
    assert_eq!(problems(WRITTEN, &[]), []);
    let with = |field: &str| format!(r#"{{"kind":"mariadb",{field}}}"#);
    for (field, path) in [
        (r#""mode":"cluster""#, "mode"),
        (r#""members":1"#, "members"),
        (r#""members":4"#, "members"),
        (r#""mode":"single","members":3"#, "members"),
        (r#""network":"nowhere""#, "network"),
        (r#""gcache":"1MiB""#, "gcache"),
        (r#""parameters":{"datadir":"/tmp"}"#, "parameters.datadir"),
        (r#""parameters":{"wsrep_on":"OFF"}"#, "parameters.wsrep_on"),
        (r#""parameters":{"sql_mode":"x\nuser=root"}"#, "parameters.sql_mode"),
        (r#""parameters":{"sql_mode":"${secret:other/superuser}"}"#, "parameters.sql_mode"),
        (r#""parameters":{"a=b":1}"#, "parameters.a=b"),
        (r#""parameters":{"ssl_cert":"/x"}"#, "parameters.ssl_cert"),
        (r#""parameters":{"require_secure_transport":true}"#, "parameters.require_secure_transport"),
        (r#""tls":"on""#, "tls"),
        (r#""router":"nginx""#, "router"),
        (r#""router":"proxysql""#, "router"),
        (r#""router":"maxscale","proxy_image":"a:1","mode":"single""#, "router"),
        (r#""router":"maxscale","proxy_image":"a:1","tls":"required""#, "tls"),
        (r#""users":[{"name":"root"}]"#, "users.0.name"),
        (r#""databases":[{"name":"mysql"}]"#, "databases.0.name"),
        (r#""databases":[{"name":"a","owner":"nobody"}]"#, "databases.0.owner"),
        (r#""member":3"#, "member"),
    ] {
        refused(&with(field), path);
    }
}

fn said(change: Value) -> Value {
    let mut said = json!({
        "primary": true, "state": "Synced", "uuid": UUID, "size": 3, "view": "3", "queue": 0, "synced": true, "donor": false,
        "reach_hours": 30.5, "writer": false, "writes": false, "leaving": false, "why": "", "name": "orders-1-4",
    });
    said.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    said
}

/// Role, ready, caught up, takes writes, detail.
fn read(change: Value) -> (String, bool, bool, Option<bool>, String) {
    let status = running("orders", 1, 4, &[("status", true, said(change))]);
    let seen = Mariadb.interpret(&spec(HA), &status);
    (seen.role.unwrap_or_default(), seen.ready, seen.caught_up, seen.writes, seen.detail)
}

#[test]
fn a_member_is_ready_only_in_step_and_with_a_history() {
    let row = |role: &str, ready, caught_up, writes, detail: &str| {
        (role.to_owned(), ready, caught_up, writes, detail.to_owned())
    };
    let reach = "write cache reaches 24 h or more";
    assert_eq!(read(json!({})), row("replica", true, true, None, reach));
    assert_eq!(read(json!({ "writer": true, "writes": true })), row("leader", true, true, Some(true), reach));
    let (role, ready, _, writes, detail) = read(json!({ "writer": true }));
    assert_eq!((role.as_str(), ready, writes), ("leader", false, Some(false)));
    assert!(detail.contains("writes do not get through"), "{detail}");
    let lost = read(json!({ "uuid": super::observe::NO_HISTORY }));
    assert!(!lost.1 && lost.4.contains("uuid all zero"), "{lost:?}");
    let donor = read(json!({ "synced": false, "state": "Donor/Desynced", "why": "Donor/Desynced" }));
    assert_eq!((donor.0.as_str(), donor.1), ("donor", false));
    let joining =
        read(json!({ "synced": false, "state": "Joining: receiving State Transfer", "why": "Joining" }));
    assert_eq!((joining.0.as_str(), joining.1), ("joining", false));
    let apart = read(
        json!({ "synced": false, "primary": false, "state": "Initialized", "why": "no primary component" }),
    );
    assert_eq!(apart, row("apart", false, false, None, "no primary component"));
    assert!(read(json!({ "size": 2 })).4.starts_with("sees 2 of 3 members"));
    assert!(!read(json!({ "queue": 500 })).2);
}

/// A formed cluster whose members have these roles; those with an empty role are not ready.
fn cluster<'a>(
    service: &'a muster_model::ids::Name,
    spec: &'a ServiceSpec,
    roles: [&str; 3],
) -> ServiceFacts<'a> {
    let members = (1..).zip(roles).map(|(slot, role)| {
        let ready = role == "leader" || role == "replica";
        let mut member = member(slot, role, ready);
        if let Some(seen) = &mut member.seen {
            seen.system_id = ready.then(|| UUID.to_owned());
            seen.writes = (role == "leader").then_some(true);
        }
        member
    });
    facts(service, spec, members.collect())
}

#[test]
fn members_join_one_at_a_time_after_the_first() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut new = cluster(&service, &spec, ["", "", ""]);
    new.formed = false;
    new.members.iter_mut().for_each(|member| {
        member.started = false;
        member.seen = None;
    });
    assert!(Mariadb.may_start(&new, 1).is_ok() && Mariadb.may_start(&new, 2).is_err());
    let mut joining = cluster(&service, &spec, ["leader", "joining", ""]);
    joining.members[2].started = false;
    assert!(Mariadb.may_start(&joining, 3).is_err());
    let mut joined = cluster(&service, &spec, ["leader", "replica", ""]);
    joined.members[2].started = false;
    assert!(Mariadb.may_start(&joined, 3).is_ok());
    assert!(Mariadb.is_formed(&joined) && !Mariadb.is_formed(&new));
}

#[test]
fn health_has_five_words() {
    let (service, spec) = (name("orders"), spec(HA));
    let word = |roles| Mariadb.health(&cluster(&service, &spec, roles)).word;
    assert_eq!(word(["leader", "replica", "replica"]), HealthWord::Healthy);
    assert_eq!(word(["leader", "replica", ""]), HealthWord::Critical);
    assert_eq!(word(["leader", "", ""]), HealthWord::Critical);
    assert_eq!(word(["", "", ""]), HealthWord::Down);
    let mut dark = cluster(&service, &spec, ["leader", "replica", "replica"]);
    dark.members[1].seen = None;
    dark.members[2].seen = None;
    assert_eq!(Mariadb.health(&dark).word, HealthWord::Unknown);
    let mut two = cluster(&service, &spec, ["leader", "replica", "replica"]);
    two.members[2].seen.as_mut().unwrap().system_id = Some("another".to_owned());
    let health = Mariadb.health(&two);
    assert_eq!(health.word, HealthWord::Critical);
    assert!(health.reasons.iter().any(|why| why.contains("different clusters")), "{health:?}");
}

#[test]
fn nothing_is_stopped_while_a_copy_is_under_way_or_somebody_is_missing() {
    let (service, spec) = (name("orders"), spec(HA));
    let may = |roles, slot: u64| Mariadb.may_stop(&cluster(&service, &spec, roles), MemberId(slot)).is_ok();
    assert!(may(["leader", "replica", "replica"], 2) && may(["leader", "replica", "replica"], 1));
    assert!(!may(["leader", "replica", ""], 2) && may(["leader", "replica", ""], 3));
    assert!(!may(["leader", "donor", "joining"], 1));
    let mut queue = cluster(&service, &spec, ["leader", "replica", "replica"]);
    queue.members[2].seen.as_mut().unwrap().caught_up = false;
    assert!(Mariadb.may_stop(&queue, MemberId(2)).is_err());
    let mut view = cluster(&service, &spec, ["leader", "replica", "replica"]);
    view.members[2].seen.as_mut().unwrap().detail = "sees 2 of 3 members".to_owned();
    assert!(Mariadb.may_stop(&view, MemberId(2)).is_err());
}

#[test]
fn a_writer_that_waits_for_a_lost_host_is_not_re_created() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["leader", "replica", ""]);
    facts.members.iter_mut().for_each(|member| member.current = false);
    facts.members[2].host_up = false;
    facts.members[2].seen = None;
    facts.members[0].seen.as_mut().unwrap().ready = false;
    assert!(matches!(Mariadb.next_update(&facts), UpdateStep::Wait(_)), "{:?}", Mariadb.next_update(&facts));
    facts.members[0].seen.as_mut().unwrap().running = false;
    assert_eq!(
        Mariadb.next_update(&facts),
        UpdateStep::Recreate(MemberId(1)),
        "it does not run: nothing goes"
    );
}

#[test]
fn two_members_with_an_image_that_does_not_work_do_not_wait_for_each_other() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["", "", "leader"]);
    for index in [0, 1] {
        facts.members[index].current = false;
        facts.members[index].seen.as_mut().unwrap().ready = false;
    }
    assert_eq!(Mariadb.next_update(&facts), UpdateStep::Recreate(MemberId(1)));
    facts.members[2].seen.as_mut().unwrap().role = Some("donor".to_owned());
    assert!(matches!(Mariadb.next_update(&facts), UpdateStep::Wait(_)), "one of them is given a copy");
}

#[test]
fn an_update_takes_the_writer_last() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["replica", "leader", "replica"]);
    facts.members.iter_mut().for_each(|member| member.current = false);
    for (slot, next) in [(1, 3), (3, 2)] {
        assert_eq!(Mariadb.next_update(&facts), UpdateStep::Recreate(MemberId(slot)));
        facts.members[slot as usize - 1].current = true;
        assert_eq!(Mariadb.next_update(&facts), UpdateStep::Recreate(MemberId(next)));
    }
    facts.members[1].current = true;
    assert_eq!(Mariadb.next_update(&facts), UpdateStep::Done);
}

#[test]
fn the_writing_moves_only_to_a_member_in_step() {
    let (service, spec) = (name("orders"), spec(HA));
    let facts = cluster(&service, &spec, ["leader", "replica", ""]);
    let task = Mariadb.switchover(&facts, None).unwrap();
    assert_eq!(task.member, MemberId(2));
    assert!(task.guard.is_some());
    assert!(Mariadb.switchover(&facts, Some(3)).is_err() && Mariadb.switchover(&facts, Some(1)).is_err());
}

#[test]
fn losses_are_computed_from_where_members_are() {
    let (service, spec) = (name("orders"), spec(HA));
    let all = cluster(&service, &spec, ["leader", "replica", "replica"]);
    assert!(Mariadb.survivability(&all).stops_writes.is_empty());
    let mut less = cluster(&service, &spec, ["leader", "replica", "replica"]);
    less.members[2].host_up = false;
    assert_eq!(Mariadb.survivability(&less).stops_writes.len(), 2);
}

/// Two members with data and the arbitrator, each there or not.
fn judge_two(there: [bool; 3], read: impl FnOnce(&ServiceFacts<'_>)) {
    let (service, spec) = (name("orders"), spec(r#"{"kind":"mariadb","members":2}"#));
    let children = Mariadb.children(&service, &spec);
    let child = children.iter().find(|child| child.role.as_str() == "arbitrator").unwrap();
    let named = name("orders-arbitrator");
    let mut all = cluster(&service, &spec, ["leader", "replica", ""]);
    let mut third = all.members.remove(2);
    third.seen.as_mut().unwrap().ready = true;
    third.slot = 1;
    let mut arbitrator = facts(&named, &child.spec, vec![third]);
    for (member, _) in
        all.members.iter_mut().chain(&mut arbitrator.members).zip(there).filter(|(_, there)| !there)
    {
        member.seen = None;
        member.host_up = false;
    }
    all.slots = 2;
    arbitrator.owner_members.clone_from(&all.members);
    all.children.insert(name("arbitrator"), arbitrator);
    read(&all);
}

#[test]
fn two_members_and_an_arbitrator_lose_any_one_host_and_no_second() {
    let arbitrator =
        |facts: &ServiceFacts<'_>| Arbitrator.may_stop(&facts.children[&name("arbitrator")], MemberId(3));
    judge_two([true; 3], |all| {
        assert_eq!(Mariadb.health(all).word, HealthWord::Healthy);
        assert!(Mariadb.survivability(all).stops_writes.is_empty(), "{:?}", Mariadb.survivability(all));
        assert!(Mariadb.may_stop(all, MemberId(1)).is_ok() && arbitrator(all).is_ok());
    });
    judge_two([true, false, true], |lost| {
        let health = Mariadb.health(lost);
        assert_eq!(health.word, HealthWord::Critical, "{health:?}");
        assert!(health.reasons.iter().any(|why| why.contains("2 of 3 votes")), "{health:?}");
        assert_eq!(Mariadb.survivability(lost).stops_writes.len(), 2, "each of the two that are left");
        assert!(Mariadb.may_stop(lost, MemberId(1)).is_err() && arbitrator(lost).is_err());
    });
    judge_two([true, true, false], |lost| {
        let health = Mariadb.health(lost);
        assert_eq!(health.word, HealthWord::Critical, "{health:?}");
        assert!(health.reasons.iter().any(|why| why.contains("orders-arbitrator/1")), "{health:?}");
        assert!(Mariadb.may_stop(lost, MemberId(1)).is_err(), "the other one alone is no majority");
    });
    judge_two([true, false, false], |alone| assert_eq!(Mariadb.health(alone).word, HealthWord::Unknown));
}

#[test]
fn an_arbitrator_never_shares_a_host_with_a_member_and_comes_only_with_two() {
    let service = name("orders");
    let children = |json: &str| {
        let all = Mariadb.children(&service, &spec(json));
        all.into_iter().find(|child| child.role.as_str() == "arbitrator")
    };
    assert_eq!(children(HA), None);
    assert_eq!(children(r#"{"kind":"mariadb","mode":"single"}"#), None);
    let two = spec(r#"{"kind":"mariadb","members":2}"#);
    let child = children(r#"{"kind":"mariadb","members":2}"#).unwrap();
    assert_eq!(Mariadb.layout(&service, &two).never_with, [name("orders-arbitrator")]);
    assert_eq!(
        Arbitrator.layout(&name("orders-arbitrator"), &child.spec).never_with,
        std::slice::from_ref(&service)
    );
    assert!(Mariadb.remarks(&service, &two).iter().any(|line| line.contains("only votes")));
}

fn stand(started: bool) -> impl Fn(&mut MemberFacts) {
    move |member| {
        member.started = started;
        let seen = member.seen.as_mut().unwrap();
        (seen.running, seen.stopped, seen.ready) = (started, !started, false);
        member.stopped = !started;
        seen.role = Some("apart".to_owned());
        seen.started_at = Some(Timestamp(1_000));
    }
}

fn told(uuid: &str, seqno: i64) -> TaskOutcome {
    let answer = json!({ "data": true, "uuid": uuid, "seqno": seqno, "last_to_stop": false }).to_string();
    TaskOutcome::Done { answer: format!("a line of the engine\n{answer}\n") }
}

fn begin_of(step: &ProcedureStep) -> (String, Vec<String>) {
    let ProcedureStep::Task { label, task } = step else { panic!("{step:?}") };
    let TaskKind::OneShot { command, .. } = &task.what else { panic!("{task:?}") };
    (label.clone(), command.clone())
}

#[test]
fn a_cluster_that_stopped_as_a_whole_begins_where_the_most_was_written() {
    let (service, spec) = (name("orders"), spec(HA));
    let records = BTreeMap::from([(HISTORY.to_owned(), UUID.to_owned())]);
    let mut facts = ServiceFacts { records: &records, ..cluster(&service, &spec, ["", "", ""]) };
    facts.members.iter_mut().for_each(stand(true));
    assert_eq!(Mariadb.due(&facts), None, "they may still find each other");
    facts.now = Timestamp(60_000);
    let procedure = Mariadb.due(&facts).unwrap();
    let next = |facts: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]| {
        Mariadb.proceed(facts, &procedure, answers)
    };
    let all: Vec<MemberId> = (1..=3).map(MemberId).collect();
    assert_eq!(next(&facts, &[]), ProcedureStep::Stop(all.clone()));
    facts.members.iter_mut().for_each(stand(false));
    facts.members[2].stopped = false;
    assert_eq!(next(&facts, &[]), ProcedureStep::Stop(all), "a stop that is not confirmed");
    facts.members[2].stopped = true;
    // A new spec: what is stopped is not what the member has to be now.
    facts.members[1].seen = None;
    let mut answers = Vec::new();
    for (slot, seqno) in [(1, 40), (2, 52), (3, 51)] {
        assert_eq!(begin_of(&next(&facts, &answers)).0, format!("read {slot}"));
        answers.push((format!("read {slot}"), told(UUID, seqno)));
    }
    let (label, command) = begin_of(&next(&facts, &answers));
    assert_eq!((label.as_str(), command[2].as_str()), ("mark 2", format!("{UUID}:52").as_str()));
    answers.push((label, TaskOutcome::Done { answer: String::new() }));
    assert_eq!(next(&facts, &answers), ProcedureStep::Start(vec![MemberId(2)]));
    facts.members[1].started = true;
    assert!(matches!(next(&facts, &answers), ProcedureStep::Wait(_)));
    facts.members[1] = member(2, "leader", true);
    assert_eq!(next(&facts, &answers), ProcedureStep::Start(vec![MemberId(1)]));
    facts.members[0].started = true;
    facts.members[0].seen = None;
    assert!(matches!(next(&facts, &answers), ProcedureStep::Wait(_)), "one at a time");
    // A bad image, for which an update waits.
    facts.members[0] = member(1, "apart", false);
    assert_eq!(next(&facts, &answers), ProcedureStep::Start(vec![MemberId(3)]));
    facts.members[2].started = true;
    assert!(matches!(next(&facts, &answers), ProcedureStep::Done(_)));
}

#[test]
fn the_first_member_of_a_cluster_that_was_never_formed_begins_it_again_alone() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["", "", ""]);
    (facts.formed, facts.now) = (false, Timestamp(60_000));
    facts.members.iter_mut().for_each(stand(false));
    stand(true)(&mut facts.members[0]);
    assert_eq!(Mariadb.due(&facts), None, "it is still making its database");
    facts.members[0].seen.as_mut().unwrap().system_id = Some(UUID.to_owned());
    assert!(Mariadb.due(&facts).is_some());
    facts.members[0].seen.as_mut().unwrap().system_id = None;
    facts.members[0].seen.as_mut().unwrap().detail = "waits for the others".to_owned();
    let procedure = Mariadb.due(&facts).unwrap();
    let next = |facts: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]| {
        Mariadb.proceed(facts, &procedure, answers)
    };
    assert_eq!(next(&facts, &[]), ProcedureStep::Stop(vec![MemberId(1)]));
    stand(false)(&mut facts.members[0]);
    let mut answers = vec![("read 1".to_owned(), told(UUID, 3))];
    assert_eq!(begin_of(&next(&facts, &answers)).0, "mark 1");
    answers.push(("mark 1".to_owned(), TaskOutcome::Done { answer: String::new() }));
    assert_eq!(next(&facts, &answers), ProcedureStep::Start(vec![MemberId(1)]));
    facts.members[0] = member(1, "leader", true);
    assert!(matches!(next(&facts, &answers), ProcedureStep::Done(_)), "the others start in their order");
}

#[test]
fn a_marked_member_that_never_comes_up_gets_the_revision_that_waits_for_it() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["", "", ""]);
    facts.members.iter_mut().for_each(stand(false));
    stand(true)(&mut facts.members[1]);
    facts.now = Timestamp(60_000);
    let procedure = Procedure {
        name: "cold-start".to_owned(),
        why: String::new(),
        can_wait: false,
        arguments: BTreeMap::new(),
    };
    let answers = [("mark 2".to_owned(), TaskOutcome::Done { answer: String::new() })];
    let next = |facts: &ServiceFacts<'_>| Mariadb.proceed(facts, &procedure, &answers);
    assert!(
        matches!(next(&facts), ProcedureStep::Failed(_)),
        "it used its mark up, and there is nothing newer"
    );
    facts.members[1].seen.as_mut().unwrap().role = None;
    assert!(
        matches!(next(&facts), ProcedureStep::Wait(_)),
        "a program that does not even answer keeps its mark"
    );
    facts.members[1].current = false;
    assert_eq!(next(&facts), ProcedureStep::Renew(MemberId(2)));
    facts.members[1].seen.as_mut().unwrap().started_at = Some(Timestamp(55_000));
    assert!(matches!(next(&facts), ProcedureStep::Wait(_)), "it may still come up");
}

#[test]
fn volumes_of_different_clusters_are_refused_with_the_table() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["", "", ""]);
    facts.now = Timestamp(60_000);
    facts.members.iter_mut().for_each(stand(true));
    let procedure = Mariadb.due(&facts).unwrap();
    facts.members.iter_mut().for_each(stand(false));
    let mut answers: Vec<_> = (1..=3).map(|slot| (format!("read {slot}"), told(UUID, 7))).collect();
    answers[1].1 = told("another-history", 9_000);
    let step = Mariadb.proceed(&facts, &procedure, &answers);
    let ProcedureStep::NeedsOperator { reason, .. } = step else { panic!("{step:?}") };
    assert!(reason.contains("slot 2 on host-2 has another-history up to 9000"), "{reason}");
}

/// The question that a cold start stops with, and what follows on an operator's word for it.
fn asked(facts: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> (String, ProcedureStep) {
    let procedure = Procedure {
        name: "cold-start".to_owned(),
        why: String::new(),
        can_wait: false,
        arguments: BTreeMap::new(),
    };
    let step = Mariadb.proceed(facts, &procedure, answers);
    let ProcedureStep::NeedsOperator { reason, word: true, .. } = step else { panic!("{step:?}") };
    let mut answers = answers.to_vec();
    let other = "not read: something else".to_owned();
    answers.push((OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: other }));
    let again = Mariadb.proceed(facts, &procedure, &answers);
    assert!(matches!(again, ProcedureStep::NeedsOperator { .. }), "a word for something else: {again:?}");
    answers.push((OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: reason.clone() }));
    (reason, Mariadb.proceed(facts, &procedure, &answers))
}

#[test]
fn a_volume_that_cannot_be_read_is_left_out_on_an_operators_word_only() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["", "", ""]);
    facts.now = Timestamp(60_000);
    facts.members.iter_mut().for_each(stand(false));
    let failed = TaskOutcome::Failed { why: "disk".to_owned() };
    let mut answers: Vec<_> = (1..=3).map(|_| ("read 1".to_owned(), failed.clone())).collect();
    answers.extend([(2, 40), (3, 52)].map(|(slot, seqno)| (format!("read {slot}"), told(UUID, seqno))));
    let (reason, next) = asked(&facts, &answers);
    assert!(reason.contains("slot 1 on host-1, which cannot be read"), "{reason}");
    assert!(reason.contains("slot 3 on host-3 has the most, up to 52"), "{reason}");
    assert_eq!(begin_of(&next).0, "mark 3");
}

#[test]
fn a_cluster_whose_third_host_is_gone_begins_on_an_operators_word_only() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut facts = cluster(&service, &spec, ["", "", ""]);
    facts.members.iter_mut().for_each(stand(true));
    let third = &mut facts.members[2];
    (third.host_up, third.seen, third.host_since) = (false, None, Timestamp(100_000));
    facts.now = Timestamp(900_000);
    assert_eq!(Mariadb.due(&facts), None, "its host may return");
    facts.now = Timestamp(1_000_001);
    let procedure = Mariadb.due(&facts).unwrap();
    facts.members[..2].iter_mut().for_each(stand(false));
    let mut answers: Vec<_> =
        [(1, 40), (2, 52)].map(|(slot, n)| (format!("read {slot}"), told(UUID, n))).into();
    let (reason, next) = asked(&facts, &answers);
    assert!(reason.contains("slot 3 on host-3, which does not answer"), "{reason}");
    assert_eq!(begin_of(&next).0, "mark 2");
    // It is back before anybody said anything: its volume counts again.
    facts.members[2] = member(3, "", false);
    stand(false)(&mut facts.members[2]);
    answers.push(("read 3".to_owned(), told(UUID, 60)));
    let again = Mariadb.proceed(&facts, &procedure, &answers);
    assert_eq!(begin_of(&again).0, "mark 3");
}

/// All in step, and nothing recorded yet.
fn cluster_of_ready<'a>(service: &'a Name, spec: &'a ServiceSpec) -> ServiceFacts<'a> {
    let members =
        [(1, "leader"), (2, "replica"), (3, "replica")].map(|(slot, role)| member(slot, role, true));
    facts(service, spec, members.into())
}

#[test]
fn a_member_that_was_given_up_is_asked_for_although_another_fills_its_slot() {
    let (service, spec) = (name("orders"), spec(HA));
    let mut records = BTreeMap::from([(HISTORY.to_owned(), "1".to_owned())]);
    let whole = ServiceFacts { records: &records, ..cluster_of_ready(&service, &spec) };
    let procedure = Mariadb.due(&whole).unwrap();
    let step = Mariadb.proceed(&whole, &procedure, &[]);
    assert_eq!(step, ProcedureStep::Record { key: HOLDERS.to_owned(), value: "1,2,3".to_owned() });
    records.insert(HOLDERS.to_owned(), "1,2,3".to_owned());
    records.insert(HISTORY.to_owned(), UUID.to_owned());
    assert_eq!(Mariadb.due(&ServiceFacts { records: &records, ..cluster_of_ready(&service, &spec) }), None);
    let mut facts = ServiceFacts { records: &records, ..cluster(&service, &spec, ["", "", ""]) };
    facts.members[2].member = MemberId(4);
    facts.members.iter_mut().for_each(stand(false));
    facts.now = Timestamp(60_000);
    let nothing =
        json!({ "data": false, "uuid": super::observe::NO_HISTORY, "seqno": -1, "last_to_stop": false });
    let answers = [
        ("read 1".to_owned(), told(UUID, 40)),
        ("read 2".to_owned(), told(UUID, 52)),
        ("read 4".to_owned(), TaskOutcome::Done { answer: nothing.to_string() }),
    ];
    let (reason, next) = asked(&facts, &answers);
    assert!(reason.contains("member 3, which was given up"), "{reason}");
    assert_eq!(begin_of(&next).0, "mark 2");
    // The cluster went on without it: it had everything that is left.
    let mut on = cluster_of_ready(&service, &spec);
    on.members[2] = MemberFacts { member: MemberId(4), ..member(3, "joining", false) };
    let on = ServiceFacts { records: &records, ..on };
    let step = Mariadb.proceed(&on, &procedure, &[]);
    assert_eq!(step, ProcedureStep::Record { key: HOLDERS.to_owned(), value: "1,2".to_owned() });
}

#[test]
fn nothing_is_begun_anew_while_somebody_serves_joins_or_is_unknown() {
    let (service, spec) = (name("orders"), spec(HA));
    let records = BTreeMap::from([(HISTORY.to_owned(), UUID.to_owned())]);
    let due = |change: fn(&mut MemberFacts)| {
        let mut facts = ServiceFacts { records: &records, ..cluster(&service, &spec, ["", "", ""]) };
        facts.now = Timestamp(60_000);
        facts.members.iter_mut().for_each(stand(true));
        change(&mut facts.members[1]);
        Mariadb.due(&facts).is_some()
    };
    assert!(due(|_| ()));
    assert!(!due(|member| member.seen.as_mut().unwrap().ready = true));
    assert!(!due(|member| member.seen.as_mut().unwrap().role = Some("joining".to_owned())));
    assert!(!due(|member| member.seen = None));
    assert!(!due(|member| member.host_up = false));
    assert!(!due(|member| member.started = false));
    assert!(!due(|member| member.seen.as_mut().unwrap().started_at = Some(Timestamp(50_000))));
}
