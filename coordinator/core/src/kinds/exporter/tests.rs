//! What is shared by the exporters of all kinds.

use muster_model::view::HealthWord;
use serde_json::json;

use super::Exporter;
use crate::kinds::golden::{
    Scene, alone, compare, exporters_of, facts, member, name, owner_of, peer, problems, refused, running,
    spec,
};
use crate::kinds::{Kind, kind};

const OWN: &str = r#"{"kind":"exporter","network":"dbnet","readers":"monnet","port":9187,"slots":[3,5]}"#;

#[test]
fn it_does_not_stand_alone() {
    refused(OWN, "kind");
}

#[test]
fn it_has_the_slots_of_its_owner_and_is_asked_where_its_readers_are() {
    let layout = Exporter.layout(&name("it-metrics"), &spec(OWN));
    assert_eq!((layout.slots, layout.indexes()), (2, vec![3, 5]));
    assert_eq!(layout.networks, [name("monnet"), name("dbnet")]);
    let one = spec(r#"{"kind":"exporter","network":"monnet","readers":"monnet","slots":[1]}"#);
    assert_eq!(Exporter.layout(&name("it-metrics"), &one).networks, [name("monnet")]);
}

#[test]
fn all_of_them_gone_is_no_more_than_degraded_and_stops_nothing() {
    let (it, spec) = (name("it-metrics"), spec(OWN));
    let health = |first, second| {
        let service = facts(&it, &spec, vec![member(1, "", first), member(2, "", second)]);
        assert!(Exporter.survivability(&service).stops_reads.is_empty());
        Exporter.health(&service).word
    };
    assert_eq!(health(true, true), HealthWord::Healthy);
    assert_eq!(health(true, false), HealthWord::Degraded);
    assert_eq!(health(false, false), HealthWord::Degraded);
    // An image that is nowhere: its agents say so.
    let none = |missing| {
        let unmade = |slot| crate::kinds::MemberFacts { seen: None, missing, ..member(slot, "", false) };
        Exporter.health(&facts(&it, &spec, vec![unmade(1), unmade(2)]))
    };
    assert_eq!((none(false).word, none(true).word), (HealthWord::Unknown, HealthWord::Degraded));
    assert!(none(true).reasons[0].contains("muster ps"), "{:?}", none(true).reasons);
    // The ones before serve on.
    let kept = |slot| crate::kinds::MemberFacts { seen: None, kept: true, ..member(slot, "", false) };
    let health = crate::kinds::parts::stateless_health(&facts(&it, &spec, vec![kept(1), kept(2)]));
    assert_eq!(health.word, HealthWord::Degraded);
    assert!(health.reasons[0].contains("serves as before"), "{:?}", health.reasons);
}

#[test]
fn it_is_ready_when_it_answers() {
    let seen = |ok| Exporter.interpret(&spec(OWN), &running("x", 1, 1, &[("alive", ok, json!(""))]));
    assert!(seen(true).ready);
    assert!(!seen(false).ready);
}

/// Every kind that has them, and modes whose slots are numbered differently.
const WATCHED: [&str; 6] = [
    r#"{"kind":"postgres","members":5,"metrics":true}"#,
    r#"{"kind":"mariadb","metrics":true}"#,
    r#"{"kind":"mariadb","mode":"single","metrics":true}"#,
    r#"{"kind":"redis","network":"dbnet","metrics":true}"#,
    r#"{"kind":"redis","network":"dbnet","mode":"replicated","replicas":2,"metrics":true}"#,
    r#"{"kind":"redis","network":"dbnet","mode":"single","metrics":true}"#,
];

#[test]
fn each_member_of_each_kind_has_one_and_none_unless_it_is_asked_for() {
    for json in WATCHED {
        assert_eq!(problems(json, &[]), [], "{json}");
        let service = spec(json);
        let owner = kind(service.kind.as_str()).unwrap();
        let find = |json: &str| {
            let children = owner.children(&name("it"), &spec(json));
            children.into_iter().find(|child| child.role.as_str() == "metrics")
        };
        let child = find(json).unwrap();
        let wanted = owner.layout(&name("it"), &service).indexes();
        assert_eq!(Exporter.layout(&name("it-metrics"), &child.spec).indexes(), wanted, "{json}");
        let secrets = |json: &str| owner.secrets(&name("it"), &spec(json));
        assert!(secrets(json).iter().any(|need| need.name == "it/metrics"), "{json}");
        let without = json.replace(",\"metrics\":true", "");
        assert!(find(&without).is_none() && secrets(&without).len() + 1 == secrets(json).len(), "{json}");
        assert!(owner.rotation(&service, "metrics").is_ok_and(|rotation| !rotation.stops), "{json}");
    }
}

fn six() -> Vec<crate::kinds::Peer> {
    let slots = [(11, 17), (12, 33), (21, 49), (22, 18), (31, 34), (32, 50)];
    slots.map(|(slot, last)| peer(slot, slot.into(), last)).to_vec()
}

fn content(scene: &Scene, path: &str) -> String {
    let rendered = scene.render(0);
    rendered.files.iter().find(|file| file.path == path).unwrap().content.clone()
}

#[test]
fn they_are_rendered_as_the_golden_files_say_and_touch_no_member() {
    let redis = alone(WATCHED[3], six());
    let before = alone(r#"{"kind":"redis","network":"dbnet"}"#, six()).render(0);
    assert_eq!(before.container_hash(), redis.render(0).container_hash());
    let line = "user muster-metrics on >${secret:bus/metrics} resetchannels -@all +ping";
    let users = content(&redis, "/muster/users.acl");
    let own = users.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{users}"));
    assert!(!own.contains("config") && !own.contains('~'), "{own}");
    compare("exporter/redis", &exporters_of(redis).render(5));
    let mariadb = owner_of(WATCHED[1]);
    let before = owner_of(r#"{"kind":"mariadb"}"#).render(0);
    assert_eq!(before.container_hash(), mariadb.render(0).container_hash());
    assert!(content(&mariadb, "/muster/member.json").contains("\"metrics\": true"));
    assert_eq!(content(&mariadb, "/muster/secrets/metrics"), "${secret:orders/metrics}");
    compare("exporter/mariadb", &exporters_of(mariadb).render(0));
}

#[test]
fn no_password_is_in_its_environment_or_its_arguments() {
    for json in [WATCHED[0], WATCHED[1]] {
        let rendered = exporters_of(owner_of(json)).render(0);
        let seen = format!("{:?} {:?}", rendered.env, rendered.command);
        assert!(!seen.contains("${secret"), "{seen}");
        assert!(rendered.files.iter().any(|file| file.content.contains("${secret:orders/metrics}")));
        assert!(rendered.files.iter().all(|file| file.mode == 0o400), "{:?}", rendered.files);
    }
}
