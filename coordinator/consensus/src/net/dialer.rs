//! How connections to peers are made; the coordinator implements it with TLS and pinned keys.

use std::future::Future;
use std::pin::Pin;

use tonic::transport::Channel;

use crate::types::Node;

/// Why no connection was made, in words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);

/// Makes connections to peers.
pub trait Dialer: Send + Sync + 'static {
    /// A connected channel to the node, whose key must be `node.key`. The caller puts a deadline
    /// on it. The socket needs TCP_NODELAY, on the accepting side too: small appends would wait for
    /// delayed acknowledgements. The channel should notice a dead peer by keepalive within seconds.
    fn dial(&self, node: &Node) -> Pin<Box<dyn Future<Output = Result<Channel, DialError>> + Send>>;
}
