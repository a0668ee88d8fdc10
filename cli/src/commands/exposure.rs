//! `muster audit exposure`: TCP ports of the hosts that are open from here, beside those that the spec declares.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::PlatformView;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::plan;
use crate::app::App;
use crate::args::ExposureArgs;
use crate::client::PATIENCE;
use crate::diagnostics;
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone};
use crate::spec_file::SpecFile;

/// Connections that are tried at once: below the usual limit of 1,024 files of a process.
const AT_ONCE: usize = 256;
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Tried beside what is declared: the engines' and our own ports, and what is often open by mistake.
const WELL_KNOWN: &[u16] = &[
    21, 22, 23, 25, 53, 80, 111, 139, 389, 443, 445, 873, 1433, 2049, 2375, 2376, 2377, 2379, 2380, 3000,
    3306, 3389, 4222, 4369, 4444, 4567, 4568, 5000, 5001, 5432, 5672, 5900, 6032, 6033, 6222, 6379, 6443,
    7000, 7400, 7946, 8000, 8008, 8080, 8222, 8443, 8888, 9000, 9001, 9090, 9092, 9100, 9104, 9121, 9187,
    9200, 9443, 10250, 11211, 15672, 16379, 26379, 27017, 33060, 51820,
];

/// What a port said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// Somebody listens.
    Open,
    /// The host said no.
    Closed,
    /// Nothing came: dropped on the way, or the host is off.
    Silent,
}

/// What is to be thought of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// Declared, or allowed on the command line, and open.
    Fine,
    /// Declared, and cannot be reached from here.
    Unreachable,
    /// Open, and nobody declared it.
    Exposed,
}

/// A port that is declared or open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    host: String,
    address: IpAddr,
    port: u16,
    /// By what; absent = by nothing.
    declared: Option<String>,
    answer: Answer,
    verdict: Verdict,
}

/// Ports of one host, with what declares them.
type Declared = BTreeMap<u16, String>;

/// The whole answer of `-o json`.
#[derive(Debug, Serialize)]
struct Exposure {
    rows: Vec<Row>,
    tried: usize,
    exposed: usize,
    notices: Vec<String>,
}

pub async fn run(app: &App, args: &ExposureArgs) -> Result<Exit> {
    let file = SpecFile::read(&args.file, app.console.err_paint)?;
    let parsed = muster_spec::parse(&file.filled).map_err(|wrong| {
        Failure::new(Exit::Error, diagnostics::render(&file, &wrong, app.console.err_paint))
    })?;
    let client = app.client()?;
    let differs = !plan::fetch(&client, &app.console, &file).await?.changes.is_empty();
    let status = client.status(PATIENCE).await?;
    let timeout = Duration::from_millis(args.timeout.0.0).min(TIMEOUT_MAX);
    let mut exposure = scan(&parsed.spec, &status, args, timeout).await?;
    if differs {
        exposure.notices.push(format!("{} differs from what is applied: `muster plan` says how", args.file));
    }
    show(app, &exposure)?;
    if exposure.exposed == 0 {
        return Ok(Exit::Ok);
    }
    let message = format!("open, and not declared by the spec: {} TCP ports", exposure.exposed);
    let hint = "stop what listens there or close it in the host's firewall (`ss -ltnp` on the host says who listens); \
                if it is meant, publish it in the spec or name it with --allow";
    Err(Failure::new(Exit::Error, message).hint(hint).into())
}

async fn scan(
    spec: &PlatformSpec,
    status: &PlatformView,
    args: &ExposureArgs,
    timeout: Duration,
) -> Result<Exposure> {
    let mut exposure = Exposure { rows: Vec::new(), tried: 0, exposed: 0, notices: Vec::new() };
    let mut hosts: Vec<_> = status.hosts.iter().collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    for host in hosts {
        let address: IpAddr =
            host.address.parse().with_context(|| format!("address of {}: {}", host.name, host.address))?;
        let mut declared = declared(spec, status, host.name.as_str(), address);
        let wanted: BTreeSet<u16> = WELL_KNOWN
            .iter()
            .copied()
            .chain(declared.keys().copied())
            .chain(args.ports.iter().cloned().flatten())
            .chain(args.allow.iter().cloned().flatten())
            .collect();
        let answers = ask_all(address, &wanted, timeout).await?;
        if answers.values().all(|answer| *answer == Answer::Silent) {
            let why = "it is off, or a firewall drops everything from here";
            exposure.notices.push(format!("{} ({address}) did not answer on any port: {why}", host.name));
        }
        exposure.tried += answers.len();
        for (port, answer) in answers {
            let allowed = args.allow.iter().any(|range| range.contains(&port));
            let by = declared
                .remove(&port)
                .or_else(|| (allowed && answer == Answer::Open).then(|| "--allow".to_owned()));
            let Some(verdict) = judge(by.is_some(), answer) else { continue };
            exposure.exposed += usize::from(verdict == Verdict::Exposed);
            exposure.rows.push(Row {
                host: host.name.to_string(),
                address,
                port,
                declared: by,
                answer,
                verdict,
            });
        }
    }
    Ok(exposure)
}

/// Nothing is said of a port that is neither declared nor open.
fn judge(declared: bool, answer: Answer) -> Option<Verdict> {
    match (declared, answer) {
        (true, Answer::Open) => Some(Verdict::Fine),
        (true, _) => Some(Verdict::Unreachable),
        (false, Answer::Open) => Some(Verdict::Exposed),
        (false, _) => None,
    }
}

/// Ports that are meant to be open on a host: its coordinator's, and what services with a member there publish on an
/// address that is not only the host's own.
fn declared(spec: &PlatformSpec, status: &PlatformView, host: &str, address: IpAddr) -> Declared {
    let mut all = Declared::new();
    for endpoint in status.coordinators.iter().filter_map(|one| one.endpoint.parse::<SocketAddr>().ok()) {
        if endpoint.ip() == address {
            all.insert(endpoint.port(), "coordinator".to_owned());
        }
    }
    for service in &status.services {
        let here = service.members.iter().any(|member| member.host.as_str() == host);
        let Some(written) = spec.services.get(&service.name).filter(|_| here) else { continue };
        for port in published(written) {
            if port.ip().is_unspecified() || port.ip() == address {
                all.insert(port.port(), format!("service {}", service.name));
            }
        }
    }
    all
}

/// TCP ports that a service publishes.
fn published(service: &ServiceSpec) -> Vec<SocketAddr> {
    let ports = service.settings.get("ports").and_then(|ports| ports.as_array());
    let tcp = |port: &&serde_json::Value| port["protocol"].as_str().unwrap_or("tcp") == "tcp";
    ports
        .into_iter()
        .flatten()
        .filter(tcp)
        .filter_map(|port| port["publish"].as_str()?.parse().ok())
        .collect()
}

/// What each port of an address says.
///
/// # Errors
/// This machine cannot ask: it has no route, or too few files.
async fn ask_all(address: IpAddr, ports: &BTreeSet<u16>, timeout: Duration) -> Result<BTreeMap<u16, Answer>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for port in ports.iter().copied() {
        let turns = Arc::clone(&turns);
        running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let to = SocketAddr::new(address, port);
            ask(to, timeout).await.map(|answer| (port, answer)).with_context(|| format!("trying {to}"))
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        let (port, answer) = done.context("a try was stopped")??;
        answers.insert(port, answer);
    }
    Ok(answers)
}

async fn ask(to: SocketAddr, timeout: Duration) -> std::io::Result<Answer> {
    match tokio::time::timeout(timeout, TcpStream::connect(to)).await {
        Err(_) => Ok(Answer::Silent),
        Ok(Ok(_)) => Ok(Answer::Open),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Ok(Answer::Closed),
            // A router or the last hop says that nobody is there.
            ErrorKind::HostUnreachable | ErrorKind::TimedOut => Ok(Answer::Silent),
            _ => Err(error),
        },
    }
}

fn show(app: &App, exposure: &Exposure) -> Result<()> {
    if app.console.is_json() {
        return app.console.json(exposure);
    }
    let mut table = Table::new(&["HOST", "PORT", "DECLARED", "OPEN", "VERDICT"]);
    for row in &exposure.rows {
        let (tone, verdict) = match row.verdict {
            Verdict::Fine => (Tone::Plain, "ok"),
            Verdict::Unreachable => (Tone::Warn, "not reachable from here"),
            Verdict::Exposed => (Tone::Bad, "EXPOSED"),
        };
        let open = match row.answer {
            Answer::Open => "yes",
            Answer::Closed => "no",
            Answer::Silent => "no answer",
        };
        let declared = row.declared.clone().unwrap_or_else(|| "-".to_owned());
        table.row(tone, [row.host.clone(), row.port.to_string(), declared, open.into(), verdict.into()]);
    }
    app.console.say(table.render(app.console.paint))?;
    app.console.say(format!("{} times a TCP port was tried", exposure.tried))?;
    for notice in &exposure.notices {
        app.console.say(app.console.paint.tone(Tone::Warn, notice))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::sample;

    const SPEC: &str = "muster: 1
platform: shop
services:
  web:
    kind: app
    image: web:1
    ports:
      - { port: 80, audience: public, publish: '0.0.0.0:8080' }
      - { port: 81, audience: public, publish: '127.0.0.1:8081' }
      - { port: 82, audience: public, publish: '10.0.0.1:8082' }
      - { port: 83, protocol: udp, audience: public, publish: '0.0.0.0:8083' }
      - { port: 84 }
";

    #[test]
    fn declared_is_what_can_be_reached_from_outside() {
        let spec = muster_spec::parse(SPEC).unwrap().spec;
        let of = |host: &str, address: &str| {
            let all = declared(&spec, &sample::platform(), host, address.parse().unwrap());
            all.into_iter().map(|(port, by)| format!("{port} {by}")).collect::<Vec<_>>()
        };
        assert_eq!(of("h1", "10.0.0.1"), ["7400 coordinator", "8080 service web", "8082 service web"]);
        assert_eq!(of("h2", "10.0.0.2"), ["7400 coordinator", "8080 service web"]);
        assert_eq!(of("h9", "10.0.0.9"), [] as [&str; 0], "no member there");
    }

    #[test]
    fn only_what_is_declared_or_open_is_told() {
        assert_eq!(judge(true, Answer::Open), Some(Verdict::Fine));
        assert_eq!(judge(true, Answer::Silent), Some(Verdict::Unreachable));
        assert_eq!(judge(false, Answer::Open), Some(Verdict::Exposed));
        assert_eq!(judge(false, Answer::Closed), None);
    }

    #[tokio::test]
    async fn an_open_port_is_told_from_a_closed_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [open, closed] = [&listener, &gone].map(|one| one.local_addr().unwrap().port());
        drop(gone);
        let address = listener.local_addr().unwrap().ip();
        let answers =
            ask_all(address, &BTreeSet::from([open, closed]), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answers, BTreeMap::from([(open, Answer::Open), (closed, Answer::Closed)]));
    }
}
