//! Tests of the whole crate: real openraft, real tonic on loopback, real and simulated disks.

mod cluster;
mod dark;
mod disk_full;
mod fixtures;
mod harness;
mod log_files;
mod refusals;
mod sim_disk;
