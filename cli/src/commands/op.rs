//! `muster op`: operations, and watching the one that a command started.

use anyhow::Result;
use muster_model::ids::OperationId;
use muster_model::time::Timestamp;
use muster_model::view::OperationView;
use muster_proto::control::{OperationsRequest, StartOperationRequest, SteerOperationRequest};

use crate::app::App;
use crate::args::OpCommand;
use crate::client::{Client, PATIENCE, decode};
use crate::exit::Exit;
use crate::pages;
use crate::wait;

pub async fn run(app: &App, command: OpCommand) -> Result<Exit> {
    match command {
        OpCommand::Ls { all } => list(app, all).await,
        OpCommand::Watch { id } => watch(app, &app.client()?, id).await,
        OpCommand::Continue { id } => steer_and_say(app, id, "continue").await,
        OpCommand::Cancel { id } => steer_and_say(app, id, "cancel").await,
    }
}

async fn list(app: &App, all: bool) -> Result<Exit> {
    let client = app.client()?;
    let found = fetch(&client, all).await?;
    if app.console.is_json() {
        app.console.json(&found)?;
    } else if found.is_empty() {
        app.console.say("No operation runs. `muster op ls --all` lists the ended ones.")?;
    } else {
        app.console.say(pages::operations(&found, Timestamp(client.now_ms()), app.console.paint))?;
    }
    Ok(Exit::Ok)
}

/// Operations, oldest first.
pub async fn fetch(client: &Client, ended_too: bool) -> Result<Vec<OperationView>> {
    let request = OperationsRequest { ended_too };
    let view = client.call(PATIENCE, async |mut control| control.operations(request).await).await?;
    decode(&view)
}

/// Follows one to its end and says how it ended.
pub async fn watch(app: &App, client: &Client, id: OperationId) -> Result<Exit> {
    let view = wait::operation(client, &app.console, id, async |_| Ok(())).await?;
    if app.console.is_json() {
        app.console.json(&view)?;
    }
    wait::judge(&view)?;
    if !app.console.is_json() {
        app.console.say(format!(
            "{} {} of {}: {}",
            view.kind,
            view.id,
            view.service,
            pages::operation_word(view.state)
        ))?;
    }
    Ok(Exit::Ok)
}

/// Starts an operation; 0 = there was nothing to do.
pub async fn start(client: &Client, request: StartOperationRequest) -> Result<OperationId> {
    let request = StartOperationRequest { caller: client.caller(), ..request };
    let started =
        client.call(PATIENCE, async |mut control| control.start_operation(request.clone()).await).await?;
    Ok(OperationId(started.operation))
}

/// Tells an operation what to do.
pub async fn steer(client: &Client, id: OperationId, verb: &str) -> Result<()> {
    let request = SteerOperationRequest {
        caller: client.caller(),
        operation: id.0,
        verb: verb.to_owned(),
        argument: String::new(),
    };
    client.call(PATIENCE, async |mut control| control.steer_operation(request.clone()).await).await?;
    Ok(())
}

async fn steer_and_say(app: &App, id: OperationId, verb: &str) -> Result<Exit> {
    let client = app.client()?;
    steer(&client, id, verb).await?;
    if app.console.is_json() {
        app.console.json(&client.operation(id, PATIENCE).await?)?;
    } else {
        app.console.say(format!("Operation {id} was told to {verb}. `muster op watch {id}` follows it."))?;
    }
    Ok(Exit::Ok)
}

/// Follows an operation that was just started, unless the operator does not want to wait.
pub async fn follow(app: &App, client: &Client, id: OperationId, detach: bool) -> Result<Exit> {
    if id == OperationId(0) {
        app.console.note("nothing to do: it is so already")?;
        return Ok(Exit::Ok);
    }
    if !detach {
        return watch(app, client, id).await;
    }
    if app.console.is_json() {
        app.console.json(&client.operation(id, PATIENCE).await?)?;
    } else {
        app.console.say(format!("Operation {id} started. `muster op watch {id}` follows it."))?;
    }
    Ok(Exit::Ok)
}
