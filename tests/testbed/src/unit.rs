//! Reads a systemd service file into what the supervisor does about it; refuses what it would silently get wrong.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::capability::Privileges;
use crate::timespan::parse_timespan;

const FILE_BYTES_MAX: usize = 64 << 10;

/// Only confine or limit a service, describe it, or say when an administrator wants it: without effect on a correct
/// program, so the supervisor leaves them out. Every other unknown directive is an error.
const WITHOUT_EFFECT_HERE: [&str; 46] = [
    "Unit.Before",
    "Unit.Description",
    "Unit.Documentation",
    "Unit.Requires",
    "Unit.Wants",
    "Install.Alias",
    "Install.WantedBy",
    "Service.DeviceAllow",
    "Service.DevicePolicy",
    "Service.InaccessiblePaths",
    "Service.IPAddressAllow",
    "Service.IPAddressDeny",
    "Service.KeyringMode",
    "Service.LimitCORE",
    "Service.LimitMEMLOCK",
    "Service.LimitNOFILE",
    "Service.LockPersonality",
    "Service.MemoryDenyWriteExecute",
    "Service.OOMScoreAdjust",
    "Service.PrivateDevices",
    "Service.PrivateTmp",
    "Service.ProcSubset",
    "Service.ProtectClock",
    "Service.ProtectControlGroups",
    "Service.ProtectHome",
    "Service.ProtectHostname",
    "Service.ProtectKernelLogs",
    "Service.ProtectKernelModules",
    "Service.ProtectKernelTunables",
    "Service.ProtectProc",
    "Service.ProtectSystem",
    "Service.ReadOnlyPaths",
    "Service.ReadWritePaths",
    "Service.RemoveIPC",
    "Service.RestrictAddressFamilies",
    "Service.RestrictNamespaces",
    "Service.RestrictRealtime",
    "Service.RestrictSUIDSGID",
    "Service.StandardError",
    "Service.StandardOutput",
    "Service.SyslogIdentifier",
    "Service.SystemCallArchitectures",
    "Service.SystemCallErrorNumber",
    "Service.SystemCallFilter",
    "Service.TasksMax",
    "Service.Delegate",
];

/// One service file.
#[derive(Debug, Clone)]
pub struct Unit {
    /// File name without `.service`.
    pub name: String,
    /// Units without `.service` (and targets) that must be up before, when they are to be up at all.
    pub after: Vec<String>,
    pub conditions: Vec<Condition>,
    pub notify: bool,
    pub start_pre: Vec<Exec>,
    pub start: Exec,
    pub environment: Vec<(String, String)>,
    pub environment_files: Vec<EnvironmentFile>,
    pub restart: Restart,
    /// Exit codes after which it is not started again.
    pub restart_not_after: Vec<i32>,
    pub restart_delay: Duration,
    /// More than `burst` starts within `interval` are refused; `None`: never.
    pub start_limit: Option<StartLimit>,
    pub state: Directories,
    pub runtime: Directories,
    /// RuntimeDirectoryPreserve: the runtime directories stay when the unit stops.
    pub runtime_preserved: bool,
    pub umask: u32,
    pub kill_signal: Signal,
    /// KillMode=process: only the main process, not what it forked.
    pub kill_main_only: bool,
    /// `None`: waits for ever.
    pub stop_timeout: Option<Duration>,
    pub privileges: Privileges,
}

/// `ConditionPathExists=`, with `!` in front of it `wanted` is false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub path: PathBuf,
    pub wanted: bool,
}

/// A command line; `may_fail` is the `-` in front of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    pub words: Vec<String>,
    pub may_fail: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentFile {
    pub path: PathBuf,
    pub may_miss: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    No,
    OnFailure,
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartLimit {
    pub burst: usize,
    pub interval: Duration,
}

/// Relative to /var/lib or /run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    pub names: Vec<String>,
    pub mode: u32,
}

impl Unit {
    /// Errors: a directive that is unknown here, malformed, or missing; with its line.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        ensure!(text.len() <= FILE_BYTES_MAX, "{name}: larger than {FILE_BYTES_MAX} bytes");
        let mut unit = Self::with_systemd_defaults(name);
        let mut section = String::new();
        for (number, line) in logical_lines(text) {
            if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                title.clone_into(&mut section);
                continue;
            }
            let place = || format!("{name}.service line {number}: {line}");
            let (key, value) = line.split_once('=').with_context(place)?;
            let key = format!("{section}.{}", key.trim());
            unit.set(&key, value.trim()).with_context(place)?;
        }
        ensure!(!unit.start.words.is_empty(), "{name}.service: ExecStart is missing");
        Ok(unit)
    }

    fn with_systemd_defaults(name: &str) -> Self {
        let none = || Directories { names: Vec::new(), mode: 0o755 };
        Self {
            name: name.to_owned(),
            after: Vec::new(),
            conditions: Vec::new(),
            notify: false,
            start_pre: Vec::new(),
            start: Exec::default(),
            environment: Vec::new(),
            environment_files: Vec::new(),
            restart: Restart::No,
            restart_not_after: Vec::new(),
            restart_delay: Duration::from_millis(100),
            start_limit: Some(StartLimit { burst: 5, interval: Duration::from_secs(10) }),
            state: none(),
            runtime: none(),
            runtime_preserved: false,
            umask: 0o022,
            kill_signal: Signal::TERM,
            kill_main_only: false,
            stop_timeout: Some(Duration::from_secs(90)),
            privileges: Privileges::default(),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "Unit.After" => self.after.extend(words_of_list(value).map(plain_name)),
            "Unit.ConditionPathExists" => self.conditions.push(parse_condition(value)?),
            "Unit.StartLimitIntervalSec" => self.set_limit_interval(value)?,
            "Unit.StartLimitBurst" => self.set_limit_burst(value)?,
            "Service.Type" => self.notify = parse_type(value)?,
            // For Type=notify: we listen on a socket per unit, so who sends is not asked.
            "Service.NotifyAccess" => {}
            "Service.ExecStart" if value.is_empty() => self.start = Exec::default(),
            "Service.ExecStart" => {
                ensure!(self.start.words.is_empty(), "a second ExecStart");
                self.start = parse_exec(value)?;
                ensure!(!self.start.may_fail, "ExecStart with a leading dash");
            }
            "Service.ExecStartPre" if value.is_empty() => self.start_pre.clear(),
            "Service.ExecStartPre" => self.start_pre.push(parse_exec(value)?),
            "Service.Environment" if value.is_empty() => self.environment.clear(),
            "Service.Environment" => self.environment.extend(parse_environment(value)?),
            "Service.EnvironmentFile" => self.environment_files.push(parse_environment_file(value)?),
            "Service.Restart" => self.restart = parse_restart(value)?,
            "Service.RestartPreventExitStatus" => {
                self.restart_not_after =
                    value.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            }
            "Service.RestartSec" => self.restart_delay = parse_timespan(value)?.context("waits for ever")?,
            "Service.StateDirectory" => self.state.names.extend(parse_directories(value)?),
            "Service.StateDirectoryMode" => self.state.mode = parse_mode(value)?,
            "Service.RuntimeDirectory" => self.runtime.names.extend(parse_directories(value)?),
            "Service.RuntimeDirectoryMode" => self.runtime.mode = parse_mode(value)?,
            "Service.RuntimeDirectoryPreserve" => self.runtime_preserved = parse_yes(value)?,
            "Service.UMask" => self.umask = parse_mode(value)?,
            "Service.KillSignal" => self.kill_signal = parse_signal(value)?,
            "Service.KillMode" => self.kill_main_only = parse_kill_mode(value)?,
            "Service.TimeoutStopSec" => {
                self.stop_timeout = parse_timespan(value)?.filter(|span| !span.is_zero());
            }
            "Service.CapabilityBoundingSet" => self.privileges.bound(value)?,
            "Service.NoNewPrivileges" => self.privileges.no_new_privileges = parse_yes(value)?,
            _ if WITHOUT_EFFECT_HERE.contains(&key) => {}
            _ => bail!(
                "the testbed's supervisor does not know {key}, so it would run something else than systemd does"
            ),
        }
        Ok(())
    }

    fn set_limit_interval(&mut self, value: &str) -> Result<()> {
        let interval = parse_timespan(value)?.context("StartLimitIntervalSec=infinity is not supported")?;
        let burst = self.start_limit.map_or(5, |limit| limit.burst);
        self.start_limit = (!interval.is_zero()).then_some(StartLimit { burst, interval });
        Ok(())
    }

    fn set_limit_burst(&mut self, value: &str) -> Result<()> {
        let burst = value.parse().context("StartLimitBurst")?;
        if let Some(limit) = &mut self.start_limit {
            limit.burst = burst;
        }
        Ok(())
    }
}

/// A unit's name as people say it, without `.service`.
pub fn plain_name(name: &str) -> String {
    name.strip_suffix(".service").unwrap_or(name).to_owned()
}

/// `KEY=VALUE` lines of an EnvironmentFile; comments and empty lines are skipped.
pub fn parse_environment_lines(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (key, value) = line.split_once('=').with_context(|| format!("{line}: not KEY=VALUE"))?;
        let value = value.trim();
        let quoted = |q: char| value.len() >= 2 && value.starts_with(q) && value.ends_with(q);
        let value = if quoted('"') || quoted('\'') { &value[1..value.len() - 1] } else { value };
        pairs.push((key.trim().to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Lines with their number, continuations joined, comments and empty ones left out.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.starts_with(['#', ';']) || (line.is_empty() && open.is_none()) {
            continue;
        }
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                joined.push_str(part);
                joined.push(' ');
                open = Some((number, joined));
            }
            None => {
                joined.push_str(line);
                lines.push((number, joined));
            }
        }
    }
    lines.extend(open);
    lines
}

/// Splits a command line or an environment list; quotes hold blanks together.
fn split_words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            ('%', _) => {
                ensure!(chars.next() == Some('%'), "specifiers (%) are not supported");
                word.get_or_insert_default().push('%');
            }
            ('\\' | '$', _) => bail!("{c} is not supported"),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "an open quote");
    words.extend(word);
    Ok(words)
}

fn words_of_list(value: &str) -> impl Iterator<Item = &str> {
    value.split_whitespace()
}

fn parse_condition(value: &str) -> Result<Condition> {
    let (wanted, path) = value.strip_prefix('!').map_or((true, value), |path| (false, path));
    ensure!(path.starts_with('/'), "an absolute path is needed");
    Ok(Condition { path: PathBuf::from(path), wanted })
}

fn parse_type(value: &str) -> Result<bool> {
    match value {
        "simple" | "exec" => Ok(false),
        "notify" => Ok(true),
        _ => bail!("only simple, exec and notify are supported"),
    }
}

fn parse_exec(value: &str) -> Result<Exec> {
    let (may_fail, line) = value.strip_prefix('-').map_or((false, value), |line| (true, line));
    let words = split_words(line)?;
    ensure!(words.first().is_some_and(|program| program.starts_with('/')), "an absolute program is needed");
    Ok(Exec { words, may_fail })
}

fn parse_environment(value: &str) -> Result<Vec<(String, String)>> {
    let pair = |word: String| {
        let (key, value) = word.split_once('=').with_context(|| format!("{word}: not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    split_words(value)?.into_iter().map(pair).collect()
}

fn parse_environment_file(value: &str) -> Result<EnvironmentFile> {
    let (may_miss, path) = value.strip_prefix('-').map_or((false, value), |path| (true, path));
    ensure!(path.starts_with('/'), "an absolute path is needed");
    Ok(EnvironmentFile { path: PathBuf::from(path), may_miss })
}

fn parse_restart(value: &str) -> Result<Restart> {
    match value {
        "no" => Ok(Restart::No),
        "on-failure" => Ok(Restart::OnFailure),
        "always" => Ok(Restart::Always),
        _ => bail!("only no, on-failure and always are supported"),
    }
}

fn parse_directories(value: &str) -> Result<Vec<String>> {
    let names: Vec<String> = words_of_list(value).map(str::to_owned).collect();
    for name in &names {
        let inside = !name.starts_with('/') && name.split('/').all(|part| !part.is_empty() && part != "..");
        ensure!(inside, "{name}: a relative path without ..");
    }
    Ok(names)
}

fn parse_mode(value: &str) -> Result<u32> {
    let mode = u32::from_str_radix(value, 8).with_context(|| format!("{value} is not an octal mode"))?;
    ensure!(mode <= 0o7777, "{value} is not an octal mode");
    Ok(mode)
}

fn parse_yes(value: &str) -> Result<bool> {
    match value {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => bail!("yes or no"),
    }
}

fn parse_signal(value: &str) -> Result<Signal> {
    Ok(match value {
        "SIGTERM" => Signal::TERM,
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGHUP" => Signal::HUP,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGKILL" => Signal::KILL,
        _ => bail!("signal {value} is not known"),
    })
}

fn parse_kill_mode(value: &str) -> Result<bool> {
    match value {
        "control-group" | "mixed" => Ok(false),
        "process" => Ok(true),
        _ => bail!("only control-group, mixed and process are supported"),
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
