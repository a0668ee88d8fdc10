//! What one host must have, computed from State. The counter of its generation comes from `PublishPlan`.
//!
//! A plan is sent only when State holds the hash of exactly this content (see [`published`]): whichever coordinator
//! leads, and whatever its version, one counter always stands for one content.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::{Generation, HostId, MemberId, Name, Revision, Slot};
use muster_model::network::{HostNetwork, Mesh, MeshPeer, NetworkPlan};
use muster_model::plan::{
    Act, Ask, Attachment, Carried, HostPlan, HttpAsk, MemberPlan, Probe, RespAsk, Run, S3Ask, S3What, Task,
    TaskKind, hash_of,
};
use serde::Serialize;

use crate::rules;
use crate::state::{Member, Phase, SecretRow, State};

/// The plan of a host as it may be sent now; absent while the present content is not published yet.
#[must_use]
pub fn published(state: &State, host: &HostId) -> Option<HostPlan> {
    let row = state.hosts.get(host)?;
    let outline = outline(state, host)?;
    if row.plan_counter == 0 || hash_of(&outline) != row.plan_hash {
        return None;
    }
    let incarnation = state.platform.as_ref()?.incarnation;
    let members = outline.members.iter().filter_map(|(id, ..)| member_plan(state, *id));
    Some(HostPlan {
        platform: outline.platform.to_owned(),
        host: host.clone(),
        generation: Generation { incarnation, counter: row.plan_counter },
        additive_only: outline.additive_only,
        members: members.collect(),
        network: outline.network,
        discard: outline.discard,
        tasks: outline.tasks.into_iter().cloned().collect(),
        carried: outline.carried,
    })
}

/// Hash of the content that a host's plan has now, whether published or not.
#[must_use]
pub fn content_hash(state: &State, host: &HostId) -> Option<String> {
    outline(state, host).map(|outline| hash_of(&outline))
}

/// A member's part of a plan, with the hash of its rendering instead of the text.
type Line<'a> = (MemberId, &'a Slot, Revision, String, &'a [Attachment], bool, u64, bool);

/// The content of a plan, without its generation. Two plans are the same if their outlines are.
#[derive(Serialize)]
struct Outline<'a> {
    platform: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    additive_only: bool,
    network: HostNetwork,
    members: Vec<Line<'a>>,
    discard: Vec<MemberId>,
    tasks: Vec<&'a Task>,
    carried: Vec<Carried>,
    /// Versions of secrets that were changed: a plan names secrets, but not their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<&'a str, u64>,
}

fn outline<'a>(state: &'a State, host: &'a HostId) -> Option<Outline<'a>> {
    let platform = state.platform.as_ref()?;
    let row = state.hosts.get(host)?;
    let active: Vec<(MemberId, &Member)> =
        state.members_on(host).filter(|(_, member)| member.phase == Phase::Active).collect();
    let services: BTreeSet<&Name> = active.iter().map(|(_, member)| &member.slot.service).collect();
    let tasks = state.tasks.values().filter(|row| row.host == *host && row.answer.is_none());
    let line = |(id, member): &(MemberId, &'a Member)| -> Option<Line<'a>> {
        let rendering = member.rendering.as_ref()?;
        let hash = rendering.content_hash();
        let addresses = member.addresses.as_slice();
        Some((
            *id,
            &member.slot,
            rendering.revision,
            hash,
            addresses,
            runs(state, member),
            member.restarts,
            member.has_data,
        ))
    };
    Some(Outline {
        platform: &platform.id,
        additive_only: row.inventory.is_some(),
        network: HostNetwork {
            mesh: mesh(state, host),
            networks: networks(state, host),
            rules: rules::rules(state, &active),
        },
        members: active.iter().filter_map(line).collect(),
        discard: discarded(state, host),
        tasks: tasks.map(|row| &row.task).collect(),
        carried: services.into_iter().filter_map(|service| carried(state, service)).collect(),
        secrets: changed_secrets(state),
    })
}

/// Of the whole platform: a plan that is sent once more for another host's secret changes nothing.
fn changed_secrets(state: &State) -> BTreeMap<&str, u64> {
    let changed = |name: &str, row: &SecretRow| row.version > 1 || name.contains('@');
    let rows = state.secrets.iter().filter(|(name, row)| changed(name, row));
    rows.map(|(name, row)| (name.as_str(), row.version)).collect()
}

/// Members on their way out whose data an operator said to delete, or which had only a drill's ledger.
fn discarded(state: &State, host: &HostId) -> Vec<MemberId> {
    let gone = |member: &Member| matches!(member.phase, Phase::Retiring { destroy: true, .. });
    state.members_on(host).filter(|(_, member)| gone(member)).map(|(id, _)| id).collect()
}

/// It is to run: it was started, and its host is not stopped for maintenance.
fn runs(state: &State, member: &Member) -> bool {
    member.started && state.hosts.get(&member.host).is_none_or(|host| !host.resting)
}

fn member_plan(state: &State, id: MemberId) -> Option<MemberPlan> {
    let member = state.members.get(&id)?;
    let rendering = member.rendering.as_ref()?;
    Some(MemberPlan {
        slot: member.slot.clone(),
        member: id,
        revision: rendering.revision,
        rendered: (*rendering.rendered).clone(),
        addresses: member.addresses.clone(),
        run: if runs(state, member) { Run::Running } else { Run::Stopped },
        guard: rendering.guard.as_deref().cloned(),
        restarts: member.restarts,
        has_data: member.has_data,
    })
}

/// The mesh; absent while the platform has one host.
fn mesh(state: &State, host: &HostId) -> Option<Mesh> {
    if state.hosts.len() < 2 {
        return None;
    }
    let spec = &state.spec()?.mesh;
    let others = state.hosts.iter().filter(|(id, row)| *id != host && !row.facts.mesh_key.is_empty());
    let peers = others.map(|(id, row)| MeshPeer {
        host: id.clone(),
        public_key: row.facts.mesh_key.clone(),
        endpoint: (row.address, spec.port).into(),
        address: row.mesh_address,
        blocks: state.blocks.keys().flat_map(|network| state.blocks_of(network, id)).collect(),
    });
    Some(Mesh {
        address: state.hosts.get(host)?.mesh_address,
        subnet: spec.subnet,
        port: spec.port,
        mtu: spec.mtu,
        peers: peers.collect(),
    })
}

fn networks(state: &State, host: &HostId) -> Vec<NetworkPlan> {
    let Some(spec) = state.spec() else { return Vec::new() };
    let plans = state.blocks.iter().filter_map(|(name, blocks)| {
        let network = spec.network(name)?;
        Some(NetworkPlan {
            name: name.clone(),
            subnet: network.subnet,
            gateway: state.gateway(name, host)?,
            blocks: state.blocks_of(name, host),
            remote: blocks.iter().filter(|(_, block)| block.host != *host).map(|(net, _)| *net).collect(),
            mtu: spec.mesh.mtu,
            egress: network.egress,
        })
    });
    plans.collect()
}

#[derive(Serialize)]
struct CarriedService<'a> {
    spec: &'a muster_model::spec::ServiceSpec,
    formed: bool,
    owner: Option<&'a Name>,
    slots: Vec<(u32, MemberId, &'a HostId, &'a [muster_model::plan::Attachment])>,
}

/// What a rebuild of the control plane would need to know of a service; the agent keeps it unread.
fn carried(state: &State, name: &Name) -> Option<Carried> {
    let service = state.services.get(name)?;
    let members = state.members_of(name);
    let slots = members.iter().map(|(slot, (id, m))| (*slot, *id, &m.host, m.addresses.as_slice()));
    let owner = service.parent.as_ref().map(|parent| &parent.owner);
    let bytes = CarriedService { spec: &service.spec, formed: service.formed, owner, slots: slots.collect() };
    let bytes = serde_json::to_string(&bytes).ok()?;
    let revision: Revision = service.revision;
    Some(Carried { service: name.clone(), revision, bytes })
}

/// Names of the secrets that a plan's members need: what the host may be given, and nothing else.
#[must_use]
pub fn secret_names(plan: &HostPlan) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for member in &plan.members {
        let rendered = &member.rendered;
        for file in &rendered.files {
            names.extend(placeholders(&file.content));
        }
        let actions = rendered.actions.values();
        let guards = actions.clone().filter_map(|action| action.guard.as_ref()).map(|guard| &guard.probe);
        let release = rendered.release.iter().map(|release| &release.guard.probe);
        let probes = rendered.probes.iter().map(|probe| &probe.probe);
        let stop = member.guard.iter().map(|guard| &guard.probe);
        for probe in probes.chain(guards).chain(release).chain(stop).chain(&rendered.system_id) {
            names.extend(of_probe(probe));
        }
        let acts = actions.map(|action| &action.run).chain(rendered.release.iter().map(|r| &r.act));
        names.extend(acts.flat_map(of_act));
    }
    for task in &plan.tasks {
        names.extend(task.guard.iter().flat_map(|guard| of_probe(&guard.probe)));
        if let TaskKind::Act { act } = &task.what {
            names.extend(of_act(act));
        }
    }
    names
}

fn of_act(act: &Act) -> Vec<String> {
    match act {
        Act::Http(http) => of_http(http),
        Act::Resp(resp) => of_resp(resp),
        Act::S3(s3) => of_s3(s3),
        Act::Exec { .. } | Act::Signal { .. } | Act::EtcdDelete { .. } => Vec::new(),
    }
}

fn of_http(http: &HttpAsk) -> Vec<String> {
    let mut names = http.body.as_deref().map(placeholders).unwrap_or_default();
    names.extend(http.basic_auth.iter().map(|(_, secret)| secret.clone()));
    names
}

fn of_resp(resp: &RespAsk) -> Vec<String> {
    let words = resp.calls.iter().flat_map(|call| &call.words).flat_map(|word| placeholders(word));
    std::iter::once(resp.secret.clone()).chain(words).collect()
}

fn of_s3(s3: &S3Ask) -> Vec<String> {
    let users = match &s3.what {
        S3What::ImportUsers(users) => users.as_slice(),
        _ => &[],
    };
    s3.secret.iter().chain(users.iter().map(|user| &user.secret)).cloned().collect()
}

fn of_probe(probe: &Probe) -> Vec<String> {
    match &probe.ask {
        Ask::Http(http) => of_http(http),
        Ask::Sql(sql) => vec![sql.secret.clone()],
        Ask::Resp(resp) => of_resp(resp),
        Ask::S3(s3) => of_s3(s3),
        Ask::Tcp { .. } | Ask::Exec { .. } | Ask::EtcdRange { .. } => Vec::new(),
    }
}

/// Names in `${secret:NAME}` of a text.
fn placeholders(text: &str) -> Vec<String> {
    let parts = text.split("${secret:").skip(1);
    parts.filter_map(|part| part.split_once('}')).map(|(name, _)| name.to_owned()).collect()
}
