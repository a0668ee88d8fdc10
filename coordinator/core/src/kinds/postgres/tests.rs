//! Golden files and decisions of this kind.

use std::collections::BTreeMap;

use muster_model::ids::MemberId;
use muster_model::observed::{Answer, TaskOutcome};
use muster_model::plan::{Act, TaskKind};
use muster_model::spec::ServiceSpec;
use muster_model::time::Timestamp;
use muster_model::view::HealthWord;
use serde_json::{Value, json};

use super::Postgres;
use crate::kinds::golden::{
    child_of_postgres, compare, exporters_of, facts, member, name, peer, platform, postgres_ha, problems,
    refused, running, spec,
};
use crate::kinds::{Kind, MemberFacts, ProcedureStep, ServiceFacts, UpdateStep};

const HA: &str = r#"{"kind":"postgres"}"#;
const WRITTEN: &str = r#"{"kind":"postgres","synchronous":false,"image":"registry.example/pg:16",
    "parameters":{"work_mem":"8MB","max_connections":200},"users":[{"name":"shop"},{"name":"report"}],
    "databases":[{"name":"shop"},{"name":"facts","owner":"report"}],"resources":{"memory":"1GiB","cpus":1.5}}"#;

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let mut scene = postgres_ha(HA);
    for index in 0..scene.peers.len() {
        compare(&format!("postgres/ha-{}", index + 1), &scene.render(index));
    }
    scene.peers[1] = peer(2, 9, 36);
    scene.joins_existing = true;
    compare("postgres/joins", &scene.render(1));
    compare("postgres/asynchronous", &postgres_ha(WRITTEN).render(0));
    let mut single = postgres_ha(r#"{"kind":"postgres","mode":"single"}"#);
    single.peers.truncate(1);
    single.children = BTreeMap::from([(name("etcd"), vec![peer(1, 1, 17)])]);
    compare("postgres/single", &single.render(0));
}

#[test]
fn a_replaced_member_restarts_no_other() {
    let mut scene = postgres_ha(HA);
    let before = scene.render(0);
    scene.peers[1] = peer(2, 9, 36);
    scene.children.get_mut(&name("etcd")).unwrap()[0] = peer(1, 10, 21);
    scene.joins_existing = true;
    let after = scene.render(0);
    assert_ne!(before.files[0], after.files[0]);
    assert_eq!(before.container_hash(), after.container_hash());
}

#[test]
fn children_come_with_the_mode() {
    let kinds = |json: &str| -> Vec<(String, String, u32)> {
        let children = Postgres.children(&name("it"), &spec(json));
        let slots = |spec: &ServiceSpec| {
            crate::kinds::kind(spec.kind.as_str()).unwrap().layout(&name("x"), spec).slots
        };
        children.iter().map(|c| (c.role.to_string(), c.spec.kind.to_string(), slots(&c.spec))).collect()
    };
    let row = |role: &str, kind: &str, slots| (role.to_owned(), kind.to_owned(), slots);
    assert_eq!(kinds(HA), [row("etcd", "etcd", 3), row("proxy", "haproxy", 2)]);
    assert_eq!(kinds(r#"{"kind":"postgres","mode":"single"}"#), [row("etcd", "etcd", 1)]);
    // Children are judged like services, and must be accepted.
    let platform = platform(&[("it", HA)]);
    for child in Postgres.children(&name("it"), &spec(HA)) {
        let kind = crate::kinds::kind(child.spec.kind.as_str()).unwrap();
        assert_eq!(kind.validate(&name("it-child"), &child.spec, &platform), []);
    }
}

#[test]
fn exporters_come_with_the_setting_and_touch_no_member() {
    let watched = r#"{"kind":"postgres","metrics":true,"metrics_network":"proxy"}"#;
    assert_eq!(problems(watched, &[]), []);
    refused(r#"{"kind":"postgres","metrics":"monnet"}"#, "metrics");
    refused(r#"{"kind":"postgres","metrics_network":"nowhere"}"#, "metrics_network");
    let (before, after) = (postgres_ha(HA).render(0), postgres_ha(watched).render(0));
    assert_eq!(before.container_hash(), after.container_hash());
    let file = |path: &str| after.files.iter().find(|file| file.path == path).unwrap().content.as_str();
    assert_eq!(file("/muster/secrets/metrics"), "${secret:orders/metrics}");
    assert!(file("/muster/converge.json").contains("\"metrics\": true"));
    let rules = file("/muster/patroni.yml");
    let at = |text: &str| rules.find(text).unwrap_or_else(|| panic!("{text}: {rules}"));
    let lets_in = at("host postgres muster_metrics 172.31.10.0/24 scram-sha-256");
    assert!(lets_in < at("muster_probe,muster_metrics all reject"));
    compare("exporter/postgres", &exporters_of(postgres_ha(watched)).render(1));
}

#[test]
fn wrong_settings_are_refused_with_path_and_remedy() {
    assert_eq!(problems(WRITTEN, &[]), []);
    let with = |field: &str| format!(r#"{{"kind":"postgres",{field}}}"#);
    for (field, path) in [
        (r#""mode":"cluster""#, "mode"),
        (r#""members":1"#, "members"),
        (r#""members":"three""#, "members"),
        (r#""mode":"single","members":3"#, "members"),
        (r#""network":"nowhere""#, "network"),
        (r#""network":"../x""#, "network"),
        (r#""image":"a b""#, "image"),
        (r#""synchronous":"yes""#, "synchronous"),
        (r#""parameters":{"wal_level":"minimal"}"#, "parameters.wal_level"),
        (r#""parameters":{"synchronous_commit":"off"}"#, "parameters.synchronous_commit"),
        (r#""parameters":{"work_mem":["8MB"]}"#, "parameters.work_mem"),
        (r#""parameters":{"work_mem":"${secret:it/superuser}"}"#, "parameters.work_mem"),
        (r#""users":[{"name":"postgres"}]"#, "users.0.name"),
        (r#""users":[{"name":"a"},{"name":"a"}]"#, "users.1.name"),
        (r#""users":[{}]"#, "users.0.name"),
        (r#""databases":[{"name":"x","owner":"nobody"}]"#, "databases.0.owner"),
        (r#""databases":[{"name":"template1"}]"#, "databases.0.name"),
        (r#""synchronus":true"#, "synchronus"),
        (r#""resources":{"memory":"8MiB"}"#, "resources.memory"),
        (r#""resources":{"cpus":-1}"#, "resources.cpus"),
    ] {
        refused(&with(field), path);
    }
    let near = &problems(&with(r#""synchronus":true"#), &[])[0];
    assert!(near.help.contains("synchronous"), "{near:?}");
}

fn replica(state: &str, replication: Value, sync: bool) -> Value {
    json!({"state": state, "role": "replica", "replication_state": replication, "sync_standby": sync, "timeline": 2,
        "database_system_identifier": "77"})
}

fn cluster(lag: u64) -> Value {
    json!({"members":[{"name":"it-2-5","role":"replica","state":"streaming","lag":lag}],"scope":"it"})
}

#[test]
fn only_a_replica_that_streams_is_ready() {
    let seen = |patroni: Value, lag: u64| {
        let answers = [
            ("patroni", true, patroni),
            ("cluster", true, cluster(lag)),
            ("write", true, json!(["replica"])),
        ];
        Postgres.interpret(&spec(HA), &running("it", 2, 5, &answers))
    };
    let good = seen(replica("running", json!("streaming"), true), 0);
    assert_eq!((good.role.as_deref(), good.ready, good.caught_up), (Some("sync_standby"), true, true));
    assert_eq!((good.writes, good.system_id.as_deref()), (None, Some("77")));
    let idle = seen(replica("running", Value::Null, false), 0);
    assert_eq!((idle.role.as_deref(), idle.ready), (Some("replica"), false));
    assert!(idle.detail.contains("does not stream"), "{}", idle.detail);
    let behind = seen(replica("running", json!("streaming"), false), 100 << 20);
    assert_eq!((behind.ready, behind.caught_up), (true, false));
    assert_eq!(
        good.detail,
        seen(replica("running", json!("streaming"), true), 4_000).detail,
        "must not flicker"
    );
}

#[test]
fn a_leader_whose_writes_hang_is_not_ready() {
    let patroni = json!({"state":"running","role":"primary","timeline":1,"database_system_identifier":"77"});
    let seen = |write: Value, ok| {
        let answers = [("patroni", true, patroni.clone()), ("write", ok, write)];
        Postgres.interpret(&spec(HA), &running("it", 1, 4, &answers))
    };
    assert!(seen(json!(["12"]), true).ready);
    let hanging = seen(json!("timed out"), false);
    assert_eq!((hanging.ready, hanging.writes), (false, Some(false)));
    assert!(hanging.detail.contains("writes do not get through"));
    assert!(!seen(json!(["replica"]), true).ready);
}

fn trio() -> Vec<MemberFacts> {
    vec![member(1, "leader", true), member(2, "sync_standby", true), member(3, "replica", true)]
}

/// A formed service with healthy children.
fn service<'a>(parts: &'a Parts, members: Vec<MemberFacts>) -> ServiceFacts<'a> {
    let mut service = facts(&parts.0, &parts.1, members);
    let locks = vec![member(1, "leader", true), member(2, "follower", true), member(3, "follower", true)];
    service.children.insert(name("etcd"), facts(&parts.2, &parts.1, locks));
    service
        .children
        .insert(name("proxy"), facts(&parts.3, &parts.1, vec![member(1, "", true), member(2, "", true)]));
    service
}

struct Parts(muster_model::ids::Name, ServiceSpec, muster_model::ids::Name, muster_model::ids::Name);

fn parts() -> Parts {
    Parts(name("it"), spec(HA), name("it-etcd"), name("it-proxy"))
}

#[test]
fn the_first_member_makes_the_database_alone() {
    let parts = parts();
    let mut it = service(&parts, vec![member(1, "", false), member(2, "", false), member(3, "", false)]);
    it.formed = false;
    assert!(Postgres.may_start(&it, 1).is_ok());
    assert!(Postgres.may_start(&it, 2).is_err());
    assert!(!Postgres.is_formed(&it));
    for lock in &mut it.children.get_mut(&name("etcd")).unwrap().members[..2] {
        lock.seen = None;
    }
    assert!(Postgres.may_start(&it, 1).is_err(), "etcd has no majority");
    it.members[0] = member(1, "leader", true);
    assert!(Postgres.is_formed(&it));
    it.formed = true;
    assert!(Postgres.may_start(&it, 3).is_ok());
}

#[test]
fn health_has_five_words() {
    let parts = parts();
    let word = |change: &dyn Fn(&mut ServiceFacts<'_>)| {
        let mut it = service(&parts, trio());
        change(&mut it);
        Postgres.health(&it).word
    };
    let etcd_loses = |it: &mut ServiceFacts<'_>, lost: usize| {
        it.children.get_mut(&name("etcd")).unwrap().members[..lost].iter_mut().for_each(|m| m.seen = None);
    };
    assert_eq!(word(&|_| {}), HealthWord::Healthy);
    assert_eq!(word(&|it| it.members[2] = member(3, "replica", false)), HealthWord::Degraded);
    assert_eq!(word(&|it| it.members[1] = member(2, "replica", true)), HealthWord::Degraded);
    assert_eq!(word(&|it| etcd_loses(it, 1)), HealthWord::Degraded);
    assert_eq!(word(&|it| etcd_loses(it, 2)), HealthWord::Critical);
    let alone = |it: &mut ServiceFacts<'_>| {
        it.members[1] = member(2, "replica", false);
        it.members[2] = member(3, "replica", false);
    };
    assert_eq!(word(&alone), HealthWord::Critical);
    assert_eq!(word(&|it| it.members[0] = member(1, "replica", true)), HealthWord::Down);
    assert_eq!(word(&|it| it.members[0] = member(1, "leader", false)), HealthWord::Down);
    assert_eq!(word(&|it| it.members[1..].iter_mut().for_each(|m| m.seen = None)), HealthWord::Unknown);
    let proxies_gone = |it: &mut ServiceFacts<'_>| {
        it.children.get_mut(&name("proxy")).unwrap().members.iter_mut().for_each(|m| m.seen = None);
    };
    assert_eq!(word(&proxies_gone), HealthWord::Down);
    let paused =
        |it: &mut ServiceFacts<'_>| it.members[0].seen.as_mut().unwrap().detail = "timeline 1, paused".into();
    assert_eq!(word(&paused), HealthWord::Critical);
}

/// The steps of an update from here, each done at once; a switchover swaps the roles.
fn steps(parts: &Parts, mut members: Vec<MemberFacts>) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..20 {
        let step = Postgres.next_update(&service(parts, members.clone()));
        steps.push(match &step {
            UpdateStep::Done => "done".to_owned(),
            UpdateStep::Wait(why) | UpdateStep::Fail(why) => format!("wait: {why}"),
            UpdateStep::Recreate(member) => format!("recreate {member}"),
            UpdateStep::Switch { from, to } => format!("switch {from} {to}"),
        });
        match step {
            UpdateStep::Done | UpdateStep::Wait(_) | UpdateStep::Fail(_) => break,
            UpdateStep::Recreate(member) => {
                members.iter_mut().filter(|m| m.member == member).for_each(|m| m.current = true);
            }
            UpdateStep::Switch { from, to } => {
                let role =
                    |m: &mut MemberFacts, role: &str| m.seen.as_mut().unwrap().role = Some(role.to_owned());
                members.iter_mut().filter(|m| m.member == from).for_each(|m| role(m, "sync_standby"));
                members.iter_mut().filter(|m| m.member == to).for_each(|m| role(m, "leader"));
            }
        }
    }
    steps
}

#[test]
fn an_update_takes_replicas_first_and_the_leader_after_a_switchover() {
    let outdated = || trio().into_iter().map(|m| MemberFacts { current: false, ..m }).collect::<Vec<_>>();
    assert_eq!(steps(&parts(), outdated()), ["recreate 3", "recreate 2", "switch 1 2", "recreate 1", "done"]);
    // A member that never came up with the new revision is in the way of every other step, but not of going back.
    let mut failed = outdated();
    failed[2] = member(3, "replica", false);
    assert!(steps(&parts(), failed.clone())[0].starts_with("wait: it/3"));
    failed[2].current = false;
    failed[..2].iter_mut().for_each(|m| m.current = true);
    assert_eq!(steps(&parts(), failed)[0], "recreate 3");
}

#[test]
fn nothing_is_stopped_while_something_else_is_missing() {
    let parts = parts();
    let it = service(&parts, trio());
    assert!(Postgres.may_stop(&it, MemberId(3)).is_ok());
    assert!(Postgres.may_stop(&it, MemberId(1)).is_err(), "it leads");
    let mut it = service(&parts, trio());
    it.members[1] = member(2, "sync_standby", false);
    assert!(Postgres.may_stop(&it, MemberId(3)).is_err());
    let mut it = service(&parts, trio());
    it.members[1] = member(2, "replica", true);
    assert!(Postgres.may_stop(&it, MemberId(3)).is_err(), "nobody is synchronous yet");
    let mut it = service(&parts, trio());
    it.children.get_mut(&name("etcd")).unwrap().members[0].seen = None;
    assert!(Postgres.may_stop(&it, MemberId(3)).is_err());
    assert!(Postgres.may_replace(&it, MemberId(3)).is_ok());
    assert!(Postgres.may_replace(&it, MemberId(1)).is_err());
}

fn answer(body: Value) -> Answer {
    Answer { ok: true, code: None, body: body.to_string() }
}

#[test]
fn a_switchover_names_both_and_is_guarded() {
    let parts = parts();
    let it = service(&parts, trio());
    assert!(Postgres.switchover(&it, Some(3)).is_err(), "slot 3 is not synchronous");
    assert!(Postgres.switchover(&it, Some(1)).is_err(), "slot 1 leads");
    let task = Postgres.switchover(&it, None).unwrap();
    assert_eq!(task.member, MemberId(1));
    let TaskKind::Act { act: Act::Http(ask) } = &task.what else { panic!("{:?}", task.what) };
    assert_eq!(ask.body.as_deref(), Some(r#"{"candidate":"it-2-2","leader":"it-1-1"}"#));
    let accept = task.guard.unwrap().accept;
    let view = |role: &str, state: &str, lag: Value| {
        json!({"members":[{"name":"it-1-1","role":"leader","state":"running"},
            {"name":"it-2-2","role":role,"state":state,"lag":lag}]})
    };
    let good = view("sync_standby", "streaming", json!(0));
    assert!(accept.holds(&answer(good.clone())));
    let mut paused = good;
    paused["pause"] = json!(true);
    for bad in [
        paused,
        view("replica", "streaming", json!(0)),
        view("sync_standby", "running", json!(0)),
        view("sync_standby", "streaming", json!(2 << 20)),
        view("sync_standby", "streaming", json!("unknown")),
    ] {
        assert!(!accept.holds(&answer(bad.clone())), "{bad}");
    }
}

#[test]
fn the_lock_is_released_only_with_a_synchronous_standby_that_streams() {
    let release = postgres_ha(HA).render(0).release.unwrap();
    let holds = |leader: &str, standby: Value, state: Value| {
        release.guard.accept.holds(&answer(json!({
            "leader": leader, "sync": {"leader": leader, "sync_standby": standby},
            "members/orders-2-5": {"state": "running", "replication_state": state},
            "members/orders-3-6": {"state": "running", "replication_state": "streaming"},
        })))
    };
    assert!(holds("orders-1-4", json!("orders-2-5"), json!("streaming")));
    assert!(!holds("orders-1-4", json!("orders-2-5"), json!("in archive recovery")));
    assert!(!holds("orders-1-4", json!("orders-2-5"), Value::Null));
    assert!(!holds("orders-1-4", Value::Null, json!("streaming")));
    assert!(!holds("orders-1-4", json!("orders-1-4"), json!("streaming")));
    assert!(!holds("orders-3-6", json!("orders-2-5"), json!("streaming")));
    let Act::EtcdDelete { key, value, endpoints } = &release.act else { panic!("{:?}", release.act) };
    assert_eq!((key.as_str(), value.as_str()), ("/muster/p0123456789abcdef/orders/leader", "orders-1-4"));
    assert_eq!(endpoints.len(), 3);
}

#[test]
fn a_member_is_stopped_only_while_another_leads_and_another_streams() {
    let guard = postgres_ha(HA).stop_guard(0).unwrap();
    let holds = |leader: &str, states: [&str; 2]| {
        guard.accept.holds(&answer(json!({
            "leader": leader,
            "members/orders-2-5": {"state": "running", "replication_state": states[0]},
            "members/orders-3-6": {"state": "running", "replication_state": states[1]},
        })))
    };
    assert!(holds("orders-2-5", ["", "streaming"]));
    assert!(!holds("orders-1-4", ["streaming", "streaming"]), "it leads");
    assert!(!holds("orders-2-5", ["", "in archive recovery"]), "nobody else streams");
    assert!(!guard.accept.holds(&answer(json!({}))), "nobody leads");
}

#[test]
fn losses_are_computed_from_where_members_are() {
    let parts = parts();
    let it = service(&parts, trio());
    let found = Postgres.survivability(&it);
    assert!(found.stops_writes.is_empty() && found.stops_reads.is_empty() && found.may_lose.is_empty());
    let mut it = service(&parts, trio());
    let etcd = it.children.get_mut(&name("etcd")).unwrap();
    etcd.members[1].host = etcd.members[0].host.clone();
    let shared = etcd.members[0].host.clone();
    let found = Postgres.survivability(&it);
    assert_eq!(found.stops_writes.keys().collect::<Vec<_>>(), [&shared]);
    assert!(found.stops_reads.is_empty());
}

#[test]
fn clients_are_told_both_proxies_and_a_user() {
    let endpoints = |json: &str, user: Option<&str>| {
        let scene = postgres_ha(json);
        Postgres.endpoints(&scene.service, &scene.spec, &scene.peers, &scene.children, user)
    };
    let write = &endpoints(HA, None)[0];
    assert_eq!(write.role, "write");
    let start = "postgresql://app:${secret:orders/user-app}@172.31.10.19:5000,172.31.10.35:5000/app?";
    assert!(write.url.starts_with(start), "{}", write.url);
    assert!(
        endpoints(WRITTEN, Some("report"))[1].url.contains("@172.31.10.19:5001,172.31.10.35:5001/facts?")
    );
    assert!(endpoints(HA, Some("stranger")).is_empty());
    assert!(child_of_postgres(HA, "proxy").peers.len() == 2);
}

#[test]
fn etcds_leader_leaves_the_host_of_the_databases_leader() {
    let parts = parts();
    let mut it = service(&parts, trio());
    let led = |it: &mut ServiceFacts<'_>, slot: u32| {
        for lock in &mut it.children.get_mut(&name("etcd")).unwrap().members {
            let seen = lock.seen.as_mut().unwrap();
            seen.role = Some(if lock.slot == slot { "leader" } else { "follower" }.to_owned());
            seen.system_id = Some(format!("70{}", lock.slot));
        }
    };
    let leader = Postgres.leader(&it).unwrap();
    led(&mut it, leader);
    let due = Postgres.due(&it).unwrap();
    assert!(due.can_wait && due.name == "leaders-apart");
    let ProcedureStep::Task { task, .. } = Postgres.proceed(&it, &due, &[]) else { panic!("no task") };
    assert_eq!(task.member, MemberId(u64::from(leader)));
    let TaskKind::Act { act: Act::Http(http) } = &task.what else { panic!("{task:?}") };
    assert!(http.body.as_deref().is_some_and(|body| body != format!(r#"{{"targetID":"70{leader}"}}"#)));
    let refused = ("move".to_owned(), TaskOutcome::Failed { why: "not leader".to_owned() });
    assert!(matches!(Postgres.proceed(&it, &due, &[refused]), ProcedureStep::Failed(_)));
    // Nothing is moved while anything is not well, or when they are apart.
    it.children.get_mut(&name("etcd")).unwrap().members[1].seen.as_mut().unwrap().ready = false;
    assert_eq!(Postgres.due(&it), None);
    it.children.get_mut(&name("etcd")).unwrap().members[1].seen.as_mut().unwrap().ready = true;
    led(&mut it, leader % 3 + 1);
    assert_eq!(Postgres.due(&it), None);
}

#[test]
fn a_parameter_that_asks_for_a_restart_gets_it_replicas_first_the_leader_last() {
    let (service, spec) = (name("orders"), spec(r#"{"kind":"postgres"}"#));
    let mut members =
        vec![member(1, "leader", true), member(2, "sync_standby", true), member(3, "replica", true)];
    let asked = |members: &Vec<crate::kinds::MemberFacts>| {
        Postgres.asks_for_restart(&facts(&service, &spec, members.clone()))
    };
    assert_eq!(asked(&members), Vec::<u32>::new());
    for at in [0, 2] {
        let seen = members[at].seen.as_mut().unwrap();
        seen.facts.insert(super::observe::ASKS_FOR_RESTART.to_owned(), "yes".to_owned());
    }
    assert_eq!(asked(&members), [3, 1]);
    let page = Postgres.detail(&facts(&service, &spec, members.clone()));
    assert!(page.contains(&"a parameter waits for a restart of slot 1, 3".to_owned()), "{page:?}");
    members[1].seen.as_mut().unwrap().ready = false;
    assert_eq!(asked(&members), Vec::<u32>::new(), "not while another member is away");
}

#[test]
fn a_replica_that_cannot_follow_is_copied_anew_only_after_a_while_and_only_when_it_alone_is_away() {
    let (service, spec) = (name("orders"), spec(r#"{"kind":"postgres"}"#));
    let alone = self::spec(r#"{"kind":"postgres","synchronous":false}"#);
    let mut members =
        vec![member(1, "leader", true), member(2, "sync_standby", true), member(3, "replica", false)];
    members[2].seen.as_mut().unwrap().detail = "does not stream, timeline 2".to_owned();
    let due = |spec, members: &Vec<crate::kinds::MemberFacts>, now: u64| {
        let mut facts = facts(&service, spec, members.clone());
        facts.now = Timestamp(now);
        Postgres.due(&facts)
    };
    assert_eq!(due(&spec, &members, 179_000), None);
    let procedure = due(&spec, &members, 181_000).unwrap();
    assert_eq!(procedure.name, "reclone");
    let it = facts(&service, &spec, members.clone());
    let ProcedureStep::Task { task, .. } = Postgres.proceed(&it, &procedure, &[]) else { panic!() };
    assert_eq!(task.member, members[2].member);
    assert!(task.guard.is_some() && format!("{:?}", task.what).contains("/reinitialize"));
    assert_eq!(
        due(&alone, &members, 181_000),
        None,
        "only it may have what an asynchronous leader acknowledged"
    );
    members[1].seen.as_mut().unwrap().ready = false;
    assert_eq!(due(&spec, &members, 181_000), None, "two are away, one for another reason");
    members[1].seen.as_mut().unwrap().detail = "does not stream, timeline 2".to_owned();
    members[1].seen_since = Timestamp(1_000);
    let first = due(&spec, &members, 182_000).unwrap();
    assert_eq!(first.arguments["member"], members[2].member.to_string(), "the longest lost one");
    assert_eq!(due(&spec, &members, 180_500), None, "the second is not lost for long enough");
    members[1].seen.as_mut().unwrap().ready = true;
    members[2].seen.as_mut().unwrap().detail = "starting".to_owned();
    assert_eq!(due(&spec, &members, 181_000), None, "it is on its way");
}

#[test]
fn extensions_are_of_the_image_and_for_a_database_of_the_service() {
    let fine =
        r#"{"kind":"postgres","extensions":[{"name":"pg_trgm"},{"name":"uuid-ossp","database":"app"}]}"#;
    assert_eq!(crate::kinds::golden::problems(fine, &[]), Vec::new());
    refused(
        r#"{"kind":"postgres","extensions":[{"name":"pg_trgm","database":"nowhere"}]}"#,
        "extensions.0.database",
    );
    refused(r#"{"kind":"postgres","extensions":[{"name":"adminpack"}]}"#, "extensions.0.name");
}

#[test]
fn another_major_version_is_refused_and_a_minor_one_is_not() {
    let image = |tag: &str| spec(&format!(r#"{{"kind":"postgres","image":"a/postgres:{tag}"}}"#));
    let change = |from: &str, to: &str| Postgres.may_become(&name("orders"), &image(from), &image(to));
    assert!(change("15.3", "15.20").is_ok() && change("15", "15-next").is_ok());
    let found = change("15.3", "16.0").unwrap_err();
    assert!(found.path == "image" && found.message.contains("another major version"), "{found:?}");
}
