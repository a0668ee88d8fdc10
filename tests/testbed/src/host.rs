//! One emulated host: boot, power cut, stall, commands inside, its engine and its units. Knows nothing of other hosts.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::Cgroups;
use crate::command::{Output, checked, poll, run};
use crate::config::Config;
use crate::control::{UnitState, UnitStatus, Verb, ask};
use crate::disk::{Disk, remove_tree};
use crate::unit::plain_name;
use crate::wan::{Wan, namespace_file};

/// In the environment of every process that the testbed starts; its value is `<prefix>/<host>`.
pub const HOST_MARK: &str = "MUSTER_TB_HOST";
const COMMAND_PATH: &str =
    "/usr/local/lib/muster:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const BOOT: Duration = Duration::from_secs(20);
const ENGINE: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::from_secs(20);
const CONTROL: Duration = Duration::from_secs(5);
const COMMAND: Duration = Duration::from_secs(60);
const UNIT_STOP: Duration = Duration::from_secs(120);

/// A host that has a disk; it may be off.
#[derive(Debug, Clone)]
pub struct Host {
    config: Arc<Config>,
    name: String,
    index: u8,
    disk: Disk,
}

impl Host {
    pub(crate) fn new(config: Arc<Config>, name: &str, index: u8) -> Self {
        let disk = Disk::new(&config, name);
        Self { config, name: name.to_owned(), index, disk }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public address; the same for life.
    pub fn address(&self) -> Ipv4Addr {
        self.config.address_of(self.index)
    }

    /// Its folder on the machine: `log/<unit>.log`, `docker/`, `muster/` and so on.
    pub fn dir(&self) -> &Path {
        &self.disk.dir
    }

    /// Where the output of a unit goes; `docker` is the engine's.
    pub fn log_file(&self, unit: &str) -> PathBuf {
        self.disk.log_file(&plain_name(unit))
    }

    /// Its engine's socket as seen from the machine. The path is the same after a reboot; it leads nowhere while off.
    pub fn docker_socket(&self) -> PathBuf {
        self.disk.docker_socket()
    }

    /// Machine-wide id of its first process; `None`: it is off.
    pub fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.disk.pid_file()).ok()?;
        let (pid, birth) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        // Numbers are used again; births are not.
        let stat = stat_of(pid)?;
        (stat.birth.to_string() == birth && stat.state != 'Z').then_some(pid)
    }

    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    pub fn is_paused(&self) -> bool {
        self.cgroups().is_ok_and(|cgroups| cgroups.is_frozen(&self.config.cgroup(), &self.name))
    }

    /// Boots it and returns when its engine answers; harmless when it runs. Errors: it is paused, or does not come up.
    pub fn start(&self) -> Result<()> {
        if !self.is_running() {
            self.boot().with_context(|| format!("booting {}", self.name))?;
            return self.wait_for_engine();
        }
        ensure!(!self.is_paused(), "{} is paused; resume it first", self.name);
        self.engine_start()
    }

    /// Cuts its power: the cable first, so that nobody hears a last word; then every process at once. Harmless when off.
    pub fn kill(&self) -> Result<()> {
        let (top, name) = (self.config.cgroup(), &self.name);
        let (wan, cgroups, path) = (Wan::new(&self.config), self.cgroups()?, format!("{top}/{name}"));
        wan.unplug(self.index)?;
        if let Some(pid) = self.pid() {
            signal(pid, Signal::KILL)?;
            // The signal reaches a frozen process only when it thaws.
            if cgroups.is_frozen(&top, name) {
                cgroups.freeze(&top, name, false)?;
            }
            poll(GONE, || (!self.is_running()).then_some(()))
                .with_context(|| format!("{name} does not die"))?;
        }
        // Commands that were sent in from outside, and whatever an interrupted boot left.
        for pid in cgroups.processes(&path) {
            let _ = signal(pid, Signal::KILL);
        }
        cgroups.remove(&path, GONE)?;
        wan.detach(&self.namespace(), self.index)?;
        if wan.exists() {
            wan.stall(self.address(), false)?;
        }
        for file in [self.disk.pid_file(), self.disk.control_socket(), self.docker_socket()] {
            // Absent when it was off.
            let _ = fs::remove_file(file);
        }
        Ok(())
    }

    /// Stalls the whole machine, as a hypervisor does: nothing runs, nothing is answered, what is sent to it is lost.
    pub fn pause(&self) -> Result<()> {
        self.require_running()?;
        Wan::new(&self.config).stall(self.address(), true)?;
        self.cgroups()?.freeze(&self.config.cgroup(), &self.name, true)
    }

    pub fn resume(&self) -> Result<()> {
        self.require_running()?;
        self.cgroups()?.freeze(&self.config.cgroup(), &self.name, false)?;
        Wan::new(&self.config).stall(self.address(), false)
    }

    /// Another MTU on its uplink, both ends.
    pub fn mtu(&self, mtu: u32) -> Result<()> {
        self.require_running()?;
        Wan::new(&self.config).mtu(&self.namespace(), self.index, mtu)
    }

    /// A command that will run inside as its root, with a clean environment. The caller decides about streams and end.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Result<Command> {
        let pid = self.require_running()?;
        let mut command = self.inside_cgroups()?;
        command.args([
            "nsenter",
            "--target",
            &pid.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--",
        ]);
        command.args(self.clean_environment()).args(words.iter().map(AsRef::as_ref));
        Ok(command)
    }

    /// Runs a command inside, for at most 60 s. Errors: the host is off, or no end in time; a failing exit is none.
    pub fn exec<S: AsRef<str>>(&self, words: &[S]) -> Result<Output> {
        self.exec_within(words, COMMAND)
    }

    pub fn exec_within<S: AsRef<str>>(&self, words: &[S], deadline: Duration) -> Result<Output> {
        run(&mut self.command(words)?, "", deadline)
    }

    /// Starts a command inside that goes on; its output is appended to `log/<log>.log`. It dies with the host, not with the caller.
    pub fn spawn<S: AsRef<str>>(&self, words: &[S], log: &str) -> Result<Child> {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.disk.log_file(log))?;
        let mut command = self.command(words)?;
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.spawn().context("starting a command inside")
    }

    /// The `docker` client, from the machine, against its engine.
    pub fn docker_command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.docker_socket().display()));
        command.args(arguments.iter().map(AsRef::as_ref));
        command
    }

    /// Runs `docker` and returns what it printed. Errors: it failed, or took longer than `deadline`.
    pub fn docker<S: AsRef<str>>(&self, arguments: &[S], deadline: Duration) -> Result<String> {
        checked(&mut self.docker_command(arguments), "", deadline)
    }

    /// Freezes only the engine (dockerd and its containerd); containers go on.
    pub fn engine_pause(&self) -> Result<()> {
        // Safety of this order: dockerd first, else it would see containerd hang and act on it.
        self.signal_engine(["dockerd", "containerd"], Signal::STOP)
    }

    pub fn engine_resume(&self) -> Result<()> {
        self.signal_engine(["containerd", "dockerd"], Signal::CONT)
    }

    /// Kills only the engine; it stays dead until `engine_start`. Containers go on.
    pub fn engine_kill(&self) -> Result<()> {
        self.ask(Verb::KillAndHold, "docker")?;
        self.wait_for_unit("docker", UNIT_STOP, |unit| unit.state == UnitState::Off)
    }

    /// Starts the engine and returns when it answers; harmless when it runs.
    pub fn engine_start(&self) -> Result<()> {
        self.ask(Verb::Start, "docker")?;
        self.wait_for_engine()
    }

    /// All units, by name.
    pub fn units(&self) -> Result<Vec<UnitStatus>> {
        self.ask(Verb::Status, "")
    }

    pub fn unit_status(&self, unit: &str) -> Result<UnitStatus> {
        let name = plain_name(unit);
        let found = self.units()?.into_iter().find(|status| status.name == name);
        found.with_context(|| format!("{} has no unit {name}", self.name))
    }

    /// Starts a unit. Errors: its condition is not met, it cannot be started, or it is not up within a minute.
    pub fn unit_start(&self, unit: &str) -> Result<()> {
        let before = self.unit_status(unit)?.starts;
        self.ask(Verb::Start, unit)?;
        let failed = |unit: &UnitStatus| unit.state == UnitState::Resting && unit.starts > before;
        let decided =
            |unit: &UnitStatus| matches!(unit.state, UnitState::Up | UnitState::Off) || failed(unit);
        self.wait_for_unit(unit, ENGINE, decided)?;
        let status = self.unit_status(unit)?;
        ensure!(status.state == UnitState::Up, "{} on {}: {}", status.name, self.name, status.detail);
        Ok(())
    }

    /// Stops a unit and waits for its end.
    pub fn unit_stop(&self, unit: &str) -> Result<()> {
        self.ask(Verb::Stop, unit)?;
        self.wait_for_unit(unit, UNIT_STOP, |unit| unit.state == UnitState::Off)
    }

    pub fn unit_restart(&self, unit: &str) -> Result<()> {
        let before = self.unit_status(unit)?.starts;
        self.ask(Verb::Restart, unit)?;
        self.wait_for_unit(unit, UNIT_STOP, |unit| unit.state == UnitState::Up && unit.starts > before)
    }

    /// SIGKILL of a unit's main process; its Restart= decides what follows.
    pub fn unit_kill(&self, unit: &str) -> Result<()> {
        self.ask(Verb::Kill, unit).map(drop)
    }

    /// Waits until the engine answers a ping.
    pub fn wait_for_engine(&self) -> Result<()> {
        let socket = self.docker_socket();
        let answered =
            poll(ENGINE, || if self.is_running() { ping(&socket).then_some(true) } else { Some(false) });
        match answered {
            Some(true) => Ok(()),
            Some(false) => bail!("{} is off; {}", self.name, self.tail("init")),
            None => bail!("the engine of {} does not answer; {}", self.name, self.tail("docker")),
        }
    }

    /// Removes its disk; only for a host that is off.
    pub(crate) fn discard(&self) -> Result<()> {
        ensure!(!self.is_running(), "{} still runs", self.name);
        // The kernel lets go of a dead host's mounts a moment after its last process.
        poll(GONE, || remove_tree(&self.disk.dir).ok()).map_or_else(|| remove_tree(&self.disk.dir), Ok)
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn namespace(&self) -> String {
        format!("{}-{}", self.config.prefix, self.name)
    }

    /// Resident memory of all its processes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let resident = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(resident).sum::<u64>() * 1024
    }

    fn boot(&self) -> Result<()> {
        // What a cut-off boot or kill left must be gone before the same names are used again.
        self.kill()?;
        self.disk.make(&self.config, &self.name, self.index)?;
        Wan::new(&self.config).attach(&self.namespace(), self.index)?;
        self.cgroups()?.make(&self.config.cgroup(), &self.name, self.config.memory_bytes)?;
        let log = fs::File::create(self.disk.log_file("init"))?;
        let net = format!("--net={}", namespace_file(&self.namespace()).display());
        let mut command = Command::new("setsid");
        let inner = self.inside_cgroups()?;
        command.arg("--fork").arg(inner.get_program()).args(inner.get_args()).args(["nsenter", &net, "--"]);
        command.args(self.clean_environment());
        command.args(self.config.environment().into_iter().map(|(key, value)| format!("{key}={value}")));
        command.args([
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--propagation",
            "private",
            "--",
        ]);
        command.arg(self.config.init_program()?).args(["init", &self.name]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        ensure!(command.status().context("starting the first process")?.success(), "setsid failed");
        let up = poll(BOOT, || self.ask(Verb::Status, "").ok());
        ensure!(up.is_some(), "its supervisor does not come up; {}", self.tail("init"));
        Ok(())
    }

    /// `sh` that joins the host's cgroups and becomes the command that follows.
    fn inside_cgroups(&self) -> Result<Command> {
        let mut script = String::from("set -e; ");
        for file in self.cgroups()?.join_files(&self.config.cgroup(), &self.name) {
            script.push_str(&format!("echo $$ > '{}'; ", file.display()));
        }
        script.push_str("exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]);
        Ok(command)
    }

    fn clean_environment(&self) -> [String; 7] {
        let mark = format!("{HOST_MARK}={}/{}", self.config.prefix, self.name);
        let path = format!("PATH={COMMAND_PATH}");
        ["env", "-i", &path, "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", &mark].map(str::to_owned)
    }

    fn signal_engine(&self, programs: [&str; 2], what: Signal) -> Result<()> {
        self.require_running()?;
        let processes = self.processes();
        let mut found = false;
        for program in programs {
            for pid in
                processes.iter().copied().filter(|pid| stat_of(*pid).is_some_and(|stat| stat.name == program))
            {
                signal(pid, what)?;
                found = true;
            }
        }
        ensure!(found, "the engine of {} does not run", self.name);
        Ok(())
    }

    fn processes(&self) -> Vec<i32> {
        let path = format!("{}/{}", self.config.cgroup(), self.name);
        self.cgroups().map(|cgroups| cgroups.processes(&path)).unwrap_or_default()
    }

    fn ask(&self, verb: Verb, unit: &str) -> Result<Vec<UnitStatus>> {
        self.require_running()?;
        ask(&self.disk.control_socket(), verb, &plain_name(unit), CONTROL)
            .with_context(|| format!("asking {}", self.name))
    }

    fn wait_for_unit(
        &self,
        unit: &str,
        deadline: Duration,
        until: impl Fn(&UnitStatus) -> bool,
    ) -> Result<()> {
        let mut last = self.unit_status(unit)?;
        let reached = poll(deadline, || {
            if let Ok(status) = self.unit_status(unit) {
                last = status;
            }
            until(&last).then_some(())
        });
        reached.with_context(|| {
            format!("{} on {}: still {:?}, {}", last.name, self.name, last.state, last.detail)
        })
    }

    fn require_running(&self) -> Result<i32> {
        self.pid().with_context(|| format!("{} is off", self.name))
    }

    fn cgroups(&self) -> Result<Cgroups> {
        Cgroups::detect()
    }

    fn tail(&self, log: &str) -> String {
        let file = self.disk.log_file(log);
        let text = fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        format!("{}: {}", file.display(), lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
    }
}

/// What /proc/PID/stat says.
pub struct Stat {
    pub name: String,
    pub state: char,
    /// In clock ticks since the machine booted: with the number it names a process for ever.
    pub birth: u64,
}

pub fn stat_of(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split(' ').collect();
    Some(Stat {
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        birth: fields.get(19)?.parse().ok()?,
    })
}

fn signal(pid: i32, what: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).context("not a process")?;
    kill_process(pid, what).context("sending a signal")
}

fn ping(socket: &Path) -> bool {
    let answer = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    answer().unwrap_or(false)
}
