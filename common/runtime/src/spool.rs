//! Archives of images on their way: files of a coordinator, and of each agent, for the time of a push. Nothing but bytes:
//! whoever receives one checks its digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::state_dir::{PRIVATE, create_private_dir};
use muster_model::image::{IMAGE_PART, is_digest};
use rustix::fs::statvfs;
use sha2::{Digest as _, Sha256};

/// An interrupted push can go on for this long.
const KEPT: Duration = Duration::from_secs(3600);
/// Fullest that an archive or image may make a disk, in percent: the log of the control plane may be on it, and from 95 %
/// on a host takes no new work.
const FULLEST: u64 = 90;
const SUFFIX: &str = ".part";

/// The directory.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// In this directory, which is made when something comes.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where an archive is kept.
    #[must_use]
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}{SUFFIX}"))
    }

    /// Bytes that are here.
    #[must_use]
    pub fn have(&self, sha256: &str) -> u64 {
        fs::metadata(self.path(sha256)).map_or(0, |meta| meta.len())
    }

    /// Whether so many bytes more may come.
    ///
    /// # Errors
    /// One sentence: they may not, or the disk cannot be looked at.
    pub fn room(&self, more: u64) -> Result<(), String> {
        create_private_dir(&self.dir).map_err(|error| error.to_string())?;
        room(&self.dir, more)
    }

    /// Adds a part at `offset`; how much is here then. A part that does not follow what is here changes nothing.
    ///
    /// # Errors
    /// It cannot be written; what was written of it is taken away.
    pub fn add(&self, sha256: &str, offset: u64, data: &[u8]) -> io::Result<u64> {
        create_private_dir(&self.dir).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).truncate(false).write(true).mode(PRIVATE).open(self.path(sha256))?;
        let have = file.seek(SeekFrom::End(0))?;
        if have != offset {
            return Ok(have);
        }
        if let Err(error) = file.write_all(data) {
            file.set_len(have)?;
            return Err(error);
        }
        Ok(have + data.len() as u64)
    }

    /// The part at `offset`; empty = there is no more.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    pub fn part(&self, sha256: &str, offset: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.path(sha256))?;
        let left = file.metadata()?.len().saturating_sub(offset).min(IMAGE_PART as u64);
        let mut data = vec![0; usize::try_from(left).unwrap_or(0)];
        file.read_exact_at(&mut data, offset)?;
        Ok(data)
    }

    /// Whether what is here has the digest that it should have.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_whole(&self, sha256: &str) -> io::Result<bool> {
        let mut file = File::open(self.path(sha256))?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; IMAGE_PART];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex::encode(digest.finalize()) == sha256),
                read => digest.update(&buffer[..read]),
            }
        }
    }

    /// Takes an archive away; one that is not here is fine.
    pub fn remove(&self, sha256: &str) {
        fs::remove_file(self.path(sha256)).ok();
    }

    /// Takes away what nobody went on with, but for those in `keep`.
    pub fn sweep(&self, keep: &[String]) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(sha256) = name.strip_suffix(SUFFIX).filter(|text| is_digest(text)) else { continue };
            let changed = entry.metadata().and_then(|meta| meta.modified());
            if !keep.iter().any(|kept| kept == sha256) && changed.is_ok_and(is_old) {
                self.remove(sha256);
            }
        }
    }
}

/// A clock that was set back makes nothing old.
fn is_old(changed: SystemTime) -> bool {
    changed.elapsed().is_ok_and(|age| age > KEPT)
}

/// Whether so many bytes more may come on the disk of a path.
///
/// # Errors
/// One sentence: they may not, or the disk cannot be looked at.
pub fn room(path: &Path, more: u64) -> Result<(), String> {
    let stat = statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    if fits(used, free, more) {
        return Ok(());
    }
    Err(format!(
        "the disk of {} has {} MiB free, and {} MiB more would make it more than {FULLEST} % full: make room there",
        path.display(),
        free >> 20,
        more >> 20
    ))
}

const fn fits(used: u64, free: u64, more: u64) -> bool {
    more <= free && used.saturating_add(more) <= (used.saturating_add(free) / 100).saturating_mul(FULLEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(data: &[u8]) -> String {
        hex::encode(Sha256::digest(data))
    }

    #[test]
    fn an_archive_grows_by_parts_in_order_only_and_its_digest_is_checked() {
        let dir = std::env::temp_dir().join(format!("muster-spool-{}", std::process::id()));
        let spool = Spool::new(&dir);
        let whole = vec![7_u8; IMAGE_PART + 10];
        let sha256 = digest(&whole);
        assert_eq!(spool.add(&sha256, 0, &whole[..IMAGE_PART]).unwrap(), IMAGE_PART as u64);
        // Repeated, and one that is ahead: neither has an effect.
        assert_eq!(spool.add(&sha256, 0, &whole[..IMAGE_PART]).unwrap(), IMAGE_PART as u64);
        assert_eq!(spool.add(&sha256, 999_999, b"x").unwrap(), IMAGE_PART as u64);
        assert!(!spool.is_whole(&sha256).unwrap());
        // Another process goes on.
        let spool = Spool::new(&dir);
        let have = spool.have(&sha256);
        assert_eq!(spool.add(&sha256, have, &whole[IMAGE_PART..]).unwrap(), whole.len() as u64);
        assert!(spool.is_whole(&sha256).unwrap());
        assert_eq!(spool.part(&sha256, 0).unwrap().len(), IMAGE_PART);
        assert_eq!(spool.part(&sha256, IMAGE_PART as u64).unwrap().len(), 10);
        assert!(spool.part(&sha256, whole.len() as u64 + 5).unwrap().is_empty());
        spool.sweep(&[]);
        assert_eq!(spool.have(&sha256), whole.len() as u64, "a young one stays");
        spool.remove(&sha256);
        assert_eq!(spool.have(&sha256), 0);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_disk_of_the_log_is_never_filled() {
        assert!(fits(500, 500, 400) && !fits(500, 500, 401));
        assert!(!fits(0, 1000, 2000) && !fits(u64::MAX, u64::MAX, u64::MAX));
        let why = room(Path::new("/"), u64::MAX / 4).unwrap_err();
        assert!(why.contains("MiB free") && why.contains("make room"), "{why}");
    }
}
