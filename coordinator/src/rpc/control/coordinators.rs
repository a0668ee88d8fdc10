//! The coordinators themselves: who is one, and taking one out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_consensus::{ChangeError, Member, Status as Group};
use muster_core::command::What;
use muster_core::state::State;
use muster_model::ids::Name;
use muster_model::view::{CoordinatorDetail, GroupView};
use muster_proto::control as pb;
use tokio::task::JoinSet;
use tonic::{Response, Status};

use super::{Controls, view};
use crate::standing::{Answered, hello};
use crate::{group, status};

/// Longest wait for the word of a majority, before the view is one coordinator's own.
const AGREED: Duration = Duration::from_secs(3);
/// Longest wait for a change of the group, and for another leader.
const CHANGE: Duration = Duration::from_secs(6);

impl Controls {
    /// The leader knows how far the others are. Without a majority anyone says what it knew last.
    pub(super) async fn list_coordinators(&self) -> Result<Response<pb::View>, Status> {
        let consensus = &self.parts.consensus;
        let agreed = consensus.linearizable(AGREED).await.is_ok();
        let group = consensus.status();
        if agreed && !group.am_leader {
            return Err(status::not_leader(group::leader_endpoint(consensus).as_deref()));
        }
        let answers = self.greet(&group).await;
        if answers.values().any(|answer| matches!(answer, Answered::Revoked)) {
            return Err(Status::unavailable(
                "this coordinator was removed and is about to stop: ask another one",
            ));
        }
        let state = self.parts.replica.state();
        let rows = group.members.iter().map(|member| detail(&state, &group, agreed, member, &answers));
        let found = GroupView { agreed, last_log: group.last_log, coordinators: rows.collect() };
        Ok(view(&found))
    }

    /// Asks all others at once.
    async fn greet(&self, group: &Group) -> BTreeMap<u64, Answered> {
        let mut asked = JoinSet::new();
        for member in group.members.iter().filter(|member| member.node.id != group.node) {
            let (node, tls) = (member.node.clone(), Arc::clone(&self.parts.tls));
            asked.spawn(async move { (node.id, hello(&node.endpoint, &node.key, &tls).await) });
        }
        asked.join_all().await.into_iter().collect()
    }

    pub(super) async fn take_out(
        &self,
        actor: String,
        request: pb::RemoveCoordinatorRequest,
    ) -> Result<Response<pb::Changed>, Status> {
        let state = self.read().await?;
        let consensus = &self.parts.consensus;
        let group = consensus.status();
        if !group.am_leader {
            return Err(status::not_leader(group::leader_endpoint(consensus).as_deref()));
        }
        let node = named(&state, &group, &request.coordinator)?;
        if let Some(member) = group.members.iter().find(|member| member.node.id == node) {
            let answers = self.greet(&group).await.into_iter();
            let greeted =
                answers.filter(|(_, answer)| matches!(answer, Answered::Hello(_))).map(|(id, _)| id);
            if let Some(why) = group::removal_refusal(&group, node, &greeted.collect()) {
                return Err(Status::failed_precondition(format!("{} stays: {why}", request.coordinator)));
            }
            if node == group.node {
                return Err(self.give_way(&group).await);
            }
            tracing::info!(node, endpoint = member.node.endpoint, "leaves the group");
            consensus.remove(node, CHANGE).await.map_err(|error| unchanged(&error))?;
        }
        // A call that ended here before had its first half: the keys are what is left of it.
        let reply = self.propose(actor, request.caller, What::RemoveCoordinator { node }).await?;
        Ok(Response::new(pb::Changed { index: reply.index.0 }))
    }

    /// A leader does not take itself out: the caller asks the next one.
    async fn give_way(&self, group: &Group) -> Status {
        let answers =
            |m: &&Member| m.voter && m.node.id != group.node && group::reachable(group, m) == Some(true);
        let next = group.members.iter().filter(answers).max_by_key(|member| member.matched);
        let Some(next) = next.map(|member| member.node.id) else {
            return Status::unavailable(
                "no other coordinator with a vote answers: leadership cannot move away",
            );
        };
        match self.parts.consensus.transfer_leader(Some(next), CHANGE).await {
            Ok(_) => status::not_leader(group::leader_endpoint(&self.parts.consensus).as_deref()),
            Err(error) => unchanged(&error),
        }
    }
}

fn unchanged(error: &ChangeError) -> Status {
    match error {
        ChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
        ChangeError::DiskFull => Status::resource_exhausted(error.to_string()),
        // Said again it does what is still to be done.
        _ => Status::unavailable(error.to_string()),
    }
}

/// The number of a coordinator that is, or whose keys still count.
fn named(state: &State, group: &Group, text: &str) -> Result<u64, Status> {
    let member = |node: &u64| group.members.iter().any(|member| member.node.id == *node);
    if let Ok(node) = text.parse::<u64>() {
        return if member(&node) || state.coordinators.contains_key(&node) {
            Ok(node)
        } else {
            Err(Status::not_found(format!("there is no coordinator with number {node}")))
        };
    }
    let called = state.coordinators.iter().filter(|(_, name)| name.as_str() == text);
    let found: Vec<u64> = called.map(|(node, _)| *node).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Status::not_found(format!("there is no coordinator `{text}`"))),
        all => {
            let numbers: Vec<String> = all.iter().map(u64::to_string).collect();
            Err(Status::invalid_argument(format!(
                "{} coordinators are called `{text}`: say the number, {}",
                all.len(),
                numbers.join(" or ")
            )))
        }
    }
}

fn detail(
    state: &State,
    group: &Group,
    agreed: bool,
    member: &Member,
    answers: &BTreeMap<u64, Answered>,
) -> CoordinatorDetail {
    let node = &member.node;
    let here = node.id == group.node;
    let program = match answers.get(&node.id) {
        Some(Answered::Hello(reply)) => Some(reply.program.clone()),
        _ if here => Some(crate::rpc::identity::PROGRAM.to_owned()),
        _ => None,
    };
    let matched = if here { Some(group.last_log) } else { member.matched }.filter(|_| agreed);
    let address = node.endpoint.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
    let host = state.hosts.values().find(|host| host.address.to_string() == address);
    CoordinatorDetail {
        id: node.id,
        name: state.coordinators.get(&node.id).cloned(),
        endpoint: node.endpoint.clone(),
        host: host.map(|host| Name::clone(&host.name)),
        leader: agreed && group.leader == Some(node.id),
        voter: member.voter,
        reachable: program.is_some(),
        matched,
        lag: matched.map(|matched| group.last_log.saturating_sub(matched)),
        version: program.map(|text| text.rsplit(' ').next().unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use muster_consensus::Node;

    use super::*;

    #[test]
    fn a_coordinator_is_named_by_number_or_by_a_name_that_only_one_has() {
        let member = |id: u64| Member {
            node: Node { id, endpoint: String::new(), key: String::new() },
            voter: true,
            matched: None,
            heard: None,
        };
        let group = Group {
            node: 1,
            leader: Some(1),
            term: 1,
            am_leader: true,
            last_log: 1,
            applied: 1,
            snapshot: 0,
            disk_full: false,
            members: vec![member(1), member(7), member(9)],
        };
        let mut state = State::default();
        for (node, name) in [(1, "a"), (7, "b"), (9, "b"), (5, "gone")] {
            state.coordinators.insert(node, Name::new(name).unwrap());
        }
        assert_eq!(named(&state, &group, "a").unwrap(), 1);
        assert_eq!(named(&state, &group, "7").unwrap(), 7);
        // Out of the group, but its keys are not revoked yet: the removal can be said again.
        assert_eq!(named(&state, &group, "gone").unwrap(), 5);
        assert!(named(&state, &group, "b").unwrap_err().message().contains("say the number, 7 or 9"));
        assert_eq!(named(&state, &group, "6").unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(named(&state, &group, "c").unwrap_err().code(), tonic::Code::NotFound);
    }
}
