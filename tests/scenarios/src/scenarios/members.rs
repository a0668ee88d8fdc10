//! Members that come, go and are replaced by command, and verbs that an engine cannot have: what a client saw of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{mariadb, redis, s3};
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;

const DEADLINE: Duration = Duration::from_secs(300);

pub const MARIADB_REPLACE: Scenario = Scenario {
    name: "mariadb-replace",
    what: "the member that takes the writing is made anew on another host by command (4 hosts)",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: mariadb_replace,
};

pub const MARIADB_SCALE: Scenario = Scenario {
    name: "mariadb-scale",
    what: "three members become five and three again under load (5 hosts)",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: mariadb_scale,
};

pub const REDIS_REPLACE: Scenario = Scenario {
    name: "redis-replace",
    what: "the master of a shard is made anew on another host by command; the others forget the old one (4 hosts)",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: redis_replace,
};

pub const REDIS_KILL_ALL: Scenario = Scenario {
    name: "redis-kill-all",
    what: "all members of a cluster killed at once come back with their keys",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: redis_kill_all,
};

pub const S3_REFUSALS: Scenario = Scenario {
    name: "s3-refusals",
    what: "verbs that S3 cannot have are refused with the reason, and nothing changes",
    runs: 1,
    in_ci: false,
    medians: &[],
    act: s3_refusals,
};

fn hosts_needed(platform: &Platform, count: usize) -> Result<()> {
    ensure!(platform.hosts()?.len() >= count, "this needs MUSTER_SHOW_HOSTS={count}");
    Ok(())
}

fn mariadb_replace(platform: &Platform) -> Result<Value> {
    hosts_needed(platform, 4)?;
    let before = mariadb::healthy(platform)?;
    let history = mariadb::history(platform, &before)?;
    let (writer, leader, _) = mariadb::writing(platform, "replace")?;
    let begin = Instant::now();
    platform.cli.run(&["--yes", "service", "replace", &leader.slot.to_string()])?;
    let took = begin.elapsed().as_secs_f64();
    let after = mariadb::healthy(platform)?;
    let new = after.members.iter().find(|m| m.slot == leader.slot).context("the slot is empty")?;
    ensure!(new.member != leader.member && new.host != leader.host, "{leader:?} became {new:?}");
    ensure!(mariadb::history(platform, &after)? == history, "another history than {history}");
    let mut samples = mariadb::judged(writer, 200, 5_000)?;
    samples["replaced_s"] = json!(took);
    Ok(samples)
}

fn mariadb_scale(platform: &Platform) -> Result<Value> {
    hosts_needed(platform, 5)?;
    let usual = mariadb::usual(platform);
    let (writer, ..) = mariadb::writing(platform, "scale")?;
    let mut spans = Vec::new();
    for count in [5, 3] {
        let begin = Instant::now();
        let line = "    mode: ha\n";
        platform.apply(&usual.replace(line, &format!("{line}    members: {count}\n")))?;
        wait(&format!("{count} members"), DEADLINE, || {
            let service = mariadb::healthy(platform)?;
            ensure!(service.members.len() == count, "{} members", service.members.len());
            mariadb::history(platform, &service)
        })?;
        spans.push(begin.elapsed().as_secs_f64());
    }
    let mut samples = mariadb::judged(writer, 300, 5_000)?;
    samples["out_s"] = json!(spans[0]);
    samples["in_s"] = json!(spans[1]);
    Ok(samples)
}

fn redis_replace(platform: &Platform) -> Result<Value> {
    hosts_needed(platform, 4)?;
    let writer = redis::writer(platform, "replace")?;
    sleep(Duration::from_secs(3));
    let (leader, host) = redis::master(platform)?;
    let begin = Instant::now();
    platform.cli.run(&["--yes", "service", "replace", &leader.slot.to_string()])?;
    let took = begin.elapsed().as_secs_f64();
    let after = redis::members(platform)?;
    let new = after.iter().find(|m| m.slot == leader.slot).context("the slot is empty")?;
    ensure!(new.member != leader.member, "{leader:?} is still there");
    redis::judge_placement(&after)?;
    redis::judge_known(platform, &after)?;
    let mut samples = redis::finish(platform, writer, 200, 10_000)?;
    samples["replaced_s"] = json!(took);
    samples["hosts"] = json!([host.name(), new.host]);
    Ok(samples)
}

fn redis_kill_all(platform: &Platform) -> Result<Value> {
    let writer = redis::writer(platform, "kill-all")?;
    sleep(Duration::from_secs(5));
    let members = redis::members(platform)?;
    let had = redis::keys_of_all(platform, &members)?;
    redis::kill_at_once(platform, &members)?;
    let begin = Instant::now();
    sleep(Duration::from_secs(4));
    let members = redis::members(platform)?;
    let whole = begin.elapsed().as_secs_f64();
    let has = redis::keys_of_all(platform, &members)?;
    ensure!(has >= had, "{has} keys, there were {had}");
    redis::judge_placement(&members)?;
    let mut samples = redis::finish(platform, writer, 200, 60_000)?;
    samples["healthy_after_s"] = json!(whole);
    samples["keys"] = json!([had, has]);
    Ok(samples)
}

fn s3_refusals(platform: &Platform) -> Result<Value> {
    let name = s3::name(platform);
    let before = platform.wait_healthy(name, DEADLINE)?;
    let slots: Vec<String> = before.members.iter().map(|m| m.member.to_string()).collect();
    let mut said = Vec::new();
    for words in [&["service", "switchover", name][..], &["service", "scale", name, "4"]] {
        let out = platform.cli.output(&[&["--yes"], words].concat())?;
        let text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        ensure!(!out.status.success() && !text.is_empty(), "{words:?} was accepted: {text}");
        said.push(text);
    }
    let more =
        s3::spec(platform, crate::specs::S3_IMAGE).replace("    kind: s3\n", "    kind: s3\n    hosts: 4\n");
    let path = platform.write_spec("four.yaml", &more)?;
    let out = platform.cli.output(&["--yes", "apply", &path.to_string_lossy()])?;
    let text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    ensure!(!out.status.success() && text.contains("hosts"), "a fourth host was accepted: {text}");
    said.push(text);
    let after = platform.wait_healthy(name, DEADLINE)?;
    let now: Vec<String> = after.members.iter().map(|m| m.member.to_string()).collect();
    ensure!(slots == now && after.revision == before.revision, "{slots:?} became {now:?}");
    Ok(json!({ "said": said }))
}
