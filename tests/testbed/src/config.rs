//! Decides names, places and sizes of one testbed, from the environment only; touches nothing.

use std::env;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Places that a host covers with something of its own: state below them would be hidden inside.
const HIDDEN_INSIDE: [&str; 7] = ["/run", "/etc", "/var/lib", "/usr", "/dev", "/proc", "/sys"];
/// `<prefix>-root` is an interface name, of which the kernel takes 15 characters.
const PREFIX_LENGTH_MAX: usize = 10;
const HOSTNAME_LENGTH_MAX: usize = 32;
const HOSTS_MAX: usize = 64;

/// One testbed. Two of them with other `dir`, `prefix` and `net` run side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// State: disks, logs, golden image store. `MUSTER_TB_DIR`.
    pub dir: PathBuf,
    /// Starts the name of every namespace, cgroup and link. `MUSTER_TB_PREFIX`.
    pub prefix: String,
    /// First two octets of all addresses. `MUSTER_TB_NET`.
    pub net: [u8; 2],
    /// Names of hosts in their order; empty: h1, h2 and so on. `MUSTER_TB_HOSTNAMES`.
    pub hostnames: Vec<String>,
    /// Memory limit of each host. `MUSTER_TB_MEM`, for example `2g`.
    pub memory_bytes: Option<u64>,
    /// Boot with `ip_forward` already on: Docker then leaves its FORWARD chain at ACCEPT. `MUSTER_TB_FORWARD=1`.
    pub forward: bool,
    /// Our programs, seen inside at /usr/local/lib/muster. `MUSTER_BIN_DIR`, by default where the running program is.
    pub bin_dir: PathBuf,
    /// Where bin/gotatun may be. `MUSTER_CACHE`.
    pub cache_dir: PathBuf,
    /// The shipped unit files. `MUSTER_TB_UNITS`, by default deploy/systemd of this repository.
    pub unit_dir: PathBuf,
}

impl Config {
    /// Errors: a variable that is set to something unusable, with its name.
    pub fn from_env() -> Result<Self> {
        let program = env::current_exe().context("finding the running program")?;
        Self::from_lookup(&program, |key| env::var(key).ok().filter(|value| !value.is_empty()))
    }

    fn from_lookup(program: &Path, get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let text = |key: &str, default: &str| get(key).unwrap_or_else(|| default.to_owned());
        let here = program.parent().unwrap_or_else(|| Path::new("/"));
        // Test programs of cargo live one folder below the binaries.
        let here = if here.ends_with("deps") { here.parent().unwrap_or(here) } else { here };
        let config = Self {
            dir: PathBuf::from(text("MUSTER_TB_DIR", "/var/tmp/muster-testbed")),
            prefix: text("MUSTER_TB_PREFIX", "mtb"),
            net: parse_net(&text("MUSTER_TB_NET", "198.18"))?,
            hostnames: parse_hostnames(&text("MUSTER_TB_HOSTNAMES", ""))?,
            memory_bytes: get("MUSTER_TB_MEM").map(|value| parse_size(&value)).transpose()?,
            forward: parse_switch("MUSTER_TB_FORWARD", &text("MUSTER_TB_FORWARD", "0"))?,
            bin_dir: get("MUSTER_BIN_DIR").map_or_else(|| here.to_path_buf(), PathBuf::from),
            cache_dir: PathBuf::from(text("MUSTER_CACHE", "/var/cache/muster")),
            unit_dir: get("MUSTER_TB_UNITS").map_or_else(shipped_units, PathBuf::from),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        for (key, path) in [("MUSTER_TB_DIR", &self.dir), ("MUSTER_BIN_DIR", &self.bin_dir)] {
            ensure!(path.is_absolute(), "{key}={}: must be absolute", path.display());
        }
        let clean = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        ensure!(
            self.dir.to_string_lossy().chars().all(clean),
            "MUSTER_TB_DIR: only letters, digits, and / . _ -"
        );
        if let Some(hidden) = HIDDEN_INSIDE.iter().find(|hidden| self.dir.starts_with(hidden)) {
            bail!("MUSTER_TB_DIR={}: hosts cover {hidden} with their own", self.dir.display());
        }
        ensure!(
            self.dir.components().count() > 2,
            "MUSTER_TB_DIR: `down` removes it, so not {}",
            self.dir.display()
        );
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        ensure!(
            (1..=PREFIX_LENGTH_MAX).contains(&self.prefix.len()) && self.prefix.chars().all(lower),
            "MUSTER_TB_PREFIX={}: 1 to {PREFIX_LENGTH_MAX} lower-case letters and digits",
            self.prefix
        );
        Ok(())
    }

    /// The environment that makes another process see the same testbed.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut pairs = vec![
            ("MUSTER_TB_DIR", path(&self.dir)),
            ("MUSTER_TB_PREFIX", self.prefix.clone()),
            ("MUSTER_TB_NET", format!("{}.{}", self.net[0], self.net[1])),
            ("MUSTER_TB_HOSTNAMES", self.hostnames.join(",")),
            ("MUSTER_TB_FORWARD", u8::from(self.forward).to_string()),
            ("MUSTER_BIN_DIR", path(&self.bin_dir)),
            ("MUSTER_CACHE", path(&self.cache_dir)),
            ("MUSTER_TB_UNITS", path(&self.unit_dir)),
        ];
        pairs.extend(self.memory_bytes.map(|bytes| ("MUSTER_TB_MEM", bytes.to_string())));
        pairs
    }

    /// The program that becomes pid 1 of a host.
    pub(crate) fn init_program(&self) -> Result<PathBuf> {
        let running = env::current_exe().context("finding the running program")?;
        if running.file_name().is_some_and(|name| name == "testbed") {
            return Ok(running);
        }
        let program = self.bin_dir.join("testbed");
        ensure!(
            program.is_file(),
            "{} is missing: build it (cargo build -p muster-testbed)",
            program.display()
        );
        Ok(program)
    }

    pub(crate) fn hosts_dir(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    /// The cgroup above all hosts. Never the bare prefix: `down` kills whatever is in it.
    pub(crate) fn cgroup(&self) -> String {
        format!("testbed-{}", self.prefix)
    }

    /// Name of the `position`th host, from 1.
    pub(crate) fn hostname(&self, position: usize) -> Result<String> {
        if self.hostnames.is_empty() {
            ensure!(position <= HOSTS_MAX, "at most {HOSTS_MAX} hosts");
            return Ok(format!("h{position}"));
        }
        self.hostnames.get(position - 1).cloned().with_context(|| {
            format!("MUSTER_TB_HOSTNAMES names {} hosts, number {position} is wanted", self.hostnames.len())
        })
    }

    /// The public address of the host with this number; `router_of` is its gateway.
    pub(crate) fn address_of(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.net[0], self.net[1], index, 2)
    }

    pub(crate) fn router_of(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.net[0], self.net[1], index, 1)
    }
}

/// Whether `name` can be a host: it becomes a folder, a namespace, a cgroup and a hostname.
pub fn is_hostname(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=HOSTNAME_LENGTH_MAX).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn shipped_units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd")
}

fn parse_net(value: &str) -> Result<[u8; 2]> {
    let octets: Vec<u8> = value.split('.').map_while(|part| part.parse().ok()).collect();
    match octets.as_slice() {
        [a, b] if value == format!("{a}.{b}") && (1..224).contains(a) && *a != 127 => Ok([*a, *b]),
        _ => bail!("MUSTER_TB_NET={value}: two octets such as 198.18"),
    }
}

fn parse_hostnames(value: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        ensure!(
            is_hostname(name),
            "MUSTER_TB_HOSTNAMES: {name}: lower-case letters, digits and inner dashes"
        );
        ensure!(!names.iter().any(|other| other == name), "MUSTER_TB_HOSTNAMES: {name} twice");
        names.push(name.to_owned());
    }
    ensure!(names.len() <= HOSTS_MAX, "MUSTER_TB_HOSTNAMES: at most {HOSTS_MAX} hosts");
    Ok(names)
}

fn parse_size(value: &str) -> Result<u64> {
    let lower = value.to_ascii_lowercase();
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (lower.as_str(), 0),
    };
    let number: u64 =
        digits.parse().ok().with_context(|| format!("MUSTER_TB_MEM={value}: a size such as 2g"))?;
    number.checked_mul(1 << shift).with_context(|| format!("MUSTER_TB_MEM={value}: too large"))
}

fn parse_switch(key: &str, value: &str) -> Result<bool> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => bail!("{key}={value}: 0 or 1"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config> {
        let map: BTreeMap<_, _> = pairs.iter().copied().collect();
        Config::from_lookup(Path::new("/build/debug/deps/scenario-12ab"), |key| {
            map.get(key).map(|v| (*v).to_owned())
        })
    }

    #[test]
    fn everything_has_a_default() {
        let config = config(&[]).unwrap();
        assert_eq!(config.hostname(2).unwrap(), "h2");
        assert_eq!(config.address_of(3).to_string(), "198.18.3.2");
        assert_eq!(config.bin_dir, Path::new("/build/debug"));
    }

    #[test]
    fn another_process_sees_the_same_testbed() {
        let pairs = [
            ("MUSTER_TB_DIR", "/var/tmp/other"),
            ("MUSTER_TB_PREFIX", "zz9"),
            ("MUSTER_TB_NET", "10.99"),
            ("MUSTER_TB_HOSTNAMES", "oslo,rome-2"),
            ("MUSTER_TB_MEM", "2g"),
            ("MUSTER_TB_FORWARD", "1"),
            ("MUSTER_BIN_DIR", "/opt/bin"),
        ];
        let first = config(&pairs).unwrap();
        assert_eq!(first.memory_bytes, Some(2 << 30));
        let environment = first.environment();
        let pairs: Vec<_> = environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(config(&pairs).unwrap(), first);
    }

    #[test]
    fn unusable_values_are_refused_by_name() {
        for (key, value) in [
            ("MUSTER_TB_DIR", "relative"),
            ("MUSTER_TB_DIR", "/var"),
            ("MUSTER_TB_DIR", "/var/lib/x"),
            ("MUSTER_TB_DIR", "/srv/a b"),
            ("MUSTER_TB_PREFIX", "Has-Dash"),
            ("MUSTER_TB_PREFIX", "elevenchars"),
            ("MUSTER_TB_NET", "198.18.0"),
            ("MUSTER_TB_NET", "300.1"),
            ("MUSTER_TB_NET", "127.0"),
            ("MUSTER_TB_HOSTNAMES", "a,a"),
            ("MUSTER_TB_HOSTNAMES", "../a"),
            ("MUSTER_TB_MEM", "much"),
            ("MUSTER_TB_MEM", "99999999999999g"),
            ("MUSTER_TB_FORWARD", "yes"),
        ] {
            let error = config(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key), "{key}={value}: {error}");
        }
    }

    #[test]
    fn named_hosts_run_out() {
        let config = config(&[("MUSTER_TB_HOSTNAMES", "oslo,rome")]).unwrap();
        assert_eq!(config.hostname(2).unwrap(), "rome");
        assert!(config.hostname(3).is_err());
    }
}
