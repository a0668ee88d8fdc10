//! What agents keep for the day on which all coordinators and their disks are lost: the state without what passes, what
//! is secret, and what each host has in its own plan anyway. `docs/adr/0017-rebuild-from-agents.md`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::ids::{HostId, LogIndex, MemberId, OperationId, Revision, TaskId};
use muster_model::observed::HostFacts;
use muster_model::plan::{HostPlan, MemberPlan, Run};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state::{Host, Liveness, Member, Phase, Platform, Rendering, SecretRow, Service, State};
use crate::version::{FormatError, STATE_FORMAT};

/// Numbers of operations and tasks are kept in steps: each new one would be a change otherwise.
const OPERATIONS_STEP: u64 = 1_000;
const TASKS_STEP: u64 = 100_000;

/// The kept part of a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keepsake {
    /// Everything but renderings and sealed values.
    pub state: State,
    /// What members were rendered from; the result is in the plan of their host.
    pub renderings: BTreeMap<MemberId, RenderingNote>,
}

/// A rendering without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderingNote {
    /// The revision that it was rendered from.
    pub revision: Revision,
    /// Hash of everything that it was rendered from.
    pub inputs: String,
    /// Hash of the whole result.
    pub hash: String,
}

/// What became of a keepsake and the plans of hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuilt {
    /// The state, still without any secret's value.
    pub state: State,
    /// What an operator should know, line by line.
    pub notes: Vec<String>,
}

impl Keepsake {
    /// Of this state; absent = there is no platform in it.
    #[must_use]
    pub fn of(state: &State) -> Option<Self> {
        let platform = Platform { spec_index: LogIndex(0), ..state.platform.clone()? };
        let services = state.services.iter().filter(|(_, row)| row.internal.is_none());
        let services: BTreeMap<_, _> = services
            .map(|(name, row)| (name.clone(), Service { version: LogIndex(0), ..row.clone() }))
            .collect();
        let kept = |member: &&Member| services.contains_key(&member.slot.service);
        let members = state.members.iter().filter(|(_, member)| kept(member));
        let notes = state.members.iter().filter(|(_, member)| kept(member));
        let note = |(id, member): (&MemberId, &Member)| {
            let rendering = member.rendering.as_ref()?;
            let (revision, inputs) = (rendering.revision, rendering.inputs.clone());
            Some((*id, RenderingNote { revision, inputs, hash: rendering.content_hash() }))
        };
        let renderings = notes.filter_map(note).collect();
        let sealed_elsewhere = |row: &SecretRow| SecretRow { sealed: String::new(), ..row.clone() };
        let kept = State {
            format: state.format,
            platform: Some(platform),
            hosts: state.hosts.iter().map(|(id, host)| (id.clone(), host_row(host))).collect(),
            blocks: state.blocks.clone(),
            members: members.map(|(id, member)| (*id, member_row(member))).collect(),
            services,
            next_member: state.next_member,
            next_operation: OperationId(state.next_operation.0.next_multiple_of(OPERATIONS_STEP)),
            next_task: TaskId(state.next_task.0.next_multiple_of(TASKS_STEP)),
            secrets: state.secrets.iter().map(|(name, row)| (name.clone(), sealed_elsewhere(row))).collect(),
            brake_released: None,
            ..State::default()
        };
        Some(Self { state: kept, renderings })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always has a JSON form")
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or a newer version wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Outer {
            state: Head,
        }
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |source| FormatError::Unreadable { what: "keepsake", source };
        let outer: Outer = serde_json::from_slice(bytes).map_err(unreadable)?;
        if outer.state.format > STATE_FORMAT {
            return Err(FormatError::Newer { found: outer.state.format });
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// The state as it was, with what the hosts' own plans say of their members. A host without a plan keeps its members;
    /// what they were made of is found out anew.
    #[must_use]
    pub fn rebuild(self, plans: &BTreeMap<HostId, HostPlan>) -> Rebuilt {
        let Self { mut state, renderings } = self;
        let mut notes = Vec::new();
        for (host, plan) in plans {
            if !state.hosts.contains_key(host) {
                notes.push(format!(
                    "host {host} is not known: it is adopted as a new one, its members are not"
                ));
                continue;
            }
            forget_unplanned(&mut state, host, plan, &mut notes);
            for of_plan in &plan.members {
                match state.members.get_mut(&of_plan.member).filter(|row| row.host == *host) {
                    Some(row) => take(row, of_plan, renderings.get(&of_plan.member)),
                    None => add(&mut state, host, of_plan, &mut notes),
                }
            }
        }
        let last = state.members.keys().next_back().map_or(0, |id| id.0);
        state.next_member = state.next_member.max(MemberId(last + 1));
        Rebuilt { state, notes }
    }
}

fn host_row(host: &Host) -> Host {
    let facts = HostFacts { images: Vec::new(), disk_free_percent: 0, ..(*host.facts).clone() };
    Host {
        liveness: Liveness::Down,
        since: Timestamp(0),
        boot: None,
        facts: Arc::new(facts),
        engine: (true, Timestamp(0)),
        conditions: Vec::new(),
        plan_counter: 0,
        plan_hash: String::new(),
        inventory: None,
        version: LogIndex(0),
        ..host.clone()
    }
}

fn member_row(member: &Member) -> Member {
    let phase = match &member.phase {
        Phase::Active => Phase::Active,
        Phase::Retiring { destroy, lost, .. } => {
            Phase::Retiring { since: Timestamp(0), destroy: *destroy, dropped_at: None, lost: *lost }
        }
    };
    Member {
        phase,
        rendering: None,
        pending: None,
        started: false,
        parked: false,
        observed: None,
        observed_at: Timestamp(0),
        seen_under: 0,
        told: None,
        ..member.clone()
    }
}

/// Placed, but its host was never told: nothing of it was ever made.
fn forget_unplanned(state: &mut State, host: &HostId, plan: &HostPlan, notes: &mut Vec<String>) {
    let planned: BTreeSet<MemberId> = plan.members.iter().map(|member| member.member).collect();
    let name = state.host_name(host);
    state.members.retain(|id, row| {
        let keep = row.host != *host || row.phase != Phase::Active || planned.contains(id);
        if !keep {
            notes.push(format!("{} was never told of {}: it is placed anew", name, row.title(*id)));
        }
        keep
    });
}

fn take(row: &mut Member, of_plan: &MemberPlan, note: Option<&RenderingNote>) {
    let hash = Rendering::hash(&of_plan.rendered, of_plan.guard.as_ref());
    let note = note.filter(|note| note.hash == hash);
    row.rendering = Some(Rendering {
        revision: note.map_or(of_plan.revision, |note| note.revision),
        // Without it the member is rendered anew; the same result needs no new container.
        inputs: note.map(|note| note.inputs.clone()).unwrap_or_default(),
        container_hash: of_plan.rendered.container_hash(),
        hash,
        rendered: Arc::new(of_plan.rendered.clone()),
        guard: of_plan.guard.clone().map(Arc::new),
    });
    row.started = of_plan.run == Run::Running;
    row.addresses.clone_from(&of_plan.addresses);
    row.restarts = row.restarts.max(of_plan.restarts);
    row.has_data |= of_plan.has_data;
}

/// Placed after the keepsake was made. What does not fit is left to the inventory, which names it.
fn add(state: &mut State, host: &HostId, of_plan: &MemberPlan, notes: &mut Vec<String>) {
    let title = format!("{} (member {}) on {}", of_plan.slot, of_plan.member, state.host_name(host));
    let service = &of_plan.slot.service;
    let free = !state.members_of(service).contains_key(&of_plan.slot.index);
    let unused = !state.members.contains_key(&of_plan.member);
    let fits = of_plan.addresses.iter().all(|place| {
        let blocks = state.blocks_of(&place.network, host);
        let taken = state.members.values().any(|member| member.addresses.contains(place));
        blocks.iter().any(|net| net.contains(&place.address)) && !taken
    });
    if !(state.services.contains_key(service) && free && unused && fits) {
        notes.push(format!(
            "{title} runs and is not known: it is left as it is, `muster status` will name it"
        ));
        return;
    }
    let mut row = Member {
        slot: of_plan.slot.clone(),
        host: host.clone(),
        addresses: Vec::new(),
        joins_existing: true,
        phase: Phase::Active,
        rendering: None,
        pending: None,
        started: false,
        parked: false,
        restarts: 0,
        has_data: false,
        observed: None,
        observed_at: Timestamp(0),
        seen_under: 0,
        told: None,
        placed_at: Timestamp(0),
    };
    take(&mut row, of_plan, None);
    state.members.insert(of_plan.member, row);
    notes.push(format!("{title} is newer than what was kept: taken from the plan of its host"));
}
