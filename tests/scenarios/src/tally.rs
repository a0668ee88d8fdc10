//! The committed tally: one JSON line for each run of an item.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::clock::now_ms;

/// Appends one run.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, item: &str, run: u32, samples: &Value, result: &str) -> Result<()> {
    let line = json!({
        "commit": commit(path),
        "item": item,
        "run": run,
        "seed": Value::Null,
        "at_ms": now_ms(),
        "result": result,
        "samples": samples,
    });
    let mut file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    writeln!(file, "{line}").with_context(|| format!("writing {}", path.display()))
}

/// One run, as it was recorded.
#[derive(Debug, serde::Deserialize)]
pub struct Run {
    /// What was run.
    pub item: String,
    /// `ok`, or what was wrong.
    pub result: String,
    /// What a client saw.
    pub samples: Value,
}

/// All runs, oldest first; none where there is no file yet.
///
/// # Errors
/// The file cannot be read, or a line of it is no run.
pub fn read(path: &Path) -> Result<Vec<Run>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let runs = text.lines().enumerate().map(|(number, line)| {
        serde_json::from_str(line).with_context(|| format!("{} line {}", path.display(), number + 1))
    });
    runs.collect()
}

/// How many runs of an item were right.
///
/// # Errors
/// The tally cannot be read.
pub fn right(path: &Path, item: &str) -> Result<u32> {
    let count = read(path)?.iter().filter(|run| run.item == item && run.result == "ok").count();
    Ok(u32::try_from(count)?)
}

fn commit(path: &Path) -> String {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let out = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(folder).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "unknown".to_owned() } else { text }
}
