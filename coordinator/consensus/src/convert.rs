//! Between openraft's types and the formats of [`crate::history`]; must not panic on any input.

use std::collections::{BTreeMap, BTreeSet};

use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use crate::history::{
    AppendAnswer, AppendMessage, FormatError, VoteAnswer, VoteMessage, WireBody, WireEntry, WireLogId,
    WireMembership, WireNode, WireVote,
};
use crate::types::{Address, Entry, EntryBody, LeaderId, LogId, Membership, Proposal, Types, Vote};

pub(crate) fn log_id(id: &LogId) -> WireLogId {
    WireLogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn to_log_id(id: WireLogId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.node }, index: id.index }
}

pub(crate) fn vote(vote: &Vote) -> WireVote {
    WireVote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn to_vote(vote: WireVote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
}

pub(crate) fn membership(membership: &Membership) -> WireMembership {
    let configs = membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect();
    let nodes = membership
        .nodes()
        .map(|(id, address)| WireNode {
            id: *id,
            endpoint: address.endpoint.clone(),
            key: address.key.clone(),
        })
        .collect();
    WireMembership { configs, nodes }
}

pub(crate) fn to_membership(wire: WireMembership) -> Result<Membership, FormatError> {
    let configs: Vec<BTreeSet<u64>> = wire.configs.into_iter().map(|ids| ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Address> = wire
        .nodes
        .into_iter()
        .map(|node| (node.id, Address { endpoint: node.endpoint, key: node.key }))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| FormatError::Malformed(error.to_string()))
}

pub(crate) fn entry(entry: &Entry) -> WireEntry {
    let body = match &entry.payload {
        EntryBody::Blank => WireBody::Blank,
        EntryBody::Normal(proposal) => {
            WireBody::Normal { at_ms: proposal.at_ms, payload: proposal.payload.clone() }
        }
        EntryBody::Membership(m) => WireBody::Membership(membership(m)),
    };
    WireEntry { id: log_id(&entry.log_id), body }
}

pub(crate) fn to_entry(wire: WireEntry) -> Result<Entry, FormatError> {
    let body = match wire.body {
        WireBody::Blank => EntryBody::Blank,
        WireBody::Normal { at_ms, payload } => EntryBody::Normal(Proposal { at_ms, payload }),
        WireBody::Membership(m) => EntryBody::Membership(to_membership(m)?),
    };
    Ok(Entry::new(to_log_id(wire.id), body))
}

pub(crate) fn append(request: &AppendEntriesRequest<Types>) -> AppendMessage {
    AppendMessage {
        vote: vote(&request.vote),
        prev: request.prev_log_id.as_ref().map(log_id),
        commit: request.leader_commit.as_ref().map(log_id),
        entries: request.entries.iter().map(entry).collect(),
    }
}

/// Also checks what openraft takes for granted: entries follow `prev` without a hole and none is
/// newer than its leader.
pub(crate) fn to_append(wire: AppendMessage) -> Result<AppendEntriesRequest<Types>, FormatError> {
    let mut before = wire.prev;
    for entry in &wire.entries {
        let expected = before.map_or(0, |id| id.index.saturating_add(1));
        let newer = (entry.id.term, entry.id.node) > (wire.vote.term, wire.vote.node);
        let older = before.is_some_and(|id| (entry.id.term, entry.id.node) < (id.term, id.node));
        if entry.id.index != expected || newer || older {
            return Err(FormatError::Malformed(format!("entry {} does not follow", entry.id.index)));
        }
        before = Some(entry.id);
    }
    if !wire.vote.committed {
        return Err(FormatError::Malformed("append by a node that is not a leader".into()));
    }
    Ok(AppendEntriesRequest {
        vote: to_vote(wire.vote),
        prev_log_id: wire.prev.map(to_log_id),
        leader_commit: wire.commit.map(to_log_id),
        entries: wire.entries.into_iter().map(to_entry).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn append_answer(answer: &AppendEntriesResponse<Types>) -> AppendAnswer {
    match answer {
        AppendEntriesResponse::Success => AppendAnswer::Success,
        AppendEntriesResponse::PartialSuccess(id) => AppendAnswer::Partial(id.as_ref().map(log_id)),
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(v) => AppendAnswer::HigherVote(vote(v)),
    }
}

pub(crate) fn to_append_answer(answer: AppendAnswer) -> AppendEntriesResponse<Types> {
    match answer {
        AppendAnswer::Success => AppendEntriesResponse::Success,
        AppendAnswer::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(to_log_id)),
        AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
        AppendAnswer::HigherVote(v) => AppendEntriesResponse::HigherVote(to_vote(v)),
    }
}

pub(crate) fn vote_message(request: &VoteRequest<Types>, pre: bool) -> VoteMessage {
    VoteMessage {
        pre,
        vote: vote(&request.vote),
        last: request.last_log_id.as_ref().map(log_id),
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn to_vote_request(wire: &VoteMessage) -> VoteRequest<Types> {
    let mut request = VoteRequest::new(to_vote(wire.vote), wire.last.map(to_log_id));
    request.leadership_transfer = wire.transfer;
    request
}

pub(crate) fn vote_answer(answer: &VoteResponse<Types>) -> VoteAnswer {
    VoteAnswer {
        vote: vote(&answer.vote),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(log_id),
    }
}

pub(crate) fn to_vote_answer(wire: &VoteAnswer) -> VoteResponse<Types> {
    VoteResponse::new(to_vote(wire.vote), wire.last.map(to_log_id), wire.granted)
}
