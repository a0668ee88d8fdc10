//! Reads time spans as systemd writes them (`5`, `500ms`, `1min 30s`, `infinity`); decides nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `None` is `infinity`. A bare number is seconds.
pub fn parse_timespan(text: &str) -> Result<Option<Duration>> {
    if text == "infinity" {
        return Ok(None);
    }
    let mut total = Duration::ZERO;
    let mut words = 0;
    for word in text.split_whitespace() {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = word[..digits].parse().ok().with_context(|| format!("{text}: not a time span"))?;
        let unit_ms = match &word[digits..] {
            "ms" | "msec" => 1,
            "" | "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" | "hr" => 3_600_000,
            unit => bail!("{text}: unit {unit} is not known"),
        };
        let ms = number.checked_mul(unit_ms).with_context(|| format!("{text}: too long"))?;
        total = total.checked_add(Duration::from_millis(ms)).with_context(|| format!("{text}: too long"))?;
        words += 1;
    }
    if words == 0 {
        bail!("an empty time span");
    }
    Ok(Some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_systemd_does() {
        for (text, ms) in [("5", 5_000), ("500ms", 500), ("1min 30s", 90_000), ("0", 0)] {
            assert_eq!(parse_timespan(text).unwrap(), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_timespan("infinity").unwrap(), None);
        for text in ["", "soon", "5 parsecs", "99999999999999999h"] {
            assert!(parse_timespan(text).is_err(), "{text}");
        }
    }
}
