//! A whole platform on emulated hosts: brought up with the commands of the install guide, by role, on any names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use muster_model::view::{HealthWord, HostView, Liveness, MemberView, PlatformView, ServiceView};
use muster_testbed::{Host, Testbed};

use crate::cli::Cli;
use crate::clock::{step, wait};
use crate::settings::Settings;

const PROGRAMS: &str = "/usr/local/lib/muster";
const CONTEXT: &str = "/var/lib/muster/coordinator/admin.context.json";

/// The platform under test.
pub struct Platform {
    /// Names and sizes.
    pub settings: Settings,
    /// The hosts' world.
    pub testbed: Testbed,
    /// The operator.
    pub cli: Cli,
}

impl Platform {
    /// Whatever the environment names, running or not.
    ///
    /// # Errors
    /// Not root, or an unusable variable.
    pub fn from_env() -> Result<Self> {
        let settings = Settings::from_env()?;
        let testbed = Testbed::from_env()?;
        let program = testbed.config().bin_dir.join("muster");
        let cli = Cli::new(&program, &context_file(&testbed));
        Ok(Self { settings, testbed, cli })
    }

    /// Hosts in their order.
    ///
    /// # Errors
    /// The testbed's state cannot be read.
    pub fn hosts(&self) -> Result<Vec<Host>> {
        self.testbed.hosts()
    }

    /// Boots hosts, forms the coordinator cluster, joins all agents. Does only what is not done yet.
    ///
    /// # Errors
    /// A step failed; a later call goes on from there.
    pub fn up(&self) -> Result<()> {
        let count = self.settings.hosts;
        step("images into the golden store of emulated hosts", || self.seed())?;
        let hosts = step(&format!("{count} emulated hosts, each with its own Docker Engine"), || {
            self.testbed.up(count)
        })?;
        let first = hosts.first().context("no host")?;
        step("first coordinator, with its own CA", || self.init(first))?;
        if count >= 3 {
            step("two more coordinators join", || {
                hosts[1..3].iter().try_for_each(|host| self.join_coordinator(host))
            })?;
            step("three coordinators vote", || self.wait_for_voters(3))?;
        }
        step(&format!("{count} agents join"), || hosts.iter().try_for_each(|host| self.join_agent(host)))?;
        step("all hosts ready", || self.wait_for_hosts(count))
    }

    fn seed(&self) -> Result<()> {
        self.seed_into(&self.testbed)
    }

    /// Puts the images that were built into the store that hosts of a testbed begin with.
    ///
    /// # Errors
    /// They were not built.
    pub fn seed_into(&self, testbed: &Testbed) -> Result<()> {
        let index = self.settings.cache.join("images/index");
        let text = fs::read_to_string(&index)
            .with_context(|| format!("{}: run deploy/images/build first", index.display()))?;
        let mut archives = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(hash)) = (words.next(), words.next()) else { continue };
            if name != "base" {
                archives.push(self.settings.cache.join(format!("images/{name}@{hash}.tar")));
            }
        }
        ensure!(!archives.is_empty(), "{} names no image", index.display());
        let archives: Vec<&Path> = archives.iter().map(PathBuf::as_path).collect();
        testbed.seed(&archives).map(drop)
    }

    /// Tag of the etcd image that was built here: without Go it is Debian's older one.
    ///
    /// # Errors
    /// The images were not built.
    pub fn etcd_image(&self) -> Result<String> {
        let index = self.settings.cache.join("images/index");
        let text = fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
        let line = text.lines().find(|line| line.starts_with("etcd ")).context("no etcd image was built")?;
        Ok(line.split_whitespace().nth(2).context("the index of images is malformed")?.to_owned())
    }

    fn init(&self, host: &Host) -> Result<()> {
        if !exists(host, "/var/lib/muster/coordinator/identity")? {
            let advertise = self.endpoint(host);
            let platform = self.settings.platform.as_str();
            exec(
                host,
                &[
                    "muster-coordinator",
                    "init",
                    "--platform",
                    platform,
                    "--advertise",
                    &advertise,
                    "--name",
                    host.name(),
                ],
            )?;
        }
        self.rejoin(host)
    }

    /// Starts the coordinator that was made on this host, and goes on with its first operator.
    ///
    /// # Errors
    /// It does not answer.
    pub fn rejoin(&self, host: &Host) -> Result<()> {
        let context = exec(host, &["cat", CONTEXT])?;
        write_private(&context_file(&self.testbed), &context)?;
        host.unit_start("muster-coordinator")?;
        wait("first coordinator", Duration::from_secs(30), || self.status()).map(drop)
    }

    /// Lets a host join a rebuilt platform with everything that it has; what its agent says.
    ///
    /// # Errors
    /// It is refused.
    pub fn adopt(&self, host: &Host) -> Result<String> {
        let (token, first) = (self.token("host")?, self.first_endpoint()?);
        let advertise = host.address().to_string();
        let words = ["muster-agent", "join", "--adopt", "--token", &token, "--coordinator", &first];
        exec(host, &[&words[..], &["--advertise", &advertise]].concat())
    }

    /// Lets a host be a coordinator, from its token to the running unit.
    ///
    /// # Errors
    /// It cannot join.
    pub fn join_coordinator(&self, host: &Host) -> Result<()> {
        if !exists(host, "/var/lib/muster/coordinator/identity")? {
            let advertise = self.endpoint(host);
            let token = self.token("coordinator")?;
            let mut words = vec!["muster-coordinator", "join", "--token", &token, "--advertise", &advertise];
            let first = self.first_endpoint()?;
            words.extend(["--coordinator", &first, "--name", host.name()]);
            exec(host, &words)?;
        }
        host.unit_start("muster-coordinator")
    }

    /// Makes a host one of the platform's, from its token to the running units.
    ///
    /// # Errors
    /// It cannot join.
    pub fn join_agent(&self, host: &Host) -> Result<()> {
        if !exists(host, "/var/lib/muster/agent/identity")? {
            let advertise = host.address().to_string();
            let token = self.token("host")?;
            let first = self.first_endpoint()?;
            exec(
                host,
                &[
                    "muster-agent",
                    "join",
                    "--token",
                    &token,
                    "--advertise",
                    &advertise,
                    "--coordinator",
                    &first,
                    "--name",
                    host.name(),
                ],
            )?;
        }
        host.unit_start("muster-mesh")?;
        host.unit_start("muster-agent")
    }

    fn token(&self, role: &str) -> Result<String> {
        let answer: serde_json::Value = self.cli.json(&["token", role])?;
        Ok(answer["token"].as_str().context("no token in the answer")?.to_owned())
    }

    /// Where a host's coordinator is.
    #[must_use]
    pub fn endpoint(&self, host: &Host) -> String {
        format!("{}:{}", host.address(), self.settings.port)
    }

    fn first_endpoint(&self) -> Result<String> {
        Ok(self.endpoint(self.hosts()?.first().context("no host")?))
    }

    /// Waits until this many coordinators vote.
    ///
    /// # Errors
    /// They do not.
    pub fn wait_for_voters(&self, count: usize) -> Result<()> {
        wait("coordinators that vote", Duration::from_secs(60), || {
            let status = self.status()?;
            let voters = status.coordinators.iter().filter(|c| c.voter).count();
            ensure!(voters == count, "{voters} of {count} vote");
            Ok(())
        })
    }

    fn wait_for_hosts(&self, count: usize) -> Result<()> {
        wait("hosts", Duration::from_secs(60), || {
            let hosts: Vec<HostView> = self.cli.json(&["host", "ls"])?;
            // A size that is not told yet is no room for anything.
            let told = |host: &&HostView| host.liveness == Liveness::Ready && host.facts.memory_bytes > 0;
            let ready = hosts.iter().filter(told).count();
            ensure!(ready == count, "{ready} of {count} ready");
            Ok(())
        })
    }

    /// The whole platform as an operator sees it.
    ///
    /// # Errors
    /// No coordinator answered.
    pub fn status(&self) -> Result<PlatformView> {
        self.cli.json(&["status"])
    }

    /// One service.
    ///
    /// # Errors
    /// It does not exist, or no coordinator answered.
    pub fn service(&self, name: &str) -> Result<ServiceView> {
        let status = self.status()?;
        let found = status.services.into_iter().find(|service| service.name.as_str() == name);
        found.with_context(|| format!("no service {name}"))
    }

    /// Waits until the service is as its spec says.
    ///
    /// # Errors
    /// It is not within `deadline`; the reasons are told.
    pub fn wait_healthy(&self, name: &str, deadline: Duration) -> Result<ServiceView> {
        wait(&format!("{name} healthy"), deadline, || {
            let service = self.service(name)?;
            ensure!(
                service.health.word == HealthWord::Healthy,
                "{}: {}",
                service.health.word,
                service.health.reasons.join("; ")
            );
            Ok(service)
        })
    }

    /// The leading member of a service, and its host.
    ///
    /// # Errors
    /// None is known to lead.
    pub fn leader(&self, service: &str) -> Result<(MemberView, Host)> {
        let service = self.service(service)?;
        let leads = |member: &&MemberView| member.role.as_deref() == Some("leader") && member.ready;
        let member = service.members.iter().find(leads).context("no member leads")?.clone();
        let host = self.testbed.host(member.host.as_str())?;
        Ok((member, host))
    }

    /// Host whose coordinator leads.
    ///
    /// # Errors
    /// None is known to lead.
    pub fn leading_coordinator(&self) -> Result<Host> {
        let status = self.status()?;
        let leader = status.coordinators.iter().find(|c| c.leader).context("no coordinator leads")?;
        let address = leader.endpoint.split(':').next().unwrap_or_default();
        let hosts = self.hosts()?;
        hosts
            .into_iter()
            .find(|host| host.address().to_string() == address)
            .context("the leader is on no host")
    }

    /// Writes a spec where the CLI can read it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_spec(&self, name: &str, yaml: &str) -> Result<PathBuf> {
        let path = self.testbed.config().dir.join(name);
        fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Applies a spec and waits for its end.
    ///
    /// # Errors
    /// What the CLI said.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let path = self.write_spec("spec.yaml", yaml)?;
        self.cli.run(&["--yes", "apply", &path.to_string_lossy()])
    }
}

/// Where the operator's context of a testbed is kept.
fn context_file(testbed: &Testbed) -> PathBuf {
    testbed.config().dir.join("operator.context.json")
}

fn exists(host: &Host, path: &str) -> Result<bool> {
    Ok(host.exec(&["test", "-e", path])?.success())
}

/// Runs one of our programs, or any other, inside a host.
///
/// # Errors
/// Any exit code but 0, with what it said.
pub fn exec(host: &Host, words: &[&str]) -> Result<String> {
    let program = match words.first() {
        Some(name) if name.starts_with("muster-") => format!("{PROGRAMS}/{name}"),
        Some(name) => (*name).to_owned(),
        None => bail!("no program named"),
    };
    let mut all = vec![program.as_str()];
    all.extend(&words[1..]);
    let out = host.exec_within(&all, Duration::from_secs(60))?;
    ensure!(out.success(), "{} on {}: {}{}", words[0], host.name(), out.stdout, out.stderr);
    Ok(out.stdout)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("writing {}", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(())
}
