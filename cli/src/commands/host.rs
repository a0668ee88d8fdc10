//! `muster host`: the servers of the platform.

use std::time::Duration;

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::spec::Span;
use muster_model::view::{HostView, Liveness, MemberView, PlatformView, Scheduling};
use muster_proto::control::{RemoveHostRequest, RevokeRequest, SetSchedulingRequest, SettleHostRequest};

use crate::app::App;
use crate::args::HostCommand;
use crate::ask::{Care, confirm};
use crate::client::{Client, PATIENCE};
use crate::commands::{explain, maintenance, operator};
use crate::exit::{Exit, Failure};
use crate::output::{Tone, clean};
use crate::pages;
use crate::progress::Progress;

/// How often a host that is being emptied is looked at, and how often nothing may have moved before that counts.
const LOOK_EVERY: Duration = Duration::from_millis(1_000);
const QUIET_LOOKS: u32 = 5;

pub async fn run(app: &App, command: HostCommand) -> Result<Exit> {
    match command {
        HostCommand::Ls => list(app).await,
        HostCommand::Show { host } => show(app, &host).await,
        HostCommand::Cordon { host } => schedule(app, &host, Scheduling::Cordoned).await,
        HostCommand::Drain { host, timeout, wait } => drain(app, &host, timeout, wait.detach).await,
        HostCommand::Revoke { host, why } => {
            let question = format!(
                "Revoke {host}? Its agent is cut off within 2 s and can come back only with a new key; the host counts as \
                 down, and its containers run on there."
            );
            let request = RevokeRequest { host: host.to_string(), why, ..RevokeRequest::default() };
            operator::revoke(app, &host, &question, request).await
        }
        HostCommand::Remove { host } => remove(app, &host).await,
        HostCommand::Settle { host } => settle(app, &host).await,
        HostCommand::Maintenance(args) => maintenance::maintenance(app, &args).await,
        HostCommand::Reboot(args) => maintenance::reboot(app, &args).await,
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

pub fn find<'a>(view: &'a PlatformView, name: &Name) -> Result<&'a HostView> {
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

pub async fn set(client: &Client, name: &Name, word: &str, accept_outage: bool) -> Result<u64> {
    let request = SetSchedulingRequest {
        caller: client.caller(),
        host: name.to_string(),
        scheduling: word.to_owned(),
        accept_outage,
    };
    let changed =
        client.call(PATIENCE, async |mut control| control.set_scheduling(request.clone()).await).await?;
    Ok(changed.index)
}

/// Lets the coordinators empty it, and says what stays and why.
async fn drain(app: &App, name: &Name, timeout: Span, detach: bool) -> Result<Exit> {
    let question = format!(
        "Empty {name}? Its members are replaced on other hosts; writes stop for a moment when a leading role moves."
    );
    confirm(
        &app.console,
        app.globals.yes,
        Care::Disruptive,
        &question,
        "pass --yes to go on without being asked",
    )?;
    let client = app.client()?;
    let status = client.status(PATIENCE).await?;
    if find(&status, name)?.liveness == Liveness::Down {
        let message = format!("{name} is down: nothing can be moved away from it");
        let hint = format!(
            "what it had is replaced by itself after a while where another host has room (`muster explain {name}`); if it \
             never comes back: `muster host remove {name}`"
        );
        return Err(Failure::new(Exit::Refused, message).hint(hint).into());
    }
    set(&client, name, "draining", false).await?;
    if detach {
        app.console.note(format!("{name} is being emptied; `muster explain {name}` shows how it goes on"))?;
        return Ok(Exit::Ok);
    }
    let left = emptied(app, &client, name, Duration::from_millis(timeout.0.0)).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "host": name, "stays": left }))?;
    } else if left.is_empty() {
        app.console
            .say(format!("{name} is empty and takes nothing new; `muster host uncordon {name}` ends it"))?;
    }
    if left.is_empty() {
        return Ok(Exit::Ok);
    }
    let message = format!("{name} is not empty:\n  {}", left.join("\n  "));
    Err(Failure::new(Exit::Refused, message)
        .hint(format!("`muster host uncordon {name}` gives it up"))
        .into())
}

/// The last thing that is done with a host.
async fn remove(app: &App, name: &Name) -> Result<Exit> {
    let client = app.client()?;
    let status = client.status(PATIENCE).await?;
    let host = find(&status, name)?;
    let question = if host.liveness == Liveness::Down {
        format!("Remove {name} for good? It is down: say this only if the server never comes back as it was.")
    } else {
        format!("Remove {name} for good? Its agent is cut off and cannot return with its key.")
    };
    confirm(
        &app.console,
        app.globals.yes,
        Care::Destructive(name.as_str()),
        &question,
        "pass --yes to go on without being asked",
    )?;
    let request = RemoveHostRequest { caller: client.caller(), host: name.to_string() };
    let changed =
        client.call(PATIENCE, async |mut control| control.remove_host(request.clone()).await).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "index": changed.index }))?;
        return Ok(Exit::Ok);
    }
    app.console.say(format!("{name} is no longer part of the platform"))?;
    let on_it = |endpoint: &str| endpoint.rsplit_once(':').is_some_and(|(at, _)| at == host.address);
    if let Some(left) = status.coordinators.iter().find(|one| on_it(&one.endpoint)) {
        app.console
            .note(format!("its coordinator {} still counts: it votes while it runs", left.endpoint))?;
    }
    Ok(Exit::Ok)
}

/// After a recovery: what was found there and is not in the spec goes.
async fn settle(app: &App, name: &Name) -> Result<Exit> {
    let client = app.client()?;
    let question = format!(
        "Settle {name}? What was found there and is not in the spec is stopped, and its data put aside on the host."
    );
    let care = Care::Destructive(name.as_str());
    confirm(&app.console, app.globals.yes, care, &question, "pass --yes to go on without being asked")?;
    let request = SettleHostRequest { caller: client.caller(), host: name.to_string() };
    let changed =
        client.call(PATIENCE, async |mut control| control.settle_host(request.clone()).await).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "index": changed.index }))?;
    } else {
        app.console.say(format!("{name} is settled: its plans are whole again"))?;
    }
    Ok(Exit::Ok)
}

/// Waits until nothing moves any more; what stays, with the reasons.
async fn emptied(app: &App, client: &Client, name: &Name, timeout: Duration) -> Result<Vec<String>> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut progress = Progress::new(&app.console);
    let mut quiet = 0;
    loop {
        let status = client.status(PATIENCE).await?;
        let view = explain::fetch(client, name).await?;
        let members = view.sections.iter().find(|section| section.title == "Members");
        let left = members.map(|section| section.lines.clone()).unwrap_or_default();
        let moves = !status.operations.is_empty() || left.iter().any(|line| !line.contains(" stays: "));
        quiet = if moves { 0 } else { quiet + 1 };
        if quiet >= QUIET_LOOKS || tokio::time::Instant::now() >= deadline {
            return Ok(left.iter().map(|line| clean(line)).collect());
        }
        let doing = status.operations.first().map_or("", |one| one.step.as_str());
        progress.show(
            status.at,
            name.as_str(),
            Tone::Plain,
            &format!("{} members left; {doing}", left.len()),
        )?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Nothing stops by it, so nobody is asked.
async fn schedule(app: &App, name: &Name, scheduling: Scheduling) -> Result<Exit> {
    let word = if scheduling == Scheduling::Open { "open" } else { "cordoned" };
    let index = set(&app.client()?, name, word, false).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "index": index }))?;
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
