//! Turns a process in fresh namespaces into a booted host: its mounts, its name, its units. Runs only as pid 1 of a host.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_move, unmount};

use crate::config::Config;
use crate::control::listen;
use crate::disk::{BOUND, Disk, LAYERED};
use crate::host::{HOST_MARK, stat_of};
use crate::service::Service;
use crate::supervisor::Supervisor;
use crate::unit::Unit;

/// Where the units of Muster expect its programs.
const PROGRAMS: &str = "/usr/local/lib/muster";
/// The machine's folder of programs, inside; `PROGRAMS` links into it, so that a new build is seen at once.
const PROGRAMS_OF_MACHINE: &str = "/usr/local/lib/muster-machine";
const CACHE_OF_MACHINE: &str = "/usr/local/lib/muster-cache";
/// Linked even before they are built.
const KNOWN_PROGRAMS: [&str; 3] = ["muster", "muster-agent", "muster-coordinator"];
const WIREGUARD_PROGRAM: &str = "gotatun";
const ENGINE_UNIT: &str = include_str!("docker.service");

/// Boots host `name` and supervises it; returns only with an error, and then the host is off.
pub fn init(config: &Config, name: &str) -> Result<()> {
    ensure!(std::process::id() == 1, "init runs only as the first process of a host; use `testbed start`");
    let disk = Disk::new(config, name);
    // Safety of this order: /proc still is the machine's, so it tells our number there.
    let pid = fs::read_link("/proc/self").context("reading our own number")?;
    let pid: i32 = pid.to_string_lossy().parse().context("reading our own number")?;
    let birth = stat_of(pid).context("reading our own birth")?.birth;
    // Whole or not at all: the starter may read it at any moment.
    let draft = disk.dir.join("init.pid.new");
    fs::write(&draft, format!("{pid} {birth}\n"))?;
    fs::rename(&draft, disk.pid_file())?;
    show_inside(&disk, pid)?;
    let units = read_units(&config.unit_dir)?;
    mount_all(config, &disk).context("mounting")?;
    rustix::system::sethostname(name.as_bytes()).context("setting the hostname")?;
    let mark = (HOST_MARK.to_owned(), format!("{}/{name}", config.prefix));
    let services: BTreeMap<String, Service> = units
        .into_iter()
        .map(|unit| (unit.name.clone(), Service::new(unit.clone(), disk.log_file(&unit.name), mark.clone())))
        .collect();
    let requests = listen(&disk.control_socket())?;
    Supervisor::new(services, requests).run()
}

/// Paths on the machine that stay the same from boot to boot and lead into the host.
fn show_inside(disk: &Disk, pid: i32) -> Result<()> {
    for (link, inside) in [(disk.docker_socket(), "root/run/docker.sock"), (disk.dir.join("root"), "root")] {
        // From an earlier boot.
        let _ = fs::remove_file(&link);
        symlink(format!("/proc/{pid}/{inside}"), &link)?;
    }
    Ok(())
}

fn read_units(dir: &Path) -> Result<Vec<Unit>> {
    let mut units = vec![Unit::parse("docker", ENGINE_UNIT)?];
    for entry in fs::read_dir(dir).with_context(|| format!("reading the units in {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "service") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            units.push(Unit::parse(&name, &text)?);
        }
    }
    Ok(units)
}

fn mount_all(config: &Config, disk: &Disk) -> Result<()> {
    forget_mounts_of_machine()?;
    fresh_tmpfs("/run", 0o755)?;
    mount_kernel_filesystems()?;
    for (target, name) in LAYERED {
        layer(target, &disk.dir.join(name))?;
    }
    for (target, name) in BOUND {
        fs::create_dir_all(target)?;
        mount_bind(disk.dir.join(name), target).with_context(|| format!("binding {target}"))?;
    }
    offer_programs(config)?;
    fs::create_dir_all("/run/lock")?;
    fs::set_permissions("/run/lock", Permissions::from_mode(0o1777))?;
    if !Path::new("/var/run").is_symlink() {
        mount_bind("/run", "/var/run")?;
    }
    fresh_tmpfs("/dev/shm", 0o1777)
}

/// Engines of the machine and other testbeds have mounts that this namespace copied. Kept here, they would stay busy
/// after their owners removed them.
fn forget_mounts_of_machine() -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
    let mounts: Vec<(&str, &str)> = table.lines().filter_map(point_and_kind).collect();
    for (point, kind) in mounts.into_iter().rev() {
        let below = ["/run/", "/var/run/", "/var/lib/docker/"].iter().any(|dir| point.starts_with(dir));
        if below || (matches!(kind, "overlay" | "nsfs") && point != "/") {
            // Gone with its parent already, perhaps.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
    Ok(())
}

fn point_and_kind(line: &str) -> Option<(&str, &str)> {
    let (place, kind) = line.split_once(" - ")?;
    Some((place.split(' ').nth(4)?, kind.split(' ').next()?))
}

/// A new sysfs shows the host's own links, and hides what is mounted below the old one: that is carried over.
fn mount_kernel_filesystems() -> Result<()> {
    let none = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", none, None::<&std::ffi::CStr>).context("proc")?;
    let carried: Vec<(&str, PathBuf)> = ["/sys/fs/cgroup", "/sys/kernel/security"]
        .into_iter()
        .filter(|path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()))
        .enumerate()
        .map(|(number, path)| (path, PathBuf::from(format!("/run/carried-{number}"))))
        .collect();
    for (from, over) in &carried {
        fs::create_dir(over)?;
        mount_bind_recursive(*from, over).with_context(|| format!("carrying {from} over"))?;
    }
    mount("sysfs", "/sys", "sysfs", none, None::<&std::ffi::CStr>).context("sysfs")?;
    for (to, over) in &carried {
        mount_move(over, *to).with_context(|| format!("carrying {to} over"))?;
        fs::remove_dir(over)?;
    }
    Ok(())
}

fn layer(target: &str, own: &Path) -> Result<()> {
    let (upper, work) = (own.join("upper"), own.join("work"));
    let options = format!("lowerdir={target},upperdir={},workdir={}", upper.display(), work.display());
    let options = CString::new(options).context("a path with a zero byte")?;
    mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .with_context(|| format!("layering {target}"))
}

fn fresh_tmpfs(target: &str, mode: u32) -> Result<()> {
    let options = CString::new(format!("mode={mode:o}")).context("a path with a zero byte")?;
    mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .with_context(|| format!("a tmpfs at {target}"))
}

/// Links our programs, and the userspace WireGuard if the cache has it, to where the units expect them.
fn offer_programs(config: &Config) -> Result<()> {
    if !config.bin_dir.is_dir() {
        bail!("MUSTER_BIN_DIR={}: no such folder", config.bin_dir.display());
    }
    offer_folder(&config.bin_dir, PROGRAMS_OF_MACHINE)?;
    crate::disk::remove_tree(Path::new(PROGRAMS))?;
    fs::create_dir_all(PROGRAMS)?;
    let mut names: Vec<String> = KNOWN_PROGRAMS.map(str::to_owned).to_vec();
    for entry in fs::read_dir(&config.bin_dir)?.flatten() {
        let program = entry
            .path()
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o100 != 0);
        let name = entry.file_name().to_string_lossy().into_owned();
        if program && !names.contains(&name) {
            names.push(name);
        }
    }
    for name in &names {
        symlink(Path::new(PROGRAMS_OF_MACHINE).join(name), Path::new(PROGRAMS).join(name))?;
    }
    let cached = config.cache_dir.join("bin");
    if cached.join(WIREGUARD_PROGRAM).is_file() && !names.iter().any(|name| name == WIREGUARD_PROGRAM) {
        offer_folder(&cached, CACHE_OF_MACHINE)?;
        symlink(
            Path::new(CACHE_OF_MACHINE).join(WIREGUARD_PROGRAM),
            Path::new(PROGRAMS).join(WIREGUARD_PROGRAM),
        )?;
    }
    Ok(())
}

fn offer_folder(from: &Path, to: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    mount_bind(from, to).with_context(|| format!("offering {}", from.display()))
}
