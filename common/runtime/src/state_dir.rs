//! The one directory of state of a process: who may read it, and how a file in it is replaced without ever being torn.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of a file that only its owner may read.
pub const PRIVATE: u32 = 0o600;
/// Largest file that is read whole, in bytes.
const READ_MAX: u64 = 64 * 1024 * 1024;

/// Why the state directory, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can read or write it.
    #[error("{} has mode {mode:o}: only its owner may read it; run `chmod go= {}`", path.display(), path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// Somebody else owns it.
    #[error("{} belongs to user {owner}, not to user {expected} who runs this", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl StateError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// Says that the content of `path` is wrong.
    pub fn invalid(path: &Path, reason: impl ToString) -> Self {
        Self::Invalid { path: path.to_owned(), reason: reason.to_string() }
    }

    /// Whether the file simply does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A directory that this process alone uses, as long as the value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory (mode 0700) if it is missing, checks it, and locks it.
    ///
    /// # Errors
    /// It is exposed, foreign, or in use.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        create_private_dir(&path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE)
            .open(&lock_path)
            .map_err(StateError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(StateError::Io { path: lock_path, source }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a directory with mode 0700 if it is missing; refuses one that others can enter.
///
/// # Errors
/// It is exposed or foreign, or cannot be made.
pub fn create_private_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StateError::io(path))?;
    check_private(path, &fs::metadata(path).map_err(StateError::io(path))?)
}

/// Replaces a file as a whole: after a crash there is the old content or the new, never a mixture.
///
/// # Errors
/// Any step failed; the old file is then untouched.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), StateError> {
    let name = path.file_name().ok_or_else(|| StateError::invalid(path, "is not a file name"))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let temporary = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), random_suffix(path)?));
    let written = write_synced(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        fs::remove_file(&temporary).ok();
        return Err(StateError::Io { path: path.to_owned(), source });
    }
    // The rename itself is durable only when the directory is.
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(StateError::io(parent))
}

fn write_synced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits away; secrets lose nothing by it, public files must stay readable.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

fn random_suffix(path: &Path) -> Result<String, StateError> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other).map_err(StateError::io(path))?;
    Ok(hex::encode(bytes))
}

/// Reads a file that holds a secret.
///
/// # Errors
/// It is missing, or anybody but its owner (us) can read it: such a secret is no secret any more.
pub fn read_private(path: &Path) -> Result<crate::secret::Secret<Vec<u8>>, StateError> {
    let mut file = File::open(path).map_err(StateError::io(path))?;
    let metadata = file.metadata().map_err(StateError::io(path))?;
    check_private(path, &metadata)?;
    if metadata.len() > READ_MAX {
        return Err(StateError::invalid(path, format!("is larger than {READ_MAX} bytes")));
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    (&mut file).take(READ_MAX).read_to_end(&mut content).map_err(StateError::io(path))?;
    Ok(crate::secret::Secret::new(content))
}

/// Reads a text file that is no secret.
///
/// # Errors
/// It is missing, too large, or not UTF-8.
pub fn read_text(path: &Path) -> Result<String, StateError> {
    let file = File::open(path).map_err(StateError::io(path))?;
    let mut content = String::new();
    file.take(READ_MAX).read_to_string(&mut content).map_err(StateError::io(path))?;
    Ok(content)
}

fn check_private(path: &Path, metadata: &fs::Metadata) -> Result<(), StateError> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateError::Exposed { path: path.to_owned(), mode });
    }
    let expected = rustix::process::geteuid().as_raw();
    if metadata.uid() != expected {
        return Err(StateError::Foreign { path: path.to_owned(), owner: metadata.uid(), expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn write_replaces_and_leaves_nothing_else() {
        let dir = scratch();
        let path = dir.path().join("f");
        write_atomic(&path, b"one", PRIVATE).unwrap();
        write_atomic(&path, b"two", PRIVATE).unwrap();
        assert_eq!(read_private(&path).unwrap().expose(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_readable_secret_is_refused_with_the_remedy() {
        let dir = scratch();
        let path = dir.path().join("key");
        write_atomic(&path, b"x", 0o644).unwrap();
        let error = read_private(&path).err().unwrap().to_string();
        assert!(error.contains("mode 644") && error.contains("chmod go="), "{error}");
    }

    #[test]
    fn a_directory_has_one_user_and_no_onlookers() {
        let dir = scratch();
        let path = dir.path().join("state");
        let held = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        drop(held);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::Exposed { mode: 0o755, .. })));
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = scratch();
        let path = dir.path().join("d");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"x", PRIVATE).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
