//! All open connections of a server: how many there may be, and which must go. Knows nothing about requests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Peer;
use crate::access::Revocations;

/// How much a server lets in at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one key: a host that was taken over cannot crowd out the others.
    pub per_key: usize,
    /// Connections without certificate.
    pub anonymous: usize,
    /// How long a connection without certificate may stay.
    pub anonymous_age: Duration,
    /// Handshakes going on, in all.
    pub handshakes: usize,
    /// Handshakes going on, from one address.
    pub handshakes_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            per_key: 64,
            anonymous: 128,
            anonymous_age: Duration::from_secs(60),
            handshakes: 512,
            handshakes_per_address: 128,
        }
    }
}

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Entry>,
    handshakes: BTreeMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    close: CancellationToken,
    opened: Duration,
    expired_when_opened: bool,
}

/// A connection's place in the list; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    /// Cancelled when the connection must go.
    pub close: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.state().open.remove(&self.id);
    }
}

/// A handshake's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        if let Some(count) = state.handshakes.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.handshakes.remove(&self.address);
            }
        }
    }
}

impl Connections {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a handshake begin, unless there are too many.
    pub fn begin_handshake(self: &Arc<Self>, address: IpAddr) -> Option<Handshake> {
        let mut state = self.state();
        let all: usize = state.handshakes.values().sum();
        let here = state.handshakes.entry(address).or_default();
        if all >= self.limits.handshakes || *here >= self.limits.handshakes_per_address {
            if *here == 0 {
                state.handshakes.remove(&address);
            }
            return None;
        }
        *here += 1;
        Some(Handshake { connections: Arc::clone(self), address })
    }

    /// Lets a connection in, or says why not. `now` is wall (unix ms) and monotonic time.
    pub fn admit(self: &Arc<Self>, peer: &Peer, now: (u64, Duration)) -> Result<Place, &'static str> {
        let mut state = self.state();
        if state.open.len() >= self.limits.connections {
            return Err("too many connections");
        }
        let key = peer.certificate.as_ref().map(|certificate| &certificate.key);
        let alike =
            state.open.values().filter(|e| e.peer.certificate.as_ref().map(|c| &c.key) == key).count();
        if key.is_none() && alike >= self.limits.anonymous {
            return Err("too many connections without certificate");
        }
        if key.is_some() && alike >= self.limits.per_key {
            return Err("too many connections with the same key");
        }
        state.next += 1;
        let id = state.next;
        let close = CancellationToken::new();
        let entry = Entry {
            peer: peer.clone(),
            close: close.clone(),
            opened: now.1,
            expired_when_opened: peer.certificate.as_ref().is_some_and(|c| c.expired(now.0)),
        };
        state.open.insert(id, entry);
        Ok(Place { connections: Arc::clone(self), id, close })
    }

    /// Closes what must go: revoked, expired since it was opened, anonymous for too long. One that was expired when it
    /// was opened stays: the access table lets it do next to nothing, and that must not be interrupted.
    pub fn sweep(&self, revocations: &dyn Revocations, now: (u64, Duration)) {
        for entry in self.state().open.values() {
            let reason = match &entry.peer.certificate {
                None if now.1.saturating_sub(entry.opened) > self.limits.anonymous_age => {
                    "without certificate for too long"
                }
                Some(certificate) if revocations.is_revoked(certificate) => "revoked",
                Some(certificate) if certificate.expired(now.0) && !entry.expired_when_opened => "expired",
                _ => continue,
            };
            if !entry.close.is_cancelled() {
                tracing::info!(peer = %entry.peer, reason, "connection closed");
                entry.close.cancel();
            }
        }
    }

    /// Closes everything.
    pub fn close_all(&self) {
        for entry in self.state().open.values() {
            entry.close.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(port: u16) -> Peer {
        Peer { address: ([127, 0, 0, 1], port).into(), certificate: None }
    }

    #[derive(Debug)]
    struct Nothing;
    impl Revocations for Nothing {
        fn is_revoked(&self, _: &crate::certificate::PeerCertificate) -> bool {
            false
        }
    }

    #[test]
    fn anonymous_connections_are_few_and_short() {
        let connections = Connections::new(Limits { anonymous: 2, ..Limits::default() });
        let now = (0, Duration::from_secs(100));
        let first = connections.admit(&anonymous(1), now).unwrap();
        let second = connections.admit(&anonymous(2), now).unwrap();
        assert!(connections.admit(&anonymous(3), now).is_err());
        drop(second);
        let third = connections.admit(&anonymous(3), (0, Duration::from_secs(150))).unwrap();
        connections.sweep(&Nothing, (0, Duration::from_secs(161)));
        assert!(first.close.is_cancelled() && !third.close.is_cancelled());
    }

    #[test]
    fn who_was_expired_from_the_start_may_stay_to_renew() {
        let name = |text| muster_model::ids::Name::new(text).unwrap();
        let identity = crate::identity::Identity {
            platform: name("shop"),
            role: crate::identity::Role::Agent,
            id: name("x1"),
            name: name("x1"),
        };
        let certificate = crate::certificate::PeerCertificate {
            identity,
            serial: "01".into(),
            key: crate::keys::Sha256Hex::of(b"key"),
            not_before: 0,
            not_after: 100,
            usage: crate::certificate::Usage { server: false, client: true },
        };
        let peer = Peer { certificate: Some(Arc::new(certificate)), ..anonymous(1) };
        let connections = Connections::new(Limits::default());
        let early = connections.admit(&peer, (100_999, Duration::ZERO)).unwrap();
        let late = connections.admit(&peer, (101_000, Duration::ZERO)).unwrap();
        connections.sweep(&Nothing, (200_000, Duration::ZERO));
        assert!(early.close.is_cancelled() && !late.close.is_cancelled());
    }

    #[test]
    fn one_address_cannot_hold_all_handshakes() {
        let limits = Limits { handshakes: 3, handshakes_per_address: 2, ..Limits::default() };
        let connections = Connections::new(limits);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let held: Vec<_> = (0..2).map(|_| connections.begin_handshake(a).unwrap()).collect();
        assert!(connections.begin_handshake(a).is_none());
        let _other = connections.begin_handshake(b).unwrap();
        assert!(connections.begin_handshake(b).is_none());
        drop(held);
        assert!(connections.begin_handshake(a).is_some());
    }
}
