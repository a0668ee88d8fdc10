//! `muster status` and `muster ps`: how the platform, or one service, is.

use std::time::Duration;

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::view::{MemberView, PlatformView, ServiceView};

use crate::app::App;
use crate::client::{Client, PATIENCE, WATCHING};
use crate::exit::{Exit, Failure};
use crate::pages;

const REDRAW: Duration = Duration::from_secs(1);
/// Cursor home; to the end of the line; to the end of the screen.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\n";
const END_OF_SCREEN: &str = "\x1b[J";

pub async fn run(app: &App, service: Option<&Name>, watch: bool) -> Result<Exit> {
    let client = app.client()?;
    if !watch {
        let view = client.status(PATIENCE).await?;
        if app.console.is_json() {
            app.console.json(&narrowed(view, service)?)?;
        } else {
            app.console.say(page(app, &view, service)?)?;
        }
        return Ok(Exit::Ok);
    }
    if app.console.out_is_terminal {
        app.console.raw(b"\x1b[2J")?;
    }
    loop {
        redraw(app, &client, service).await?;
        tokio::time::sleep(REDRAW).await;
    }
}

async fn redraw(app: &App, client: &Client, service: Option<&Name>) -> Result<()> {
    let view = client.status(WATCHING).await?;
    if app.console.is_json() {
        return app.console.json_line(&narrowed(view, service)?);
    }
    let page = page(app, &view, service)?;
    if app.console.out_is_terminal {
        app.console.raw(format!("{HOME}{}{END_OF_SCREEN}", page.replace('\n', END_OF_LINE)).as_bytes())
    } else {
        app.console.say(format!("{page}\n"))
    }
}

fn page(app: &App, view: &PlatformView, service: Option<&Name>) -> Result<String> {
    Ok(match service {
        None => pages::platform(view, app.console.paint),
        Some(name) => pages::service(view, find(view, name)?, app.console.paint),
    })
}

/// Only one service with its children and operations, in the same shape.
fn narrowed(mut view: PlatformView, service: Option<&Name>) -> Result<PlatformView> {
    if let Some(name) = service {
        find(&view, name)?;
        view.services.retain(|one| one.name == *name || one.owner.as_ref() == Some(name));
        let names: Vec<Name> = view.services.iter().map(|one| one.name.clone()).collect();
        view.operations.retain(|one| names.contains(&one.service));
    }
    Ok(view)
}

/// A service of the platform.
///
/// # Errors
/// There is none of this name; one with a similar name is suggested.
pub fn find<'a>(view: &'a PlatformView, name: &Name) -> Result<&'a ServiceView> {
    if let Some(found) = view.services.iter().find(|one| one.name == *name) {
        return Ok(found);
    }
    let known = view.services.iter().map(|one| one.name.as_str());
    let hint = match muster_spec::nearest(name.as_str(), known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`muster status` lists the services".to_owned(),
    };
    Err(Failure::new(Exit::Error, format!("no service `{name}`")).hint(hint).into())
}

pub async fn ps(app: &App, service: Option<&Name>) -> Result<Exit> {
    let view = narrowed(app.client()?.status(PATIENCE).await?, service)?;
    let members: Vec<MemberView> = view.services.into_iter().flat_map(|one| one.members).collect();
    if app.console.is_json() {
        app.console.json(&members)?;
    } else {
        app.console.say(pages::members(&members, view.at, app.console.paint))?;
    }
    Ok(Exit::Ok)
}
