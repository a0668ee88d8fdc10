//! Which of many TCP ports answer, from whatever network this process is in. Runs as a process of its own, so that it can
//! be started inside a container's network.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The hidden subcommand of this program.
pub const SUBCOMMAND: &str = "connects";
const AT_ONCE: usize = 256;
const ANSWER: Duration = Duration::from_millis(700);
const SECOND_TRY: Duration = Duration::from_secs(3);

/// The hidden subcommand that listens.
pub const LISTEN: &str = "listens";

/// Listens on a port of every address, says so, and goes on until it is killed.
///
/// # Errors
/// The port is taken.
pub fn listen(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("up");
    for stream in listener.incoming() {
        drop(stream);
    }
    Ok(())
}

/// Starts [`listen`] in the network of a process on this machine, and waits until it listens.
///
/// # Errors
/// It does not.
pub fn listener_in_network_of(process: &str, port: u16) -> Result<Child> {
    let mut child = Command::new("nsenter")
        .arg(format!("--net={process}/ns/net"))
        .arg(std::env::current_exe()?)
        .args([LISTEN, &port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting nsenter")?;
    let mut said = child.stdout.take().context("no standard output")?;
    if let Err(error) = said.read_exact(&mut [0; 2]) {
        child.kill().ok();
        child.wait().ok();
        return Err(error).with_context(|| format!("nobody listens on {port} in {process}"));
    }
    Ok(child)
}

/// Reads addresses from standard input, one a line, and prints those that answer.
///
/// # Errors
/// Standard input is no list of addresses.
pub fn run() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let targets: Vec<SocketAddr> =
        text.lines().map(|line| line.parse().with_context(|| format!("`{line}`"))).collect::<Result<_>>()?;
    for one in open(&targets, ANSWER) {
        println!("{one}");
    }
    Ok(())
}

/// Those that answer.
fn open(targets: &[SocketAddr], answer: Duration) -> Vec<SocketAddr> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(targets.len()) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if TcpStream::connect_timeout(target, answer).is_ok()
                        && let Ok(mut found) = found.lock()
                    {
                        found.push(*target);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_default()
}

/// Asks all from the network of a process on this machine. What must answer is asked for again if it was silent: the
/// machine may be busy.
///
/// # Errors
/// The process has gone, or `nsenter` is not there.
pub fn from_network_of(
    process: &str,
    targets: &BTreeSet<SocketAddr>,
    must: &BTreeSet<SocketAddr>,
) -> Result<BTreeSet<SocketAddr>> {
    let mut found = ask(process, targets)?;
    let silent: BTreeSet<SocketAddr> = must.difference(&found).copied().collect();
    if !silent.is_empty() {
        thread::sleep(SECOND_TRY);
        found.extend(ask(process, &silent)?);
    }
    Ok(found)
}

fn ask(process: &str, targets: &BTreeSet<SocketAddr>) -> Result<BTreeSet<SocketAddr>> {
    let mut child = Command::new("nsenter")
        .arg(format!("--net={process}/ns/net"))
        .arg(std::env::current_exe()?)
        .arg(SUBCOMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting nsenter")?;
    let text: String = targets.iter().map(|target| format!("{target}\n")).collect();
    child.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "asking from {process}: {}", out.status);
    let lines = String::from_utf8(out.stdout)?;
    lines.lines().map(|line| Ok(line.parse()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_ports_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let [listens, closed] = [&listener, &gone].map(|one| one.local_addr().unwrap());
        drop(gone);
        assert_eq!(open(&[closed, listens, closed], Duration::from_secs(2)), [listens]);
        assert!(open(&[], Duration::from_secs(2)).is_empty());
    }
}
