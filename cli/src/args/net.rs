//! The grammar of `muster net`.

use clap::Subcommand;

/// `net ...`
#[derive(Debug, Subcommand)]
pub enum NetCommand {
    /// Who reaches whom through the mesh, how fast, and what is wrong
    ///
    /// Every host measures the way to every other one each 5 s. What answers and what does not is at most 10 s old, and
    /// round-trip times 20 s. Exit code 1 if anything is wrong.
    #[command(after_help = "\
Examples:
  muster net check             a matrix of round-trip times, and what is wrong below it
  muster net check -o json     every pair with its numbers")]
    Check,
}
