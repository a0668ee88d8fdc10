//! What a newcomer sees: a platform, a database, both drills with their reports, and what to try next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::step;
use crate::platform::Platform;

/// Spec files that a newcomer finds.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples")
}

/// The name of the one PostgreSQL service of a spec file.
fn service_of(yaml: &str) -> Option<String> {
    let mut name = None;
    for line in yaml.lines() {
        if let Some(found) = line.strip_prefix("  ").filter(|l| !l.starts_with([' ', '#'])) {
            name = found.strip_suffix(':').map(str::to_owned);
        }
        if line.trim() == "kind: postgres" {
            return name;
        }
    }
    None
}

/// The example for this platform's name, and for the etcd that could be built here.
pub fn adapted(line: &str, platform: &Platform, etcd: &str) -> String {
    match line {
        _ if line.starts_with("platform:") => format!("platform: {}", platform.settings.platform),
        "    kind: postgres" => format!("{line}\n    etcd_image: {etcd}"),
        _ => line.to_owned(),
    }
}

/// Runs `muster` with its output going to the terminal, and echoes the command as one would type it.
fn show(platform: &Platform, arguments: &[&str], may_end_with: &[i32]) -> Result<()> {
    println!("\n$ muster {}", arguments.join(" "));
    let status =
        platform.cli.command(arguments).stdout(Stdio::inherit()).stderr(Stdio::inherit()).status()?;
    let code = status.code().unwrap_or(-1);
    ensure!(may_end_with.contains(&code), "muster {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// Goes on where an earlier call was interrupted; every step is done only if it is not done yet.
pub fn quickstart(platform: &Platform) -> Result<()> {
    platform.up()?;
    let example = examples().join("postgres-ha.yaml");
    let yaml = fs::read_to_string(&example).with_context(|| format!("reading {}", example.display()))?;
    let service = service_of(&yaml).context("the example names no postgres service")?;
    let etcd = platform.etcd_image()?;
    let named: Vec<String> = yaml.lines().map(|line| adapted(line, platform, &etcd)).collect();
    let path = platform.write_spec("postgres-ha.yaml", &(named.join("\n") + "\n"))?;
    let path = path.to_string_lossy().into_owned();
    show(platform, &["host", "ls"], &[0])?;
    show(platform, &["--yes", "apply", &path], &[0])?;
    step("the database is healthy", || platform.wait_healthy(&service, Duration::from_secs(180)).map(drop))?;
    show(platform, &["status"], &[0])?;
    show(platform, &["status", &service], &[0])?;
    let drills = examples().join("drills");
    let drill = |name: &str| drills.join(name).to_string_lossy().into_owned();
    println!("\nFirst drill: the primary's container is killed, under a writer that keeps a ledger.");
    show(platform, &["--yes", "drill", "run", &drill("kill-primary.yaml"), "--service", &service], &[0, 5])?;
    step("all members stream again", || platform.wait_healthy(&service, Duration::from_secs(120)).map(drop))?;
    println!("\nSecond drill: the primary's host loses power; it is booted again afterwards.");
    let testbed = platform.testbed.config().bin_dir.join("testbed");
    let (cut, power) =
        (format!("{} kill {{host}}", testbed.display()), format!("{} start {{host}}", testbed.display()));
    let words = [
        "--yes",
        "drill",
        "run",
        &drill("kill-host.yaml"),
        "--service",
        &service,
        "--fault-command",
        &cut,
        "--undo-command",
        &power,
    ];
    show(platform, &words, &[0, 5])?;
    step("all members stream again", || platform.wait_healthy(&service, Duration::from_secs(120)).map(drop))?;
    let context = platform.testbed.config().dir.join("operator.context.json");
    let muster = platform.testbed.config().bin_dir.join("muster");
    println!("\nIt is all yours. What to try next:");
    println!(
        "  export MUSTER_CONTEXT={} PATH=$PATH:{}",
        context.display(),
        muster.parent().unwrap_or_else(|| Path::new(".")).display()
    );
    println!("  muster status --watch                     # in a second terminal");
    println!("  muster service switchover {service}       # move the leading role");
    println!("  muster conn {service}                     # how applications connect");
    if let Some(host) = platform.hosts()?.last() {
        let (testbed, host) = (testbed.display(), host.name());
        println!("  {testbed} kill {host} && sleep 30 && {testbed} start {host}   # lose a host yourself");
    }
    println!("  deploy/quickstart down                    # remove all of it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_a_database() {
        let yaml = fs::read_to_string(examples().join("postgres-ha.yaml")).unwrap();
        assert!(service_of(&yaml).is_some_and(|name| !name.is_empty()));
    }
}
