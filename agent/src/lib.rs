//! The agent: runs the containers of one host and reports their health. It knows no kind of service.
//!
//! Pure: `host`, `ledger`, `diff`, `restart`, `release`, `seen`, `status`, `volume`. Everything else does I/O.

pub mod act;
pub mod ask;
pub mod bundle;
pub mod diff;
pub mod disk;
pub mod doctor;
pub mod enroll;
pub mod fault;
pub mod files;
pub mod freezer;
pub mod host;
pub mod identity_dir;
pub mod images;
pub mod keeper;
pub mod ledger;
pub mod links;
pub mod logs;
pub mod network;
pub mod prober;
pub mod profile;
pub mod release;
pub mod renew;
pub mod reset;
pub mod restart;
pub mod run;
pub mod runtime;
pub mod secrets;
pub mod seen;
pub mod session;
pub mod shared;
pub mod status;
pub mod steps;
pub mod store;
pub mod tasks;
pub mod uninstall;
pub mod volume;
pub mod volumes;
pub mod worker;

#[cfg(test)]
mod fixtures;
