//! `muster audit`: who did what.

use anyhow::Result;
use muster_model::view::AuditView;
use muster_proto::control::EventsRequest;

use crate::age::utc;
use crate::app::App;
use crate::args::{AuditArgs, AuditCommand};
use crate::client::{PATIENCE, collect, decode};
use crate::exit::Exit;
use crate::output::{Table, Tone};

pub async fn run(app: &App, args: &AuditArgs) -> Result<Exit> {
    if let Some(AuditCommand::Exposure(args)) = &args.command {
        return super::exposure::run(app, args).await;
    }
    let tail = args.tail;
    let request = EventsRequest { from: 0, tail, follow: false };
    let mut stream = app.client()?.call(PATIENCE, async |mut control| control.audit(request).await).await?;
    let entries: Vec<AuditView> = collect(&mut stream).await?.iter().map(decode).collect::<Result<_>>()?;
    if app.console.is_json() {
        app.console.json(&entries)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["INDEX", "WHEN (UTC)", "WHO", "WHAT"]);
    for entry in entries {
        table.row(Tone::Plain, [entry.index.to_string(), utc(entry.at), entry.actor, entry.action]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}
