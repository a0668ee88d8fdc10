//! Golden files and decisions of this kind.

use std::collections::BTreeMap;

use muster_model::view::HealthWord;
use serde_json::json;

use super::App;
use crate::kinds::golden::{
    Scene, compare, facts, member, name, peer, platform, problems, refused, running, spec,
};
use crate::kinds::{Kind, UpdateStep};

const DATABASE: (&str, &str) = ("orders", r#"{"kind":"postgres"}"#);
const FULL: &str = r#"{"kind":"app","image":"muster/busybox:1.35","command":["httpd","-f","-p","8080","-h","/www"],
    "env":{"DATABASE_URL_FILE":"/muster/orders/write","LEVEL":"info"},"networks":["dbnet","proxy"],"replicas":2,
    "files":[{"path":"/www/index.html","content":"hello\n","mode":"0644"}],
    "ports":[{"port":8080},{"port":9000,"audience":"public","publish":"0.0.0.0:9000"}],
    "volumes":[{"name":"data","path":"/data"}],"probe":{"http":{"port":8080,"path":"/"},"every":"1s"},
    "uses":[{"service":"orders","user":"app"}],"stop":{"signal":"SIGINT","timeout":"5s"},"user":10002}"#;

#[test]
fn members_are_rendered_as_the_golden_files_say() {
    let scene = |json: &str| Scene {
        platform: platform(&[("it", json), DATABASE]),
        service: name("it"),
        spec: spec(json),
        peers: vec![peer(1, 30, 22), peer(2, 31, 38)],
        children: BTreeMap::new(),
        owner: None,
        joins_existing: false,
    };
    compare("app/full", &scene(FULL).render(0));
    compare("app/least", &scene(r#"{"kind":"app","image":"muster/busybox:1.35"}"#).render(0));
}

#[test]
fn wrong_settings_are_refused_with_path_and_remedy() {
    assert_eq!(problems(FULL, &[DATABASE]), []);
    refused(r#"{"kind":"app"}"#, "image");
    let with = |field: &str| format!(r#"{{"kind":"app","image":"a:1",{field}}}"#);
    for (field, path) in [
        (r#""command":"sh -c x""#, "command"),
        (r#""env":{"DB_PASSWORD":"x"}"#, "env.DB_PASSWORD"),
        (r#""env":{"API_TOKEN":"x"}"#, "env.API_TOKEN"),
        (r#""env":{"A-B":"x"}"#, "env.A-B"),
        (r#""env":{"A":"${secret:orders/superuser}"}"#, "env.A"),
        (r#""env":{"A":1}"#, "env.A"),
        (r#""env":{"A":"x\u0000"}"#, "env.A"),
        (r#""command":["a\u0000"]"#, "command.0"),
        (r#""command":["sh","a\u0000"]"#, "command.1"),
        (r#""probe":{"every":"1s"}"#, "probe"),
        (
            r#""ports":[{"port":1,"audience":"public","publish":"0.0.0.0:9"},{"port":2,"audience":"public","publish":"0.0.0.0:9"}]"#,
            "ports.1.publish",
        ),
        (r#""files":[{"path":"etc/x","content":""}]"#, "files.0.path"),
        (r#""files":[{"path":"/etc/../x","content":""}]"#, "files.0.path"),
        (r#""files":[{"path":"/proc/x","content":""}]"#, "files.0.path"),
        (r#""files":[{"path":"/x","content":"a"},{"path":"/x","content":"b"}]"#, "files.1.path"),
        (r#""files":[{"path":"/x","content":"${secret:orders/superuser}"}]"#, "files.0.content"),
        (r#""files":[{"path":"/x","content":"","mode":"rw"}]"#, "files.0.mode"),
        (r#""files":[{"path":"/x","content":"","mode":420}]"#, "files.0.mode"),
        (r#""files":[{"path":"/x","content":"","mod":"0644"}]"#, "files.0.mod"),
        (r#""ports":[{"port":0}]"#, "ports.0.port"),
        (r#""ports":[{"port":70000}]"#, "ports.0.port"),
        (r#""ports":[{}]"#, "ports.0.port"),
        (r#""ports":[{"port":80},{"port":80}]"#, "ports.1.port"),
        (r#""ports":[{"port":80,"audience":"all"}]"#, "ports.0.audience"),
        (r#""ports":[{"port":80,"audience":"public"}]"#, "ports.0.publish"),
        (r#""ports":[{"port":80,"publish":"0.0.0.0:80"}]"#, "ports.0.publish"),
        (r#""ports":[80]"#, "ports.0"),
        (r#""networks":[]"#, "networks"),
        (r#""networks":["nowhere"]"#, "networks.0"),
        (r#""volumes":[{"name":"../x","path":"/data"}]"#, "volumes.0.name"),
        (r#""volumes":[{"name":"x","path":"/muster/x"}]"#, "volumes.0.path"),
        (r#""replicas":0"#, "replicas"),
        (r#""replicas":1.5"#, "replicas"),
        (r#""user":0"#, "user"),
        (r#""probe":{"http":{"port":80},"tcp":{"port":80}}"#, "probe.http"),
        (r#""probe":{"http":{"path":"/"}}"#, "probe.http.port"),
        (r#""probe":{"tcp":{"port":80},"every":"1ms"}"#, "probe.every"),
        (r#""probe":{"tcp":{"port":80},"timeout":3}"#, "probe.timeout"),
        (r#""uses":[{"service":"nobody"}]"#, "uses.0.service"),
        (r#""stop":{"signal":"SIGKILL"}"#, "stop.signal"),
        (r#""replcas":2"#, "replcas"),
    ] {
        refused(&with(field), path);
    }
}

#[test]
fn a_used_service_must_be_reachable_and_know_the_user() {
    let path = |json: &str| problems(json, &[DATABASE]).first().map(|problem| problem.path.clone());
    let uses =
        |rest: &str| format!(r#"{{"kind":"app","image":"a:1","uses":[{{"service":"orders"}}]{rest}}}"#);
    assert_eq!(path(&uses("")).as_deref(), Some("uses.0.service"), "not in dbnet");
    assert_eq!(path(&uses(r#","networks":["dbnet"]"#)), None);
    let stranger =
        r#"{"kind":"app","image":"a:1","networks":["dbnet"],"uses":[{"service":"orders","user":"x"}]}"#;
    assert_eq!(path(stranger).as_deref(), Some("uses.0.user"));
    let itself = r#"{"kind":"app","image":"a:1","uses":[{"service":"it"}]}"#;
    assert_eq!(path(itself).as_deref(), Some("uses.0.service"));
}

#[test]
fn its_probe_makes_it_ready() {
    let seen = |ok| App.interpret(&spec(FULL), &running("it", 1, 1, &[("ready", ok, json!(""))])).ready;
    assert!(seen(true) && !seen(false));
    let unasked = App.interpret(&spec(FULL), &running("it", 1, 1, &[]));
    assert!(!unasked.ready);
    let least = App.interpret(&spec(r#"{"kind":"app","image":"a:1"}"#), &running("it", 1, 1, &[]));
    assert!(least.ready);
}

#[test]
fn members_are_updated_one_by_one_and_broken_ones_first() {
    let (service, spec) = (name("it"), spec(FULL));
    let mut members = vec![member(1, "", true), member(2, "", true)];
    members.iter_mut().for_each(|member| member.current = false);
    let step =
        |members: &[crate::kinds::MemberFacts]| App.next_update(&facts(&service, &spec, members.to_vec()));
    assert_eq!(step(&members), UpdateStep::Recreate(members[0].member));
    members[0].current = true;
    members[0].seen.as_mut().unwrap().ready = false;
    assert!(matches!(step(&members), UpdateStep::Wait(_)));
    members[0].current = false;
    assert_eq!(step(&members), UpdateStep::Recreate(members[0].member));
    assert_eq!(App.health(&facts(&service, &spec, members)).word, HealthWord::Critical);
}
