//! Golden files and decisions of the mode `replicated`: one term, one master, and nobody else without a confirmed stop.

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, TaskKind};
use muster_model::time::{Millis, Timestamp};
use muster_model::view::HealthWord;
use serde_json::{Value, json};

use super::observe::interpret;
use super::settings::Settings;
use super::succession::Loss;
use super::{Redis, term};
use crate::kinds::golden::{
    child_of, compare, facts, member, name, owner_of, peer, problems, refused, running, spec,
};
use crate::kinds::{
    Kind, MemberFacts, OPERATORS_WORD, Observed, Procedure, ProcedureStep, ServiceFacts, UpdateStep,
};

const SPEC: &str = r#"{"kind":"redis","network":"dbnet","mode":"replicated","replicas":2}"#;

#[test]
fn members_and_proxies_are_rendered_as_the_golden_files_say() {
    compare("redis/replicated-1", &owner_of(SPEC).render(0));
    compare("haproxy/redis-replicated", &child_of(SPEC, "proxy").render(0));
    let before = owner_of(SPEC).render(0);
    let mut moved = owner_of(SPEC);
    moved.peers[2] = peer(3, 99, 66);
    assert_eq!(
        before.container_hash(),
        moved.render(0).container_hash(),
        "a changed peer needs no new container"
    );
}

#[test]
fn settings_and_ways_in_are_judged() {
    refused(r#"{"kind":"redis","mode":"replicated","shards":3}"#, "shards");
    refused(r#"{"kind":"redis","mode":"replicated","node_timeout":"2s"}"#, "node_timeout");
    refused(r#"{"kind":"redis","mode":"replicated","min_replicas":2}"#, "min_replicas");
    refused(r#"{"kind":"redis","proxy_image":"x:1"}"#, "proxy_image");
    assert_eq!(problems(SPEC, &[]), []);
    let scene = owner_of(SPEC);
    let urls = Redis.endpoints(&scene.service, &scene.spec, &scene.peers, &scene.children, None);
    assert!(urls[0].url.ends_with("@172.31.10.19:6381,172.31.10.35:6381/0?ssl_ca_certs=${ca}"), "{urls:?}");
    assert!(urls[1].url.ends_with("@172.31.10.19:6382,172.31.10.35:6382/0?ssl_ca_certs=${ca}"), "{urls:?}");
    assert!(Redis.remarks(&scene.service, &scene.spec)[0].contains("proves nothing"));
}

fn seen(info: &[(&str, &str)], term: &Value, beat: &Value) -> Observed {
    let info: BTreeMap<&str, &str> = info.iter().copied().collect();
    let redis = json!({"info": info, "term": term});
    interpret(
        &Settings::of(&spec(SPEC)),
        &running("cache", 1, 1, &[("redis", true, redis), ("write", false, json!({"beat": beat}))]),
    )
}

#[test]
fn a_term_is_read_and_an_error_is_not_taken_for_lost_data() {
    let master = seen(&[("role", "master"), ("loading", "0")], &json!("4 1"), &json!(17));
    assert!(master.ready && master.facts["term"] == "4 1", "{master:?}");
    let alone = seen(
        &[("role", "slave"), ("loading", "0"), ("master_host", "127.0.0.1"), ("master_link_status", "down")],
        &Value::Null,
        &json!({"error": "READONLY"}),
    );
    assert!(!alone.ready && alone.facts["term"].is_empty() && alone.detail.contains("told"), "{alone:?}");
    let loads = seen(
        &[("role", "slave"), ("loading", "1"), ("master_host", "127.0.0.1")],
        &json!({"error": "LOADING Redis is loading the dataset in memory"}),
        &json!({"error": "LOADING"}),
    );
    assert!(!loads.facts.contains_key("term") && loads.facts.contains_key("loading"), "{loads:?}");
}

/// Member `slot` follows the one in slot `of`, or nobody (0), or is a master (itself); its data is of this term.
fn node(slot: u32, of: u32, term: &str) -> MemberFacts {
    let leads = slot == of;
    let mut fact = member(slot, if leads { "master" } else { "replica" }, of != 0);
    let seen = fact.seen.as_mut().unwrap();
    seen.facts.insert("term".to_owned(), term.to_owned());
    if !leads {
        let at = if of == 0 { "127.0.0.1".to_owned() } else { format!("172.31.10.{of}") };
        seen.facts.insert("follows".to_owned(), at);
    }
    fact
}

fn whole() -> Vec<MemberFacts> {
    vec![node(1, 1, "4 1"), node(2, 1, "4 1"), node(3, 1, "4 1")]
}

fn dark(mut member: MemberFacts) -> MemberFacts {
    member.host_up = false;
    member.seen = None;
    member
}

fn ended(mut member: MemberFacts) -> MemberFacts {
    member.seen = Some(Observed { running: false, ..Observed::default() });
    member
}

fn halted(mut member: MemberFacts) -> MemberFacts {
    member.started = false;
    member.seen = Some(Observed { stopped: true, ..Observed::default() });
    member.stopped = true;
    member.seen_since = Timestamp(8_000);
    member
}

fn lost(member: &MemberFacts) -> Option<Loss> {
    judge(vec![member.clone()], "4 1", |service| Loss::of(service, member).err().flatten())
}

#[test]
fn a_master_counts_as_halted_only_by_an_agent_that_knows_of_the_order() {
    let master = node(1, 1, "4 1");
    assert_eq!(lost(&master), None);
    assert_eq!(lost(&halted(master.clone())), Some(Loss::Halted));
    let unconfirmed = MemberFacts { stopped: false, ..halted(master.clone()) };
    assert_eq!(lost(&unconfirmed), Some(Loss::Ended), "it was seen stopped before it was told to stop");
    let removed = MemberFacts { seen: None, ..halted(master.clone()) };
    assert_eq!(lost(&removed), Some(Loss::Halted), "no container is there");
    let unmade = MemberFacts { seen: None, missing: true, ..master };
    assert_eq!(lost(&unmade), Some(Loss::Ended), "no container is there, and none can be made");
}

fn judge<T>(members: Vec<MemberFacts>, record: &str, read: impl Fn(&ServiceFacts<'_>) -> T) -> T {
    let (service, spec): (Name, _) = (name("cache"), spec(SPEC));
    let records = BTreeMap::from([("master".to_owned(), record.to_owned())]);
    read(&ServiceFacts { slots: 3, records: &records, ..facts(&service, &spec, members) })
}

fn due(facts: &ServiceFacts<'_>) -> Procedure {
    Redis.due(facts).expect("something is due")
}

fn step(facts: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    let any =
        Procedure { name: String::new(), why: String::new(), can_wait: false, arguments: BTreeMap::new() };
    Redis.proceed(facts, &any, answers)
}

fn task(step: &ProcedureStep) -> (MemberId, Vec<String>) {
    let ProcedureStep::Task { task, .. } = step else { panic!("{step:?}") };
    let TaskKind::Act { act: Act::Resp(resp) } = &task.what else { panic!("{task:?}") };
    (task.member, resp.calls.iter().map(|call| call.words.join(" ")).collect())
}

/// On the disk before it is acknowledged: power lost in that second left three servers of which none could lead.
fn written(term: &str) -> Vec<String> {
    let set = format!("SET muster:master {term}");
    ["CONFIG SET appendfsync always", &set, "CONFIG SET appendfsync everysec"].map(str::to_owned).to_vec()
}

fn recorded(value: &str) -> ProcedureStep {
    ProcedureStep::Record { key: "master".to_owned(), value: value.to_owned() }
}

fn positions(at: u64, offsets: &[(u32, &str, u64)]) -> (String, TaskOutcome) {
    let mut answer = serde_json::Map::new();
    for (slot, term, offset) in offsets {
        answer.insert(
            format!("info-{slot}"),
            json!({"role": "slave", "slave_repl_offset": offset.to_string()}),
        );
        answer.insert(format!("term-{slot}"), json!(term));
    }
    (format!("positions @{at}"), TaskOutcome::Done { answer: Value::Object(answer).to_string() })
}

/// The same with the heartbeats in each one's data.
fn with_beats(told: (String, TaskOutcome), beats: &[(u32, &str)]) -> (String, TaskOutcome) {
    let (label, TaskOutcome::Done { answer }) = told else { panic!("{told:?}") };
    let mut answer: Value = serde_json::from_str(&answer).unwrap();
    for (slot, count) in beats {
        answer[format!("beat-{slot}")] = json!(count);
    }
    (label, TaskOutcome::Done { answer: answer.to_string() })
}

/// An operator's word for what the procedure asks after these answers.
fn word(facts: &ServiceFacts<'_>, answers: &[(String, TaskOutcome)]) -> (String, TaskOutcome) {
    let ProcedureStep::NeedsOperator { reason, .. } = step(facts, answers) else {
        panic!("{:?}", step(facts, answers))
    };
    (OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: reason })
}

#[test]
fn it_is_made_in_steps_and_then_nothing_is_due() {
    let fresh = vec![node(1, 0, ""), node(2, 0, ""), node(3, 0, "")];
    let unformed = |members: Vec<MemberFacts>, record: Option<&str>, read: &dyn Fn(&ServiceFacts<'_>)| {
        let (service, spec) = (name("cache"), spec(SPEC));
        let records: BTreeMap<String, String> =
            record.map(|record| ("master".to_owned(), record.to_owned())).into_iter().collect();
        read(&ServiceFacts { slots: 3, formed: false, records: &records, ..facts(&service, &spec, members) });
    };
    unformed(fresh[..2].to_vec(), None, &|facts| {
        assert_eq!(Redis.due(facts), None, "not before all are there");
    });
    let mut old = fresh.clone();
    old[2] = node(3, 0, "7 3");
    unformed(old, None, &|facts| assert_eq!(Redis.due(facts), None, "one has data of another life"));
    unformed(fresh.clone(), None, &|facts| assert_eq!(step(facts, &[]), recorded("1 1")));
    // The spec was changed to fewer before anybody led, and who is too many leaves only afterwards.
    let mut more = fresh.clone();
    more.push(node(4, 0, ""));
    unformed(more.clone(), None, &|facts| assert_eq!(step(facts, &[]), recorded("1 1")));
    more.remove(1);
    unformed(more, None, &|facts| assert_eq!(Redis.due(facts), None, "one of those that stay is missing"));
    unformed(fresh, Some("1 1"), &|facts| {
        assert_eq!(task(&step(facts, &[])), (MemberId(1), vec!["REPLICAOF NO ONE".to_owned()]));
    });
    let told = vec![node(1, 1, ""), node(2, 0, ""), node(3, 0, "")];
    unformed(told, Some("1 1"), &|facts| {
        let follow = "REPLICAOF 172.31.10.1 6379".to_owned();
        assert_eq!(task(&step(facts, &[])), (MemberId(1), vec![follow.clone(), follow]));
        assert!(!Redis.is_formed(facts));
    });
    let linked = vec![node(1, 1, ""), node(2, 1, ""), node(3, 1, "")];
    unformed(linked, Some("1 1"), &|facts| {
        assert_eq!(task(&step(facts, &[])), (MemberId(1), written("1 1")));
    });
    judge(whole(), "4 1", |facts| {
        assert_eq!(Redis.due(facts), None);
        assert!(Redis.is_formed(facts));
        assert_eq!(Redis.health(facts).word, HealthWord::Healthy);
    });
}

#[test]
fn a_master_that_was_restarted_leads_again_with_its_data_and_only_with_it() {
    let mut members = whole();
    members[0] = node(1, 0, "4 1");
    judge(members.clone(), "4 1", |facts| {
        assert_eq!(due(facts).name, "lead");
        assert_eq!(Redis.health(facts).word, HealthWord::Down);
        let step = step(facts, &[]);
        assert_eq!(task(&step), (MemberId(1), vec!["REPLICAOF NO ONE".to_owned()]));
        let ProcedureStep::Task { task, .. } = step else { unreachable!() };
        let accept = format!("{:?}", task.guard.unwrap().accept);
        assert!(accept.contains("4 1"), "the data is read again just before: {accept}");
        assert!(
            accept.contains("master_link_status") && accept.contains("down"),
            "nobody takes writes meanwhile whom it follows: {accept}"
        );
    });
    // Its disk came back empty: it would empty the others.
    members[0] = node(1, 0, "");
    judge(members.clone(), "4 1", |facts| {
        assert_eq!(due(facts).name, "promote");
        let (_, words) = task(&step(facts, &[]));
        assert!(words.iter().all(|word| !word.contains("REPLICAOF")), "{words:?}");
        let told = positions(facts.now.0, &[(2, "4 1", 90), (3, "4 1", 120)]);
        assert_eq!(step(facts, &[told]), recorded("5 3"), "the one that has read most");
        let restarted = positions(facts.now.0, &[(2, "4 1", 30), (3, "4 1", 0)]);
        let told = with_beats(restarted.clone(), &[(2, "40"), (3, "52")]);
        assert_eq!(step(facts, &[told]), recorded("5 3"), "its place in the stream is gone, its data is not");
        let equal = with_beats(restarted, &[(2, "52"), (3, "52")]);
        assert_eq!(step(facts, &[equal]), recorded("5 2"), "within a heartbeat the stream tells");
    });
}

#[test]
fn a_master_that_ended_is_given_time_then_stopped_and_only_then_followed() {
    let mut members = whole();
    members[0] = ended(node(1, 1, "4 1"));
    judge(members.clone(), "4 1", |facts| {
        let (by, _) = task(&step(facts, &[]));
        assert_eq!(by, MemberId(2));
        let told = [positions(facts.now.0, &[(2, "4 1", 90), (3, "4 1", 80)])];
        assert!(matches!(step(facts, &told), ProcedureStep::Wait(_)), "it may come back");
        let later = ServiceFacts { now: facts.now.after(Millis::seconds(5)), ..facts.clone() };
        assert_eq!(step(&later, &told), ProcedureStep::Stop(vec![MemberId(1)]));
    });
    members[0] = halted(node(1, 1, "4 1"));
    judge(members.clone(), "4 1", |facts| {
        let old = positions(facts.now.0 - 6_000, &[(2, "4 1", 90), (3, "4 1", 80)]);
        assert!(
            matches!(step(facts, std::slice::from_ref(&old)), ProcedureStep::Task { .. }),
            "asked again after the stop"
        );
        let fresh = positions(facts.now.0 - 1_000, &[(2, "4 1", 90), (3, "4 1", 80)]);
        assert_eq!(step(facts, &[old, fresh]), recorded("5 2"));
    });
    // The next term: it is told, the others follow, the term is written, the old one runs again.
    judge(members.clone(), "5 2", |facts| {
        assert_eq!(task(&step(facts, &[])), (MemberId(2), vec!["REPLICAOF NO ONE".to_owned()]));
    });
    members[1] = node(2, 2, "4 1");
    judge(members.clone(), "5 2", |facts| {
        assert_eq!(task(&step(facts, &[])).1, ["REPLICAOF 172.31.10.2 6379"]);
    });
    members[2] = node(3, 2, "4 1");
    judge(members.clone(), "5 2", |facts| {
        assert_eq!(task(&step(facts, &[])), (MemberId(2), written("5 2")));
    });
    members[1] = node(2, 2, "5 2");
    judge(members, "5 2", |facts| assert_eq!(step(facts, &[]), ProcedureStep::Start(vec![MemberId(1)])));
}

#[test]
fn positions_count_from_the_masters_end_on_and_only_if_everybody_told_theirs() {
    let mut members = whole();
    members[0] = halted(node(1, 1, "4 1"));
    let early = positions(7_500, &[(2, "4 1", 90), (3, "4 1", 80)]);
    let partly = positions(8_500, &[(2, "4 1", 90)]);
    let all = positions(8_500, &[(2, "4 1", 90), (3, "4 1", 95)]);
    judge(members, "4 1", |facts| {
        // The master took writes after that question, and they may be at the other replica.
        let later = ServiceFacts { now: Timestamp(12_000), ..facts.clone() };
        assert!(matches!(step(&later, std::slice::from_ref(&early)), ProcedureStep::Task { .. }));
        // Answers travel for seconds now and then: they were asked for again and again, and none counted.
        assert_eq!(step(&later, &[early.clone(), all.clone()]), recorded("5 3"));
        // One that was no heir yet when the others were asked may be ahead of them.
        assert!(matches!(step(&later, &[early.clone(), partly.clone()]), ProcedureStep::Task { .. }));
    });
}

#[test]
fn a_host_that_is_silent_proves_nothing_and_an_operators_word_does() {
    let mut members = whole();
    members[0] = dark(node(1, 1, "4 1"));
    let told = |facts: &ServiceFacts<'_>| positions(facts.now.0, &[(2, "4 1", 90), (3, "4 1", 80)]);
    judge(members.clone(), "4 1", |facts| {
        let ProcedureStep::NeedsOperator { reason, remedy, word: true } = step(facts, &[told(facts)]) else {
            panic!("{:?}", step(facts, &[]))
        };
        assert!(
            reason.contains("cache/1 on host-1 does not answer") && remedy.contains("is off"),
            "{reason}: {remedy}"
        );
        let much_later = ServiceFacts { now: Timestamp(facts.now.0 + 86_400_000), ..facts.clone() };
        assert!(
            matches!(step(&much_later, &[told(facts)]), ProcedureStep::NeedsOperator { .. }),
            "time proves nothing"
        );
        assert_eq!(step(facts, &[word(facts, &[]), told(facts)]), recorded("5 2"));
        let of_something_else =
            (OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: "no space".to_owned() });
        assert!(matches!(
            step(facts, &[of_something_else, told(facts)]),
            ProcedureStep::NeedsOperator { .. }
        ));
        assert!(Redis.may_replace(facts, MemberId(1)).is_err(), "not before another one leads");
    });
    // It returned meanwhile.
    members[0] = node(1, 1, "4 1");
    judge(members.clone(), "4 1", |facts| assert!(matches!(step(facts, &[]), ProcedureStep::Done(_))));
    // A replica that cannot be read may be ahead of the others.
    members[0] = node(1, 0, "");
    members[2] = dark(node(3, 1, "4 1"));
    judge(members, "4 1", |facts| {
        let only = positions(facts.now.0, &[(2, "4 1", 90)]);
        assert!(matches!(step(facts, std::slice::from_ref(&only)), ProcedureStep::NeedsOperator { .. }));
        assert_eq!(step(facts, &[word(facts, &[]), only]), recorded("5 2"));
    });
}

/// A host came back between the record of the next term and the word to its master, whose start script found all as it was.
#[test]
fn replicas_leave_a_master_that_only_an_operator_called_off_before_another_one_is_recorded() {
    let members = vec![dark(node(1, 1, "4 1")), node(2, 1, "4 1"), node(3, 1, "4 1")];
    judge(members, "4 1", |facts| {
        let leaves = "REPLICAOF 127.0.0.2 1";
        let asks = ["INFO", "GET muster:master", "GET muster:beat"];
        let each = [&[leaves], &asks[..]].concat();
        assert_eq!(
            task(&step(facts, &[word(facts, &[])])),
            (MemberId(2), [each.clone(), each].concat().iter().map(|words| (*words).to_owned()).collect())
        );
    });
    // Here its agent answers for it, and may have it back within seconds: they stay with it.
    let members = vec![ended(node(1, 1, "4 1")), node(2, 1, "4 1"), node(3, 1, "4 1")];
    judge(members, "4 1", |facts| {
        let (_, words) = task(&step(facts, &[]));
        assert!(words.iter().all(|words| !words.starts_with("REPLICAOF")), "{words:?}");
    });
    // It came back first: it leads again, and has its replicas back.
    let mut members = vec![node(1, 0, "4 1"), node(2, 0, "4 1"), node(3, 0, "4 1")];
    for heir in &mut members[1..] {
        heir.seen.as_mut().unwrap().facts.insert("follows".to_owned(), "127.0.0.2".to_owned());
    }
    judge(members.clone(), "4 1", |facts| {
        assert_eq!(task(&step(facts, &[])), (MemberId(1), vec!["REPLICAOF NO ONE".to_owned()]));
    });
    // It came back too late: the one that was chosen leads.
    judge(members, "5 2", |facts| {
        assert_eq!(task(&step(facts, &[])), (MemberId(2), vec!["REPLICAOF NO ONE".to_owned()]));
    });
}

#[test]
fn a_word_about_one_member_is_none_about_another() {
    let members = vec![dark(node(1, 1, "4 1")), node(2, 1, "4 1"), dark(node(3, 1, "4 1"))];
    judge(members, "4 1", |facts| {
        let told = positions(facts.now.0, &[(2, "4 1", 90)]);
        let first = word(facts, std::slice::from_ref(&told));
        let answers = [first.clone(), told.clone()];
        let ProcedureStep::NeedsOperator { reason, .. } = step(facts, &answers) else {
            panic!("{:?}", step(facts, &answers))
        };
        assert!(reason.contains("cache/3 on host-3"), "{reason}");
        let second = word(facts, &answers);
        assert_eq!(step(facts, &[first, second, told]), recorded("5 2"));
    });
}

#[test]
fn an_old_master_that_returns_with_its_old_term_is_made_a_replica() {
    let members = vec![node(1, 1, "4 1"), node(2, 2, "5 2"), node(3, 2, "5 2")];
    judge(members, "5 2", |facts| {
        assert_eq!(term::leader(facts).map(|leader| leader.slot), Some(2));
        assert_eq!(due(facts).name, "depose");
        assert_eq!(task(&step(facts, &[])), (MemberId(1), vec!["REPLICAOF 172.31.10.2 6379".to_owned()]));
        assert_eq!(Redis.health(facts).word, HealthWord::Degraded);
    });
    // The same while the new one is not told yet: then it follows nobody, and nobody takes writes.
    let early = vec![node(1, 1, "4 1"), node(2, 1, "4 1"), node(3, 1, "4 1")];
    judge(early, "5 2", |facts| {
        assert_eq!(term::leader(facts).map(|leader| leader.slot), None);
        assert_eq!(task(&step(facts, &[])), (MemberId(1), vec!["REPLICAOF 127.0.0.1 1".to_owned()]));
    });
}

#[test]
fn a_hand_over_begins_a_term() {
    judge(whole(), "4 1", |facts| {
        let task = Redis.switchover(facts, Some(3)).unwrap();
        let TaskKind::Act { act: Act::Resp(resp) } = &task.what else { panic!("{task:?}") };
        let words: Vec<String> = resp.calls.iter().map(|call| call.words.join(" ")).collect();
        assert_eq!(words[0], format!("WAIT {} 300", facts.members.len() - 1), "asked before it holds writes");
        assert_eq!(words[1..], ["FAILOVER TO 172.31.10.3 6379 TIMEOUT 3000"]);
        assert_eq!(task.member, MemberId(1), "the old master does it");
        assert!(Redis.switchover(facts, Some(1)).is_err());
        assert_eq!(Redis.operators_choice(facts, 3), None);
    });
    // The role has moved, and the old master is a replica.
    let mut members = vec![node(1, 3, "4 1"), node(2, 1, "4 1"), node(3, 3, "4 1")];
    judge(members.clone(), "4 1", |facts| {
        assert!(Redis.leads(facts, 3) && !Redis.leads(facts, 1));
        assert_eq!((due(facts).name.as_str(), step(facts, &[])), ("term", recorded("5 3")));
    });
    // Not told by the old one yet, which may still be what it says.
    members[0] = node(1, 1, "4 1");
    judge(members.clone(), "4 1", |facts| assert_ne!(step(facts, &[]), recorded("5 3")));
    // Between the two: the old one follows, the new one has not said it. Nobody is told anything.
    members[0] = node(1, 3, "4 1");
    members[2] = dark(node(3, 3, "4 1"));
    judge(members, "4 1", |facts| {
        assert!(matches!(step(facts, &[]), ProcedureStep::Wait(_)), "{:?}", step(facts, &[]));
    });
}

#[test]
fn an_update_takes_replicas_first_and_the_master_after_it_gave_its_role_away() {
    let mut members = whole();
    members.iter_mut().for_each(|member| member.current = false);
    let next = |members: &[MemberFacts]| judge(members.to_vec(), "4 1", |facts| Redis.next_update(facts));
    assert_eq!(next(&members), UpdateStep::Recreate(MemberId(2)));
    members[1].current = true;
    members[2].current = true;
    assert_eq!(next(&members), UpdateStep::Switch { from: MemberId(1), to: MemberId(2) });
    judge(whole(), "4 1", |facts| {
        assert!(Redis.may_stop(facts, MemberId(1)).is_err());
        assert!(Redis.may_stop(facts, MemberId(2)).is_ok());
        assert!(Redis.may_retire(facts, MemberId(1)).is_err());
        assert!(Redis.may_replace(facts, MemberId(3)).is_ok());
        assert_eq!(Redis.scaled(facts.spec, 4).unwrap(), ("replicas", json!(3)));
        let losses = Redis.survivability(facts);
        assert_eq!(losses.stops_writes.len(), 1, "only its master's host: {losses:?}");
        assert!(losses.stops_reads.is_empty());
    });
}

/// An update put an image that does not start at the only member with data, while that one waited for the word to lead.
#[test]
fn while_nobody_leads_an_update_takes_nobody_that_answers_and_waits_for_nobody_that_cannot() {
    let old = |members: Vec<MemberFacts>| members.into_iter().map(|m| MemberFacts { current: false, ..m });
    let members: Vec<MemberFacts> = old(vec![node(1, 0, "1 1"), node(2, 0, ""), node(3, 0, "")]).collect();
    judge(members.clone(), "1 1", |facts| {
        assert!(matches!(Redis.next_update(facts), UpdateStep::Wait(_)), "{:?}", Redis.next_update(facts));
        assert_eq!(task(&step(facts, &[])), (MemberId(1), vec!["REPLICAOF NO ONE".to_owned()]));
    });
    // It got such an image all the same. Nobody else can lead, and the next image is not held up by that.
    let mut hung = members;
    hung[0].seen = Some(Observed { running: true, ..Observed::default() });
    judge(hung.clone(), "1 1", |facts| {
        assert_eq!(Redis.due(facts), None);
        assert_eq!(Redis.next_update(facts), UpdateStep::Recreate(MemberId(1)));
    });
    hung[1] = node(2, 1, "1 1");
    judge(hung, "1 1", |facts| assert_eq!(due(facts).name, "promote", "this one can"));
}
