//! Streams to operators: the history, the audit log, the output of members.

use std::convert::Infallible;
use std::time::Duration;

use muster_core::command::What;
use muster_core::state::{Phase, State};
use muster_core::view::events;
use muster_model::ids::Slot;
use muster_model::view::AuditView;
use muster_proto::agents::{LogChunk, LogRequest};
use muster_proto::control as pb;
use muster_runtime::tasks::OnError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{Controls, Lines, Snapshot, Views};
use crate::sessions::json;
use crate::{group, status};

/// Bytes of one message of a snapshot.
const CHUNK: usize = 256 * 1024;
/// Views that wait for a slow reader.
const QUEUE: usize = 64;
/// Lines of the past that may be asked for.
const TAIL_MAX: u32 = 10_000;
/// Words of a program's command line, and their bytes in all.
const ARGV_MAX: usize = 64;
const ARGV_LEN_MAX: usize = 4_096;
/// Part of a command line that the audit log keeps, in characters.
const AUDITED_LEN_MAX: usize = 200;
/// Time for a program, unless told otherwise, and at most.
const EXEC_MS: u32 = 5_000;
const EXEC_MS_MAX: u32 = 8_000;
/// Time for its answer after that.
const EXEC_ANSWER: Duration = Duration::from_millis(1_500);
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
    /// The whole state as a file, in chunks; its reader may be slow, but not for ever.
    pub(super) async fn snapshot(&self, actor: String) -> Result<Response<Snapshot>, Status> {
        self.propose(actor, None, What::Audit { action: "save a snapshot of the state".to_owned() }).await?;
        let state = self.read().await?;
        let term = self.parts.consensus.status().term;
        let made = tokio::task::spawn_blocking(move || crate::saved::file(&state, term)).await;
        let file = made.map_err(|error| Status::internal(error.to_string()))?;
        let file = file.ok_or_else(|| Status::unavailable("the platform is not ready"))?;
        if file.len() as u64 > muster_runtime::snapshot_file::STATE_MAX {
            return Err(Status::resource_exhausted("the state is larger than a snapshot may be"));
        }
        let (to, from) = mpsc::channel(4);
        let stop = self.parts.tasks.token();
        self.parts.tasks.spawn("snapshot", OnError::Log, async move {
            let send = async {
                let mut left = bytes::Bytes::from(file);
                while !left.is_empty() {
                    let data = left.split_to(CHUNK.min(left.len()));
                    let sent = tokio::time::timeout(FIRST, to.send(Ok(pb::SnapshotData { data }))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
            };
            stop.run_until_cancelled(send).await;
            Ok::<(), Infallible>(())
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }

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
        let tail = request.tail.min(TAIL_MAX);
        let ask = LogRequest { tail, follow: request.follow, ..LogRequest::default() };
        let (number, from) = self.ask_member(&request.slot, ask, "docker logs").await?;
        Ok(Response::new(self.pass_on(number, from)))
    }

    /// Sends a request to the agent of a slot's member; `otherwise` is what to do on the host itself.
    async fn ask_member(
        &self,
        slot: &str,
        ask: LogRequest,
        otherwise: &str,
    ) -> Result<(u64, mpsc::Receiver<LogChunk>), Status> {
        let state = self.read().await?;
        let slot: Slot = slot
            .parse()
            .map_err(|_| Status::invalid_argument(format!("slot: write SERVICE/NUMBER, not `{slot}`")))?;
        let active = |phase: &Phase| *phase == Phase::Active;
        let found = state.members.iter().find(|(_, m)| m.slot == slot && active(&m.phase));
        let (id, member) = found.ok_or_else(|| Status::not_found(format!("there is no member in {slot}")))?;
        let host = state.host_name(&member.host);
        let asked = self.parts.sessions.logs(&member.host, LogRequest { member: id.0, ..ask });
        asked.ok_or_else(|| {
            Status::unavailable(format!("the agent of {host} is not connected; on the host: {otherwise}"))
        })
    }

    /// Runs a program inside a member; in the audit log before it begins.
    pub(super) async fn run_inside(
        &self,
        actor: String,
        request: pb::ExecRequest,
    ) -> Result<Response<pb::ExecReply>, Status> {
        if !self.parts.consensus.watch_leadership().borrow().am_leader {
            return Err(status::not_leader(group::leader_endpoint(&self.parts.consensus).as_deref()));
        }
        let length: usize = request.argv.iter().map(String::len).sum();
        if request.argv.is_empty() || request.argv.len() > ARGV_MAX || length > ARGV_LEN_MAX {
            return Err(Status::invalid_argument(format!(
                "argv: 1 to {ARGV_MAX} words of {ARGV_LEN_MAX} bytes in all"
            )));
        }
        let timeout_ms = if request.timeout_ms == 0 { EXEC_MS } else { request.timeout_ms.min(EXEC_MS_MAX) };
        let words: String = request.argv.join(" ").chars().take(AUDITED_LEN_MAX).collect();
        let action = format!("exec in {}: {words}", request.slot);
        self.propose(actor, None, What::Audit { action }).await?;
        let ask = LogRequest { argv: request.argv, timeout_ms, ..LogRequest::default() };
        let (number, mut from) = self.ask_member(&request.slot, ask, "docker exec").await?;
        let limit = Duration::from_millis(u64::from(timeout_ms)) + EXEC_ANSWER;
        let answer = tokio::time::timeout(limit, from.recv()).await;
        self.parts.sessions.end_logs(number);
        match answer {
            Err(_) => Err(Status::deadline_exceeded("the agent sent nothing")),
            Ok(None) => Err(Status::aborted("the agent went away; whether the program ended is not known")),
            Ok(Some(chunk)) if !chunk.error.is_empty() => Err(Status::failed_precondition(chunk.error)),
            Ok(Some(chunk)) => Ok(Response::new(pb::ExecReply { code: chunk.code, output: chunk.data })),
        }
    }

    fn pass_on(&self, number: u64, mut from: mpsc::Receiver<LogChunk>) -> Lines {
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
