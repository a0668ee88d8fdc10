//! Real coordinators as processes on loopback, and clients to ask them. Asserts nothing about them itself; a helper that
//! cannot go on panics with what it saw.

pub mod agent;
pub mod cluster;
pub mod node;
pub mod operator;
pub mod programs;
pub mod random;
pub mod wait;
