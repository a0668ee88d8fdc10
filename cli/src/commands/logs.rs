//! `muster logs`: output of a member, byte for byte.

use anyhow::Result;
use muster_model::ids::Slot;
use muster_proto::control::{LogData, LogsRequest};
use muster_runtime::rpc;
use serde_json::json;
use tonic::{Status, Streaming};

use crate::app::App;
use crate::args::TailArgs;
use crate::client::{Client, PATIENCE, WATCHING, is_passing};
use crate::exit::Exit;

/// Lines shown again after the connection broke, so that none is missed.
const OVERLAP: u32 = 10;

pub async fn run(app: &App, slot: &Slot, tail: &TailArgs) -> Result<Exit> {
    let client = app.client()?;
    let mut request = LogsRequest { slot: slot.to_string(), tail: tail.tail, follow: tail.follow };
    loop {
        let patience = if tail.follow { WATCHING } else { PATIENCE };
        let mut stream = open(&client, &request, patience).await?;
        match print(app, &mut stream, tail.follow).await? {
            None => return Ok(Exit::Ok),
            Some(status) if tail.follow && is_passing(&status) => {
                app.console.note("-- the connection broke; the last lines may repeat --")?;
                request.tail = OVERLAP;
            }
            Some(status) => return Err(status.into()),
        }
    }
}

async fn open(
    client: &Client,
    request: &LogsRequest,
    patience: std::time::Duration,
) -> Result<Streaming<LogData>> {
    Ok(client.call(patience, async |mut control| control.logs(request.clone()).await).await?)
}

/// Prints until the stream ends; how it broke, if it did.
async fn print(app: &App, stream: &mut Streaming<LogData>, follow: bool) -> Result<Option<Status>> {
    loop {
        let message =
            if follow { stream.message().await } else { rpc::within(rpc::CALL, stream.message()).await };
        match message {
            Ok(Some(part)) if app.console.is_json() => {
                app.console.json_line(&json!({ "data": String::from_utf8_lossy(&part.data) }))?;
            }
            Ok(Some(part)) => app.console.raw(&part.data)?,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        }
    }
}
