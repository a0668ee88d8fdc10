//! `muster exec`: runs a program inside a member and prints what it wrote.

use anyhow::Result;
use muster_model::ids::Slot;
use muster_model::spec::Span;
use muster_proto::control::ExecRequest;
use muster_proto::control::control_client::ControlClient;
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;

use crate::app::App;
use crate::client::PATIENCE;
use crate::exit::{Exit, Failure};

pub async fn run(app: &App, slot: &Slot, timeout: Span, argv: Vec<String>) -> Result<Exit> {
    let client = app.client()?;
    let timeout_ms = u32::try_from(timeout.0.0).unwrap_or(u32::MAX);
    let request = ExecRequest { slot: slot.to_string(), argv, timeout_ms };
    let call = async |mut control: ControlClient<Channel>| {
        control.exec(request.clone()).await.map_err(|status| match std::error::Error::source(&status) {
            // Never asked a second time when the answer is lost.
            Some(_) => Status::aborted("the connection broke; whether the program ran is not known"),
            None => status,
        })
    };
    let reply = client.call(PATIENCE, call).await?;
    if app.console.is_json() {
        app.console.json(&json!({ "code": reply.code, "output": String::from_utf8_lossy(&reply.output) }))?;
    } else {
        app.console.raw(&reply.output)?;
    }
    match reply.code {
        0 => Ok(Exit::Ok),
        code => Err(Failure::new(Exit::Error, format!("it ended with exit code {code}")).into()),
    }
}
