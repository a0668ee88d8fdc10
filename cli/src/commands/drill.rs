//! `muster drill`: breaks something on purpose, with an outside hand where one is needed, and prints what it cost.

use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_model::ids::{Name, OperationId};
use muster_model::time::Timestamp;
use muster_model::view::{OperationState, OperationView};
use muster_proto::control::StartOperationRequest;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::op;
use crate::age::age;
use crate::app::App;
use crate::args::{DrillArgs, DrillCommand};
use crate::ask::{Care, confirm};
use crate::client::Client;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone};
use crate::pages::{self, DrillReport};
use crate::spec_file::SpecFile;
use crate::{shell, wait};

pub async fn run(app: &App, command: DrillCommand) -> Result<Exit> {
    match command {
        DrillCommand::Run(args) => run_file(app, args).await,
        DrillCommand::Ls => list(app).await,
    }
}

async fn run_file(app: &App, args: DrillArgs) -> Result<Exit> {
    let file = SpecFile::read(&args.file, app.console.err_paint)?;
    let (yaml, service) = aim(&file.filled, args.service.as_ref())
        .with_context(|| format!("{}: no top-level `service:`", file.name))?;
    // Whoever brings a command for the fault is the hand that does it.
    let yaml = if args.fault_command.is_some() { replace(&yaml, "by", "outside") } else { yaml };
    let question = format!("Run this drill on {service}? It breaks something on purpose.");
    confirm(
        &app.console,
        app.globals.yes,
        Care::Disruptive,
        &question,
        "pass --yes to go on without being asked",
    )?;
    let client = app.client()?;
    let request = StartOperationRequest {
        caller: None,
        kind: "drill".to_owned(),
        service,
        slot: String::new(),
        argument: yaml,
    };
    let id = op::start(&client, request).await?;
    let mut outside = Outside::new(&app.console, args);
    let ended = until_interrupted(watch(&client, &app.console, id, &mut outside)).await;
    let undone = outside.undo().await;
    let ended = match ended {
        Some(Ok(view)) => report(app, &view),
        Some(Err(error)) => Err(cancelled(&client, id, error).await),
        None => {
            let interrupted = Failure::new(Exit::Error, "interrupted");
            Err(cancelled(&client, id, interrupted.into()).await)
        }
    };
    // Nothing is worse than a host that stays dark.
    undone.and(ended)
}

/// Ends a drill that we no longer help along; it would wait for us.
async fn cancelled(client: &Client, id: OperationId, error: anyhow::Error) -> anyhow::Error {
    match op::steer(client, id, "cancel").await {
        Ok(()) => error.context(format!("drill {id} was cancelled")),
        Err(_) => error.context(format!("drill {id} may still run: `muster op cancel {id}` ends it")),
    }
}

/// The YAML with the service that it is done to, and that service.
fn aim(yaml: &str, service: Option<&Name>) -> Option<(String, String)> {
    if let Some(service) = service {
        return Some((replace(yaml, "service", service.as_str()), service.to_string()));
    }
    let line = yaml.lines().find(|line| line.starts_with("service:"))?;
    let value = line.trim_start_matches("service:").split(" #").next().unwrap_or_default();
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| (yaml.to_owned(), value.to_owned()))
}

/// The YAML with another value of a key at its top level, or with that key.
fn replace(yaml: &str, key: &str, value: &str) -> String {
    let head = format!("{key}:");
    let mut lines: Vec<String> = yaml.lines().map(str::to_owned).collect();
    let line = format!("{head} {value}");
    match lines.iter().position(|line| line.starts_with(&head)) {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
    lines.join("\n") + "\n"
}

/// Ends early, with nothing, at ctrl-c or a request to terminate.
async fn until_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    };
    // Dropping `work` anywhere loses nothing: the drill goes on at the coordinator and is cancelled after this.
    tokio::select! {
        done = work => Some(done),
        _ = tokio::signal::ctrl_c() => None,
        () = terminate => None,
    }
}

async fn watch(
    client: &Client,
    console: &Console,
    id: OperationId,
    outside: &mut Outside,
) -> Result<OperationView> {
    wait::operation(client, console, id, async |view| {
        if outside.fault_is_due(view) {
            outside.fault(view).await?;
            op::steer(client, id, "fault-done").await?;
        }
        outside.undo_if_due().await
    })
    .await
}

/// The hand outside of the platform that cuts a host's power and gives it back.
struct Outside {
    console: Console,
    fault_command: Option<String>,
    undo_command: Option<String>,
    dark_for: Duration,
    /// The host and when its fault began.
    done: Option<(String, Instant)>,
    undone: bool,
}

impl Outside {
    fn new(console: &Console, args: DrillArgs) -> Self {
        Self {
            console: console.clone(),
            fault_command: args.fault_command,
            undo_command: args.undo_command,
            dark_for: Duration::from_millis(args.undo_after.0.0),
            done: None,
            undone: false,
        }
    }

    fn fault_is_due(&self, view: &OperationView) -> bool {
        self.fault_command.is_some() && self.done.is_none() && waiting_host(view).is_some()
    }

    async fn fault(&mut self, view: &OperationView) -> Result<()> {
        let (Some(command), Some(host)) = (&self.fault_command, waiting_host(view)) else { return Ok(()) };
        // Noted before it runs: half a fault is undone too.
        self.done = Some((host.clone(), Instant::now()));
        shell::run(&self.console, &command.replace("{host}", &host)).await
    }

    async fn undo_if_due(&mut self) -> Result<()> {
        match &self.done {
            Some((_, at)) if at.elapsed() >= self.dark_for => self.undo().await,
            _ => Ok(()),
        }
    }

    /// Undoes the fault, once, if it was begun.
    async fn undo(&mut self) -> Result<()> {
        match (&self.undo_command, &self.done) {
            (Some(command), Some((host, _))) if !self.undone => {
                shell::run(&self.console, &command.replace("{host}", host))
                    .await
                    .context("the fault is NOT undone")?;
                self.undone = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The host whose power is to be cut, if the drill waits for it.
fn waiting_host(view: &OperationView) -> Option<String> {
    let step = view.step.to_ascii_lowercase();
    let waits = step.starts_with("waiting for the fault") || step.starts_with("cut the power of host ");
    if view.state != OperationState::Running || !waits {
        return None;
    }
    let told = view.result.as_ref().and_then(|result| result["host"].as_str());
    let named = step.split("host ").nth(1)?.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next();
    // Only a name may reach the shell.
    Name::new(told.or(named)?).ok().map(String::from)
}

fn report(app: &App, view: &OperationView) -> Result<Exit> {
    let result = view.result.as_ref().filter(|result| result.is_object());
    if app.console.is_json() {
        match result {
            Some(result) => app.console.json(result)?,
            None => app.console.json(view)?,
        }
    }
    let parsed: Option<DrillReport> = result.and_then(|result| serde_json::from_value(result.clone()).ok());
    if let Some(report) = parsed.as_ref().filter(|_| !app.console.is_json()) {
        app.console.say(pages::drill_report(report, app.console.paint))?;
    }
    verdict(view, parsed.as_ref())
}

/// The exit code of a drill that ended.
fn verdict(view: &OperationView, report: Option<&DrillReport>) -> Result<Exit> {
    let why = report.and_then(|report| report.failure.as_deref()).unwrap_or(&view.step);
    if why.starts_with("refused") {
        return Err(Failure::new(Exit::Refused, why)
            .hint("a drill runs only while everything is healthy")
            .into());
    }
    match (view.state, report) {
        (OperationState::Cancelled | OperationState::NeedsOperator, _) => {
            wait::judge(view).map(|()| Exit::Ok)
        }
        (_, Some(report)) if report.failure.is_none() && !report.passed => Ok(Exit::Missed),
        (OperationState::Done, _) => Ok(Exit::Ok),
        _ => Err(Failure::new(Exit::Error, format!("the drill failed: {why}")).into()),
    }
}

async fn list(app: &App) -> Result<Exit> {
    let client = app.client()?;
    let mut drills = op::fetch(&client, true).await?;
    drills.retain(|one| one.kind == "drill");
    if app.console.is_json() {
        app.console.json(&drills)?;
        return Ok(Exit::Ok);
    }
    if drills.is_empty() {
        app.console.say("No drills so far: `muster drill run FILE` runs one.")?;
        return Ok(Exit::Ok);
    }
    let now = Timestamp(client.now_ms());
    let mut table = Table::new(&["ID", "SERVICE", "STATE", "STARTED", "RESULT"]);
    for one in &drills {
        let report: Option<DrillReport> =
            one.result.clone().and_then(|result| serde_json::from_value(result).ok());
        let result = report.map_or_else(|| one.step.clone(), |report| report.summary());
        let state = pages::operation_word(one.state).to_owned();
        let started = format!("{} ago", age(now, one.started));
        table.row(Tone::Plain, [one.id.to_string(), one.service.to_string(), state, started, result]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use crate::pages::sample;
    use serde_json::json;

    #[test]
    fn the_service_option_replaces_the_files_line() {
        let yaml = "drill: 1\nname: x\nservice: pg-main # the database\nfault: kill-host\n";
        assert_eq!(aim(yaml, None).unwrap(), (yaml.to_owned(), "pg-main".to_owned()));
        let (aimed, service) = aim(yaml, Some(&sample::name("other"))).unwrap();
        assert_eq!(aimed, "drill: 1\nname: x\nservice: other\nfault: kill-host\n");
        assert_eq!(service, "other");
        assert!(aim("drill: 1\n", None).is_none());
        assert_eq!(aim("drill: 1\n", Some(&sample::name("a"))).unwrap().0, "drill: 1\nservice: a\n");
    }

    #[test]
    fn the_host_is_found_in_the_step_and_nothing_else_reaches_the_shell() {
        let at = |step: &str| OperationView {
            step: step.to_owned(),
            state: OperationState::Running,
            ..sample::operation()
        };
        assert_eq!(waiting_host(&at("waiting for the fault: cut power of host h-1")), Some("h-1".to_owned()));
        let step = "cut the power of host h2 now, then say `fault-done` to operation 5";
        assert_eq!(waiting_host(&at(step)), Some("h2".to_owned()));
        assert_eq!(waiting_host(&at("waiting for the fault: cut power of host $(reboot)")), None);
        assert_eq!(waiting_host(&at("the fault is done; observes")), None);
    }

    #[test]
    fn each_end_of_a_drill_has_its_code() {
        let ended = |state, step: &str| OperationView { state, step: step.to_owned(), ..sample::operation() };
        let report = |json| serde_json::from_value::<DrillReport>(json).unwrap();
        let code = |view: &OperationView, report: Option<&DrillReport>| {
            verdict(view, report).unwrap_or_else(|error| exit::of(&error))
        };
        let (done, failed) = (ended(OperationState::Done, "passed"), ended(OperationState::Failed, "x"));
        assert_eq!(code(&done, Some(&report(json!({"passed": true})))), Exit::Ok);
        assert_eq!(code(&failed, Some(&report(json!({"passed": false, "missed": ["rto"]})))), Exit::Missed);
        assert_eq!(code(&failed, Some(&report(json!({"failure": "refused: h3 is down"})))), Exit::Refused);
        assert_eq!(code(&ended(OperationState::Failed, "refused: h3 is down"), None), Exit::Refused);
        assert_eq!(code(&failed, Some(&report(json!({"failure": "gave up"})))), Exit::Error);
        assert_eq!(code(&ended(OperationState::Cancelled, "x"), None), Exit::Paused);
    }
}
