//! Several histograms as text, one line each. For openraft's debug output only.

use std::fmt;

use crate::Histogram;

/// Named histograms.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(&'static str, Histogram)>,
}

impl AsciiChart {
    /// No histogram yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: &'static str, histogram: Histogram) -> Self {
        self.lines.push((name, histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines
            .iter()
            .try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}
