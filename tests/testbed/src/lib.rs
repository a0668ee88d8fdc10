//! Emulated VPS hosts on one machine, each with its own Docker Engine: their whole life, from boot to power cut, and nothing of Muster itself.
//!
//! A host is a set of kernel namespaces (network, mount, process, name, IPC) and a cgroup, with its engine at the usual
//! paths inside. Each host has its own public /24 behind a router namespace, as rented servers at different providers
//! do; there is no shared LAN. Everything is blocking code with deadlines. Errors are `anyhow`: they are read by people
//! and never matched on.

mod capability;
mod cgroup;
mod command;
mod config;
mod control;
mod disk;
mod doctor;
mod golden;
mod host;
mod init;
mod leftovers;
mod service;
mod supervisor;
mod testbed;
mod timespan;
mod unit;
mod wan;

pub use command::Output;
pub use config::Config;
pub use control::{UnitState, UnitStatus};
pub use doctor::{Finding, doctor};
pub use host::Host;
pub use init::init;
pub use leftovers::{Leftover, leftovers};
pub use testbed::Testbed;
