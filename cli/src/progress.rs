//! Shows what goes on while a command waits: live lines on a terminal, timestamped lines elsewhere. Waits for nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use muster_model::time::Timestamp;

use crate::age::utc_clock;
use crate::console::Console;
use crate::output::{Tone, clean};

const TICK: Duration = Duration::from_millis(120);

/// The lines of one wait.
pub struct Progress {
    console: Console,
    bars: Option<MultiProgress>,
    live: BTreeMap<String, ProgressBar>,
    last: BTreeMap<String, String>,
}

impl Progress {
    /// Nothing shown yet.
    #[must_use]
    pub fn new(console: &Console) -> Self {
        let bars = console.err_is_terminal.then(MultiProgress::new);
        Self { console: console.clone(), bars, live: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// A line that stays.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn say(&self, at: Timestamp, about: &str, text: &str) -> Result<()> {
        let when = self.console.err_paint.tone(Tone::Dim, &utc_clock(at));
        let line = format!("{when}  {}  {}", clean(about), clean(text));
        match &self.bars {
            Some(bars) => Ok(bars.println(line)?),
            None => self.console.note(line),
        }
    }

    /// The present state of one thing: replaced in place on a terminal, printed when it changes elsewhere.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn show(&mut self, at: Timestamp, about: &str, tone: Tone, text: &str) -> Result<()> {
        let text = clean(text);
        if self.last.get(about) == Some(&text) {
            return Ok(());
        }
        match &self.bars {
            Some(bars) => {
                let bar = self.live.entry(about.to_owned()).or_insert_with(|| bars.add(spinner()));
                bar.set_message(format!("{about}  {}", self.console.err_paint.tone(tone, &text)));
            }
            None => self.say(at, about, &text)?,
        }
        self.last.insert(about.to_owned(), text);
        Ok(())
    }

    /// Takes a live line away.
    pub fn end(&mut self, about: &str) {
        self.last.remove(about);
        if let Some(bar) = self.live.remove(about) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        for bar in self.live.values() {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Format;

    #[test]
    fn without_a_terminal_each_change_is_one_line_with_its_time() {
        let (console, out, err) = Console::buffered(Format::Json, "");
        let mut progress = Progress::new(&console);
        let at = Timestamp(1_795_501_721_000);
        for text in ["down", "down", "healthy"] {
            progress.show(at, "web", Tone::Plain, text).unwrap();
        }
        progress.say(at, "web/1", "start\x1b[2J").unwrap();
        let said = String::from_utf8(err.lock().unwrap().clone()).unwrap();
        assert_eq!(said, "06:28:41  web  down\n06:28:41  web  healthy\n06:28:41  web/1  start [2J\n");
        assert!(out.lock().unwrap().is_empty());
    }
}
