//! One coordinator: its directory, its address, its process while it runs.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::programs;

/// Longest run of a program that must end by itself.
const ONCE: Duration = Duration::from_secs(40);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// With success.
    pub ok: bool,
    /// Exit code; absent = killed.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

/// One coordinator. Its process ends with it.
pub struct Node {
    /// State directory.
    pub dir: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Life of the certificates that it signs, seconds; absent = the default.
    pub life: Option<u64>,
    /// How its clock is moved, as faketime says it.
    pub clock: Option<&'static str>,
    log: PathBuf,
    process: Option<Child>,
}

/// A port that nobody listens on, outside the range from which the kernel takes ports of connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    loop {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl Node {
    /// With a state directory of this name.
    #[must_use]
    pub fn new(root: &Path, name: &str, life: Option<u64>) -> Self {
        Self {
            dir: root.join(name),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            life,
            clock: None,
            log: root.join(format!("{name}.log")),
            process: None,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::coordinator());
        command.args(arguments).arg("--state-dir").arg(&self.dir).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(life) = self.life {
            command.env("MUSTER_CERTIFICATE_LIFE_S", life.to_string());
        }
        move_clock(&mut command, self.clock);
        command
    }

    /// Runs a command of this coordinator that ends by itself.
    pub async fn once(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments)).await
    }

    /// Runs it to its end, for a start that must fail.
    pub async fn run_to_end(&self) -> Ended {
        self.once(&["run", "--listen", &self.address.to_string()]).await
    }

    /// Starts it in the background.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(&mut self) {
        let log = || -> File {
            OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be written")
        };
        let mut command = self.command(&["run", "--listen", &self.address.to_string()]);
        command.stdout(log()).stderr(log());
        self.process = Some(command.spawn().expect("the coordinator can be started"));
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// It cannot be killed.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.expect("our own child can be killed");
        }
    }

    /// Stops it where it is, or lets it go on: it neither hears nor says anything, and does not notice.
    ///
    /// # Panics
    /// It does not run.
    pub fn pause(&self, pause: bool) {
        let signal = if pause { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(self.process_id(), signal).expect("our own child can be paused");
    }

    fn process_id(&self) -> rustix::process::Pid {
        let id = self.pid().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        id.expect("it runs")
    }

    /// Asks it to end.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        rustix::process::kill_process(self.process_id(), rustix::process::Signal::TERM)
            .expect("our own child can be asked to end");
        let mut process = self.process.take().expect("it runs");
        let ended = tokio::time::timeout(ONCE, process.wait()).await;
        ended.expect("it ends when asked to").expect("our own child can be waited for")
    }

    /// Waits until it has ended by itself; its exit code.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("it runs");
        let ended = tokio::time::timeout(ONCE, process.wait()).await;
        ended.expect("it ends by itself").expect("our own child can be waited for").code()
    }

    /// What it wrote so far, in all its runs.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its resident memory, MiB.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().expect("it runs")));
        let status = status.expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }
}

/// Moves a program's wall clock; its monotonic clock stays right, else waits hang.
pub(crate) fn move_clock(command: &mut Command, by: Option<&str>) {
    let Some(by) = by else { return };
    let library = programs::faketime().expect("only asked for where faketime is installed");
    command.env("LD_PRELOAD", library).env("FAKETIME", by);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
}

/// Waits for a program's end.
pub async fn finish(mut command: Command) -> Ended {
    let output = tokio::time::timeout(ONCE, command.output()).await;
    let output = output.expect("the program ends by itself").expect("the program can be started");
    Ended {
        ok: output.status.success(),
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
