//! How long the disk takes until a small write is safe.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::finding::Finding;

/// Writes that are timed; the median is judged, so that one slow write is no verdict.
const WRITES: usize = 15;
/// Bytes of one write: about a commit record.
const SIZE: usize = 4_096;
/// All together take no longer.
const LIMIT: Duration = Duration::from_secs(5);

/// A commit waits for two of them, here and on a standby: above 20 ms an application feels it, and above 100 ms a
/// coordinator's or etcd's entry needs a good part of the second after which a leader is doubted.
const SLOW: Duration = Duration::from_millis(20);
const TOO_SLOW: Duration = Duration::from_millis(100);

/// Times small writes in a file below `dir` that has no name, so that nothing stays.
pub fn flush_time(dir: &Path) -> Finding {
    let check = "flush time";
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("/"));
    match measure(existing) {
        Ok(median) => judge(median, existing),
        Err(error) => Finding::fail(
            check,
            format!("{}: {error}", existing.display()),
            "the agent must be able to write there: run the doctor as root, look at the mount",
        ),
    }
}

fn measure(dir: &Path) -> std::io::Result<Duration> {
    let mut file: File = tempfile::tempfile_in(dir)?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < WRITES && begin.elapsed() < LIMIT {
        let one = Instant::now();
        file.write_all(&[0x6d; SIZE])?;
        file.sync_data()?;
        times.push(one.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(LIMIT))
}

fn judge(median: Duration, dir: &Path) -> Finding {
    let check = "flush time";
    let millis = median.as_secs_f64() * 1_000.0;
    let text =
        format!("a write of 4 KiB is safe after {millis:.1} ms at {} (median of {WRITES})", dir.display());
    let remedy =
        "use a local SSD or NVMe disk; network disks and shared spinning disks are too slow for databases";
    if median > TOO_SLOW {
        Finding::fail(check, text, remedy)
    } else if median > SLOW {
        Finding::warn(check, text, remedy)
    } else {
        Finding::ok(check, text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn slow_is_a_warning_and_too_slow_a_failure() {
        let verdict = |ms| judge(Duration::from_millis(ms), Path::new("/x")).verdict;
        assert_eq!([verdict(20), verdict(21), verdict(101)], [Verdict::Ok, Verdict::Warn, Verdict::Fail]);
    }

    #[test]
    fn a_real_directory_is_timed_and_nothing_stays_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let finding = flush_time(dir.path());
        assert!(finding.finding.contains("4 KiB is safe after"), "{}", finding.finding);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
