//! Rounds in which both sides take turns, and what their medians say.

use anyhow::Result;
use comfy_table::Table;
use serde_json::{Value, json};

/// One measured thing, a pair of numbers a round: ours, theirs.
pub struct Measure {
    /// What, with its unit.
    pub what: &'static str,
    /// Ours by theirs must not be more than this, or, for a rate, not less.
    pub bar: f64,
    /// More is better.
    pub rate: bool,
    /// Ours and theirs, by round.
    pub pairs: Vec<(f64, f64)>,
}

/// The middle one; of an even number the upper.
#[must_use]
pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Measure {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new(what: &'static str, bar: f64, rate: bool) -> Self {
        Self { what, bar, rate, pairs: Vec::new() }
    }

    /// Median of the ratios of the rounds: what the machine did in a round, it did to both.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        median(self.pairs.iter().map(|(ours, theirs)| ours / theirs))
    }

    /// Whether the bar is met.
    #[must_use]
    pub fn holds(&self) -> bool {
        let ratio = self.ratio();
        if self.rate { ratio >= self.bar } else { ratio <= self.bar }
    }

    /// Raw numbers.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "what": self.what, "bar": self.bar, "ratio": self.ratio(), "holds": self.holds(), "rounds": self.pairs })
    }
}

/// Prints raw numbers and the table; how many bars were missed.
///
/// # Errors
/// None was measured.
pub fn report(measures: &[Measure], peer: &str) -> Result<usize> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["MEASURE", "ROUNDS", "MUSTER", peer, "RATIO", "BAR", ""]);
    for measure in measures {
        anyhow::ensure!(!measure.pairs.is_empty(), "{}: nothing was measured", measure.what);
        println!("{}", measure.json());
        let (ours, theirs) = (measure.pairs.iter().map(|p| p.0), measure.pairs.iter().map(|p| p.1));
        let most = if measure.rate { ">=" } else { "<=" };
        table.add_row([
            measure.what.to_owned(),
            measure.pairs.len().to_string(),
            format!("{:.2}", median(ours)),
            format!("{:.2}", median(theirs)),
            format!("{:.2}", measure.ratio()),
            format!("{most} {}", measure.bar),
            if measure.holds() { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    println!("{table}");
    Ok(measures.iter().filter(|measure| !measure.holds()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_judged_by_the_median_of_the_ratios() {
        let mut time = Measure::new("time", 0.8, false);
        time.pairs = vec![(1.0, 2.0), (30.0, 40.0), (5.0, 1.0)];
        assert!((time.ratio() - 0.75).abs() < 1e-9 && time.holds());
        let rate = Measure { rate: true, ..Measure::new("rate", 0.8, true) };
        assert!(!Measure { pairs: time.pairs, ..rate }.holds());
        assert!(median([]).is_nan());
    }
}
