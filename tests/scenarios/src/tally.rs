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

fn commit(path: &Path) -> String {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let out = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(folder).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "unknown".to_owned() } else { text }
}
