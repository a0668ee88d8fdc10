//! The agent: runs the containers of one host and reports their health. It knows no kind of service.
//!
//! Pure: `host`, `ledger`, `diff`, `restart`, `release`, `seen`, `status`, `volume`. Everything else does I/O.

pub mod diff;
pub mod host;
pub mod ledger;
pub mod release;
pub mod restart;
pub mod seen;
pub mod status;
pub mod volume;

#[cfg(test)]
mod fixtures;
