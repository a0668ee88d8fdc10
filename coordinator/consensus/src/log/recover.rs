//! Reads the segments back at start: cuts a torn tail, refuses anything else. Must not write
//! anywhere but behind the last whole frame.

use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_all};
use crate::error::StartError;
use crate::history::{self, Record};
use crate::log::Memory;
use crate::log::frame::{self, HEADER, Header};
use crate::log::writer::{Sealed, Tail, Writer};

/// Sizes of the log's files; only tests use others than the default.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub segment: u64,
    /// Kept free of proposals, for votes and what else a node without space must still write.
    pub reserve: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment: 8 << 20, reserve: 512 << 10 }
    }
}

/// Makes the log of a new node: one segment without entries, behind what `memory` says.
pub(crate) fn create(
    disk: &dyn Disk,
    log: [u8; 16],
    sizes: Sizes,
    memory: &Memory,
) -> Result<(), StartError> {
    Writer::new_segment(disk, sizes, Header { segment: 1, log, chain: 0 }, &memory.checkpoint())?;
    Ok(())
}

/// Removes segments of a first start that did not get as far as `node.json`. Refuses when there is
/// more: entries, a vote, a snapshot.
pub(crate) fn wipe_unfinished(disk: &dyn Disk) -> Result<(), StartError> {
    if let Some(name) = disk.list()?.iter().find(|name| name.ends_with(".snap")) {
        let what = "a snapshot without node.json".into();
        return Err(StartError::Corrupt { file: disk.describe(name), offset: 0, what });
    }
    for (number, name) in segments(disk)? {
        let bytes = read_all(&*disk.open(&name)?)?;
        let records = frame::decode(number, &bytes, HEADER as usize)
            .filter(|first| number == 1 && bytes.iter().skip(first.next).all(|byte| *byte == 0));
        if records.is_none() {
            let what = "a log without node.json".into();
            return Err(StartError::Corrupt { file: disk.describe(&name), offset: 0, what });
        }
        disk.remove(&name)?;
    }
    disk.sync_dir()?;
    Ok(())
}

/// Opens the log of an existing node; `None` when there is no segment at all.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    log: [u8; 16],
    sizes: Sizes,
) -> Result<Option<(Memory, Writer)>, StartError> {
    let Some((memory, sealed, tail)) = scan(disk, log, true)? else { return Ok(None) };
    let writer = Writer::new(Arc::clone(disk), log, sizes, sealed, tail, memory.checkpoint());
    Ok(Some((memory, writer)))
}

/// Reads the log of a node that does not run, and leaves it as it is; `None` when there is no segment at all.
pub(crate) fn read(disk: &Arc<dyn Disk>, log: [u8; 16]) -> Result<Option<Memory>, StartError> {
    Ok(scan(disk, log, false)?.map(|(memory, ..)| memory))
}

type Scanned = (Memory, Vec<Sealed>, Tail);

fn scan(disk: &Arc<dyn Disk>, log: [u8; 16], repair: bool) -> Result<Option<Scanned>, StartError> {
    let mut memory = Memory::default();
    let mut sealed: Vec<Sealed> = Vec::new();
    let mut tail: Option<Tail> = None;
    let names = segments(&**disk)?;
    let count = names.len();
    for (position, (number, name)) in names.into_iter().enumerate() {
        let file = disk.open(&name)?;
        let bytes = read_all(&*file)?;
        let corrupt = |offset: usize, what: String| StartError::Corrupt {
            file: disk.describe(&name),
            offset: offset as u64,
            what,
        };
        let header = Header::decode(&bytes).map_err(|what| corrupt(0, what))?;
        if header.segment != number || header.log != log {
            return Err(corrupt(0, "belongs to another log".into()));
        }
        if let Some(before) = tail.take() {
            if number != before.segment + 1 {
                return Err(corrupt(0, format!("segment {} is missing", before.segment + 1)));
            }
            if header.chain != before.chain {
                let file = disk.describe(&frame::name(before.segment));
                let what = "the last frames of this segment are missing".into();
                return Err(StartError::Corrupt { file, offset: before.offset, what });
            }
            sealed.push(before.seal());
        }
        let walk = walk(&bytes, &header, &mut memory).map_err(|(offset, what)| corrupt(offset, what))?;
        if let Some(torn) = walk.torn {
            if position + 1 < count {
                return Err(corrupt(walk.end, "a damaged frame before the last segment".into()));
            }
            if repair {
                cut(&*file, walk.end as u64, torn as u64)?;
                let file = disk.describe(&name);
                tracing::warn!(file, offset = walk.end, "cut an unfinished write off the log's end");
            }
        }
        tail = Some(Tail {
            segment: number,
            file,
            offset: walk.end as u64,
            chain: walk.chain,
            newest: walk.newest,
            length: bytes.len() as u64,
        });
    }
    let Some(tail) = tail else { return Ok(None) };
    memory.check().map_err(|what| StartError::Corrupt {
        file: disk.describe(&frame::name(sealed.first().map_or(tail.segment, |first| first.segment))),
        offset: 0,
        what,
    })?;
    Ok(Some((memory, sealed, tail)))
}

struct Walk {
    end: usize,
    chain: u32,
    newest: Option<u64>,
    /// End of the damaged bytes behind `end`, if there are any.
    torn: Option<usize>,
}

/// Replays the frames of one segment.
fn walk(bytes: &[u8], header: &Header, memory: &mut Memory) -> Result<Walk, (usize, String)> {
    let mut at = HEADER as usize;
    let mut chain = header.chain;
    let mut newest = None;
    while let Some(frame) = frame::decode(header.segment, bytes, at) {
        if frame.chain != chain {
            return Err((at, "a frame does not continue the one before".into()));
        }
        let mut rest = frame.body;
        while !rest.is_empty() {
            let (record, after) = history::take::<Record>(rest).map_err(|error| (at, error.to_string()))?;
            if let Record::Entry(entry) = &record {
                newest = newest.max(Some(entry.id.index));
            }
            memory.replay(record).map_err(|what| (at, what))?;
            rest = after;
        }
        chain = frame.sum;
        at = frame.next;
    }
    if at == HEADER as usize {
        return Err((at, "the first frame is damaged".into()));
    }
    let used = used(bytes);
    if let Some(valid) = frame::find_between(header.segment, bytes, at, used) {
        return Err((at, format!("a damaged frame, with a whole one after it at offset {valid}")));
    }
    Ok(Walk { end: at, chain, newest, torn: (used > at).then_some(used) })
}

/// Length without the zeros at the end; whole blocks are compared, since most of a segment is zeros.
fn used(bytes: &[u8]) -> usize {
    const BLOCK: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while let Some(start) = end.checked_sub(BLOCK.len())
        && bytes[start..end] == BLOCK
    {
        end = start;
    }
    bytes[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Zeroes what is left of an unfinished write, so that it can never be taken for a later one.
fn cut(file: &dyn DiskFile, from: u64, to: u64) -> Result<(), StartError> {
    let length = usize::try_from(to - from).map_err(std::io::Error::other)?;
    file.write_at(&vec![0; length], from)?;
    file.sync()?;
    Ok(())
}

/// All segments, oldest first.
fn segments(disk: &dyn Disk) -> Result<Vec<(u64, String)>, StartError> {
    let mut found: Vec<(u64, String)> =
        disk.list()?.into_iter().filter_map(|name| Some((frame::number(&name)?, name))).collect();
    found.sort();
    Ok(found)
}
