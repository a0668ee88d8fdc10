//! The private network of one host: brings the host to what the plan says, changing only what differs. Touches nothing
//! that is not ours, and says what it cannot do instead of skipping it.
//!
//! | what | where it is decided |
//! |---|---|
//! | who may reach which port | `filter.rs` (text), `filter_load.rs` |
//! | Docker networks | `engine.rs`, `bridges.rs` |
//! | a drill's darkness | `dark.rs` |
//! | refusals towards dark hosts | `dead.rs` |
//! | mesh device, peers, routes | `device.rs`, `mesh.rs`, `routes.rs` |
//! | kernel settings, Docker's own chains | `sysctl.rs`, `chain.rs` |

pub(crate) mod bridges;
mod chain;
pub(crate) mod command;
pub(crate) mod dark;
pub(crate) mod dead;
pub mod device;
pub mod engine;
mod filter;
mod filter_load;
pub(crate) mod gone;
mod mesh;
pub mod names;
mod problem;
pub(crate) mod routes;
mod sysctl;

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_model::network::{HostNetwork, Mesh, NetworkPlan};
use muster_model::spec::Egress;

pub(crate) use self::chain::forget as forget_chain;
pub use self::problem::{Problem, Stops};

use self::bridges::{Seen, interface_exists};
use self::engine::{EngineNetwork, NetworkEngine};
use self::filter::{Ruleset, Segment};
use self::filter_load::Filter;
use self::names::DEVICE;
use self::routes::Route;

/// The network of this host.
pub struct Network<E> {
    engine: E,
    platform: String,
    key_file: PathBuf,
    filter: Filter,
    endpoints: mesh::Endpoints,
    /// Networks of ours that are still there and not in the plan: nobody may reach anything in them.
    leftovers: Vec<Segment>,
}

impl<E: NetworkEngine> Network<E> {
    /// `platform` is the platform's id, `key_file` the host's WireGuard key as `wg genkey` prints it.
    pub fn new(engine: E, platform: String, key_file: PathBuf) -> Self {
        Self {
            engine,
            platform,
            key_file,
            filter: Filter::default(),
            endpoints: mesh::Endpoints::default(),
            leftovers: Vec::new(),
        }
    }

    /// Brings the host to `plan` and returns what is wrong afterwards. To be called before members are started, after
    /// every new plan, and every 10 s or less: what somebody flushed, edited or removed is put back.
    ///
    /// An empty plan takes everything of ours away; a network that containers still use stays, closed.
    // Safety of this order: the filter comes first, so that no bridge is ever there without it.
    pub async fn ensure(&mut self, plan: &HostNetwork) -> Vec<Problem> {
        let mut problems = Vec::new();
        let routes = routes::read().await.unwrap_or_else(|error| {
            problems.push(Problem::note("net-routes", error.to_string()));
            Vec::new()
        });
        let networks = match self.engine.networks().await {
            Ok(networks) => {
                self.leftovers = segments_left(&networks, plan, &self.platform);
                Some(networks)
            }
            Err(error) => {
                problems
                    .push(Problem::note("net-engine", format!("Docker networks cannot be listed: {error}")));
                None
            }
        };
        let ruleset = self.ruleset(plan);
        // Without the engine's word that no network is left, an empty plan must not open what may still be in use.
        if networks.is_some() || !ruleset.is_empty() {
            problems.extend(self.filter.ensure(&ruleset).await);
        }
        let ours: BTreeSet<String> = ruleset
            .segments
            .iter()
            .map(|segment| segment.bridge.clone())
            .chain([DEVICE.to_owned()])
            .collect();
        if let Some(networks) = &networks {
            let seen = Seen { networks, routes: &routes, ours: &ours };
            problems.extend(bridges::ensure(&self.engine, &self.platform, &plan.networks, &seen).await);
        }
        let ready: Vec<&NetworkPlan> =
            plan.networks.iter().filter(|net| interface_exists(&names::bridge(&net.name))).collect();
        let bridges: Vec<String> = ready.iter().map(|net| names::bridge(&net.name)).collect();
        if !bridges.is_empty() {
            problems.extend(sysctl::ensure(&bridges).await);
        }
        problems.extend(self.ensure_mesh(plan, &ready, &routes, &ours).await);
        problems.extend(chain::ensure(&ruleset.segments).await);
        problems
    }

    async fn ensure_mesh(
        &mut self,
        plan: &HostNetwork,
        ready: &[&NetworkPlan],
        routes: &[Route],
        ours: &BTreeSet<String>,
    ) -> Option<Problem> {
        let failed = |error: command::CommandError| Problem::note("mesh-device", error.to_string());
        let Some(mesh) = &plan.mesh else {
            let cleared =
                if interface_exists(DEVICE) { mesh::clear(&mut self.endpoints).await } else { Ok(()) };
            return cleared.and(routes::ensure(plan, ready).await).err().map(failed);
        };
        if let Some(problem) = mesh_impossible(mesh, routes, ours) {
            return Some(problem);
        }
        if let Err(error) = mesh::ensure(mesh, &self.key_file, &mut self.endpoints).await {
            return Some(failed(error));
        }
        routes::ensure(plan, ready).await.err().map(failed)
    }

    fn ruleset(&self, plan: &HostNetwork) -> Ruleset {
        let planned = plan.networks.iter().map(|net| Segment {
            bridge: names::bridge(&net.name),
            subnet: net.subnet,
            egress: net.egress,
        });
        Ruleset {
            mesh: plan.mesh.as_ref().map(|mesh| mesh.subnet),
            segments: planned.chain(self.leftovers.iter().cloned()).collect(),
            rules: plan.rules.clone(),
        }
    }
}

fn mesh_impossible(mesh: &Mesh, routes: &[Route], ours: &BTreeSet<String>) -> Option<Problem> {
    if let Some((net, device)) = routes::overlap(routes, mesh.subnet, ours) {
        return Some(Problem::note(
            "net-overlap",
            format!(
                "the mesh ({}) overlaps the route to {net} through {device}, so other hosts cannot be reached: remove \
                 it, or give the mesh another subnet in the platform's spec",
                mesh.subnet
            ),
        ));
    }
    (!interface_exists(DEVICE)).then(|| {
        Problem::note(
            "mesh-device",
            format!("device {DEVICE} is missing, so members on other hosts cannot be reached: `systemctl restart muster-mesh`"),
        )
    })
}

fn segments_left(networks: &[EngineNetwork], plan: &HostNetwork, platform: &str) -> Vec<Segment> {
    let segment = |network: &EngineNetwork| {
        let (bridge, subnet) = (network.bridge()?.to_owned(), *network.subnets.first()?);
        Some(Segment { bridge, subnet, egress: Egress::Deny })
    };
    bridges::leftovers(networks, &plan.networks, platform).into_iter().filter_map(segment).collect()
}
