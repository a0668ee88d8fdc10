//! The tally as a table: how often each item ran, what a client waited for, what was lost.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::tally::Run;

/// One line for each item, in Markdown.
pub fn table(runs: &[Run]) -> String {
    let mut items: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        items.entry(&run.item).or_default().push(run);
    }
    let mut out = String::from(
        "| item | right of all runs | longest gap, ms: median (worst) | acknowledged | lost |\n|---|---|---|---|---|\n",
    );
    for (item, runs) in items {
        let right: Vec<&Value> =
            runs.iter().filter(|run| run.result == "ok").map(|run| &run.samples).collect();
        let mut gaps: Vec<u64> = right.iter().filter_map(|samples| gap(samples)).collect();
        gaps.sort_unstable();
        let gap = match (gaps.get(gaps.len() / 2), gaps.last()) {
            (Some(median), Some(worst)) => format!("{median} ({worst})"),
            _ => String::new(),
        };
        let sum = |keys: &[&str]| {
            let found: Vec<u64> = right.iter().filter_map(|samples| number(samples, keys)).collect();
            if found.is_empty() { String::new() } else { found.iter().sum::<u64>().to_string() }
        };
        let (acked, lost) = (sum(&["acked"]), sum(&["acked_lost", "lost"]));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| `{item}` | {} of {} | {gap} | {acked} | {lost} |", right.len(), runs.len());
    }
    out
}

fn gap(samples: &Value) -> Option<u64> {
    number(samples, &["rto_ms", "max_gap_ms"])
}

/// The first of the keys that is a number, at the top or among what the writer saw.
fn number(samples: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| samples[key].as_u64().or_else(|| samples["writes"][key].as_u64()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(item: &str, result: &str, samples: Value) -> Run {
        Run { item: item.to_owned(), result: result.to_owned(), samples }
    }

    #[test]
    fn wrong_runs_are_counted_and_their_numbers_are_not() {
        let runs = [
            run("a", "ok", json!({ "acked": 5, "acked_lost": 0, "max_gap_ms": 30 })),
            run("a", "wrong: late", json!({})),
            run("a", "ok", json!({ "writes": { "acked": 7, "acked_lost": 1, "max_gap_ms": 10 } })),
            run("b", "ok", json!({})),
        ];
        let table = table(&runs);
        assert!(table.contains("| `a` | 2 of 3 | 30 (30) | 12 | 1 |"), "{table}");
        assert!(table.contains("| `b` | 1 of 1 |  |  |  |"), "{table}");
    }
}
