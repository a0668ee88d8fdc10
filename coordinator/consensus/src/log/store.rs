//! The log as openraft sees it: readable at once, durable when the writer says so. Must not block.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::{oneshot, watch};

use crate::convert;
use crate::history::{self, Record};
use crate::log::Memory;
use crate::log::recover::Sizes;
use crate::log::writer::{Command, Done, Gauge, Writer};
use crate::types::{Entry, LogId, Types, Vote};

/// One command to the writer has about this many bytes, so that a group commit has a bound.
const PART: usize = 1 << 20;
/// Payload bytes of one append to a follower, unless a single entry is larger.
const APPEND_BYTES: u64 = 1 << 20;

#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

/// Reads what is in memory; replication and apply have one each.
#[derive(Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

struct Shared {
    memory: Mutex<Memory>,
    /// `None` after [`LogStore::close`].
    commands: Mutex<Option<Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    gauge: Arc<Gauge>,
    reserve: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    /// Starts the writer's thread.
    pub fn start(
        memory: Memory,
        writer: Writer,
        sizes: Sizes,
        failure: watch::Sender<Option<String>>,
    ) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let gauge = writer.gauge();
        let thread = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || writer.run(&receiver, &failure))?;
        let shared = Shared {
            memory: Mutex::new(memory),
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
            gauge,
            reserve: sizes.reserve,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether entries of this many bytes fit without touching the reserve.
    pub fn admits(&self, bytes: u64) -> bool {
        let queued = self.shared.gauge.queued.load(Ordering::Relaxed);
        let wanted = bytes.saturating_add(queued).saturating_add(self.shared.reserve);
        self.shared.gauge.room.load(Ordering::Relaxed) >= wanted
    }

    /// Whether the disk has no space for the log's next segment.
    pub fn short_of_space(&self) -> bool {
        self.shared.gauge.short.load(Ordering::Relaxed)
    }

    /// See [`Memory::bytes_after`].
    pub fn bytes_after(&self, index: u64) -> u64 {
        lock(&self.shared.memory).bytes_after(index)
    }

    /// See [`Memory::excess`].
    pub fn excess(&self, limit: u64) -> Option<u64> {
        lock(&self.shared.memory).excess(limit)
    }

    /// From now on a lack of space is an error; nobody will wait for it any more.
    pub fn stop_waiting(&self) {
        self.shared.gauge.stopping.store(true, Ordering::Relaxed);
    }

    /// Writes what is queued and ends the writer.
    pub async fn close(&self) {
        self.stop_waiting();
        lock(&self.shared.commands).take();
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread
            && let Err(error) = tokio::task::spawn_blocking(move || thread.join()).await
        {
            tracing::warn!(%error, "the log's writer did not end");
        }
    }

    fn send(&self, command: Command) -> io::Result<()> {
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "the log's writer has ended");
        lock(&self.shared.commands).as_ref().ok_or_else(closed)?.send(command).map_err(|_| closed())
    }

    async fn durable(&self, command: impl FnOnce(Done) -> Command) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.send(command(Done::Waiter(sender)))?;
        receiver.await.map_err(io::Error::other)?
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(lock(&self.shared.memory).read(start, end, u64::MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(lock(&self.shared.memory).vote.map(convert::to_vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(lock(&self.shared.memory).read(start, end, APPEND_BYTES))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let memory = lock(&self.shared.memory);
        Ok(LogState {
            last_purged_log_id: memory.purged.map(convert::to_log_id),
            last_log_id: memory.last().map(convert::to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = convert::vote(vote);
        self.durable(|done| Command::Vote(vote, done)).await?;
        lock(&self.shared.memory).vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed.as_ref().map(convert::log_id) else { return Ok(()) };
        lock(&self.shared.memory).committed = Some(committed);
        self.send(Command::Committed(committed))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.shared.memory).committed.map(convert::to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = Vec::new();
        let mut newest = 0;
        let mut added = Vec::new();
        for entry in entries {
            newest = entry.index();
            bytes = history::put(&Record::Entry(convert::entry(&entry)), bytes).map_err(io::Error::other)?;
            added.push(entry);
            if bytes.len() >= PART {
                self.queue(&mut added, std::mem::take(&mut bytes), newest, Done::Nobody)?;
            }
        }
        self.queue(&mut added, bytes, newest, Done::Raft(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let after = last.map(|id| id.index);
        lock(&self.shared.memory).truncate(after);
        self.durable(|done| Command::Truncate { after, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let upto = convert::log_id(&upto);
        lock(&self.shared.memory).purge(upto);
        self.send(Command::Purge(upto))
    }
}

impl LogStore {
    fn queue(&self, added: &mut Vec<Entry>, bytes: Vec<u8>, newest: u64, done: Done) -> io::Result<()> {
        {
            let mut memory = lock(&self.shared.memory);
            added.drain(..).for_each(|entry| memory.push(entry));
        }
        self.shared.gauge.queued.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.send(Command::Entries { bytes, newest, done })
    }
}
