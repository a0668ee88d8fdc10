//! The disk of the agent's root: how full it is, and the ballast that is let go when it is full.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use muster_model::observed::{Condition, DISK_FULL, DISK_NEARLY_FULL};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// From here on an operator is told.
const TOLD_PERCENT: u64 = 85;
/// From here on nothing new is started.
const FULL_PERCENT: u64 = 95;
const BALLAST_BYTES: u64 = 64 << 20;

/// A disk.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    ballast: PathBuf,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Size in bytes.
    pub bytes: u64,
    /// Free for us, bytes.
    pub free: u64,
    /// Bytes of ballast that are not on it: they are no room for anything else.
    pub owed: u64,
}

impl Fill {
    /// With the ballast as if it were there: a disk that was full is not a little less full because of it.
    fn used_percent(self) -> u64 {
        let used = self.bytes.saturating_sub(self.free).saturating_add(self.owed).min(self.bytes);
        used.saturating_mul(100).checked_div(self.bytes).unwrap_or_default()
    }

    /// Free, in steps of 1 %.
    #[must_use]
    pub fn free_percent(self) -> u8 {
        u8::try_from(100 - self.used_percent()).unwrap_or_default()
    }

    /// Whether nothing new may be started.
    #[must_use]
    pub fn full(self) -> bool {
        self.used_percent() >= FULL_PERCENT
    }
}

impl Disk {
    /// The one that `root` is on.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), ballast: root.join("ballast") }
    }

    /// Looks, lets the ballast go on a full disk, and takes it up again when there is room.
    ///
    /// # Errors
    /// The disk cannot be asked.
    pub fn look(&self) -> Result<Fill, String> {
        let fill = self.fill()?;
        if fill.full() {
            std::fs::remove_file(&self.ballast).ok();
        } else if fill.used_percent() < TOLD_PERCENT
            && fill.free > 4 * BALLAST_BYTES
            && !self.ballast.exists()
        {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.ballast);
            let made = file.map(|file| fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES));
            // Without ballast a full disk still refuses new work; only its margin is smaller.
            if !matches!(made, Ok(Ok(()))) {
                std::fs::remove_file(&self.ballast).ok();
            }
        }
        Ok(fill)
    }

    /// How full it is.
    ///
    /// # Errors
    /// The disk cannot be asked.
    pub fn fill(&self) -> Result<Fill, String> {
        let stat = statvfs(&self.root).map_err(|error| format!("{}: {error}", self.root.display()))?;
        // As df(1) does: what is reserved for others belongs to nobody's size.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let free = stat.f_bavail;
        Ok(Fill {
            bytes: (used + free).saturating_mul(stat.f_frsize),
            free: free.saturating_mul(stat.f_frsize),
            owed: if self.ballast.exists() { 0 } else { BALLAST_BYTES },
        })
    }

    /// What an operator should know.
    #[must_use]
    pub fn condition(&self, fill: Fill) -> Option<Condition> {
        let used = fill.used_percent();
        let root = self.root.display();
        // The limit that was passed, not the figure of the moment: the text must not change with every percent.
        let (code, passed, effect) = match used {
            FULL_PERCENT.. => (
                DISK_FULL,
                FULL_PERCENT,
                "its reserve is let go, and nothing new is started here until there is room",
            ),
            TOLD_PERCENT.. => (
                DISK_NEARLY_FULL,
                TOLD_PERCENT,
                "nothing new is placed here, and from 95 % on nothing new is started",
            ),
            _ => return None,
        };
        Some(Condition {
            code: code.to_owned(),
            text: format!(
                "the disk of {root} is more than {passed} % full; {effect}: make room, for example with `docker image prune` or by deleting what is no longer needed in {root}/quarantine"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let disk = Disk::new(Path::new("/x"));
        let at = |used: u64| Fill { bytes: 1000, free: 1000 - used, owed: 0 };
        assert_eq!(disk.condition(at(840)), None);
        assert_eq!(disk.condition(at(850)).unwrap().code, "disk-nearly-full");
        assert_eq!(disk.condition(at(950)).unwrap().code, "disk-full");
        assert!(at(950).full() && !at(949).full());
        assert_eq!(at(850).free_percent(), 15);
        let mib = |used: u64, owed| Fill { bytes: 1000 << 20, free: (1000 - used) << 20, owed };
        assert!(mib(900, BALLAST_BYTES).full(), "a full disk whose ballast was let go stays full");
        assert!(!mib(886, 0).full() && mib(1000, BALLAST_BYTES).full());
    }

    #[test]
    fn ballast_is_taken_up_where_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        let fill = disk.look().unwrap();
        assert_eq!(fill.owed, BALLAST_BYTES);
        let room = fill.used_percent() < TOLD_PERCENT && fill.free > 4 * BALLAST_BYTES;
        assert_eq!(disk.ballast.exists(), room);
    }
}
