//! Says whether this machine can run a testbed and what to install if not; changes nothing.

use std::env;
use std::fs;
use std::path::Path;

use crate::cgroup::Cgroups;
use crate::config::Config;

/// Programs the testbed runs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 15] = [
    ("containerd", "containerd"),
    ("cp", "coreutils"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("env", "coreutils"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("sh", "dash"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    /// What to do about it; `None`: it is as it should be.
    pub remedy: Option<String>,
}

/// Looks at everything a testbed needs. Ready when no finding has a remedy.
pub fn doctor(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |what: &str, good: bool, remedy: &str| {
        let remedy = (!good).then(|| remedy.to_owned());
        findings.push(Finding { what: what.to_owned(), remedy });
    };
    check("root", rustix::process::geteuid().is_root(), "run it as root");
    for (program, package) in PROGRAMS {
        check(program, in_path(program), &format!("apt-get install {package}"));
    }
    let cgroups = Cgroups::detect().is_ok_and(|cgroups| cgroups.usable());
    check("cgroups with a freezer", cgroups, "mount -t cgroup2 cgroup2 /sys/fs/cgroup");
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let overlay = filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay");
    check("overlay file system", overlay, "modprobe overlay");
    let tun = Path::new("/dev/net/tun").exists();
    check("/dev/net/tun (WireGuard in userspace)", tun, "mkdir -p /dev/net && mknod /dev/net/tun c 10 200");
    let units = config.unit_dir.join("muster-agent.service").exists();
    check("unit files", units, "set MUSTER_TB_UNITS to the folder of the shipped unit files");
    let init = config.init_program().is_ok();
    check("program testbed", init, "cargo build -p muster-testbed");
    findings
}

fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
