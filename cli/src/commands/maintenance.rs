//! `muster host maintenance` and `muster host reboot`: hosts that are stopped in order and come back in order.

use std::time::Duration;

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::view::{HealthWord, HostView, Liveness, PlatformView};
use tokio::time::Instant;

use super::{explain, host};
use crate::app::App;
use crate::args::{MaintenanceArgs, RebootArgs};
use crate::ask::{Care, confirm};
use crate::client::{Client, WATCHING};
use crate::exit::{Exit, Failure};
use crate::output::{Tone, clean};
use crate::progress::Progress;
use crate::shell;

const LOOK_EVERY: Duration = Duration::from_millis(1_000);
/// Everything must have been well for so many looks: what the platform is about to begin shows by then.
const CALM_LOOKS: u32 = 3;

/// Prepares one host and says when it can be touched.
pub async fn maintenance(app: &App, args: &MaintenanceArgs) -> Result<Exit> {
    let name = &args.host;
    let question = format!(
        "Prepare {name} for maintenance? Leading roles move away from it, then every member on it is stopped; nothing is \
         replaced meanwhile."
    );
    let care = if args.accept_outage { Care::Destructive(name.as_str()) } else { Care::Disruptive };
    confirm(&app.console, app.globals.yes, care, &question, "pass --yes to go on without being asked")?;
    let client = app.client()?;
    let begin = Instant::now();
    host::set(&client, name, "maintenance", args.accept_outage).await?;
    if args.wait.detach {
        app.console
            .note(format!("{name} is being prepared; `muster explain {name}` shows how it goes on"))?;
        return Ok(Exit::Ok);
    }
    rest(app, &client, name, begin + Duration::from_millis(args.timeout.0.0)).await?;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "host": name, "rests": true }))?;
    } else {
        app.console.say(format!(
            "{name} rests: nothing of the platform runs on it, and nothing is replaced because of it\n\
             When you are done: muster host uncordon {name}"
        ))?;
    }
    Ok(Exit::Ok)
}

/// One host after the other: stopped in order, rebooted by the operator's command, taken back, all well before the next.
pub async fn reboot(app: &App, args: &RebootArgs) -> Result<Exit> {
    let client = app.client()?;
    let view = client.status(WATCHING).await?;
    let names: Vec<Name> = if args.all {
        view.hosts.iter().map(|host| host.name.clone()).collect()
    } else {
        args.hosts
            .iter()
            .map(|name| host::find(&view, name).map(|host| host.name.clone()))
            .collect::<Result<_>>()?
    };
    let list: Vec<&str> = names.iter().map(Name::as_str).collect();
    let question = format!(
        "Reboot {} one by one? Leading roles move away from each before it is stopped, and all is well again before the next.",
        list.join(", ")
    );
    let care = if args.accept_outage { Care::Destructive("reboot") } else { Care::Disruptive };
    confirm(&app.console, app.globals.yes, care, &question, "pass --yes to go on without being asked")?;
    let mut took = Vec::new();
    for name in &names {
        let begin = Instant::now();
        one(app, &client, name, args).await?;
        let seconds = begin.elapsed().as_secs();
        app.console.note(format!("{name} was rebooted and all is well, after {seconds} s"))?;
        took.push(serde_json::json!({ "host": name, "seconds": seconds }));
    }
    if app.console.is_json() {
        app.console.json(&took)?;
    } else {
        app.console.say(format!("rebooted: {}", list.join(", ")))?;
    }
    Ok(Exit::Ok)
}

async fn one(app: &App, client: &Client, name: &Name, args: &RebootArgs) -> Result<()> {
    let span = Duration::from_millis(args.timeout.0.0);
    well(app, client, name, Instant::now() + span).await?;
    host::set(client, name, "maintenance", args.accept_outage).await?;
    rest(app, client, name, Instant::now() + span).await?;
    let view = client.status(WATCHING).await?;
    let before = host::find(&view, name)?;
    let command = args.command.replace("{host}", before.name.as_str()).replace("{address}", &before.address);
    // A connection that the reboot cuts looks like a failure: what counts is that its agent starts anew.
    if let Err(error) = shell::run(&app.console, &command).await {
        app.console.note(format!("{error:#}; waiting for {name} all the same"))?;
    }
    back(app, client, before, Instant::now() + span).await?;
    host::set(client, name, "open", false).await?;
    well(app, client, name, Instant::now() + span).await
}

/// Waits until nothing of the platform runs on the host.
async fn rest(app: &App, client: &Client, name: &Name, deadline: Instant) -> Result<()> {
    let mut progress = Progress::new(&app.console);
    loop {
        let status = client.status(WATCHING).await?;
        if host::find(&status, name)?.rests {
            progress.end(name.as_str());
            return Ok(());
        }
        let view = explain::fetch(client, name).await?;
        let section = view.sections.iter().find(|section| section.title == "Maintenance");
        let lines: Vec<String> =
            section.iter().flat_map(|section| &section.lines).map(|line| clean(line)).collect();
        if Instant::now() >= deadline {
            let message = format!("{name} cannot be stopped yet:\n  {}", lines.join("\n  "));
            let hint = format!(
                "it is still being prepared (`muster explain {name}`); `muster host uncordon {name}` gives it up"
            );
            return Err(Failure::new(Exit::Paused, message).hint(hint).into());
        }
        progress.show(status.at, name.as_str(), Tone::Plain, &lines.join("; "))?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the host's agent was started anew.
async fn back(app: &App, client: &Client, before: &HostView, deadline: Instant) -> Result<()> {
    let (name, mut progress) = (&before.name, Progress::new(&app.console));
    loop {
        let status = client.status(WATCHING).await?;
        let now = host::find(&status, name)?;
        if now.run != before.run && now.liveness == Liveness::Ready {
            progress.end(name.as_str());
            return Ok(());
        }
        if Instant::now() >= deadline {
            let hint = format!("it stays in maintenance; once it is up: muster host uncordon {name}");
            return Err(Failure::new(Exit::Paused, format!("{name} did not come back in time"))
                .hint(hint)
                .into());
        }
        progress.show(status.at, name.as_str(), Tone::Plain, "waits until its agent was started anew")?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until every host is ready and every service healthy, and nothing is on its way.
async fn well(app: &App, client: &Client, name: &Name, deadline: Instant) -> Result<()> {
    let (mut progress, mut calm) = (Progress::new(&app.console), 0);
    loop {
        let status = client.status(WATCHING).await?;
        let trouble = trouble(&status);
        calm = if trouble.is_none() { calm + 1 } else { 0 };
        if calm >= CALM_LOOKS {
            progress.end(name.as_str());
            return Ok(());
        }
        let Some(why) = trouble else {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        if Instant::now() >= deadline {
            let hint =
                "no further host is touched; mend it, then call this again with the hosts that are left";
            return Err(Failure::new(Exit::Paused, why).hint(hint).into());
        }
        progress.show(status.at, name.as_str(), Tone::Plain, &format!("waits: {}", clean(&why)))?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The first thing that is not well.
fn trouble(status: &PlatformView) -> Option<String> {
    let host = status.hosts.iter().find(|host| host.liveness != Liveness::Ready);
    let service = status.services.iter().find(|service| service.health.word != HealthWord::Healthy);
    let operation = status.operations.first();
    host.map(|host| format!("host {} is not ready", host.name))
        .or_else(|| {
            service
                .map(|one| format!("{} is {}: {}", one.name, one.health.word, one.health.reasons.join("; ")))
        })
        .or_else(|| {
            operation.map(|one| format!("operation {} ({}) of {} runs", one.id, one.kind, one.service))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::sample;

    #[test]
    fn the_first_trouble_is_named_and_a_platform_without_any_has_none() {
        let mut view = sample::platform();
        view.operations.clear();
        for host in &mut view.hosts {
            host.liveness = Liveness::Ready;
        }
        for service in &mut view.services {
            service.health.word = HealthWord::Healthy;
        }
        assert_eq!(trouble(&view), None);
        view.services[0].health.word = HealthWord::Degraded;
        assert!(trouble(&view).is_some_and(|why| why.contains(view.services[0].name.as_str())));
        view.hosts[0].liveness = Liveness::Suspect;
        assert!(trouble(&view).is_some_and(|why| why.starts_with("host ")));
    }
}
