//! TLS of client connections: who is believed, what a new certificate does to those connected, what a must refuses.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::{mariadb, network::container, postgres, rotate};
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::specs;
use crate::writer::{CA, Writer, connections_of, judge_losses};

const SOON: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(180);
/// Longest gap of a client that was connected before.
const GAP_MAX_MS: u64 = 500;

/// What the engines differ in.
struct Case<'a> {
    /// As the writer and `openssl` call it.
    engine: &'a str,
    starttls: &'a str,
    service: &'a str,
    /// Where TLS begins in a connection string; what stands before is the string without.
    tls: String,
    /// The spec that is applied.
    spec: String,
    /// Over what the server speaks with a client that checks it.
    spoken: fn(&Platform, &str) -> Result<String>,
}

/// PostgreSQL.
pub fn postgres(platform: &Platform) -> Result<Value> {
    shown(
        platform,
        &Case {
            engine: "postgres",
            starttls: "postgres",
            service: platform.settings.service.as_str(),
            tls: format!("&sslmode=verify-full&sslrootcert={CA}"),
            spec: postgres::spec(platform, specs::IMAGE)?,
            spoken: |platform, _| protocol_of_writers(platform),
        },
    )
}

/// MariaDB.
pub fn mariadb(platform: &Platform) -> Result<Value> {
    shown(
        platform,
        &Case {
            engine: "mariadb",
            starttls: "mysql",
            service: platform.settings.mariadb.as_str(),
            tls: format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={CA}"),
            spec: mariadb::usual(platform),
            spoken: protocol_of_a_client,
        },
    )
}

fn shown(platform: &Platform, case: &Case<'_>) -> Result<Value> {
    let service = case.service;
    let before = platform.wait_healthy(service, WHOLE)?.members;
    let urls = connections_of(platform, service, "write")?;
    let url = urls.first().context("no connection string")?;
    ensure!(url.ends_with(&case.tls), "plain: {url}");
    let place = url.split_once('@').and_then(|(_, rest)| rest.split('/').next()).context("no address")?;
    let door = place.split(',').next().context("no address")?;
    let host = platform.hosts()?.pop().context("no host")?;
    strangers(&host, case.starttls, door)?;
    let writer = Writer::of(case.engine, host.clone(), "tls", &urls, 9_361)?;
    writer.wait_steady()?;
    let protocol = (case.spoken)(platform, url)?;
    ensure!(protocol == "TLSv1.3", "the server speaks over {protocol:?}");
    let old = serial(&host, case.starttls, door)?;
    platform.cli.run(&["--yes", "secret", "rotate", &format!("{service}/tls")])?;
    let new = wait("another certificate", SOON, || {
        let new = serial(&host, case.starttls, door)?;
        ensure!(new != old, "still {old}");
        Ok(new)
    })?;
    let other = Writer::of(case.engine, host.clone(), "tls-new", &urls, 9_362)?;
    other.wait_steady()?;
    judge_losses(&other.finish()?, 20)?;
    only_over_tls(platform, case, &host, &urls)?;
    rotate::untouched(&before, &platform.wait_healthy(service, WHOLE)?.members)?;
    let summary = writer.finish()?;
    judge_losses(&summary, 100)?;
    let longest = summary["max_gap_ms"].as_u64().context("no max_gap_ms")?;
    ensure!(longest <= GAP_MAX_MS, "the connected client saw a gap of {longest} ms: {summary}");
    Ok(json!({ "protocol": protocol, "serials": [old, new], "acked": summary["acked"],
               "acked_lost": summary["acked_lost_count"], "max_gap_ms": longest,
               "connections": summary["connections"] }))
}

/// The certificate is good for the address that clients use, and for no other; the platform's CA alone makes it so.
pub fn strangers(host: &Host, protocol: &str, door: &str) -> Result<()> {
    let address = door.split(':').next().context("no address")?;
    let hello = hello(protocol);
    let good = |ca: &str, address: &str| -> Result<bool> {
        let command = format!(
            "openssl s_client -connect {door} {hello} -CAfile {ca} -verify_ip {address} \
             -verify_return_error </dev/null 2>&1"
        );
        Ok(host.exec(&["sh", "-c", &command])?.success())
    };
    ensure!(good(CA, address)?, "the certificate at {door} is not good");
    ensure!(!good(CA, "203.0.113.1")?, "it is good for somebody else's address");
    ensure!(!good("/etc/ssl/certs/ca-certificates.crt", address)?, "it is good without the platform's CA");
    Ok(())
}

/// How a client of this protocol begins to speak TLS; without a name: at once.
fn hello(protocol: &str) -> String {
    if protocol.is_empty() { String::new() } else { format!("-starttls {protocol}") }
}

/// Number of the certificate that is shown.
pub fn serial(host: &Host, protocol: &str, door: &str) -> Result<String> {
    let hello = hello(protocol);
    let command = format!(
        "openssl s_client -connect {door} {hello} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    Ok(exec(host, &["sh", "-c", &command])?.trim().to_owned())
}

/// As the server sees it.
fn protocol_of_writers(platform: &Platform) -> Result<String> {
    let (member, host) = platform.leader(platform.settings.service.as_str())?;
    let query = "select distinct version from pg_stat_ssl join pg_stat_activity using (pid) \
                 where application_name = 'muster-writer' and ssl";
    let psql = "/usr/lib/postgresql/15/bin/psql";
    let inside = container(&host, &member)?;
    let words = ["exec", &inside, psql, "-h", "/run/postgresql", "-U", "postgres", "-tAc", query];
    Ok(host.docker(&words, SOON)?.trim().to_owned())
}

/// As a client in a member's container sees it, which checks the certificate by the tools of MariaDB.
fn protocol_of_a_client(platform: &Platform, url: &str) -> Result<String> {
    let (member, host) = platform.leader(platform.settings.mariadb.as_str())?;
    let inside = container(&host, &member)?;
    let (login, rest) = url.trim_start_matches("mysql://").split_once('@').context("no login")?;
    let (user, password) = login.split_once(':').context("no password")?;
    let door = rest.split([',', '/']).next().context("no address")?;
    let (address, port) = door.split_once(':').context("no port")?;
    let password = format!("MYSQL_PWD={password}");
    let client = ["exec", "-e", &password, &inside, "mariadb", "--no-defaults", "--connect-timeout=3"];
    let place =
        ["-h", address, "-P", port, "-u", user, "--ssl-ca=/muster/ca.pem", "--ssl-verify-server-cert"];
    let query = ["-Ne", "show session status like 'Ssl_version'"];
    let said = host.docker(&[&client[..], &place, &query].concat(), SOON)?;
    Ok(said.split_whitespace().last().unwrap_or_default().to_owned())
}

/// `tls: required` and back: plain logins are refused meanwhile, nobody who is connected notices.
fn only_over_tls(platform: &Platform, case: &Case<'_>, host: &Host, urls: &[String]) -> Result<()> {
    let (usual, service) = (&case.spec, case.service);
    let strict = usual.replacen("    mode: ha\n", "    mode: ha\n    tls: required\n", 1);
    ensure!(strict != *usual, "the spec has changed");
    let plain: Vec<String> =
        urls.iter().filter_map(|url| url.strip_suffix(&case.tls)).map(str::to_owned).collect();
    let works = Writer::of(case.engine, host.clone(), "plain", &plain, 9_363)?;
    works.wait_steady()?;
    works.stop()?;
    platform.apply(&strict)?;
    platform.wait_healthy(service, WHOLE)?;
    sleep(Duration::from_secs(3));
    rotate::refused(Writer::of(case.engine, host.clone(), "plain-refused", &plain, 9_364)?)?;
    let still = Writer::of(case.engine, host.clone(), "tls-strict", urls, 9_365)?;
    still.wait_steady()?;
    still.stop()?;
    platform.apply(usual)?;
    sleep(Duration::from_secs(3));
    Ok(())
}
