//! What tests of properties share: parsers under damaged input, and histories of concurrent clients. Decides nothing
//! about any format.

pub mod bytes;
mod history;
pub mod json;
pub mod register;
mod target;
pub mod text;

pub use history::{History, Ticket};
pub use target::Target;
