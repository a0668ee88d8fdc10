//! Feeds committed entries to the owner's state machine and keeps what openraft needs beside it:
//! the last applied entry, the membership, snapshots. Must not interpret payloads.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::watch;

use crate::convert;
use crate::disk::is_full;
use crate::history::SnapshotHead;
use crate::snapshot::{SnapshotFile, Snapshots};
use crate::state_machine::{Encode, StateMachine};
use crate::types::{EntryBody, LogId, Payload, SnapshotMeta, StoredMembership, Types};

/// Between two tries to write a snapshot on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(500);

pub(crate) struct Machine {
    platform: String,
    /// Never locked, only borrowed: the mutex makes it shareable as openraft asks for.
    state: Mutex<Box<dyn StateMachine>>,
    last: Option<LogId>,
    membership: StoredMembership,
    at_ms: u64,
    snapshots: Arc<Snapshots>,
    /// Index of the last applied entry.
    applied: watch::Sender<u64>,
}

/// A copy of the state at one index, to be encoded and written later.
pub(crate) struct Builder {
    snapshots: Arc<Snapshots>,
    head: Option<SnapshotHead>,
    encode: Mutex<Option<Encode>>,
}

impl Machine {
    pub fn new(
        platform: String,
        state: Box<dyn StateMachine>,
        snapshots: Arc<Snapshots>,
        applied: watch::Sender<u64>,
    ) -> Self {
        let membership = StoredMembership::default();
        Self { platform, state: Mutex::new(state), last: None, membership, at_ms: 0, snapshots, applied }
    }

    fn state(&mut self) -> &mut dyn StateMachine {
        &mut **self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn builder(&mut self) -> Builder {
        let head = self.last.as_ref().map(|last| SnapshotHead {
            platform: self.platform.clone(),
            last: convert::log_id(last),
            membership_at: self.membership.log_id().as_ref().map(convert::log_id),
            membership: convert::membership(self.membership.membership()),
            at_ms: self.at_ms,
        });
        let encode = Mutex::new(Some(self.state().snapshot()));
        Builder { snapshots: Arc::clone(&self.snapshots), head, encode }
    }
}

/// What openraft needs to know about a snapshot file.
pub(crate) fn meta(head: &SnapshotHead) -> io::Result<SnapshotMeta> {
    let membership = convert::to_membership(head.membership.clone()).map_err(io::Error::other)?;
    Ok(SnapshotMeta {
        last_log_id: Some(convert::to_log_id(head.last)),
        last_membership: StoredMembership::new(head.membership_at.map(convert::to_log_id), membership),
    })
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::alias::SnapshotOf<Types, SnapshotFile>, io::Error> {
        let encode = self.encode.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(head), Some(encode)) = (self.head.take(), encode) else {
            return Err(io::Error::other("nothing was applied yet"));
        };
        let body = Arc::new(tokio::task::spawn_blocking(encode).await?);
        loop {
            let (snapshots, head, body) = (Arc::clone(&self.snapshots), head.clone(), Arc::clone(&body));
            match tokio::task::spawn_blocking(move || snapshots.write(&head, &body)).await? {
                // Until there is space the log just grows on in what it has allocated.
                Err(error) if is_full(&error) => tokio::time::sleep(FULL_RETRY).await,
                Err(error) => return Err(error),
                Ok(file) => return Ok(Snapshot { meta: meta(&file.head)?, snapshot: file }),
            }
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let mut reply = Vec::new();
            match entry.payload {
                EntryBody::Blank => {}
                EntryBody::Normal(proposal) => {
                    // Leaders' clocks differ; the same rule on every node keeps time from going back.
                    self.at_ms = self.at_ms.max(proposal.at_ms);
                    let at_ms = self.at_ms;
                    reply = self.state().apply(entry.log_id.index, at_ms, &proposal.payload.0);
                }
                EntryBody::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            self.last = Some(entry.log_id);
            self.applied.send_replace(entry.log_id.index);
            if let Some(responder) = responder {
                responder.send(Payload(reply.into()));
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        (force || self.last.is_some()).then(|| self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let body = snapshot.body()?;
        self.state().restore(&body).map_err(io::Error::other)?;
        self.at_ms = snapshot.head.at_ms;
        // Named only now: a snapshot that cannot be restored must not be found at the next start.
        self.snapshots.finish(snapshot)?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.applied.send_replace(self.last.map_or(0, |last| last.index));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<Types, SnapshotFile>>, io::Error> {
        let Some(file) = self.snapshots.newest().map_err(io::Error::other)? else { return Ok(None) };
        Ok(Some(Snapshot { meta: meta(&file.head)?, snapshot: file }))
    }
}
