//! Everything in a Docker Engine that carries our label, for the end of a host's life.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};

use super::LABEL_PLATFORM;
use super::docker_networks::DockerNetworks;
use crate::network::engine::{EngineNetwork, NetworkEngine};

/// Longest time for one call: a container that is killed may have much to write.
const DEADLINE: Duration = Duration::from_secs(60);

/// An engine with what is ours in it.
pub struct Leftovers {
    docker: Docker,
    /// Id and name of every container, one-shot ones too.
    pub containers: Vec<(String, String)>,
    /// Networks.
    pub networks: Vec<EngineNetwork>,
}

impl Leftovers {
    /// Looks, and changes nothing.
    ///
    /// # Errors
    /// One sentence: the engine does not answer, or what it said.
    pub async fn find(socket: &str) -> Result<Self, String> {
        let socket = socket.strip_prefix("unix://").unwrap_or(socket);
        let docker = Docker::connect_with_unix(socket, DEADLINE.as_secs(), bollard::API_DEFAULT_VERSION);
        let docker = docker.map_err(|error| error.to_string())?;
        let docker = within(docker.negotiate_version()).await?;
        let filters = HashMap::from([("label".to_owned(), vec![LABEL_PLATFORM.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let listed = within(docker.list_containers(Some(options))).await?;
        let named = listed.into_iter().filter_map(|container| {
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            Some((container.id?, name.trim_start_matches('/').to_owned()))
        });
        let containers = named.collect();
        let networks = DockerNetworks::new(docker.clone()).networks().await;
        let mut networks = networks.map_err(|error| error.to_string())?;
        networks.retain(|network| network.platform().is_some());
        Ok(Self { docker, containers, networks })
    }

    /// Kills and removes a container, with the volumes that the engine made for it.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn remove_container(&self, id: &str) -> Result<(), String> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        within(self.docker.remove_container(id, Some(options))).await
    }

    /// Removes a network.
    ///
    /// # Errors
    /// What the engine said, for example that somebody else uses it.
    pub async fn remove_network(&self, id: &str) -> Result<(), String> {
        within(self.docker.remove_network(id)).await
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}
