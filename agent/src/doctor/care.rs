//! Checks of what else lives on a host and may disturb members later: settings of the kernel, upgrades, firewalls. They
//! read files below a root, so that tests can make any host.

use std::fs;
use std::path::Path;

use super::finding::Finding;

/// Bytes that the mesh takes of each packet outside: 60 with IPv4, 80 with IPv6.
const MESH_TAKES: u32 = 80;
/// Above this the kernel swaps out processes to keep file caches.
const SWAPPINESS_MAX: u32 = 10;

/// All checks that need files only.
pub fn checks(root: &Path) -> Vec<Finding> {
    vec![kernel(root), huge_pages(root), swap(root), upgrades(root)]
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_default()
}

/// Memory limits of containers, and that connections to a dead host can be destroyed.
fn kernel(root: &Path) -> Finding {
    let check = "kernel";
    let two = read(root, "sys/fs/cgroup/cgroup.controllers");
    let memory =
        two.split_whitespace().any(|one| one == "memory") || root.join("sys/fs/cgroup/memory").is_dir();
    if !memory {
        return Finding::fail(
            check,
            "no memory controller for cgroups: limits of members would not hold",
            "put `cgroup_enable=memory` on the kernel's command line (Debian: GRUB_CMDLINE_LINUX in /etc/default/grub, \
             `update-grub`) and reboot",
        );
    }
    let release = read(root, "proc/sys/kernel/osrelease");
    let config = read(root, &format!("boot/config-{}", release.trim()));
    if !config.is_empty() && !config.lines().any(|line| line == "CONFIG_INET_DIAG_DESTROY=y") {
        return Finding::warn(
            check,
            "without CONFIG_INET_DIAG_DESTROY connections to a dead host stay open until clients time out",
            "use the distribution's own kernel: Debian's and Ubuntu's have it",
        );
    }
    Finding::ok(check, format!("{}, memory limits", release.trim()))
}

fn huge_pages(root: &Path) -> Finding {
    let check = "huge pages";
    let enabled = read(root, "sys/kernel/mm/transparent_hugepage/enabled");
    if enabled.contains("[always]") {
        return Finding::warn(
            check,
            "transparent huge pages are `always`: Redis answers late and takes twice its memory while it saves",
            "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, and transparent_hugepage=madvise on the \
             kernel's command line to keep it",
        );
    }
    Finding::ok(check, if enabled.is_empty() { "the kernel has none" } else { "only for programs that ask" })
}

fn swap(root: &Path) -> Finding {
    let check = "swap";
    // The first line is a heading.
    let areas = read(root, "proc/swaps").lines().skip(1).count();
    if areas == 0 {
        return Finding::ok(check, "none");
    }
    let swappiness: u32 = read(root, "proc/sys/vm/swappiness").trim().parse().unwrap_or_default();
    if swappiness <= SWAPPINESS_MAX {
        return Finding::ok(check, format!("in use only when memory is short (swappiness {swappiness})"));
    }
    Finding::warn(
        check,
        format!(
            "swappiness is {swappiness}: databases are swapped out in favour of file caches, and answer late"
        ),
        "`echo vm.swappiness=1 > /etc/sysctl.d/60-muster.conf && sysctl --system`",
    )
}

/// Upgrades that come by themselves restart Docker at a time that nobody chose, on all hosts in the same hour.
fn upgrades(root: &Path) -> Finding {
    let check = "upgrades";
    let mut text = String::new();
    let files = fs::read_dir(root.join("etc/apt/apt.conf.d")).into_iter().flatten().flatten();
    for file in files {
        text.push_str(&fs::read_to_string(file.path()).unwrap_or_default());
        text.push('\n');
    }
    let said = |line: &&str| !line.trim_start().starts_with("//") && !line.trim_start().starts_with('#');
    let lines: Vec<&str> = text.lines().filter(said).collect();
    let on = lines
        .iter()
        .any(|line| line.contains("APT::Periodic::Unattended-Upgrade") && !line.contains("\"0\""));
    let installed = root.join("usr/bin/unattended-upgrade").exists();
    let excluded =
        |package: &str| lines.iter().any(|line| line.trim_start().starts_with(&format!("\"{package}")));
    if !(on && installed) || (excluded("docker") && excluded("containerd")) {
        return Finding::ok(check, "nothing restarts Docker by itself");
    }
    Finding::warn(
        check,
        "unattended-upgrades may restart Docker, and without live-restore all members, at any time",
        "put `Unattended-Upgrade::Package-Blacklist { \"docker\"; \"containerd\"; \"runc\"; };` into \
         /etc/apt/apt.conf.d/52muster, and upgrade Docker host by host (docs/tasks/maintenance.md)",
    )
}

/// The interface of the default route, in the words of `ip -j route show default`, must carry full packets of the mesh.
pub fn uplink(root: &Path, routes: &str, mesh_mtu: u16) -> Finding {
    let check = "uplink";
    let routes: serde_json::Value = serde_json::from_str(routes).unwrap_or_default();
    let Some(device) = routes[0]["dev"].as_str() else {
        return Finding::warn(check, "no default route", "other hosts must be reachable: look at `ip route`");
    };
    let mtu: u32 = read(root, &format!("sys/class/net/{device}/mtu")).trim().parse().unwrap_or_default();
    let needed = u32::from(mesh_mtu) + MESH_TAKES;
    if mtu >= needed {
        return Finding::ok(check, format!("MTU of {device} is {mtu}, the mesh needs {needed}"));
    }
    Finding::fail(
        check,
        format!("MTU of {device} is {mtu}, the mesh needs {needed}: large answers would hang"),
        format!(
            "raise it to {needed}, or set the mesh's mtu to {} in the spec before members are placed",
            mtu.saturating_sub(MESH_TAKES)
        ),
    )
}

/// Firewalls of others, in the words of `nft -s list ruleset`.
pub fn firewall(ruleset: &str, mesh_port: u16) -> Finding {
    let check = "host firewall";
    if ruleset.lines().any(|line| line == "table inet firewalld {") {
        return Finding::warn(
            check,
            "firewalld runs: it rejects what comes out of the mesh for members, and a reload takes Docker's rules away",
            format!(
                "`firewall-cmd --permanent --zone=trusted --add-interface=muster0 && firewall-cmd --permanent \
                 --add-port={mesh_port}/udp && firewall-cmd --reload`, then `systemctl restart docker`"
            ),
        );
    }
    let port = mesh_port.to_string();
    let names = |line: &str| {
        line.contains("dport") && line.split(|c: char| !c.is_ascii_digit()).any(|word| word == port)
    };
    match dropping_chain(ruleset) {
        Some(chain) if !ruleset.lines().any(names) => Finding::warn(
            check,
            format!("{chain} drops what it does not know, and no rule names the mesh's port {port}/udp"),
            format!("let it in: `ufw allow {port}/udp`, or `udp dport {port} accept` in that chain"),
        ),
        Some(chain) => {
            Finding::ok(check, format!("{chain} drops what it does not know; {port}/udp has a rule"))
        }
        None => Finding::ok(check, "nothing is dropped by default"),
    }
}

/// The first chain that incoming packets pass and whose policy is to drop.
fn dropping_chain(ruleset: &str) -> Option<String> {
    let (mut table, mut chain) = ("", "");
    for line in ruleset.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.trim_start().strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if line.contains("hook input") && line.contains("policy drop") {
            return Some(format!("chain {chain} of table {table}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// A host made of these files.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const CONTROLLERS: (&str, &str) = ("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n");
    const RELEASE: (&str, &str) = ("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n");

    #[test]
    fn a_good_host_has_nothing_to_say() {
        let good = host(&[
            CONTROLLERS,
            RELEASE,
            ("boot/config-6.1.0-28-amd64", "CONFIG_INET_DIAG=m\nCONFIG_INET_DIAG_DESTROY=y\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n"),
        ]);
        let found = checks(good.path());
        assert!(found.iter().all(|finding| finding.verdict == Verdict::Ok), "{found:?}");
    }

    #[test]
    fn the_kernels_shortcomings_are_named() {
        assert_eq!(kernel(host(&[RELEASE]).path()).verdict, Verdict::Fail, "no memory controller");
        let old = host(&[
            CONTROLLERS,
            RELEASE,
            ("boot/config-6.1.0-28-amd64", "# CONFIG_INET_DIAG_DESTROY is not set\n"),
        ]);
        assert_eq!(kernel(old.path()).verdict, Verdict::Warn);
        assert_eq!(
            kernel(host(&[CONTROLLERS, RELEASE]).path()).verdict,
            Verdict::Ok,
            "not known is not wrong"
        );
    }

    #[test]
    fn memory_settings_that_hurt_databases_are_named() {
        let always = host(&[("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")]);
        assert_eq!(huge_pages(always.path()).verdict, Verdict::Warn);
        let swaps = ("proc/swaps", "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n");
        assert_eq!(swap(host(&[swaps, ("proc/sys/vm/swappiness", "60\n")]).path()).verdict, Verdict::Warn);
        assert_eq!(swap(host(&[swaps, ("proc/sys/vm/swappiness", "1\n")]).path()).verdict, Verdict::Ok);
    }

    #[test]
    fn upgrades_that_come_by_themselves_are_fine_only_without_docker() {
        let program = ("usr/bin/unattended-upgrade", "");
        let auto = ("etc/apt/apt.conf.d/20auto-upgrades", "APT::Periodic::Unattended-Upgrade \"1\";\n");
        let comment = (
            "etc/apt/apt.conf.d/50unattended-upgrades",
            "Unattended-Upgrade::Package-Blacklist {\n//  \"docker\";\n//  \"containerd\";\n};\n",
        );
        let listed = (
            "etc/apt/apt.conf.d/52muster",
            "Unattended-Upgrade::Package-Blacklist {\n  \"docker\";\n  \"containerd\";\n};\n",
        );
        assert_eq!(upgrades(host(&[program, auto, comment]).path()).verdict, Verdict::Warn);
        assert_eq!(upgrades(host(&[program, auto, listed]).path()).verdict, Verdict::Ok);
        assert_eq!(upgrades(host(&[auto]).path()).verdict, Verdict::Ok, "not installed");
        let off = ("etc/apt/apt.conf.d/20auto-upgrades", "APT::Periodic::Unattended-Upgrade \"0\";\n");
        assert_eq!(upgrades(host(&[program, off]).path()).verdict, Verdict::Ok);
        let commented =
            ("etc/apt/apt.conf.d/20auto-upgrades", "//APT::Periodic::Unattended-Upgrade \"1\";\n");
        assert_eq!(upgrades(host(&[program, commented]).path()).verdict, Verdict::Ok);
    }

    #[test]
    fn an_uplink_must_carry_a_full_packet_of_the_mesh() {
        let routes = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"}]"#;
        let verdict =
            |mtu: &str| uplink(host(&[("sys/class/net/eth0/mtu", mtu)]).path(), routes, 1_370).verdict;
        assert_eq!(verdict("1500\n"), Verdict::Ok);
        assert_eq!(verdict("1450\n"), Verdict::Ok);
        assert_eq!(verdict("1400\n"), Verdict::Fail);
        assert_eq!(uplink(host(&[]).path(), "[]", 1_370).verdict, Verdict::Warn, "no default route");
    }

    #[test]
    fn a_firewall_that_drops_must_know_the_mesh() {
        let of = |rule: &str| {
            format!(
                "table inet muster {{\n\tchain input {{\n\t\ttype filter hook input priority -10; policy accept;\n\t}}\n}}\n\
                 table inet own {{\n\tchain in {{\n\t\ttype filter hook input priority filter; policy drop;\n\t\t{rule}\n\t}}\n}}\n"
            )
        };
        let closed = firewall(&of("tcp dport 22 accept"), 51_820);
        assert_eq!(closed.verdict, Verdict::Warn);
        assert!(closed.finding.starts_with("chain in of table inet own drops"), "{}", closed.finding);
        assert_eq!(firewall(&of("udp dport { 500, 51820 } accept"), 51_820).verdict, Verdict::Ok);
        assert_eq!(firewall(&of("udp dport 518200 accept"), 51_820).verdict, Verdict::Warn);
        assert_eq!(firewall("table inet firewalld {\n}\n", 51_820).verdict, Verdict::Warn);
        assert_eq!(firewall("", 51_820).verdict, Verdict::Ok);
    }
}
