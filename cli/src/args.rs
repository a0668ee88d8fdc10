//! The command line's grammar. Decides nothing.

mod audit;
mod host;
mod image;
mod net;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_model::ids::{LogIndex, Name, OperationId, Slot};
use muster_model::spec::Span;

use crate::console::Format;

pub use audit::{AuditArgs, AuditCommand, ExposureArgs};
pub use host::{HostCommand, MaintenanceArgs, RebootArgs};
pub use image::{ImageCommand, PushArgs};
pub use net::NetCommand;

/// Shown by `muster` and `muster --help`.
const HELP: &str = "\
Keeps data services alive across ordinary servers.

Usage: muster [OPTIONS] COMMAND

Describe and change
  init         Print a commented spec to start from
  plan         Show what a spec would change; changes nothing
  apply        Make a spec the desired state, and wait until it is reached

Look
  status       The platform, or one service, at a glance
  ps           Members and where they run
  logs         Output of a member
  exec         Run a program inside a member
  events       What happened
  op           Operations: list, watch, continue, cancel
  conn         Connection strings of a service
  metrics      Where Prometheus reads the metrics of members
  ca           The certificate by which clients recognise services
  explain      Why a service or a host is as it is
  whatif       What the loss of hosts would do now
  audit        Who did what; which ports are open from outside

Operate
  service      Switchover, restart, replace, scale, update, roll back, remove
  secret       Passwords: list them, give a service new ones
  drill        Break something on purpose and measure what clients noticed
  host         Hosts: list, show, cordon, uncordon, drain, revoke, remove
  net          The mesh: who reaches whom, how fast, what is wrong
  image        Bring images to hosts without a registry; list them
  coordinator  Coordinators: list, remove
  snapshot     The control plane's state as a file
  operator     Who may do what: list, add, revoke
  token        Let a host or coordinator join

This program
  context      Which platform, as whom
  schema       JSON schema of the spec file, for editors
  completion   Completion for your shell
  version      Version of this program

Options
      --context NAME|FILE   Platform to talk to [env: MUSTER_CONTEXT]
  -o, --output FORMAT       table or json
  -y, --yes                 Do not ask
      --no-color            No colours (so does NO_COLOR=1)
  -h, --help                This text; after a command, its own
  -V, --version             Version

Examples
  muster init --profile ha > platform.yaml     a PostgreSQL cluster and an application
  muster plan platform.yaml                    what would change, and what could then be lost
  muster apply platform.yaml                   shows the plan, asks, waits until all is healthy
  muster status pg-main                        members, roles, lag, endpoints, promises
  muster service switchover pg-main --to 2     another member leads
  muster drill run kill-primary.yaml           seconds without writes, acknowledged writes lost

Exit codes
  0 done   1 error   2 plan has changes   3 refused for safety   4 paused, failed or rolled back
  5 drill missed a threshold   6 no coordinator answers   64 wrong command line
";

/// The operator's command line.
#[derive(Debug, Parser)]
#[command(name = "muster", version, override_help = HELP, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Platform to talk to: name of a stored context, or a context file
    #[arg(long, global = true, env = "MUSTER_CONTEXT", hide_env_values = true, value_name = "NAME|FILE")]
    pub context: Option<String>,
    /// What the result is printed as
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Format,
    /// Do not ask
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// No colours
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a commented spec to start from
    Init(InitArgs),
    /// Show what a spec would change; changes nothing
    ///
    /// Exit code 0: nothing would change. 2: something would. 3: it would be refused. 1: the spec is wrong.
    Plan {
        /// Spec file; `-` reads standard input. ${VARIABLES} are filled in from the environment.
        file: String,
    },
    /// Make a spec the desired state, and wait until it is reached
    Apply(ApplyArgs),
    /// The platform, or one service, at a glance
    Status {
        /// Only this service, in detail
        service: Option<Name>,
        /// Redraw every second
        #[arg(short, long)]
        watch: bool,
    },
    /// Members and where they run
    Ps {
        /// Only of this service and its child services
        service: Option<Name>,
    },
    /// Output of a member
    Logs {
        /// For example pg-main/1; `muster ps` lists them
        #[arg(value_name = "SERVICE/SLOT")]
        slot: Slot,
        #[command(flatten)]
        tail: TailArgs,
    },
    /// Run a program inside a member
    #[command(after_help = "\
Examples:
  muster exec pg-main/1 -- cat /proc/loadavg

The first 4 KiB of its output are printed; a program that fails makes this command fail. What was run is in the audit
log: keep secrets out of arguments.")]
    Exec {
        /// For example pg-main/1; `muster ps` lists them
        #[arg(value_name = "SERVICE/SLOT")]
        slot: Slot,
        /// Longest time that it may take, at most 8s
        #[arg(long, default_value = "5s")]
        timeout: Span,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        argv: Vec<String>,
    },
    /// What happened
    Events(TailArgs),
    /// Operations: everything that takes longer than one step
    #[command(subcommand)]
    Op(OpCommand),
    /// Connection strings of a service
    Conn {
        /// The service
        service: Name,
        /// Connect as this user of the service
        #[arg(long)]
        user: Option<String>,
        /// Where the client keeps the platform's CA certificate (see `muster ca`) [default: beside the context]
        #[arg(long, value_name = "FILE")]
        ca: Option<String>,
    },
    /// Where Prometheus reads the metrics of members; with `-o json` a file for its `file_sd_configs`
    Metrics {
        /// Only of this service
        service: Option<Name>,
    },
    /// The certificate by which clients recognise services of this platform
    Ca,
    /// Passwords: list them, never their values; give a service new ones
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Why a service or a host is as it is: placement, gates, last events
    Explain {
        /// A service or a host
        #[arg(value_name = "SERVICE|HOST")]
        about: Name,
    },
    /// What a loss would do now: writes, reads, copies left
    #[command(subcommand)]
    Whatif(WhatIfCommand),
    /// Who did what; `audit exposure`: which ports are open
    Audit(AuditArgs),
    /// Switchover, restart, replace, scale, update, roll back, remove
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Break something on purpose and measure what clients noticed
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Hosts: list, show, cordon, uncordon, drain, revoke, remove
    #[command(subcommand)]
    Host(HostCommand),
    /// The mesh: who reaches whom, how fast, what is wrong
    #[command(subcommand)]
    Net(NetCommand),
    /// Bring images to hosts without a registry; list them
    #[command(subcommand)]
    Image(ImageCommand),
    /// The control plane's state as a file
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Coordinators: list, remove
    #[command(subcommand)]
    Coordinator(CoordinatorCommand),
    /// Who may do what: list, add, revoke
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Let a host or coordinator join: prints the command to run there
    Token {
        /// What may join
        role: TokenRole,
        /// How long the token can be used, once
        #[arg(long, default_value = "15m", value_name = "SPAN")]
        life: Span,
    },
    /// Which platform, as whom
    #[command(subcommand)]
    Context(ContextCommand),
    /// JSON schema of the spec file, for editors
    ///
    /// muster schema > spec.schema.json, then begin the spec with: # yaml-language-server: $schema=spec.schema.json
    Schema,
    /// Completion for your shell
    ///
    /// bash: source <(muster completion bash)     fish: muster completion fish | source
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Version of this program
    Version,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// How much to begin with
    #[arg(long, value_enum)]
    pub profile: Profile,
    /// Name of the platform, as given at `muster-coordinator init` [default: the context's]
    #[arg(long)]
    pub platform: Option<Name>,
}

/// How much a first spec holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// One application
    Minimal,
    /// One PostgreSQL server and an application
    Standard,
    /// A PostgreSQL cluster that survives the loss of a host, and an application
    Ha,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  muster apply platform.yaml                    shows the plan, asks, waits until all is healthy
  muster apply platform.yaml --at 1234          only if nothing changed since the plan that said 1234
  muster apply - --yes --detach < platform.yaml

Without a terminal, --at INDEX or --yes is needed.")]
pub struct ApplyArgs {
    /// Spec file; `-` reads standard input. ${VARIABLES} are filled in from the environment.
    pub file: String,
    /// Refuse if the spec was changed after this index, which `muster plan` printed
    #[arg(long, value_name = "INDEX", value_parser = index)]
    pub at: Option<LogIndex>,
    /// Do not wait until it is reached
    #[arg(long)]
    pub detach: bool,
    /// Longest wait
    #[arg(long, default_value = "10m", value_name = "SPAN")]
    pub timeout: Span,
}

/// How much of a history is shown.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// Newest lines only; 0 = all that are kept
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub tail: u32,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
}

/// `op ...`
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// Operations that have not ended
    Ls {
        /// Ended ones too
        #[arg(long)]
        all: bool,
    },
    /// Follow one to its end
    Watch {
        /// Its number
        #[arg(value_parser = operation)]
        id: OperationId,
    },
    /// Go on after what it waited for was mended
    Continue {
        /// Its number
        #[arg(value_parser = operation)]
        id: OperationId,
    },
    /// End it where it stands
    Cancel {
        /// Its number
        #[arg(value_parser = operation)]
        id: OperationId,
    },
}

/// Verbs of `secret`.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Names, versions and ages; what changing each would do
    Ls {
        /// Only of this service
        service: Option<Name>,
    },
    /// Give a service new passwords while it serves
    #[command(after_help = "\
Examples:
  muster secret rotate pg-main            every password of the service that can be changed without an interruption
  muster secret rotate pg-main/app        that of the user `app`; `muster conn pg-main --user app` prints the new one
  muster secret rotate files/root         interrupts: says for how long, and asks")]
    Rotate {
        /// The service, or one of its users, or one of the passwords that `secret ls` lists
        #[arg(value_name = "SERVICE[/USER]", value_parser = secret)]
        what: (Name, String),
        #[command(flatten)]
        wait: WaitArgs,
    },
}

fn secret(text: &str) -> Result<(Name, String), String> {
    let (service, what) = text.split_once('/').unwrap_or((text, ""));
    Ok((Name::new(service).map_err(|error| error.to_string())?, what.to_owned()))
}

/// `service ...`
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Another member leads
    Switchover {
        /// The service
        service: Name,
        /// Slot that is to lead [default: the best]
        #[arg(long, value_name = "SLOT")]
        to: Option<SlotOrIndex>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Restart its members one after the other, or one of them
    Restart {
        /// The service, or one slot of it
        #[arg(value_name = "SERVICE[/SLOT]")]
        target: Target,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Put a new member into a slot, on another host if one fits
    #[command(after_help = "\
Examples:
  muster service replace pg-main/2                  its data is copied anew; the old data is set aside
  muster service replace bus/1 --confirm-lost       its host never comes back, and its data with it")]
    Replace {
        /// The slot
        #[arg(value_name = "SERVICE/SLOT")]
        slot: Slot,
        /// Its host never comes back: do not wait until the old member is known to have stopped
        #[arg(long)]
        confirm_lost: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change the number of its members
    ///
    /// It changes the spec inside the platform, not your file, and prints the line to write there.
    Scale {
        /// The service
        service: Name,
        /// How many
        members: u32,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Move its members to another image, one after the other, the leader last
    Update {
        /// The service
        service: Name,
        /// The image, which every host of the service must have
        #[arg(long)]
        image: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Back to its previous revision
    Rollback {
        /// The service
        service: Name,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove it, and say what becomes of its data
    Remove {
        /// The service
        service: Name,
        #[command(flatten)]
        data: DataArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// Whether a command waits.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Start it and do not wait for its end
    #[arg(long)]
    pub detach: bool,
}

/// What becomes of the data of a removed service.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub struct DataArgs {
    /// Set the data aside on its hosts
    #[arg(long)]
    pub keep_data: bool,
    /// Delete the data for good
    #[arg(long)]
    pub destroy_data: bool,
}

/// `drill ...`
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Run a drill file and print its report
    #[command(after_help = "\
Examples:
  muster drill run deploy/examples/drills/kill-primary.yaml
  muster drill run kill-host.yaml --fault-command 'hcloud server poweroff {host}' \\
                                  --undo-command 'hcloud server poweron {host}'

Without --fault-command the host's own agent isolates it and stops its members. With it the drill waits while your
command cuts the power; {host} becomes the host's name. --undo-command gives the power back after --undo-after, and in any case at the end, also on ctrl-c.")]
    Run(DrillArgs),
    /// Drills so far
    Ls,
}

/// Arguments of `drill run`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// Drill file; `-` reads standard input
    pub file: String,
    /// Do it to this service instead of the file's
    #[arg(long)]
    pub service: Option<Name>,
    /// Shell command that does the fault, when the drill waits for one
    #[arg(long, value_name = "CMD")]
    pub fault_command: Option<String>,
    /// Shell command that undoes it
    #[arg(long, value_name = "CMD", requires = "fault_command")]
    pub undo_command: Option<String>,
    /// How long after the fault it is undone; at the end of the drill, if that comes first
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    pub undo_after: Span,
}

/// Who may do what.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Everybody with a certificate, by name
    Ls,
    /// Issue a certificate with its key, as a context file for that person
    #[command(after_help = "\
Examples:
  muster operator add ada --role viewer --out ada.context.json

The file holds the private key: hand it over safely. There: muster context import ada.context.json")]
    Add {
        /// The person
        name: Name,
        /// viewer looks; operator runs shipped drills and operates services; admin may do everything
        #[arg(long, value_enum)]
        role: OperatorRole,
        /// Where the context file goes; it must not exist yet
        #[arg(long, value_name = "FILE")]
        out: std::path::PathBuf,
    },
    /// Take all keys of a person back: open connections end within 2 s
    Revoke {
        /// The person
        name: Name,
        /// Said in the audit log
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
    },
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OperatorRole {
    /// Looks
    Viewer,
    /// Operates services
    Operator,
    /// Everything
    Admin,
}

/// `snapshot ...`
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write everything that the coordinators agreed on into a file, for `muster-coordinator restore`
    ///
    /// The passwords in it are sealed with a key that is not in it: `seal.key` in a coordinator's directory.
    Save {
        /// The file; must not exist
        file: PathBuf,
    },
}

/// `coordinator ...`
#[derive(Debug, Subcommand)]
pub enum CoordinatorCommand {
    /// Who decides, how far each log is, who answers; also while no majority does
    Ls,
    /// Take one out for good, whether it runs or not
    ///
    /// Leadership moves away from it first, and its keys are revoked. If it runs, it stops by itself. Refused when too few
    /// of the others answer.
    Remove {
        /// Its name or number
        coordinator: String,
    },
}

/// `whatif ...`
#[derive(Debug, Subcommand)]
pub enum WhatIfCommand {
    /// Hosts are lost together: `muster whatif host down h1 h2`
    Host {
        /// What happens to them
        event: LossEvent,
        /// Their names
        #[arg(required = true)]
        hosts: Vec<Name>,
    },
    /// A whole zone is lost: `muster whatif zone down fsn1`
    Zone {
        /// What happens to it
        event: LossEvent,
        /// Its name
        zone: String,
    },
    /// Coordinators alone are lost: `muster whatif coordinator down 10.0.0.1:7400`
    Coordinator {
        /// What happens to them
        event: LossEvent,
        /// Endpoints or numbers
        #[arg(required = true)]
        coordinators: Vec<String>,
    },
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LossEvent {
    /// It is lost
    Down,
}

/// What a token lets join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// A host with an agent, for members
    Host,
    /// A coordinator
    Coordinator,
}

/// `context ...`
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Store a context file, as `muster-coordinator init` or `admin issue` wrote it
    Import {
        /// The file
        file: std::path::PathBuf,
        /// Name to store it under [default: the platform's]
        #[arg(long)]
        name: Option<Name>,
    },
    /// Stored contexts
    Ls,
    /// Use this one unless told otherwise
    Use {
        /// Its name
        name: Name,
    },
}

/// A service, or one slot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub service: Name,
    /// Only this slot.
    pub slot: Option<Slot>,
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('/') {
            let service = Name::new(text).map_err(|error| error.to_string())?;
            return Ok(Self { service, slot: None });
        }
        let slot: Slot = text.parse().map_err(|_| "write SERVICE or SERVICE/SLOT, for example pg-main/2")?;
        Ok(Self { service: slot.service.clone(), slot: Some(slot) })
    }
}

/// A slot as `pg-main/2` or `2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotOrIndex {
    service: Option<Name>,
    index: u32,
}

impl SlotOrIndex {
    /// As a slot of `service`.
    ///
    /// # Errors
    /// It names another service.
    pub fn of(&self, service: &Name) -> Result<Slot, String> {
        match &self.service {
            Some(other) if other != service => {
                Err(format!("{other}/{} is not a slot of {service}", self.index))
            }
            _ => Ok(Slot { service: service.clone(), index: self.index }),
        }
    }
}

impl FromStr for SlotOrIndex {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "write a slot such as pg-main/2 or 2".to_owned();
        if let Ok(index) = text.parse() {
            return Ok(Self { service: None, index });
        }
        let slot: Slot = text.parse().map_err(|_| refused())?;
        Ok(Self { service: Some(slot.service), index: slot.index })
    }
}

fn index(text: &str) -> Result<LogIndex, String> {
    let index = text.parse().map_err(|_| "write the index that `muster plan` printed".to_owned())?;
    if index == 0 { Err("0 is not an index".to_owned()) } else { Ok(LogIndex(index)) }
}

fn operation(text: &str) -> Result<OperationId, String> {
    text.parse()
        .map(OperationId)
        .map_err(|_| "write an operation's number; `muster op ls` lists them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_command_and_every_global_option() {
        for command in Cli::command().get_subcommands() {
            assert!(HELP.contains(&format!("\n  {:<12} ", command.get_name())), "{}", command.get_name());
        }
        for argument in Cli::command().get_arguments() {
            let long = argument.get_long().unwrap();
            assert!(HELP.contains(&format!("--{long}")), "{long}");
        }
        assert!(HELP.lines().all(|line| line.len() <= 110));
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["muster --yes -o json apply f --context x", "muster apply f -y -o json --context x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.globals.yes && cli.globals.output == Format::Json && cli.globals.context.is_some());
        }
    }

    #[test]
    fn removing_needs_a_word_about_the_data() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(!parse("muster service remove web"));
        assert!(!parse("muster service remove web --keep-data --destroy-data"));
        assert!(parse("muster service remove web --keep-data"));
    }

    #[test]
    fn targets_and_slots_are_read() {
        let pg = Name::new("pg").unwrap();
        assert_eq!("pg".parse::<Target>().unwrap().slot, None);
        assert_eq!("pg/2".parse::<Target>().unwrap().slot.unwrap().index, 2);
        assert!("pg/x".parse::<Target>().is_err());
        assert_eq!("2".parse::<SlotOrIndex>().unwrap().of(&pg).unwrap().to_string(), "pg/2");
        assert!("web/2".parse::<SlotOrIndex>().unwrap().of(&pg).is_err());
    }
}
