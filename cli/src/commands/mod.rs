//! One file per family of commands; here only which is which.

mod apply;
mod audit;
mod conn;
mod context;
mod coordinator;
mod drill;
mod events;
mod exec;
mod explain;
mod exposure;
mod host;
mod image;
mod init;
mod logs;
mod maintenance;
mod metrics;
mod net;
mod op;
mod operator;
mod plan;
mod secret;
mod service;
mod snapshot;
mod status;
mod token;

use anyhow::Result;
use clap::CommandFactory;

use crate::app::App;
use crate::args::{Cli, Command};
use crate::exit::Exit;

/// Runs a command.
///
/// # Errors
/// What went wrong; `exit::of` knows the code.
pub async fn run(app: &App, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(app, &args),
        Command::Context(command) => context::run(app, &command),
        Command::Completion { shell } => completion(app, shell),
        Command::Schema => schema(app),
        Command::Version => version(app),
        Command::Token { role, life } => token::run(app, role, life).await,
        Command::Host(command) => host::run(app, command).await,
        Command::Net(command) => net::run(app, command).await,
        Command::Image(command) => image::run(app, command).await,
        Command::Snapshot(command) => snapshot::run(app, command).await,
        Command::Coordinator(command) => coordinator::run(app, command).await,
        Command::Operator(command) => operator::run(app, command).await,
        Command::Plan { file } => plan::run(app, &file).await,
        Command::Apply(args) => apply::run(app, &args).await,
        Command::Status { service, watch } => status::run(app, service.as_ref(), watch).await,
        Command::Ps { service } => status::ps(app, service.as_ref()).await,
        Command::Logs { slot, tail } => logs::run(app, &slot, &tail).await,
        Command::Exec { slot, timeout, argv } => exec::run(app, &slot, timeout, argv).await,
        Command::Events(tail) => events::run(app, &tail).await,
        Command::Op(command) => op::run(app, command).await,
        Command::Service(command) => service::run(app, command).await,
        Command::Conn { service, user, ca } => conn::run(app, &service, user, ca).await,
        Command::Metrics { service } => metrics::run(app, service.as_ref()).await,
        Command::Ca => conn::ca(app),
        Command::Secret(command) => secret::run(app, command).await,
        Command::Drill(command) => drill::run(app, command).await,
        Command::Explain { about } => explain::run(app, &about).await,
        Command::Whatif(command) => explain::what_if(app, command).await,
        Command::Audit(args) => audit::run(app, &args).await,
    }
}

fn completion(app: &App, shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "muster", &mut script);
    app.console.raw(&script)?;
    Ok(Exit::Ok)
}

/// Made by a test of the coordinator, which knows the kinds.
fn schema(app: &App) -> Result<Exit> {
    app.console.raw(include_bytes!("../../../docs/spec.schema.json"))?;
    Ok(Exit::Ok)
}

fn version(app: &App) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let protocol = muster_proto::PROTOCOL_MAX;
    if app.console.is_json() {
        app.console.json(&serde_json::json!({ "version": version, "protocol": protocol }))?;
    } else {
        app.console.say(format!("muster {version} (protocol {protocol})"))?;
    }
    Ok(Exit::Ok)
}
