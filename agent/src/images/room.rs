//! Whether an archive, and the image in it, has room on this host.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::statvfs;

/// Fullest that an image may make a disk, in percent: from 95 % on a host takes no new work.
const FULLEST: u64 = 90;

/// Whether `spool` has room for the rest of an archive, and the engine's directory for what is in it.
///
/// # Errors
/// One sentence: it has not, or a disk cannot be looked at.
pub fn room(spool: &Path, engine: &Path, left: u64, size: u64) -> Result<(), String> {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev());
    let shared = device(spool).ok().is_some_and(|own| device(engine).is_ok_and(|other| own == other));
    if shared {
        return on_disk(spool, left.saturating_add(size));
    }
    on_disk(spool, left)?;
    // An engine whose directory cannot be seen from here says itself when it is full.
    if engine.exists() { on_disk(engine, size) } else { Ok(()) }
}

fn on_disk(path: &Path, more: u64) -> Result<(), String> {
    let stat = statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    if fits(used, free, more) {
        return Ok(());
    }
    Err(format!(
        "its disk of {} has {} MiB free, and {} MiB more would make it more than {FULLEST} % full: make room there",
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

    #[test]
    fn an_image_never_makes_a_host_refuse_work() {
        assert!(fits(0, 1000, 900) && !fits(0, 1000, 901));
        assert!(!fits(950, 50, 1) && !fits(0, 10, u64::MAX));
        let dir = tempfile::tempdir().unwrap();
        let why = room(dir.path(), dir.path(), 0, u64::MAX / 4).unwrap_err();
        assert!(why.contains("MiB free") && why.contains("make room"), "{why}");
        assert_eq!(room(dir.path(), dir.path(), 0, 1), on_disk(dir.path(), 1));
    }
}
