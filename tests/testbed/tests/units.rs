//! The supervisor of a host does what unit files say, the shipped ones included; two testbeds live side by side.

#![allow(clippy::unwrap_used, reason = "a scenario fails by panicking")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Fixture, eventually, said};
use muster_testbed::{Config, Host, UnitState};

const SOON: Duration = Duration::from_secs(10);
/// CAP_NET_ADMIN is bit 12.
const NET_ADMIN_ONLY: &str = "0000000000001000";

const STEADY: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nUMask=0077\nStateDirectory=muster/steady\n\
    StateDirectoryMode=0750\nRuntimeDirectory=steady\nEnvironment=A=1 B=unit\nEnvironmentFile=-/etc/muster/steady.env\n\
    ExecStartPre=/bin/sh -c 'env > /run/steady/env; echo pre >> /var/lib/muster/steady/order'\n\
    ExecStart=/bin/sh -c 'touch /run/steady/made; echo hello; exec sleep 1000'\nRestart=always\nRestartSec=100ms\n\
    CapabilityBoundingSet=CAP_NET_ADMIN\nNoNewPrivileges=yes\n";
const STUBBORN: &str =
    "[Service]\nExecStart=/bin/sh -c 'trap : TERM; while :; do sleep 1; done'\nTimeoutStopSec=500ms\n";
const BRIEF: &str = "[Service]\nExecStart=/bin/true\nRestart=on-failure\n";
const FAILING: &str =
    "[Unit]\nStartLimitBurst=3\n[Service]\nExecStart=/bin/false\nRestart=on-failure\nRestartSec=50ms\n";
const ABSENT: &str = "[Service]\nExecStart=/no/such/program\nRestart=always\nRestartSec=1h\n";
const LATER: &str = "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/bin/sh -c 'docker version > /run/later; exec sleep 1000'\n";

#[test]
fn units_run_as_their_files_say() {
    let units = PathBuf::from("/var/tmp/muster-testbed-units-files");
    let files = [
        ("steady", STEADY),
        ("stubborn", STUBBORN),
        ("brief", BRIEF),
        ("failing", FAILING),
        ("later", LATER),
        ("absent", ABSENT),
    ];
    let change = |config: &mut Config| {
        config.unit_dir.clone_from(&units);
        config.hostnames = vec!["oslo-1".to_owned()];
        fs::create_dir_all(&units).unwrap();
        for (name, text) in files {
            fs::write(units.join(format!("{name}.service")), text).unwrap();
        }
        fs::write(units.join("muster-agent.service"), "[Service]\nExecStart=/bin/sleep 5\n").unwrap();
    };
    let Some(fixture) = Fixture::new("mtbunits", [100, 120], change) else { return };
    let hosts = fixture.testbed.up(1).unwrap();
    let host = &hosts[0];
    assert_eq!(said(host, &["hostname"]), "oslo-1");
    a_steady_unit_gets_what_it_asks_for_and_comes_back(host);
    ends_are_treated_as_the_unit_says(host);
    eventually("units after the engine find it", SOON, || {
        host.exec(&["grep", "-q", "Server", "/run/later"]).unwrap().success()
    });
    orphans_are_reaped(host);
    another_testbed_lives_beside_it(host);
    let error = host.unit_start("absent").unwrap_err().to_string();
    assert!(error.contains("/no/such/program does not exist"), "{error}");
    assert!(host.unit_start("ghost").unwrap_err().to_string().contains("oslo-1"));
    fixture.end();
    fs::remove_dir_all(&units).unwrap();
}

fn a_steady_unit_gets_what_it_asks_for_and_comes_back(host: &Host) {
    let status = host.unit_status("steady.service").unwrap();
    assert_eq!((status.state, status.starts), (UnitState::Up, 1));
    let pid = status.pid.unwrap().to_string();
    let limits = said(host, &["grep", "-E", "CapBnd|NoNewPrivs|CapEff", &format!("/proc/{pid}/status")]);
    assert_eq!(limits.matches(NET_ADMIN_ONLY).count(), 2, "{limits}");
    assert!(limits.contains("NoNewPrivs:\t1"), "{limits}");
    assert_eq!(said(host, &["stat", "-c", "%a", "/var/lib/muster/steady", "/run/steady/made"]), "750\n600");
    let environment = said(host, &["cat", "/run/steady/env"]);
    for line in ["A=1", "B=unit", "STATE_DIRECTORY=/var/lib/muster/steady", "RUNTIME_DIRECTORY=/run/steady"] {
        assert!(environment.lines().any(|one| one == line), "{line} in {environment}");
    }
    assert!(!environment.contains("CARGO"), "nothing of the caller's environment");
    assert!(fs::read_to_string(host.log_file("steady")).unwrap().contains("hello"));

    said(host, &["sh", "-c", "echo B=file > /etc/muster/steady.env"]);
    let began = Instant::now();
    said(host, &["kill", "-9", &pid]);
    eventually("it is started again", SOON, || {
        host.unit_status("steady").is_ok_and(|unit| unit.state == UnitState::Up && unit.starts == 2)
    });
    assert!(
        host.unit_status("steady").unwrap().detail.contains("SIGKILL"),
        "it says why it was started again"
    );
    eprintln!("restart after kill -9 with RestartSec=100ms: {:?}", began.elapsed());
    assert!(said(host, &["cat", "/run/steady/env"]).contains("B=file"));

    host.unit_stop("steady").unwrap();
    assert!(
        !host.exec(&["test", "-e", "/run/steady"]).unwrap().success(),
        "its runtime directory goes with it"
    );
    host.unit_start("steady").unwrap();
    host.unit_restart("steady").unwrap();
    assert_eq!(said(host, &["grep", "-c", "pre", "/var/lib/muster/steady/order"]), "4");
}

fn ends_are_treated_as_the_unit_says(host: &Host) {
    let began = Instant::now();
    host.unit_stop("stubborn").unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(450) && took < Duration::from_secs(5), "{took:?}");
    assert!(host.unit_status("stubborn").unwrap().detail.contains("SIGKILL"));
    let brief = host.unit_status("brief").unwrap();
    assert_eq!((brief.state, brief.starts), (UnitState::Off, 1), "a clean end is no failure");
    eventually("a unit that always fails is given up", SOON, || {
        host.unit_status("failing").is_ok_and(|unit| unit.state == UnitState::Off && unit.starts == 3)
    });
}

fn orphans_are_reaped(host: &Host) {
    said(host, &["sh", "-c", "(sleep 0.1 &) ; (sleep 0.1 &)"]);
    eventually("no zombie is left", SOON, || {
        said(host, &["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true"]) == "0"
    });
}

fn another_testbed_lives_beside_it(host: &Host) {
    let other = Fixture::new("mtbother", [100, 121], |config| config.memory_bytes = Some(512 << 20)).unwrap();
    let beside = other.testbed.up(1).unwrap().remove(0);
    assert_eq!(said(&beside, &["hostname"]), "h1");
    let limits = "cat /sys/fs/cgroup/memory/testbed-mtbother/h1/memory.limit_in_bytes /sys/fs/cgroup/testbed-mtbother/h1/memory.max";
    assert_eq!(
        said(&beside, &["sh", "-c", &format!("{limits} 2>/dev/null || true")]),
        (512 << 20).to_string()
    );
    other.end();
    assert!(host.is_running());
    host.wait_for_engine().unwrap();
}

#[test]
fn the_shipped_units_start_once_there_is_an_identity() {
    let programs = PathBuf::from("/var/tmp/muster-testbed-shipped-programs");
    let change = |config: &mut Config| {
        fs::create_dir_all(&programs).unwrap();
        for name in ["muster-agent", "muster-coordinator"] {
            let file = programs.join(name);
            fs::write(&file, "#!/bin/sh\necho \"$0 $* $PATH\"\nexec sleep 1000\n").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        }
        let link = programs.join("testbed");
        let _ = fs::remove_file(&link);
        symlink(config.bin_dir.join("testbed"), link).unwrap();
        config.bin_dir.clone_from(&programs);
    };
    let Some(fixture) = Fixture::new("mtbshipped", [100, 122], change) else { return };
    let host = fixture.testbed.up(1).unwrap().remove(0);
    for unit in ["muster-coordinator", "muster-agent", "muster-mesh"] {
        let error = host.unit_start(unit).unwrap_err().to_string();
        assert!(error.contains("ConditionPathExists=/var/lib/muster"), "{error}");
    }
    let identities =
        "for d in agent coordinator; do mkdir -p /var/lib/muster/$d; touch /var/lib/muster/$d/identity; done";
    said(&host, &["sh", "-c", identities]);
    for (unit, words) in [
        ("muster-coordinator", "muster-coordinator run /usr/local/lib/muster:"),
        ("muster-agent", "muster-agent run /usr/local/lib/muster:"),
        ("muster-mesh", "muster-agent mesh-device /usr/local/lib/muster:"),
    ] {
        host.unit_start(unit).unwrap();
        eventually(unit, SOON, || {
            fs::read_to_string(host.log_file(unit)).is_ok_and(|log| log.contains(words))
        });
    }
    // After a power cut everything starts by itself.
    host.kill().unwrap();
    host.start().unwrap();
    eventually("all units are up after a reboot", SOON, || {
        host.units().unwrap().iter().all(|unit| unit.state == UnitState::Up)
    });
    let first = host.unit_status("muster-agent").unwrap();
    host.unit_kill("muster-agent").unwrap();
    eventually("the agent is back after kill -9", SOON, || {
        host.unit_status("muster-agent")
            .is_ok_and(|unit| unit.state == UnitState::Up && unit.pid != first.pid)
    });
    fixture.end();
    fs::remove_dir_all(&programs).unwrap();
}

#[test]
fn systemd_itself_finds_nothing_wrong_with_the_shipped_units() {
    let analyze = Command::new("systemd-analyze").arg("--version").output();
    if !analyze.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: systemd-analyze is not installed, so the shipped units are not verified");
        return;
    }
    let root = std::env::temp_dir().join(format!("muster-units-{}", std::process::id()));
    let (system, programs) = (root.join("etc/systemd/system"), root.join("usr/local/lib/muster"));
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
    fs::create_dir_all(&system).unwrap();
    let copied =
        Command::new("cp").args(["-r", "/lib/systemd/system"]).arg(root.join("usr/lib/systemd")).status();
    assert!(copied.unwrap().success());
    for name in ["muster-agent", "muster-coordinator"] {
        fs::write(programs.join(name), "#!/bin/sh\n").unwrap();
        fs::set_permissions(programs.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.arg("--man=no").arg("verify").arg(format!("--root={}", root.display()));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd");
    let mut count = 0;
    for entry in fs::read_dir(shipped)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "service"))
    {
        fs::copy(entry.path(), system.join(entry.file_name())).unwrap();
        verify.arg(entry.file_name());
        count += 1;
    }
    assert!(count >= 3);
    let output = verify.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    fs::remove_dir_all(&root).unwrap();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
