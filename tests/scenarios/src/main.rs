//! Runs scenarios on emulated hosts and shows what a client saw.

mod cli;
mod clock;
mod platform;
mod settings;

fn main() {}
