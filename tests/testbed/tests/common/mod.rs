//! What the scenarios over emulated hosts share: a testbed that is always taken down, and a way to ask who reaches whom.

#![allow(dead_code, reason = "each scenario is a program of its own and uses its part")]

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use muster_testbed::{Config, Host, Testbed};

/// A port where nobody listens: who gets a reset has reached the host's kernel.
const NOBODY: u16 = 9;

/// A testbed of its own for one scenario; taken down with everything when it goes out of scope.
pub struct Fixture {
    pub testbed: Testbed,
    /// The same scenario of another checkout waits.
    _turn: File,
}

impl Fixture {
    /// `None`, said loudly, without root; everything else that is missing is a failure.
    pub fn new(prefix: &str, net: [u8; 2], change: impl FnOnce(&mut Config)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: scenario {prefix} needs root");
            return None;
        }
        let mut config = Config::from_env().unwrap();
        config.prefix = prefix.to_owned();
        config.dir = PathBuf::from(format!("/var/tmp/muster-testbed-{prefix}"));
        config.net = net;
        config.hostnames = Vec::new();
        change(&mut config);
        let missing: Vec<_> =
            muster_testbed::doctor(&config).into_iter().filter(|one| one.remedy.is_some()).collect();
        assert!(missing.is_empty(), "this machine lacks {missing:?}");
        let turn = File::create(std::env::temp_dir().join(format!("{prefix}.turn"))).unwrap();
        rustix::fs::flock(&turn, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let testbed = Testbed::new(config).unwrap();
        // An interrupted earlier run.
        testbed.down(false, true).unwrap();
        Some(Self { testbed, _turn: turn })
    }

    /// Takes it down and shows that nothing is left.
    pub fn end(self) {
        self.testbed.down(false, true).unwrap();
        let left = muster_testbed::leftovers(self.testbed.config()).unwrap();
        assert!(left.is_empty(), "{left:#?}");
        assert!(!self.testbed.config().dir.exists());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Err(error) = self.testbed.down(false, true) {
            eprintln!("down: {error:#}");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    Answers,
    Silence,
}

/// Whether `address` answers `from`. Anything else than an answer or silence, such as "unreachable", is a failure.
pub fn reach(from: &Host, address: Ipv4Addr) -> Reach {
    reach_port(from, address, NOBODY)
}

pub fn reach_port(from: &Host, address: Ipv4Addr, port: u16) -> Reach {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}");
    let output = from.exec(&["timeout", "1", "bash", "-c", &script]).unwrap();
    if output.status.code() == Some(124) {
        return Reach::Silence;
    }
    assert!(output.stderr.contains("refused"), "{output:?}");
    Reach::Answers
}

/// Output of a command inside that must succeed, without the line's end.
pub fn said(host: &Host, words: &[&str]) -> String {
    let output = host.exec(words).unwrap();
    assert!(output.success(), "{words:?}: {output:?}");
    output.stdout.trim().to_owned()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + deadline;
    while !condition() {
        assert!(std::time::Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
