//! `muster-coordinator admin`: root on a coordinator can always make an operator and revoke a certificate, over a
//! local socket.
//!
//! The socket lies in the coordinator's own directory (0700): who can connect is root already.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use muster_core::command::{Command, What};
use muster_model::ids::Name;
use muster_runtime::context::Context;
use muster_runtime::identity::{Identity, Role};
use muster_runtime::keys::NodeKey;
use muster_runtime::tasks::OnError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::group;
use crate::home::Home;
use crate::run::Parts;

const SOCKET: &str = "admin.sock";
/// Longest request or answer.
const LINE_MAX: u64 = 64 * 1024;
/// Longest reason of a revocation, bytes.
const WHY_MAX: usize = 200;
/// In the audit log.
const ROOT: &str = "root on a coordinator";
/// Longest wait for either.
const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wish {
    Issue { name: Name, role: Role, csr_pem: String },
    Revoke { serial: String, why: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Issued {
        platform: Name,
        certificate_pem: String,
        ca_pem: String,
        endpoints: Vec<String>,
        pins: Vec<String>,
    },
    Revoked,
    Refused(String),
}

/// Listens for wishes of root.
///
/// # Errors
/// The socket cannot be made.
pub fn start(home: &Home, parts: &Parts) -> Result<()> {
    let path = home.path(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    let (parts, stop) = (parts.clone(), parts.tasks.token());
    let tasks = parts.tasks.clone();
    tasks.spawn("admin socket", OnError::Log, async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if let Err(error) = tokio::time::timeout(WITHIN, answer(stream, &parts)).await {
                tracing::warn!(%error, "a local request took too long");
            }
        }
        Ok::<(), Infallible>(())
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, parts: &Parts) {
    let mut line = String::new();
    let (reader, _) = stream.split();
    let read = BufReader::new(reader.take(LINE_MAX)).read_line(&mut line).await;
    let answer =
        match read.map_err(anyhow::Error::from).and_then(|_| Ok(serde_json::from_str::<Wish>(&line)?)) {
            Ok(wish) => {
                let done = match wish {
                    Wish::Issue { name, role, csr_pem } => issue(&name, role, &csr_pem, parts).await,
                    Wish::Revoke { serial, why } => revoke(serial, why, parts).await,
                };
                done.unwrap_or_else(|error| Answer::Refused(format!("{error:#}")))
            }
            Err(error) => Answer::Refused(format!("the request cannot be read: {error}")),
        };
    let mut text = serde_json::to_vec(&answer).expect("plain data always has a JSON form");
    text.push(b'\n');
    if let Err(error) = stream.write_all(&text).await {
        tracing::warn!(%error, "a local request got no answer");
    }
}

async fn revoke(serial: String, why: String, parts: &Parts) -> Result<Answer> {
    if why.len() > WHY_MAX {
        bail!("the reason has {} bytes, the limit is {WHY_MAX}", why.len());
    }
    parts.proposer.propose(&Command::from_actor(ROOT, None, What::RevokeCertificate { serial, why })).await?;
    Ok(Answer::Revoked)
}

async fn issue(name: &Name, role: Role, csr_pem: &str, parts: &Parts) -> Result<Answer> {
    if !matches!(role, Role::Admin | Role::Operator | Role::Viewer) {
        bail!("only admin, operator and viewer are operators' roles");
    }
    let state = parts.replica.state();
    let platform = state.platform.as_ref().context("the platform is not ready")?.name.clone();
    let who = Identity { platform: platform.clone(), role, id: name.clone(), name: name.clone() };
    let issued = parts.authority.issue(csr_pem, &who, ROOT).await?;
    let members = parts.consensus.status().members;
    Ok(Answer::Issued {
        platform,
        certificate_pem: issued.pem,
        ca_pem: parts.authority.ca_pem().to_owned(),
        endpoints: group::endpoints(&parts.consensus),
        pins: members.into_iter().map(|member| member.node.key).collect(),
    })
}

/// The other end of `admin issue`: asks the running coordinator and writes a context file.
///
/// # Errors
/// No coordinator runs here, it refuses, or the file cannot be written.
pub async fn ask_issue(home: &Home, name: &Name, role: Role, out: &Path) -> Result<()> {
    let key = NodeKey::generate()?;
    let wish = Wish::Issue { name: name.clone(), role, csr_pem: key.csr(name)? };
    let Answer::Issued { platform, certificate_pem, ca_pem, endpoints, pins } = ask(home, &wish).await?
    else {
        bail!("the coordinator's answer does not fit");
    };
    let pins = pins.iter().filter_map(|pin| pin.parse().ok()).collect();
    let context = Context { platform, endpoints, pins, ca_pem, certificate_pem, key_pem: key.pem() };
    Ok(context.store(out)?)
}

/// The other end of `admin revoke`. Open connections of the certificate end within two seconds.
///
/// # Errors
/// No coordinator runs here, or it refuses.
pub async fn ask_revoke(home: &Home, serial: &str, why: &str) -> Result<()> {
    ask(home, &Wish::Revoke { serial: serial.to_owned(), why: why.to_owned() }).await.map(drop)
}

async fn ask(home: &Home, wish: &Wish) -> Result<Answer> {
    let path = home.path(SOCKET);
    let mut stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "no coordinator answers at {}: start it with `systemctl start muster-coordinator`",
            path.display()
        )
    })?;
    let mut text = serde_json::to_vec(wish)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(LINE_MAX));
    tokio::time::timeout(WITHIN, reader.read_line(&mut line))
        .await
        .context("the coordinator did not answer")??;
    match serde_json::from_str(&line).context("the coordinator's answer cannot be read")? {
        Answer::Refused(why) => bail!("{why}"),
        answer => Ok(answer),
    }
}
