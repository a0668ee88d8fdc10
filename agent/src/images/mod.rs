//! Images of the platform on this host: fetched when an operator pushes one, on a connection of their own, and taken
//! away when nothing here has needed them for long.

pub mod book;
pub mod desk;
pub mod engine;
mod fetch;
mod keeper;
mod room;

pub use keeper::{ImageKeeper, run};
