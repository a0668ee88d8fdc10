//! The first steps and the last: bring-up, an application, an apply whose leader dies, and nothing left behind.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_testbed::leftovers;
use serde_json::{Value, json};

use crate::clock::wait;
use crate::platform::Platform;
use crate::specs;

/// Hosts, coordinators, agents; an application applied; its status and its logs.
pub fn up(platform: &Platform) -> Result<Value> {
    platform.up()?;
    let settings = &platform.settings;
    platform.apply(&specs::platform(settings, &[specs::app(settings, 2, "first")]))?;
    let app = platform.wait_healthy(settings.app.as_str(), Duration::from_secs(60))?;
    ensure!(app.members.len() == 2, "{} members", app.members.len());
    let slot = app.members[0].slot.to_string();
    // The probe asks for the page every second, and the server logs each answer.
    wait("logs of the application", Duration::from_secs(20), || {
        let logs = platform.cli.run(&["logs", &slot, "--tail", "20"])?;
        ensure!(logs.contains("response:200"), "logs of {slot}: {logs:?}");
        Ok(())
    })?;
    Ok(json!({ "members": app.members.len() }))
}

/// The coordinator that leads is killed while an apply goes on; the apply ends well.
pub fn leader_killed_in_apply(platform: &Platform) -> Result<Value> {
    let settings = &platform.settings;
    let before = platform.leading_coordinator()?;
    let yaml = specs::platform(settings, &[specs::app(settings, 3, "second")]);
    let path = platform.write_spec("second.yaml", &yaml)?;
    let cli = platform.cli.clone();
    let begin = Instant::now();
    let apply = thread::spawn(move || cli.run(&["--yes", "apply", &path.to_string_lossy()]));
    thread::sleep(Duration::from_millis(1_500));
    before.unit_kill("muster-coordinator")?;
    let said = apply.join().map_err(|_| anyhow::anyhow!("the apply panicked"))??;
    let took = begin.elapsed().as_secs_f64();
    ensure!(!said.is_empty(), "the apply said nothing");
    let app = platform.wait_healthy(settings.app.as_str(), Duration::from_secs(60))?;
    ensure!(app.members.len() == 3, "{} members", app.members.len());
    let after = platform.leading_coordinator()?;
    Ok(json!({ "apply_s": took, "leader_before": before.name(), "leader_after": after.name() }))
}

/// Everything of ours goes: processes, namespaces, mounts, cgroups, rules, links, routes.
pub fn down(platform: &Platform) -> Result<Value> {
    platform.testbed.down(false, false)?;
    let left = leftovers(platform.testbed.config()).context("looking for leftovers")?;
    let left: Vec<String> = left.iter().map(|one| format!("{one:?}")).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(json!({ "left": left.len() }))
}
