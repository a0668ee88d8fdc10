//! Three real hosts: their life, their deaths and the internet between them; nothing of Muster runs on them.

#![allow(clippy::unwrap_used, reason = "a scenario fails by panicking")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Fixture, Reach, eventually, reach, reach_port, said};
use muster_testbed::{Host, Testbed};

const IMAGE: &str = "testbed-sleeper:1";
const DOCKER: Duration = Duration::from_secs(60);

#[test]
fn hosts_live_die_and_are_cut_off() {
    let Some(fixture) = Fixture::new("mtbhosts", [198, 19], |_| ()) else { return };
    let testbed = &fixture.testbed;
    let archive = make_image(testbed);
    assert!(testbed.seed(&[&archive]).unwrap(), "the first seed does something");
    assert!(!testbed.seed(&[&archive]).unwrap(), "the second has nothing to do");
    fs::remove_file(archive).unwrap();
    let began = Instant::now();
    let hosts = testbed.up(3).unwrap();
    eprintln!("up 3: {:?}", began.elapsed());
    let [a, b, c] = hosts.as_slice() else { panic!("three hosts") };
    everybody_reaches_everybody(testbed, &hosts);
    images_are_shared(&hosts);
    for host in &hosts {
        host.docker(&["run", "-d", "--name", "sleeper", "--restart", "unless-stopped", IMAGE], DOCKER)
            .unwrap();
    }
    a_power_cut_is_dark_and_the_disk_survives(testbed, a, b);
    a_stalled_host_is_silent(a, c);
    the_network_is_cut_as_asked(testbed, a, b, c);
    containers_outlive_their_engine(a);
    a_frozen_engine_is_only_silent(b);
    assert!(c.exec_within(&["sleep", "60"], Duration::from_millis(300)).is_err());
    let began = Instant::now();
    fixture.end();
    eprintln!("down: {:?}", began.elapsed());
}

/// A tiny image from the machine's own `sleep`; no registry is needed.
fn make_image(testbed: &Testbed) -> PathBuf {
    let host = testbed.up(1).unwrap().remove(0);
    let root = host.dir().join("image-root");
    let listed = Command::new("ldd").arg("/bin/sleep").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sleep"]) {
        let target = root.join(&file[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
    let layer = host.dir().join("layer.tar");
    assert!(
        Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&root).arg(".").status().unwrap().success()
    );
    let change = r#"CMD ["/bin/sleep", "100000"]"#;
    host.docker(&["import", "--change", change, layer.to_str().unwrap(), IMAGE], DOCKER).unwrap();
    let archive = std::env::temp_dir().join(format!("muster-testbed-sleeper-{}.tar", std::process::id()));
    host.docker(&["save", "-o", archive.to_str().unwrap(), IMAGE], DOCKER).unwrap();
    testbed.down(false, true).unwrap_or_else(|error| panic!("{error:#}"));
    archive
}

fn everybody_reaches_everybody(testbed: &Testbed, hosts: &[Host]) {
    for one in hosts {
        for other in hosts {
            assert_eq!(reach(one, other.address()), Reach::Answers, "{} to {}", one.name(), other.name());
        }
        assert_eq!(reach(one, testbed.machine_address()), Reach::Answers);
        let answer = TcpStream::connect_timeout(&(one.address(), 9).into(), Duration::from_secs(1));
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

fn images_are_shared(hosts: &[Host]) {
    for host in hosts {
        let id = host.docker(&["image", "inspect", "-f", "{{.Id}}", IMAGE], DOCKER).unwrap();
        assert!(id.starts_with("sha256:"));
        let found = Command::new("find")
            .arg(host.dir().join("docker/overlay2"))
            .args(["-path", "*/diff/*", "-name", "sleep", "-links", "+3"])
            .output();
        assert!(!found.unwrap().stdout.is_empty(), "{}'s image is not a hard link", host.name());
    }
}

fn a_power_cut_is_dark_and_the_disk_survives(testbed: &Testbed, a: &Host, b: &Host) {
    let listener = TcpListener::bind((testbed.machine_address(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/{}/{port}; sleep 100", testbed.machine_address());
    let mut talker = b.spawn(&["bash", "-c", &script], "talker").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    said(b, &["sh", "-c", "echo kept > /var/lib/muster/x; echo kept > /etc/muster/x; echo lost > /run/x"]);
    let identity = said(b, &["cat", "/etc/machine-id"]);

    let began = Instant::now();
    b.kill().unwrap();
    eprintln!("kill: {:?}", began.elapsed());
    talker.wait().unwrap();
    let read = stream.read(&mut [0; 1]);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock, "a dead host says nothing, not even goodbye");
    let _ = stream.shutdown(Shutdown::Both);
    assert_eq!(reach(a, b.address()), Reach::Silence);
    assert!(b.exec(&["true"]).is_err());
    b.kill().unwrap();

    let began = Instant::now();
    testbed.start(b.name()).unwrap();
    eprintln!("start: {:?}", began.elapsed());
    assert_eq!(reach(a, b.address()), Reach::Answers);
    assert_eq!(said(b, &["cat", "/var/lib/muster/x", "/etc/muster/x"]), "kept\nkept");
    assert!(!b.exec(&["test", "-e", "/run/x"]).unwrap().success(), "/run is fresh");
    assert_eq!(said(b, &["cat", "/etc/machine-id"]), identity);
    assert_ne!(said(a, &["cat", "/etc/machine-id"]), identity);
    let running = || b.docker(&["inspect", "-f", "{{.State.Running}}", "sleeper"], DOCKER).unwrap();
    eventually("the container is back", Duration::from_secs(10), || running().trim() == "true");
}

fn a_stalled_host_is_silent(a: &Host, c: &Host) {
    c.pause().unwrap();
    assert!(c.is_paused());
    assert_eq!(reach(a, c.address()), Reach::Silence);
    assert!(c.units().is_err(), "nothing of a stalled host runs");
    c.resume().unwrap();
    assert_eq!(reach(a, c.address()), Reach::Answers);
    // Power may also be cut while it is stalled.
    c.pause().unwrap();
    c.kill().unwrap();
    c.start().unwrap();
    assert_eq!(reach(a, c.address()), Reach::Answers);
}

fn the_network_is_cut_as_asked(testbed: &Testbed, a: &Host, b: &Host, c: &Host) {
    testbed.partition(a, b).unwrap();
    assert_eq!(reach(a, b.address()), Reach::Silence);
    assert_eq!(reach(a, c.address()), Reach::Answers);
    testbed.heal().unwrap();
    assert_eq!(reach(a, b.address()), Reach::Answers);

    testbed.isolate(c).unwrap();
    assert_eq!(reach(c, a.address()), Reach::Silence);
    assert_eq!(reach(a, c.address()), Reach::Silence);
    assert_eq!(reach(a, b.address()), Reach::Answers);
    testbed.up(3).unwrap();
    assert_eq!(reach(a, c.address()), Reach::Silence, "`up` heals nothing");
    testbed.heal().unwrap();

    testbed.filter("tcp dport 9").unwrap();
    assert_eq!(reach_port(a, b.address(), 9), Reach::Silence);
    assert_eq!(reach_port(a, b.address(), 10), Reach::Answers);
    assert!(testbed.filter("nonsense here").is_err());
    assert_eq!(testbed.faults().unwrap().len(), 1);
    testbed.heal().unwrap();
    assert!(testbed.faults().unwrap().is_empty());

    one_direction_only(testbed, a, b);
    a.mtu(1400).unwrap();
    assert_eq!(said(a, &["cat", "/sys/class/net/eth0/mtu"]), "1400");
    a.mtu(1500).unwrap();
}

/// A datagram sent against the cut is lost, one sent along it arrives: seen in the receiving kernel's own counters.
fn one_direction_only(testbed: &Testbed, a: &Host, b: &Host) {
    // To a port without listener, so that the receiver counts it under NoPorts.
    let arrived = |from: &Host, to: &Host| {
        let count = || {
            let text = said(to, &["sh", "-c", "grep ^Udp: /proc/net/snmp | tail -1 | cut -d' ' -f3"]);
            text.parse::<u64>().unwrap()
        };
        let before = count();
        said(from, &["bash", "-c", &format!("echo x > /dev/udp/{}/9", to.address())]);
        thread::sleep(Duration::from_millis(200));
        count() > before
    };
    testbed.partition_oneway(a, b).unwrap();
    assert!(!arrived(a, b));
    assert!(arrived(b, a));
    testbed.heal().unwrap();
    assert!(arrived(a, b));
}

fn containers_outlive_their_engine(host: &Host) {
    let state =
        || host.docker(&["inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "sleeper"], DOCKER).unwrap();
    let before = state();
    host.engine_kill().unwrap();
    thread::sleep(Duration::from_millis(2500));
    assert!(host.docker(&["ps"], Duration::from_secs(5)).is_err(), "it stays dead until it is started");
    let began = Instant::now();
    host.engine_start().unwrap();
    eprintln!("engine-start: {:?}", began.elapsed());
    assert_eq!(state(), before);
    // Killed without asking anybody, it comes back as its unit says.
    let starts = host.unit_status("docker").unwrap().starts;
    host.unit_kill("docker").unwrap();
    let again = || host.unit_status("docker").is_ok_and(|unit| unit.starts > starts);
    eventually("the engine is started again", Duration::from_secs(10), again);
    host.wait_for_engine().unwrap();
    assert_eq!(state(), before);
}

fn a_frozen_engine_is_only_silent(host: &Host) {
    host.engine_pause().unwrap();
    assert!(host.docker(&["ps"], Duration::from_secs(1)).is_err());
    let sleepers = said(host, &["sh", "-c", "grep -lx sleep /proc/[0-9]*/comm | wc -l"]);
    assert_eq!(sleepers, "1", "containers go on");
    host.engine_resume().unwrap();
    let listed = host.docker(&["ps", "-q"], DOCKER).unwrap();
    assert_eq!(listed.lines().count(), 1);
    assert!(Path::new(&host.log_file("docker")).exists());
}

#[test]
fn a_folder_of_somebody_else_is_never_emptied() {
    let Some(fixture) = Fixture::new("mtbforeign", [100, 123], |_| ()) else { return };
    let dir = &fixture.testbed.config().dir;
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("precious"), "x").unwrap();
    assert!(fixture.testbed.up(1).is_err());
    assert!(fixture.testbed.down(false, true).is_err());
    fs::remove_file(dir.join("precious")).unwrap();
    fixture.end();
}
