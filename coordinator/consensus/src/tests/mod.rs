//! Tests of the whole crate: real openraft, real tonic on loopback, real and simulated disks.

mod cluster;
mod damage;
mod dark;
mod disk_full;
mod fixtures;
mod harness;
mod linearizable;
mod log_files;
mod planted;
mod properties;
mod refusals;
mod sim_disk;
mod succession;
