//! What the real programs promise: each test starts its own coordinators on loopback.

mod access;
mod certificates;
mod clock;
mod disk;
mod lifecycle;
mod protocol;
mod reads;
mod tokens;
