//! Tables, colours and safe text. Knows no view and writes nowhere.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement, Table as Layout};

/// Colours, if the reader can see them.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

/// What a line or word wants to tell with its colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Look at it.
    Warn,
    /// Act.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

impl Paint {
    /// Colours on or off.
    #[must_use]
    pub const fn new(on: bool) -> Self {
        Self { on }
    }

    /// The text in a tone.
    #[must_use]
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Plain => return text.to_owned(),
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A table with upper-case heads, aligned columns and no borders.
#[derive(Debug)]
pub struct Table {
    layout: Layout,
    tones: Vec<Tone>,
}

impl Table {
    /// A table with these heads.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        let mut layout = Layout::new();
        layout.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        layout.set_header(heads.iter().map(Cell::new));
        for column in layout.column_iter_mut() {
            column.set_padding((0, 3));
        }
        Self { layout, tones: vec![Tone::Strong] }
    }

    /// Adds a row; empty cells become `-`.
    pub fn row(&mut self, tone: Tone, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let cells = cells.into_iter().map(|cell| match clean(cell.as_ref()) {
            text if text.is_empty() => "-".to_owned(),
            text => text,
        });
        self.layout.add_row(cells.map(Cell::new));
        self.tones.push(tone);
    }

    /// Whether it has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// The lines.
    #[must_use]
    pub fn render(&self, paint: Paint) -> String {
        let lines = self.layout.lines().zip(&self.tones);
        lines.map(|(line, tone)| paint.tone(*tone, line.trim_end()) + "\n").collect()
    }
}

/// Text from elsewhere on one line, without anything that could steer a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.trim_end().chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_dashes() {
        let mut table = Table::new(&["NAME", "KIND"]);
        table.row(Tone::Plain, ["pg-main", "postgres"]);
        table.row(Tone::Warn, ["web", ""]);
        assert_eq!(table.render(Paint::new(false)), "NAME      KIND\npg-main   postgres\nweb       -\n");
        assert!(table.render(Paint::new(true)).contains("\x1b[33mweb       -\x1b[0m\n"));
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{202e}d\n"), "a [2Jb c d");
    }
}
