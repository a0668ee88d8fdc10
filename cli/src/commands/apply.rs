//! `muster apply`: shows the plan, asks, applies, and waits until the platform is as the spec says.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use muster_model::ids::{LogIndex, Name};
use muster_model::view::{PlanView, PlatformView};
use muster_proto::control::SpecRequest;
use serde_json::json;

use super::plan::{fetch, judge, refused};
use crate::app::App;
use crate::args::ApplyArgs;
use crate::ask::{Care, confirm};
use crate::client::{Client, PATIENCE};
use crate::exit::{Exit, Failure};
use crate::pages;
use crate::spec_file::SpecFile;
use crate::wait::{self, Before};

pub async fn run(app: &App, args: &ApplyArgs) -> Result<Exit> {
    let console = &app.console;
    if args.at.is_none() && !app.globals.yes && (!console.can_ask || args.file == "-") {
        let message = "nobody can be asked whether the plan is right: this is not a terminal";
        let hint = "run `muster plan` first and pass its index as --at INDEX, or pass --yes to apply whatever it says";
        return Err(Failure::new(Exit::Usage, message).hint(hint).into());
    }
    let file = SpecFile::read(&args.file, console.err_paint)?;
    let client = app.client()?;
    let plan = fetch(&client, console, &file).await?;
    if !console.is_json() {
        console.say(pages::plan(&plan, console.paint))?;
    }
    if !plan.refusals.is_empty() {
        if console.is_json() {
            console.json(&json!({ "index": 0, "plan": plan }))?;
        }
        return Err(refused(&app.console, &file, &plan));
    }
    if !plan.changes.is_empty() && args.at.is_none() {
        confirm(console, app.globals.yes, Care::Disruptive, "Apply this plan?", "pass --at INDEX or --yes")?;
    }
    let before = Before::read(&client).await?;
    // What was shown is what is applied: a change in between is refused, also without --at.
    let (applied, plan) = apply(app, &client, &file, args.at.unwrap_or(plan.index)).await?;
    let view =
        if args.detach { None } else { Some(reach(app, &client, &file, &before, applied, args).await?) };
    report(app, &plan, applied, view.as_ref())?;
    Ok(Exit::Ok)
}

async fn apply(app: &App, client: &Client, file: &SpecFile, at: LogIndex) -> Result<(LogIndex, PlanView)> {
    // One caller for all tries: a reply that got lost is not a second change.
    let request = SpecRequest { caller: client.caller(), yaml: file.filled.clone(), at: at.0 };
    let reply = client.call(PATIENCE, async |mut control| control.apply(request.clone()).await).await?;
    let plan = judge(&app.console, file, &reply)?;
    if reply.index == 0 || !plan.refusals.is_empty() {
        return Err(refused(&app.console, file, &plan));
    }
    Ok((LogIndex(reply.index), plan))
}

async fn reach(
    app: &App,
    client: &Client,
    file: &SpecFile,
    before: &Before,
    applied: LogIndex,
    args: &ApplyArgs,
) -> Result<PlatformView> {
    let timeout = Duration::from_millis(args.timeout.0.0);
    let services = services(client, file).await?;
    wait::settled(client, &app.console, &services, before, applied, timeout).await
}

/// The services of the spec; of the platform, if a newer coordinator accepted what we cannot read.
async fn services(client: &Client, file: &SpecFile) -> Result<BTreeSet<Name>> {
    if let Ok(parsed) = muster_spec::parse(&file.filled) {
        return Ok(parsed.spec.services.into_keys().collect());
    }
    let view = client.status(PATIENCE).await?;
    Ok(view.services.into_iter().filter(|one| one.owner.is_none()).map(|one| one.name).collect())
}

fn report(app: &App, plan: &PlanView, applied: LogIndex, view: Option<&PlatformView>) -> Result<()> {
    let console = &app.console;
    if console.is_json() {
        return console.json(&json!({ "index": applied, "plan": plan, "reached": view.is_some() }));
    }
    match view {
        Some(view) => console.say(format!(
            "Applied at index {applied}, and reached: all healthy.\n\n{}",
            pages::platform(view, console.paint)
        )),
        None => {
            console.say(format!("Applied at index {applied}. `muster status --watch` shows how it goes on."))
        }
    }
}
