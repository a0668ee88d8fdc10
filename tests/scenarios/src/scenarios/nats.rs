//! NATS on the testbed: three servers form, one is killed and comes back, all are restarted one by one; who may speak
//! to them. The kind that docs/adding-a-kind.md walks through.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_model::view::ServiceView;
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::specs;

/// What they rely on.
///
/// # Errors
/// The platform does not come up.
pub fn prepare(platform: &Platform) -> Result<()> {
    platform.up()
}

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "nats",
    what: "NATS: forms, survives the kill of a server, restarts one by one, refuses strangers",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: nats,
}];

const WHOLE: Duration = Duration::from_secs(120);
const DOCKER: Duration = Duration::from_secs(30);

fn nats(platform: &Platform) -> Result<Value> {
    prepare(platform)?;
    let name = format!("{}-bus", platform.settings.platform);
    let bus = format!(
        "  {name}:\n    kind: nats\n    users: [{{ name: shop }}]\n    storage: 256MiB\n    update: {{ deadline: 90s, soak: 1s }}\n"
    );
    let client = specs::client("busclient", &platform.settings, "dbnet", 1, false);
    platform.apply(&specs::platform(&platform.settings, &[bus, client]))?;
    let formed = platform.wait_healthy(&name, WHOLE)?;
    ensure!(count(&formed, "leader") == 1, "one server leads the streams: {:?}", formed.members);
    let greeting = speak(platform, &formed, None)?;
    ensure!(greeting.contains("Authorization Violation"), "a stranger was let in: {greeting}");
    let password = password(&platform.cli.run(&["conn", &name, "-o", "json"])?)?;
    let answer = speak(platform, &formed, Some(&password))?;
    ensure!(answer.contains("PONG") && !answer.contains("-ERR"), "a known user was refused: {answer}");
    let leader = formed.members.iter().find(|m| m.role.as_deref() == Some("leader")).context("no leader")?;
    let host = platform.testbed.host(leader.host.as_str())?;
    host.docker(&["kill", "--signal", "KILL", &container(&host, leader)?], DOCKER)?;
    let again = wait("the killed server serves again", WHOLE, || {
        let now = platform.service(&name)?;
        let back = now.members.iter().find(|m| m.slot == leader.slot).context("no member")?;
        ensure!(back.ready && back.restarts > leader.restarts, "not yet: {back:?}");
        Ok(now)
    })?;
    platform.cli.run(&["--yes", "service", "restart", &name])?;
    let restarted = platform.wait_healthy(&name, WHOLE)?;
    Ok(
        json!({ "roles": roles(&formed), "after_the_kill": roles(&again), "after_the_restart": roles(&restarted) }),
    )
}

fn roles(service: &ServiceView) -> Vec<&str> {
    service.members.iter().map(|member| member.role.as_deref().unwrap_or("none")).collect()
}

fn count(service: &ServiceView, role: &str) -> usize {
    roles(service).iter().filter(|r| **r == role).count()
}

/// The first password of a connection string.
fn password(url: &str) -> Result<String> {
    let rest = url.split("nats://shop:").nth(1).context("no connection string")?;
    Ok(rest.split('@').next().context("no password")?.to_owned())
}

/// Speaks NATS from inside a member of an application on the same network; what the server said.
fn speak(platform: &Platform, bus: &ServiceView, password: Option<&str>) -> Result<String> {
    let client = platform.wait_healthy("busclient", WHOLE)?;
    let member = client.members.first().context("no client")?;
    let host: Host = platform.testbed.host(member.host.as_str())?;
    let server = bus.members.first().and_then(|m| m.addresses.values().next()).context("no address")?;
    let login = password.map_or_else(String::new, |p| format!(r#","user":"shop","pass":"{p}""#));
    let script = format!(
        r#"(printf 'CONNECT {{"verbose":false{login}}}\r\nPING\r\n'; sleep 1) | nc -w 3 {server} 4222"#
    );
    exec(&host, &["docker", "exec", &container(&host, member)?, "sh", "-c", &script])
}
