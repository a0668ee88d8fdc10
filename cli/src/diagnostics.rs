//! Mistakes in a file as text: place, line, caret and remedy. Finds none itself.

use muster_model::view::Diagnostic;

use crate::output::{Paint, Tone, clean};
use crate::spec_file::SpecFile;

/// Longest source line that is shown, in characters.
const LINE_SHOWN: usize = 160;

/// All mistakes, in the order given.
#[must_use]
pub fn render(file: &SpecFile, found: &[Diagnostic], paint: Paint) -> String {
    all(file, found, ("error:", "mistake"), paint)
}

/// What a plan refuses, in the order given.
#[must_use]
pub fn refused(file: &SpecFile, found: &[Diagnostic], paint: Paint) -> String {
    all(file, found, ("refused:", "refusal"), paint)
}

fn all(file: &SpecFile, found: &[Diagnostic], (heading, noun): (&str, &str), paint: Paint) -> String {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut text: String =
        found.iter().map(|one| render_one(file, &lines, one, heading, paint) + "\n").collect();
    let count = found.len();
    let plural = if count == 1 { "" } else { "s" };
    text.push_str(&format!("{}: {count} {noun}{plural}, nothing was changed", file.name));
    text
}

fn render_one(file: &SpecFile, lines: &[&str], found: &Diagnostic, heading: &str, paint: Paint) -> String {
    let column = file.column(found.line, found.column);
    let number = found.line.to_string();
    let bar = paint.tone(Tone::Dim, &format!("{} |", " ".repeat(number.len())));
    let mut text = format!("{} {}\n", paint.tone(Tone::Bad, heading), clean(&found.message));
    let place = format!("{}-->", " ".repeat(number.len()));
    text += &format!("{} {}:{}:{}\n", paint.tone(Tone::Dim, &place), file.name, found.line, column);
    let index = usize::try_from(found.line).unwrap_or(usize::MAX).checked_sub(1);
    if let Some(line) = index.and_then(|index| lines.get(index)) {
        let start = usize::try_from(column - 1).unwrap_or(usize::MAX);
        let shown: String =
            line.chars().take(LINE_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let marks = "^".repeat(token_len(&shown, start));
        text += &format!("{bar}\n{} {shown}\n", paint.tone(Tone::Dim, &format!("{number} |")));
        if start <= shown.chars().count() {
            text += &format!("{bar} {}{}\n", " ".repeat(start), paint.tone(Tone::Bad, &marks));
        }
    }
    if !found.help.is_empty() {
        text += &format!(
            "{} = {} {}\n",
            " ".repeat(number.len()),
            paint.tone(Tone::Strong, "help:"),
            clean(&found.help)
        );
    }
    text
}

/// How many characters the caret underlines: the key or value that stands there.
fn token_len(line: &str, start: usize) -> usize {
    let rest: String = line.chars().skip(start).collect();
    let token = rest.split([':', ' ', ',', ']', '}']).next().unwrap_or_default();
    token.chars().count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_shows_its_line_with_a_caret_and_the_remedy() {
        let text = "muster: 1\nplatfrom: shop\n".to_owned();
        let wrong = muster_spec::parse(&text).unwrap_err();
        let file = SpecFile::unfilled("shop.yaml", text);
        let expected = "\
error: unknown field `platfrom`
 --> shop.yaml:2:1
  |
2 | platfrom: shop
  | ^^^^^^^^
  = help: did you mean `platform`?

shop.yaml: 1 mistake, nothing was changed";
        assert_eq!(render(&file, &wrong, Paint::new(false)), expected);
    }

    #[test]
    fn a_place_outside_of_the_file_does_not_panic() {
        let file = SpecFile::unfilled("x", "a\tb\n".to_owned());
        let at = |line, column| Diagnostic {
            line,
            column,
            path: String::new(),
            message: "m".into(),
            help: String::new(),
        };
        for place in [(0, 0), (1, 900), (7, 1), (u64::MAX, u64::MAX)] {
            assert!(render(&file, &[at(place.0, place.1)], Paint::new(false)).starts_with("error: m\n"));
        }
    }
}
