//! Command line of the agent. Decides nothing but what was asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use muster_agent::bundle;
use muster_agent::doctor::{self, DoctorArgs};
use muster_agent::enroll::{self, Wish};
use muster_agent::run::{Settings, run};
use muster_agent::uninstall::{self, UninstallArgs};
use muster_model::spec::Span;
use muster_runtime::config::EXIT_USAGE;
use muster_runtime::telemetry;

/// Runs the containers of one host of a Muster platform.
#[derive(Parser)]
#[command(name = "muster-agent", version)]
struct Cli {
    /// Directory of the agent's state.
    #[arg(long, env = "MUSTER_AGENT_DIR", default_value = "/var/lib/muster/agent", global = true)]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Joins this host to a platform, with a token from `muster token host`.
    Join(JoinArgs),
    /// Runs the agent.
    Run(RunArgs),
    /// Writes what this host knows of its platform into a file, for `muster-coordinator rebuild` when all coordinators and
    /// their disks are lost. It holds passwords; the agent goes on meanwhile.
    Bundle {
        /// The file; only root can read it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Says whether this host can run members, with the remedy for what is missing.
    Doctor(DoctorArgs),
    /// Takes everything of ours off this host, once it was removed from its platform; says only what, without `--yes`.
    Uninstall(UninstallArgs),
    /// Provides the mesh device where the kernel has no WireGuard; run by `muster-mesh.service`.
    MeshDevice {
        /// The userspace WireGuard program; default: `gotatun` beside this program or on the path.
        #[arg(long)]
        program: Option<PathBuf>,
    },
}

#[derive(Args)]
struct JoinArgs {
    /// Addresses of coordinators (`host:port`), separated by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    coordinator: Vec<String>,
    /// The token.
    #[arg(long, env = "MUSTER_TOKEN", hide_env_values = true)]
    token: String,
    /// Name of this host; default: its host name, with `--adopt` the name that it has.
    #[arg(long)]
    name: Option<String>,
    /// Public address of this host; default: the one that reaches the coordinator.
    #[arg(long)]
    advertise: Option<String>,
    /// Failure domain above the host.
    #[arg(long)]
    zone: Option<String>,
    /// Labels, `key=value`.
    #[arg(long = "label", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Moves this host to a rebuilt platform: the identity is exchanged, containers, plans and secrets stay.
    #[arg(long)]
    adopt: bool,
}

#[derive(Args)]
struct RunArgs {
    /// Directory of rendered files, on a memory file system; one is mounted there if it is on a disk.
    #[arg(long, env = "MUSTER_AGENT_FILES", default_value = "/run/muster")]
    files_dir: PathBuf,
    /// Docker's socket.
    #[arg(long, env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    docker: String,
    /// Images of the platform that no member of this host has needed for so long are removed; `0s` = never.
    #[arg(long, env = "MUSTER_IMAGE_GRACE", default_value = "24h", value_name = "SPAN")]
    image_grace: Span,
    /// Form of the log lines.
    #[arg(long, env = "MUSTER_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let code = if error.use_stderr() { i32::from(EXIT_USAGE) } else { 0 };
        error.print().ok();
        std::process::exit(code)
    });
    // Two threads: writing to a slow disk must not hold up beats.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(carry_out(cli)));
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Join(join) => {
            let wish = Wish {
                coordinators: join.coordinator,
                token: join.token,
                name: join.name,
                advertise: join.advertise,
                zone: join.zone,
                labels: BTreeMap::from_iter(join.labels),
                adopt: join.adopt,
            };
            let record = enroll::join(&cli.state_dir, wish).await?;
            println!("joined platform {} as host {} ({})", record.platform_name, record.name, record.host);
            println!("next: systemctl enable --now muster-agent");
        }
        Command::Run(args) => {
            let format =
                if args.log_format == "json" { telemetry::Format::Json } else { telemetry::Format::Human };
            telemetry::init(format)?;
            let settings = Settings {
                state: cli.state_dir,
                files: args.files_dir,
                docker: args.docker,
                image_grace: args.image_grace.0,
            };
            run(settings).await?;
        }
        Command::Bundle { out } => println!("{}", bundle::write(&cli.state_dir, &out)?),
        Command::Doctor(args) => {
            let good = doctor::run(&args, &cli.state_dir).await?;
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Uninstall(args) => uninstall::run(&args, &cli.state_dir).await?,
        Command::MeshDevice { program } => {
            telemetry::init(telemetry::Format::Human)?;
            muster_agent::network::device::serve(program).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
