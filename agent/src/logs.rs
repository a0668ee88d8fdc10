//! Answers requests for a member's output, or for a program's inside it: bounded pieces, at the reader's pace, never
//! before beats.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt;
use muster_model::ids::MemberId;
use muster_proto::agents::{LogChunk, LogRequest};
use muster_runtime::tasks::{OnError, TaskGroup};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ask::deadline;
use crate::shared::Shared;

/// Readers at the same time.
const READERS_MAX: usize = 8;
/// Lines of the past.
const TAIL_MAX: u32 = 10_000;
/// Bytes in one message.
const CHUNK_MAX: usize = 16 * 1024;
/// Bytes of the past in all.
const PAST_MAX: usize = 8 << 20;

/// The readers of one session.
pub struct Readers {
    shared: Arc<Shared>,
    group: TaskGroup,
    out: mpsc::Sender<LogChunk>,
    open: BTreeMap<u64, CancellationToken>,
}

impl Readers {
    /// None yet; chunks go to `out`.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, group: TaskGroup, out: mpsc::Sender<LogChunk>) -> Self {
        Self { shared, group, out, open: BTreeMap::new() }
    }

    /// Begins, or ends, reading.
    pub fn handle(&mut self, request: &LogRequest) {
        if request.cancel {
            if let Some(token) = self.open.remove(&request.request) {
                token.cancel();
            }
            return;
        }
        self.open.retain(|_, token| !token.is_cancelled());
        let token = CancellationToken::new();
        let refusal = (self.open.len() >= READERS_MAX).then(|| "too many readers on this host".to_owned());
        self.open.insert(request.request, token.clone());
        let (shared, out, request) = (Arc::clone(&self.shared), self.out.clone(), request.clone());
        self.group.spawn("logs", OnError::Log, async move {
            let reading = async {
                let done = match refusal {
                    Some(refusal) => Err(refusal),
                    None if request.argv.is_empty() => read(&shared, &out, &request).await,
                    None => execute(&shared, &request).await,
                };
                let last = done.unwrap_or_else(|error| LogChunk { error, ..LogChunk::default() });
                out.send(LogChunk { request: request.request, end: true, ..last }).await.ok();
            };
            token.run_until_cancelled(reading).await;
            token.cancel();
            Ok::<_, Infallible>(())
        });
    }
}

fn container(shared: &Shared, request: &LogRequest) -> Result<String, String> {
    let container = shared.target(MemberId(request.member)).container;
    container.ok_or_else(|| "the member has no container on this host".to_owned())
}

/// Runs a program inside the member; what it wrote fits into the last chunk.
async fn execute(shared: &Shared, request: &LogRequest) -> Result<LogChunk, String> {
    let container = container(shared, request)?;
    let limit = deadline(u64::from(request.timeout_ms));
    let ended = shared.runtime.exec(&container, &request.argv, limit).await.map_err(|e| e.to_string())?;
    Ok(LogChunk { data: ended.output.into(), code: ended.code, ..LogChunk::default() })
}

async fn read(
    shared: &Shared,
    out: &mpsc::Sender<LogChunk>,
    request: &LogRequest,
) -> Result<LogChunk, String> {
    let container = container(shared, request)?;
    let tail = request.tail.min(TAIL_MAX);
    let mut lines = shared.runtime.logs(&container, tail, request.follow);
    let mut sent = 0;
    while let Some(part) = lines.next().await {
        let mut part = part.map_err(|error| error.to_string())?;
        while !part.is_empty() {
            let data = part.split_to(part.len().min(CHUNK_MAX));
            sent += data.len();
            let chunk = LogChunk { request: request.request, data, ..LogChunk::default() };
            out.send(chunk).await.map_err(|_| "the session ended")?;
        }
        if !request.follow && sent > PAST_MAX {
            return Err(format!("cut after {PAST_MAX} bytes"));
        }
    }
    Ok(LogChunk::default())
}
