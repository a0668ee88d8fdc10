//! One line of the doctor, and how lines are set in columns.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with the stated drawback.
    Warn,
    /// Members cannot run, or not safely.
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// What was looked at.
    pub check: &'static str,
    /// What was found.
    pub finding: String,
    /// What to do; empty if nothing.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, check, finding: finding.into(), remedy: String::new() }
    }

    /// A drawback.
    pub(super) fn warn(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, check, finding: finding.into(), remedy: remedy.into() }
    }

    /// A stop.
    pub(super) fn fail(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, check, finding: finding.into(), remedy: remedy.into() }
    }
}

/// Columns `verdict check finding`, the remedy on a line of its own below.
pub(super) fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { verdict, check, finding, remedy } in findings {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        text.push_str(&format!("{verdict:<5} {check:<width$}  {finding}\n"));
        if !remedy.is_empty() {
            text.push_str(&format!("{:<5} {:<width$}  -> {remedy}\n", "", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_below_its_finding() {
        let text =
            table(&[Finding::ok("engine", "Docker 20.10"), Finding::fail("nft", "missing", "install it")]);
        assert_eq!(text, "ok    engine  Docker 20.10\nfail  nft     missing\n              -> install it\n");
    }
}
