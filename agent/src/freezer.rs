//! The kernel's switch by which all processes of a container stand still and go on, in both versions of control groups.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// Switch of version 1.
const STATE: &str = "freezer.state";
/// Switch of version 2.
const FREEZE: &str = "cgroup.freeze";

/// The switch of the control group that a process is in.
///
/// # Errors
/// The process is gone, or its control group cannot be frozen.
pub fn switch(process: u32) -> Result<PathBuf, String> {
    let path = format!("/proc/{process}/cgroup");
    let groups = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let found = candidates(&groups).into_iter().find(|switch| switch.exists());
    found.ok_or_else(|| format!("no control group of process {process} can be frozen"))
}

fn candidates(groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        // Whatever is not in a group of its own would freeze the whole host.
        if path.is_empty() {
            continue;
        }
        if controllers.split(',').any(|name| name == "freezer") {
            found.insert(0, Path::new(ROOT).join("freezer").join(path).join(STATE));
        } else if controllers.is_empty() {
            found.push(Path::new(ROOT).join(path).join(FREEZE));
        }
    }
    found
}

/// All processes stand still.
///
/// # Errors
/// The switch cannot be written.
pub fn freeze(switch: &Path) -> Result<(), String> {
    set(switch, "FROZEN", "1")
}

/// All go on; a container that is gone needs nothing.
///
/// # Errors
/// The switch cannot be written.
pub fn thaw(switch: &Path) -> Result<(), String> {
    if switch.exists() { set(switch, "THAWED", "0") } else { Ok(()) }
}

fn set(switch: &Path, first: &str, second: &str) -> Result<(), String> {
    let word = if switch.ends_with(STATE) { first } else { second };
    fs::write(switch, word).map_err(|error| format!("{}: {error}", switch.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_and_a_whole_host_is_never_frozen() {
        let first = candidates("7:cpu,cpuacct:/docker/abc\n3:freezer:/docker/abc\n0::/docker/abc\n");
        assert_eq!(
            first,
            [
                Path::new("/sys/fs/cgroup/freezer/docker/abc/freezer.state"),
                Path::new("/sys/fs/cgroup/docker/abc/cgroup.freeze")
            ]
        );
        let second = candidates("0::/system.slice/docker-abc.scope\n");
        assert_eq!(second, [Path::new("/sys/fs/cgroup/system.slice/docker-abc.scope/cgroup.freeze")]);
        assert!(candidates("3:freezer:/\n0::/\n").is_empty());
    }

    #[test]
    fn the_words_are_those_of_the_kernel_and_what_is_gone_needs_none() {
        let dir = tempfile::tempdir().unwrap();
        for (name, on, off) in [(STATE, "FROZEN", "THAWED"), (FREEZE, "1", "0")] {
            let switch = dir.path().join(name);
            fs::write(&switch, "").unwrap();
            freeze(&switch).unwrap();
            assert_eq!(fs::read_to_string(&switch).unwrap(), on);
            thaw(&switch).unwrap();
            assert_eq!(fs::read_to_string(&switch).unwrap(), off);
        }
        thaw(&dir.path().join("gone").join(STATE)).unwrap();
        assert!(freeze(&dir.path().join("gone").join(STATE)).is_err());
    }
}
