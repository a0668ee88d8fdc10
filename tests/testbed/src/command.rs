//! Runs a program with a deadline and a bounded output; nothing it started outlives the deadline.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Each of the two streams is kept up to this size; the rest is read and thrown away.
const STREAM_BYTES_MAX: usize = 16 << 20;
/// How long the streams may stay open after the program itself ended: a daemon it left behind may hold them for ever.
const DRAIN: Duration = Duration::from_millis(500);

/// What a program that ended by itself left behind.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// Runs `command` to its end. Errors: it could not be started, or did not end within `deadline` (it is killed then).
pub fn run(command: &mut Command, input: &str, deadline: Duration) -> Result<Output> {
    let what = describe(command);
    let end = Instant::now() + deadline;
    // A group of its own: the deadline must reach what the program forked, too.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {what}"))?;
    let stdout = child.stdout.take().map(Stream::read);
    let stderr = child.stderr.take().map(Stream::read);
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input says so by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Some(status) = wait(&mut child, end).with_context(|| format!("waiting for {what}"))? else {
        kill_group(&child);
        let _ = child.wait();
        let said = stderr.map(Stream::finish).unwrap_or_default();
        bail!("{what}: no end within {:.1} s; it said: {}", deadline.as_secs_f64(), said.trim());
    };
    Ok(Output {
        status,
        stdout: stdout.map(Stream::finish).unwrap_or_default(),
        stderr: stderr.map(Stream::finish).unwrap_or_default(),
    })
}

/// Like [`run`], and a failing exit status is an error that carries what the program said. Returns standard output.
pub fn checked(command: &mut Command, input: &str, deadline: Duration) -> Result<String> {
    let output = run(command, input, deadline)?;
    if !output.success() {
        bail!("{}: {}: {}", describe(command), output.status, output.stderr.trim());
    }
    Ok(output.stdout)
}

/// Polls `probe` until it says `Some`, at most until `deadline`; `None` when time is up.
pub fn poll<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn wait(child: &mut Child, end: Instant) -> Result<Option<ExitStatus>> {
    let left = end.saturating_duration_since(Instant::now());
    poll(left, || child.try_wait().transpose()).transpose().map_err(Into::into)
}

fn kill_group(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // Already gone is as good as killed.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

struct Stream {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn read(mut source: impl Read + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count) = source.read(&mut chunk) {
                if count == 0 {
                    break;
                }
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = STREAM_BYTES_MAX - kept.len();
                kept.extend_from_slice(&chunk[..count.min(room)]);
            }
        });
        Self { kept, reader }
    }

    fn finish(self) -> String {
        poll(DRAIN, || self.reader.is_finished().then_some(()));
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_with_what_it_forked() {
        let began = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo started >&2; sleep 600 & wait"]);
        let error = run(&mut command, "", Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("started"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_daemon_left_behind_does_not_hold_up_the_caller() {
        let began = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo done; sleep 3 &"]);
        let output = run(&mut command, "", Duration::from_secs(2)).unwrap();
        assert_eq!(output.stdout, "done\n");
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_failure_carries_what_was_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat >&2; exit 3"]);
        let error = checked(&mut command, "no such thing", Duration::from_secs(2)).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
