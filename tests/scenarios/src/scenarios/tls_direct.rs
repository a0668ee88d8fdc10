//! TLS of services whose clients speak it from the first byte: who is believed, what a new certificate does to those
//! connected, what a must refuses.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::{network, redis_replicated, rotate, s3, tls};
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::specs;
use crate::writer::{CA, Writer, connections_of, judge_losses};

const SOON: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(180);
/// Longest gap of a client that was connected before.
const GAP_MAX_MS: u64 = 500;
/// An application beside the Valkey cluster.
const CLIENT: &str = "cacheclient";
/// How long somebody who must be refused tries.
const WATCH: Duration = Duration::from_secs(4);

/// A cluster whose redirects know both ports: on a platform of its own.
pub const CLUSTER: &[Scenario] = &[Scenario {
    name: "redis-tls-cluster",
    what: "clients of a Valkey cluster check certificates, those of its redirects too; TLS becomes a must",
    runs: 3,
    in_ci: false,
    medians: &[("max_gap_ms", 500.0)],
    act: valkey,
}];

/// A service, and how its clients are told apart.
struct Case {
    engine: &'static str,
    service: String,
    /// The spec in everyday use.
    usual: String,
    /// A line of it after which the setting is put.
    after: &'static str,
    /// What a connection string over TLS must have.
    mark: String,
    /// How to come without TLS.
    plain: Plain,
}

/// Somebody who does not speak TLS.
enum Plain {
    /// A writer on a host, by this connection string: what it writes to is a proxy.
    Writer(fn(&str) -> String),
    /// A client in the network, at this port of the members: programs of hosts always reach them.
    Client { name: &'static str, port: u16 },
}

/// One Redis master with its replica behind proxies.
pub fn redis(platform: &Platform) -> Result<Value> {
    shown(
        platform,
        &Case {
            engine: "redis",
            service: redis_replicated::name(platform),
            usual: redis_replicated::spec(platform, redis_replicated::IMAGE, 1),
            after: "    mode: replicated\n",
            mark: format!(":6381/0?ssl_ca_certs={CA}"),
            plain: Plain::Writer(plain_redis),
        },
    )
}

fn plain_redis(url: &str) -> String {
    url.replace("rediss://", "redis://")
        .replace(":6381", ":6379")
        .replace(&format!("&ssl_ca_certs={CA}"), "")
        .replace(&format!("?ssl_ca_certs={CA}"), "")
}

/// S3 behind proxies, where TLS ends.
pub fn s3(platform: &Platform) -> Result<Value> {
    shown(
        platform,
        &Case {
            engine: "s3",
            service: platform.settings.s3.to_string(),
            usual: s3::spec(platform, specs::S3_IMAGE),
            after: "    kind: s3\n",
            mark: format!(":9443/app?ca_bundle={CA}"),
            plain: Plain::Writer(|url| {
                url.replace("https://", "http://")
                    .replace(":9443", ":9000")
                    .replace(&format!("?ca_bundle={CA}"), "")
            }),
        },
    )
}

fn valkey(platform: &Platform) -> Result<Value> {
    shown(
        platform,
        &Case {
            engine: "redis",
            service: valkey_name(platform),
            usual: valkey_spec(platform),
            after: "    mode: cluster\n",
            mark: format!(":6381/0?cluster=true&ssl_ca_certs={CA}"),
            plain: Plain::Client { name: CLIENT, port: 6379 },
        },
    )
}

fn valkey_name(platform: &Platform) -> String {
    format!("{}-valkey", platform.settings.cache_service)
}

fn valkey_spec(platform: &Platform) -> String {
    let settings = &platform.settings;
    let client = specs::client(CLIENT, settings, "cachenet", 1, false);
    format!(
        "muster: 1
platform: {}
networks:
  cachenet: {{ subnet: {} }}
services:
{client}  {}:
    kind: redis
    mode: cluster
    flavour: valkey
    resources: {{ memory: 128MiB }}
    update: {{ deadline: 60s, soak: 2s }}
",
        settings.platform,
        settings.cachenet,
        valkey_name(platform)
    )
}

/// A platform with the Valkey cluster, healthy; one with other services is taken down first.
///
/// # Errors
/// It does not come up.
pub fn prepare_cluster(platform: &Platform) -> Result<()> {
    let name = valkey_name(platform);
    let others = |status: muster_model::view::PlatformView| {
        status.services.iter().any(|one| ![name.as_str(), CLIENT].contains(&one.name.as_str()))
    };
    if platform.status().is_ok_and(others) {
        platform.testbed.down(false, false)?;
    }
    platform.up()?;
    platform.apply(&valkey_spec(platform))?;
    platform.wait_healthy(&name, WHOLE).map(drop)
}

fn shown(platform: &Platform, case: &Case) -> Result<Value> {
    let service = case.service.as_str();
    let before = platform.wait_healthy(service, WHOLE)?.members;
    let urls = connections_of(platform, service, "write")?;
    let url = urls.first().context("no connection string")?;
    ensure!(url.contains(&case.mark), "no TLS: {url}");
    let place = url.split_once('@').and_then(|(_, rest)| rest.split('/').next()).context("no address")?;
    let door = place.split(',').next().context("no address")?;
    let host = platform.hosts()?.pop().context("no host")?;
    tls::strangers(&host, "", door)?;
    let writer = Writer::of(case.engine, host.clone(), "tls", &urls, 9_361)?;
    writer.wait_steady()?;
    let old = tls::serial(&host, "", door)?;
    platform.cli.run(&["--yes", "secret", "rotate", &format!("{service}/tls")])?;
    let new = wait("another certificate", SOON, || {
        let new = tls::serial(&host, "", door)?;
        ensure!(new != old, "still {old}");
        Ok(new)
    })?;
    let other = Writer::of(case.engine, host.clone(), "tls-new", &urls, 9_362)?;
    other.wait_steady()?;
    judge_losses(&other.finish()?, 20)?;
    only_over_tls(platform, &host, case, &urls)?;
    rotate::untouched(&before, &platform.wait_healthy(service, WHOLE)?.members)?;
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    let longest = summary["max_gap_ms"].as_u64().context("no max_gap_ms")?;
    ensure!(longest <= GAP_MAX_MS, "the connected client saw a gap of {longest} ms: {summary}");
    Ok(json!({ "serials": [old, new], "acked": summary["acked"], "acked_lost": summary["acked_lost_count"],
               "max_gap_ms": longest }))
}

/// `tls: required` and back: who comes without is refused meanwhile, nobody who is connected notices.
fn only_over_tls(platform: &Platform, host: &Host, case: &Case, urls: &[String]) -> Result<()> {
    let strict = case.usual.replacen(case.after, &format!("{}    tls: required\n", case.after), 1);
    ensure!(strict != case.usual, "the spec has changed");
    ensure!(plain_works(platform, host, case, urls)?, "without TLS nobody gets in before it is a must");
    platform.apply(&strict)?;
    platform.wait_healthy(&case.service, WHOLE)?;
    sleep(Duration::from_secs(3));
    ensure!(!plain_works(platform, host, case, urls)?, "without TLS somebody gets in");
    let still = Writer::of(case.engine, host.clone(), "tls-strict", urls, 9_365)?;
    still.wait_steady()?;
    still.stop()?;
    platform.apply(&case.usual)?;
    sleep(Duration::from_secs(3));
    Ok(())
}

/// Whether somebody gets in without TLS.
fn plain_works(platform: &Platform, host: &Host, case: &Case, urls: &[String]) -> Result<bool> {
    match case.plain {
        Plain::Writer(without) => {
            let plain: Vec<String> = urls.iter().map(|url| without(url)).collect();
            let writer = Writer::of(case.engine, host.clone(), "plain", &plain, 9_363)?;
            sleep(WATCH);
            let acknowledged = writer.acknowledged()?.len();
            writer.stop()?;
            Ok(acknowledged > 0)
        }
        Plain::Client { name, port } => {
            let client = platform.wait_healthy(name, WHOLE)?.members.pop().context("no client")?;
            let host = platform.testbed.host(client.host.as_str())?;
            let inside = network::container(&host, &client)?;
            let members = platform.wait_healthy(&case.service, WHOLE)?.members;
            let mut addresses = members.iter().flat_map(|member| member.addresses.values());
            addresses.try_fold(false, |any, at| Ok(network::reaches(&host, &inside, at, port)? || any))
        }
    }
}
