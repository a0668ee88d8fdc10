//! Applies the network of one host, given as JSON, and prints what is wrong. For trials in a testbed; no agent, no plan.
//!
//! `ensure NETWORK.json KEY_FILE [--every SECONDS]`, or `ensure --device` to hold the mesh device.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use muster_agent::network::{Network, device};
use muster_agent::runtime::docker_networks::DockerNetworks;
use muster_model::network::HostNetwork;

const PLATFORM: &str = "trial";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--device") {
        return device::serve(args.get(1).map(PathBuf::from)).await;
    }
    let [file, key, rest @ ..] = args.as_slice() else { anyhow::bail!("ensure NETWORK.json KEY_FILE") };
    let every = match rest {
        [flag, seconds] if flag == "--every" => Some(Duration::from_secs(seconds.parse()?)),
        _ => None,
    };
    let docker =
        bollard::Docker::connect_with_unix("/var/run/docker.sock", 30, bollard::API_DEFAULT_VERSION)?;
    let docker = docker.negotiate_version().await?;
    let mut network = Network::new(DockerNetworks::new(docker), PLATFORM.to_owned(), PathBuf::from(key));
    loop {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let plan: HostNetwork = serde_json::from_str(&text).context("not a HostNetwork")?;
        let start = Instant::now();
        let problems = network.ensure(&plan).await;
        println!("pass: {} ms, {} problems", start.elapsed().as_millis(), problems.len());
        for problem in problems {
            println!("  {} [{:?}]: {}", problem.code, problem.stops, problem.text);
        }
        let Some(every) = every else { return Ok(()) };
        tokio::time::sleep(every).await;
    }
}
