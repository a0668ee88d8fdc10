//! Seeded simulation of the core and the agent's pure parts: one seed gives one run, down to the last message.
//!
//! See `docs/simulation.md` for what is simulated, what is judged, and how a failure is replayed.

pub mod engines;
pub mod host;
pub mod operators;
pub mod oracle;
pub mod plant;
pub mod rng;
pub mod scenario;
pub mod spec;
pub mod world;
