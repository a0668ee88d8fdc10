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

/// A path as it may stand in a URL.
fn in_url(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(byte).collect()
}

/// Prints the CA's certificate.
pub fn ca(app: &App) -> Result<Exit> {
    app.console.say(app.client()?.context().ca_pem.trim_end())?;
    Ok(Exit::Ok)
}

pub async fn run(app: &App, service: &Name, user: Option<String>, ca: Option<String>) -> Result<Exit> {
    let client = app.client()?;
    let ca = match ca {
        Some(path) => path,
        None => client.ca_file()?.display().to_string(),
    };
    let (service_name, user) = (service.to_string(), user.unwrap_or_default());
    let request = ConnRequest { service: service_name, user, ca: in_url(&ca) };
    let view = client.call(PATIENCE, async |mut control| control.conn(request.clone()).await).await?;
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
