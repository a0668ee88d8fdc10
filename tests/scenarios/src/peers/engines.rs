//! Three engines and what their own events say: the same eyes for both sides.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use muster_testbed::Host;

use super::LONGEST;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
const CALL: Duration = Duration::from_secs(20);
/// Part of the command line of every member, before its revision.
pub const MARK: &str = "bench-revision-";

/// A program that ends at once when it is told to, so that no side waits for a kill.
#[must_use]
pub fn program(revision: usize) -> [String; 3] {
    let script = format!("trap 'exit 0' TERM; : {MARK}{revision}.; sleep 1000000 & wait");
    ["sh".to_owned(), "-c".to_owned(), script]
}

/// The hosts of one side.
pub struct Fleet {
    /// In their order.
    pub hosts: Vec<Host>,
}

impl Fleet {
    /// Nanoseconds since the epoch, as engines write them.
    #[expect(clippy::unused_self, reason = "the clock of these engines: one machine has one")]
    pub fn now(&self) -> u128 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
    }

    /// From then until the `count`th start of a member.
    pub fn started(&self, since: u128, count: usize) -> Result<Duration> {
        self.started_but(None, since, count)
    }

    /// The same without one host.
    pub fn started_but(&self, without: Option<usize>, since: u128, count: usize) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let mut starts = Vec::new();
            for (_, host) in self.hosts.iter().enumerate().filter(|(at, _)| Some(*at) != without) {
                starts.extend(starts_of(host, since)?);
            }
            starts.sort_unstable();
            if let Some(at) = starts.get(count - 1) {
                let nanos = u64::try_from(at.saturating_sub(since))?;
                return Ok(Duration::from_nanos(nanos));
            }
            ensure!(began.elapsed() < LONGEST, "{} of {count} members were started", starts.len());
            sleep(PAUSE);
        }
    }

    /// Running members of one host.
    pub fn members(&self, host: usize) -> Result<usize> {
        Ok(lines(&self.hosts[host], MARK)?.len())
    }

    /// Waits until exactly so many members run, all of one revision, and still do a moment later.
    pub fn settle(&self, revision: usize, count: usize) -> Result<()> {
        let (began, mark) = (Instant::now(), format!("{MARK}{revision}."));
        let mut calm = 0;
        while calm < 10 {
            let (mut all, mut right) = (0, 0);
            for host in &self.hosts {
                all += lines(host, MARK)?.len();
                right += lines(host, &mark)?.len();
            }
            calm = if all == count && right == count { calm + 1 } else { 0 };
            ensure!(began.elapsed() < LONGEST, "{right} of {all} members are right, {count} are wanted");
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Kills one member's process on a host; when.
    pub fn kill_one(&self, host: usize) -> Result<u128> {
        let host = &self.hosts[host];
        let member = lines(host, MARK)?.into_iter().next().context("no member there")?;
        let pid = host.docker(&["inspect", "-f", "{{.State.Pid}}", &member], CALL)?;
        let at = self.now();
        let killed = host.exec(&["kill", "-9", pid.trim()])?;
        ensure!(killed.success(), "it cannot be killed");
        Ok(at)
    }
}

/// Ids of running containers with this in their command line.
fn lines(host: &Host, mark: &str) -> Result<Vec<String>> {
    let text = host.docker(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"], CALL)?;
    let ours = text.lines().filter(|line| line.contains(mark));
    Ok(ours.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect())
}

/// When containers were started since then.
fn starts_of(host: &Host, since: u128) -> Result<Vec<u128>> {
    let stamp = |nanos: u128| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let until = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let text = host.docker(
        &[
            "events",
            "--since",
            &stamp(since),
            "--until",
            &stamp(until),
            "--filter",
            "type=container",
            "--filter",
            "event=start",
            "--format",
            "{{.TimeNano}}",
        ],
        CALL,
    )?;
    text.lines().map(|line| Ok(line.trim().parse()?)).collect()
}
