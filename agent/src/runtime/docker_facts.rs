//! What a Docker Engine says of itself, for the doctor. Reads only.

use std::time::Duration;

use bollard::Docker;
use ipnet::Ipv4Net;

use super::docker_networks::DockerNetworks;
use crate::network::engine::{EngineNetwork, NetworkEngine};

/// Longest time for all questions.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pools from which an engine takes subnets when nothing else is configured.
const BUILT_IN_POOLS: [&str; 2] = ["172.16.0.0/12", "192.168.0.0/16"];

/// Version, settings and networks of an engine.
#[derive(Debug, Clone)]
pub struct EngineFacts {
    /// Version of the engine.
    pub version: String,
    /// Newest API version that it speaks, for example `1.41`.
    pub api: String,
    /// Containers go on while it restarts.
    pub live_restore: bool,
    /// `iptables`, `nftables` or empty where it does not say.
    pub firewall: String,
    /// Version of runc.
    pub runc: String,
    /// Where its data is.
    pub root: String,
    /// It runs without root, in a user's name space.
    pub rootless: bool,
    /// Where it takes subnets from by itself.
    pub pools: Vec<Ipv4Net>,
    /// All its networks.
    pub networks: Vec<EngineNetwork>,
}

/// Asks the engine behind a unix socket.
///
/// # Errors
/// One sentence: not reachable, too slow, or what it answered.
pub async fn read(socket: &str) -> Result<EngineFacts, String> {
    let asked = async {
        let docker = Docker::connect_with_unix(socket, DEADLINE.as_secs(), bollard::API_DEFAULT_VERSION)?;
        let docker = docker.negotiate_version().await?;
        let (version, info) = (docker.version().await?, docker.info().await?);
        Ok::<_, bollard::errors::Error>((docker, version, info))
    };
    let (docker, version, info) = tokio::time::timeout(DEADLINE, asked)
        .await
        .map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?
        .map_err(|error| error.to_string())?;
    let networks = DockerNetworks::new(docker).networks().await.map_err(|error| error.to_string())?;
    let configured = info.default_address_pools.unwrap_or_default().into_iter().filter_map(|pool| pool.base);
    let mut pools: Vec<Ipv4Net> = configured.filter_map(|base| base.parse().ok()).collect();
    if pools.is_empty() {
        pools = BUILT_IN_POOLS.iter().filter_map(|pool| pool.parse().ok()).collect();
    }
    let runc = version.components.unwrap_or_default().into_iter().find(|part| part.name == "runc");
    Ok(EngineFacts {
        version: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
        live_restore: info.live_restore_enabled.unwrap_or_default(),
        firewall: info.firewall_backend.and_then(|backend| backend.driver).unwrap_or_default(),
        runc: runc.map(|part| part.version).unwrap_or_default(),
        root: info.docker_root_dir.unwrap_or_default(),
        rootless: info.security_options.unwrap_or_default().iter().any(|option| option == "name=rootless"),
        pools,
        networks,
    })
}
