//! Views as text for people. Pure: a view and colours in, lines out.

mod drill;
mod explain;
mod operations;
mod plan;
mod platform;
mod service;

#[cfg(test)]
pub(crate) mod sample;

pub use drill::{DrillReport, drill_report};
pub use explain::{explanation, losses};
pub use operations::{operation_word, operations};
pub use plan::plan;
pub use platform::{hosts, platform};
pub use service::{members, service};

use muster_model::view::HealthWord;

use crate::output::Tone;

/// The colour of a health word.
#[must_use]
pub const fn tone_of(word: HealthWord) -> Tone {
    match word {
        HealthWord::Healthy => Tone::Good,
        HealthWord::Degraded | HealthWord::Unknown => Tone::Warn,
        HealthWord::Critical | HealthWord::Down => Tone::Bad,
    }
}

/// A heading with its lines, indented; nothing if there are none.
fn section(
    text: &mut String,
    paint: crate::output::Paint,
    head: &str,
    lines: impl IntoIterator<Item = String>,
) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    text.push_str(&format!("\n{}\n", paint.tone(Tone::Strong, head)));
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
}
