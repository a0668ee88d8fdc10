//! What somebody broke by hand is back within ten seconds; what is not ours is not touched.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Map, Value, json};

use super::network::container;
use crate::clock::wait;
use crate::platform::{Platform, exec};

/// Time until a broken thing must be whole.
const REPAIRED: Duration = Duration::from_secs(10);
const DOCKER: Duration = Duration::from_secs(60);

/// Each kind of damage on the host of the application's first member.
pub fn repair(platform: &Platform) -> Result<Value> {
    let app = platform.settings.app.as_str();
    let member =
        platform.wait_healthy(app, Duration::from_secs(60))?.members.first().context("no member")?.clone();
    let host = platform.testbed.host(member.host.as_str())?;
    let address = member.addresses.values().next().context("no address")?.clone();
    let foreign = foreign_container(&host)?;
    let serves =
        || exec(&host, &["curl", "-fsS", "-m", "1", &format!("http://{address}:8080/index.html")]).map(drop);
    serves()?;
    let mut times = Map::new();
    let mut damage =
        |what: &str, act: &dyn Fn() -> Result<()>, whole: &dyn Fn() -> Result<()>| -> Result<()> {
            act().with_context(|| format!("damage: {what}"))?;
            let begin = Instant::now();
            wait(what, REPAIRED, whole)?;
            times.insert(what.to_owned(), json!(begin.elapsed().as_secs_f64()));
            Ok(())
        };
    damage("docker rm -f", &|| remove(&host, &container(&host, &member)?), &serves)?;
    damage("network removed", &|| remove_network(&host, "proxy"), &serves)?;
    damage("rules flushed", &|| exec(&host, &["nft", "flush", "ruleset"]).map(drop), &|| {
        rules_are_back(&host)
    })?;
    restart_engine(&host)?;
    damage("file edited", &|| edit(&host), &|| not_edited(&host))?;
    damage(
        "docker system prune",
        &|| {
            remove(&host, &container(&host, &member)?)?;
            host.docker(&["system", "prune", "-f", "--volumes"], DOCKER).map(drop)
        },
        &serves,
    )?;
    let left = host.docker(&["inspect", "-f", "{{.State.Running}}", &foreign], DOCKER);
    ensure!(
        left.as_ref().is_ok_and(|text| text.trim() == "true"),
        "the foreign container was touched: {left:?}"
    );
    host.docker(&["rm", "-f", &foreign], DOCKER)?;
    Ok(Value::Object(times))
}

/// A container that is none of ours.
fn foreign_container(host: &Host) -> Result<String> {
    let name = "foreign-keepsake";
    host.docker_command(&["rm", "-f", name]).output()?;
    host.docker(&["run", "-d", "--name", name, "muster/busybox:1.35", "sleep", "100000"], DOCKER)?;
    Ok(name.to_owned())
}

fn remove(host: &Host, container: &str) -> Result<()> {
    host.docker(&["rm", "-f", container], DOCKER).map(drop)
}

/// With everything that is attached to it, in one go: the agent puts containers back within a second.
fn remove_network(host: &Host, network: &str) -> Result<()> {
    let name = format!("muster-{network}");
    let script = format!(
        "docker ps -aq --filter network={name} | xargs -r docker rm -f >/dev/null; docker network rm {name}"
    );
    wait("network removed by hand", Duration::from_secs(10), || exec(host, &["sh", "-c", &script]).map(drop))
}

/// What the agent tells an operator to do when Docker's own rules were flushed. No container stops by it.
fn restart_engine(host: &Host) -> Result<()> {
    host.engine_kill()?;
    host.engine_start()?;
    host.wait_for_engine()
}

fn rules_are_back(host: &Host) -> Result<()> {
    let rules = exec(host, &["nft", "list", "table", "inet", "muster"])?;
    ensure!(rules.contains("chain"), "the table has no chains");
    Ok(())
}

const MARK: &str = "edited-by-hand";

/// Adds a line to the first rendered file of any member.
fn edit(host: &Host) -> Result<()> {
    let script =
        format!("f=$(find /run/muster -type f | sort | head -n 1); test -n \"$f\"; echo {MARK} >> \"$f\"");
    exec(host, &["sh", "-ec", &script]).map(drop)
}

fn not_edited(host: &Host) -> Result<()> {
    let found = host.exec(&["grep", "-rl", MARK, "/run/muster"])?;
    ensure!(!found.success(), "still edited: {}", found.stdout);
    Ok(())
}
