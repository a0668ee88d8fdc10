//! A client that writes steadily and keeps a ledger, in the network of a host of our choice.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Value, json};

use crate::clock::{now_ms, wait};
use crate::platform::{Platform, exec};

/// Longest time until it writes steadily.
const STEADY: Duration = Duration::from_secs(30);

/// Longest time until what was acknowledged is compared: what is denied is asked for again.
const VERIFIED: Duration = Duration::from_secs(180);

/// Where the hosts have the CA's certificate, for the connection strings of [`connections`].
pub const CA: &str = "/var/lib/muster/scenario-ca.pem";

/// A running writer.
pub struct Writer {
    host: Host,
    child: std::process::Child,
    config: String,
    ledger: String,
    port: u16,
}

impl Writer {
    /// Starts it on a host, against connection strings with passwords.
    ///
    /// # Errors
    /// It does not start, or does not write steadily.
    pub fn start(host: Host, name: &str, endpoints: &[String], port: u16) -> Result<Self> {
        Self::of("postgres", host, name, endpoints, port)
    }

    /// The same for any engine that it knows.
    ///
    /// # Errors
    /// It does not start.
    pub fn of(engine: &str, host: Host, name: &str, endpoints: &[String], port: u16) -> Result<Self> {
        let run = format!("{name}-{}", now_ms());
        let config = format!("/var/lib/muster/{run}.json");
        let ledger = format!("/var/lib/muster/{run}.ledger");
        let body = json!({
            "engine": engine,
            "endpoints": endpoints,
            "run": run,
            "ledger": ledger,
            "listen": format!("127.0.0.1:{port}"),
            "writes_per_second": 40,
        });
        exec(&host, &["sh", "-c", &format!("umask 077; printf '%s' '{body}' > {config}")])?;
        let words = ["/usr/local/lib/muster/muster-writer", "run", "--config", &config];
        let child = host.spawn(&words, &format!("{name}.log"))?;
        Ok(Self { host, child, config, ledger, port })
    }

    /// Waits until it is acknowledged steadily.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_steady(&self) -> Result<()> {
        wait("steady writes", STEADY, || {
            let status = self.status()?;
            ensure!(status["steady"] == true, "{status}");
            Ok(())
        })
    }

    fn status(&self) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/status", self.port);
        let out = exec(&self.host, &["curl", "-fsS", "-m", "2", &url])?;
        serde_json::from_str(&out).with_context(|| format!("status {out}"))
    }

    /// When rows were acknowledged so far, milliseconds since 1970, from the ledger on disk.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn acknowledged(&self) -> Result<Vec<u64>> {
        let text = exec(&self.host, &["cat", &self.ledger])?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let answers = lines.filter_map(|line| line.get("answer").cloned());
        let good = answers.filter(|answer| answer["unknown"].is_null());
        Ok(good.filter_map(|answer| answer["at"].as_u64()).collect())
    }

    /// What it is compared through in the end: the running one goes on as it is.
    ///
    /// # Errors
    /// Its configuration cannot be written.
    pub fn with_endpoints(self, endpoints: &[String]) -> Result<Self> {
        let mut body: Value = serde_json::from_str(&exec(&self.host, &["cat", &self.config])?)?;
        body["endpoints"] = json!(endpoints);
        exec(&self.host, &["sh", "-c", &format!("printf '%s' '{body}' > {}", self.config)])?;
        Ok(self)
    }

    /// Stops it and compares its ledger with the database.
    ///
    /// # Errors
    /// It does not stop, or the database cannot be read.
    pub fn finish(mut self) -> Result<Value> {
        self.end()?;
        let words = ["/usr/local/lib/muster/muster-writer", "verify", "--config", &self.config];
        let out = self.host.exec_within(&words, VERIFIED)?;
        ensure!(out.success(), "verify: {}{}", out.stdout, out.stderr);
        serde_json::from_str(&out.stdout).with_context(|| format!("verify said {}", out.stdout))
    }

    /// Stops it; nothing is compared.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        exec(&self.host, &["pkill", "-TERM", "-f", &format!("muster-writer run --config {}", self.config)])?;
        for _ in 0..100 {
            if self.child.try_wait()?.is_some() {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Connection strings of a service by role, with passwords.
///
/// # Errors
/// The service has none.
pub fn connections(platform: &Platform, role: &str) -> Result<Vec<String>> {
    connections_of(platform, platform.settings.service.as_str(), role)
}

/// The same for any service.
///
/// # Errors
/// The service has none.
pub fn connections_of(platform: &Platform, service: &str, role: &str) -> Result<Vec<String>> {
    let pem = platform.cli.run(&["ca"])?;
    let write = format!("printf '%s' '{pem}' > {CA}");
    for host in platform.hosts()? {
        // One without power has no use for it.
        let _ = host.exec(&["sh", "-c", &write]);
    }
    let by_role: BTreeMap<String, Vec<String>> = platform.cli.json(&["conn", service, "--ca", CA])?;
    let urls = by_role.get(role).cloned().unwrap_or_default();
    ensure!(!urls.is_empty(), "no connection string for {role} in {by_role:?}");
    Ok(urls)
}

/// Nothing acknowledged may be missing, and enough must have been acknowledged for that to mean something.
///
/// # Errors
/// Something is missing, or too little was written.
pub fn judge_losses(summary: &Value, acked_min: u64) -> Result<()> {
    let number = |key: &str| summary[key].as_u64().with_context(|| format!("no {key} in {summary}"));
    ensure!(number("acked_lost_count")? == 0, "acknowledged rows are lost: {summary}");
    ensure!(number("acked")? >= acked_min, "only {} rows acknowledged, {acked_min} needed", number("acked")?);
    Ok(())
}
