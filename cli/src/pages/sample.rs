//! A platform after the loss of a host, for tests of every page.

use std::collections::BTreeMap;

use muster_model::ids::{HostId, LogIndex, MemberId, Name, OperationId, Revision, Slot};
use muster_model::observed::HostFacts;
use muster_model::time::Timestamp;
use muster_model::view::{
    ChangeView, CoordinatorView, Health, HealthWord, HostView, Liveness, MemberView, OperationState,
    OperationView, PlanView, PlatformView, Scheduling, ServiceView,
};

pub const NOW: Timestamp = Timestamp(1_795_501_721_000);

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn platform() -> PlatformView {
    let coordinator = |id: u64, reachable| CoordinatorView {
        id,
        endpoint: format!("10.0.0.{id}:7400"),
        leader: id == 1,
        voter: true,
        reachable: Some(reachable),
    };
    PlatformView {
        platform: name("shop"),
        index: LogIndex(812),
        at: NOW,
        coordinators: vec![coordinator(1, true), coordinator(2, true), coordinator(3, false)],
        hosts: vec![host(1, Liveness::Ready), host(2, Liveness::Ready), host(3, Liveness::Down)],
        services: vec![database(), etcd(), service("web", "app", 2, HealthWord::Healthy, 7)],
        operations: vec![operation()],
        notices: vec!["host h3 is down: 1 more loss stops writes of pg-main".to_owned()],
    }
}

fn host(number: u64, liveness: Liveness) -> HostView {
    HostView {
        id: HostId::new(format!("{number:016x}")).unwrap(),
        name: name(&format!("h{number}")),
        address: format!("10.0.0.{number}"),
        zone: "z1".to_owned(),
        labels: BTreeMap::new(),
        liveness,
        since: Timestamp(NOW.0 - 12_000),
        scheduling: Scheduling::Open,
        rests: false,
        run: "1".to_owned(),
        facts: HostFacts {
            cpu_millis: 2_000,
            memory_bytes: 4 << 30,
            disk_free_percent: 60,
            ..HostFacts::default()
        },
        members: 3,
        conditions: Vec::new(),
    }
}

pub fn service(text: &str, kind: &str, members: u32, word: HealthWord, revision: u64) -> ServiceView {
    let ready = |index: u32| index < 3;
    let member = |index: u32| MemberView {
        slot: Slot { service: name(text), index },
        member: MemberId(u64::from(index)),
        host: name(&format!("h{index}")),
        addresses: BTreeMap::new(),
        state: if ready(index) { "running" } else { "unknown" }.to_owned(),
        role: None,
        ready: ready(index),
        revision: Revision(revision),
        running_since: ready(index).then_some(Timestamp(NOW.0 - 300_000)),
        restarts: 0,
        detail: String::new(),
    };
    ServiceView {
        name: name(text),
        kind: name(kind),
        owner: None,
        revision: Revision(revision),
        health: Health { word, reasons: Vec::new() },
        members: (1..=members).map(member).collect(),
        promises: Vec::new(),
        details: Vec::new(),
        operation: None,
        endpoints: BTreeMap::new(),
    }
}

fn database() -> ServiceView {
    let mut one = service("pg-main", "postgres", 3, HealthWord::Degraded, 4);
    one.health.reasons = vec!["pg-main/3 on h3: host is down".to_owned()];
    one.members[0].role = Some("leader".to_owned());
    one.members[0].detail = "timeline 3".to_owned();
    one.members[1].role = Some("sync_standby".to_owned());
    one.members[1].restarts = 1;
    one.promises = vec!["survives the loss of any one host".to_owned()];
    one.details = vec!["version 15.20".to_owned(), "backup: none yet".to_owned()];
    one.operation = Some(OperationId(9));
    let url = |port: u16| vec![format!("postgresql://app@172.31.10.9:{port}/app")];
    one.endpoints = BTreeMap::from([("write".to_owned(), url(5000)), ("read".to_owned(), url(5001))]);
    one
}

fn etcd() -> ServiceView {
    let mut one = service("pg-main-etcd", "etcd", 3, HealthWord::Degraded, 1);
    one.owner = Some(name("pg-main"));
    one.health.reasons = vec!["2 of 3 members are healthy".to_owned()];
    one
}

pub fn operation() -> OperationView {
    OperationView {
        id: OperationId(9),
        kind: "update".to_owned(),
        service: name("pg-main"),
        state: OperationState::NeedsOperator,
        step: "pg-main/2 is not ready after 5m".to_owned(),
        remedy: Some("muster op continue 9, or muster op cancel 9".to_owned()),
        started: Timestamp(NOW.0 - 150_000),
        ended: None,
        log: Vec::new(),
        result: None,
    }
}

pub fn plan() -> PlanView {
    let change = |mark: &str, what: &str, from: Option<&str>, to: Option<&str>| ChangeView {
        mark: mark.to_owned(),
        what: what.to_owned(),
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    };
    PlanView {
        index: LogIndex(811),
        changes: vec![
            change("+", "service web", None, None),
            change("~", "service pg-main: parameters", Some("work_mem 4MB"), Some("work_mem 8MB")),
            change("+/-", "service pg-main: image", Some("muster/postgres:15"), Some("muster/postgres:16")),
        ],
        placement: vec!["web/1 on h1, web/2 on h2".to_owned()],
        survivability: vec!["pg-main: no single host stops writes".to_owned()],
        warnings: vec!["one zone only: its loss stops everything".to_owned()],
        refusals: Vec::new(),
    }
}
