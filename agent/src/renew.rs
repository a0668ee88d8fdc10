//! Renews the certificate in time, and an expired one too: it tries for ever, because nothing else could help.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::identity::RenewRequest;
use muster_proto::identity::identity_client::IdentityClient;
use muster_runtime::clock::SharedClock;
use muster_runtime::dial;
use muster_runtime::rpc;
use muster_runtime::tasks::TaskGroup;
use muster_runtime::tls::Credentials;

use crate::enroll::hello;
use crate::identity_dir::{Coordinator, Link};

/// Longest sleep, because the wall clock can be set while we sleep.
const LOOK: Duration = Duration::from_secs(1);
/// First and longest wait between two attempts.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Runs until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn run(link: Arc<Link>, clock: SharedClock, group: TaskGroup) -> Result<(), Infallible> {
    group.token().run_until_cancelled(keep_valid(&link, &clock)).await;
    Ok(())
}

async fn keep_valid(link: &Link, clock: &SharedClock) {
    let mut wait = AGAIN.0;
    loop {
        let due =
            link.tls.credentials().is_none_or(|ours| ours.certificate().renew_at_ms() <= clock.now_ms());
        if !due {
            wait = AGAIN.0;
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match renew(link).await {
            Ok(()) => tracing::info!("certificate renewed"),
            Err(error) => tracing::warn!(%error, "certificate cannot be renewed yet"),
        }
        // After a success too: with a clock ahead of the coordinators' the new one is due at once.
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

async fn renew(link: &Link) -> anyhow::Result<()> {
    let key = link.dir.key()?;
    let channel = dial::channel(Arc::clone(&link.endpoints), link.tls.client_config()?);
    let mut client = IdentityClient::new(channel).max_decoding_message_size(rpc::MESSAGE_MAX);
    rpc::within(rpc::CALL, client.hello(hello())).await?;
    let request = RenewRequest { csr_pem: key.csr(&link.name)? };
    let reply = rpc::within(rpc::CALL, client.renew(request)).await?.into_inner();
    let credentials = Credentials::new(&key, &reply.certificate_pem, &reply.ca_pem)?;
    link.tls.trust().replace(&[&reply.ca_pem])?;
    link.dir.store_certificate(&reply.certificate_pem, &reply.ca_pem)?;
    link.tls.rotate(credentials);
    let coordinators = reply.coordinators.into_iter();
    link.learn(
        coordinators
            .map(|endpoint| Coordinator { address: endpoint.address, key: endpoint.key_digest.parse().ok() })
            .collect(),
    )?;
    Ok(())
}
