//! Which certificates were revoked, as the replicated state says.

use muster_runtime::access::Revocations;
use muster_runtime::certificate::PeerCertificate;

use crate::replica::Replica;

/// Reads the state of this node.
#[derive(Debug)]
pub struct Revoked(pub Replica);

impl Revocations for Revoked {
    fn is_revoked(&self, certificate: &PeerCertificate) -> bool {
        let state = self.0.state();
        let key = certificate.key.as_str();
        // A thief who has renewed holds a newer certificate of the same key: the key is what was lost.
        let mut of_key = state.certificates.values().filter(|row| row.key_digest == key);
        of_key.any(|row| row.revoked.is_some())
    }
}
