//! `muster plan`: what a spec would change.

use anyhow::Result;
use muster_model::view::{Diagnostic, PlanView};
use muster_proto::control::{PlanReply, SpecRequest};

use crate::app::App;
use crate::client::{Client, PATIENCE, decode_json};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::Tone;
use crate::spec_file::SpecFile;
use crate::{diagnostics, pages};

pub async fn run(app: &App, path: &str) -> Result<Exit> {
    let file = SpecFile::read(path, app.console.err_paint)?;
    let client = app.client()?;
    let plan = fetch(&client, &app.console, &file).await?;
    if app.console.is_json() {
        app.console.json(&plan)?;
    } else {
        app.console.say(pages::plan(&plan, app.console.paint))?;
    }
    if !plan.refusals.is_empty() {
        return Err(refused(&app.console, &file, &plan));
    }
    if plan.changes.is_empty() {
        return Ok(Exit::Ok);
    }
    if !app.console.is_json() {
        let command = format!("muster apply {path} --at {}", plan.index);
        app.console.say(format!(
            "Index {}. To apply exactly this plan:\n  {}",
            plan.index,
            app.console.paint.tone(Tone::Strong, &command)
        ))?;
    }
    Ok(Exit::Changes)
}

/// Asks for the plan of a file.
///
/// # Errors
/// The spec is wrong (exit 1, every mistake with its place), or no coordinator answered.
pub async fn fetch(client: &Client, console: &Console, file: &SpecFile) -> Result<PlanView> {
    let request = SpecRequest { caller: None, yaml: file.filled.clone(), at: 0 };
    let reply = client.call(PATIENCE, async |mut control| control.plan(request.clone()).await).await?;
    judge(console, file, &reply)
}

/// The plan of a reply, unless the spec is wrong.
///
/// # Errors
/// Every mistake with its place (exit 1).
pub fn judge(console: &Console, file: &SpecFile, reply: &PlanReply) -> Result<PlanView> {
    let found: Vec<Diagnostic> =
        if reply.diagnostics.is_empty() { Vec::new() } else { decode_json(&reply.diagnostics)? };
    if found.is_empty() {
        return decode_json(&reply.plan);
    }
    if console.is_json() {
        console.json(&serde_json::json!({ "diagnostics": found }))?;
    }
    Err(Failure::new(Exit::Error, diagnostics::render(file, &found, console.err_paint)).into())
}

/// A plan that must not be applied as it is.
pub fn refused(console: &Console, file: &SpecFile, plan: &PlanView) -> anyhow::Error {
    Failure::new(Exit::Refused, diagnostics::refused(file, &plan.refusals, console.err_paint)).into()
}
