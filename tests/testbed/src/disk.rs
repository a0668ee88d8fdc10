//! What of a host survives a power cut: its folders on the machine and the files a fresh server has; starts nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::command::checked;
use crate::config::{Config, is_hostname};

/// The machine's folders of which every host has a copy-on-write version of its own, and their name in a host's state.
pub const LAYERED: [(&str, &str); 3] =
    [("/etc", "etc"), ("/var/lib", "var-lib"), ("/usr/local", "usr-local")];
/// Folders inside a host that are plain folders of its state: databases and engines do not like layers.
pub const BOUND: [(&str, &str); 4] = [
    ("/etc/docker", "etc-docker"),
    ("/etc/muster", "etc-muster"),
    ("/var/lib/docker", "docker"),
    ("/var/lib/muster", "muster"),
];
const COPY: Duration = Duration::from_secs(300);

/// One host's state on the machine.
#[derive(Debug, Clone)]
pub struct Disk {
    pub dir: PathBuf,
}

impl Disk {
    pub fn new(config: &Config, host: &str) -> Self {
        Self { dir: config.hosts_dir().join(host) }
    }

    pub fn exists(&self) -> bool {
        self.index_file().exists()
    }

    /// Third octet of the host's address, fixed when its disk was made. Errors: no such disk.
    pub fn index(&self) -> Result<u8> {
        let text = fs::read_to_string(self.index_file())
            .with_context(|| format!("no disk at {}", self.dir.display()))?;
        text.trim().parse().with_context(|| format!("{} is damaged", self.index_file().display()))
    }

    /// Makes what is missing and keeps the rest: a half-made disk of an interrupted `up` is completed.
    pub fn make(&self, config: &Config, host: &str, index: u8) -> Result<()> {
        for (_, name) in LAYERED {
            fs::create_dir_all(self.dir.join(name).join("upper"))?;
            fs::create_dir_all(self.dir.join(name).join("work"))?;
        }
        for (_, name) in BOUND {
            fs::create_dir_all(self.dir.join(name))?;
        }
        fs::create_dir_all(self.dir.join("log"))?;
        if !self.exists() {
            self.link_golden(config)?;
        }
        self.write_fresh_server(config, host, index)?;
        // Last: its presence says that the disk is complete.
        fs::write(self.index_file(), format!("{index}\n")).context("writing the host's number")
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    pub fn docker_socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("init.pid")
    }

    fn index_file(&self) -> PathBuf {
        self.dir.join("index")
    }

    fn write_fresh_server(&self, config: &Config, host: &str, index: u8) -> Result<()> {
        let etc = self.dir.join("etc/upper");
        let (address, router) = (config.address_of(index), config.router_of(index));
        write_if_missing(&etc.join("machine-id"), &format!("{}\n", machine_id()?))?;
        write_if_missing(&etc.join("hostname"), &format!("{host}\n"))?;
        write_if_missing(&etc.join("hosts"), &format!("127.0.0.1 localhost\n{address} {host}\n"))?;
        // The router refuses port 53 at once, so lookups fail fast on a machine without internet.
        write_if_missing(&etc.join("resolv.conf"), &format!("nameserver {router}\n"))?;
        let settings = serde_json::to_string_pretty(&engine_settings(config, host))?;
        write_if_missing(&self.dir.join("etc-docker/daemon.json"), &settings)
    }

    /// Image layers are only ever read, so hard links are safe. The engine's small databases are copied.
    fn link_golden(&self, config: &Config) -> Result<()> {
        let golden = config.dir.join("golden");
        if !golden.join("content").exists() {
            return Ok(());
        }
        let docker = self.dir.join("docker");
        for (name, how) in [("overlay2", "-al"), ("image", "-a")] {
            let target = docker.join(name);
            remove_tree(&target)?;
            checked(Command::new("cp").arg(how).arg(golden.join(name)).arg(&target), "", COPY)?;
        }
        Ok(())
    }
}

/// Names of all hosts with a complete disk, in the order of their numbers.
pub fn hosts_on_disk(config: &Config) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(config.hosts_dir()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let disk = Disk::new(config, &name);
        if is_hostname(&name) && disk.exists() {
            found.push((disk.index()?, name));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Like `rm -rf`: absent is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn engine_settings(config: &Config, host: &str) -> serde_json::Value {
    json!({
        "storage-driver": "overlay2",
        // Newer engines would take containerd's store, which cannot share layers by hard links.
        "features": { "containerd-snapshotter": false },
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": format!("/{}/{host}", config.cgroup()),
        "live-restore": true,
        "userland-proxy": false,
        "log-driver": "json-file",
        "log-opts": { "max-size": "5m", "max-file": "2" },
        // Docker's own pools overlap the networks that Muster makes (172.30 and 172.31).
        "default-address-pools": [{ "base": "10.200.0.0/16", "size": 24 }],
    })
}

fn machine_id() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing a machine id")?;
    Ok(uuid.trim().replace('-', ""))
}

fn write_if_missing(path: &Path, content: &str) -> Result<()> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
