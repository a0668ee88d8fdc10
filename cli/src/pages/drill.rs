//! A drill's report: what clients noticed, what was lost, what brought writes back.

use muster_model::time::{Millis, Timestamp};
use serde::Deserialize;

use super::section;
use crate::age::utc_clock;
use crate::output::{Paint, Tone, clean};

/// The parts of a report that are printed. All may be missing: the drill may have failed before they were known.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DrillReport {
    drill: String,
    service: String,
    fault: String,
    target: Option<String>,
    host: Option<String>,
    fault_at: Option<Timestamp>,
    healthy_after_ms: Option<Millis>,
    rto_ms: Option<Millis>,
    lost: Option<u64>,
    unacknowledged_present: Option<u64>,
    acted: Option<String>,
    writer: Option<Writer>,
    timeline: Vec<(Timestamp, String, String)>,
    /// All thresholds were met.
    pub passed: bool,
    /// Thresholds that were not.
    pub missed: Vec<String>,
    /// Why it did not get to its end.
    pub failure: Option<String>,
}

/// What the writer counted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Writer {
    acked: Option<u64>,
    gaps: Vec<Gap>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Gap {
    ms: u64,
}

impl DrillReport {
    /// One line for lists: `RTO 0.4s, 0 of 4213 acknowledged writes lost`.
    #[must_use]
    pub fn summary(&self) -> String {
        let rto = self.rto_ms.map_or_else(|| "RTO not known".to_owned(), |rto| format!("RTO {rto}"));
        format!("{rto}, {}", self.losses())
    }

    fn losses(&self) -> String {
        let of = self.writer.as_ref().and_then(|writer| writer.acked);
        match (self.lost, of) {
            (None, _) => "losses not known".to_owned(),
            (Some(lost), Some(of)) => format!("{lost} of {of} acknowledged writes lost"),
            (Some(lost), None) => format!("{lost} acknowledged writes lost"),
        }
    }
}

/// The report as text.
#[must_use]
pub fn drill_report(report: &DrillReport, paint: Paint) -> String {
    let verdict = match (&report.failure, report.passed) {
        (Some(why), _) => paint.tone(Tone::Bad, &format!("failed: {}", clean(why))),
        (None, true) => paint.tone(Tone::Good, "passed"),
        (None, false) => paint.tone(Tone::Bad, &format!("missed: {}", clean(&report.missed.join("; ")))),
    };
    let mut text =
        format!("{}   {verdict}\n", paint.tone(Tone::Strong, &format!("drill {}", clean(&report.drill))));
    let mut line = |head: &str, value: String| text.push_str(&format!("  {head:<15} {}\n", clean(&value)));
    let place = match (&report.target, &report.host) {
        (Some(target), Some(host)) => format!("{target} on {host}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => report.service.clone(),
    };
    line("fault", format!("{} of {place}", report.fault));
    line("RTO", known(report.rto_ms, "the longest time between two acknowledged writes"));
    line("lost", report.losses());
    if let Some(present) = report.unacknowledged_present {
        line("unacknowledged", format!("{present} exist without an acknowledgement"));
    }
    if let Some(writer) = &report.writer {
        let gaps: Vec<String> = writer.gaps.iter().map(|gap| Millis(gap.ms).to_string()).collect();
        line("write gaps", if gaps.is_empty() { "none over 500ms".to_owned() } else { gaps.join(", ") });
    }
    line(
        "healthy after",
        known(report.healthy_after_ms, "from the fault until the service was healthy again"),
    );
    if let Some(acted) = &report.acted {
        line("what acted", acted.clone());
    }
    let fault_at = report.fault_at;
    let timeline = report.timeline.iter().map(|(at, about, what)| {
        format!("{}  {}  {}  {}", utc_clock(*at), offset(fault_at, *at), clean(about), clean(what))
    });
    section(&mut text, paint, "Timeline", timeline);
    text
}

fn known(span: Option<Millis>, what: &str) -> String {
    span.map_or_else(|| "not known".to_owned(), |span| format!("{span} ({what})"))
}

/// Seconds from the fault on.
fn offset(fault: Option<Timestamp>, at: Timestamp) -> String {
    let Some(fault) = fault else { return String::new() };
    let (sign, span) = if at < fault { ('-', fault.since(at)) } else { ('+', at.since(fault)) };
    format!("{sign}{}.{}s", span.0 / 1000, span.0 % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::super::sample::NOW;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_tells_rto_losses_and_what_acted() {
        let json = json!({
            "drill": "kill-primary", "service": "pg-main", "fault": "kill-container", "target": "pg-main/1", "host": "h1",
            "started": NOW.0 - 9000, "fault_at": NOW, "healthy_at": NOW.0 + 4000, "healthy_after_ms": 4000,
            "rto_ms": 420, "lost": 0, "unacknowledged_present": 1, "acted": "release",
            "writer": {"acked": 4213, "gaps": [], "endpoint": "x"},
            "timeline": [[NOW.0 - 100, "pg-main/1", "stopped"], [NOW.0 + 350, "pg-main/2", "leader"]],
            "passed": true, "missed": [], "failure": null
        });
        let report: DrillReport = serde_json::from_value(json).unwrap();
        let expected = "\
drill kill-primary   passed
  fault           kill-container of pg-main/1 on h1
  RTO             420ms (the longest time between two acknowledged writes)
  lost            0 of 4213 acknowledged writes lost
  unacknowledged  1 exist without an acknowledgement
  write gaps      none over 500ms
  healthy after   4.0s (from the fault until the service was healthy again)
  what acted      release

Timeline
  06:28:40  -0.1s  pg-main/1  stopped
  06:28:41  +0.3s  pg-main/2  leader
";
        assert_eq!(drill_report(&report, Paint::new(false)), expected);
        assert_eq!(report.summary(), "RTO 420ms, 0 of 4213 acknowledged writes lost");
    }

    #[test]
    fn a_drill_that_failed_early_has_a_report_too() {
        let json = json!({"drill": "x", "rto_ms": null, "lost": null, "writer": null, "failure": "gave up: no writer"});
        let report: DrillReport = serde_json::from_value(json).unwrap();
        let text = drill_report(&report, Paint::new(false));
        assert!(text.starts_with("drill x   failed: gave up: no writer\n"), "{text}");
    }
}
