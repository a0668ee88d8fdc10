//! Makes the mesh device and keeps it there: `muster-agent mesh-device`, a unit of its own, so that a restart of the
//! agent cuts no traffic. It configures nothing; addresses, peers and keys are the agent's (`mesh.rs`).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::bridges::interface_exists;
use super::command::run;
use super::names::DEVICE;

/// Userspace implementation, used where the kernel has none.
const PROGRAM: &str = "gotatun";

/// Where packages and the quickstart put it, beside `PATH`.
const LIBRARY: &str = "/usr/local/lib/muster";

/// How often the device is looked for.
const WATCH: Duration = Duration::from_millis(500);

/// Longest time from the start of the userspace program until the device is there.
const APPEARS: Duration = Duration::from_secs(5);

/// Makes the device, and again whenever it goes away; returns at SIGTERM or SIGINT.
///
/// A device of the kernel stays when this process ends: restarting the unit cuts nothing. A device that is already
/// there is only watched. `program` is a stated path of `gotatun`.
///
/// # Errors
/// Neither the kernel nor userspace can make the device; the unit tries again.
pub async fn serve(program: Option<PathBuf>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut child = None;
    loop {
        if !interface_exists(DEVICE) {
            stop(child.take()).await;
            child = make(program.clone()).await?;
        }
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = sleep(WATCH) => {}
        }
    }
    stop(child).await;
    Ok(())
}

/// The kernel's device, or a process that holds one.
async fn make(program: Option<PathBuf>) -> anyhow::Result<Option<Child>> {
    let kernel = run("ip", &["link", "add", DEVICE, "type", "wireguard"], "").await;
    let Err(refused) = kernel else {
        tracing::info!(device = DEVICE, "kernel WireGuard device made");
        return Ok(None);
    };
    let Some(program) = program.or_else(find) else {
        bail!(
            "the kernel has no WireGuard ({refused}) and {PROGRAM} is neither in PATH nor in {LIBRARY}: install one of \
             them, or say where it is with MUSTER_GOTATUN"
        );
    };
    let mut child = Command::new(&program)
        .args(["-f", DEVICE, "--disable-drop-privileges"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while !interface_exists(DEVICE) {
        if let Some(status) = child.try_wait()? {
            bail!("{} ended with {status} before the device was there; /dev/net/tun?", program.display());
        }
        if waited > APPEARS {
            bail!("{} did not make {DEVICE} within {} s", program.display(), APPEARS.as_secs());
        }
        sleep(step).await;
        waited += step;
    }
    tracing::info!(device = DEVICE, program = %program.display(), "userspace WireGuard device made");
    Ok(Some(child))
}

/// A process whose device was deleted stays alive without it, so it is killed, never waited for.
async fn stop(child: Option<Child>) {
    if let Some(mut child) = child
        && let Err(error) = child.kill().await
    {
        tracing::warn!(%error, "cannot end {PROGRAM}");
    }
}

/// The userspace program in `PATH` or in our library directory.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from(LIBRARY)])
        .map(|dir| dir.join(PROGRAM))
        .find(|file| file.is_file())
}
