//! Images brought to hosts without a registry, and those that nobody needs taken away.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::image::{HostImagesView, PushState, PushView};
use muster_model::view::{EventView, Liveness};
use muster_testbed::Host;
use serde_json::{Value, json};

use crate::clock::wait;
use crate::platform::{Platform, exec};
use crate::run::Scenario;
use crate::specs;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "image-push",
        what: "an image brought to every host without a registry: interrupted, gone on with, no beat late, run from it",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: push,
    },
    Scenario {
        name: "image-gc",
        what: "images of three revisions: only that before the last goes, and nothing of anybody else",
        runs: 3,
        in_ci: false,
        medians: &[],
        act: gc,
    },
];

const SOON: Duration = Duration::from_secs(60);
const BASE: &str = "muster/busybox:1.35";
/// Bytes that no compression makes smaller.
const LAYER_MIB: u64 = 150;

pub fn prepare(platform: &Platform) -> Result<()> {
    platform.up()
}

/// An image of this name on one host, with a layer of so many MiB, as a file on the machine.
fn archive(platform: &Platform, host: &Host, name: &str, mib: u64) -> Result<PathBuf> {
    let long = Duration::from_secs(120);
    let script = format!("dd if=/dev/urandom of=/bulk bs=1M count={mib} 2>/dev/null");
    host.docker(&["rm", "-f", "image-maker"], long).ok();
    host.docker(
        &["run", "--name", "image-maker", "--network", "none", "--user", "0:0", BASE, "sh", "-c", &script],
        long,
    )?;
    // What a commit takes over from the base would make it the base to others: its label.
    host.docker(&["commit", "--change", "LABEL muster.image=", "image-maker", name], long)?;
    host.docker(&["rm", "image-maker"], long)?;
    let path = platform.testbed.config().dir.join("image.tar");
    let file = path.to_str().context("a path that is no text")?.to_owned();
    host.docker(&["save", "-o", &file, name], long)?;
    host.docker(&["rmi", name], long)?;
    Ok(path)
}

/// Some host's silence during a push, as the coordinators saw it.
fn missed_beats(platform: &Platform, from: u64) -> Result<Vec<String>> {
    let events: Vec<EventView> = platform.cli.json(&["events", "--tail", "500"])?;
    let silent = |event: &EventView| event.text.contains("down") || event.text.contains("silent");
    let late = events.into_iter().filter(|event| event.index.0 > from && silent(event));
    Ok(late.map(|event| format!("{}: {}", event.about, event.text)).collect())
}

fn push(platform: &Platform) -> Result<Value> {
    let hosts = platform.hosts()?;
    let first = hosts.first().context("no host")?;
    let name = "muster-show/pushed:1";
    for host in &hosts {
        host.docker(&["rmi", "-f", name], SOON).ok();
    }
    let path = archive(platform, first, name, LAYER_MIB)?;
    let file = path.to_str().context("a path that is no text")?;
    let bytes = fs::metadata(&path)?.len();
    let from = platform.status()?.index.0;
    let resumed_after = interrupted(platform, file)?;
    let begin = Instant::now();
    let mut command = platform.cli.command(&["-o", "json", "image", "push", file]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut looks, mut suspect, mut memory) = (0_u32, 0_u32, [0_u64; 2]);
    while child.try_wait()?.is_none() {
        let status = platform.status()?;
        suspect += u32::try_from(status.hosts.iter().filter(|h| h.liveness != Liveness::Ready).count())?;
        looks += 1;
        for host in &hosts {
            memory[0] = memory[0].max(resident(host, "muster-agent")?);
            memory[1] = memory[1].max(resident(host, "muster-coordinator")?);
        }
        sleep(Duration::from_millis(100));
    }
    let out = child.wait_with_output()?;
    let took = begin.elapsed().as_secs_f64();
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let view: PushView = serde_json::from_slice(&out.stdout)?;
    ensure!(view.hosts.len() == hosts.len(), "{view:?}");
    ensure!(view.hosts.iter().all(|host| host.state == PushState::Loaded), "{view:?}");
    ensure!(suspect == 0, "hosts were not ready in {suspect} of {looks} looks");
    let late = missed_beats(platform, from)?;
    ensure!(late.is_empty(), "{late:?}");
    again(platform, file)?;
    runs_from_it(platform, name)?;
    nothing_left(&hosts)?;
    let audited = platform.cli.run(&["audit", "--tail", "20"])?;
    ensure!(audited.contains(&format!("push image {name}")), "not in the audit log: {audited}");
    refusals(platform)?;
    fs::remove_file(&path)?;
    Ok(json!({
        "bytes": bytes, "hosts": hosts.len(), "took_s": took, "resumed_after_mib": resumed_after >> 20,
        "looks": looks, "agent_rss_mib": memory[0] >> 20, "coordinator_rss_mib": memory[1] >> 20,
    }))
}

/// Bytes that a program of a host has in memory.
pub fn resident(host: &Host, program: &str) -> Result<u64> {
    let pid = host.unit_status(program)?.pid.context("it does not run")?;
    // Its number is that of the host's own numbering.
    let status = exec(host, &["cat", &format!("/proc/{pid}/status")])?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().nth(1).context("no number")?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Kills the command in the middle of its upload; bytes that the coordinator has then.
fn interrupted(platform: &Platform, file: &str) -> Result<u64> {
    let leader = platform.leading_coordinator()?;
    let mut command = platform.cli.command(&["image", "push", file]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let some = wait("some of it at the coordinator", SOON, || {
        let here = spooled(&leader, "coordinator")?;
        ensure!(here > 20 << 20, "{here} bytes");
        Ok(here)
    });
    child.kill()?;
    child.wait()?;
    some?;
    sleep(Duration::from_millis(500));
    let kept = spooled(&leader, "coordinator")?;
    ensure!(kept > 0, "the coordinator kept nothing of an interrupted push");
    Ok(kept)
}

/// Bytes of archives in the directory of a program on its host.
fn spooled(host: &Host, program: &str) -> Result<u64> {
    let script = format!("cat /var/lib/muster/{program}/images/*.part 2>/dev/null | wc -c");
    Ok(exec(host, &["sh", "-c", &script])?.trim().parse()?)
}

/// The same again: everybody has it.
fn again(platform: &Platform, file: &str) -> Result<()> {
    let view: PushView = platform.cli.json(&["image", "push", file])?;
    ensure!(view.hosts.iter().all(|host| host.state == PushState::Had), "{view:?}");
    Ok(())
}

/// An application runs from it on every host, and `image ls` says so.
fn runs_from_it(platform: &Platform, name: &str) -> Result<()> {
    let settings = &platform.settings;
    let count = u32::try_from(platform.hosts()?.len())?;
    let app = specs::app(settings, count, "pushed").replace(BASE, name);
    platform.apply(&specs::platform(settings, &[app]))?;
    platform.wait_healthy(settings.app.as_str(), SOON)?;
    wait("the image listed as needed", SOON, || {
        let all: Vec<HostImagesView> = platform.cli.json(&["image", "ls"])?;
        let needed = |host: &&HostImagesView| {
            host.images.iter().flatten().any(|image| image.name == name && image.needed)
        };
        let on = all.iter().filter(needed).count();
        ensure!(on > 0, "on no host: {all:?}");
        Ok(())
    })
}

/// Archives are gone from every directory of ours.
fn nothing_left(hosts: &[Host]) -> Result<()> {
    wait("archives gone", SOON, || {
        for host in hosts {
            for program in ["coordinator", "agent"] {
                let here = spooled(host, program)?;
                ensure!(here == 0, "{here} bytes of archives at the {program} of {}", host.name());
            }
        }
        Ok(())
    })
}

/// What is wrong is refused before anything is sent.
fn refusals(platform: &Platform) -> Result<()> {
    let path = platform.testbed.config().dir.join("no-image.tar");
    fs::write(&path, [0x1f; 4096])?;
    let file = path.to_str().context("a path that is no text")?;
    let out = platform.cli.output(&["image", "push", file])?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.code() == Some(1) && said.contains("no image archive"), "{said}");
    fs::remove_file(&path)?;
    Ok(())
}

fn gc(platform: &Platform) -> Result<Value> {
    let hosts = platform.hosts()?;
    let first = hosts.first().context("no host")?;
    let settings = &platform.settings;
    let count = u32::try_from(hosts.len())?;
    let names: Vec<String> = (1..=3).map(|version| format!("muster-show/versions:{version}")).collect();
    for name in &names {
        let path = archive(platform, first, name, 1)?;
        let file = path.to_str().context("a path that is no text")?;
        platform.cli.run(&["image", "push", file])?;
        let app = specs::app(settings, count, name).replace(BASE, name);
        platform.apply(&specs::platform(settings, &[app]))?;
        platform.wait_healthy(settings.app.as_str(), SOON)?;
    }
    for host in &hosts {
        exec(host, &["sh", "-c", "echo MUSTER_IMAGE_GRACE=20s >> /etc/muster/agent.env"])?;
        host.unit_restart("muster-agent")?;
    }
    let begin = Instant::now();
    let with_members: Vec<&Host> = {
        let members = platform.service(settings.app.as_str())?.members;
        hosts.iter().filter(|host| members.iter().any(|m| m.host.as_str() == host.name())).collect()
    };
    wait("the first revision's image gone", SOON, || {
        for host in &with_members {
            let here = images(host)?;
            ensure!(!here.contains(&names[0]), "{} still has {}", host.name(), names[0]);
        }
        Ok(())
    })?;
    let took = begin.elapsed().as_secs_f64();
    sleep(Duration::from_secs(45));
    for host in &with_members {
        let here = images(host)?;
        ensure!(here.contains(&names[1]), "{} lost what a rollback needs: {here:?}", host.name());
        ensure!(here.contains(&names[2]) && here.iter().any(|name| name == "muster/postgres:15"), "{here:?}");
    }
    let events = platform.cli.run(&["events", "--tail", "100"])?;
    let told =
        events.lines().find(|line| line.contains("images-removed")).context("no event")?.trim().to_owned();
    // Back to the second: its image is there.
    let app = specs::app(settings, count, &names[1]).replace(BASE, &names[1]);
    platform.apply(&specs::platform(settings, &[app]))?;
    platform.wait_healthy(settings.app.as_str(), SOON)?;
    for host in &hosts {
        exec(host, &["sed", "-i", "/MUSTER_IMAGE_GRACE/d", "/etc/muster/agent.env"])?;
        host.unit_restart("muster-agent")?;
    }
    Ok(json!({ "removed_after_s": took, "event": told }))
}

/// Names of all images of a host.
fn images(host: &Host) -> Result<Vec<String>> {
    let text = host.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"], SOON)?;
    Ok(text.lines().map(str::to_owned).collect())
}
