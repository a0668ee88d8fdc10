//! Who reaches what: from containers in every network, on the target's host and on another, at every port of every member.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_model::view::{MemberView, PlatformView};
use muster_testbed::Host;
use serde_json::{Value, json};

use crate::platform::Platform;

/// A port that a database member listens on, and whether a client in its network may reach it.
struct Port {
    of: &'static str,
    port: u16,
    open_to_clients: bool,
}

/// Every port that the members of a PostgreSQL service listen on.
const PORTS: &[Port] = &[
    Port { of: "", port: 5432, open_to_clients: true },
    Port { of: "", port: 8008, open_to_clients: false },
    Port { of: "-etcd", port: 2379, open_to_clients: false },
    Port { of: "-etcd", port: 2380, open_to_clients: false },
    Port { of: "-proxy", port: 5000, open_to_clients: true },
    Port { of: "-proxy", port: 5001, open_to_clients: true },
];

/// From `dbclient` (in the database's network) only client ports answer; from `outsider` (in another) none does.
pub fn audiences(platform: &Platform) -> Result<Value> {
    let status = platform.status()?;
    let mut tried = 0;
    let mut wrong = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let mut running = Vec::new();
        for (client, inside) in [("dbclient", true), ("outsider", false)] {
            for source in members(&status, client)? {
                let host = platform.testbed.host(source.host.as_str())?;
                let (status, service) = (&status, platform.settings.service.as_str());
                running.push(scope.spawn(move || matrix(&host, &source, status, service, inside)));
            }
        }
        for one in running {
            let (count, faults) = one.join().map_err(|_| anyhow::anyhow!("a probe panicked"))??;
            tried += count;
            wrong.extend(faults);
        }
        Ok(())
    })?;
    ensure!(wrong.is_empty(), "{} of {tried} are wrong: {wrong:#?}", wrong.len());
    ensure!(tried > 60, "only {tried} combinations tried");
    let login = logins(platform, &status)?;
    Ok(json!({ "combinations": tried, "wrong": 0, "logins": login }))
}

fn members(status: &PlatformView, service: &str) -> Result<Vec<MemberView>> {
    let found = status.services.iter().find(|s| s.name.as_str() == service);
    Ok(found.with_context(|| format!("no service {service}"))?.members.clone())
}

fn matrix(
    host: &Host,
    source: &MemberView,
    status: &PlatformView,
    service: &str,
    inside: bool,
) -> Result<(usize, Vec<String>)> {
    let container = container(host, source)?;
    let mut wrong = Vec::new();
    let mut tried = 0;
    for port in PORTS {
        for target in members(status, &format!("{service}{}", port.of))? {
            for address in target.addresses.values() {
                let open = reaches(host, &container, address, port.port)?;
                tried += 1;
                if open != (inside && port.open_to_clients) {
                    let word = if open { "reaches" } else { "does not reach" };
                    wrong.push(format!(
                        "{} on {} {word} {} {address}:{} on {}",
                        source.slot, source.host, target.slot, port.port, target.host
                    ));
                }
            }
        }
    }
    Ok((tried, wrong))
}

/// Name of a member's container.
///
/// # Errors
/// It is not there.
pub fn container(host: &Host, member: &MemberView) -> Result<String> {
    let filter = format!("label=muster.member={}", member.member);
    let out = host.docker(&["ps", "-q", "--filter", &filter], Duration::from_secs(20))?;
    let id = out.trim().lines().next().map(str::to_owned);
    id.with_context(|| format!("{} has no running container on {}", member.slot, host.name()))
}

/// Whether somebody in a container gets an answer there.
///
/// # Errors
/// The container cannot be asked.
pub fn reaches(host: &Host, container: &str, address: &str, port: u16) -> Result<bool> {
    let command = format!("nc -w 1 {address} {port} </dev/null >/dev/null");
    let out = host.docker_command(&["exec", container, "sh", "-c", &command]).output()?;
    Ok(out.status.success())
}

/// The application's user gets in with its password, and the superuser from nowhere outside.
fn logins(platform: &Platform, status: &PlatformView) -> Result<BTreeMap<&'static str, bool>> {
    let urls = crate::writer::connections(platform, "write")?;
    let url = &urls.first().context("no connection string")?.replace(crate::writer::CA, "/muster/ca.pem");
    let service = platform.settings.service.as_str();
    let member = members(status, service)?.into_iter().next().context("no member")?;
    let host = platform.testbed.host(member.host.as_str())?;
    // psql is in the database's image; it is run in a member's container, but through the proxy's address.
    let inside = container(&host, &member)?;
    let psql = |url: &str| -> Result<bool> {
        let words = ["exec", &inside, "/usr/lib/postgresql/15/bin/psql", url, "-w", "-tAc", "select 1"];
        Ok(host.docker_command(&words).output()?.status.success())
    };
    let good = psql(url)?;
    let (scheme, rest) = url.split_once("://").context("a connection string without scheme")?;
    let (login, place) = rest.split_once('@').context("a connection string without login")?;
    let password = login.split_once(':').map(|(_, p)| p).unwrap_or_default();
    let wrong_password =
        psql(&format!("{scheme}://{}:wrong@{place}", login.split(':').next().unwrap_or_default()))?;
    let superuser = psql(&format!("{scheme}://postgres:{password}@{place}"))?;
    ensure!(good, "the application's user cannot log in");
    ensure!(!wrong_password, "a wrong password was accepted");
    ensure!(!superuser, "the superuser got in from the network");
    Ok(BTreeMap::from([("user", good), ("wrong_password", wrong_password), ("superuser", superuser)]))
}
