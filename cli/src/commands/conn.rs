//! `muster conn`: how clients connect to a service.

use std::collections::BTreeMap;

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::view::ConnView;
use muster_proto::control::ConnRequest;

use crate::app::App;
use crate::client::{PATIENCE, decode};
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone};

pub async fn run(app: &App, service: &Name, user: Option<String>) -> Result<Exit> {
    let request = ConnRequest { service: service.to_string(), user: user.unwrap_or_default() };
    let view = app.client()?.call(PATIENCE, async |mut control| control.conn(request.clone()).await).await?;
    let found: Vec<ConnView> = decode(&view)?;
    if app.console.is_json() {
        let mut by_role: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in found {
            by_role.entry(one.role).or_default().push(one.url);
        }
        app.console.json(&by_role)?;
        return Ok(Exit::Ok);
    }
    if found.is_empty() {
        let message = format!("nothing connects to {service}: it has no endpoints, or no members yet");
        return Err(Failure::new(Exit::Error, message)
            .hint(format!("`muster status {service}` shows its members"))
            .into());
    }
    let mut table = Table::new(&["ROLE", "URL"]);
    for one in found {
        table.row(Tone::Plain, [one.role, one.url]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}
