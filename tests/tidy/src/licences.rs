//! Rules for crates of others, read from `deny.toml`: licences, banned crates, sources. What `cargo deny` checks as well,
//! without having to build it; advisories need its database and are not looked at here.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

/// Where crates may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The part of `deny.toml` that is checked.
#[derive(Debug, Deserialize)]
pub struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    name: String,
    reason: String,
}

impl Rules {
    /// # Errors
    /// Not TOML, or not of this form.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// What is wrong with the crates of `cargo metadata`'s JSON, one line each.
    #[must_use]
    pub fn broken_by(&self, metadata: &Value) -> Vec<String> {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        packages
            .filter(|package| !package["source"].is_null())
            .flat_map(|package| self.judge(package))
            .collect()
    }

    fn judge(&self, package: &Value) -> Vec<String> {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let (name, licence) = (text("name"), text("license"));
        let mut wrong = Vec::new();
        if let Some(banned) = self.bans.deny.iter().find(|banned| banned.name == name) {
            wrong.push(format!("{name} is banned: {}", banned.reason));
        }
        if text("source") != REGISTRY {
            wrong.push(format!("{name} comes from {}", text("source")));
        }
        if !self.allows(name, licence) {
            wrong.push(format!("{name} has the licence `{licence}`, which deny.toml does not allow"));
        }
        wrong
    }

    fn allows(&self, name: &str, licence: &str) -> bool {
        let own = self.licenses.exceptions.iter().filter(|exception| exception.name == name);
        let allowed: BTreeSet<&str> =
            self.licenses.allow.iter().chain(own.flat_map(|one| &one.allow)).map(String::as_str).collect();
        let term = |required: &LicenseReq| allowed.contains(required.to_string().as_str());
        Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|parsed| parsed.evaluate(term))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Rules {
        Rules::parse(include_str!("../../../deny.toml")).expect("deny.toml")
    }

    #[test]
    fn every_crate_may_be_used() {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let others = metadata["packages"].as_array().map_or(0, Vec::len);
        assert!(others > 100, "{others} packages: the list is not whole");
        assert_eq!(rules().broken_by(&metadata), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let one = |name: &str, license: &str, source: &str| {
            let package = json!({ "name": name, "license": license, "source": source });
            rules().broken_by(&json!({ "packages": [package] }))
        };
        assert_eq!(one("a", "MIT OR GPL-3.0", REGISTRY), Vec::<String>::new());
        assert_eq!(one("a", "MIT/Apache-2.0", REGISTRY), Vec::<String>::new(), "the old way to write OR");
        assert_eq!(one("webpki-roots", "CDLA-Permissive-2.0", REGISTRY), Vec::<String>::new());
        for wrong in [
            one("a", "GPL-3.0", REGISTRY),
            one("a", "MIT AND GPL-3.0", REGISTRY),
            one("a", "", REGISTRY),
            one("a", "CDLA-Permissive-2.0", REGISTRY),
            one("a", "MIT", "git+https://example.org/a"),
            one("openssl-sys", "MIT", REGISTRY),
        ] {
            assert_eq!(wrong.len(), 1, "{wrong:?}");
        }
        let ours = json!({ "packages": [{ "name": "muster-core", "license": null, "source": null }] });
        assert!(rules().broken_by(&ours).is_empty());
    }
}
