//! A plan: what changes, where members go, what can then be lost.

use muster_model::view::{ChangeView, PlanView};

use super::section;
use crate::output::{Paint, Tone, clean};

/// The page, without refusals: they are the error that follows.
#[must_use]
pub fn plan(view: &PlanView, paint: Paint) -> String {
    let mut text = String::new();
    for change in &view.changes {
        text.push_str(&line(change, paint));
    }
    if view.changes.is_empty() {
        text.push_str("No changes: the platform is described by this spec already.\n");
    } else {
        text.push_str(&format!("{}\n", count(&view.changes)));
    }
    section(&mut text, paint, "Placement", view.placement.iter().map(|line| clean(line)));
    section(
        &mut text,
        paint,
        "What the loss of a host or zone stops",
        view.survivability.iter().map(|line| clean(line)),
    );
    section(
        &mut text,
        paint,
        "Warnings",
        view.warnings.iter().map(|line| paint.tone(Tone::Warn, &clean(line))),
    );
    text
}

fn line(change: &ChangeView, paint: Paint) -> String {
    let tone = match change.mark.as_str() {
        "+" => Tone::Good,
        "-" | "+/-" => Tone::Bad,
        _ => Tone::Warn,
    };
    let values = match (&change.from, &change.to) {
        (None, None) => String::new(),
        (None, Some(to)) => format!("   {}", clean(to)),
        (Some(from), None) => format!("   {} ->", clean(from)),
        (Some(from), Some(to)) => format!("   {} -> {}", clean(from), clean(to)),
    };
    format!("{}  {}{values}\n", paint.tone(tone, &format!("{:>3}", clean(&change.mark))), clean(&change.what))
}

fn count(changes: &[ChangeView]) -> String {
    let of = |mark: &str| changes.iter().filter(|change| change.mark == mark).count();
    let words = [
        (of("+"), "to add"),
        (of("~"), "to change in place"),
        (of("+/-"), "to re-create"),
        (of("-"), "to remove"),
    ];
    let words = words.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    format!("\nPlan: {}.", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_plan_shows_marks_verdict_losses_and_warnings() {
        let expected = "  \
  +  service web
  ~  service pg-main: parameters   work_mem 4MB -> work_mem 8MB
+/-  service pg-main: image   muster/postgres:15 -> muster/postgres:16

Plan: 1 to add, 1 to change in place, 1 to re-create.

Placement
  web/1 on h1, web/2 on h2

What the loss of a host or zone stops
  pg-main: no single host stops writes

Warnings
  one zone only: its loss stops everything
";
        assert_eq!(plan(&sample::plan(), Paint::new(false)), expected);
    }

    #[test]
    fn no_changes_are_said() {
        let nothing = PlanView { changes: Vec::new(), warnings: Vec::new(), ..sample::plan() };
        assert!(plan(&nothing, Paint::new(false)).starts_with("No changes"));
    }
}
