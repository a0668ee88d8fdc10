//! The conversation between the testbed and the supervisor of a host: one JSON line each way over a socket; decides nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

const LINE_BYTES_MAX: u64 = 256 << 10;
const PEER_PATIENCE: Duration = Duration::from_secs(5);

/// What the supervisor is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub verb: Verb,
    /// Without `.service`; not used by `status`.
    pub unit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Of all units.
    Status,
    Start,
    Stop,
    Restart,
    /// SIGKILL of the main process; what follows is up to the unit's Restart=.
    Kill,
    /// SIGKILL of the main process, and it stays down until it is started.
    KillAndHold,
}

/// One unit, as the supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    pub name: String,
    pub state: UnitState,
    /// Main process, in the host's own numbering.
    pub pid: Option<i32>,
    /// How often it was started since boot.
    pub starts: u64,
    /// Why it is in this state: an unmet condition, the last exit.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitState {
    Off,
    /// Waits for units named in After=.
    Queued,
    /// Runs, and has not said yet that it is ready (Type=notify).
    Starting,
    Up,
    Stopping,
    /// Ended, and is started again after RestartSec=.
    Resting,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    error: Option<String>,
    units: Vec<UnitStatus>,
}

/// A request and where its answer goes: the state of all units after it was taken.
pub type Incoming = (Request, Sender<Result<Vec<UnitStatus>>>);

/// Asks the supervisor behind `socket`. Errors: no answer within `deadline`, or the supervisor refused.
pub fn ask(socket: &Path, verb: Verb, unit: &str, deadline: Duration) -> Result<Vec<UnitStatus>> {
    let mut stream = UnixStream::connect(socket).context("the host's supervisor does not listen")?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let request = Request { verb, unit: unit.to_owned() };
    writeln!(stream, "{}", serde_json::to_string(&request)?)?;
    let line = read_line(&stream).context("the host's supervisor does not answer")?;
    let reply: Reply = serde_json::from_str(&line).context("the supervisor's answer")?;
    reply.error.map_or(Ok(reply.units), |error| Err(anyhow!(error)))
}

/// Listens for ever in a thread; requests come out of the channel one after the other.
pub fn listen(socket: &Path) -> Result<Receiver<Incoming>> {
    if socket.exists() {
        fs::remove_file(socket).context("removing the control socket of an earlier boot")?;
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that goes away or talks nonsense harms only itself.
            let _ = serve(&stream, &sender);
        }
    });
    Ok(receiver)
}

fn serve(mut stream: &UnixStream, requests: &Sender<Incoming>) -> Result<()> {
    stream.set_read_timeout(Some(PEER_PATIENCE))?;
    stream.set_write_timeout(Some(PEER_PATIENCE))?;
    let request: Request = serde_json::from_str(&read_line(stream)?)?;
    let (sender, answer) = mpsc::channel();
    requests.send((request, sender))?;
    let reply = match answer.recv()? {
        Ok(units) => Reply { error: None, units },
        Err(error) => Reply { error: Some(format!("{error:#}")), units: Vec::new() },
    };
    writeln!(stream, "{}", serde_json::to_string(&reply)?)?;
    Ok(())
}

fn read_line(stream: &UnixStream) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reaches_the_caller_and_nonsense_harms_nobody() {
        let dir = std::env::temp_dir().join(format!("muster-testbed-control-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("s");
        let requests = listen(&socket).unwrap();
        thread::spawn(move || {
            for (request, answer) in requests {
                let _ = answer.send(Err(anyhow!("no unit {}", request.unit)));
            }
        });
        UnixStream::connect(&socket).unwrap().write_all(b"nonsense\n").unwrap();
        let error = ask(&socket, Verb::Start, "ghost", PEER_PATIENCE).unwrap_err();
        assert_eq!(error.to_string(), "no unit ghost");
        fs::remove_dir_all(&dir).unwrap();
    }
}
