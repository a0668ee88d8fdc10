//! What happened to those who were refused, told to whoever keeps the audit log. It decides nothing.

use std::fmt;
use std::net::SocketAddr;

use crate::identity::Identity;

/// Somebody was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where they came from.
    pub address: SocketAddr,
    /// Who they proved to be, if they proved anything.
    pub identity: Option<Identity>,
    /// Which method they called (`/package.Service/Method`); none if it ended at the handshake.
    pub method: Option<String>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(f, "{identity} at {}", self.address)?,
            None => write!(f, "unknown at {}", self.address)?,
        }
        if let Some(method) = &self.method {
            write!(f, " calling {method}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Keeps the audit log, or passes on to who does. Called on the connection's task: must not block.
/// Outsiders can cause any number of calls: an implementation that stores them bounds their rate.
pub trait Audit: fmt::Debug + Send + Sync {
    /// Takes note.
    fn refused(&self, refusal: &Refusal);
}

/// Writes refusals to the process' log only.
#[derive(Debug)]
pub struct LogAudit;

impl Audit for LogAudit {
    fn refused(&self, refusal: &Refusal) {
        tracing::warn!(%refusal, "refused");
    }
}
