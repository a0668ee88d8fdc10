//! `muster snapshot`: the control plane's state as a file.

use std::path::Path;

use anyhow::{Context as _, Result};
use muster_proto::control::SaveSnapshotRequest;
use muster_runtime::rpc;
use muster_runtime::snapshot_file::{STATE_MAX, decode};
use muster_runtime::state_dir::{PRIVATE, write_atomic};

use crate::app::App;
use crate::args::SnapshotCommand;
use crate::client::PATIENCE;
use crate::exit::{Exit, Failure};

pub async fn run(app: &App, command: SnapshotCommand) -> Result<Exit> {
    let SnapshotCommand::Save { file } = command;
    save(app, &file).await
}

async fn save(app: &App, file: &Path) -> Result<Exit> {
    if file.exists() {
        let message = format!("{} is there already", file.display());
        return Err(Failure::new(Exit::Error, message).hint("name another file").into());
    }
    let request = SaveSnapshotRequest {};
    let mut stream =
        app.client()?.call(PATIENCE, async |mut control| control.save_snapshot(request).await).await?;
    let mut bytes = Vec::new();
    while let Some(part) = rpc::within(rpc::CALL, stream.message()).await? {
        bytes.extend_from_slice(&part.data);
        if bytes.len() as u64 > STATE_MAX + 4096 {
            return Err(Failure::new(Exit::Error, "the snapshot is larger than any may be").into());
        }
    }
    let (head, _) = decode(&bytes).context("what came from the coordinator")?;
    write_atomic(file, &bytes, PRIVATE).with_context(|| format!("writing {}", file.display()))?;
    if app.console.is_json() {
        app.console.json(&head)?;
        return Ok(Exit::Ok);
    }
    app.console.say(format!(
        "{}: platform {} at index {}, incarnation {}, {} bytes, checksum {}",
        file.display(),
        head.platform,
        head.index,
        head.incarnation,
        bytes.len(),
        head.sha256
    ))?;
    app.console.note(
        "it holds the platform's secrets as they are stored, sealed, and is readable by you alone (0600); to restore it a \
         coordinator's directory is needed, with its `seal.key`",
    )?;
    Ok(Exit::Ok)
}
