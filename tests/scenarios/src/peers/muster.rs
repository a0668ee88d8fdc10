//! Our side: three coordinators, three agents, preset `lan`.

use std::time::Duration;

use anyhow::{Result, ensure};
use muster_model::view::Liveness;

use super::engines::{Fleet, program};
use super::{LONGEST, MEMBERS, Side};
use crate::clock::wait;
use crate::platform::Platform;

/// The platform.
pub struct Muster<'a> {
    platform: &'a Platform,
    fleet: Fleet,
}

impl<'a> Muster<'a> {
    /// # Errors
    /// It does not come up.
    pub fn up(platform: &'a Platform) -> Result<Self> {
        platform.up()?;
        let fleet = Fleet { hosts: platform.hosts()? };
        ensure!(fleet.hosts.len() == 3, "this is made for three hosts: MUSTER_SHOW_HOSTS=3");
        Ok(Self { platform, fleet })
    }

    fn apply(&self, revision: usize) -> Result<()> {
        let settings = &self.platform.settings;
        let command = serde_json::to_string(&program(revision))?;
        let yaml = format!(
            "muster: 1\nplatform: {}\ndetection: lan\nnetworks: {{proxy: {{subnet: {}, egress: allow}}}}\nservices:\n  {}:\n    \
             kind: app\n    image: muster/busybox:1.35\n    command: {command}\n    networks: [proxy]\n    \
             replicas: {MEMBERS}\n    resources: {{memory: 64MiB}}\n    update: {{soak: 0s}}\n    stop: {{timeout: 1s}}\n",
            settings.platform, settings.proxynet, settings.app
        );
        let path = self.platform.write_spec("spec.yaml", &yaml)?;
        self.platform.cli.run(&["--yes", "apply", "--detach", &path.to_string_lossy()]).map(drop)
    }
}

impl Side for Muster<'_> {
    fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn deploy(&self, revision: usize) -> Result<()> {
        self.apply(revision)
    }

    fn update(&self, revision: usize) -> Result<()> {
        self.apply(revision)
    }

    fn victim(&self) -> Result<usize> {
        let leader = self.platform.leading_coordinator()?;
        Ok(if leader.name() == self.fleet.hosts[2].name() { 1 } else { 2 })
    }

    fn rejoined(&self) -> Result<()> {
        wait("all hosts", LONGEST, || {
            let hosts = self.platform.status()?.hosts;
            ensure!(hosts.iter().all(|host| host.liveness == Liveness::Ready), "not all are ready");
            Ok(())
        })
    }

    fn remove(&self) -> Result<()> {
        let app = self.platform.settings.app.to_string();
        wait("its removal", Duration::from_secs(60), || {
            self.platform.cli.run(&["--yes", "service", "remove", &app, "--destroy-data"])
        })
        .map(drop)
    }
}
