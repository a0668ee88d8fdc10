//! Who may call what: one table, default deny, in front of every service. What an identity may do *within* a method
//! (an agent only for its own host) is the method's business.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::audit::{Audit, Refusal};
use crate::certificate::PeerCertificate;
use crate::clock::SharedClock;
use crate::identity::{Identity, Role};
use crate::server::Peer;
use crate::tls::PinnedKeys;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    Roles(&'static [Role]),
}

/// Whether an expired certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expired {
    Refused,
    Accepted,
    AcceptedIfPinned,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    who: Who,
    expired: Expired,
}

impl Rule {
    /// Everybody, with or without certificate; only a revoked one is refused. For `Hello` and `Join`.
    #[must_use]
    pub const fn anyone() -> Self {
        Self { who: Who::Anyone, expired: Expired::Refused }
    }

    /// Only these roles.
    #[must_use]
    pub const fn roles(roles: &'static [Role]) -> Self {
        Self { who: Who::Roles(roles), expired: Expired::Refused }
    }

    /// Also with an expired certificate. For `Renew`.
    #[must_use]
    pub const fn even_expired(self) -> Self {
        Self { expired: Expired::Accepted, ..self }
    }

    /// Also with an expired certificate, if its key is pinned. For Raft between coordinators.
    #[must_use]
    pub const fn even_expired_if_pinned(self) -> Self {
        Self { expired: Expired::AcceptedIfPinned, ..self }
    }
}

/// Which method may be called by whom.
#[derive(Debug, Clone)]
pub struct AccessTable(BTreeMap<&'static str, Rule>);

/// Two rows say different things about one method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("access table has two rows for {0}")]
pub struct DuplicateRow(&'static str);

impl AccessTable {
    /// Makes a table of rows (`/package.Service/Method`, rule). What has no row may be called by nobody.
    ///
    /// # Errors
    /// A method has two rows.
    pub fn new(rows: &[(&'static str, Rule)]) -> Result<Self, DuplicateRow> {
        let mut table = BTreeMap::new();
        for (method, rule) in rows {
            if table.insert(*method, *rule).is_some() {
                return Err(DuplicateRow(method));
            }
        }
        Ok(Self(table))
    }

    /// The methods that have a row.
    pub fn methods(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

/// Which certificates no longer count although their time is not up.
pub trait Revocations: fmt::Debug + Send + Sync {
    /// Whether this serial, or the identity as a whole, was revoked. Called for every request: must be quick.
    fn is_revoked(&self, certificate: &PeerCertificate) -> bool;
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody may call it, probably because it does not exist.
    #[error("no such method")]
    Unknown,
    /// A certificate is needed.
    #[error("needs a certificate of this platform")]
    Anonymous,
    /// The certificate or identity was revoked.
    #[error("certificate of {0} was revoked")]
    Revoked(Identity),
    /// The certificate has expired.
    #[error("certificate of {0} has expired: renew it")]
    Expired(Identity),
    /// The role is not among those allowed.
    #[error("{who} may not call this, only {}", allowed(.roles))]
    Role {
        /// Who called.
        who: Identity,
        /// Who may.
        roles: &'static [Role],
    },
}

fn allowed(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

impl Denied {
    fn status(&self, method: &str) -> Status {
        let code = match self {
            Self::Anonymous | Self::Expired(_) => Code::Unauthenticated,
            Self::Unknown | Self::Revoked(_) | Self::Role { .. } => Code::PermissionDenied,
        };
        Status::new(code, format!("{method}: {self}"))
    }
}

/// The table with everything it asks.
#[derive(Debug)]
pub struct Access {
    /// Who may call what.
    pub table: AccessTable,
    /// What was revoked.
    pub revocations: Arc<dyn Revocations>,
    /// The coordinators' keys.
    pub pins: Arc<PinnedKeys>,
    /// The time.
    pub clock: SharedClock,
    /// Who is told of refusals.
    pub audit: Arc<dyn Audit>,
}

impl Access {
    /// Decides about one call. `Ok(None)`: anonymous, and welcome.
    ///
    /// # Errors
    /// Why not.
    pub fn decide(
        &self,
        method: &str,
        certificate: Option<&PeerCertificate>,
    ) -> Result<Option<Identity>, Denied> {
        let rule = self.table.0.get(method).ok_or(Denied::Unknown)?;
        let Some(certificate) = certificate else {
            return if rule.who == Who::Anyone { Ok(None) } else { Err(Denied::Anonymous) };
        };
        let identity = &certificate.identity;
        if self.revocations.is_revoked(certificate) {
            return Err(Denied::Revoked(identity.clone()));
        }
        let in_force = match rule.expired {
            _ if !certificate.expired(self.clock.now_ms()) => true,
            Expired::Refused => false,
            Expired::Accepted => true,
            Expired::AcceptedIfPinned => self.pins.contains(&certificate.key),
        };
        match rule.who {
            // An expired certificate is worth no more than none.
            Who::Anyone => Ok(in_force.then(|| identity.clone())),
            Who::Roles(_) if !in_force => Err(Denied::Expired(identity.clone())),
            Who::Roles(roles) if !roles.contains(&identity.role) => {
                Err(Denied::Role { who: identity.clone(), roles })
            }
            Who::Roles(_) => Ok(Some(identity.clone())),
        }
    }

    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<(), Status> {
        let method = request.uri().path();
        // No `Peer` means that the connection did not come through `server`: nothing is known about it.
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Err(Status::internal("connection without peer information"));
        };
        match self.decide(method, peer.certificate.as_deref()) {
            Ok(identity) => {
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                Ok(())
            }
            Err(denied) => {
                let method: String = method.chars().take(200).collect();
                let status = denied.status(&method);
                self.audit.refused(&Refusal {
                    address: peer.address,
                    identity: peer.certificate.as_ref().map(|c| c.identity.clone()),
                    method: Some(method),
                    reason: denied.to_string(),
                });
                Err(status)
            }
        }
    }
}

/// Who calls, in a method that needs an identity.
///
/// # Errors
/// `UNAUTHENTICATED` if the caller is anonymous.
pub fn identity<T>(request: &tonic::Request<T>) -> Result<&Identity, Status> {
    request
        .extensions()
        .get::<Identity>()
        .ok_or_else(|| Status::unauthenticated("needs a certificate of this platform"))
}

/// The certificate behind the connection of a call, expired or not.
///
/// # Errors
/// `UNAUTHENTICATED` if there is none.
pub fn certificate<T>(request: &tonic::Request<T>) -> Result<&PeerCertificate, Status> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.certificate.as_deref())
        .ok_or_else(|| Status::unauthenticated("needs a certificate of this platform"))
}

/// Puts the table in front of all services of a server.
#[derive(Debug, Clone)]
pub struct AccessLayer(Arc<Access>);

impl AccessLayer {
    /// For `tonic::transport::Server::layer`.
    #[must_use]
    pub const fn new(access: Arc<Access>) -> Self {
        Self(access)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: Arc::clone(&self.0), inner }
    }
}

/// A service behind the table.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        match self.access.admit(&mut request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
