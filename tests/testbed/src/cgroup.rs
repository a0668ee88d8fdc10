//! Puts hosts into cgroups, on v1, v2 and the hybrid of both: limits, freezing, who is inside, removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::poll;

const MOUNTS: &str = "/proc/self/mounts";
const TREE: &str = "/sys/fs/cgroup";
/// What the supervisor, the engine and entered commands of a host run in; containers are beside it.
const SYSTEM: &str = "sys";

/// The cgroup trees of the machine.
pub struct Cgroups {
    /// Trees a process must join: all of v1, or the one of v2.
    joined: Vec<Hierarchy>,
    /// Every mounted tree: in hybrid mode runc also makes folders in the v2 tree, which nobody else removes.
    all: Vec<PathBuf>,
    unified: bool,
}

struct Hierarchy {
    path: PathBuf,
    controllers: Vec<String>,
}

impl Hierarchy {
    fn controls(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

impl Cgroups {
    pub fn detect() -> Result<Self> {
        let mounts = fs::read_to_string(MOUNTS).context("reading the mount table")?;
        Ok(Self::from_mounts(&mounts))
    }

    fn from_mounts(mounts: &str) -> Self {
        let mut joined = Vec::new();
        let mut all = Vec::new();
        let mut unified = false;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if !matches!(kind, "cgroup" | "cgroup2") || !path.starts_with(TREE) {
                continue;
            }
            let path = PathBuf::from(path);
            unified |= kind == "cgroup2" && path == Path::new(TREE);
            if kind == "cgroup" || path == Path::new(TREE) {
                let controllers = options.split(',').map(str::to_owned).collect();
                joined.push(Hierarchy { path: path.clone(), controllers });
            }
            all.push(path);
        }
        Self { joined, all, unified }
    }

    /// Whether there is any tree, and one that can freeze.
    pub fn usable(&self) -> bool {
        self.unified || self.joined.iter().any(|tree| tree.controls("freezer"))
    }

    /// Makes the cgroups of a host; harmless when they exist.
    pub fn make(&self, top: &str, host: &str, memory_bytes: Option<u64>) -> Result<()> {
        for tree in &self.joined {
            let levels = [top.to_owned(), format!("{top}/{host}"), format!("{top}/{host}/{SYSTEM}")];
            for level in &levels {
                let dir = tree.path.join(level);
                fs::create_dir_all(&dir).with_context(|| format!("making cgroup {}", dir.display()))?;
                if tree.controls("cpuset") {
                    inherit_cpuset(&dir)?;
                }
            }
            let host_dir = tree.path.join(&levels[1]);
            if self.unified {
                for dir in [tree.path.clone(), tree.path.join(top), host_dir.clone()] {
                    enable_controllers(&dir);
                }
            }
            let Some(bytes) = memory_bytes else { continue };
            if self.unified {
                write(&host_dir.join("memory.max"), &bytes.to_string())?;
            } else if tree.controls("memory") {
                // Already on, or fixed on, in most kernels.
                let _ = fs::write(host_dir.join("memory.use_hierarchy"), "1");
                write(&host_dir.join("memory.limit_in_bytes"), &bytes.to_string())?;
            }
        }
        Ok(())
    }

    /// The files into which a process writes its id to be inside the host.
    pub fn join_files(&self, top: &str, host: &str) -> Vec<PathBuf> {
        let below = format!("{top}/{host}/{SYSTEM}/cgroup.procs");
        self.joined.iter().map(|tree| tree.path.join(&below)).collect()
    }

    /// Freezes or thaws all processes below `top/host`, and waits until it is so.
    pub fn freeze(&self, top: &str, host: &str, frozen: bool) -> Result<()> {
        let (file, word) = match (self.unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let dir = self.freezer(top, host).context("no freezer on this machine")?;
        write(&dir.join(file), word)?;
        poll(Duration::from_secs(5), || (self.is_frozen(top, host) == frozen).then_some(()))
            .with_context(|| format!("the freezer of {host} did not reach {word}"))
    }

    pub fn is_frozen(&self, top: &str, host: &str) -> bool {
        let Some(dir) = self.freezer(top, host) else { return false };
        if self.unified {
            let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
            return events.lines().any(|line| line == "frozen 1");
        }
        fs::read_to_string(dir.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN")
    }

    /// Machine-wide ids of all processes below `path` (`top`, or `top/host`).
    pub fn processes(&self, path: &str) -> Vec<i32> {
        let mut found: Vec<i32> =
            self.joined.iter().flat_map(|tree| processes_below(&tree.path.join(path))).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Removes `path` from every tree. Errors: something still lives in it after `deadline`.
    pub fn remove(&self, path: &str, deadline: Duration) -> Result<()> {
        poll(deadline, || {
            for tree in &self.all {
                // Retried below until it succeeds: processes leave a moment after they died.
                let _ = remove_tree(&tree.join(path));
            }
            self.existing(path).is_empty().then_some(())
        })
        .with_context(|| format!("cgroup {path} does not go away"))
    }

    /// Folders of `path` that exist, in any tree.
    pub fn existing(&self, path: &str) -> Vec<PathBuf> {
        self.all.iter().map(|tree| tree.join(path)).filter(|dir| dir.exists()).collect()
    }

    fn freezer(&self, top: &str, host: &str) -> Option<PathBuf> {
        let tree = self.joined.iter().find(|tree| self.unified || tree.controls("freezer"))?;
        Some(tree.path.join(top).join(host))
    }
}

fn inherit_cpuset(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(file);
        if fs::read_to_string(&own).is_ok_and(|value| value.trim().is_empty()) {
            let parent = dir.parent().unwrap_or(dir).join(file);
            let value =
                fs::read_to_string(&parent).with_context(|| format!("reading {}", parent.display()))?;
            write(&own, value.trim())?;
        }
    }
    Ok(())
}

fn enable_controllers(dir: &Path) {
    for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
        // A controller that the machine does not hand out is not needed either.
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn processes_below(dir: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.extend(processes_below(&entry.path()));
    }
    found
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("writing {value} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_joins_v1_and_cleans_both() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /other/place cgroup rw,memory 0 0\n";
        let cgroups = Cgroups::from_mounts(mounts);
        assert!(!cgroups.unified && cgroups.usable());
        assert_eq!(cgroups.joined.len(), 3);
        assert_eq!(cgroups.all.len(), 4);
        assert_eq!(cgroups.freezer("p", "h"), Some(PathBuf::from("/sys/fs/cgroup/freezer/p/h")));
    }

    #[test]
    fn unified_joins_the_one_tree() {
        let cgroups = Cgroups::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
        assert!(cgroups.unified && cgroups.usable());
        assert_eq!(cgroups.join_files("p", "h"), [PathBuf::from("/sys/fs/cgroup/p/h/sys/cgroup.procs")]);
    }
}
