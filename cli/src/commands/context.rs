//! `muster context`: which platform, as whom.

use std::path::Path;

use anyhow::{Context as _, Result};
use muster_model::ids::Name;
use muster_model::time::Timestamp;
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::context::Context;
use serde_json::json;

use crate::age::utc;
use crate::app::App;
use crate::args::ContextCommand;
use crate::contexts::Contexts;
use crate::exit::Exit;
use crate::output::{Table, Tone};

pub fn run(app: &App, command: &ContextCommand) -> Result<Exit> {
    let contexts = Contexts::of_user()?;
    match command {
        ContextCommand::Import { file, name } => import(app, &contexts, file, name.as_ref()),
        ContextCommand::Ls => list(app, &contexts),
        ContextCommand::Use { name } => {
            contexts.set_current(name)?;
            app.console.say(format!("Using context {name}"))?;
            Ok(Exit::Ok)
        }
    }
}

/// The first one is used from now on; a later one only when told so.
fn import(app: &App, contexts: &Contexts, file: &Path, name: Option<&Name>) -> Result<Exit> {
    let context = Context::load(file).with_context(|| format!("context {}", file.display()))?;
    let name = name.unwrap_or(&context.platform);
    contexts.prepare()?;
    context.store(&contexts.path(name))?;
    if contexts.current().is_none() {
        contexts.set_current(name)?;
        app.console.say(format!("Stored context {name}, and using it"))?;
    } else {
        app.console.say(format!("Stored context {name}; `muster context use {name}` chooses it"))?;
    }
    Ok(Exit::Ok)
}

fn list(app: &App, contexts: &Contexts) -> Result<Exit> {
    let current = contexts.current();
    let mut table = Table::new(&["IN USE", "NAME", "PLATFORM", "AS", "ENDPOINTS", "EXPIRES (UTC)"]);
    let mut all = Vec::new();
    for name in contexts.names()? {
        let in_use = current.as_ref() == Some(&name);
        let context = match Context::load(&contexts.path(&name)) {
            Ok(context) => context,
            Err(error) => {
                app.console.note(format!("{name}: {error}"))?;
                continue;
            }
        };
        let own = PeerCertificate::from_pem(&context.certificate_pem).ok();
        let identity = own.as_ref().map(|own| own.identity.to_string()).unwrap_or_default();
        let expires = own.map(|own| Timestamp(own.not_after.saturating_mul(1000)));
        let mark = if in_use { "*" } else { "" };
        let (platform, endpoints) = (context.platform.to_string(), context.endpoints.join(" "));
        let until = expires.map(utc).unwrap_or_default();
        table.row(Tone::Plain, [mark, name.as_str(), &platform, &identity, &endpoints, &until]);
        all.push(json!({
            "name": name, "in_use": in_use, "platform": platform, "identity": identity,
            "endpoints": context.endpoints, "expires": expires,
        }));
    }
    if app.console.is_json() {
        app.console.json(&all)?;
    } else if table.is_empty() {
        app.console.say(
            "No contexts: `muster context import FILE` stores one, as `muster-coordinator init` wrote it.",
        )?;
    } else {
        app.console.say(table.render(app.console.paint))?;
    }
    Ok(Exit::Ok)
}
