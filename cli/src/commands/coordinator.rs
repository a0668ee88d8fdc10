//! `muster coordinator`: those who decide.

use anyhow::Result;
use muster_model::view::{CoordinatorDetail, GroupView};
use muster_proto::control::{CoordinatorsRequest, RemoveCoordinatorRequest};

use crate::app::App;
use crate::args::CoordinatorCommand;
use crate::ask::{Care, confirm};
use crate::client::{Client, PATIENCE, decode, is_passing};
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone, clean};

pub async fn run(app: &App, command: CoordinatorCommand) -> Result<Exit> {
    match command {
        CoordinatorCommand::Ls => list(app).await,
        CoordinatorCommand::Remove { coordinator } => remove(app, &coordinator).await,
    }
}

async fn fetch(client: &Client) -> Result<GroupView> {
    let reply =
        client.call(PATIENCE, async |mut control| control.coordinators(CoordinatorsRequest {}).await).await?;
    decode(&reply)
}

async fn list(app: &App) -> Result<Exit> {
    let group = fetch(&app.client()?).await?;
    if app.console.is_json() {
        app.console.json(&group)?;
        return Ok(Exit::Ok);
    }
    let mut table =
        Table::new(&["NAME", "NUMBER", "ENDPOINT", "HOST", "ROLE", "LOG", "BEHIND", "VERSION", "ANSWERS"]);
    for one in &group.coordinators {
        table.row(if one.reachable { Tone::Plain } else { Tone::Bad }, row(one));
    }
    app.console.say(table.render(app.console.paint))?;
    let voters: Vec<_> = group.coordinators.iter().filter(|one| one.voter).collect();
    if !group.agreed {
        let majority = voters.len() / 2 + 1;
        app.console.note(format!(
            "no majority answers ({majority} of {} are needed): this is what the asked coordinator knew last, log {}: \
             docs/tasks/coordinators.md",
            voters.len(),
            group.last_log
        ))?;
    } else if voters.len() == 2 {
        app.console
            .note("two votes: the loss of either stops all changes. Let a third join, or remove one")?;
    }
    Ok(Exit::Ok)
}

fn row(one: &CoordinatorDetail) -> [String; 9] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let role = match (one.leader, one.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    [
        or_dash(one.name.as_ref().map(ToString::to_string)),
        one.id.to_string(),
        clean(&one.endpoint),
        or_dash(one.host.as_ref().map(ToString::to_string)),
        role.to_owned(),
        or_dash(one.matched.map(|index| index.to_string())),
        or_dash(one.lag.map(|entries| entries.to_string())),
        or_dash(one.version.as_deref().map(clean)),
        if one.reachable { "yes" } else { "no" }.to_owned(),
    ]
}

async fn remove(app: &App, wanted: &str) -> Result<Exit> {
    let client = app.client()?;
    let group = fetch(&client).await?;
    let is_it = |one: &&CoordinatorDetail| {
        one.name.as_ref().is_some_and(|name| name.as_str() == wanted) || one.id.to_string() == wanted
    };
    let known = group.coordinators.iter().find(is_it);
    let state = match known {
        Some(one) if one.reachable => "It runs: it stops by itself, and cannot return with its key.",
        Some(_) => "It does not answer: say this only if it never comes back as it was.",
        None => "It is not in the group any more; its keys are revoked if they were not.",
    };
    confirm(
        &app.console,
        app.globals.yes,
        Care::Destructive(wanted),
        &format!("Remove coordinator {wanted} for good? {state}"),
        "pass --yes to go on without being asked",
    )?;
    let request = RemoveCoordinatorRequest { caller: client.caller(), coordinator: wanted.to_owned() };
    let asked =
        client.call(PATIENCE, async |mut control| control.remove_coordinator(request.clone()).await).await;
    let changed = match asked {
        Err(status) if !group.agreed && is_passing(&status) => {
            let message = "no majority of the coordinators answers: nothing can be changed";
            return Err(Failure::new(Exit::Refused, message)
                .hint("start the others: docs/tasks/coordinators.md")
                .into());
        }
        asked => asked?,
    };
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "index": changed.index }))?;
        return Ok(Exit::Ok);
    }
    app.console.say(format!("coordinator {wanted} is removed, its keys are revoked"))?;
    let left = group.coordinators.iter().filter(|one| one.voter && !is_it(one)).count();
    if left == 2 {
        app.console.note(
            "two votes are left: the loss of either stops all changes. Let another join (`muster token coordinator`), or \
             remove one more",
        )?;
    }
    Ok(Exit::Ok)
}
