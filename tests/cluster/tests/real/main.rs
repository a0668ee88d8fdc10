//! What the real programs promise: each test starts its own coordinators on loopback.

mod access;
mod adoption;
mod attacks;
mod certificates;
mod clock;
mod coordinators;
mod disk;
mod lifecycle;
mod linearizable;
mod operators;
mod protocol;
mod reads;
mod rebuild;
mod recovery;
mod tokens;
