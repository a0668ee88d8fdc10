//! `muster service`: verbs that are the same for every kind. Each disturbs clients, so each asks first.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use muster_model::ids::Name;
use muster_proto::control::{RemoveServiceRequest, StartOperationRequest};

use super::op;
use crate::app::App;
use crate::args::ServiceCommand;
use crate::ask::{Care, confirm};
use crate::client::{Client, PATIENCE};
use crate::exit::{Exit, Failure};
use crate::output::clean;
use crate::wait::{self, Before};

/// Longest wait for new members to copy their data.
const SCALE_WAIT: Duration = Duration::from_secs(3600);
const REMEDY: &str = "pass --yes to go on without being asked";

pub async fn run(app: &App, command: ServiceCommand) -> Result<Exit> {
    let (question, request, wait) = match command {
        ServiceCommand::Remove { service, data, wait } => {
            return remove(app, &service, data.destroy_data, wait.detach).await;
        }
        ServiceCommand::Scale { service, members, wait } => {
            return scale(app, &service, members, wait.detach).await;
        }
        ServiceCommand::Switchover { service, to, wait } => {
            let slot =
                to.map(|to| to.of(&service)).transpose().map_err(|error| Failure::new(Exit::Usage, error))?;
            let slot = slot.map(|slot| slot.to_string()).unwrap_or_default();
            let to = if slot.is_empty() { "its best replica".to_owned() } else { slot.clone() };
            let question = format!("Move the lead of {service} to {to}? Writes stop for a moment.");
            (question, request("switchover", &service, slot, String::new()), wait)
        }
        ServiceCommand::Restart { target, wait } => {
            let slot = target.slot.map(|slot| slot.to_string()).unwrap_or_default();
            let what = if slot.is_empty() {
                format!("all members of {}, one by one", target.service)
            } else {
                slot.clone()
            };
            (format!("Restart {what}?"), request("restart", &target.service, slot, String::new()), wait)
        }
        ServiceCommand::Replace { slot, confirm_lost, wait } => {
            let question = if confirm_lost {
                format!("Replace {slot}? Its host must never come back; what only it had is lost.")
            } else {
                format!("Replace {slot}? The new member copies its data from the others.")
            };
            let argument = if confirm_lost { "confirm-lost" } else { "" };
            (question, request("replace", &slot.service, slot.to_string(), argument.to_owned()), wait)
        }
        ServiceCommand::Update { service, image, wait } => {
            let question = format!("Move {service} to image {image}, one member after the other?");
            (question, request("update", &service, String::new(), image), wait)
        }
        ServiceCommand::Rollback { service, wait } => {
            let question = format!("Take {service} back to its previous revision?");
            (question, request("rollback", &service, String::new(), String::new()), wait)
        }
    };
    confirm(&app.console, app.globals.yes, Care::Disruptive, &question, REMEDY)?;
    let client = app.client()?;
    let id = op::start(&client, request).await?;
    op::follow(app, &client, id, wait.detach).await
}

fn request(kind: &str, service: &Name, slot: String, argument: String) -> StartOperationRequest {
    StartOperationRequest {
        caller: None,
        kind: kind.to_owned(),
        service: service.to_string(),
        slot,
        argument,
    }
}

/// Changes the spec in force, then waits as an apply does.
async fn scale(app: &App, service: &Name, members: u32, detach: bool) -> Result<Exit> {
    let question = format!("Scale {service} to {members}?");
    confirm(&app.console, app.globals.yes, Care::Disruptive, &question, REMEDY)?;
    let client = app.client()?;
    let index = client.status(PATIENCE).await?.index;
    let before = Before::read(&client).await?;
    let request = StartOperationRequest {
        caller: client.caller(),
        ..request("scale", service, String::new(), members.to_string())
    };
    let started =
        client.call(PATIENCE, async |mut control| control.start_operation(request.clone()).await).await?;
    if !detach {
        let services = BTreeSet::from([service.clone()]);
        wait::settled(&client, &app.console, &services, &before, index, SCALE_WAIT).await?;
    }
    if app.console.is_json() {
        app.console
            .json(&serde_json::json!({ "service": service, "advice": started.advice, "reached": !detach }))?;
    } else {
        let file = clean(&started.advice);
        app.console.say(format!(
            "{service} has {members} members now. In your file: {file}, or the next apply takes it back."
        ))?;
    }
    Ok(Exit::Ok)
}

async fn remove(app: &App, service: &Name, destroy_data: bool, detach: bool) -> Result<Exit> {
    let (care, question) = if destroy_data {
        (Care::Destructive(service.as_str()), format!("Remove {service} and DELETE ITS DATA for good?"))
    } else {
        (Care::Disruptive, format!("Remove {service}? Its data is set aside."))
    };
    confirm(&app.console, app.globals.yes, care, &question, REMEDY)?;
    let client = app.client()?;
    let request =
        RemoveServiceRequest { caller: client.caller(), service: service.to_string(), destroy_data };
    client.call(PATIENCE, async |mut control| control.remove_service(request.clone()).await).await?;
    if detach {
        app.console.note(format!("{service} is being removed"))?;
        return Ok(Exit::Ok);
    }
    watch_removal(app, &client, service).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "service": service, "removed": true }))?;
    } else {
        app.console.say(format!("{service} is removed; take it out of the spec file too"))?;
    }
    Ok(Exit::Ok)
}

/// The operation of a removal has no number in the reply: it is the one that holds the service.
async fn watch_removal(app: &App, client: &Client, service: &Name) -> Result<()> {
    let all = op::fetch(client, true).await?;
    let removal = all.iter().rev().find(|one| one.service == *service && one.kind == "remove");
    if let Some(removal) = removal {
        let view = crate::wait::operation(client, &app.console, removal.id, async |_| Ok(())).await?;
        crate::wait::judge(&view)?;
    }
    Ok(())
}
