//! Reads a spec or drill file: from disk or standard input, bounded, with `${ENV}` filled in. Does not judge it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use muster_model::view::Diagnostic;
use muster_runtime::rpc::SPEC_MAX;

use crate::diagnostics;
use crate::exit::{Exit, Failure};
use crate::output::Paint;

/// A file as it was read and as it is sent.
#[derive(Debug)]
pub struct SpecFile {
    /// How messages call it.
    pub name: String,
    /// Its own text: messages show it, so that no variable's value is printed.
    pub text: String,
    /// With variables filled in.
    pub filled: String,
    /// Where values were put, per line.
    moves: Vec<Move>,
}

/// A variable that became its value. Columns from 0, in characters.
#[derive(Debug)]
struct Move {
    line: u64,
    written_at: usize,
    written_len: usize,
    filled_at: usize,
    filled_len: usize,
}

impl SpecFile {
    /// Reads `path`; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read, is too large or not UTF-8, or a variable is not set.
    pub fn read(path: &str, paint: Paint) -> Result<Self> {
        let (name, bytes) = if path == "-" {
            ("standard input", bounded(std::io::stdin().lock()).context("reading standard input")?)
        } else {
            let file = File::open(Path::new(path)).and_then(bounded);
            (path, file.with_context(|| format!("reading {path}"))?)
        };
        if bytes.len() > SPEC_MAX {
            let message = format!("{name} is larger than {} KiB", SPEC_MAX / 1024);
            let hint = "split the platform, or move large files into images";
            return Err(Failure::new(Exit::Error, message).hint(hint).into());
        }
        let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8 text"))?;
        let lookup = |variable: &str| std::env::var(variable).ok();
        Self::fill(name, text, lookup).map_err(|(text, wrong)| {
            let file = Self::unfilled(name, text);
            Failure::new(Exit::Error, diagnostics::render(&file, &wrong, paint)).into()
        })
    }

    /// A file in which nothing is filled in.
    #[must_use]
    pub fn unfilled(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), filled: text.clone(), text, moves: Vec::new() }
    }

    fn fill(
        name: &str,
        text: String,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, (String, Vec<Diagnostic>)> {
        let (mut filled, mut moves, mut wrong) = (String::with_capacity(text.len()), Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            let comment = comment_at(line);
            let (code, rest) = line.split_at(comment);
            fill_line(number, code, &lookup, &mut filled, &mut moves, &mut wrong);
            filled.push_str(rest);
        }
        if wrong.is_empty() {
            Ok(Self { name: name.to_owned(), text, filled, moves })
        } else {
            Err((text, wrong))
        }
    }

    /// The column of the file itself for a column of what was sent, both from 1.
    #[must_use]
    pub fn column(&self, line: u64, column: u64) -> u64 {
        let at = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut result = at;
        for step in self.moves.iter().filter(|step| step.line == line && step.filled_at <= at) {
            let end = step.filled_at + step.filled_len;
            result = if at < end { step.written_at } else { step.written_at + step.written_len + (at - end) };
        }
        result as u64 + 1
    }
}

fn bounded(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(SPEC_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where the line's comment begins: a `#` at its start or after a space, outside quotes.
fn comment_at(line: &str) -> usize {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return at,
            // A quote in the middle of a word is an apostrophe.
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (Some(open), _) if open == c && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
    }
    line.len()
}

fn fill_line(
    number: u64,
    code: &str,
    lookup: &impl Fn(&str) -> Option<String>,
    filled: &mut String,
    moves: &mut Vec<Move>,
    wrong: &mut Vec<Diagnostic>,
) {
    let (mut rest, mut written_at, mut filled_at) = (code, 0, 0);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let copied = before.chars().count();
        (written_at, filled_at) = (written_at + copied, filled_at + copied);
        filled.push_str(before);
        let Some(name) = variable(from) else {
            // Not ours, for example `${secret:...}`: the coordinator judges it.
            filled.push_str("${");
            (written_at, filled_at) = (written_at + 2, filled_at + 2);
            rest = &from[2..];
            continue;
        };
        let written_len = name.len() + 3;
        let value = lookup(name);
        match value.as_deref().map(|value| value.contains(['\n', '\r'])) {
            Some(false) => {}
            Some(true) => wrong.push(problem(
                number,
                written_at,
                name,
                "holds more than one line",
                "set it to one line",
            )),
            None => wrong.push(problem(
                number,
                written_at,
                name,
                "is not set",
                "set it in the environment, or write the value",
            )),
        }
        let value = value.unwrap_or_default();
        let filled_len = value.chars().count();
        filled.push_str(&value);
        moves.push(Move { line: number, written_at, written_len, filled_at, filled_len });
        (written_at, filled_at) = (written_at + written_len, filled_at + filled_len);
        rest = &from[written_len..];
    }
    filled.push_str(rest);
}

/// The name in a text that begins with `${NAME}`.
fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.split_once('}')?.0;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (starts && name.chars().all(good)).then_some(name)
}

fn problem(line: u64, at: usize, name: &str, what: &str, help: &str) -> Diagnostic {
    Diagnostic {
        line,
        column: at as u64 + 1,
        path: String::new(),
        message: format!("variable {name} {what}"),
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<SpecFile, Vec<Diagnostic>> {
        let lookup = |name: &str| match name {
            "HOST" => Some("h1.example.org".to_owned()),
            "EMPTY" => Some(String::new()),
            "LINES" => Some("a\nplatform: evil".to_owned()),
            _ => None,
        };
        SpecFile::fill("x.yaml", text.to_owned(), lookup).map_err(|(_, wrong)| wrong)
    }

    #[test]
    fn variables_are_filled_outside_of_comments_only() {
        let text =
            "# ${NOT_SET}\na: ${HOST}:80 # ${HOST}\nb: \"# ${HOST}\"\nc: it's ${EMPTY}# x\nd: x#${HOST}\n";
        let expected = "# ${NOT_SET}\na: h1.example.org:80 # ${HOST}\nb: \"# h1.example.org\"\nc: it's # x\nd: x#h1.example.org\n";
        assert_eq!(fill(text).unwrap().filled, expected);
    }

    #[test]
    fn an_unset_variable_is_named_with_its_place() {
        let wrong = fill("a: 1\nb: ${EMPTY}${GONE} ${ALSO_GONE}\n").unwrap_err();
        let places: Vec<_> = wrong.iter().map(|w| (w.line, w.column, w.message.as_str())).collect();
        assert_eq!(places, [(2, 12, "variable GONE is not set"), (2, 20, "variable ALSO_GONE is not set")]);
    }

    #[test]
    fn a_value_cannot_add_lines_to_the_file() {
        assert!(fill("a: ${LINES}\n").unwrap_err()[0].message.contains("more than one line"));
    }

    #[test]
    fn what_is_not_a_variable_stays() {
        let text = "a: ${secret:x} $HOST ${} ${1A} ${HOST\n";
        assert_eq!(fill(text).unwrap().filled, text);
    }

    #[test]
    fn columns_of_the_sent_text_point_into_the_file() {
        let file = fill("a: ${HOST} tail\n").unwrap();
        assert_eq!(file.column(1, 1), 1);
        assert_eq!(file.column(1, 8), 4);
        assert_eq!(file.column(1, 19), 12);
        assert_eq!(file.column(2, 9), 9);
    }
}
