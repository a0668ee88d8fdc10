//! Explanations, and what a loss would do.

use muster_model::view::{ExplainView, LossView, WhatIfView};

use super::section;
use crate::age::utc_clock;
use crate::output::{Paint, Table, Tone, clean};

/// Sections, then the last events.
#[must_use]
pub fn explanation(view: &ExplainView, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.tone(Tone::Strong, &clean(&view.about)));
    for part in &view.sections {
        section(&mut text, paint, &part.title, part.lines.iter().map(|line| clean(line)));
    }
    let events = view
        .events
        .iter()
        .map(|event| format!("{}  {}  {}", utc_clock(event.at), clean(&event.about), clean(&event.text)));
    section(&mut text, paint, "Last events", events);
    text
}

/// A row for each service.
#[must_use]
pub fn losses(view: &WhatIfView, paint: Paint) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "KIND",
        "WRITES",
        "READS",
        "COPIES LEFT",
        "THEN ONE MORE",
        "WHOLE AGAIN",
        "WHY",
    ]);
    for loss in &view.services {
        let tone = match (loss.writes, loss.reads) {
            (true, true) => Tone::Plain,
            (false, true) | (true, false) => Tone::Warn,
            (false, false) => Tone::Bad,
        };
        let what = if loss.data { "copies" } else { "members" };
        let left = format!("{} of {} {what}", loss.copies_left, loss.copies);
        let cells = [
            loss.service.to_string(),
            loss.kind.to_string(),
            writes(loss),
            word(loss.reads),
            left,
            if loss.bears_another { "bears it" } else { "stops" }.to_owned(),
            if loss.repair.is_empty() { "-".to_owned() } else { clean(&loss.repair) },
            why(loss),
        ];
        table.row(tone, cells);
    }
    let mut text = format!("If {} is lost now:\n", clean(&view.host));
    if !view.services.is_empty() {
        text.push_str(&format!("\n{}", table.render(paint)));
    }
    if let Some(line) = &view.control_plane {
        text.push_str(&format!("\n{}\n", clean(line)));
    }
    text
}

fn word(goes_on: bool) -> String {
    if goes_on { "go on" } else { "stop" }.to_owned()
}

fn writes(loss: &LossView) -> String {
    if loss.writes && loss.moves { "pause, then go on".to_owned() } else { word(loss.writes) }
}

fn why(loss: &LossView) -> String {
    let lost = if loss.may_lose.is_empty() { String::new() } else { format!("may lose {}", loss.may_lose) };
    let parts = [clean(&loss.why), clean(&lost)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use muster_model::view::ExplainSection;

    use super::super::sample::name;
    use super::*;

    fn loss(service: &str, writes: bool, moves: bool) -> LossView {
        LossView {
            service: name(service),
            kind: name("postgres"),
            writes,
            reads: true,
            moves,
            data: true,
            copies: 3,
            copies_left: 2,
            bears_another: false,
            repair: "elsewhere, after 15m".to_owned(),
            why: "its leading role moves first".to_owned(),
            may_lose: String::new(),
        }
    }

    #[test]
    fn each_service_says_what_goes_on_and_why() {
        let services = vec![loss("pg-main", true, true), loss("pg-two", false, false)];
        let view = WhatIfView { host: "h1".to_owned(), services, control_plane: None };
        let text = losses(&view, Paint::new(false));
        assert!(text.contains("pause, then go on") && text.contains("2 of 3 copies"), "{text}");
        assert!(text.contains("elsewhere, after 15m") && text.contains("stops"), "{text}");
        let two = text.lines().find(|line| line.contains("pg-two")).unwrap();
        assert!(two.contains("stop"), "{two}");
    }

    #[test]
    fn an_explanation_has_its_sections_in_order() {
        let sections = vec![ExplainSection { title: "Gates".to_owned(), lines: vec!["healthy".to_owned()] }];
        let view = ExplainView { about: "pg-main".to_owned(), sections, events: Vec::new() };
        assert_eq!(explanation(&view, Paint::new(false)), "pg-main\n\nGates\n  healthy\n");
    }
}
