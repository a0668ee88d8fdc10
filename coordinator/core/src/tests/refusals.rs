//! Every refusal of a plan points at its line of the file and says what to do.

use muster_model::view::{Diagnostic, PlanView};
use muster_spec::{Parsed, parse};

use super::*;
use crate::dry_run;

/// One service of each kind that data binds, with members.
const PLACED: &str = "\
muster: 1
platform: demo
mesh: {port: 51820}
networks:
  own: {subnet: 10.44.0.0/24}
services:
  pg: {kind: postgres}
  my: {kind: mariadb}
  cache: {kind: redis}
  files: {kind: s3}
  web: {kind: app, image: 'a:1', networks: [own]}
";

fn plan(state: &State, now: Timestamp, yaml: &str) -> PlanView {
    let Parsed { spec, places } = parse(yaml).unwrap_or_else(|found| panic!("{found:?}\n{yaml}"));
    dry_run::plan(state, &Arc::new(spec), &places, now, &[])
}

fn platform(hosts: usize) -> World {
    World::new(hosts)
}

fn with_members() -> World {
    let mut world = platform(3);
    let spec = Arc::new(parse(PLACED).unwrap().spec);
    world.apply_spec(&spec);
    for _ in 0..8 {
        world.lead();
    }
    for service in ["pg", "my", "cache", "files", "web"] {
        assert!(!world.state.members_of(&name(service)).is_empty(), "{service}");
    }
    world
}

/// The line of the mark, and the refusal there.
fn at_mark<'a>(what: &str, yaml: &str, view: &'a PlanView) -> &'a Diagnostic {
    let line = yaml.lines().position(|line| line.ends_with("# <-")).expect("marked") as u64 + 1;
    for one in &view.refusals {
        assert!(!one.message.is_empty() && !one.help.is_empty() && one.line > 0, "{what}: {one:?}");
    }
    let here = view.refusals.iter().find(|one| one.line == line);
    here.unwrap_or_else(|| panic!("{what}: not at line {line}: {:?}\n{yaml}", view.refusals))
}

fn head(rest: &str) -> String {
    format!("muster: 1\nplatform: demo\nservices:\n{rest}")
}

/// The file of the members with something else in it.
fn with(old: &str, new: &str) -> String {
    assert!(PLACED.contains(old), "{old}");
    PLACED.replace(old, new)
}

fn service(rest: &str) -> String {
    head(&format!("  x:\n{rest}"))
}

/// What, the file with its mark, words of the message, words of the remedy.
type Case = (&'static str, String, &'static str, &'static str);

fn check(world: &World, cases: Vec<Case>) {
    for (what, yaml, message, help) in cases {
        let view = plan(&world.state, world.now, &yaml);
        let found = at_mark(what, &yaml, &view);
        assert!(found.message.contains(message), "{what}: {found:?}");
        assert!(found.help.contains(help), "{what}: {found:?}");
    }
}

#[test]
fn what_members_bind_is_refused_at_its_field() {
    check(
        &with_members(),
        vec![
            ("another platform", with("demo", "other # <-"), "is for platform `other`", "`platform: demo`"),
            (
                "missing",
                with("  cache: {kind: redis}\n", "").replace("services:", "services: # <-"),
                "`cache` is not in the spec",
                "muster service remove cache --keep-data",
            ),
            (
                "renamed",
                with("  cache: {kind: redis}\n", "  fast:\n    kind: redis\n    renamed_from: cache # <-\n"),
                "cannot be renamed to `fast`",
                "muster service remove cache",
            ),
            (
                "a part's name",
                with("  pg: {kind: postgres}\n", "  pg: {kind: postgres}\n  pg-etcd: {kind: redis} # <-\n"),
                "belongs to another one",
                "choose another name",
            ),
            (
                "another kind",
                with("{kind: redis}", "\n    kind: nats # <-"),
                "cannot become `nats`",
                "muster service remove cache",
            ),
            (
                "another network",
                with("{kind: redis}", "\n    kind: redis\n    network: dbnet # <-"),
                "has members in cachenet",
                "as they were",
            ),
            (
                "other networks",
                with(", networks: [own]}", ",\n    networks: [dbnet]} # <-"),
                "has members in own",
                "as they were",
            ),
            (
                "postgres becomes single",
                with("{kind: postgres}", "\n    kind: postgres\n    mode: single # <-"),
                "cannot become `single`",
                "members: 2",
            ),
            (
                "mariadb becomes single",
                with("{kind: mariadb}", "\n    kind: mariadb\n    mode: single # <-"),
                "mode of `my`",
                "another service",
            ),
            (
                "redis becomes single",
                with("{kind: redis}", "\n    kind: redis\n    mode: single # <-"),
                "mode of `cache`",
                "copy the keys",
            ),
            (
                "redis becomes valkey",
                with("{kind: redis}", "\n    kind: redis\n    flavour: valkey # <-"),
                "flavour of `cache`",
                "copy the keys",
            ),
            (
                "s3 grows by a host",
                with("{kind: s3}", "\n    kind: s3\n    hosts: 4 # <-"),
                "neither grow nor shrink",
                "second s3 service",
            ),
            (
                "s3 grows by drives",
                with("{kind: s3}", "\n    kind: s3\n    drives: 2 # <-"),
                "neither grow nor shrink",
                "second s3 service",
            ),
        ],
    );
}

#[test]
fn networks_that_members_are_in_are_refused_at_their_field() {
    check(
        &with_members(),
        vec![
            (
                "a subnet",
                with("{subnet: 10.44.0.0/24}", "\n    subnet: 10.45.0.0/24 # <-"),
                "`own` has members",
                "10.44.0.0/24",
            ),
            (
                "a default network's subnet",
                with("networks:\n", "networks:\n  dbnet:\n    subnet: 10.46.0.0/24 # <-\n"),
                "`dbnet` has members",
                "172.31.10.0/24",
            ),
            (
                "the mesh's port",
                with("{port: 51820}", "\n  port: 51821 # <-"),
                "its port cannot be changed",
                "port: 51820",
            ),
            (
                "the mesh's subnet",
                with("{port: 51820}", "\n  subnet: 10.99.0.0/16 # <-"),
                "its subnet cannot be changed",
                "subnet: 10.210.0.0/16",
            ),
            (
                "the mesh's MTU",
                with("{port: 51820}", "\n  mtu: 1400 # <-"),
                "its mtu cannot be changed",
                "mtu: 1370",
            ),
        ],
    );
}

#[test]
fn what_is_being_removed_is_refused_at_its_name() {
    let mut world = with_members();
    world.must(What::RemoveService { service: name("cache"), destroy: false });
    let yaml = PLACED.replace("  cache: {kind: redis}\n", "  cache: {kind: redis} # <-\n");
    check(&world, vec![("removing", yaml, "still being removed", "muster op ls")]);
}

#[test]
fn hosts_have_addresses_in_the_mesh_before_there_are_members() {
    let yaml = head("").replace("services:\n", "mesh:\n  subnet: 10.99.0.0/16 # <-\n");
    check(&platform(1), vec![("subnet", yaml, "hosts have addresses", "10.210.0.0/16")]);
    let yaml = head("").replace("services:\n", "mesh:\n  port: 51821\n");
    let world = platform(1);
    assert_eq!(plan(&world.state, world.now, &yaml).refusals, Vec::new());
}

#[test]
fn what_no_host_has_room_for_is_refused_at_what_asks_too_much() {
    check(
        &platform(2),
        vec![
            (
                "too few hosts",
                service("    kind: postgres\n    members: 3 # <-\n"),
                "2 of 3 members",
                "muster token host",
            ),
            (
                "too few hosts, number not written",
                head("  x: # <-\n    kind: postgres\n"),
                "2 of 3 members",
                "muster token host",
            ),
            (
                "too few hosts of an app",
                service(
                    "    kind: app\n    image: a:1\n    replicas: 3 # <-\n    ports:\n      - {port: 80, audience: public, publish: '0.0.0.0:80'}\n",
                ),
                "2 of 3 members",
                "muster token host",
            ),
            ("too few for s3", service("    kind: s3\n    hosts: 3 # <-\n"), "members", "muster token host"),
            (
                "too few for shards",
                service("    kind: redis\n    shards: 3 # <-\n"),
                "members",
                "muster token host",
            ),
            (
                "a label nobody has",
                service("    kind: redis\n    mode: single\n    place:\n      labels: {disk: ssd} # <-\n"),
                "without label disk=ssd",
                "allow other hosts",
            ),
            (
                "hosts that are too few",
                service("    kind: postgres\n    place:\n      hosts: [vps-1] # <-\n"),
                "not among `place.hosts`",
                "allow other hosts",
            ),
            (
                "a host that is not there",
                service(
                    "    kind: postgres\n    place:\n      hosts:\n        - vps-1\n        - vsp-2 # <-\n",
                ),
                "no host is called `vsp-2`",
                "did you mean `vps-2`?",
            ),
            (
                "memory",
                service("    kind: postgres\n    mode: single\n    resources:\n      memory: 64GiB # <-\n"),
                "short of memory",
                "write less",
            ),
            (
                "cores",
                service(
                    "    kind: app\n    image: a:1\n    replicas: 3\n    resources:\n      cpus: 30 # <-\n",
                ),
                "short of CPU",
                "write less",
            ),
            (
                "survive",
                service("    kind: postgres\n    mode: single\n    survive: host # <-\n"),
                "must survive it",
                "leave `survive` out",
            ),
        ],
    );
}

#[test]
fn zones_that_are_too_few_are_refused_at_what_asks_for_them() {
    let mut world = platform(3);
    for number in 1..=3 {
        world.state.hosts.get_mut(&host_id(number)).unwrap().zone = "one".to_owned();
    }
    let cases = vec![
        (
            "one zone only",
            service("    kind: postgres\n    place:\n      spread: zone # <-\n"),
            "in zone one",
            "muster token host",
        ),
        (
            "survive a zone",
            service("    kind: postgres\n    survive: zone # <-\n"),
            "losing zone one",
            "more zones",
        ),
    ];
    check(&world, cases);
}

#[test]
fn a_full_network_is_refused_where_it_is_chosen() {
    let yaml = "muster: 1\nplatform: demo\nnetworks:\n  tiny: {subnet: 10.9.0.0/26}\nservices:\n  x:\n    kind: app\n    image: a:1\n    replicas: 99\n    resources: {memory: 16MiB}\n    networks: [tiny] # <-\n";
    check(&platform(1), vec![("full", yaml.to_owned(), "is full", "larger subnet")]);
}

#[test]
fn a_name_that_no_host_has_is_a_warning_while_there_is_room() {
    let world = platform(3);
    let yaml = head("  x:\n    kind: redis\n    mode: single\n    place: {hosts: [vps-1, vps-11]}\n");
    let view = plan(&world.state, world.now, &yaml);
    assert_eq!(view.refusals, Vec::new());
    assert!(
        view.warnings.iter().any(|line| line.contains("no host is called `vps-11`: did you mean `vps-1`?")),
        "{view:?}"
    );
}
