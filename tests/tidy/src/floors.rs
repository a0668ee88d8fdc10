//! Versions in `Cargo.lock` below which a crate has a known hole.

/// Crate, lowest version, and what was wrong before it. A crate that is not in the lock file is fine.
pub const FLOORS: &[(&str, &str, &str)] = &[
    ("crossbeam-channel", "0.5.15", "double free on drop"),
    ("h2", "0.4.16", "empty DATA frames without end; CONTINUATION and reset floods"),
    ("ring", "0.17.12", "panics with overflow checks"),
    ("rustls", "0.23.18", "a server can be made to panic"),
    ("rustls-webpki", "0.103.13", "a CRL panics before its signature is checked; name constraints"),
    ("tar", "0.4.45", "links out of the archive's folder"),
    ("time", "0.3.47", "stack exhaustion"),
    ("tokio", "1.44.2", "a broadcast channel that clones without Sync"),
    ("tonic", "0.12.3", "an accept error ends the server"),
    ("tracing-subscriber", "0.3.20", "escape sequences reach the log"),
    ("zip", "2.3.0", "links out of the archive's folder"),
];

/// Crates that must not be in the lock file at all: the same list as in `deny.toml`.
pub const BANNED: &[&str] = &["aws-lc-sys", "openssl-sys", "rustls-pemfile", "serde_yaml", "serde_yml"];

/// What a lock file has below its floor, or at all.
#[must_use]
pub fn below(lock: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, version) in packages(lock) {
        if BANNED.contains(&name) {
            found.push(format!("{name} {version} is banned"));
        }
        for (_, floor, why) in FLOORS.iter().filter(|(crate_name, ..)| *crate_name == name) {
            if numbers(version) < numbers(floor) {
                found.push(format!("{name} {version} is older than {floor}: {why}"));
            }
        }
    }
    found
}

/// Names and versions.
fn packages(lock: &str) -> Vec<(&str, &str)> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let value = |key: &str| {
                package
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
            };
            Some((value("name")?, value("version")?))
        })
        .collect()
}

/// A version as numbers; what comes after `-` or `+` is left out.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(name: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::read_to_string(root.join(name)).unwrap()
    }

    #[test]
    fn no_crate_is_below_its_floor() {
        let lock = read("Cargo.lock");
        assert!(packages(&lock).len() > 100, "the lock file was not read");
        assert_eq!(below(&lock), [] as [&str; 0]);
    }

    #[test]
    fn what_is_banned_here_is_banned_there() {
        let deny = read("deny.toml");
        for name in BANNED {
            assert!(deny.contains(&format!("name = \"{name}\"")), "{name} is not in deny.toml");
        }
    }

    #[test]
    fn older_and_banned_crates_are_named() {
        let package = |name: &str, version: &str| {
            below(&format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")).len()
        };
        assert_eq!(package("h2", "0.4.9"), 1);
        assert_eq!(package("h2", "0.4.16"), 0);
        assert_eq!(package("h2", "1.0.0-alpha.1"), 0);
        assert_eq!(package("serde_yaml", "0.9.34"), 1);
        assert_eq!(package("unknown", "0.0.1"), 0);
    }
}
