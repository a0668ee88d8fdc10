//! `muster-agent doctor`: says whether this host can run members, one line per check, with the remedy. Changes nothing
//! that stays.

mod care;
mod engine;
mod finding;
mod flush_time;
mod host;
mod mesh;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use muster_model::spec::{DEFAULT_NETWORKS, MeshSpec};

pub use self::finding::{Finding, Verdict};

use crate::network::command::run as run_program;
use crate::network::engine::EngineNetwork;
use crate::runtime::docker_facts;

/// How the findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What is to be checked.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Docker's socket.
    #[arg(long, default_value = "/var/run/docker.sock")]
    pub docker: String,
    /// UDP port of the mesh.
    #[arg(long, default_value_t = MeshSpec::default().port)]
    pub mesh_port: u16,
    /// MTU of the mesh, bytes.
    #[arg(long, default_value_t = MeshSpec::default().mtu)]
    pub mesh_mtu: u16,
    /// Where `gotatun` is, if not in PATH or /usr/local/lib/muster.
    #[arg(long, env = "MUSTER_GOTATUN")]
    pub gotatun: Option<PathBuf>,
    /// Coordinators that must be reachable, as `host:port`; several are separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub coordinators: Vec<String>,
    /// Subnets that the platform uses, separated by commas; default: those of a platform that states none.
    #[arg(long, value_delimiter = ',')]
    pub subnets: Vec<Ipv4Net>,
}

impl DoctorArgs {
    fn subnets(&self) -> Vec<Ipv4Net> {
        if !self.subnets.is_empty() {
            return self.subnets.clone();
        }
        let networks = DEFAULT_NETWORKS.iter().map(|(_, base, _)| Ipv4Net::new_assert((*base).into(), 24));
        networks.chain([MeshSpec::default().subnet]).collect()
    }
}

/// Checks, prints, and says whether nothing failed. The disk that is looked at is that of `state`, the agent's state directory.
///
/// # Errors
/// The output cannot be written.
pub async fn run(args: &DoctorArgs, state: &Path) -> anyhow::Result<bool> {
    let findings = findings(args, state).await;
    let text = match args.output {
        Format::Table => finding::table(&findings),
        Format::Json => serde_json::to_string_pretty(&findings)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(findings.iter().all(|finding| finding.verdict != Verdict::Fail))
}

async fn findings(args: &DoctorArgs, state: &Path) -> Vec<Finding> {
    let facts = docker_facts::read(&args.docker).await;
    let networks: &[EngineNetwork] = facts.as_ref().map_or(&[], |facts| &facts.networks);
    let mut findings = engine::checks(&facts, &args.docker, &args.subnets());
    findings.extend(mesh::checks(args.mesh_port, args.gotatun.clone()).await);
    findings.extend(host::programs().await);
    findings.extend(host::kernel().await);
    findings.extend(host::overlaps(&args.subnets(), networks).await);
    for coordinator in &args.coordinators {
        findings.push(host::coordinator(coordinator).await);
    }
    findings.push(host::clock().await);
    findings.push(host::disk(state));
    findings.push(flush_time::flush_time(state));
    findings.extend(care::checks(Path::new("/")));
    let routes = run_program("ip", &["-j", "-4", "route", "show", "default"], "").await.unwrap_or_default();
    findings.push(care::uplink(Path::new("/"), &routes, args.mesh_mtu));
    // Without nft another check has failed already.
    let ruleset = run_program("nft", &["-s", "list", "ruleset"], "").await.unwrap_or_default();
    findings.push(care::firewall(&ruleset, args.mesh_port));
    findings
}
