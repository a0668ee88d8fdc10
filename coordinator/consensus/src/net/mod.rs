//! Talking to the other coordinators. Must not do TLS: the [`Dialer`] does.

mod client;
mod dialer;
mod peer;
mod server;

pub use dialer::{DialError, Dialer};
pub use server::RaftService;

pub(crate) use client::Network;
pub(crate) use peer::{CallError, Lane, MESSAGE_LIMIT, Peers};
