//! Golden files and decisions of this kind.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::{HostId, MemberId, Name};
use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, TaskKind};
use muster_model::spec::ServiceSpec;
use muster_model::time::Timestamp;
use muster_model::view::HealthWord;
use serde_json::{Value, json};

use super::settings::Settings;
use super::{Redis, observe, render};
use crate::kinds::golden::{Scene, compare, facts, name, peer, platform, refused, running, spec};
use crate::kinds::{Kind, MemberFacts, OPERATORS_WORD, Observed, ProcedureStep, ServiceFacts, UpdateStep};

const CLUSTER: &str = r#"{"kind":"redis","network":"dbnet"}"#;

fn scene(json: &str, peers: Vec<crate::kinds::Peer>) -> Scene {
    Scene {
        platform: platform(&[("cache", json)]),
        service: name("cache"),
        spec: spec(json),
        peers,
        children: BTreeMap::new(),
        owner: None,
        joins_existing: false,
    }
}

fn six() -> Vec<crate::kinds::Peer> {
    [(11, 17), (12, 33), (21, 49), (22, 18), (31, 34), (32, 50)]
        .map(|(slot, last)| peer(slot, slot.into(), last))
        .to_vec()
}

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let cluster = scene(CLUSTER, six());
    compare("redis/cluster-11", &cluster.render(0));
    let single = r#"{"kind":"redis","network":"dbnet","mode":"single","flavour":"valkey","eviction":"allkeys-lru",
        "users":[{"name":"web"}],"resources":{"memory":"512MiB"}}"#;
    compare("redis/single", &scene(single, vec![peer(1, 1, 17)]).render(0));
}

#[test]
fn a_changed_peer_needs_no_new_container() {
    let mut cluster = scene(CLUSTER, six());
    let before = cluster.render(0);
    cluster.peers[5] = peer(32, 99, 66);
    let after = cluster.render(0);
    assert_ne!(before.files, after.files);
    assert_eq!(before.container_hash(), after.container_hash());
}

#[test]
fn settings_are_judged() {
    for (json, path) in [
        (r#"{"kind":"redis","shards":2}"#, "shards"),
        (r#"{"kind":"redis","shards":12,"replicas":3}"#, "shards"),
        (r#"{"kind":"redis","mode":"single","replicas":1}"#, "replicas"),
        (r#"{"kind":"redis","node_timeout":"100ms"}"#, "node_timeout"),
        (r#"{"kind":"redis","min_replicas":2}"#, "min_replicas"),
        (r#"{"kind":"redis","maxmemory":"250MiB"}"#, "maxmemory"),
        (r#"{"kind":"redis","users":[{"name":"default"}]}"#, "users.0.name"),
        (r#"{"kind":"redis","eviction":"sometimes"}"#, "eviction"),
        (r#"{"kind":"redis","image":"no image"}"#, "image"),
    ] {
        refused(json, path);
    }
}

#[test]
fn what_would_leave_data_behind_is_refused() {
    let change = |from: &str, to: &str| Redis.may_become(&name("cache"), &spec(from), &spec(to));
    assert!(change(CLUSTER, r#"{"kind":"redis","network":"dbnet","shards":4,"replicas":2}"#).is_ok());
    assert!(change(CLUSTER, r#"{"kind":"redis","mode":"single"}"#).unwrap_err().path == "mode");
    assert!(change(CLUSTER, r#"{"kind":"redis","flavour":"valkey"}"#).unwrap_err().path == "flavour");
}

/// CRC-16/XMODEM, as the cluster's specification says.
fn hash_slot(tag: &str) -> u16 {
    let step = |crc: u16, byte: u8| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    };
    tag.bytes().fold(0, step) % 16_384
}

#[test]
fn heartbeats_reach_every_sixteenth_of_the_hash_slots() {
    for (sixteenth, tag) in render::TAGS.iter().enumerate() {
        assert_eq!(usize::from(hash_slot(tag)) / 1_024, sixteenth, "{tag}");
    }
}

fn id(slot: u32) -> String {
    format!("{slot:040x}")
}

fn report(slot: u32, flags: &str, follows: &str, slots: &[&str], beats: &Value) -> Observed {
    let mut line =
        vec![id(slot), format!("172.31.20.{slot}:6379@16379"), format!("myself,{flags}"), follows.to_owned()];
    line.push("connected".to_owned());
    line.extend(slots.iter().map(|range| (*range).to_owned()));
    let other = json!([id(99), "172.31.20.99:6379@16379", "slave", "-", "connected"]);
    let strange = json!([id(98), "172.31.20.98:6379@16379", "handshake", "-", "disconnected"]);
    let role = if flags == "master" { "master" } else { "slave" };
    let link = if follows == "-" { "" } else { "up" };
    let redis = json!({
        "info": {"role": role, "uptime_in_seconds": "3600", "loading": "0", "aof_last_write_status": "ok", "master_link_status": link,
                 "master_sync_in_progress": "0", "master_last_io_seconds_ago": "1"},
        "cluster": {"cluster_state": "ok"},
        "nodes": [line, other, strange],
    });
    let status =
        running("cache", slot, slot.into(), &[("redis", true, redis), ("write", false, beats.clone())]);
    observe::interpret(&Settings::of(&spec(CLUSTER)), &status)
}

#[test]
fn roles_slots_and_acquaintances_are_read() {
    let beats = json!({"a": "OK", "b": {"error": "MOVED 12182 10.0.0.1:6379"}});
    let master = report(11, "master", "-", &["0-99", "200", "[300->-abc]"], &beats);
    assert_eq!((master.role.as_deref(), master.ready, master.writes), (Some("master"), true, Some(true)));
    assert_eq!(master.system_id, Some(id(11)));
    assert_eq!(master.facts["slot_count"], "101");
    assert_eq!(master.facts["knows"], format!("{},{}", id(11), id(99)), "a node in handshake is nobody yet");
    assert_eq!(master.facts["open"], "300->-abc");
    let refused = json!({"a": {"error": "NOREPLICAS Not enough good replicas to write."}});
    let stuck = report(11, "master", "-", &["0-99"], &refused);
    assert!(!stuck.ready && stuck.detail.contains("writes"), "{stuck:?}");
    let replica = report(12, "slave", &id(11), &[], &json!({"a": {"error": "MOVED 1 x"}}));
    assert_eq!((replica.role.as_deref(), replica.ready, replica.writes), (Some("replica"), true, None));
    assert!(!report(31, "master", "-", &[], &json!({})).ready, "a master without hash slots serves nothing");
}

/// A member of a cluster on a host; `of` = the slot that it follows, or the hash slots that it owns.
fn node(slot: u32, host: u32, of: Result<u32, u32>) -> MemberFacts {
    let mut facts = BTreeMap::from([
        ("at".to_owned(), format!("172.31.20.{slot}")),
        ("knows".to_owned(), [11, 12, 21, 22, 31, 32].map(id).join(",")),
        ("state".to_owned(), "ok".to_owned()),
    ]);
    facts.insert("slot_count".to_owned(), of.unwrap_or(0).to_string());
    if let Ok(master) = of.as_ref().map_err(|master| *master) {
        facts.insert("slots".to_owned(), format!("0-{master}"));
    }
    if let Err(master) = of {
        facts.insert("follows".to_owned(), id(master));
    }
    MemberFacts {
        slot,
        member: MemberId(slot.into()),
        host: HostId::new(format!("{host:016x}")).unwrap(),
        host_name: name(&format!("host-{host}")),
        addresses: peer(slot, u64::from(slot), slot as u8).addresses,
        joins_existing: false,
        seen_since: muster_model::time::Timestamp(0),
        variant: String::new(),
        host_up: true,
        host_since: Timestamp(0),
        scheduling: muster_model::view::Scheduling::Open,
        started: true,
        revision: muster_model::ids::Revision(1),
        current: true,
        seen: Some(Observed {
            running: true,
            ready: true,
            caught_up: true,
            role: Some(if of.is_ok() { "master" } else { "replica" }.to_owned()),
            system_id: Some(id(slot)),
            facts,
            ..Observed::default()
        }),
        stopped: false,
        missing: false,
        kept: false,
    }
}

/// Three hosts, one master and one replica on each.
fn whole() -> Vec<MemberFacts> {
    vec![
        node(11, 1, Ok(5_461)),
        node(12, 2, Err(11)),
        node(21, 3, Ok(5_461)),
        node(22, 1, Err(21)),
        node(31, 2, Ok(5_462)),
        node(32, 3, Err(31)),
    ]
}

/// As [`whole`] after the loss of host 1 and its return: shard 1 is led from host 2.
fn skewed() -> Vec<MemberFacts> {
    let mut members = whole();
    members[0] = node(11, 1, Err(12));
    members[1] = node(12, 2, Ok(5_461));
    members
}

fn records() -> BTreeMap<String, String> {
    [11, 12, 21, 22, 31, 32]
        .iter()
        .map(|slot| (format!("node-{slot}"), format!("{slot} {}", id(*slot))))
        .collect()
}

fn with<'a>(
    service: &'a Name,
    spec: &'a ServiceSpec,
    members: Vec<MemberFacts>,
    records: &'a BTreeMap<String, String>,
) -> ServiceFacts<'a> {
    ServiceFacts { slots: 6, records, ..facts(service, spec, members) }
}

fn judge<T>(
    members: Vec<MemberFacts>,
    change: impl Fn(&mut BTreeMap<String, String>),
    read: impl Fn(&ServiceFacts<'_>) -> T,
) -> T {
    let (service, spec) = (name("cache"), spec(CLUSTER));
    let mut records = records();
    change(&mut records);
    read(&with(&service, &spec, members, &records))
}

fn quietly(_: &mut BTreeMap<String, String>) {}

#[test]
fn health_tells_of_piled_up_masters_and_of_shards_on_one_host() {
    let word = |members: Vec<MemberFacts>| judge(members, quietly, |facts| Redis.health(facts));
    assert_eq!(word(whole()).word, HealthWord::Healthy);
    let piled = word(skewed());
    assert_eq!(piled.word, HealthWord::Critical);
    assert!(piled.reasons.iter().any(|why| why.contains("2 of 3 masters")), "{piled:?}");
    let mut alone = whole();
    alone[1].seen.as_mut().unwrap().ready = false;
    assert_eq!(word(alone).word, HealthWord::Critical);
    let mut headless = whole();
    headless[0].host_up = false;
    headless[0].seen = None;
    assert_eq!(word(headless).word, HealthWord::Down);
}

#[test]
fn replicas_stay_until_the_hash_slots_are_where_they_stay() {
    judge(whole(), quietly, |facts| assert!(Redis.may_retire(facts, MemberId(32)).is_ok()));
    let mut headless = whole();
    headless[0].seen = None;
    judge(headless, quietly, |facts| assert!(Redis.may_retire(facts, MemberId(32)).is_err()));
}

#[test]
fn masters_spread_again_unless_an_operator_chose() {
    let task = |step: &ProcedureStep| match step {
        ProcedureStep::Task { task, .. } => (task.member, task.guard.is_some()),
        other => panic!("{other:?}"),
    };
    judge(whole(), quietly, |facts| assert_eq!(Redis.due(facts), None));
    judge(skewed(), quietly, |facts| {
        let due = Redis.due(facts).unwrap();
        assert_eq!(due.name, "spread");
        assert_eq!(task(&Redis.proceed(facts, &due, &[])), (MemberId(11), true));
    });
    let choice =
        |records: &mut BTreeMap<String, String>| drop(records.insert("master-1".to_owned(), "12".to_owned()));
    // The other master on that host moves instead, if one of its replicas is on a host without any.
    judge(skewed(), choice, |facts| assert_eq!(Redis.due(facts), None));
    let mut behind = skewed();
    behind[0].seen.as_mut().unwrap().ready = false;
    judge(behind, quietly, |facts| assert_eq!(Redis.due(facts), None, "not before everybody is in sync"));
    let mut young = skewed();
    young[0].seen.as_mut().unwrap().facts.insert("young".to_owned(), "yes".to_owned());
    judge(young, quietly, |facts| {
        assert_eq!(Redis.due(facts), None, "not while an election's votes still count");
    });
}

#[test]
fn a_try_is_given_time_and_then_an_operator_is_asked() {
    judge(skewed(), quietly, |facts| {
        let due = Redis.due(facts).unwrap();
        let ProcedureStep::Task { label, .. } = Redis.proceed(facts, &due, &[]) else { panic!("no task") };
        let done = TaskOutcome::Done { answer: String::new() };
        let once = [(label.clone(), done)];
        assert!(matches!(Redis.proceed(facts, &due, &once), ProcedureStep::Wait(_)));
        let refused = (label, TaskOutcome::Refused { why: "lag".to_owned() });
        let mut later = facts.clone();
        later.now = Timestamp(facts.now.0 + 3_000);
        assert!(matches!(
            Redis.proceed(&later, &due, std::slice::from_ref(&refused)),
            ProcedureStep::Task { .. }
        ));
        let many = vec![refused; 8];
        assert!(matches!(Redis.proceed(&later, &due, &many), ProcedureStep::NeedsOperator { .. }));
    });
}

fn words(step: &ProcedureStep) -> Vec<String> {
    let ProcedureStep::Task { task, .. } = step else { panic!("{step:?}") };
    let TaskKind::Act { act: Act::Resp(resp) } = &task.what else { panic!("{task:?}") };
    resp.calls.iter().map(|call| call.words.join(" ")).collect()
}

#[test]
fn a_cluster_is_made_in_steps() {
    let mut members = whole();
    for member in &mut members {
        let seen = member.seen.as_mut().unwrap();
        seen.role = Some("master".to_owned());
        let own = seen.system_id.clone().unwrap();
        seen.facts.insert("knows".to_owned(), own);
        seen.facts.insert("slot_count".to_owned(), "0".to_owned());
        seen.facts.remove("follows");
    }
    let unformed = |members: &[MemberFacts], read: &dyn Fn(&ServiceFacts<'_>)| {
        judge(
            members.to_vec(),
            |records| records.clear(),
            |facts| {
                read(&ServiceFacts { formed: false, ..facts.clone() });
            },
        );
    };
    unformed(&members[..5], &|facts| assert_eq!(Redis.due(facts), None, "not before all of them answer"));
    unformed(&members, &|facts| {
        let due = Redis.due(facts).unwrap();
        let words = words(&Redis.proceed(facts, &due, &[]));
        assert!(words.contains(&"CLUSTER ADDSLOTSRANGE 5461 10921".to_owned()), "{words:?}");
        assert_eq!(words.len(), 6);
    });
    for member in members.iter_mut().filter(|member| member.slot % 10 == 1) {
        member.seen.as_mut().unwrap().facts.insert("slot_count".to_owned(), "5462".to_owned());
    }
    unformed(&members, &|facts| {
        let words = words(&Redis.proceed(facts, &Redis.due(facts).unwrap(), &[]));
        assert_eq!(words.len(), 5, "everybody but the one that introduces: {words:?}");
        assert!(words.contains(&"CLUSTER MEET 172.31.20.32 6379".to_owned()));
    });
    for member in &mut members {
        member
            .seen
            .as_mut()
            .unwrap()
            .facts
            .insert("knows".to_owned(), [11, 12, 21, 22, 31, 32].map(id).join(","));
    }
    unformed(&members, &|facts| {
        let words: BTreeSet<String> =
            words(&Redis.proceed(facts, &Redis.due(facts).unwrap(), &[])).into_iter().collect();
        assert_eq!(words, [11, 21, 31].map(|slot| format!("CLUSTER REPLICATE {}", id(slot))).into());
    });
}

#[test]
fn a_replaced_member_joins_and_the_old_one_is_forgotten_by_all() {
    // Member 50 fills slot 12 on host 4, and has met nobody.
    let mut members = whole();
    members[1] = node(12, 4, Ok(0));
    members[1].member = MemberId(50);
    let seen = members[1].seen.as_mut().unwrap();
    seen.system_id = Some(id(50));
    seen.ready = false;
    seen.facts.insert("knows".to_owned(), id(50));
    judge(members.clone(), quietly, |facts| {
        let due = Redis.due(facts).unwrap();
        assert_eq!(
            (due.name.as_str(), words(&Redis.proceed(facts, &due, &[]))),
            ("join", vec!["CLUSTER MEET 172.31.20.12 6379".to_owned()])
        );
    });
    let all = [11, 12, 21, 22, 31, 32, 50].map(id).join(",");
    for member in &mut members {
        member.seen.as_mut().unwrap().facts.insert("knows".to_owned(), all.clone());
    }
    judge(members.clone(), quietly, |facts| {
        let step = Redis.proceed(facts, &Redis.due(facts).unwrap(), &[]);
        assert_eq!(words(&step), [format!("CLUSTER REPLICATE {}", id(11))]);
    });
    members[1].seen.as_mut().unwrap().facts.insert("follows".to_owned(), id(11));
    members[1].seen.as_mut().unwrap().role = Some("replica".to_owned());
    judge(members.clone(), quietly, |facts| {
        let step = Redis.proceed(facts, &Redis.due(facts).unwrap(), &[]);
        assert_eq!(
            step,
            ProcedureStep::Record { key: "node-12".to_owned(), value: format!("50 {}", id(50)) }
        );
    });
    let noted = |records: &mut BTreeMap<String, String>| {
        records.insert("node-12".to_owned(), format!("50 {}", id(50)));
    };
    judge(members.clone(), noted, |facts| {
        let step = Redis.proceed(facts, &Redis.due(facts).unwrap(), &[]);
        assert_eq!(words(&step), vec![format!("CLUSTER FORGET {}", id(12)); 6]);
    });
    // A member whose host is dark is none that left.
    members[5].host_up = false;
    members[5].seen = None;
    judge(members.clone(), noted, |facts| {
        let step = Redis.proceed(facts, &Redis.due(facts).unwrap(), &[]);
        assert_eq!(words(&step), vec![format!("CLUSTER FORGET {}", id(12)); 5]);
    });
    // Neither is anybody forgotten while hash slots have no master.
    members[2].seen.as_mut().unwrap().facts.insert("slot_count".to_owned(), "0".to_owned());
    judge(members, noted, |facts| {
        assert_ne!(Redis.due(facts).map(|due| due.name), Some("forget".to_owned()));
    });
}

#[test]
fn an_update_takes_replicas_first_and_moves_each_master_before() {
    let mut members = whole();
    members.iter_mut().for_each(|member| member.current = false);
    let step = |members: &[MemberFacts]| judge(members.to_vec(), quietly, |facts| Redis.next_update(facts));
    assert_eq!(step(&members), UpdateStep::Recreate(MemberId(12)));
    members[1].current = true;
    members[1].seen.as_mut().unwrap().ready = false;
    assert!(matches!(step(&members), UpdateStep::Wait(_)), "one host at a time");
    members[1].seen.as_mut().unwrap().ready = true;
    members[3].current = true;
    members[5].current = true;
    assert_eq!(step(&members), UpdateStep::Switch { from: MemberId(11), to: MemberId(12) });
    judge(whole(), quietly, |facts| {
        assert!(Redis.may_stop(facts, MemberId(11)).unwrap_err().0.contains("--to 12"));
        assert!(Redis.may_stop(facts, MemberId(12)).is_ok());
        assert!(Redis.switchover(facts, None).unwrap_err().0.contains("--to 12 (shard 1)"));
        assert!(Redis.switchover(facts, Some(11)).is_err());
        assert_eq!(Redis.switchover(facts, Some(12)).unwrap().member, MemberId(12));
    });
}

#[test]
fn what_a_host_takes_along_is_computed_from_the_placement() {
    let losses = |members: Vec<MemberFacts>| {
        judge(members, quietly, |facts| {
            Redis.survivability(facts).stops_writes.into_keys().collect::<Vec<_>>()
        })
    };
    let host = |number: u32| HostId::new(format!("{number:016x}")).unwrap();
    assert_eq!(losses(whole()), []);
    assert_eq!(losses(skewed()), [host(2)]);
    let mut pair = whole();
    pair[1].host = host(1);
    assert_eq!(losses(pair), [host(1)]);
}

#[test]
fn a_new_shard_gets_hash_slots_and_one_that_goes_gives_them_away() {
    let script = |members: Vec<MemberFacts>, spec_json: &str| {
        let (service, spec) = (name("cache"), spec(spec_json));
        let mut records = records();
        for slot in [41, 42] {
            records.insert(format!("node-{slot}"), format!("{slot} {}", id(slot)));
        }
        let slots = Settings::of(&spec).members();
        let facts = ServiceFacts { slots, ..with(&service, &spec, members, &records) };
        let due = Redis.due(&facts)?;
        assert_eq!(Redis.health(&facts).word, HealthWord::Degraded);
        match Redis.proceed(&facts, &due, &[]) {
            ProcedureStep::Task { task, .. } => match task.what {
                TaskKind::Exec { argv } => Some(argv[2].clone()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    let mut members = whole();
    members.extend([node(41, 4, Ok(0)), node(42, 1, Err(41))]);
    let knows = [11, 12, 21, 22, 31, 32, 41, 42].map(id).join(",");
    for member in &mut members {
        member.seen.as_mut().unwrap().facts.insert("knows".to_owned(), knows.clone());
    }
    members[6].seen.as_mut().unwrap().ready = false;
    let four = r#"{"kind":"redis","network":"dbnet","shards":4}"#;
    let moved = script(members.clone(), four).unwrap();
    assert!(moved.contains("rebalance") && moved.contains("--cluster-use-empty-masters"), "{moved}");
    members[0] = node(11, 1, Ok(4_096));
    members[0].seen.as_mut().unwrap().facts.insert("knows".to_owned(), knows.clone());
    members[6] = node(41, 4, Ok(1_365));
    members[6].seen.as_mut().unwrap().facts.insert("knows".to_owned(), knows);
    members[6].seen.as_mut().unwrap().ready = false;
    let away = script(members, CLUSTER).unwrap();
    assert!(away.contains(&format!("--cluster-weight {}=0", id(41))), "{away}");
    assert!(!away.contains("127.0.0.1"), "a source that moves a key there waits for itself: {away}");
}

#[test]
fn a_hash_slot_that_stayed_between_two_shards_is_mended_once_every_slot_has_a_master() {
    let due = |members: &[MemberFacts]| {
        judge(members.to_vec(), quietly, |facts| {
            Redis.due(facts).map(|due| (due.name.clone(), Redis.proceed(facts, &due, &[])))
        })
    };
    let mut members = skewed();
    let mut moving = |with: u32| {
        let facts = &mut members[2].seen.as_mut().unwrap().facts;
        facts.insert("open".to_owned(), format!("300-<-{}", id(with)));
        members.clone()
    };
    let moved = moving(12);
    let torn = moving(11);
    let name = |members: &[MemberFacts]| due(members).map(|(name, _)| name);
    assert_ne!(name(&moved).as_deref(), Some("mend-slots"), "its partner leads: the move goes on");
    let (procedure, step) = due(&torn).unwrap();
    assert_eq!(procedure, "mend-slots");
    let ProcedureStep::Task { label, task } = step else { panic!("{step:?}") };
    let TaskKind::Exec { argv } = task.what else { panic!("{:?}", task.what) };
    assert!(
        label.contains("slot 21") && argv[2].contains("fix $at") && task.member == MemberId(12),
        "{argv:?}"
    );
    let mut stuck = torn.clone();
    stuck[2].seen.as_mut().unwrap().facts.insert("state".to_owned(), "fail".to_owned());
    stuck[0].seen = None;
    let (procedure, step) = due(&stuck).unwrap();
    assert_eq!(procedure, "mend-slots");
    let ProcedureStep::Task { task, .. } = step else { panic!("{step:?}") };
    let told = format!("{:?}", task.what);
    assert!(told.contains("SETSLOT") && told.contains("\"300\"") && told.contains(&id(12)), "{told}");
    stuck[2] = torn[2].clone();
    assert_ne!(name(&stuck).as_deref(), Some("mend-slots"), "the tool works only once all are there");
    let mut uncovered = torn;
    uncovered[1].seen.as_mut().unwrap().facts.insert("slot_count".to_owned(), "5460".to_owned());
    assert_ne!(
        name(&uncovered).as_deref(),
        Some("mend-slots"),
        "the tool would give a slot without a master away"
    );
}

#[test]
fn a_replica_of_a_shard_that_goes_stays_until_the_hash_slots_are_gone() {
    let mut members = whole();
    members.extend([node(41, 4, Ok(4_095)), node(42, 1, Err(41))]);
    let may = |members: &[MemberFacts], member: u64| {
        judge(members.to_vec(), quietly, |facts| Redis.may_retire(facts, MemberId(member)))
    };
    assert!(may(&members, 42).unwrap_err().0.contains("shard 4 has hash slots"));
    assert!(may(&members, 41).is_err());
    members[6].seen.as_mut().unwrap().facts.insert("slot_count".to_owned(), "0".to_owned());
    assert!(may(&members, 42).is_ok() && may(&members, 41).is_ok());
}

/// Host 1 has been down for `dark` seconds; slot 12 was started again and waits for its master, slot 11.
fn orphaned(dark: u64) -> Vec<MemberFacts> {
    let mut members = whole();
    for member in members.iter_mut().filter(|m| m.slot == 11 || m.slot == 22) {
        (member.host_up, member.seen) = (false, None);
        member.host_since = Timestamp(10_000_u64.saturating_sub(dark * 1_000));
    }
    for member in members.iter_mut() {
        let Some(seen) = member.seen.as_mut() else { continue };
        seen.facts.insert("state".to_owned(), "fail".to_owned());
        seen.ready = member.slot != 12;
    }
    members
}

fn repaired(members: Vec<MemberFacts>, answers: &[(String, TaskOutcome)]) -> ProcedureStep {
    judge(members, quietly, |service| {
        let service = ServiceFacts { now: Timestamp(100_000), ..service.clone() };
        super::repair::proceed(&service, &Settings::of(service.spec), answers)
    })
}

#[test]
fn a_shard_without_a_master_that_elects_nobody_is_taken_over_on_an_operators_word_only() {
    let ProcedureStep::NeedsOperator { reason, remedy, word: true } = repaired(orphaned(0), &[]) else {
        panic!()
    };
    assert!(
        reason.contains("cache/11 on host-1 is gone") && reason.contains("cache/12 on host-2"),
        "{reason}"
    );
    assert!(remedy.contains("TAKEOVER"), "{remedy}");
    let said = |what: &str| vec![(OPERATORS_WORD.to_owned(), TaskOutcome::Done { answer: what.to_owned() })];
    let other = repaired(orphaned(0), &said("something else"));
    assert!(matches!(other, ProcedureStep::NeedsOperator { .. }), "{other:?}");
    let step = repaired(orphaned(0), &said(&reason));
    assert_eq!(words(&step), ["CLUSTER FAILOVER TAKEOVER"]);
    let ProcedureStep::Task { task, .. } = step else { panic!() };
    assert_eq!(task.member, MemberId(12));
    assert!(task.guard.is_some_and(|guard| format!("{guard:?}").contains("master_link_status")));
}

#[test]
fn a_master_that_could_come_back_is_not_asked_about() {
    let is_asked =
        |members: Vec<MemberFacts>| matches!(repaired(members, &[]), ProcedureStep::NeedsOperator { .. });
    let mut brief = orphaned(0);
    brief[0].host_since = Timestamp(70_000);
    assert!(!is_asked(brief), "it is dark for a moment only");
    let mut back = orphaned(0);
    back[0].host_up = true;
    assert!(!is_asked(back), "its agent answers: it may start it again");
    let mut lost = orphaned(0);
    (lost[0].host_up, lost[0].missing) = (true, true);
    assert!(is_asked(lost), "its agent says that it cannot");
    // An emptied master waits until somebody else was elected, and nobody can be: its agent sees it run and say nothing.
    let mut waits = orphaned(0);
    waits[0].host_up = true;
    waits[0].seen = Some(Observed { running: true, ..Observed::default() });
    assert!(is_asked(waits.clone()), "it has waited long enough");
    waits[0].seen_since = Timestamp(70_000);
    assert!(!is_asked(waits), "it may be reading its data");
    let mut linked = orphaned(0);
    linked[1].seen.as_mut().unwrap().ready = true;
    assert!(!is_asked(linked), "its master was just there");
    assert!(!is_asked(whole()));
}

/// Its id was not recorded when its host went dark: it was taken for one that is no member any more, at once, and the question
/// did not say whose host must be off.
#[test]
fn a_master_that_was_never_recorded_is_no_stranger() {
    let unrecorded = |members: Vec<MemberFacts>| {
        let forget = |records: &mut BTreeMap<String, String>| drop(records.remove("node-11"));
        judge(members, forget, |service| {
            let service = ServiceFacts { now: Timestamp(100_000), ..service.clone() };
            super::repair::proceed(&service, &Settings::of(service.spec), &[])
        })
    };
    let mut brief = orphaned(0);
    brief[0].host_since = Timestamp(70_000);
    let step = unrecorded(brief.clone());
    assert!(!matches!(step, ProcedureStep::NeedsOperator { .. }), "it is dark for a moment only: {step:?}");
    brief[0].joins_existing = true;
    let step = unrecorded(brief);
    assert!(matches!(step, ProcedureStep::NeedsOperator { .. }), "it never was the master: {step:?}");
    let ProcedureStep::NeedsOperator { reason, .. } = unrecorded(orphaned(0)) else { panic!() };
    assert!(reason.contains("cache/11 on host-1 is gone"), "{reason}");
}

#[test]
fn of_several_replicas_the_furthest_is_asked_about() {
    let mut members = orphaned(0);
    let mut third = members[1].clone();
    (third.slot, third.member, third.host_name) = (13, MemberId(13), name("host-3"));
    third.seen.as_mut().unwrap().system_id = Some(id(13));
    members.push(third);
    let step = repaired(members.clone(), &[]);
    let ProcedureStep::Task { label, .. } = step else { panic!("{step:?}") };
    let told =
        json!({"info-12": {"slave_repl_offset": "7"}, "info-13": {"slave_repl_offset": "9"}}).to_string();
    let step = repaired(members, &[(label, TaskOutcome::Done { answer: told })]);
    let ProcedureStep::NeedsOperator { reason, .. } = step else { panic!("{step:?}") };
    assert!(reason.contains("cache/13 on host-3, the furthest"), "{reason}");
}

#[test]
fn the_last_copy_of_a_shard_never_follows_an_empty_master() {
    let mut members = orphaned(0);
    members[0] = node(11, 4, Ok(0));
    members[0].member = MemberId(99);
    members[0].seen.as_mut().unwrap().system_id = Some(id(97));
    let known = [11, 12, 21, 22, 31, 32, 97].map(id).join(",");
    for member in &mut members {
        let Some(seen) = member.seen.as_mut() else { continue };
        seen.facts.insert("knows".to_owned(), known.clone());
    }
    let step = repaired(members, &[]);
    let ProcedureStep::NeedsOperator { reason, .. } = step else { panic!("{step:?}") };
    assert!(reason.contains("cache/12"), "{reason}");
}

/// [`whole`], and a fourth shard that has no hash slots.
fn with_an_idle_shard() -> Vec<MemberFacts> {
    let mut members = whole();
    for slot in [41, 42] {
        let mut idle = node(slot, slot, Ok(0));
        idle.seen.as_mut().unwrap().ready = false;
        members.push(idle);
    }
    members
}

#[test]
fn nothing_waits_for_a_shard_without_hash_slots() {
    let mut members = with_an_idle_shard();
    members[1].current = false;
    let step = |members: &[MemberFacts]| judge(members.to_vec(), quietly, |facts| Redis.next_update(facts));
    assert_eq!(step(&members), UpdateStep::Recreate(MemberId(12)), "it leaves once the update is over");
    judge(members.clone(), quietly, |facts| {
        assert!(Redis.may_stop(facts, MemberId(12)).is_ok());
        assert!(Redis.settled(facts, MemberId(41)), "it serves as much as it can");
    });
    let mut silent = members.clone();
    silent[6].seen = None;
    assert!(matches!(step(&silent), UpdateStep::Wait(_)), "what it has is not known");
    members[0].seen.as_mut().unwrap().facts.insert("slot_count".to_owned(), "5000".to_owned());
    assert!(matches!(step(&members), UpdateStep::Wait(_)), "some hash slots are nobody's");
    judge(members, quietly, |facts| assert!(!Redis.settled(facts, MemberId(41))));
}

#[test]
fn a_cluster_whose_shards_change_while_it_is_made_is_made_all_the_same() {
    let unformed = |members: Vec<MemberFacts>, read: &dyn Fn(&ServiceFacts<'_>)| {
        judge(members, quietly, |facts| read(&ServiceFacts { formed: false, ..facts.clone() }));
    };
    unformed(with_an_idle_shard(), &|facts| assert!(Redis.is_formed(facts)));
    let mut lacking = with_an_idle_shard();
    lacking.remove(5);
    unformed(lacking, &|facts| {
        assert!(!Redis.is_formed(facts), "others do not stand for one that is wanted");
    });
    let mut fresh = with_an_idle_shard();
    for member in &mut fresh {
        let slot = member.slot;
        let mut seen = node(slot, 1, Ok(0)).seen.unwrap();
        seen.facts.insert("knows".to_owned(), id(slot));
        member.seen = Some(seen);
    }
    unformed(fresh.clone(), &|facts| {
        let words = words(&Redis.proceed(facts, &Redis.due(facts).unwrap(), &[]));
        assert_eq!(words.len(), 6, "a shard that is to go gets none: {words:?}");
    });
    fresh.remove(5);
    unformed(fresh, &|facts| assert_eq!(Redis.due(facts), None, "not before all that are wanted answer"));
}
