//! Whether an archive, and the image in it, has room on this host.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use muster_runtime::spool::room as on_disk;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_never_makes_a_host_refuse_work() {
        let dir = tempfile::tempdir().unwrap();
        let why = room(dir.path(), dir.path(), 0, u64::MAX / 4).unwrap_err();
        assert!(why.contains("MiB free") && why.contains("make room"), "{why}");
        assert_eq!(room(dir.path(), dir.path(), 0, 1), on_disk(dir.path(), 1));
    }
}
