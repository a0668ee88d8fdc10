//! The coordinator: serves agents, operators and its peers, and leads when elected. What it decides is `muster-core`'s.

pub mod admin;
pub mod authority;
pub mod dialer;
pub mod group;
pub mod home;
pub mod init;
pub mod judge;
pub mod leader;
pub mod proposer;
pub mod pushes;
pub mod rebuild;
pub mod recovery;
pub mod refusals;
pub mod renew;
pub mod replica;
pub mod revoked;
pub mod rpc;
pub mod run;
pub mod saved;
pub mod sessions;
pub mod standing;
pub mod status;
pub mod table;
