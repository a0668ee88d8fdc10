//! Golden files and decisions of this kind.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::MemberId;
use muster_model::network::Audience;
use muster_model::observed::TaskOutcome;
use muster_model::plan::TaskKind;
use muster_model::time::Timestamp;
use muster_model::view::HealthWord;
use serde_json::json;

use super::observe::{NEEDED, WAITING};
use super::{PORT, S3, Settings, declare, metrics};
use crate::kinds::golden::{Scene, compare, facts, member, name, platform, problems, refused, running, spec};
use crate::kinds::{Kind, MemberFacts, Peer, ProcedureStep, ServiceFacts, UpdateStep};

pub const THREE: &str = r#"{"kind":"s3"}"#;
const RICH: &str = r#"{"kind":"s3","hosts":4,"drives":2,"parity":2,
    "buckets":[{"name":"photos","versioning":true},{"name":"logs"}],
    "policies":[{"name":"auditor","document":{"Version":"2012-10-17","Statement":[]}}],
    "users":[{"name":"web","buckets":["photos"]},{"name":"audit","policy":"auditor"},
        {"name":"shipper","buckets":["logs"],"access":"writeonly"}]}"#;

fn peer(slot: u32, member: u64, last: u8) -> Peer {
    let addresses = BTreeMap::from([(name("stornet"), Ipv4Addr::new(172, 31, 30, last))]);
    Peer { slot, member: MemberId(member), host: name(&format!("host-{slot}")), addresses, tls: true }
}

fn scene(json: &str) -> Scene {
    let count = Settings::of(&spec(json)).erasure.hosts;
    Scene {
        platform: platform(&[("files", json)]),
        service: name("files"),
        spec: spec(json),
        peers: (1..=count).map(|slot| peer(slot, u64::from(slot), 16 * slot as u8 + 1)).collect(),
        children: BTreeMap::new(),
        owner: None,
        joins_existing: false,
    }
}

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    compare("s3/distributed-1", &scene(THREE).render(0));
    compare("s3/rich-2", &scene(RICH).render(1));
    compare("s3/single", &scene(r#"{"kind":"s3","mode":"single"}"#).render(0));
    let mut proxy = scene(THREE);
    let child = S3.children(&name("files"), &proxy.spec).remove(0);
    proxy.owner = Some((name("files"), proxy.spec.clone(), proxy.peers.clone()));
    proxy.service = name("files-proxy");
    proxy.spec = child.spec;
    compare("s3/proxy", &proxy.render(0));
}

const TOLD: &str = r#"{"kind":"s3","metrics":true}"#;

#[test]
fn metrics_are_relayed_to_their_readers_and_kept_from_clients() {
    assert_eq!(problems(TOLD, &[]), []);
    let told = scene(TOLD);
    let child = |role: &str| {
        let children = S3.children(&name("files"), &told.spec);
        children.into_iter().find(|child| child.role.as_str() == role).unwrap().spec
    };
    let front = S3.front(&name("files"), &told.spec, &told.peers);
    assert!(front.listeners[0].options.iter().any(|line| line == metrics::REFUSED));
    let direct = |json: &str| {
        let ports = scene(json).render(0).ports;
        ports.into_iter().find(|port| port.port == PORT).unwrap().audience
    };
    assert_eq!((direct(THREE), direct(TOLD)), (Audience::Network, Audience::Members));
    // A server reads whether it tells them at its start, and compares that with the others.
    assert_ne!(S3.variant(&told.render(0)), S3.variant(&scene(THREE).render(0)));
    let mut relay = scene(TOLD);
    relay.spec = child("metrics");
    relay.owner = Some((name("files"), told.spec.clone(), told.peers.clone()));
    relay.service = name("files-metrics");
    for peer in &mut relay.peers {
        peer.addresses.insert(name("monnet"), Ipv4Addr::new(172, 31, 50, peer.slot as u8));
    }
    compare("exporter/s3", &relay.render(1));
    let single = spec(r#"{"kind":"s3","mode":"single","metrics":true}"#);
    let roles: Vec<_> = S3.children(&name("files"), &single).into_iter().map(|child| child.role).collect();
    assert_eq!(roles, [name("metrics")]);
}

#[test]
fn all_members_have_one_command_and_a_replaced_peer_needs_no_new_container() {
    let mut scene = scene(THREE);
    let all: Vec<_> = (0..3).map(|index| scene.render(index)).collect();
    assert!(all.iter().all(|one| S3.variant(one) == S3.variant(&all[0]) && one.command == all[0].command));
    scene.peers[1] = peer(2, 9, 77);
    let after = scene.render(0);
    assert_ne!(all[0].files, after.files);
    assert_eq!(all[0].container_hash(), after.container_hash());
    let other = r#"{"kind":"s3","image":"muster/minio:other"}"#;
    scene.spec = spec(other);
    assert_ne!(S3.variant(&scene.render(0)), S3.variant(&after));
}

#[test]
fn layouts_that_do_not_keep_writes_are_refused() {
    refused(r#"{"kind":"s3","hosts":2}"#, "hosts");
    refused(r#"{"kind":"s3","hosts":8,"drives":4}"#, "drives");
    refused(r#"{"kind":"s3","hosts":3,"drives":2,"parity":1}"#, "parity");
    refused(r#"{"kind":"s3","mode":"single","drives":2}"#, "drives");
    refused(r#"{"kind":"s3","buckets":[{"name":"Photos"}]}"#, "buckets.0.name");
    refused(r#"{"kind":"s3","users":[{"name":"web","buckets":["none"]}]}"#, "users.0.buckets.0");
    refused(r#"{"kind":"s3","users":[{"name":"web","policy":"none"}]}"#, "users.0.policy");
    refused(r#"{"kind":"s3","image":"no image"}"#, "image");
    assert_eq!(problems(RICH, &[]), []);
}

#[test]
fn its_size_is_for_life_and_there_is_nothing_to_switch() {
    let may = |new: &str| S3.may_become(&name("files"), &spec(THREE), &spec(new));
    assert!(may(r#"{"kind":"s3","image":"muster/minio:other"}"#).is_ok());
    assert!(may(r#"{"kind":"s3","hosts":4}"#).unwrap_err().message.contains("neither grow nor shrink"));
    let (service, spec) = (name("files"), spec(THREE));
    assert!(S3.switchover(&facts(&service, &spec, trio()), None).unwrap_err().0.contains("no leading role"));
    let remarks = S3.remarks(&service, &spec).join("\n");
    assert!(remarks.contains("parity 1") && remarks.contains("archived"), "{remarks}");
}

pub fn trio() -> Vec<MemberFacts> {
    let started = |mut m: MemberFacts| {
        m.variant = "old".to_owned();
        if let Some(seen) = &mut m.seen {
            seen.started_at = Some(Timestamp(0));
        }
        m
    };
    (1..=3).map(|slot| started(member(slot, "", true))).collect()
}

#[test]
fn probes_say_who_serves_who_waits_and_who_heals() {
    let drive = |healing: bool| {
        let mut drive = json!({"server": "files-2:9000", "path": "/data1", "state": "ok"});
        if healing {
            drive["healed"] = json!(41);
            drive["total"] = json!(100);
        }
        json!({"deployment": "d", "servers": [], "drives": [drive]})
    };
    let seen = |canary: bool, gate: bool, spare: bool, known: bool, healing: bool| {
        let answers = [
            ("live", true, json!("")),
            ("canary", canary, json!("x")),
            ("gate", gate, json!("")),
            ("spare", spare, json!("")),
            ("known", known, json!("")),
            ("status", true, drive(healing)),
        ];
        S3.interpret(&spec(THREE), &running("files", 2, 2, &answers))
    };
    let good = seen(true, true, true, false, false);
    assert!(good.ready && good.caught_up && good.facts.is_empty() && good.detail.is_empty(), "{good:?}");
    let blind = seen(false, true, true, false, false);
    assert!(!blind.ready && blind.facts.contains_key(WAITING) && blind.writes == Some(false));
    assert!(!seen(true, false, true, false, false).ready, "not given requests yet");
    let healing = seen(true, true, false, false, true);
    assert!(healing.ready && !healing.caught_up && healing.facts.contains_key(NEEDED));
    assert_eq!(healing.detail, "heals, 40 %");
    assert!(seen(true, true, true, true, false).detail.contains("the login that everybody knows"));
}

#[test]
fn health_follows_the_quorums() {
    let (service, spec) = (name("files"), spec(THREE));
    let word = |members: Vec<MemberFacts>| S3.health(&facts(&service, &spec, members)).word;
    assert_eq!(word(trio()), HealthWord::Healthy);
    let lose = |count: usize| {
        let mut members = trio();
        members.iter_mut().take(count).for_each(|m| m.seen = member(m.slot, "", false).seen);
        members
    };
    assert_eq!(word(lose(1)), HealthWord::Critical);
    assert_eq!(word(lose(2)), HealthWord::Down);
    let mut open = trio();
    open[0].seen.as_mut().unwrap().detail = super::observe::KNOWN_LOGIN.to_owned();
    assert_eq!(word(open), HealthWord::Critical);
}

#[test]
fn the_next_stop_waits_for_twenty_seconds_healing_and_the_servers_own_word() {
    let (service, spec) = (name("files"), spec(THREE));
    let may = |members: &[MemberFacts], now: u64| {
        let facts = facts(&service, &spec, members.to_vec());
        S3.may_stop(&crate::kinds::ServiceFacts { now: Timestamp(now), ..facts }, MemberId(1))
    };
    let mut members = trio();
    assert!(may(&members, 19_000).unwrap_err().0.contains("less than 20 s"));
    assert!(may(&members, 21_000).is_ok());
    members[2].seen.as_mut().unwrap().caught_up = false;
    assert!(may(&members, 21_000).is_err());
    members[2].seen.as_mut().unwrap().caught_up = true;
    members[0].seen.as_mut().unwrap().facts.insert(NEEDED.to_owned(), "yes".to_owned());
    assert!(may(&members, 21_000).unwrap_err().0.contains("could not do without"));
}

/// Records of a service on whose hosts the image was tried.
fn tried(image: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("image".to_owned(), image.to_owned())])
}

#[test]
fn a_new_image_is_tried_on_two_hosts_before_any_member_is_touched() {
    let (service, spec) = (name("files"), spec(r#"{"kind":"s3","image":"muster/minio:other"}"#));
    let mut members = trio();
    let at = |members: &[MemberFacts],
              records: &BTreeMap<String, String>,
              now: u64,
              read: &dyn Fn(&ServiceFacts<'_>)| {
        let facts = facts(&service, &spec, members.to_vec());
        read(&ServiceFacts { now: Timestamp(now), records, ..facts });
    };
    let (new, old) = (BTreeMap::new(), tried("muster/minio:2026-02-12"));
    let record =
        |key: &str, value: &str| ProcedureStep::Record { key: key.to_owned(), value: value.to_owned() };
    at(&members, &new, 100_000, &|facts| {
        let due = S3.due(facts).unwrap();
        assert!(due.can_wait, "what all members run is recorded");
        assert_eq!(S3.proceed(facts, &due, &[]), record("image", "muster/minio:other"));
    });
    members.iter_mut().for_each(|m| m.current = false);
    let mut answers: Vec<(String, TaskOutcome)> = Vec::new();
    let asked = std::cell::RefCell::new(Vec::new());
    for _ in 0..2 {
        at(&members, &old, 100_000, &|facts| {
            assert!(matches!(S3.next_update(facts), UpdateStep::Wait(_)), "no member is touched");
            let step = S3.proceed(facts, &S3.due(facts).unwrap(), &answers);
            let ProcedureStep::Task { label, task } = step else { panic!("{step:?}") };
            let what = TaskKind::OneShot {
                image: Some("muster/minio:other".to_owned()),
                command: vec!["minio".to_owned(), "--version".to_owned()],
                apart: true,
            };
            assert_eq!(task.what, what);
            asked.borrow_mut().push((task.member, label));
        });
        let label = asked.borrow().last().unwrap().1.clone();
        answers.push((label, TaskOutcome::Done { answer: String::new() }));
    }
    assert_eq!(asked.borrow().iter().map(|(member, _)| member.0).collect::<Vec<_>>(), [1, 2]);
    at(&members, &old, 100_000, &|facts| {
        assert_eq!(
            S3.proceed(facts, &S3.due(facts).unwrap(), &answers),
            record("image", "muster/minio:other")
        );
    });
    // It fails on the second host.
    answers[1].1 = TaskOutcome::Failed { why: "79: it ended\n (exit status 64): usage".to_owned() };
    let why = "100000 muster/minio:other on host-2: 79: it ended (exit status 64): usage";
    let mut failed = old.clone();
    at(&members, &old, 100_000, &|facts| {
        assert_eq!(S3.proceed(facts, &S3.due(facts).unwrap(), &answers), record("image-failed", why));
    });
    failed.insert("image-failed".to_owned(), why.to_owned());
    at(&members, &failed, 110_000, &|facts| {
        assert_eq!(S3.due(facts).filter(|due| due.name == "try-image"), None, "not again at once");
        let UpdateStep::Fail(said) = S3.next_update(facts) else { panic!("{:?}", S3.next_update(facts)) };
        assert!(said.contains("no member is touched") && said.contains("usage"), "{said}");
    });
    at(&members, &failed, 170_000, &|facts| assert_eq!(S3.due(facts).unwrap().name, "try-image"));
}

#[test]
fn a_new_image_takes_the_first_two_back_to_back_and_then_one_by_one() {
    let (service, spec) = (name("files"), spec(THREE));
    let tried = tried(&Settings::of(&spec).image);
    let next = |members: &[MemberFacts]| {
        let facts = facts(&service, &spec, members.to_vec());
        let facts = ServiceFacts { now: Timestamp(100_000), records: &tried, ..facts };
        (S3.next_update(&facts), S3.settled(&facts, MemberId(1)))
    };
    let mut members = trio();
    members.iter_mut().for_each(|m| m.current = false);
    assert_eq!(next(&members).0, UpdateStep::Recreate(MemberId(1)));
    let change = |m: &mut MemberFacts, ready: bool| {
        (m.current, m.variant) = (true, "new".to_owned());
        m.seen = member(m.slot, "", ready).seen;
    };
    change(&mut members[0], false);
    let (step, settled) = next(&members);
    assert!(matches!(step, UpdateStep::Wait(_)) && !settled, "it does not even answer: {step:?}");
    members[0].seen.as_mut().unwrap().facts.insert(WAITING.to_owned(), "yes".to_owned());
    assert_eq!(next(&members), (UpdateStep::Recreate(MemberId(2)), true));
    change(&mut members[1], false);
    members[1].seen.as_mut().unwrap().facts.insert(WAITING.to_owned(), "yes".to_owned());
    assert!(matches!(next(&members).0, UpdateStep::Wait(_)), "the pair is not there yet");
    change(&mut members[0], true);
    change(&mut members[1], true);
    assert_eq!(next(&members).0, UpdateStep::Recreate(MemberId(3)));
    change(&mut members[2], true);
    assert_eq!(next(&members).0, UpdateStep::Done);
}

#[test]
fn a_third_image_after_an_update_that_ended_half_way_finds_its_second_member() {
    let (service, spec) = (name("files"), spec(THREE));
    let tried = tried(&Settings::of(&spec).image);
    let mut members = trio();
    for (member, variant) in members.iter_mut().zip(["newest", "new", "old"]) {
        (member.variant, member.current) = (variant.to_owned(), variant == "newest");
    }
    members[0].seen = member(1, "", false).seen;
    members[0].seen.as_mut().unwrap().facts.insert(WAITING.to_owned(), "yes".to_owned());
    let facts = facts(&service, &spec, members);
    let facts = ServiceFacts { now: Timestamp(100_000), records: &tried, ..facts };
    assert_eq!(S3.next_update(&facts), UpdateStep::Recreate(MemberId(2)));
}

#[test]
fn a_member_that_waits_for_another_reason_is_no_lone_one() {
    let (service, spec) = (name("files"), spec(THREE));
    let mut members = trio();
    members.iter_mut().for_each(|m| m.current = m.slot == 1);
    members[0].seen = member(1, "", false).seen;
    members[0].seen.as_mut().unwrap().facts.insert(WAITING.to_owned(), "yes".to_owned());
    let tried = tried(&Settings::of(&spec).image);
    let facts = ServiceFacts { records: &tried, ..facts(&service, &spec, members) };
    assert!(!S3.settled(&facts, MemberId(1)), "other limits, for example: it comes up by itself");
    assert!(matches!(S3.next_update(&facts), UpdateStep::Wait(_)));
}

#[test]
fn servers_that_just_started_are_left_alone_and_the_odd_one_is_changed_first() {
    let (service, spec) = (name("files"), spec(THREE));
    let tried = tried(&Settings::of(&spec).image);
    let mut members = trio();
    for (member, ready) in members.iter_mut().zip([false, false, true]) {
        let seen = member.seen.as_mut().unwrap();
        (seen.ready, seen.started_at) = (ready, Some(Timestamp(90_000)));
        member.current = false;
    }
    // An image that never served, of an update that was given up.
    members[1].variant = "bad".to_owned();
    let next = |now| {
        let facts = facts(&service, &spec, members.clone());
        S3.next_update(&ServiceFacts { now: Timestamp(now), records: &tried, ..facts })
    };
    assert!(
        matches!(next(100_000), UpdateStep::Wait(_)),
        "all had lost their power: two come up by themselves"
    );
    assert_eq!(next(110_000), UpdateStep::Recreate(MemberId(2)), "the other one only waits for it");
}

#[test]
fn what_is_declared_is_brought_about_step_by_step() {
    let (service, spec) = (name("files"), spec(RICH));
    let settings = Settings::of(&spec);
    let mut records = BTreeMap::from([("users".to_owned(), "web,old".to_owned())]);
    let mut answers: Vec<(String, TaskOutcome)> = Vec::new();
    let mut labels = Vec::new();
    for _ in 0..40 {
        let mut facts = facts(&service, &spec, trio());
        facts.records = &records;
        match declare::proceed(&facts, &settings, &answers) {
            ProcedureStep::Task { label, .. } => {
                let first = !answers.iter().any(|(earlier, _)| *earlier == label);
                // Each call fails once, and a bucket that is there is good enough.
                let outcome = match label.as_str() {
                    "bucket logs" => {
                        TaskOutcome::Failed { why: "409: <Code>BucketAlreadyOwnedByYou</Code>".to_owned() }
                    }
                    _ if first => TaskOutcome::Failed { why: "503".to_owned() },
                    _ => TaskOutcome::Done { answer: String::new() },
                };
                labels.push(label.clone());
                answers.push((label, outcome));
            }
            ProcedureStep::Record { key, value } => drop(records.insert(key, value)),
            ProcedureStep::Done(_) => break,
            other => panic!("{other:?}"),
        }
    }
    labels.dedup();
    let wanted = [
        "bucket photos",
        "versioning of photos",
        "bucket logs",
        "policy auditor",
        "policy muster-shipper",
        "policy muster-web",
        "users",
        "no user old",
    ];
    assert_eq!(labels, wanted);
    assert_eq!((records["users"].as_str(), records["versioned"].as_str()), ("web,audit,shipper", "photos"));
    let mut facts = facts(&service, &spec, trio());
    facts.records = &records;
    assert_eq!(declare::due(&facts, &settings), None);
    records.clear();
    let mut facts = crate::kinds::golden::facts(&service, &spec, trio());
    facts.records = &records;
    assert!(declare::due(&facts, &settings).is_some());
    let failed = ("users".to_owned(), TaskOutcome::Failed { why: "503".to_owned() });
    let step = declare::proceed(&facts, &settings, &vec![failed; 10]);
    assert!(matches!(step, ProcedureStep::NeedsOperator { reason, .. } if reason.starts_with("users")));
}

#[test]
fn connection_strings_lead_through_the_proxies() {
    let peers = scene(RICH).peers;
    let proxies = BTreeMap::from([(name("proxy"), vec![peer(1, 8, 18), peer(2, 9, 34)])]);
    let urls = S3.endpoints(&name("files"), &spec(RICH), &peers, &proxies, Some("shipper"));
    assert_eq!(
        urls[0].url,
        "https://shipper:${secret:files/user-shipper}@172.31.30.18:9443,172.31.30.34:9443/logs?ca_bundle=${ca}"
    );
    assert!(S3.endpoints(&name("files"), &spec(RICH), &peers, &proxies, Some("nobody")).is_empty());
}
