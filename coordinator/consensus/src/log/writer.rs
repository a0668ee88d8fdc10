//! The thread that owns the segments: group commit, rotation, deletion. Every frame is durable
//! before anybody hears of it. An fsync that fails ends the writer for good; a lack of space is
//! waited out. Must not know what entries mean.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{oneshot, watch};

use crate::disk::{Disk, DiskFile, is_full};
use crate::history::{self, Record, WireLogId, WireVote};
use crate::log::frame::{self, HEADER, Header};
use crate::log::recover::Sizes;
use crate::types::Types;

const SPARE: &str = "spare.seg";
/// A group commit is written when it has this many bytes, or when nothing waits.
const GROUP: usize = 1 << 20;
/// Between two looks at a full disk, and the longest delay of the committed index.
const IDLE: Duration = Duration::from_millis(250);

/// What the store asks for, in order.
pub(crate) enum Command {
    Entries {
        bytes: Vec<u8>,
        newest: u64,
        done: Done,
    },
    Vote(WireVote, Done),
    /// Not urgent: rides along with the next frame.
    Committed(WireLogId),
    Truncate {
        after: Option<u64>,
        done: Done,
    },
    Purge(WireLogId),
}

/// Who hears that a command is durable.
pub(crate) enum Done {
    Nobody,
    Raft(IOFlushed<Types>),
    Waiter(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Nobody => {}
            Self::Raft(flushed) => flushed.io_completed(result),
            // The waiter may be gone, which is its own decision.
            Self::Waiter(waiter) => drop(waiter.send(result)),
        }
    }
}

/// What the store reads about the writer at any time.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Bytes that can be written without asking the file system for space.
    pub room: AtomicU64,
    /// Bytes of entries that wait to be written.
    pub queued: AtomicU64,
    /// The next segment could not be allocated.
    pub short: AtomicBool,
    pub stopping: AtomicBool,
}

/// A segment that is only read at the next start.
pub(super) struct Sealed {
    pub segment: u64,
    /// Greatest index of its entries.
    pub newest: Option<u64>,
}

/// The segment that is being written.
pub(super) struct Tail {
    pub segment: u64,
    pub file: Arc<dyn DiskFile>,
    pub offset: u64,
    pub chain: u32,
    pub newest: Option<u64>,
    pub length: u64,
}

impl Tail {
    pub fn seal(&self) -> Sealed {
        Sealed { segment: self.segment, newest: self.newest }
    }
}

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    log: [u8; 16],
    sizes: Sizes,
    sealed: VecDeque<Sealed>,
    tail: Tail,
    spare: Option<Arc<dyn DiskFile>>,
    gauge: Arc<Gauge>,
    vote: Option<WireVote>,
    committed: Option<WireLogId>,
    purged: Option<WireLogId>,
    committed_unwritten: bool,
}

/// One group commit in the making.
#[derive(Default)]
struct Group {
    body: Vec<u8>,
    done: Vec<Done>,
    newest: Option<u64>,
    queued: u64,
    purge: bool,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        log: [u8; 16],
        sizes: Sizes,
        sealed: Vec<Sealed>,
        tail: Tail,
        checkpoint: Record,
    ) -> Self {
        let (vote, committed, purged) = match checkpoint {
            Record::Checkpoint { vote, committed, purged } => (vote, committed, purged),
            _ => (None, None, None),
        };
        let mut writer = Self {
            disk,
            log,
            sizes,
            sealed: sealed.into(),
            tail,
            spare: None,
            gauge: Arc::new(Gauge::default()),
            vote,
            committed,
            purged,
            committed_unwritten: false,
        };
        writer.prepare_spare();
        writer
    }

    pub fn gauge(&self) -> Arc<Gauge> {
        Arc::clone(&self.gauge)
    }

    /// Runs until the last sender is gone. `failure` gets the reason when the disk fails.
    pub fn run(mut self, commands: &Receiver<Command>, failure: &watch::Sender<Option<String>>) {
        if let Err(error) = self.serve(commands) {
            let reason = error.to_string();
            tracing::error!(reason, "the log cannot be written any more");
            failure.send_if_modified(|known| {
                let first = known.is_none();
                known.get_or_insert(reason);
                first
            });
        }
    }

    fn serve(&mut self, commands: &Receiver<Command>) -> io::Result<()> {
        loop {
            let mut group = Group::default();
            match commands.recv_timeout(IDLE) {
                Ok(command) => self.collect(command, &mut group)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.prepare_spare();
                    if !self.committed_unwritten {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Disconnected) if self.committed_unwritten => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while group.body.len() < GROUP
                && let Ok(command) = commands.try_recv()
            {
                self.collect(command, &mut group)?;
            }
            self.commit(group)?;
        }
    }

    fn collect(&mut self, command: Command, group: &mut Group) -> io::Result<()> {
        let (record, done) = match command {
            Command::Entries { bytes, newest, done } => {
                group.queued += bytes.len() as u64;
                group.body.extend_from_slice(&bytes);
                group.newest = group.newest.max(Some(newest));
                group.done.push(done);
                return Ok(());
            }
            Command::Committed(id) => {
                self.committed = Some(id);
                self.committed_unwritten = true;
                return Ok(());
            }
            Command::Vote(vote, done) => {
                self.vote = Some(vote);
                (Record::Vote(vote), done)
            }
            Command::Truncate { after, done } => (Record::Truncate { after }, done),
            Command::Purge(id) => {
                self.purged = Some(id);
                group.purge = true;
                (Record::Purge(id), Done::Nobody)
            }
        };
        group.done.push(done);
        group.body = history::put(&record, std::mem::take(&mut group.body)).map_err(io::Error::other)?;
        Ok(())
    }

    fn commit(&mut self, mut group: Group) -> io::Result<()> {
        if self.committed_unwritten
            && let Some(id) = self.committed
        {
            group.body = history::put(&Record::Committed(id), group.body).map_err(io::Error::other)?;
            self.committed_unwritten = false;
        }
        let result = if group.body.is_empty() { Ok(()) } else { self.write(&group) };
        let result = result.map_err(|error| self.located(&error));
        self.gauge.queued.fetch_sub(group.queued, Ordering::Relaxed);
        self.publish_room();
        for done in group.done {
            done.tell(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        result?;
        if group.purge {
            self.delete_purged().map_err(|error| self.located(&error))?;
        }
        self.prepare_spare();
        Ok(())
    }

    /// The error with the place an operator has to look at.
    fn located(&self, error: &io::Error) -> io::Error {
        let file = self.disk.describe(&frame::name(self.tail.segment));
        io::Error::new(error.kind(), format!("log {file} at offset {}: {error}", self.tail.offset))
    }

    fn write(&mut self, group: &Group) -> io::Result<()> {
        if self.tail.offset + frame::frame_size(group.body.len()) > self.tail.length {
            self.rotate()?;
        }
        if self.tail.offset + frame::frame_size(group.body.len()) > self.tail.length {
            return Err(io::Error::other("a group commit is larger than a segment"));
        }
        let (bytes, sum) = frame::encode(self.tail.segment, self.tail.chain, &group.body);
        let (file, offset) = (Arc::clone(&self.tail.file), self.tail.offset);
        // The space is allocated, but a copy-on-write file system may still run out of it.
        self.wait_for_space(|_| file.write_at(&bytes, offset))?;
        file.sync()?;
        self.tail.offset += bytes.len() as u64;
        self.tail.chain = sum;
        self.tail.newest = self.tail.newest.max(group.newest);
        Ok(())
    }

    /// Seals the current segment and starts the next, which begins with a checkpoint.
    fn rotate(&mut self) -> io::Result<()> {
        self.wait_for_space(|writer| match writer.spare {
            Some(_) => Ok(()),
            None => writer.allocate_spare(),
        })?;
        let header = Header { segment: self.tail.segment + 1, log: self.log, chain: self.tail.chain };
        let checkpoint =
            Record::Checkpoint { vote: self.vote, committed: self.committed, purged: self.purged };
        let (head, chain) = first_bytes(&header, &checkpoint)?;
        let file = self.spare.take().ok_or_else(|| io::Error::other("no spare segment"))?;
        self.wait_for_space(|_| file.write_at(&head, 0))?;
        file.sync()?;
        self.disk.rename(SPARE, &frame::name(header.segment))?;
        self.disk.sync_dir()?;
        let length = file.size()?;
        let offset = head.len() as u64;
        let next = Tail { segment: header.segment, file, offset, chain, newest: None, length };
        let before = std::mem::replace(&mut self.tail, next);
        self.sealed.push_back(before.seal());
        Ok(())
    }

    /// Deletes the oldest segments that hold nothing but purged entries.
    fn delete_purged(&mut self) -> io::Result<()> {
        let Some(purged) = self.purged else { return Ok(()) };
        while let Some(oldest) =
            self.sealed.pop_front_if(|oldest| oldest.newest.is_none_or(|newest| newest <= purged.index))
        {
            self.disk.remove(&frame::name(oldest.segment))?;
            // One by one: a later deletion that survives a crash alone would look like a lost segment.
            self.disk.sync_dir()?;
        }
        Ok(())
    }

    /// Keeps one allocated segment ahead; without space it is tried again later.
    fn prepare_spare(&mut self) {
        if self.spare.is_none()
            && let Err(error) = self.allocate_spare()
        {
            tracing::warn!(%error, "no space for the log's next segment");
        }
        self.publish_room();
    }

    fn allocate_spare(&mut self) -> io::Result<()> {
        let file = self.disk.create(SPARE)?;
        if let Err(error) = file.allocate(self.sizes.segment) {
            drop(file);
            // What was allocated of it must not take space from others.
            self.disk.remove(SPARE)?;
            return Err(error);
        }
        self.spare = Some(file);
        Ok(())
    }

    fn publish_room(&self) {
        self.gauge.short.store(self.spare.is_none(), Ordering::Relaxed);
        let room = match &self.spare {
            Some(_) => self.sizes.segment.saturating_sub(HEADER + frame::frame_size(256)),
            None => self.tail.length.saturating_sub(self.tail.offset),
        };
        self.gauge.room.store(room, Ordering::Relaxed);
    }

    /// Repeats until it is not for a lack of space; gives up only when the node stops.
    fn wait_for_space(&mut self, mut step: impl FnMut(&mut Self) -> io::Result<()>) -> io::Result<()> {
        loop {
            match step(self) {
                Err(error) if is_full(&error) && !self.gauge.stopping.load(Ordering::Relaxed) => {
                    self.gauge.room.store(0, Ordering::Relaxed);
                    std::thread::sleep(IDLE);
                }
                other => return other,
            }
        }
    }

    /// Makes a segment from nothing, durably.
    pub(super) fn new_segment(
        disk: &dyn Disk,
        sizes: Sizes,
        header: Header,
        checkpoint: &Record,
    ) -> io::Result<()> {
        let (head, _) = first_bytes(&header, checkpoint)?;
        let file = disk.create(SPARE)?;
        file.allocate(sizes.segment)?;
        file.write_at(&head, 0)?;
        file.sync()?;
        disk.rename(SPARE, &frame::name(header.segment))?;
        disk.sync_dir()
    }
}

/// Header and first frame of a segment, and that frame's checksum.
fn first_bytes(header: &Header, checkpoint: &Record) -> io::Result<(Vec<u8>, u32)> {
    let body = history::put(checkpoint, Vec::new()).map_err(io::Error::other)?;
    let (first, chain) = frame::encode(header.segment, header.chain, &body);
    let mut head = header.encode();
    head.extend_from_slice(&first);
    Ok((head, chain))
}
