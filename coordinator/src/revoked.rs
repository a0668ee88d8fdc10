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
        state.certificates.get(&certificate.serial).is_some_and(|row| row.revoked.is_some())
    }
}
