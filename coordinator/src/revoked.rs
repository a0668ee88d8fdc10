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

#[cfg(test)]
mod tests {
    use muster_consensus::StateMachine as _;
    use muster_core::state::{Certificate, State};
    use muster_core::version::encode_state;
    use muster_model::ids::Name;
    use muster_model::time::Timestamp;
    use muster_runtime::certificate::Usage;
    use muster_runtime::identity::{Identity, Role};
    use muster_runtime::keys::Sha256Hex;

    use super::*;

    fn shown(serial: &str, key: &[u8]) -> PeerCertificate {
        let name = Name::new("eve").unwrap();
        PeerCertificate {
            identity: Identity { platform: name.clone(), role: Role::Admin, id: name.clone(), name },
            serial: serial.to_owned(),
            key: Sha256Hex::of(key),
            not_before: 0,
            not_after: u64::MAX,
            usage: Usage { server: false, client: true },
        }
    }

    #[test]
    fn a_renewed_certificate_of_a_revoked_key_is_revoked_too() {
        let row = |key: &[u8], revoked: Option<&str>| Certificate {
            subject: "muster://p/admin/eve".to_owned(),
            key_digest: Sha256Hex::of(key).to_string(),
            expires: Timestamp(0),
            revoked: revoked.map(str::to_owned),
        };
        let mut state = State::default();
        state.certificates.insert("01".to_owned(), row(b"lost", Some("stolen")));
        state.certificates.insert("02".to_owned(), row(b"lost", None));
        state.certificates.insert("03".to_owned(), row(b"kept", None));
        let mut replica = Replica::default();
        replica.restore(&encode_state(&state)).unwrap();
        let revoked = Revoked(replica);
        assert!(revoked.is_revoked(&shown("01", b"lost")));
        assert!(revoked.is_revoked(&shown("02", b"lost")));
        assert!(!revoked.is_revoked(&shown("03", b"kept")));
    }
}
