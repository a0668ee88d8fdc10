//! Which certificates services show to their clients: for what names, and when a new one is due. Makes none.

use std::collections::BTreeSet;

use muster_model::ids::Name;
use muster_model::plan::next_secret;
use muster_model::time::Timestamp;

use crate::facts::{child_peers, kind_of, peers_of};
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Peer, rotate};
use crate::state::{OperationKind, Service, State};

/// A certificate to be made, with a new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNeed {
    /// Under which name it is stored.
    pub secret: String,
    /// Whom it names first.
    pub service: Name,
    /// Names and addresses that clients may use.
    pub names: BTreeSet<String>,
    /// The version that it replaces; 0 = there is none.
    pub replaces: u64,
}

/// Certificates that are missing, name other members than there are, or are to be renewed.
#[must_use]
pub fn needed_certificates(state: &State, now: Timestamp) -> Vec<CertificateNeed> {
    let wanted = state.services.iter().filter(|(_, service)| service.removing.is_none());
    wanted.filter_map(|(name, service)| needed(state, name, service, now)).collect()
}

/// Whether a secret, or its next value, is a certificate with its key.
#[must_use]
pub fn is_certificate(state: &State, secret: &str) -> bool {
    let name = secret.split('@').next().unwrap_or(secret);
    let of = |(service, row): (&Name, &Service)| shows_one(row) && tls::secret(service) == name;
    state.services.iter().any(of)
}

fn shows_one(service: &Service) -> bool {
    kind_of(service).is_some_and(|kind| kind.tls(&service.spec) != Tls::None)
}

fn needed(state: &State, name: &Name, service: &Service, now: Timestamp) -> Option<CertificateNeed> {
    let peers = peers_of(state, name);
    if !shows_one(service) || peers.is_empty() {
        return None;
    }
    let (secret, names) = (tls::secret(name), names(state, name, &peers));
    let need = |secret: String, replaces| {
        Some(CertificateNeed { secret, service: name.clone(), names: names.clone(), replaces })
    };
    let next = next_secret(&secret);
    let asked_for =
        state.operations.values().filter(|operation| operation.outcome.is_none()).any(|operation| {
            let OperationKind::Procedure(procedure) = &operation.kind else { return false };
            rotate::to_make(procedure, &state.secrets).contains(&next)
        });
    if asked_for {
        return need(next, 0);
    }
    let Some(row) = state.secrets.get(&secret) else { return need(secret, 0) };
    let good = row.certificate.as_ref().is_some_and(|note| note.names == names && note.renew > now);
    // An operator's wish is under way: what it brings is newer.
    if good || state.secrets.contains_key(&next) {
        return None;
    }
    need(secret, row.version)
}

/// Members and proxies by name and address. Nobody else's: an address may belong to another service later.
fn names(state: &State, service: &Name, peers: &[Peer]) -> BTreeSet<String> {
    let mut names = BTreeSet::from([service.to_string()]);
    let mut add = |owner: &str, peers: &[Peer]| {
        for peer in peers {
            names.insert(format!("{owner}-{}", peer.slot));
            names.extend(peer.addresses.values().map(ToString::to_string));
        }
    };
    add(service.as_str(), peers);
    let children = child_peers(state, service);
    let proxies = children.iter().filter(|(role, _)| role.as_str() == "proxy");
    for (role, peers) in proxies {
        add(&format!("{service}-{role}"), peers);
    }
    names
}
