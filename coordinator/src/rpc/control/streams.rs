//! Streams to operators: the history, the audit log, the output of members.

use std::convert::Infallible;
use std::time::Duration;

use muster_core::state::{Phase, State};
use muster_core::view::events;
use muster_model::ids::Slot;
use muster_model::view::AuditView;
use muster_proto::agents::LogRequest;
use muster_proto::control as pb;
use muster_runtime::tasks::OnError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{Controls, Lines, Views};
use crate::sessions::json;
use crate::{group, status};

/// Views that wait for a slow reader.
const QUEUE: usize = 64;
/// Lines of the past that may be asked for.
const TAIL_MAX: u32 = 10_000;
/// Longest wait for the first chunk of a member's output.
const FIRST: Duration = Duration::from_secs(10);

fn newest<T>(mut all: Vec<T>, tail: u32) -> Vec<T> {
    let keep = if tail == 0 { all.len() } else { tail as usize };
    all.split_off(all.len().saturating_sub(keep))
}

/// The audit log as far as it is kept.
pub fn audit(state: &State, request: &pb::EventsRequest) -> Views {
    let line = |entry: &std::sync::Arc<muster_core::state::AuditEntry>| AuditView {
        index: entry.index,
        at: entry.at,
        actor: entry.actor.clone(),
        action: entry.action.clone(),
    };
    let all: Vec<AuditView> =
        state.audit.entries.iter().filter(|entry| entry.index.0 >= request.from).map(line).collect();
    let views: Vec<_> =
        newest(all, request.tail).into_iter().map(|event| Ok(pb::View { json: json(&event) })).collect();
    Box::pin(tokio_stream::iter(views))
}

impl Controls {
    pub(super) fn follow_events(&self, request: pb::EventsRequest) -> Views {
        let (to, from) = mpsc::channel(QUEUE);
        let (replica, mut applied) = (self.parts.replica.clone(), self.parts.consensus.watch_applied());
        let stop = self.parts.tasks.token();
        self.parts.tasks.spawn("events", OnError::Log, async move {
            let follow = async {
                let mut next = request.from;
                let mut tail = request.tail;
                loop {
                    applied.mark_unchanged();
                    let state = replica.state();
                    let found = newest(events(&state, next).cloned().collect(), tail);
                    next = state.index.0 + 1;
                    tail = 0;
                    drop(state);
                    for event in found {
                        if to.send(Ok(pb::View { json: json(&event) })).await.is_err() {
                            return;
                        }
                    }
                    if !request.follow || applied.changed().await.is_err() {
                        return;
                    }
                    if to.is_closed() {
                        return;
                    }
                }
            };
            stop.run_until_cancelled(follow).await;
            Ok::<(), Infallible>(())
        });
        Box::pin(ReceiverStream::new(from))
    }

    pub(super) async fn member_logs(&self, request: pb::LogsRequest) -> Result<Response<Lines>, Status> {
        if !self.parts.consensus.watch_leadership().borrow().am_leader {
            return Err(status::not_leader(group::leader_endpoint(&self.parts.consensus).as_deref()));
        }
        let state = self.read().await?;
        let slot: Slot = request.slot.parse().map_err(|_| {
            Status::invalid_argument(format!("slot: write SERVICE/NUMBER, not `{}`", request.slot))
        })?;
        let active = |phase: &Phase| *phase == Phase::Active;
        let found = state.members.iter().find(|(_, m)| m.slot == slot && active(&m.phase));
        let (id, member) = found.ok_or_else(|| Status::not_found(format!("there is no member in {slot}")))?;
        let ask = LogRequest {
            request: 0,
            member: id.0,
            tail: request.tail.min(TAIL_MAX),
            follow: request.follow,
            cancel: false,
        };
        let host = state.host_name(&member.host);
        let (number, from) = self.parts.sessions.logs(&member.host, ask).ok_or_else(|| {
            Status::unavailable(format!("the agent of {host} is not connected; on the host: docker logs"))
        })?;
        Ok(Response::new(self.pass_on(number, from)))
    }

    fn pass_on(&self, number: u64, mut from: mpsc::Receiver<muster_proto::agents::LogChunk>) -> Lines {
        let (to, out) = mpsc::channel(QUEUE);
        let sessions = self.parts.sessions.clone();
        self.parts.tasks.spawn("logs", OnError::Log, async move {
            let mut wait = Some(FIRST);
            loop {
                let next = match wait.take() {
                    Some(limit) => tokio::time::timeout(limit, from.recv()).await,
                    None => Ok(from.recv().await),
                };
                let message = match next {
                    Err(_) => Err(Status::deadline_exceeded("the agent sent nothing")),
                    Ok(None) => break,
                    Ok(Some(chunk)) if !chunk.error.is_empty() => {
                        Err(Status::failed_precondition(chunk.error))
                    }
                    Ok(Some(chunk)) if chunk.data.is_empty() => {
                        if chunk.end {
                            break;
                        }
                        continue;
                    }
                    Ok(Some(chunk)) => Ok(pb::LogData { data: chunk.data }),
                };
                let last = message.is_err();
                if to.send(message).await.is_err() || last {
                    break;
                }
            }
            sessions.end_logs(number);
            Ok::<(), Infallible>(())
        });
        Box::pin(ReceiverStream::new(out))
    }
}
