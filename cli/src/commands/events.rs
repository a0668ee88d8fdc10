//! `muster events`: what happened.

use anyhow::Result;
use muster_model::view::EventView;
use muster_proto::control::{EventsRequest, View};
use tonic::Streaming;

use crate::age::utc;
use crate::app::App;
use crate::args::TailArgs;
use crate::client::{Client, PATIENCE, WATCHING, collect, decode, is_passing};
use crate::exit::Exit;
use crate::output::{Table, Tone, clean};

pub async fn run(app: &App, tail: &TailArgs) -> Result<Exit> {
    let client = app.client()?;
    let request = EventsRequest { from: 0, tail: tail.tail, follow: tail.follow };
    if tail.follow { follow(app, &client, request).await } else { list(app, &client, request).await }
}

async fn list(app: &App, client: &Client, request: EventsRequest) -> Result<Exit> {
    let mut stream = client.call(PATIENCE, async |mut control| control.events(request).await).await?;
    let events: Vec<EventView> = collect(&mut stream).await?.iter().map(decode).collect::<Result<_>>()?;
    if app.console.is_json() {
        app.console.json(&events)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["WHEN (UTC)", "ABOUT", "WHAT"]);
    for event in &events {
        table.row(Tone::Plain, [utc(event.at), event.about.clone(), event.text.clone()]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}

/// Goes on after a broken connection where it was.
async fn follow(app: &App, client: &Client, mut request: EventsRequest) -> Result<Exit> {
    loop {
        let mut stream = client.call(WATCHING, async |mut control| control.events(request).await).await?;
        while let Some(event) = next(&mut stream).await? {
            request = EventsRequest { from: event.index.0 + 1, tail: 0, follow: true };
            if app.console.is_json() {
                app.console.json_line(&event)?;
            } else {
                let when = app.console.paint.tone(Tone::Dim, &utc(event.at));
                app.console.say(format!("{when}  {}  {}", clean(&event.about), clean(&event.text)))?;
            }
        }
    }
}

/// The next event; none if the connection broke or was closed and is to be made again.
async fn next(stream: &mut Streaming<View>) -> Result<Option<EventView>> {
    match stream.message().await {
        Ok(Some(view)) => decode(&view).map(Some),
        Ok(None) => Ok(None),
        Err(status) if is_passing(&status) => Ok(None),
        Err(status) => Err(status.into()),
    }
}
