//! What every process needs: TLS, identity, configuration, tasks, telemetry, clock.

pub mod access;
pub mod access_complete;
pub mod audit;
pub mod ca;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod context;
pub mod dial;
pub mod host_bundle;
pub mod identity;
pub mod keys;
pub mod net;
pub mod rpc;
pub mod seal;
pub mod secret;
pub mod server;
pub mod snapshot_file;
pub mod spool;
pub mod state_dir;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod token;
