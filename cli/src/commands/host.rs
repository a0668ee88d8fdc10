//! `muster host`: the servers of the platform.

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::view::{HostView, MemberView, PlatformView, Scheduling};
use muster_proto::control::SetSchedulingRequest;

use crate::app::App;
use crate::args::HostCommand;
use crate::client::PATIENCE;
use crate::exit::{Exit, Failure};
use crate::output::clean;
use crate::pages;

pub async fn run(app: &App, command: HostCommand) -> Result<Exit> {
    match command {
        HostCommand::Ls => list(app).await,
        HostCommand::Show { host } => show(app, &host).await,
        HostCommand::Cordon { host } => schedule(app, &host, Scheduling::Cordoned).await,
        HostCommand::Uncordon { host } => schedule(app, &host, Scheduling::Open).await,
    }
}

async fn list(app: &App) -> Result<Exit> {
    let view = app.client()?.status(PATIENCE).await?;
    if app.console.is_json() {
        app.console.json(&view.hosts)?;
    } else if view.hosts.is_empty() {
        app.console.say("No hosts yet: `muster token host` prints the command that lets one join.")?;
    } else {
        app.console.say(pages::hosts(&view.hosts, view.at, app.console.paint))?;
    }
    Ok(Exit::Ok)
}

async fn show(app: &App, name: &Name) -> Result<Exit> {
    let view = app.client()?.status(PATIENCE).await?;
    let host = find(&view, name)?;
    if app.console.is_json() {
        app.console.json(host)?;
        return Ok(Exit::Ok);
    }
    app.console.say(pages::hosts(std::slice::from_ref(host), view.at, app.console.paint))?;
    app.console.say(details(host))?;
    let on_it = |member: &&MemberView| member.host == host.name;
    let members: Vec<MemberView> =
        view.services.iter().flat_map(|one| one.members.iter().filter(on_it)).cloned().collect();
    if !members.is_empty() {
        app.console.say(pages::members(&members, view.at, app.console.paint))?;
    }
    Ok(Exit::Ok)
}

fn details(host: &HostView) -> String {
    let labels: Vec<String> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!("\nagent   {}\n", clean(&host.facts.agent_version));
    if !labels.is_empty() {
        text.push_str(&format!("labels  {}\n", clean(&labels.join(" "))));
    }
    for image in &host.facts.images {
        text.push_str(&format!("image   {}\n", clean(image)));
    }
    for condition in &host.conditions {
        text.push_str(&format!("{}: {}\n", clean(&condition.code), clean(&condition.text)));
    }
    text
}

fn find<'a>(view: &'a PlatformView, name: &Name) -> Result<&'a HostView> {
    let is_it = |host: &&HostView| host.name == *name || host.id.as_str() == name.as_str();
    view.hosts.iter().find(is_it).ok_or_else(|| {
        let known = view.hosts.iter().map(|host| host.name.as_str());
        let hint = match muster_spec::nearest(name.as_str(), known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`muster host ls` lists the hosts".to_owned(),
        };
        Failure::new(Exit::Error, format!("no host `{name}`")).hint(hint).into()
    })
}

/// Nothing stops by it, so nobody is asked.
async fn schedule(app: &App, name: &Name, scheduling: Scheduling) -> Result<Exit> {
    let word = if scheduling == Scheduling::Open { "open" } else { "cordoned" };
    let client = app.client()?;
    let request =
        SetSchedulingRequest { caller: client.caller(), host: name.to_string(), scheduling: word.to_owned() };
    let changed =
        client.call(PATIENCE, async |mut control| control.set_scheduling(request.clone()).await).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "index": changed.index }))?;
    } else {
        let effect = if scheduling == Scheduling::Open {
            "takes members again"
        } else {
            "takes nothing new; what it has stays"
        };
        app.console.say(format!("{name} is {word}: it {effect}"))?;
    }
    Ok(Exit::Ok)
}
