//! Fixtures of the kinds' tests, and the comparison of what they render with the files in `tests/golden`.
//!
//! A changed golden file means that members get new files or new containers: MUSTER_BLESS=1 writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use muster_model::ids::{HostId, MemberId, Name, Revision};
use muster_model::observed::{Answer, ContainerState, MemberStatus, ProbeResult};
use muster_model::plan::{Guard, Rendered};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::time::Timestamp;
use serde_json::Value;

use super::{Kind, MemberFacts, Observed, Peer, Problem, RenderContext, ServiceFacts, Used, kind};

/// The platform's id in all golden files.
const PLATFORM_ID: &str = "p0123456789abcdef";

/// A name.
pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A service's spec, from JSON.
pub fn spec(json: &str) -> ServiceSpec {
    serde_json::from_str(json).unwrap()
}

/// A platform with these services, given as JSON by name.
pub fn platform(services: &[(&str, &str)]) -> PlatformSpec {
    let services = services.iter().map(|(service, json)| (name(service), spec(json))).collect();
    let empty = r#"{"muster":1,"platform":"golden"}"#;
    PlatformSpec { services, ..serde_json::from_str(empty).unwrap() }
}

/// What is wrong with the first service of the platform: `path: message`.
pub fn problems(json: &str, others: &[(&str, &str)]) -> Vec<Problem> {
    let mut services = vec![("it", json)];
    services.extend(others);
    let platform = platform(&services);
    let spec = spec(json);
    kind(spec.kind.as_str()).unwrap().validate(&name("it"), &spec, &platform)
}

/// Asserts that there is one problem, at this path, and that it has a remedy.
pub fn refused(json: &str, path: &str) {
    let problems = problems(json, &[]);
    let found: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(found, [path], "{json}: {problems:?}");
    assert!(problems.iter().all(|problem| !problem.help.is_empty() && !problem.message.is_empty()));
}

/// A member in the network `dbnet`, at 172.31.10.`last`.
pub fn peer(slot: u32, member: u64, last: u8) -> Peer {
    let host = name(&format!("host-{}", char::from(b'a' + (last / 16) % 26)));
    let addresses = BTreeMap::from([(name("dbnet"), Ipv4Addr::new(172, 31, 10, last))]);
    Peer { slot, member: MemberId(member), host, addresses, tls: true }
}

/// Everything that a member is rendered from.
pub struct Scene {
    pub platform: PlatformSpec,
    pub service: Name,
    pub spec: ServiceSpec,
    pub peers: Vec<Peer>,
    pub children: BTreeMap<Name, Vec<Peer>>,
    pub owner: Option<(Name, ServiceSpec, Vec<Peer>)>,
    pub joins_existing: bool,
}

impl Scene {
    /// Renders the member at this place of `peers`.
    pub fn render(&self, index: usize) -> Rendered {
        self.with(index, |kind, context| kind.render(context))
    }

    /// The guard of the member at this place.
    pub fn stop_guard(&self, index: usize) -> Option<Guard> {
        self.with(index, |kind, context| kind.stop_guard(context))
    }

    fn with<T>(&self, index: usize, ask: impl Fn(&dyn Kind, &RenderContext<'_>) -> T) -> T {
        let uses = self.uses();
        let context = RenderContext {
            platform_id: PLATFORM_ID,
            platform: &self.platform,
            service: &self.service,
            spec: &self.spec,
            me: &self.peers[index],
            peers: &self.peers,
            children: &self.children,
            owner: self.owner.as_ref().map(|(name, spec, peers)| (name, spec, peers.as_slice())),
            uses: &uses,
            joins_existing: self.joins_existing,
        };
        ask(self.kind(), &context)
    }

    fn kind(&self) -> &'static dyn Kind {
        kind(self.spec.kind.as_str()).unwrap()
    }

    /// Used services have the members and proxies of [`postgres_ha`].
    fn uses(&self) -> BTreeMap<Name, Used<'_>> {
        let proxies = BTreeMap::from([(name("proxy"), proxies())]);
        let used = |service: Name| {
            let spec = &self.platform.services[&service];
            (service, Used { spec, peers: databases(), children: proxies.clone() })
        };
        self.kind().uses(&self.spec).into_iter().map(used).collect()
    }
}

pub fn locks() -> Vec<Peer> {
    vec![peer(1, 1, 17), peer(2, 2, 33), peer(3, 3, 49)]
}

pub fn databases() -> Vec<Peer> {
    vec![peer(1, 4, 18), peer(2, 5, 34), peer(3, 6, 50)]
}

pub fn proxies() -> Vec<Peer> {
    vec![peer(1, 7, 19), peer(2, 8, 35)]
}

/// A `mariadb` service `orders` with three members and its proxies placed.
pub fn owner_of(json: &str) -> Scene {
    Scene { children: BTreeMap::from([(name("proxy"), proxies())]), ..postgres_ha(json) }
}

/// The same with two members that hold data and an arbitrator.
pub fn arbitrated(json: &str) -> Scene {
    let mut scene = owner_of(json);
    scene.peers.truncate(2);
    scene.children.insert(name("arbitrator"), vec![peer(1, 9, 51)]);
    scene
}

/// The arbitrator of [`arbitrated`].
pub fn arbitrator_of(json: &str) -> Scene {
    child(arbitrated(json), "arbitrator")
}

/// The child of [`owner_of`] in this role.
pub fn child_of(json: &str, role: &str) -> Scene {
    child(owner_of(json), role)
}

/// The service `orders` with all its members placed, from its spec.
pub fn postgres_ha(json: &str) -> Scene {
    Scene {
        platform: platform(&[("orders", json)]),
        service: name("orders"),
        spec: spec(json),
        peers: databases(),
        children: BTreeMap::from([(name("etcd"), locks()), (name("proxy"), proxies())]),
        owner: None,
        joins_existing: false,
    }
}

/// The service `bus`, which brings no other along, with these members.
pub fn alone(json: &str, peers: Vec<Peer>) -> Scene {
    Scene {
        platform: platform(&[("bus", json)]),
        service: name("bus"),
        spec: spec(json),
        peers,
        children: BTreeMap::new(),
        owner: None,
        joins_existing: false,
    }
}

/// The child of [`postgres_ha`] in this role.
pub fn child_of_postgres(json: &str, role: &str) -> Scene {
    child(postgres_ha(json), role)
}

/// The exporters of a service, in the slots that its kind says, as [`peer`]s that are in `monnet` too.
pub fn exporters_of(mut owner: Scene) -> Scene {
    let beside = |peer: &Peer| {
        let mut beside = Peer { member: MemberId(peer.member.0 + 20), ..peer.clone() };
        beside.addresses.insert(name("monnet"), Ipv4Addr::new(172, 31, 50, peer.slot as u8));
        beside
    };
    let exporters = owner.peers.iter().map(beside).collect();
    owner.children.insert(name("metrics"), exporters);
    child(owner, "metrics")
}

fn child(owner: Scene, role: &str) -> Scene {
    let children = owner.kind().children(&owner.service, &owner.spec);
    let child = children.into_iter().find(|child| child.role.as_str() == role).unwrap();
    Scene {
        service: name(&format!("orders-{role}")),
        spec: child.spec,
        peers: owner.children[&name(role)].clone(),
        children: BTreeMap::new(),
        owner: Some((owner.service, owner.spec, owner.peers)),
        platform: owner.platform,
        joins_existing: false,
    }
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

#[expect(clippy::disallowed_methods, reason = "how a test run is told to write golden files")]
fn blessing() -> bool {
    std::env::var("MUSTER_BLESS").is_ok_and(|value| value == "1")
}

/// Compares a rendered member with `tests/golden/<case>/`: `member.json`, and each file as it will be.
pub fn compare(case: &str, rendered: &Rendered) {
    let dir = golden_dir().join(case);
    let mut bare = rendered.clone();
    let mut files = BTreeMap::new();
    for file in &mut bare.files {
        let flat = file.path.trim_start_matches('/').replace('/', "_");
        files.insert(flat.clone(), std::mem::replace(&mut file.content, format!("=> {flat}")));
    }
    files.insert("member.json".to_owned(), format!("{}\n", serde_json::to_string_pretty(&bare).unwrap()));
    if blessing() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|(file, text)| fs::write(dir.join(file), text).unwrap());
    }
    for (file, text) in &files {
        let golden = fs::read_to_string(dir.join(file)).unwrap_or_default();
        assert_eq!(
            &golden, text,
            "{case}/{file} differs from its golden file; MUSTER_BLESS=1 writes it anew"
        );
    }
    let there = fs::read_dir(&dir).unwrap().count();
    assert_eq!(there, files.len(), "{case} has files that are not rendered any more");
}

/// A running member with these answers to its probes: name, whether it succeeded, body.
pub fn running(service: &str, slot: u32, member: u64, answers: &[(&str, bool, Value)]) -> MemberStatus {
    let result = |(name, ok, body): &(&str, bool, Value)| ProbeResult {
        name: (*name).to_owned(),
        at: Timestamp(2_000),
        took_ms: 1,
        answer: Answer { ok: *ok, code: None, body: body.to_string() },
    };
    MemberStatus {
        member: MemberId(member),
        slot: muster_model::ids::Slot { service: name(service), index: slot },
        revision: Revision(1),
        container_hash: "h".to_owned(),
        state: ContainerState::Running { since: Timestamp(1_000) },
        restarts: 0,
        restarts_done: 0,
        releases: 0,
        system_id: None,
        refused: None,
        successor: None,
        probes: answers.iter().map(result).collect(),
    }
}

/// A member of a service as decisions see it: its role and whether it is ready.
pub fn member(slot: u32, role: &str, ready: bool) -> MemberFacts {
    MemberFacts {
        slot,
        member: MemberId(u64::from(slot)),
        host: HostId::new(format!("{slot:016x}")).unwrap(),
        host_name: name(&format!("host-{slot}")),
        host_up: true,
        host_since: Timestamp(0),
        scheduling: muster_model::view::Scheduling::Open,
        addresses: peer(slot, u64::from(slot), slot as u8).addresses,
        joins_existing: false,
        seen_since: Timestamp(0),
        started: true,
        revision: Revision(1),
        current: true,
        variant: String::new(),
        seen: Some(Observed {
            running: true,
            ready,
            caught_up: ready,
            role: (!role.is_empty()).then(|| role.to_owned()),
            system_id: Some("1".to_owned()),
            ..Observed::default()
        }),
        stopped: false,
        missing: false,
        kept: false,
    }
}

static NO_RECORDS: BTreeMap<String, String> = BTreeMap::new();
static NO_SECRETS: BTreeMap<String, crate::state::SecretRow> = BTreeMap::new();

/// A formed service with these members.
pub fn facts<'a>(service: &'a Name, spec: &'a ServiceSpec, members: Vec<MemberFacts>) -> ServiceFacts<'a> {
    ServiceFacts {
        name: service,
        spec,
        revision: Revision(1),
        slots: members.len() as u32,
        hosts_up: members.len(),
        members,
        children: BTreeMap::new(),
        owner_members: Vec::new(),
        formed: true,
        records: &NO_RECORDS,
        secrets: &NO_SECRETS,
        now: Timestamp(10_000),
    }
}
