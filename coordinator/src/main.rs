//! Entry point: reads the command line and hands over.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use muster_coordinator::home::Home;
use muster_coordinator::{admin, init, rebuild, recovery, run, saved};
use muster_model::ids::Name;
use muster_model::spec::Span;
use muster_runtime::identity::Role;
use muster_runtime::telemetry;

/// Muster's coordinator: decides which host runs which member.
#[derive(Debug, Parser)]
#[command(name = "muster-coordinator", version, propagate_version = true)]
struct Arguments {
    /// Where this coordinator keeps its state.
    #[arg(
        long,
        global = true,
        env = "MUSTER_COORDINATOR_DIR",
        default_value = "/var/lib/muster/coordinator"
    )]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new platform, with this host as its first coordinator.
    Init {
        /// The platform's name.
        #[arg(long)]
        platform: Name,
        /// IP address and port at which other hosts reach this coordinator.
        #[arg(long, value_name = "IP:PORT")]
        advertise: SocketAddr,
        /// This coordinator's name.
        #[arg(long, default_value = "first")]
        name: Name,
        /// Where the first administrator's context is written.
        #[arg(long, value_name = "FILE")]
        context: Option<PathBuf>,
        /// Distance between coordinators.
        #[arg(long, default_value = "vps", value_parser = ["lan", "vps", "wan"])]
        timings: String,
    },
    /// Join a platform as a further coordinator.
    Join {
        /// A coordinator to ask; may be given several times.
        #[arg(long, value_name = "IP:PORT", required = true)]
        coordinator: Vec<String>,
        /// From `muster token coordinator`.
        #[arg(long)]
        token: String,
        /// IP address and port at which other hosts reach this coordinator.
        #[arg(long, value_name = "IP:PORT")]
        advertise: SocketAddr,
        /// This coordinator's name.
        #[arg(long, default_value = "coordinator")]
        name: Name,
        /// Distance between coordinators.
        #[arg(long, default_value = "vps", value_parser = ["lan", "vps", "wan"])]
        timings: String,
    },
    /// Run; what the systemd unit does.
    Run {
        /// Address to listen on; by default all addresses at the advertised port.
        #[arg(long, value_name = "IP:PORT")]
        listen: Option<SocketAddr>,
        /// Address at which others reach it; refused if it is another than it joined with.
        #[arg(long, value_name = "IP:PORT")]
        advertise: Option<SocketAddr>,
        /// How old the newest kept snapshot of the state may become.
        #[arg(long, value_name = "SPAN", default_value = "6h", env = "MUSTER_SNAPSHOT_EVERY")]
        snapshot_every: Span,
        /// Snapshots that are kept in the state directory; 0 = none.
        #[arg(long, value_name = "COUNT", default_value_t = 12, env = "MUSTER_SNAPSHOT_KEEP")]
        snapshot_keep: usize,
        /// Form of the log lines.
        #[arg(long, default_value = "text", value_parser = ["text", "json"])]
        log_format: String,
    },
    /// After a majority of the coordinators was lost for good: go on with this one alone. It must not run.
    Recover {
        /// Directory of another survivor, or a copy of it; may be given several times. The one that knows most goes on.
        #[arg(long, value_name = "DIRECTORY")]
        others: Vec<PathBuf>,
        /// No other survivor has a higher term, or the same term and a higher index.
        #[arg(long)]
        i_have_compared: bool,
    },
    /// Go on from a snapshot that `muster snapshot save` or the schedule made. The coordinator must not run.
    Restore {
        /// The snapshot.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Also if this coordinator's own log is newer: what was changed since the snapshot is forgotten.
        #[arg(long)]
        older: bool,
        /// IP address and port at which other hosts reach this coordinator, if it is another than before.
        #[arg(long, value_name = "IP:PORT")]
        advertise: Option<SocketAddr>,
    },
    /// After all coordinators and their disks were lost: a new first one, out of what the hosts' agents kept. In an empty
    /// directory.
    Rebuild {
        /// A file of `muster-agent bundle`; one of each host.
        #[arg(long, value_name = "FILE", required = true)]
        from: Vec<PathBuf>,
        /// A host that is lost for good, too; may be given several times.
        #[arg(long, value_name = "HOST")]
        without: Vec<Name>,
        /// IP address and port at which other hosts reach this coordinator.
        #[arg(long, value_name = "IP:PORT")]
        advertise: SocketAddr,
        /// This coordinator's name.
        #[arg(long, default_value = "first")]
        name: Name,
        /// Where the first administrator's context is written.
        #[arg(long, value_name = "FILE")]
        context: Option<PathBuf>,
        /// Distance between coordinators.
        #[arg(long, default_value = "vps", value_parser = ["lan", "vps", "wan"])]
        timings: String,
    },
    /// What root on a coordinator can always do.
    #[command(subcommand)]
    Admin(Admin),
}

#[derive(Debug, Subcommand)]
enum Admin {
    /// Make a new operator, for example when the last context was lost.
    Issue {
        /// The operator's name.
        #[arg(long)]
        name: Name,
        /// The operator's role.
        #[arg(long, default_value = "admin", value_parser = ["admin", "operator", "viewer"])]
        role: String,
        /// Where the context is written.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Revoke a certificate; its connections end within two seconds.
    Revoke {
        /// Its serial number in hex, as `openssl x509 -noout -serial` prints it.
        #[arg(long)]
        serial: String,
        /// Goes into the audit log.
        #[arg(long, default_value = "asked for by root")]
        why: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = match &arguments.command {
        Command::Run { log_format, .. } if log_format == "json" => telemetry::Format::Json,
        _ => telemetry::Format::Human,
    };
    if let Err(error) = telemetry::init(format) {
        eprintln!("muster-coordinator: {error}");
        return ExitCode::from(muster_runtime::config::EXIT_USAGE);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(execute(arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster-coordinator: {error:#}");
            // 78: the systemd unit does not start it again.
            if error.is::<run::Final>() { ExitCode::from(78) } else { ExitCode::FAILURE }
        }
    }
}

fn say(lines: &[String]) {
    for line in lines {
        println!("{line}");
    }
}

async fn execute(arguments: Arguments) -> Result<()> {
    let home = Home::new(&arguments.state_dir);
    match arguments.command {
        Command::Init { platform, advertise, name, context, timings } => {
            let context = context.unwrap_or_else(|| home.path("admin.context.json"));
            let wish = init::Init { platform, name, advertise, timings, context };
            init::init(&home, &wish)?;
            println!(
                "platform {} is made; its first administrator's context: {}",
                wish.platform,
                wish.context.display()
            );
            println!("next, on this host:\n  systemctl enable --now muster-coordinator");
            println!("then, where you work:\n  muster context import {}", wish.context.display());
            println!("  muster token host          # prints the command that joins a host");
            Ok(())
        }
        Command::Join { coordinator, token, advertise, name, timings } => {
            let wish = init::Join { coordinators: coordinator, token, name, advertise, timings };
            init::join(&home, &wish).await?;
            println!("joined; next:\n  systemctl enable --now muster-coordinator");
            Ok(())
        }
        Command::Run { listen, advertise, snapshot_every, snapshot_keep, .. } => {
            let every = Duration::from_millis(snapshot_every.0.0);
            let snapshots = saved::Schedule { every, keep: snapshot_keep };
            run::run(&home, &run::Wish { listen, advertise, snapshots }).await
        }
        Command::Recover { others, i_have_compared } => {
            let wish = recovery::Recover { others, compared: i_have_compared };
            say(&recovery::recover(&home, &wish).await?);
            Ok(())
        }
        Command::Restore { from, older, advertise } => {
            let wish = recovery::Restore { from, older, advertise };
            say(&recovery::restore(&home, &wish).await?);
            Ok(())
        }
        Command::Rebuild { from, without, advertise, name, context, timings } => {
            let context = context.unwrap_or_else(|| home.path("admin.context.json"));
            let wish = rebuild::Rebuild { from, without, name, advertise, timings, context };
            say(&rebuild::rebuild(&home, &wish)?);
            Ok(())
        }
        Command::Admin(Admin::Issue { name, role, out }) => {
            let role: Role = role.parse()?;
            admin::ask_issue(&home, &name, role, &out).await?;
            println!(
                "context written to {}; use it with `muster context import {}`",
                out.display(),
                out.display()
            );
            Ok(())
        }
        Command::Admin(Admin::Revoke { serial, why }) => {
            admin::ask_revoke(&home, &serial.to_ascii_lowercase(), &why).await?;
            println!("certificate {serial} is revoked");
            Ok(())
        }
    }
}
