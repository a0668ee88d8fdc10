//! Plans and members for the tests of this crate.

use std::collections::BTreeMap;

use muster_model::ids::{Generation, HostId, MemberId, Name, Revision, Slot};
use muster_model::network::HostNetwork;
use muster_model::plan::{
    Act, Ask, Attachment, Guard, HostPlan, Limits, MemberPlan, Predicate, Probe, ReleaseSpec, Rendered, Run,
    StopSpec, UserIds,
};

pub const PLATFORM: &str = "platform-id";

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn host() -> HostId {
    HostId::new("0123456789abcdef").unwrap()
}

pub fn plan(counter: u64, members: Vec<MemberPlan>) -> HostPlan {
    HostPlan {
        platform: PLATFORM.to_owned(),
        host: host(),
        generation: Generation { incarnation: 1, counter },
        additive_only: false,
        network: HostNetwork::default(),
        members,
        discard: Vec::new(),
        tasks: Vec::new(),
        carried: Vec::new(),
    }
}

pub fn rendered() -> Rendered {
    Rendered {
        image: "muster/busybox:1.35".to_owned(),
        command: vec!["sleep".to_owned(), "1000".to_owned()],
        first_command: None,
        env: BTreeMap::new(),
        user: UserIds { uid: 10_001, gid: 10_001 },
        files: Vec::new(),
        volumes: Vec::new(),
        tmpfs: Vec::new(),
        limits: Limits { memory_bytes: 64 << 20, cpu_millis: 100, pids: 50, shm_bytes: 1 << 20 },
        capabilities: Vec::new(),
        stop: StopSpec { signal: "SIGKILL".to_owned(), timeout_ms: 1_000 },
        ports: Vec::new(),
        probes: Vec::new(),
        actions: BTreeMap::new(),
        release: None,
        system_id: None,
    }
}

pub fn member(number: u64) -> MemberPlan {
    MemberPlan {
        slot: Slot { service: name("web"), index: u32::try_from(number).unwrap() },
        member: MemberId(number),
        revision: Revision(1),
        rendered: rendered(),
        addresses: vec![Attachment { network: name("proxy"), address: [172, 30, 0, 9].into() }],
        run: Run::Running,
        restarts: 0,
        guard: None,
        has_data: false,
    }
}

pub fn release() -> ReleaseSpec {
    ReleaseSpec {
        guard: Guard {
            name: "a synchronous standby streams".to_owned(),
            probe: Probe { timeout_ms: 100, ask: Ask::Tcp { port: 1 } },
            accept: Predicate::Ok,
        },
        act: Act::Signal { signal: "SIGHUP".to_owned() },
        timeout_ms: 100,
        hopeless_after: 3,
    }
}
