//! How coordinators reach each other: mTLS to the key that the membership names.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use muster_consensus::{DialError, Dialer, Node};
use muster_runtime::dial::connect_to;
use muster_runtime::tls::Tls;
use tonic::transport::Channel;

/// Dials with this coordinator's certificate.
pub struct TlsDialer(pub Arc<Tls>);

impl Dialer for TlsDialer {
    fn dial(&self, node: &Node) -> Pin<Box<dyn Future<Output = Result<Channel, DialError>> + Send>> {
        let (tls, node) = (self.0.client_config(), node.clone());
        Box::pin(async move {
            let tls = tls.map_err(|error| DialError(error.to_string()))?;
            let key =
                node.key.parse().map_err(|_| DialError(format!("{} has no usable key", node.endpoint)))?;
            connect_to(&node.endpoint, &key, tls).await.map_err(|error| DialError(error.to_string()))
        })
    }
}
