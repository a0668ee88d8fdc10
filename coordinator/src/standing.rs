//! Whether this process still is what its directory says: a coordinator of the platform, and the only one with this
//! directory. Raft does not tell a member that it was taken out, so the others are asked.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, bail};
use muster_consensus::Consensus;
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::identity::{HelloReply, HelloRequest};
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::dial::connect_to;
use muster_runtime::keys::KeyDigest;
use muster_runtime::rpc;
use muster_runtime::tls::Tls;
use tonic::Code;

use crate::home::{Home, NodeFile};
use crate::rpc::identity::PROGRAM;
use crate::run::Parts;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Longest wait for one coordinator.
const WAIT: Duration = Duration::from_millis(1_200);

/// What a coordinator answered.
#[derive(Debug)]
pub enum Answered {
    /// It greets.
    Hello(Box<HelloReply>),
    /// It says that our certificate was revoked.
    Revoked,
    /// Nothing, or nothing that counts.
    Nothing,
}

/// Asks the coordinator with this key.
pub async fn hello(endpoint: &str, key: &str, tls: &Tls) -> Answered {
    let (Ok(key), Ok(config)) = (key.parse::<KeyDigest>(), tls.client_config()) else {
        return Answered::Nothing;
    };
    let request = HelloRequest {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: Vec::new(),
        program: PROGRAM.to_owned(),
    };
    let ask = async {
        let channel = connect_to(endpoint, &key, config).await.ok()?;
        Some(rpc::within(WAIT, IdentityClient::new(channel).hello(request)).await)
    };
    match tokio::time::timeout(WAIT, ask).await {
        Ok(Some(Ok(reply))) => Answered::Hello(Box::new(reply.into_inner())),
        Ok(Some(Err(status))) if status.code() == Code::PermissionDenied => {
            if status.message().contains("was revoked") { Answered::Revoked } else { Answered::Nothing }
        }
        _ => Answered::Nothing,
    }
}

/// Before anything is served: nobody answers at our address with our key, unless the directory is used twice.
///
/// # Errors
/// Somebody does.
pub async fn refuse_double(home: &Home, node: &NodeFile, tls: &Tls) -> Result<()> {
    let key = home.key()?.digest().to_string();
    if let Answered::Hello(_) = hello(&node.advertise.to_string(), &key, tls).await {
        bail!(double(home, node));
    }
    Ok(())
}

fn double(home: &Home, node: &NodeFile) -> String {
    format!(
        "another process answers at {} as coordinator {} ({}), with the key of {}: this directory is in use on two \
         machines. A copy of it must not run, it could vote twice. Stop the copy and delete its directory; a further \
         coordinator joins with `muster-coordinator join` in an empty one",
        node.advertise,
        node.name,
        node.node,
        home.path("").display()
    )
}

/// Said in the log when the address that others use is none of this machine's. Behind a translation that is right.
pub fn warn_of_foreign_address(node: &NodeFile) {
    if UdpSocket::bind((node.advertise.ip(), 0)).is_err() {
        tracing::warn!(
            address = %node.advertise,
            "others reach this coordinator at an address that this machine does not have: if the host got a new address, \
             remove this coordinator and join a new one (docs/tasks/coordinators.md)"
        );
    }
}

/// How this process ceases to be a coordinator.
#[derive(Debug)]
pub enum Lost {
    /// It was taken out, or its certificate was revoked.
    Removed(String),
    /// It must not go on as it is.
    Unfit(String),
}

/// Resolves when this process must stop being a coordinator.
pub async fn lost(home: &Home, node: &NodeFile, parts: &Parts) -> Lost {
    let mut turn = 0;
    loop {
        match look(home, node, parts, turn).await {
            Ok(Some(lost)) => return lost,
            Ok(None) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "not known whether this still is one"),
        }
        turn += 1;
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(home: &Home, node: &NodeFile, parts: &Parts, turn: usize) -> Result<Option<Lost>> {
    let members = parts.consensus.status().members;
    let own = members.iter().find(|member| member.node.id == node.node);
    if let Some(own) = own.filter(|own| own.node.endpoint != node.advertise.to_string()) {
        return Ok(Some(Lost::Unfit(format!(
            "{} says that this coordinator is at {}, but the others know it at {}: an address is not changed by hand. \
             Remove it and join a new one: docs/tasks/coordinators.md",
            home.path("identity/node.json").display(),
            node.advertise,
            own.node.endpoint
        ))));
    }
    let key = home.key()?.digest().to_string();
    if let Answered::Hello(reply) = hello(&node.advertise.to_string(), &key, &parts.tls).await
        && reply.run != parts.run
    {
        return Ok(Some(Lost::Unfit(double(home, node))));
    }
    let others = others(node, &parts.consensus);
    let Some((endpoint, key)) = others.get(turn % others.len().max(1)) else { return Ok(None) };
    if let Answered::Revoked = hello(endpoint, key, &parts.tls).await {
        return Ok(Some(Lost::Removed(format!(
            "coordinator {} ({}) was removed from platform {}, says the one at {endpoint}. It stops and does not start \
             again under this identity; to let this host be one again: move {} away, then `muster-coordinator join`",
            node.name,
            node.node,
            node.platform,
            home.path("").display()
        ))));
    }
    Ok(None)
}

/// Those of the group, and those that were known at the last start: one that was away for long knows only the latter.
fn others(node: &NodeFile, consensus: &Consensus) -> Vec<(String, String)> {
    let present = consensus.status().members.into_iter().map(|m| (m.node.id, m.node.endpoint, m.node.key));
    let before = node.known.iter().map(|k| (k.node, k.endpoint.clone(), k.key_digest.clone()));
    let mut all: Vec<_> = present.chain(before).filter(|(id, ..)| *id != node.node).collect();
    all.sort();
    all.dedup();
    all.into_iter().map(|(_, endpoint, key)| (endpoint, key)).collect()
}
