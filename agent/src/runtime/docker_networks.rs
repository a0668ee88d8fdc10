//! Networks of the Docker Engine over its API. Translates and waits no longer than its deadline; decides nothing.

use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};

use crate::network::engine::{EngineError, EngineNetwork, NetworkEngine};

/// Longest time for one call.
const DEADLINE: Duration = Duration::from_secs(20);

/// The engine's networks.
#[derive(Debug, Clone)]
pub struct DockerNetworks {
    docker: Docker,
}

impl DockerNetworks {
    /// Over a client that exists.
    #[must_use]
    pub const fn new(docker: Docker) -> Self {
        Self { docker }
    }
}

impl NetworkEngine for DockerNetworks {
    async fn networks(&self) -> Result<Vec<EngineNetwork>, EngineError> {
        let all = within(self.docker.list_networks(None)).await?;
        Ok(all.into_iter().map(read).collect())
    }

    async fn create_network(&self, wanted: &EngineNetwork) -> Result<(), EngineError> {
        let config = IpamConfig {
            subnet: wanted.subnets.first().map(ToString::to_string),
            ip_range: wanted.range.map(|range| range.to_string()),
            gateway: wanted.gateway.map(|gateway| gateway.to_string()),
            auxiliary_addresses: None,
        };
        let request = NetworkCreateRequest {
            name: wanted.name.clone(),
            driver: Some(wanted.driver.clone()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            options: Some(wanted.options.clone().into_iter().collect()),
            labels: Some(wanted.labels.clone().into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        within(self.docker.create_network(request)).await.map(|_| ())
    }

    async fn remove_network(&self, id: &str) -> Result<(), EngineError> {
        within(self.docker.remove_network(id)).await
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EngineError(error.to_string())),
        Err(_) => Err(EngineError(format!("the engine did not answer within {} s", DEADLINE.as_secs()))),
    }
}

fn read(network: Network) -> EngineNetwork {
    let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let parsed = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    EngineNetwork {
        id: network.id.unwrap_or_default(),
        name: network.name.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        labels: network.labels.unwrap_or_default().into_iter().collect(),
        subnets: configs.iter().filter_map(|config| parsed(config.subnet.as_ref())).collect(),
        gateway: configs.first().and_then(|config| config.gateway.as_ref()?.parse().ok()),
        range: configs.first().and_then(|config| config.ip_range.as_ref()?.parse().ok()),
        options: network.options.unwrap_or_default().into_iter().collect(),
    }
}
