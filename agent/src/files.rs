//! A member's rendered files, on a memory file system: written, repaired, cleared away. Whom to reload is returned.
//!
//! `/muster` is one mounted directory; a file at another path is mounted by itself, so it is written in place: a new
//! file under the same name would not be seen inside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use muster_model::ids::MemberId;
use muster_model::plan::{FileSpec, MemberPlan, OnChange, UserIds, hash_of};
use muster_runtime::secret::Secret;
use muster_runtime::state_dir::{self, StateError};

/// The directory inside that all reloadable files share.
pub const MOUNT: &str = "/muster/";

/// All files of one member together, in bytes.
const MEMBER_MAX: usize = 4 << 20;
/// The memory file system that we make where there is none.
const TMPFS_BYTES: u64 = 256 << 20;

const OPENING: &str = "${secret:";

/// Secrets by full name.
pub type SecretMap = BTreeMap<String, Secret<Vec<u8>>>;

/// Why files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It names a secret that is not here.
    #[error("secret {0} has not arrived")]
    SecretMissing(String),
    /// It would be written outside its directory.
    #[error("file path {0} is not allowed")]
    Path(String),
    /// More than we keep in memory.
    #[error("the files of one member are limited to {MEMBER_MAX} bytes")]
    TooLarge,
    /// The system said no.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// The directory is not private.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The directory with all members' files.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Takes `root`, on a memory file system: one is mounted there if it is on a disk.
    ///
    /// # Errors
    /// It cannot be made or mounted, or others can read it.
    pub fn open(root: &Path) -> Result<Self, FilesError> {
        state_dir::create_private_dir(root)?;
        let failed = |error: rustix::io::Errno| FilesError::Io(root.display().to_string(), error.into());
        if rustix::fs::statfs(root).map_err(failed)?.f_type != TMPFS_MAGIC {
            use rustix::mount::{MountFlags, mount};
            let options = std::ffi::CString::new(format!("size={TMPFS_BYTES},mode=0700")).unwrap_or_default();
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("muster", root, "tmpfs", flags, Some(options.as_c_str())).map_err(failed)?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// In a directory of a test, whatever it is on.
    #[cfg(test)]
    pub(crate) fn without_mount(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a member's files are.
    #[must_use]
    pub fn of(&self, member: MemberId) -> PathBuf {
        self.root.join(member.to_string())
    }

    /// Writes what is missing or differs; the actions that changed files ask for.
    ///
    /// # Errors
    /// A secret is missing (nothing is written then), or the system refuses.
    pub fn sync(&self, member: &MemberPlan, secrets: &SecretMap) -> Result<BTreeSet<String>, FilesError> {
        let mut wanted = Vec::new();
        let mut total = 0;
        for file in &member.rendered.files {
            let content = fill_in(&file.content, secrets).map_err(FilesError::SecretMissing)?;
            total += content.expose().len();
            wanted.push((file, self.place(member.member, file)?, content));
        }
        if total > MEMBER_MAX {
            return Err(FilesError::TooLarge);
        }
        let user = member.rendered.user;
        let root = self.of(member.member);
        for directory in [root.join("muster"), root.join("at")] {
            directory_for(&directory, user).map_err(at(&directory))?;
        }
        let mut due = BTreeSet::new();
        let mut kept = BTreeSet::new();
        for (file, path, content) in wanted {
            if write(&path, content.expose(), file.mode, user, file.path.starts_with(MOUNT))
                .map_err(at(&path))?
            {
                match &file.on_change {
                    OnChange::Reload(action) => drop(due.insert(action.clone())),
                    OnChange::Restart | OnChange::None => {}
                }
            }
            kept.insert(path);
        }
        sweep(&root.join("muster"), &kept).map_err(at(&root))?;
        sweep(&root.join("at"), &kept).map_err(at(&root))?;
        Ok(due)
    }

    /// Takes away the files of every member that is not among these.
    pub fn keep_only(&self, members: &BTreeSet<MemberId>) {
        let names: BTreeSet<String> = members.iter().map(ToString::to_string).collect();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if !names.contains(entry.file_name().to_string_lossy().as_ref()) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }

    fn place(&self, member: MemberId, file: &FileSpec) -> Result<PathBuf, FilesError> {
        let bad = || FilesError::Path(file.path.chars().take(200).collect());
        let root = self.of(member);
        let Some(inside) = file.path.strip_prefix(MOUNT) else {
            let absolute = Path::new(&file.path);
            let plain = absolute.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
            let good = absolute.is_absolute() && plain && file.path.len() > 1;
            return if good { Ok(root.join("at").join(single_name(&file.path))) } else { Err(bad()) };
        };
        let inside = Path::new(inside);
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        if plain && inside.components().next().is_some() {
            Ok(root.join("muster").join(inside))
        } else {
            Err(bad())
        }
    }
}

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// The name under `at/` of a file that is mounted by itself.
#[must_use]
pub fn single_name(path: &str) -> String {
    hash_of(&path)
}

/// Names of the secrets that a text refers to.
#[must_use]
pub fn secrets_in(text: &str) -> Vec<&str> {
    let parts = text.split(OPENING).skip(1);
    parts.filter_map(|part| part.split_once('}').map(|(name, _)| name)).collect()
}

/// The text with every `${secret:NAME}` replaced.
///
/// # Errors
/// The name of the first secret that is not there.
pub fn fill_in(text: &str, secrets: &SecretMap) -> Result<Secret<Vec<u8>>, String> {
    let mut parts = text.split(OPENING);
    let mut filled = Secret::new(parts.next().unwrap_or_default().as_bytes().to_vec());
    for part in parts {
        let Some((name, rest)) = part.split_once('}') else {
            // No end: it was no reference.
            filled = Secret::new([filled.expose(), OPENING.as_bytes(), part.as_bytes()].concat());
            continue;
        };
        let secret = secrets.get(name).ok_or_else(|| name.to_owned())?;
        filled = Secret::new([filled.expose(), secret.expose().as_slice(), rest.as_bytes()].concat());
    }
    Ok(filled)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FilesError + '_ {
    move |error| FilesError::Io(path.display().to_string(), error)
}

fn directory_for(path: &Path, user: UserIds) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let metadata = fs::metadata(path)?;
    if metadata.mode() & 0o7777 != 0o755 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    if (metadata.uid(), metadata.gid()) != (user.uid, user.gid) {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// True = it was written, because something about it differed.
fn write(path: &Path, content: &[u8], mode: u32, user: UserIds, replace: bool) -> io::Result<bool> {
    let mode = mode & 0o777;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        let owned = (metadata.uid(), metadata.gid()) == (user.uid, user.gid);
        let same = metadata.is_file() && owned && metadata.mode() & 0o7777 == mode;
        if same && Secret::new(fs::read(path)?).expose().as_slice() == content {
            return Ok(false);
        }
        if !metadata.is_file() {
            if metadata.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    if let Some(parent) = path.parent() {
        directory_for(parent, user)?;
    }
    let target = if replace { path.with_extension("muster-new") } else { path.to_owned() };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&target)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    chown(&target, Some(user.uid), Some(user.gid))?;
    if replace {
        fs::rename(&target, path)?;
    }
    Ok(true)
}

/// Takes away what is not among `kept`, and directories that became empty.
fn sweep(directory: &Path, kept: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            sweep(&path, kept)?;
            if !kept.iter().any(|file| file.starts_with(&path)) {
                fs::remove_dir(&path)?;
            }
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::member;

    fn file(path: &str, content: &str, on_change: OnChange) -> FileSpec {
        FileSpec { path: path.to_owned(), content: content.to_owned(), mode: 0o400, on_change }
    }

    fn secrets() -> SecretMap {
        SecretMap::from([("pg/app".to_owned(), Secret::new(b"hunter2".to_vec()))])
    }

    fn here() -> (tempfile::TempDir, Files, MemberPlan) {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { root: dir.path().to_owned() };
        let mut plan = member(1);
        let owner = fs::metadata(dir.path()).unwrap();
        plan.rendered.user = UserIds { uid: owner.uid(), gid: owner.gid() };
        let reload = OnChange::Reload("reload".to_owned());
        plan.rendered.files = vec![
            file("/muster/pg/conf", "password=${secret:pg/app};", reload),
            file("/etc/app.conf", "x", OnChange::Restart),
        ];
        (dir, files, plan)
    }

    #[test]
    fn files_are_written_repaired_and_cleared_away() {
        let (_dir, files, mut plan) = here();
        let due = files.sync(&plan, &secrets()).unwrap();
        assert_eq!(due, ["reload".to_owned()].into());
        assert!(files.sync(&plan, &secrets()).unwrap().is_empty());
        let conf = files.of(plan.member).join("muster/pg/conf");
        assert_eq!(fs::read_to_string(&conf).unwrap(), "password=hunter2;");
        assert_eq!(fs::metadata(&conf).unwrap().mode() & 0o777, 0o400);
        fs::remove_file(&conf).unwrap();
        let extra = conf.with_file_name("extra");
        fs::write(&extra, "x").unwrap();
        assert_eq!(files.sync(&plan, &secrets()).unwrap().len(), 1);
        assert!(conf.exists() && !extra.exists());
        let single = files.of(plan.member).join("at").join(single_name("/etc/app.conf"));
        let inode = fs::metadata(&single).unwrap().ino();
        plan.rendered.files[1].content = "longer".to_owned();
        files.sync(&plan, &secrets()).unwrap();
        assert_eq!(fs::metadata(&single).unwrap().ino(), inode);
        files.keep_only(&BTreeSet::new());
        assert!(!files.of(plan.member).exists());
    }

    #[test]
    fn a_missing_secret_is_named_and_nothing_is_written() {
        let (_dir, files, plan) = here();
        let error = files.sync(&plan, &SecretMap::new()).unwrap_err();
        assert!(matches!(error, FilesError::SecretMissing(name) if name == "pg/app"));
        assert!(!files.of(plan.member).exists());
        assert_eq!(secrets_in("a${secret:x/y}b${secret:z}${secret:open"), ["x/y", "z"]);
    }

    #[test]
    fn paths_that_leave_their_place_are_refused() {
        let (_dir, files, mut plan) = here();
        for path in ["/muster/../x", "/muster/", "/muster/./../../etc/x", "relative", "/", "/etc/../x"] {
            plan.rendered.files = vec![file(path, "x", OnChange::None)];
            assert!(matches!(files.sync(&plan, &secrets()), Err(FilesError::Path(_))), "{path}");
        }
    }
}
