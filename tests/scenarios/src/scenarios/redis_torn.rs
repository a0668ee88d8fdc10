//! A hash slot whose move was cut off by the loss of its source: half of its keys are at each of two shards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{HealthWord, MemberView, OperationView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use super::redis::{finish, kill_held, master_of, members, writer};
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;

const DOCKER: Duration = Duration::from_secs(20);
const WHOLE: Duration = Duration::from_secs(180);
const KEYS: usize = 40;
/// Hash slots of the first of three shards.
const FIRST_SHARD: u32 = 5_461;

/// Shown by itself.
pub const TORN: Scenario = Scenario {
    name: "redis-torn-slot",
    what: "a hash slot on its way when its source is lost: the platform brings its keys together again",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: torn,
};

/// A server, and how it is asked.
struct Server {
    host: Host,
    container: String,
    id: String,
    address: String,
}

impl Server {
    fn new(platform: &Platform, member: &MemberView) -> Result<Self> {
        let host = platform.testbed.host(member.host.as_str())?;
        let container = container(&host, member)?;
        let address = member.addresses.values().next().context("a member without address")?.clone();
        let mut server = Self { host, container, id: String::new(), address };
        server.id = server.says("CLUSTER MYID")?;
        Ok(server)
    }

    /// Commands, one a line, answered by one line each. Through standard input: a password is no argument of a process.
    fn says(&self, commands: &str) -> Result<String> {
        let script = format!(
            "export REDISCLI_AUTH=$(cat /muster/secrets/admin); redis-cli --user muster-admin --no-auth-warning <<END\n{commands}\nEND"
        );
        Ok(self.host.docker(&["exec", &self.container, "sh", "-c", &script], DOCKER)?.trim().to_owned())
    }
}

/// A tag whose hash slot is of the first shard, and that hash slot.
fn tag(server: &Server) -> Result<(String, u32)> {
    for number in 0..64 {
        let tag = format!("torn{number}");
        let slot: u32 = server.says(&format!("CLUSTER KEYSLOT {tag}"))?.parse()?;
        if slot < FIRST_SHARD {
            return Ok((tag, slot));
        }
    }
    anyhow::bail!("no tag of the first shard")
}

/// Half of the keys of one hash slot are sent to another shard, as the engine's own tool does it.
fn tear(source: &Server, target: &Server) -> Result<(String, u32)> {
    let (tag, slot) = tag(source)?;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("{{{tag}}}{number}")).collect();
    let sets: Vec<String> = keys.iter().map(|key| format!("SET {key} {key}")).collect();
    let said = source.says(&sets.join("\n"))?;
    ensure!(said.lines().all(|line| line == "OK"), "{said}");
    target.says(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", source.id))?;
    source.says(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", target.id))?;
    let half = keys[..KEYS / 2].join(" ");
    let said = source.says(&format!(
        "MIGRATE {} 6379 \"\" 0 5000 AUTH2 muster-admin $REDISCLI_AUTH KEYS {half}",
        target.address
    ))?;
    ensure!(said == "OK", "MIGRATE: {said}");
    Ok((tag, slot))
}

fn torn(platform: &Platform) -> Result<Value> {
    let writer = writer(platform, "torn")?;
    let all = members(platform)?;
    let (source, target) = (master_of(&all, 1)?, master_of(&all, 2)?);
    let target = Server::new(platform, target)?;
    let (tag, slot) = tear(&Server::new(platform, source)?, &target)?;
    let report = kill_held(platform)?;
    ensure!(report["target"] == json!(source.slot.to_string()), "another was killed: {report}");
    let begin = Instant::now();
    wait("no hash slot between two shards", WHOLE, || {
        let service = platform.service(platform.settings.cache_service.as_str())?;
        ensure!(service.health.word == HealthWord::Healthy, "{}", service.health.reasons.join("; "));
        let nodes = target.says("CLUSTER NODES")?;
        ensure!(!nodes.contains('['), "slot {slot}: {nodes}");
        Ok(())
    })?;
    let mended = begin.elapsed().as_secs_f64();
    let all = members(platform)?;
    let owner = Server::new(platform, master_of(&all, 1)?)?;
    let gets: Vec<String> = (0..KEYS).map(|number| format!("GET {{{tag}}}{number}")).collect();
    let said = owner.says(&gets.join("\n"))?;
    let there = said.lines().filter(|line| line.contains(&tag)).count();
    ensure!(there == KEYS, "{there} of {KEYS} keys of the torn hash slot are left: {said}");
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
    // By the drill itself, if it was not over before.
    let mended_by = |op: &&OperationView| op.log.iter().any(|(_, line)| line.contains("is mended at slot"));
    let by = operations.iter().find(mended_by).context("nobody mended it")?.kind.clone();
    let mut samples = finish(platform, writer, 200, 60_000)?;
    samples["mended_after_drill_s"] = json!(mended);
    samples["mended_by"] = json!(by);
    Ok(samples)
}
