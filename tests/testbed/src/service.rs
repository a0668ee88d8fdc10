//! One unit at work: when its process is started, stopped and started again, as systemd would; knows no other unit.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, umask};

use crate::command::run;
use crate::control::{UnitState, UnitStatus};
use crate::unit::{Directories, Exec, Restart, Unit, parse_environment_lines};

/// As systemd gives it to services; units that want more say so.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const NOTIFY_DIR: &str = "/run/testbed";
const LOG_BYTES_MAX: u64 = 16 << 20;
const PRE_DEADLINE: Duration = Duration::from_secs(90);
/// SIGHUP, SIGINT, SIGPIPE and SIGTERM: an end that systemd calls clean.
const CLEAN_SIGNALS: [i32; 4] = [1, 2, 13, 15];

/// A unit and its process.
pub struct Service {
    unit: Unit,
    log: PathBuf,
    /// Put into the environment of each process, so that leftovers can be told.
    mark: (String, String),
    state: State,
    detail: String,
    last_end: Option<String>,
    starts: u64,
    recent: Vec<Instant>,
    notify: Option<UnixDatagram>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Off,
    Queued,
    Up { pid: Pid, ready: bool },
    Stopping { pid: Pid, kill_at: Option<Instant>, again: bool },
    Resting { until: Instant },
}

impl Service {
    pub fn new(unit: Unit, log: PathBuf, mark: (String, String)) -> Self {
        Self {
            unit,
            log,
            mark,
            state: State::Off,
            detail: "not started yet".to_owned(),
            last_end: None,
            starts: 0,
            recent: Vec::new(),
            notify: None,
        }
    }

    pub fn after(&self) -> &[String] {
        &self.unit.after
    }

    pub fn is_queued(&self) -> bool {
        matches!(self.state, State::Queued)
    }

    /// Whether units that come after it may start: it is up, or is not going to be.
    pub fn is_settled(&self) -> bool {
        !matches!(self.state, State::Queued | State::Up { ready: false, .. })
    }

    pub fn has_process(&self, pid: Pid) -> bool {
        self.pid() == Some(pid)
    }

    pub fn status(&self) -> UnitStatus {
        let state = match self.state {
            State::Off => UnitState::Off,
            State::Queued => UnitState::Queued,
            State::Up { ready: false, .. } => UnitState::Starting,
            State::Up { ready: true, .. } => UnitState::Up,
            State::Stopping { .. } => UnitState::Stopping,
            State::Resting { .. } => UnitState::Resting,
        };
        UnitStatus {
            name: self.unit.name.clone(),
            state,
            pid: self.pid().map(|pid| pid.as_raw_nonzero().get()),
            starts: self.starts,
            detail: self.detail.clone(),
        }
    }

    /// Asks for it to run. An unmet condition leaves it off and says so; that is no error, as in systemd.
    pub fn start(&mut self) {
        match self.state {
            State::Off | State::Resting { .. } => self.queue(),
            State::Stopping { pid, kill_at, .. } => {
                self.state = State::Stopping { pid, kill_at, again: true }
            }
            State::Queued | State::Up { .. } => {}
        }
    }

    /// Asks for it to end; with `again` it is started once it ended.
    pub fn stop(&mut self, again: bool, now: Instant) {
        match self.state {
            State::Up { pid, .. } | State::Stopping { pid, .. } => {
                self.send(pid, self.unit.kill_signal);
                let kill_at = self.unit.stop_timeout.map(|span| now + span);
                self.state = State::Stopping { pid, kill_at, again };
            }
            State::Off | State::Queued | State::Resting { .. } => {
                self.enter_off("stopped".to_owned());
                if again {
                    self.queue();
                }
            }
        }
    }

    /// SIGKILL of the main process; with `hold` it is not started again by itself. Errors: there is no process.
    pub fn kill(&mut self, hold: bool) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} has no process", self.unit.name))?;
        kill_process(pid, Signal::KILL).context("killing")?;
        if hold {
            self.state = State::Stopping { pid, kill_at: None, again: false };
        }
        Ok(())
    }

    /// Starts its process; called when everything it comes after is settled.
    pub fn launch(&mut self, now: Instant) {
        if let Some(limit) = self.unit.start_limit {
            self.recent.retain(|start| now.duration_since(*start) < limit.interval);
            if self.recent.len() >= limit.burst {
                return self.enter_off("started too often (StartLimitBurst=)".to_owned());
            }
            self.recent.push(now);
        }
        self.starts += 1;
        match self.spawn() {
            Ok(pid) => {
                self.state = State::Up { pid, ready: !self.unit.notify };
                self.detail =
                    self.last_end.as_ref().map_or_else(String::new, |how| format!("last end: {how}"));
            }
            Err(error) => self.ended(false, format!("{error:#}"), now),
        }
    }

    /// Its main process ended.
    pub fn exited(&mut self, status: ExitStatus, now: Instant) {
        if let (Some(pid), false) = (self.pid(), self.unit.kill_main_only) {
            // What it forked goes with it, as with KillMode=control-group.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let how = status.to_string();
        if let State::Stopping { again, .. } = self.state {
            self.enter_off(format!("stopped: {how}"));
            if again {
                self.queue();
            }
            return;
        }
        if status.code().is_some_and(|code| self.unit.restart_not_after.contains(&code)) {
            self.last_end = Some(how.clone());
            return self.enter_off(how);
        }
        let clean = status.success() || status.signal().is_some_and(|signal| CLEAN_SIGNALS.contains(&signal));
        self.ended(clean, how, now);
    }

    /// Lets time pass: readiness, restarts that are due, stops that took too long.
    pub fn tick(&mut self, now: Instant) {
        match self.state {
            State::Up { pid, ready: false } if self.says_ready() => {
                self.state = State::Up { pid, ready: true }
            }
            State::Resting { until } if now >= until => self.queue(),
            State::Stopping { pid, kill_at: Some(at), again } if now >= at => {
                self.send(pid, Signal::KILL);
                self.state = State::Stopping { pid, kill_at: None, again };
            }
            _ => {}
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Up { pid, .. } | State::Stopping { pid, .. } => Some(pid),
            State::Off | State::Queued | State::Resting { .. } => None,
        }
    }

    fn queue(&mut self) {
        let unmet = self.unit.conditions.iter().find(|condition| condition.path.exists() != condition.wanted);
        match unmet {
            None => self.state = State::Queued,
            Some(condition) => {
                let not = if condition.wanted { "" } else { "!" };
                self.enter_off(format!(
                    "condition not met: ConditionPathExists={not}{}",
                    condition.path.display()
                ));
            }
        }
    }

    fn ended(&mut self, clean: bool, how: String, now: Instant) {
        self.last_end = Some(how.clone());
        let again = match self.unit.restart {
            Restart::Always => true,
            Restart::OnFailure => !clean,
            Restart::No => false,
        };
        if again {
            self.state = State::Resting { until: now + self.unit.restart_delay };
            self.detail = how;
        } else {
            self.enter_off(how);
        }
    }

    fn enter_off(&mut self, detail: String) {
        self.state = State::Off;
        self.detail = detail;
        if !self.unit.runtime_preserved {
            for name in &self.unit.runtime.names {
                // Absent is as good as removed.
                let _ = fs::remove_dir_all(Path::new("/run").join(name));
            }
        }
    }

    fn send(&self, pid: Pid, signal: Signal) {
        // A process that is gone already is reaped in the next round.
        let _ = if self.unit.kill_main_only {
            kill_process(pid, signal)
        } else {
            kill_process_group(pid, signal)
        };
    }

    fn says_ready(&self) -> bool {
        let mut message = [0; 4096];
        let Some(socket) = &self.notify else { return false };
        while let Ok(length) = socket.recv(&mut message) {
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return true;
            }
        }
        false
    }

    fn spawn(&mut self) -> Result<Pid> {
        make_directories("/var/lib", &self.unit.state)?;
        make_directories("/run", &self.unit.runtime)?;
        let mut environment = self.environment()?;
        if self.unit.notify {
            environment.push(("NOTIFY_SOCKET".to_owned(), self.listen_for_ready()?));
        }
        let log = open_log(&self.log)?;
        for exec in &self.unit.start_pre {
            let output = run(&mut self.command(exec, &environment), "", PRE_DEADLINE);
            ensure!(
                exec.may_fail || output.is_ok_and(|output| output.success()),
                "ExecStartPre failed: {}",
                exec.words.join(" ")
            );
        }
        let program = &self.unit.start.words[0];
        // As with Type=exec: said at once, and not by a process that ends with 127.
        ensure!(Path::new(program).exists(), "{program} does not exist");
        let mut command = self.command(&self.unit.start, &environment);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        // No other thread of the supervisor makes files, so its own mask may change for a moment.
        let before = umask(Mode::from_bits_truncate(self.unit.umask));
        let spawned = command.spawn();
        umask(before);
        let child = spawned.with_context(|| format!("starting {program}"))?;
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id out of range")
    }

    fn command(&self, exec: &Exec, environment: &[(String, String)]) -> Command {
        let words: Vec<String> =
            self.unit.privileges.wrapper().into_iter().chain(exec.words.iter().cloned()).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(environment.iter().cloned()).current_dir("/");
        command
    }

    fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut pairs = vec![
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            self.mark.clone(),
        ];
        for (key, root, directories) in [
            ("STATE_DIRECTORY", "/var/lib", &self.unit.state),
            ("RUNTIME_DIRECTORY", "/run", &self.unit.runtime),
        ] {
            if !directories.names.is_empty() {
                let full: Vec<_> = directories.names.iter().map(|name| format!("{root}/{name}")).collect();
                pairs.push((key.to_owned(), full.join(":")));
            }
        }
        pairs.extend(self.unit.environment.iter().cloned());
        for file in &self.unit.environment_files {
            match fs::read_to_string(&file.path) {
                Ok(text) => pairs.extend(parse_environment_lines(&text)?),
                Err(_) if file.may_miss => {}
                Err(error) => return Err(error).with_context(|| format!("reading {}", file.path.display())),
            }
        }
        Ok(pairs)
    }

    fn listen_for_ready(&mut self) -> Result<String> {
        fs::create_dir_all(NOTIFY_DIR)?;
        let path = format!("{NOTIFY_DIR}/{}.notify", self.unit.name);
        // From an earlier start of the same boot.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("listening on {path}"))?;
        socket.set_nonblocking(true)?;
        self.notify = Some(socket);
        Ok(path)
    }
}

fn make_directories(root: &str, directories: &Directories) -> Result<()> {
    for name in &directories.names {
        let path = Path::new(root).join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(directories.mode))?;
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}
