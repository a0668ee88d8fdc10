//! Snapshot files: written aside, fsynced, renamed, the newest two kept. Must not know the state.
//!
//! Layout: magic `MUSTSNP\n`, format u32, length of the head u32, length of the body u64, head
//! ([`SnapshotHead`]), body, CRC-32 of all before. Little endian. The same bytes travel to a peer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, DiskFile, read_all};
use crate::error::StartError;
use crate::history::{self, SNAPSHOT, SnapshotHead};

const MAGIC: &[u8; 8] = b"MUSTSNP\n";
const PREFIX: usize = 24;
const KEEP: usize = 2;
const UNFINISHED: &str = ".tmp";
/// Largest snapshot that is taken from a peer.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// A whole snapshot on disk. The open file stays readable when its name is gone.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    pub head: SnapshotHead,
    pub file: Arc<dyn DiskFile>,
    /// Set until it has its final name.
    unfinished: Option<Arc<Unfinished>>,
}

/// A snapshot that arrives or is being written; its file goes away with it unless it was finished.
pub(crate) struct Unfinished {
    disk: Arc<dyn Disk>,
    name: String,
    pub file: Arc<dyn DiskFile>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        match self.disk.remove(&self.name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, name = self.name, "an unfinished snapshot could not be removed");
            }
            _ => {}
        }
    }
}

impl SnapshotFile {
    pub fn body(&self) -> io::Result<Vec<u8>> {
        let mut bytes = read_all(&*self.file)?;
        let (_, range) = parse(&bytes).map_err(io::Error::other)?;
        bytes.truncate(range.end);
        bytes.drain(..range.start);
        Ok(bytes)
    }
}

pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    unfinished: AtomicU64,
}

impl Snapshots {
    /// Removes what was left unfinished.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        for name in disk.list()? {
            if name.starts_with("snap-") && name.ends_with(UNFINISHED) {
                disk.remove(&name)?;
            }
        }
        Ok(Self { disk, unfinished: AtomicU64::new(0) })
    }

    /// Of a node that does not run; nothing is removed.
    pub fn reading(disk: Arc<dyn Disk>) -> Self {
        Self { disk, unfinished: AtomicU64::new(0) }
    }

    /// The newest snapshot, checked; a damaged one is an error, not skipped.
    pub fn newest(&self) -> Result<Option<SnapshotFile>, StartError> {
        let Some(name) = self.finished()?.pop() else { return Ok(None) };
        let file = self.disk.open(&name)?;
        let bytes = read_all(&*file)?;
        match parse(&bytes) {
            Ok((head, _)) => Ok(Some(SnapshotFile { head, file, unfinished: None })),
            Err(what) => Err(StartError::Corrupt { file: self.disk.describe(&name), offset: 0, what }),
        }
    }

    /// A file for a snapshot that arrives or is to be written.
    pub fn begin(&self) -> io::Result<Unfinished> {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let name = format!("snap-{number}{UNFINISHED}");
        let file = self.disk.create(&name)?;
        Ok(Unfinished { disk: Arc::clone(&self.disk), name, file })
    }

    /// Writes a snapshot durably under its final name.
    pub fn write(&self, head: &SnapshotHead, body: &[u8]) -> io::Result<SnapshotFile> {
        let unfinished = self.begin()?;
        write_to(&*unfinished.file, head, body)?;
        let file = Arc::clone(&unfinished.file);
        self.finish(SnapshotFile { head: head.clone(), file, unfinished: Some(Arc::new(unfinished)) })
    }

    /// Checks a file that arrived from a peer and makes it durable.
    pub fn verify(unfinished: Unfinished) -> Result<SnapshotFile, String> {
        let bytes = read_all(&*unfinished.file).map_err(|error| error.to_string())?;
        let (head, _) = parse(&bytes)?;
        unfinished.file.sync().map_err(|error| error.to_string())?;
        let file = Arc::clone(&unfinished.file);
        Ok(SnapshotFile { head, file, unfinished: Some(Arc::new(unfinished)) })
    }

    /// Gives a durable file its final name and removes all but the newest two.
    pub fn finish(&self, snapshot: SnapshotFile) -> io::Result<SnapshotFile> {
        if let Some(unfinished) = &snapshot.unfinished {
            let last = snapshot.head.last;
            let name = format!("snap-{:020}-{}-{}.snap", last.index, last.term, last.node);
            self.disk.rename(&unfinished.name, &name)?;
            self.disk.sync_dir()?;
        }
        for old in self.finished()?.iter().rev().skip(KEEP) {
            self.disk.remove(old)?;
        }
        Ok(SnapshotFile { unfinished: None, ..snapshot })
    }

    fn finished(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list()?;
        names.retain(|name| name.starts_with("snap-") && name.ends_with(".snap"));
        names.sort();
        Ok(names)
    }
}

fn write_to(file: &dyn DiskFile, head: &SnapshotHead, body: &[u8]) -> io::Result<()> {
    let encoded = history::put(head, Vec::new()).map_err(io::Error::other)?;
    let mut front = Vec::with_capacity(PREFIX + encoded.len());
    front.extend_from_slice(MAGIC);
    front.extend_from_slice(&SNAPSHOT.to_le_bytes());
    front.extend_from_slice(&u32::try_from(encoded.len()).map_err(io::Error::other)?.to_le_bytes());
    front.extend_from_slice(&(body.len() as u64).to_le_bytes());
    front.extend_from_slice(&encoded);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&front);
    hasher.update(body);
    file.write_at(&front, 0)?;
    file.write_at(body, front.len() as u64)?;
    file.write_at(&hasher.finalize().to_le_bytes(), (front.len() + body.len()) as u64)?;
    file.sync()
}

/// Head and the place of the body; the whole file is checked.
fn parse(bytes: &[u8]) -> Result<(SnapshotHead, std::ops::Range<usize>), String> {
    let short = || "shorter than it says".to_owned();
    let content = bytes.len().checked_sub(4).ok_or_else(short)?;
    let prefix = bytes.get(..PREFIX).ok_or_else(short)?;
    if !prefix.starts_with(MAGIC) {
        return Err("not a snapshot".into());
    }
    if bytes[content..] != crc32fast::hash(&bytes[..content]).to_le_bytes() {
        return Err("checksum does not match".into());
    }
    let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    if word(8) != SNAPSHOT {
        return Err(format!("format {} is not known to this version", word(8)));
    }
    let start = PREFIX.checked_add(word(12) as usize).ok_or_else(short)?;
    let head = bytes.get(PREFIX..start).ok_or_else(short)?;
    let head = history::exact(head).map_err(|error| error.to_string())?;
    let length = u64::from(word(16)) | u64::from(word(20)) << 32;
    if start as u64 + length != content as u64 {
        return Err(short());
    }
    Ok((head, start..content))
}
