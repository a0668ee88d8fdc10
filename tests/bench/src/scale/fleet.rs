//! A platform of so many hosts and members, as the core sees it, and what its agents would report.

use std::fmt::Write as _;

use muster_model::observed::{Answer, ContainerState, MemberStatus, ProbeResult};
use muster_model::plan::{HostPlan, MemberPlan};
use muster_model::time::Timestamp;

/// Most members of one service.
const REPLICAS_MAX: usize = 100;

/// A spec with so many members for each host: services with one member on each of up to 100 hosts.
#[must_use]
pub fn spec(hosts: usize, members: usize) -> String {
    let replicas = hosts.min(REPLICAS_MAX);
    let mut yaml = "muster: 1\nplatform: shop\n\
                    networks: {apps: {subnet: 10.0.0.0/12}}\nservices:\n"
        .to_owned();
    for number in 0..(hosts * members).div_ceil(replicas) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            yaml,
            "  app-{number}: {{kind: app, image: 'muster/busybox:1.35', command: [/bin/busybox, sleep, '1000'], networks: [apps], \
             replicas: {replicas}, resources: {{memory: 64MiB}}}}"
        );
    }
    yaml
}

/// What an agent reports that has done everything its plan asks for.
#[must_use]
pub fn done(plan: &HostPlan) -> Vec<MemberStatus> {
    plan.members.iter().map(status).collect()
}

fn status(planned: &MemberPlan) -> MemberStatus {
    let answer = Answer { ok: true, code: None, body: String::new() };
    let probes = planned.rendered.probes.iter().map(|probe| ProbeResult {
        name: probe.name.clone(),
        at: Timestamp(1),
        took_ms: 1,
        answer: answer.clone(),
    });
    MemberStatus {
        member: planned.member,
        slot: planned.slot.clone(),
        revision: planned.revision,
        container_hash: planned.rendered.container_hash(),
        state: ContainerState::Running { since: Timestamp(1) },
        restarts: 0,
        restarts_done: planned.restarts,
        releases: 0,
        system_id: None,
        refused: None,
        successor: None,
        probes: probes.collect(),
    }
}
