//! `muster operator`: who may do what; and the one way in which keys are taken back.

use std::path::Path;

use anyhow::{Context as _, Result};
use muster_model::ids::Name;
use muster_model::view::OperatorView;
use muster_proto::control::{IssueOperatorRequest, OperatorsRequest, RevokeRequest};
use muster_runtime::context::Context;
use muster_runtime::keys::NodeKey;
use serde_json::json;

use crate::age::utc;
use crate::app::App;
use crate::args::{OperatorCommand, OperatorRole};
use crate::ask::{Care, confirm};
use crate::client::{PATIENCE, decode_json};
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone, clean};

pub async fn run(app: &App, command: OperatorCommand) -> Result<Exit> {
    match command {
        OperatorCommand::Ls => list(app).await,
        OperatorCommand::Add { name, role, out } => add(app, &name, role, &out).await,
        OperatorCommand::Revoke { name, why } => {
            let question = format!(
                "Revoke {name}? All certificates of this operator end within 2 s, and cannot be made good again."
            );
            let request = RevokeRequest { operator: name.to_string(), why, ..RevokeRequest::default() };
            revoke(app, &name, &question, request).await
        }
    }
}

async fn list(app: &App) -> Result<Exit> {
    let client = app.client()?;
    let reply =
        client.call(PATIENCE, async |mut control| control.operators(OperatorsRequest {}).await).await?;
    let all: Vec<OperatorView> = decode_json(&reply.json)?;
    if app.console.is_json() {
        app.console.json(&all)?;
        return Ok(Exit::Ok);
    }
    let now = client.now_ms();
    let mut table = Table::new(&["NAME", "ROLE", "KEY", "CERTIFICATE (UTC)"]);
    for one in all {
        let (tone, state) = match &one.revoked {
            Some(why) => (Tone::Bad, format!("revoked: {}", clean(why))),
            None if one.expires.0 <= now => {
                (Tone::Dim, format!("expired {}; renewed at its next use", utc(one.expires)))
            }
            None => (Tone::Plain, format!("good until {}", utc(one.expires))),
        };
        table.row(tone, [clean(&one.name), clean(&one.role), clean(&one.key), state]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}

async fn add(app: &App, name: &Name, role: OperatorRole, out: &Path) -> Result<Exit> {
    if out.exists() {
        let message = format!("{} is there already", out.display());
        return Err(Failure::new(Exit::Error, message).hint("name another file with --out").into());
    }
    let client = app.client()?;
    let key = NodeKey::generate().context("making a key")?;
    let role = match role {
        OperatorRole::Viewer => "viewer",
        OperatorRole::Operator => "operator",
        OperatorRole::Admin => "admin",
    };
    let request = IssueOperatorRequest {
        caller: client.caller(),
        csr_pem: key.csr(name)?,
        role: role.to_owned(),
        name: name.to_string(),
    };
    let issued =
        client.call(PATIENCE, async |mut control| control.issue_operator(request.clone()).await).await?;
    let own = client.context();
    let context =
        Context { ca_pem: issued.ca_pem, certificate_pem: issued.certificate_pem, key_pem: key.pem(), ..own };
    context.store(out).with_context(|| format!("writing {}", out.display()))?;
    if app.console.is_json() {
        app.console.json(&json!({ "name": name, "role": role, "file": out }))?;
    } else {
        app.console.say(format!(
            "{} makes its holder {name}, {role}. There: muster context import {}",
            out.display(),
            out.display()
        ))?;
    }
    Ok(Exit::Ok)
}

/// Asks first: a revoked key is never good again.
pub async fn revoke(app: &App, name: &Name, question: &str, request: RevokeRequest) -> Result<Exit> {
    let care = Care::Destructive(name.as_str());
    confirm(&app.console, app.globals.yes, care, question, "pass --yes to go on without being asked")?;
    let client = app.client()?;
    let done = client.call(PATIENCE, async |mut control| control.revoke(request.clone()).await).await?;
    if app.console.is_json() {
        app.console.json(&json!({ "revoked": name, "serials": done.serials }))?;
    } else if done.serials.is_empty() {
        app.console.say(format!("{name} was revoked already"))?;
    } else {
        let keys = if done.serials.len() == 1 { "key" } else { "keys" };
        app.console.say(format!("{name} is revoked: {} {keys}", done.serials.len()))?;
    }
    Ok(Exit::Ok)
}
