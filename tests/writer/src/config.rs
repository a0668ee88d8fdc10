//! What a writer is told: where to write, how fast, where its ledger is. Reads and judges one file.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use serde::Deserialize;

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The engine, by the name that [`crate::engine::servers`] knows.
    pub engine: String,
    /// Connection strings; one may name several servers.
    pub endpoints: Vec<String>,
    /// Marks what this writer writes.
    pub run: String,
    /// The ledger.
    pub ledger: PathBuf,
    /// Where the status is served; absent = nowhere.
    #[serde(default)]
    pub listen: Option<String>,
    /// Writes per second.
    #[serde(default = "default_rate")]
    pub writes_per_second: u32,
    /// Ask nothing of a server but that it answers: it may be a replica.
    #[serde(skip)]
    pub any_server: bool,
}

const fn default_rate() -> u32 {
    50
}

impl Config {
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let config: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        ensure!(!config.endpoints.is_empty(), "no endpoints");
        ensure!((1..=1_000).contains(&config.writes_per_second), "writes_per_second must be 1 to 1000");
        ensure!(!config.run.is_empty() && config.run.len() <= 100, "run must have 1 to 100 characters");
        Ok(config)
    }

    /// The same for the server at `place` alone, with a ledger and a run of its own.
    pub fn member_direct(mut self, place: usize) -> anyhow::Result<Self> {
        self.any_server = true;
        let count = self.endpoints.len();
        let Some(endpoint) = self.endpoints.get(place).cloned() else {
            bail!("there are {count} endpoints, counted from 0");
        };
        self.endpoints = vec![endpoint];
        self.run = format!("{}.{place}", self.run);
        self.ledger.as_mut_os_string().push(format!(".{place}"));
        self.listen = None;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::servers;

    fn config(json: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("writer.json");
        std::fs::write(&path, json)?;
        Config::load(&path)
    }

    const GOOD: &str = r#"{"engine":"postgres","run":"r","ledger":"/data/ledger","writes_per_second":20,
        "endpoints":["postgresql://u:p@10.0.0.1:5000,10.0.0.2:5001/d?target_session_attrs=read-write"]}"#;

    #[test]
    fn one_string_can_name_several_servers() {
        let servers = servers(&config(GOOD).unwrap()).unwrap();
        let labels: Vec<&str> = servers.iter().map(|server| server.label()).collect();
        assert_eq!(labels, ["10.0.0.1:5000", "10.0.0.2:5001"]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (from, to) in [
            ("\"writes_per_second\":20", "\"writes_per_second\":0"),
            ("\"run\":\"r\"", "\"run\":\"\""),
            ("\"run\"", "\"ran\""),
        ] {
            assert!(config(&GOOD.replace(from, to)).is_err(), "{to}");
        }
        assert!(servers(&config(&GOOD.replace("\"postgres\"", "\"oracle\"")).unwrap()).is_err());
        assert!(servers(&config(&GOOD.replace("10.0.0.1:5000", ":x")).unwrap()).is_err());
    }

    #[test]
    fn a_direct_writer_has_a_ledger_of_its_own() {
        let direct = config(GOOD).unwrap().member_direct(0).unwrap();
        assert_eq!((direct.ledger.to_str(), direct.run.as_str()), (Some("/data/ledger.0"), "r.0"));
        assert!(config(GOOD).unwrap().member_direct(1).is_err());
    }
}
