//! The `testbed` command: each verb is one call into the library; it decides only what is printed and the exit status.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use muster_testbed::{Config, Host, Testbed, UnitState, doctor, init, leftovers};

/// As `systemctl status` of a unit that does not run.
const NOT_RUNNING: u8 = 3;
const DEFAULT_HOSTS: usize = 3;

/// Emulated VPS hosts on one Linux machine, each with its own Docker Engine.
///
/// Configured by the environment only: MUSTER_TB_DIR, MUSTER_TB_PREFIX, MUSTER_TB_NET, MUSTER_TB_HOSTNAMES,
/// MUSTER_TB_MEM, MUSTER_TB_FORWARD, MUSTER_TB_UNITS, MUSTER_BIN_DIR, MUSTER_CACHE.
#[derive(Parser)]
#[command(name = "testbed", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make and boot hosts (default: all of MUSTER_TB_HOSTNAMES, or 3)
    Up {
        count: Option<usize>,
    },
    /// Remove everything
    Down {
        /// Keep the hosts' disks
        #[arg(long)]
        keep: bool,
        /// Remove the golden image store, too
        #[arg(long)]
        all: bool,
    },
    /// One line per host, and the standing faults
    Status,
    /// Cut a host's power; its disk survives
    Kill {
        host: String,
    },
    /// Boot it again: same address, same disk
    Start {
        host: String,
    },
    /// Stall a whole host, as a hypervisor does
    Pause {
        host: String,
    },
    Resume {
        host: String,
    },
    /// Freeze only the engine of a host
    EnginePause {
        host: String,
    },
    EngineResume {
        host: String,
    },
    /// Kill only the engine; containers go on
    EngineKill {
        host: String,
    },
    EngineStart {
        host: String,
    },
    /// Cut a host off from everybody, or from one other host
    Partition {
        host: String,
        other: Option<String>,
        /// Lose only what HOST sends to OTHER
        #[arg(long, requires = "other")]
        oneway: bool,
    },
    /// End all partitions and filters
    Heal,
    /// Lose packets that match an nftables expression, e.g. `filter meta l4proto udp`
    Filter {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        expression: Vec<String>,
    },
    /// Set the MTU of a host's uplink
    Mtu {
        host: String,
        mtu: u32,
    },
    /// Run a command inside, as its root
    Exec {
        host: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// The docker client against a host's engine
    Docker {
        host: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Put images into the store that hosts made later share
    Seed {
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Load images into every running host
    Load {
        archive: PathBuf,
    },
    /// Control a unit of a host
    Unit {
        host: String,
        action: Action,
        name: Option<String>,
    },
    /// List everything of ours that exists on this machine; exit 1 if there is any
    Leftovers,
    /// Say what this machine lacks
    Doctor,
    #[command(hide = true)]
    Init {
        host: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    Start,
    Stop,
    Restart,
    /// SIGKILL of its main process; its Restart= decides what follows
    Kill,
    Status,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match &verb {
        Verb::Doctor => return Ok(print_doctor(&Config::from_env()?)),
        Verb::Leftovers => return print_leftovers(&Config::from_env()?),
        Verb::Init { host } => init(&Config::from_env()?, host)?,
        _ => {}
    }
    let testbed = Testbed::from_env()?;
    let host = |name: &str| testbed.host(name);
    match verb {
        Verb::Up { count } => return up(&testbed, count),
        Verb::Status => return print_status(&testbed),
        Verb::Unit { host: name, action, name: unit } => {
            return control(&host(&name)?, action, unit.as_deref());
        }
        Verb::Exec { host: name, command } => return replace(host(&name)?.command(&command)?),
        Verb::Docker { host: name, arguments } => return replace(host(&name)?.docker_command(&arguments)),
        Verb::Down { keep, all } => testbed.down(keep, all)?,
        Verb::Kill { host: name } => host(&name)?.kill()?,
        Verb::Start { host: name } => testbed.start(&name)?,
        Verb::Pause { host: name } => host(&name)?.pause()?,
        Verb::Resume { host: name } => host(&name)?.resume()?,
        Verb::EnginePause { host: name } => host(&name)?.engine_pause()?,
        Verb::EngineResume { host: name } => host(&name)?.engine_resume()?,
        Verb::EngineKill { host: name } => host(&name)?.engine_kill()?,
        Verb::EngineStart { host: name } => host(&name)?.engine_start()?,
        Verb::Partition { host: one, other: None, .. } => testbed.isolate(&host(&one)?)?,
        Verb::Partition { host: one, other: Some(other), oneway: true } => {
            testbed.partition_oneway(&host(&one)?, &host(&other)?)?;
        }
        Verb::Partition { host: one, other: Some(other), oneway: false } => {
            testbed.partition(&host(&one)?, &host(&other)?)?;
        }
        Verb::Heal => testbed.heal()?,
        Verb::Filter { expression } => testbed.filter(&expression.join(" "))?,
        Verb::Mtu { host: name, mtu } => host(&name)?.mtu(mtu)?,
        Verb::Seed { archives } => {
            let done = testbed.seed(&archives.iter().map(PathBuf::as_path).collect::<Vec<&Path>>())?;
            eprintln!(
                "testbed: {}",
                if done { "golden store replaced" } else { "all images are in the golden store" }
            );
        }
        Verb::Load { archive } => testbed.load(&archive)?,
        Verb::Doctor | Verb::Leftovers | Verb::Init { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn up(testbed: &Testbed, count: Option<usize>) -> Result<ExitCode> {
    let began = Instant::now();
    let named = testbed.config().hostnames.len();
    let hosts = testbed.up(count.unwrap_or(if named > 0 { named } else { DEFAULT_HOSTS }))?;
    for host in &hosts {
        println!("{} {}", host.name(), host.address());
    }
    eprintln!("testbed: {} hosts up in {:.2} s", hosts.len(), began.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, so that its streams and exit status are the caller's.
fn replace(mut command: Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).context("running it")
}

fn print_status(testbed: &Testbed) -> Result<ExitCode> {
    for host in testbed.hosts()? {
        let (name, address) = (host.name(), host.address());
        let memory = host.memory_bytes() >> 20;
        match (host.pid(), host.is_paused()) {
            (None, _) => println!("{name} {address} off"),
            (Some(pid), true) => println!("{name} {address} paused rss={memory}MiB init={pid}"),
            (Some(pid), false) => {
                let listed = host.docker(&["ps", "-q"], Duration::from_secs(5));
                let containers =
                    listed.map_or_else(|_| "?".to_owned(), |ids| ids.lines().count().to_string());
                let units: Vec<String> =
                    host.units()?.iter().map(|unit| format!("{}={:?}", unit.name, unit.state)).collect();
                println!(
                    "{name} {address} up rss={memory}MiB containers={containers} init={pid} {}",
                    units.join(" ")
                );
            }
        }
    }
    for fault in testbed.faults()? {
        println!("fault {fault}");
    }
    Ok(ExitCode::SUCCESS)
}

fn control(host: &Host, action: Action, unit: Option<&str>) -> Result<ExitCode> {
    let (action, unit) = match (action, unit) {
        (Action::Status, None) => {
            for status in host.units()? {
                println!("{} {:?} starts={} {}", status.name, status.state, status.starts, status.detail);
            }
            return Ok(ExitCode::SUCCESS);
        }
        (action, Some(unit)) => (action, unit),
        (_, None) => bail!("which unit?"),
    };
    match action {
        Action::Start => host.unit_start(unit)?,
        Action::Stop => host.unit_stop(unit)?,
        Action::Restart => host.unit_restart(unit)?,
        Action::Kill => host.unit_kill(unit)?,
        Action::Status => {
            let status = host.unit_status(unit)?;
            let pid = status.pid.map_or_else(String::new, |pid| format!(" pid={pid}"));
            println!("{} {:?}{pid} starts={} {}", status.name, status.state, status.starts, status.detail);
            return Ok(if status.state == UnitState::Up {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(NOT_RUNNING)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_leftovers(config: &Config) -> Result<ExitCode> {
    let found = leftovers(config)?;
    for one in &found {
        println!("{}: {} ({})", one.kind, one.what, one.shown_by);
    }
    if found.is_empty() {
        println!("nothing of {} is left", config.prefix);
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_doctor(config: &Config) -> ExitCode {
    let findings = doctor(config);
    for finding in &findings {
        match &finding.remedy {
            None => println!("ok       {}", finding.what),
            Some(remedy) => println!("MISSING  {}: {remedy}", finding.what),
        }
    }
    let ready = findings.iter().all(|finding| finding.remedy.is_none());
    if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
