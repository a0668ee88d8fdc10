//! Files that are well formed and mean something impossible. The wrong line ends in `# <-`.

use super::{complaint, sample, verdict};

const PG: &str = "muster: 1\nplatform: p\nservices:\n  pg:\n    kind: postgres\n";
const APP: &str = "muster: 1\nplatform: p\nservices:\n  web:\n    kind: app\n    image: a:1\n";

fn cases() -> Vec<(&'static str, String)> {
    [platforms(), apps(), databases()].concat()
}

/// Networks and kinds.
fn platforms() -> Vec<(&'static str, String)> {
    let top = |rest: &str| format!("muster: 1\nplatform: p\n{rest}");
    vec![
        (
            "overlapping subnets",
            top("networks:\n  a:\n    subnet: 10.1.0.0/24\n  b:\n    subnet: 10.1.0.128/26 # <-\n"),
        ),
        ("overlaps a default network", top("networks:\n  a:\n    subnet: 172.31.10.0/24 # <-\n")),
        ("overlaps the mesh", top("networks:\n  a:\n    subnet: 10.210.5.0/24 # <-\n")),
        ("mesh over a default network", top("mesh:\n  subnet: 172.31.0.0/16 # <-\n")),
        ("an address as subnet", top("networks:\n  a:\n    subnet: 10.1.0.7/24 # <-\n")),
        ("a public subnet of loopback", top("networks:\n  a:\n    subnet: 127.0.0.0/24 # <-\n")),
        ("a subnet too small", top("networks:\n  a:\n    subnet: 10.1.0.0/29 # <-\n")),
        ("another format", "muster: 2 # <-\nplatform: p\n".to_owned()),
        ("unknown kind", top("services:\n  a:\n    kind: postgre # <-\n")),
        ("etcd alone", top("services:\n  a:\n    kind: etcd # <-\n")),
        ("haproxy alone", top("services:\n  a:\n    kind: haproxy # <-\n")),
        ("writer alone", top("services:\n  a:\n    kind: writer # <-\n    target: b\n")),
    ]
}

/// Of the kind `app`.
fn apps() -> Vec<(&'static str, String)> {
    let app = |rest: &str| format!("{APP}{rest}");
    vec![
        (
            "clashing host ports",
            app(
                "    ports:\n      - port: 1\n        audience: public\n        publish: 0.0.0.0:80\n  z:\n    kind: app\n    image: a:1\n    ports:\n      - port: 9\n        audience: public\n        publish: 0.0.0.0:80 # <-\n",
            ),
        ),
        (
            "one host port twice",
            app(
                "    ports:\n      - port: 1\n        audience: public\n        publish: 0.0.0.0:80\n      - port: 2\n        audience: public\n        publish: 0.0.0.0:80 # <-\n",
            ),
        ),
        (
            "the mesh's port",
            app(
                "    ports:\n      - port: 1\n        protocol: udp\n        audience: public\n        publish: 0.0.0.0:51820 # <-\n",
            ),
        ),
        ("unknown service used", app("    uses:\n      - service: nobody # <-\n")),
        (
            "uses what has no connections",
            app("    uses:\n      - service: other # <-\n  other:\n    kind: app\n    image: a:1\n"),
        ),
        ("uses itself", app("    uses:\n      - service: web # <-\n")),
        (
            "uses a service of another network",
            app("    networks: [proxy]\n    uses:\n      - service: pg # <-\n  pg:\n    kind: postgres\n"),
        ),
        (
            "uses a user that is not",
            app(
                "    networks: [dbnet]\n    uses:\n      - service: pg\n        user: eve # <-\n  pg:\n    kind: postgres\n",
            ),
        ),
        (
            "volumes on one path",
            app("    volumes:\n      - {name: a, path: /data}\n      - {name: b, path: /data} # <-\n"),
        ),
        (
            "volumes of one name",
            app("    volumes:\n      - {name: a, path: /data}\n      - {name: a, path: /more} # <-\n"),
        ),
        (
            "file and volume on one path",
            app(
                "    volumes:\n      - {name: a, path: /data} # <-\n    files:\n      - {path: /data, content: x}\n",
            ),
        ),
        ("file out of its folder", app("    files:\n      - {path: /etc/../../x, content: x} # <-\n")),
        ("file over the platform's", app("    files:\n      - {path: /muster/pg/write, content: x} # <-\n")),
        ("volume over the platform's", app("    volumes:\n      - {name: a, path: /muster} # <-\n")),
        ("file in /proc", app("    files:\n      - {path: /proc/x, content: x} # <-\n")),
        ("secret in the environment", app("    env:\n      DB_PASSWORD: hunter2 # <-\n")),
        ("another service's secret", app("    env:\n      A: \"${secret:pg/superuser}\" # <-\n")),
        (
            "secret in a file",
            app("    files:\n      - path: /x\n        content: \"${secret:pg/superuser}\" # <-\n"),
        ),
        ("public without address", app("    ports:\n      - port: 80 # <-\n        audience: public\n")),
        (
            "published without being public",
            app("    ports:\n      - port: 80\n        publish: 0.0.0.0:80 # <-\n"),
        ),
        ("no replicas", app("    replicas: 0 # <-\n")),
        ("too many replicas", app("    replicas: 101 # <-\n")),
        ("runs as root", app("    user: 0 # <-\n")),
        ("two probes", app("    probe:\n      tcp: {port: 1}\n      http: {port: 1} # <-\n")),
        ("a probe that asks nothing", app("    probe: # <-\n      every: 2s\n")),
        ("image with a space", app("    command: [x]\n").replace("a:1", "\"a b:1\" # <-")),
        ("image out of its folder", app("").replace("a:1", "a/../../b:1 # <-")),
    ]
}

/// Of the kind `postgres`, and what every service has.
fn databases() -> Vec<(&'static str, String)> {
    let pg = |rest: &str| format!("{PG}{rest}");
    vec![
        ("ha of one member", pg("    mode: ha\n    members: 1 # <-\n")),
        ("single of three", pg("    mode: single\n    members: 3 # <-\n")),
        ("forbidden parameter", pg("    parameters:\n      fsync: false # <-\n")),
        ("commit that is not synchronous", pg("    parameters:\n      synchronous_commit: \"off\" # <-\n")),
        ("parameter that is not", pg("    parameters:\n      max_conections: 7 # <-\n")),
        ("parameter in the wrong unit", pg("    parameters:\n      work_mem: 30s # <-\n")),
        ("the server's user", pg("    users:\n      - name: postgres # <-\n")),
        ("the platform's user", pg("    users:\n      - name: muster_x # <-\n")),
        ("a user twice", pg("    users:\n      - name: a\n      - name: a # <-\n")),
        ("owner that is no user", pg("    databases:\n      - name: a\n        owner: eve # <-\n")),
        ("the server's database", pg("    databases:\n      - name: template1 # <-\n")),
        ("unknown network", pg("    network: nowhere # <-\n")),
        ("too little memory", pg("    resources:\n      memory: 64MiB # <-\n")),
        ("a part's name is taken", pg("  pg-etcd: # <-\n    kind: app\n    image: a:1\n")),
        (
            "a part's name is too long",
            format!("muster: 1\nplatform: p\nservices:\n  {}: # <-\n    kind: postgres\n", "x".repeat(60)),
        ),
        (
            "renamed from what is there",
            pg("    renamed_from: web # <-\n  web:\n    kind: app\n    image: a:1\n"),
        ),
        ("renamed from itself", pg("    renamed_from: pg # <-\n")),
        (
            "two renamed from one",
            pg("    renamed_from: old\n  qg:\n    kind: postgres\n    renamed_from: old # <-\n"),
        ),
        ("a host twice", pg("    place:\n      hosts:\n        - h1\n        - h1 # <-\n")),
        ("survive what is not", pg("    survive: rack # <-\n")),
        ("a deadline of nothing", pg("    update:\n      deadline: 0s # <-\n")),
    ]
}

#[test]
fn impossible_meanings_are_refused_at_their_line_with_a_remedy() {
    let mut failures = Vec::new();
    for (name, yaml) in cases() {
        let line = yaml.lines().position(|line| line.ends_with("# <-")).expect("marked") as u64 + 1;
        let found = verdict(&yaml).unwrap_or_else(|why| panic!("{name}: {why}"));
        sample("meaning", name, "", &found);
        match found {
            None => failures.push(format!("{name}: accepted silently")),
            Some(found) => {
                failures.extend(complaint(&found, &[line], None).map(|why| format!("{name}: {why}")));
            }
        }
    }
    println!("count class=\"meaning\" refused={}", cases().len() - failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
