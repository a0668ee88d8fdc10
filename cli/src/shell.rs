//! Runs a command of the operator's own, for what only a hand outside of the platform can do.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Longest time that one may take.
const COMMAND: Duration = Duration::from_secs(120);

/// Runs it and shows what it says, never mixed with a result for a program.
///
/// # Errors
/// It cannot be run, takes too long, or fails.
pub async fn run(console: &Console, command: &str) -> Result<()> {
    console.note(format!("runs: {command}"))?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND, shell.output())
        .await
        .with_context(|| format!("`{command}` took more than {COMMAND:?}"))?
        .with_context(|| format!("running `{command}`"))?;
    for text in [&output.stdout, &output.stderr] {
        if !text.is_empty() {
            console.note(String::from_utf8_lossy(text))?;
        }
    }
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(Exit::Error, format!("`{command}` failed: {}", output.status)).into())
}
