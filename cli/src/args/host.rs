//! The grammar of `muster host`.

use clap::{Args, Subcommand};
use muster_model::ids::Name;
use muster_model::spec::Span;

use super::WaitArgs;

/// `host ...`
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// All hosts
    Ls,
    /// One host
    Show {
        /// Its name or id
        host: Name,
    },
    /// Place nothing new on it; what it has stays
    Cordon {
        /// Its name or id
        host: Name,
    },
    /// Empty it: leading roles move away, members that fit elsewhere are replaced there
    ///
    /// Exit code 3 if something must stay; the reasons are printed. `muster host uncordon` ends it.
    Drain {
        /// Its name or id
        host: Name,
        /// Longest wait
        #[arg(long, default_value = "30m", value_name = "SPAN")]
        timeout: Span,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Stop everything on it in order, so that it can be rebooted or worked on
    ///
    /// Leading roles move away first. Refused (exit code 3) while a service would stop without the host, naming each.
    /// Nothing is replaced because of it, however long it takes. `muster host uncordon` ends it.
    Maintenance(MaintenanceArgs),
    /// Reboot hosts one by one, each after everything on it was stopped in order, and with all well before the next
    #[command(after_help = "\
Examples:
  muster host reboot h2
  muster host reboot --all --one-by-one --command 'hcloud server reboot {host}'

The platform cannot reboot servers: your command does, from where you are. {host} and {address} are filled in. A host
counts as rebooted when its agent has started anew. Exit code 4 if one does not come back, or something is not well
again: it is named, and no further host is touched.")]
    Reboot(RebootArgs),
    /// Take its agent's key back: it is cut off within 2 s and cannot return with that key
    ///
    /// The host then counts as down; its containers run on until somebody stops them there.
    Revoke {
        /// Its name or id
        host: Name,
        /// Said in the audit log
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
    },
    /// Take it off the platform for good; nothing may be left on it that is wanted
    ///
    /// Its agent's keys are revoked. On the server itself nothing is touched any more. A coordinator on it goes on.
    Remove {
        /// Its name or id
        host: Name,
    },
    /// After a recovery: give up what was found on it and is not in the spec
    ///
    /// What was found is stopped, its data is put aside on the host. `muster status` names it.
    Settle {
        /// Its name or id
        host: Name,
    },
    /// Place members on it again
    Uncordon {
        /// Its name or id
        host: Name,
    },
}

/// Arguments of `host maintenance`.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// Its name or id
    pub host: Name,
    /// Go on although services stop without it
    #[arg(long)]
    pub accept_outage: bool,
    /// Longest wait
    #[arg(long, default_value = "15m", value_name = "SPAN")]
    pub timeout: Span,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Arguments of `host reboot`.
#[derive(Debug, Args)]
pub struct RebootArgs {
    /// Names or ids, in this order
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub hosts: Vec<Name>,
    /// Every host of the platform
    #[arg(long, requires = "one_by_one")]
    pub all: bool,
    /// Said with --all: never two at once
    #[arg(long)]
    pub one_by_one: bool,
    /// Shell command that reboots a host
    #[arg(long, default_value = "ssh root@{address} systemctl reboot", value_name = "CMD")]
    pub command: String,
    /// Go on although services stop without a host
    #[arg(long)]
    pub accept_outage: bool,
    /// Longest wait of each step
    #[arg(long, default_value = "15m", value_name = "SPAN")]
    pub timeout: Span,
}
