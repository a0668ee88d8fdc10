//! Pure types shared by every part: ids, spec, host plan, observations, network, views. No I/O, no clock.

pub mod ids;
pub mod image;
pub mod link;
pub mod network;
pub mod observed;
pub mod plan;
pub mod predicate;
pub mod spec;
pub mod time;
pub mod view;
