//! Keeps this coordinator's own certificate young, and its pins at the group's present keys.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use muster_core::command::{Command, What};
use muster_runtime::keys::NodeKey;
use muster_runtime::tasks::OnError;

use crate::home::{Home, Known, NodeFile};
use crate::run::Parts;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(1000);

/// Starts the task.
pub fn start(home: &Home, node: &NodeFile, parts: &Parts) {
    let (home, parts, mut node) = (home.clone(), parts.clone(), node.clone());
    node.has_log = true;
    let (tasks, stop) = (parts.tasks.clone(), parts.tasks.token());
    tasks.spawn("own certificate", OnError::Log, async move {
        let mut tick = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if let Err(error) = follow_group(&home, &mut node, &parts) {
                tracing::warn!(error = format!("{error:#}"), "the known coordinators could not be stored");
            }
            tell_name(&node, &parts).await;
            if let Err(error) = renew(&home, &parts).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the certificate could not be renewed, trying on"
                );
            }
        }
        Ok::<(), Infallible>(())
    });
}

/// A platform that was off for months starts again by the pinned keys: they must be on disk.
fn follow_group(home: &Home, node: &mut NodeFile, parts: &Parts) -> Result<()> {
    let members = parts.consensus.status().members;
    if members.is_empty() {
        return Ok(());
    }
    let known: Vec<Known> = members
        .into_iter()
        .map(|m| Known { node: m.node.id, endpoint: m.node.endpoint, key_digest: m.node.key })
        .collect();
    if known != node.known {
        node.known = known;
        parts.tls.pins().replace(node.known.iter().filter_map(|known| known.key_digest.parse().ok()));
        home.store_node(node)?;
    }
    Ok(())
}

/// Raft knows only numbers and addresses. It is told once, and again after an upgrade from a version that did not.
async fn tell_name(node: &NodeFile, parts: &Parts) {
    let member = parts.consensus.status().members.iter().any(|member| member.node.id == node.node);
    let known = parts.replica.state().coordinators.get(&node.node) == Some(&node.name);
    if !member || known || parts.consensus.leader().is_none() {
        return;
    }
    let what = What::NameCoordinator { node: node.node, name: node.name.clone() };
    if let Err(error) = parts.proposer.propose(&Command::internal(what)).await {
        tracing::debug!(%error, "the others do not know this coordinator's name yet");
    }
}

async fn renew(home: &Home, parts: &Parts) -> Result<()> {
    let Some(credentials) = parts.tls.credentials() else { return Ok(()) };
    let certificate = credentials.certificate();
    if parts.clock.now_ms() < certificate.renew_at_ms() || parts.consensus.leader().is_none() {
        return Ok(());
    }
    let key = NodeKey::load(&home.path("node.key"))?;
    let who = certificate.identity.clone();
    let issued = parts.authority.issue(&key.csr(&who.name)?, &who, &who.to_string()).await?;
    home.store_certificate(&issued.pem, parts.authority.ca_pem())?;
    parts.tls.rotate(home.credentials()?);
    tracing::info!(serial = issued.certificate.serial, "own certificate renewed");
    Ok(())
}
