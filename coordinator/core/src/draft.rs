//! What members are rendered from, and its hash: the same inputs are never rendered a second time, so that a new version
//! of the coordinator alone changes nothing that runs.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::{MemberId, Name, Revision};
use muster_model::plan::hash_of;
use muster_model::spec::{Detection, NetworkSpec, ServiceSpec};
use serde::Serialize;

use crate::facts::{child_peers, peer, peers_of};
use crate::kinds::tls;
use crate::kinds::{self, Kind, Peer, RenderContext, Used};
use crate::state::{Member, Rendering, State};

/// Spec, members and children's members of a service that another one connects to.
type UsedInputs<'a> = (&'a ServiceSpec, &'a [Peer], &'a BTreeMap<Name, Vec<Peer>>);

/// Everything that all members of a service are rendered from. A field that a kind reads and that is missing here would
/// change without anybody being rendered again. Never reorder or rename: every member would be rendered again.
#[derive(Serialize)]
struct Inputs<'a> {
    platform_id: &'a str,
    networks: BTreeMap<&'a Name, Option<NetworkSpec>>,
    mtu: u16,
    detection: Detection,
    service: &'a Name,
    spec: &'a ServiceSpec,
    peers: &'a [Peer],
    children: &'a BTreeMap<Name, Vec<Peer>>,
    owner: Option<(&'a Name, &'a ServiceSpec, &'a [Peer])>,
    uses: BTreeMap<&'a Name, UsedInputs<'a>>,
    /// Of these, the services that are connected to over TLS.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    secured: BTreeSet<&'a Name>,
}

/// A service at one revision of its spec, with everybody that its members are told of.
pub struct Source<'a> {
    state: &'a State,
    service: &'a Name,
    kind: &'static dyn Kind,
    spec: &'a ServiceSpec,
    revision: Revision,
    peers: Vec<Peer>,
    children: BTreeMap<Name, Vec<Peer>>,
    owner: Option<(&'a Name, &'a ServiceSpec, Vec<Peer>)>,
    uses: BTreeMap<Name, Used<'a>>,
    hash: String,
}

impl<'a> Source<'a> {
    /// Collects it; absent if the revision is no longer known.
    #[must_use]
    pub fn new(state: &'a State, service: &Name, revision: Revision) -> Option<Self> {
        let (service, row) = state.services.get_key_value(service)?;
        let spec: &ServiceSpec = row.spec_at(revision)?;
        let kind = kinds::kind(spec.kind.as_str())?;
        let owner = row.parent.as_ref().and_then(|parent| {
            let (name, owner) = state.services.get_key_value(&parent.owner)?;
            Some((name, &*owner.spec, peers_of(state, name)))
        });
        let uses = kind.uses(spec).into_iter().filter_map(|name| {
            let used = state.services.get(&name)?;
            let row =
                Used { spec: &used.spec, peers: peers_of(state, &name), children: child_peers(state, &name) };
            Some((name, row))
        });
        let mut source = Self {
            state,
            service,
            kind,
            spec,
            revision,
            peers: peers_of(state, service),
            children: child_peers(state, service),
            owner,
            uses: uses.collect(),
            hash: String::new(),
        };
        source.hash = source.hash()?;
        Some(source)
    }

    fn owner(&self) -> Option<(&'a Name, &'a ServiceSpec, &[Peer])> {
        self.owner.as_ref().map(|(name, spec, peers)| (*name, *spec, peers.as_slice()))
    }

    fn hash(&self) -> Option<String> {
        let platform = self.state.platform.as_ref()?;
        let networks = self.kind.layout(self.service, self.spec).networks;
        let offered = |used: &Used<'_>| {
            let kind = kinds::kind(used.spec.kind.as_str());
            kind.is_some_and(|kind| {
                tls::offered(kind.tls(used.spec), kind.shown_by(&used.peers, &used.children))
            })
        };
        let secured = self.uses.iter().filter(|(_, used)| offered(used));
        let uses = self.uses.iter().map(|(name, u)| (name, (u.spec, u.peers.as_slice(), &u.children)));
        Some(hash_of(&Inputs {
            platform_id: &platform.id,
            networks: networks.iter().map(|name| (name, platform.spec.network(name))).collect(),
            mtu: platform.spec.mesh.mtu,
            detection: platform.spec.detection,
            service: self.service,
            spec: self.spec,
            peers: &self.peers,
            children: &self.children,
            owner: self.owner(),
            uses: uses.collect(),
            secured: secured.map(|(name, _)| name).collect(),
        }))
    }

    /// One of its members; absent if its host is not known.
    #[must_use]
    pub fn draft(&self, id: MemberId, member: &Member) -> Option<Draft<'_>> {
        let me = peer(self.state, id, member)?;
        Some(Draft { source: self, me, joins_existing: member.joins_existing })
    }
}

/// A member about to be rendered.
pub struct Draft<'a> {
    source: &'a Source<'a>,
    me: Peer,
    joins_existing: bool,
}

impl Draft<'_> {
    /// Hash of everything that the result depends on.
    #[must_use]
    pub fn inputs(&self) -> String {
        hash_of(&(&self.source.hash, &self.me, self.joins_existing))
    }

    /// The rendering; absent before `init`.
    #[must_use]
    pub fn render(&self, inputs: String) -> Option<Rendering> {
        let source = self.source;
        let platform = source.state.platform.as_ref()?;
        let context = RenderContext {
            platform_id: &platform.id,
            platform: &platform.spec,
            service: source.service,
            spec: source.spec,
            me: &self.me,
            peers: &source.peers,
            children: &source.children,
            owner: source.owner(),
            uses: &source.uses,
            joins_existing: self.joins_existing,
        };
        let (rendered, guard) = (source.kind.render(&context), source.kind.stop_guard(&context));
        let container_hash = rendered.container_hash();
        let hash = Rendering::hash(&rendered, guard.as_ref());
        Some(Rendering {
            revision: source.revision,
            inputs,
            container_hash,
            hash,
            rendered: rendered.into(),
            guard: guard.map(Into::into),
        })
    }
}
