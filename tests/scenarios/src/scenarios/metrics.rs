//! Exporters beside members: they answer in the monitoring network and in no other, tell of the member that they are for,
//! show no password, and whatever becomes of them, the members do not notice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_model::view::{MemberView, ServiceView};
use serde_json::{Value, json};

use super::{network::container, postgres, rotate};
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::specs;

const SOON: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(180);
/// An application in the monitoring network, where Prometheus would be.
const WATCHER: &str = "watcher";
/// Where an exporter's password is, if it has one.
const PASSWORD: &str = "/muster/password";

/// Applications in other networks.
const STRANGERS: [&str; 2] = ["dbclient", "outsider"];

/// PostgreSQL, MariaDB and Redis, first without, then with exporters, then without again: no member is started again.
pub fn metrics(platform: &Platform) -> Result<Value> {
    let settings = &platform.settings;
    let database = settings.service.as_str();
    let services = [
        (database, "pg_up"),
        (settings.mariadb.as_str(), "mysql_up"),
        (settings.cache_service.as_str(), "redis_up"),
    ];
    platform.apply(&spec(platform, "")?)?;
    let mut before = Vec::new();
    for (service, _) in services {
        before.push(platform.wait_healthy(service, WHOLE)?.members);
    }
    platform.apply(&spec(platform, "    metrics: true\n")?)?;
    let mut series = BTreeMap::new();
    for (service, up) in services {
        series.insert(service, answers(platform, service, up)?);
        beside(platform, service)?;
        hidden(platform, service)?;
        platform.cli.run(&["--yes", "secret", "rotate", &format!("{service}/metrics")])?;
        answers(platform, service, up)?;
    }
    without_image(
        platform,
        database,
        &spec(platform, "    metrics: true\n    metrics_image: muster/nowhere:1\n")?,
    )?;
    let only_over_tls =
        spec(platform, "    metrics: true\n")?.replacen("mode: ha\n", "mode: ha\n    tls: required\n", 1);
    platform.apply(&only_over_tls)?;
    answers(platform, database, "pg_up")?;
    platform.apply(&spec(platform, "")?)?;
    for ((service, _), before) in services.iter().zip(&before) {
        rotate::untouched(before, &platform.wait_healthy(service, WHOLE)?.members)?;
    }
    for service in [WATCHER, services[1].0, services[2].0] {
        platform.cli.run(&["--yes", "service", "remove", service, "--destroy-data"])?;
    }
    platform.wait_healthy(database, WHOLE)?;
    Ok(json!({ "series": series, "strangers": STRANGERS }))
}

/// The platform of PostgreSQL's scenarios with two engines more, and a place to read from; `more` stands in each service.
fn spec(platform: &Platform, more: &str) -> Result<String> {
    let settings = &platform.settings;
    let (mariadb, redis) = (&settings.mariadb, &settings.cache_service);
    let others = format!(
        "  {mariadb}:\n    kind: mariadb\n    resources: {{ memory: 512MiB }}\n{more}  \
           {redis}:\n    kind: redis\n    resources: {{ memory: 128MiB }}\n{more}"
    );
    let database = postgres::spec_with(platform, specs::IMAGE, "")?;
    let database = database.replacen("    mode: ha\n", &format!("    mode: ha\n{more}"), 1);
    Ok(database + &others + &specs::client(WATCHER, settings, "monnet", 1, false))
}

fn exporters(platform: &Platform, service: &str) -> Result<ServiceView> {
    platform.wait_healthy(&format!("{service}-metrics"), WHOLE)
}

/// Every exporter says from the watcher's place that it reaches its member, and cannot be reached from the strangers',
/// nor at an address in another network. The number of its series, by slot.
fn answers(platform: &Platform, service: &str, up: &str) -> Result<BTreeMap<String, usize>> {
    let count = platform.wait_healthy(service, WHOLE)?.members.len();
    let exporters = exporters(platform, service)?;
    ensure!(exporters.members.len() == count, "{} exporters of {count}", exporters.members.len());
    let urls: Vec<Value> = platform.cli.json(&["metrics", service])?;
    ensure!(urls.len() == count, "{} targets of {count}", urls.len());
    let mut series = BTreeMap::new();
    let mut port = String::new();
    for url in urls {
        let target = url["targets"][0].as_str().context("no target")?;
        let slot = url["labels"]["slot"].as_str().context("no slot")?;
        let page = wait(&format!("{up} of {slot}"), SOON, || {
            let page = read(platform, WATCHER, target)?;
            ensure!(page.lines().any(|line| line == format!("{up} 1")), "{slot} is not up: {page}");
            Ok(page)
        })?;
        series.insert(slot.to_owned(), page.lines().filter(|line| !line.starts_with('#')).count());
        for stranger in STRANGERS {
            ensure!(read(platform, stranger, target).is_err(), "{stranger} reads {target}");
        }
        port = target.split(':').nth(1).context("no port")?.to_owned();
    }
    for member in &exporters.members {
        for (network, address) in member.addresses.iter().filter(|(network, _)| network.as_str() != "monnet")
        {
            for stranger in STRANGERS.iter().chain(&[WATCHER]) {
                let reads = read(platform, stranger, &format!("{address}:{port}")).is_ok();
                ensure!(!reads, "{stranger} reads {} in {network}", member.slot);
            }
        }
    }
    Ok(series)
}

/// The metrics as the first member of an application reads them. Not with `wget`: that of a static busybox ends with a
/// segmentation fault.
fn read(platform: &Platform, client: &str, target: &str) -> Result<String> {
    page(platform, client, target, "/metrics")
}

/// A page as the first member of an application reads it.
pub fn page(platform: &Platform, client: &str, target: &str, path: &str) -> Result<String> {
    let client = platform.wait_healthy(client, WHOLE)?;
    let member = client.members.first().context("no client")?;
    let host = platform.testbed.host(member.host.as_str())?;
    let (address, port) = target.split_once(':').context("no port")?;
    // Its end of the connection stays open while the exporter works.
    let ask = format!(
        "(printf 'GET {path} HTTP/1.0\\r\\nHost: any\\r\\n\\r\\n'; sleep 2) | nc -w 3 {address} {port}"
    );
    let said = exec(&host, &["docker", "exec", &container(&host, member)?, "sh", "-c", &ask])?;
    let (head, page) = said.split_once("\r\n\r\n").with_context(|| format!("no answer: {said}"))?;
    ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{head}");
    Ok(page.to_owned())
}

/// Each exporter is on the host of its member.
fn beside(platform: &Platform, service: &str) -> Result<()> {
    let hosts = |service: ServiceView| -> Vec<(u32, String)> {
        service.members.iter().map(|member| (member.slot.index, member.host.to_string())).collect()
    };
    wait("exporters beside their members", SOON, || {
        let (theirs, ours) = (hosts(platform.service(service)?), hosts(exporters(platform, service)?));
        ensure!(theirs == ours, "members on {theirs:?}, exporters on {ours:?}");
        Ok(())
    })
}

/// What the engine says of the container shows no password.
fn hidden(platform: &Platform, service: &str) -> Result<()> {
    for member in &exporters(platform, service)?.members {
        let host = platform.testbed.host(member.host.as_str())?;
        let inside = container(&host, member)?;
        let file = exec(&host, &["docker", "exec", &inside, "cat", PASSWORD])?;
        // Some have more in that file than the password, which is its longest word.
        let words = file.split(|c: char| !c.is_ascii_alphanumeric());
        let password = words.max_by_key(|word| word.len()).unwrap_or_default();
        ensure!(password.len() >= 16, "{} has no password", member.slot);
        for words in [["docker", "inspect", &inside], ["docker", "logs", &inside], ["docker", "top", &inside]]
        {
            let said = exec(&host, &words)?;
            ensure!(!said.contains(password), "{words:?} shows the password");
        }
    }
    Ok(())
}

/// Exporters whose image is nowhere: the members serve, the service is healthy, and nothing waits for an operator.
fn without_image(platform: &Platform, service: &str, spec: &str) -> Result<()> {
    let path = platform.write_spec("spec.yaml", spec)?;
    let apply = platform.cli.run(&["--yes", "apply", "--timeout", "20s", &path.to_string_lossy()]);
    ensure!(apply.is_err(), "an apply without its image succeeds");
    let exporters = wait("the exporters degraded", SOON, || {
        let exporters = platform.service(&format!("{service}-metrics"))?;
        let word = exporters.health.word.to_string();
        ensure!(word == "degraded", "exporters without an image are {word}: {:?}", exporters.health);
        Ok(exporters)
    })?;
    let service = platform.service(service)?;
    ensure!(exporters.members.iter().all(missing), "{:?}", exporters.members);
    ensure!(service.health.word.to_string() == "healthy", "{:?}", service.health);
    let running = platform.status()?.operations;
    ensure!(running.is_empty(), "operations: {running:?}");
    Ok(())
}

fn missing(member: &MemberView) -> bool {
    member.detail.contains("image missing")
}
