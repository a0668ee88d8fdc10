//! The operator's side: runs the shipped `muster` program and reads its JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Runs `muster` with one context.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    context: PathBuf,
}

impl Cli {
    /// `program` is the binary, `context` the operator's context file.
    #[must_use]
    pub fn new(program: &Path, context: &Path) -> Self {
        Self { program: program.to_owned(), context: context.to_owned() }
    }

    /// A command that has not been started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--context").arg(&self.context).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs to its end, whatever the exit code.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("starting {}", self.program.display()))
    }

    /// Runs to a good end.
    ///
    /// # Errors
    /// Any exit code but 0, with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let out = self.output(arguments)?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        if !out.status.success() {
            let error = String::from_utf8_lossy(&out.stderr);
            bail!("muster {}: {}\n{said}{error}", arguments.join(" "), out.status);
        }
        Ok(said)
    }

    /// Runs with `-o json` and reads the answer.
    ///
    /// # Errors
    /// Any exit code but 0, or an answer of another shape.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        let text = self.run(&all)?;
        serde_json::from_str(&text).with_context(|| format!("muster {} answered {text}", arguments.join(" ")))
    }
}
