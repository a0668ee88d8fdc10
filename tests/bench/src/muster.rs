//! Three coordinators; a write is a host's new scheduling, as `muster host cordon` makes it, over mutual TLS.

use anyhow::{Context as _, Result};
use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_proto::control::SetSchedulingRequest;
use muster_proto::control::control_client::ControlClient;
use tonic::transport::Channel;

use crate::side::{Side, Writer};

const HOST: &str = "bench";

/// The coordinators.
pub struct Muster {
    cluster: Cluster,
}

impl Muster {
    /// Three of them, and a host to write about.
    ///
    /// # Errors
    /// The host cannot join.
    pub async fn up() -> Result<Self> {
        let cluster = Cluster::three().await;
        let token = cluster.token("host").await;
        Agent::join(cluster.nodes[0].address, &token, HOST, &cluster.clock).await?;
        Ok(Self { cluster })
    }
}

impl Side for Muster {
    type Writer = Operator;

    fn name(&self) -> &'static str {
        "muster"
    }

    async fn writer(&self, member: usize) -> Result<Operator> {
        let operator = self.cluster.operator(member);
        Ok(Operator { control: ControlClient::new(operator.channel()), open: false })
    }

    async fn leader(&self) -> Result<usize> {
        let running = self.cluster.nodes.iter().position(|node| node.pid().is_some());
        let view = self.cluster.operator(running.context("none runs")?).status().await?;
        let leader = view.coordinators.iter().find(|one| one.leader).context("none leads")?;
        let at = self.cluster.nodes.iter().position(|node| node.address.to_string() == leader.endpoint);
        at.context("a stranger leads")
    }

    async fn kill(&mut self, member: usize) -> Result<()> {
        self.cluster.nodes[member].kill().await;
        Ok(())
    }

    fn start(&mut self, member: usize) -> Result<()> {
        self.cluster.nodes[member].start();
        Ok(())
    }
}

/// An operator who cordons and uncordons.
pub struct Operator {
    control: ControlClient<Channel>,
    open: bool,
}

impl Writer for Operator {
    async fn write(&mut self) -> Result<()> {
        self.open = !self.open;
        let scheduling = if self.open { "open" } else { "cordoned" };
        let request = SetSchedulingRequest {
            host: HOST.to_owned(),
            scheduling: scheduling.to_owned(),
            ..SetSchedulingRequest::default()
        };
        self.control.set_scheduling(request).await?;
        Ok(())
    }
}
