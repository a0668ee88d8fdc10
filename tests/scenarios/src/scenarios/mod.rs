//! What is shown on a real platform: one file per subject.

pub mod dead;
pub mod drills;
pub mod faults;
pub mod first;
pub mod grow;
pub mod hosts;
pub mod identity;
pub mod mariadb;
pub mod mariadb_two;
pub mod members;
pub mod metrics;
pub mod nats;
pub mod network;
pub mod postgres;
pub mod quickstart;
pub mod redis;
pub mod redis_replicated;
pub mod repair;
pub mod rotate;
pub mod s3;
pub mod s3_dark;
pub mod s3_heal;
pub mod tls;
pub mod tls_direct;
pub mod together;
pub mod update;
