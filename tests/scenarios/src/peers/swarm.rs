//! Docker Swarm, tuned as well as we know how: heartbeats of a second, no delay of restarts and updates, no look at
//! registries. One manager and two workers, on emulated hosts of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use muster_testbed::Testbed;

use super::engines::{Fleet, program};
use super::{LONGEST, MEMBERS, Side};
use crate::clock::wait;
use crate::platform::{Platform, exec};

const SERVICE: &str = "bench";
const CALL: Duration = Duration::from_secs(60);

/// The swarm.
pub struct Swarm {
    testbed: Testbed,
    fleet: Fleet,
}

impl Swarm {
    /// # Errors
    /// It does not come up.
    pub fn up(platform: &Platform) -> Result<Self> {
        let mut config = platform.testbed.config().clone();
        config.dir = config.dir.with_extension("swarm");
        config.prefix = format!("{:.9}s", config.prefix);
        config.net[1] = config.net[1].wrapping_add(1);
        let testbed = Testbed::new(config)?;
        platform.seed_into(&testbed)?;
        let hosts = testbed.up(3)?;
        let swarm = Self { testbed, fleet: Fleet { hosts } };
        swarm.form()?;
        Ok(swarm)
    }

    fn manager(&self, words: &[&str]) -> Result<String> {
        self.fleet.hosts[0].docker(words, CALL)
    }

    fn form(&self) -> Result<()> {
        for host in &self.fleet.hosts {
            // An engine of a swarm must not leave containers running without it.
            exec(
                host,
                &[
                    "sed",
                    "-i",
                    "s/\"live-restore\": true/\"live-restore\": false/",
                    "/etc/docker/daemon.json",
                ],
            )?;
            host.unit_restart("docker")?;
            host.wait_for_engine()?;
        }
        let address = self.fleet.hosts[0].address().to_string();
        self.manager(&["swarm", "init", "--advertise-addr", &address])?;
        self.manager(&["swarm", "update", "--dispatcher-heartbeat", "1s"])?;
        let token = self.manager(&["swarm", "join-token", "-q", "worker"])?;
        let manager = format!("{address}:2377");
        for host in &self.fleet.hosts[1..] {
            let own = host.address().to_string();
            host.docker(
                &["swarm", "join", "--advertise-addr", &own, "--token", token.trim(), &manager],
                CALL,
            )?;
        }
        self.rejoined()
    }

    /// Removes its hosts.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn down(&self) -> Result<()> {
        self.testbed.down(false, true)
    }
}

impl Side for Swarm {
    fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn deploy(&self, revision: usize) -> Result<()> {
        // By its id: an image by name is asked for at a registry before each start, which takes seconds without one.
        let image = self.manager(&["image", "inspect", "-f", "{{.Id}}", "muster/busybox:1.35"])?;
        let (members, program) = (MEMBERS.to_string(), program(revision));
        let mut words =
            vec!["service", "create", "-d", "--no-resolve-image", "--name", SERVICE, "--replicas", &members];
        words.extend(["--restart-delay", "0s", "--restart-condition", "any", "--stop-grace-period", "1s"]);
        words.extend(["--update-parallelism", "1", "--update-delay", "0s", "--update-order", "stop-first"]);
        words.extend(["--update-monitor", "0s", "--limit-memory", "64m", image.trim()]);
        words.extend(program.iter().map(String::as_str));
        self.manager(&words).map(drop)
    }

    fn update(&self, revision: usize) -> Result<()> {
        let [shell, flag, script] = program(revision);
        let arguments = format!("{shell} {flag} \"{script}\"");
        self.manager(&["service", "update", "-d", "--no-resolve-image", "--args", &arguments, SERVICE])
            .map(drop)
    }

    fn victim(&self) -> Result<usize> {
        Ok(2)
    }

    fn rejoined(&self) -> Result<()> {
        wait("all nodes of the swarm", LONGEST, || {
            let text = self.manager(&["node", "ls", "--format", "{{.Status}}"])?;
            let ready = text.lines().filter(|line| line.trim() == "Ready").count();
            ensure!(ready == self.fleet.hosts.len(), "{ready} are ready");
            Ok(())
        })
    }

    fn remove(&self) -> Result<()> {
        self.manager(&["service", "rm", SERVICE]).map(drop)
    }
}
