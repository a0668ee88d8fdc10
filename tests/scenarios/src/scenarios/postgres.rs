//! A PostgreSQL cluster forms from one YAML file, and every member streams.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::platform::Platform;
use crate::specs;

/// The services that later scenarios use, with the database on this image.
///
/// # Errors
/// The images were not built.
pub fn spec(platform: &Platform, image: &str) -> Result<String> {
    spec_with(platform, image, "")
}

/// The same with more lines for the database.
///
/// # Errors
/// The images were not built.
pub fn spec_with(platform: &Platform, image: &str, more: &str) -> Result<String> {
    let settings = &platform.settings;
    let services = [
        specs::postgres(settings, image, &platform.etcd_image()?) + more,
        specs::app(settings, 3, "second"),
        specs::client("dbclient", settings, "dbnet", 3, true),
        specs::client("outsider", settings, "proxy", 3, false),
    ];
    Ok(specs::platform(settings, &services))
}

/// What the other scenarios of this table rely on.
///
/// # Errors
/// It does not come up.
pub fn prepare(platform: &Platform) -> Result<()> {
    platform.up()?;
    bootstrap(platform).map(drop)
}

/// One `apply`, then healthy: one leader, a synchronous standby, all others streaming.
pub fn bootstrap(platform: &Platform) -> Result<Value> {
    let begin = Instant::now();
    platform.apply(&spec(platform, specs::IMAGE)?)?;
    let name = platform.settings.service.as_str();
    let service = platform.wait_healthy(name, Duration::from_secs(180))?;
    let roles: Vec<String> = service.members.iter().map(|m| m.role.clone().unwrap_or_default()).collect();
    let count = |role: &str| roles.iter().filter(|r| *r == role).count();
    ensure!(count("leader") == 1 && count("sync_standby") >= 1, "roles {roles:?}");
    ensure!(service.members.iter().all(|member| member.ready), "members {:?}", service.members);
    let hosts: std::collections::BTreeSet<_> = service.members.iter().map(|m| &m.host).collect();
    ensure!(hosts.len() == service.members.len(), "two members share a host: {hosts:?}");
    Ok(json!({ "healthy_after_s": begin.elapsed().as_secs_f64(), "roles": roles }))
}
