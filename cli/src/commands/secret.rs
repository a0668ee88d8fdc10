//! `muster secret`: what passwords there are, and new ones. Never prints a value: `muster conn` does, for those allowed.

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::time::Timestamp;
use muster_model::view::SecretView;
use muster_proto::control::{SecretsRequest, StartOperationRequest};

use super::op;
use crate::age::age;
use crate::app::App;
use crate::args::SecretCommand;
use crate::ask::{Care, confirm};
use crate::client::{Client, PATIENCE, decode};
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone, clean};

pub async fn run(app: &App, command: SecretCommand) -> Result<Exit> {
    match command {
        SecretCommand::Ls { service } => list(app, service.as_ref()).await,
        SecretCommand::Rotate { what: (service, which), wait } => {
            rotate(app, &service, &which, wait.detach).await
        }
    }
}

async fn fetch(client: &Client, service: Option<&Name>) -> Result<Vec<SecretView>> {
    let request = SecretsRequest { service: service.map(Name::to_string).unwrap_or_default() };
    let view = client.call(PATIENCE, async |mut control| control.secrets(request.clone()).await).await?;
    decode(&view)
}

async fn list(app: &App, service: Option<&Name>) -> Result<Exit> {
    let client = app.client()?;
    let found = fetch(&client, service).await?;
    if app.console.is_json() {
        app.console.json(&found)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["SECRET", "VERSION", "AGE", "ROTATION"]);
    for one in found {
        let rotation = match (one.refused, one.stops) {
            (true, _) => format!("refused: {}", one.rotation),
            (_, true) => format!("interrupts: {}", one.rotation),
            _ => one.rotation,
        };
        let age = if one.changed.0 == 0 {
            "unknown".to_owned()
        } else {
            age(Timestamp(client.now_ms()), one.changed)
        };
        table.row(Tone::Plain, [one.name, one.version.to_string(), age, clean(&rotation)]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}

async fn rotate(app: &App, service: &Name, which: &str, detach: bool) -> Result<Exit> {
    let client = app.client()?;
    let found = fetch(&client, Some(service)).await?;
    let (care, question) = question(service, which, &found)?;
    confirm(&app.console, app.globals.yes, care, &question, "pass --yes to go on without being asked")?;
    let request = StartOperationRequest {
        caller: None,
        kind: "rotate".to_owned(),
        service: service.to_string(),
        slot: String::new(),
        argument: which.to_owned(),
    };
    let id = op::start(&client, request).await?;
    op::follow(app, &client, id, detach).await
}

/// What is asked first: what would change, and what clients see of it.
fn question<'a>(service: &'a Name, which: &str, found: &[SecretView]) -> Result<(Care<'a>, String), Failure> {
    let named = |one: &&SecretView| {
        let what = one.name.split_once('/').map_or("", |(_, what)| what);
        if which.is_empty() {
            !one.stops && !one.refused
        } else {
            what == which || what == format!("user-{which}")
        }
    };
    // As the coordinator does: a user's comes before one of the platform's own of the same name.
    let mut wanted: Vec<&SecretView> = found.iter().filter(named).collect();
    if !which.is_empty() {
        wanted.sort_by_key(|one| !one.name.ends_with(&format!("/user-{which}")));
        wanted.truncate(1);
    }
    let Some(first) = wanted.first() else {
        let message = format!("{service} has no password {which:?} that can be changed");
        let hint = format!("`muster secret ls {service}` shows what there is");
        return Err(Failure::new(Exit::Error, message).hint(hint));
    };
    if let Some(refused) = wanted.iter().find(|one| one.refused) {
        return Err(Failure::new(Exit::Refused, format!("{}: {}", refused.name, clean(&refused.rotation))));
    }
    let names: Vec<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
    let mut question = format!("Change {}?", names.join(", "));
    let mut said: Vec<&str> = wanted.iter().map(|one| one.rotation.as_str()).collect();
    said.dedup();
    for sentence in said {
        question.push_str(&format!(" {}.", clean(sentence)));
    }
    let care = if first.stops { Care::Destructive(service.as_str()) } else { Care::Disruptive };
    Ok((care, question))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, stops: bool, refused: bool) -> SecretView {
        SecretView {
            name: name.to_owned(),
            service: Name::new("s3").unwrap(),
            version: 1,
            changed: Timestamp(1),
            stops,
            refused,
            rotation: format!("about {name}"),
        }
    }

    #[test]
    fn an_interruption_is_said_and_must_be_typed() {
        let service = Name::new("s3").unwrap();
        let all = [
            secret("s3/root", true, false),
            secret("s3/user-app", false, false),
            secret("s3/old", false, true),
        ];
        let asked = |which: &str| question(&service, which, &all);
        let (care, text) = asked("root").unwrap();
        assert_eq!((care, text.as_str()), (Care::Destructive("s3"), "Change s3/root? about s3/root."));
        let (care, text) = asked("").unwrap();
        assert_eq!((care, text.as_str()), (Care::Disruptive, "Change s3/user-app? about s3/user-app."));
        assert!(asked("app").unwrap().1.contains("user-app"));
        assert!(asked("old").is_err());
        assert!(asked("nobody").is_err());
    }
}
