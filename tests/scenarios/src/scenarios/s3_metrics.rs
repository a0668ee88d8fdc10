//! Relays beside the servers of S3: read from the monitoring network and from no other, by nobody through the proxies; what it
//! takes to turn them on and off.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::metrics::page;
use super::s3::{finish, name, spec, writer};
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::specs;

pub const METRICS: Scenario = Scenario {
    name: "s3-metrics",
    what: "metrics of S3 turned on under load, read where they may be and nowhere else, and turned off",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: metrics,
};

const SOON: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(180);
/// Where Prometheus would be, and an application that uses the storage.
const WATCHER: (&str, &str) = ("watcher", "monnet");
const CLIENT: (&str, &str) = ("shopfront", "stornet");

fn metrics(platform: &Platform) -> Result<Value> {
    let service = name(platform);
    let usual = spec(platform, specs::S3_IMAGE);
    let apps: String = [WATCHER, CLIENT]
        .iter()
        .map(|(app, network)| specs::client(app, &platform.settings, network, 1, false))
        .collect();
    platform.apply(&format!("{usual}{apps}"))?;
    let writing = writer(platform, "metrics", None)?;
    let told = usual.replacen("    kind: s3\n", "    kind: s3\n    metrics: true\n", 1);
    platform.apply(&format!("{told}{apps}"))?;
    let on = finish(platform, writing)?;
    let series = read(platform, service)?;
    refused(platform, service)?;
    platform.apply(&format!("{usual}{apps}"))?;
    for (app, _) in [WATCHER, CLIENT] {
        platform.cli.run(&["--yes", "service", "remove", app, "--destroy-data"])?;
    }
    platform.wait_healthy(service, WHOLE)?;
    Ok(json!({ "on": on, "series": series }))
}

/// Every relay gives the pages of its own server to the watcher, and nothing to the client. The number of series, by slot.
fn read(platform: &Platform, service: &str) -> Result<BTreeMap<String, usize>> {
    let relays = platform.wait_healthy(&format!("{service}-metrics"), WHOLE)?.members.len();
    let count = platform.wait_healthy(service, WHOLE)?.members.len();
    let targets: Vec<Value> = platform.cli.json(&["metrics", service])?;
    ensure!(
        relays == count && targets.len() == count,
        "{relays} relays, {} targets of {count}",
        targets.len()
    );
    let mut series = BTreeMap::new();
    for target in targets {
        let address = target["targets"][0].as_str().context("no target")?;
        let slot = target["labels"]["slot"].as_str().context("no slot")?;
        let own = slot.replace('/', "-");
        let text = wait(&format!("metrics of {slot}"), SOON, || {
            let text = page(platform, WATCHER.0, address, "/metrics")?;
            let line = |line: &str| line.starts_with("minio_node_") && line.contains(&own);
            ensure!(text.lines().any(line), "no series of {own}: {text}");
            Ok(text)
        })?;
        let whole = page(platform, WATCHER.0, address, "/cluster")?;
        ensure!(whole.contains("minio_cluster_health_status"), "{whole}");
        ensure!(
            page(platform, WATCHER.0, address, "/minio/admin/v3/info").is_err(),
            "more than metrics is relayed"
        );
        ensure!(page(platform, CLIENT.0, address, "/metrics").is_err(), "{} reads {address}", CLIENT.0);
        series.insert(slot.to_owned(), text.lines().filter(|line| !line.starts_with('#')).count());
    }
    Ok(series)
}

/// A client gets them neither from the proxies, however it writes the path, nor from a server.
fn refused(platform: &Platform, service: &str) -> Result<()> {
    let proxies = platform.wait_healthy(&format!("{service}-proxy"), WHOLE)?;
    let proxy =
        proxies.members.first().and_then(|member| member.addresses.values().next()).context("no proxy")?;
    let alive = page(platform, CLIENT.0, &format!("{proxy}:9000"), "/minio/health/live");
    ensure!(alive.is_ok(), "the client does not reach the proxies: {alive:?}");
    for path in ["/minio/v2/metrics/node", "/minio/v2/%6detrics/cluster", "/minio/prometheus/metrics"] {
        let said = page(platform, CLIENT.0, &format!("{proxy}:9000"), path);
        ensure!(said.is_err(), "{path} through a proxy: {said:?}");
    }
    for member in &platform.wait_healthy(service, WHOLE)?.members {
        let address = member.addresses.values().next().context("no address")?;
        let said = page(platform, CLIENT.0, &format!("{address}:9000"), "/minio/v2/metrics/node");
        ensure!(said.is_err(), "{} tells a client: {said:?}", member.slot);
    }
    Ok(())
}
