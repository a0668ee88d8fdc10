//! Damaged text: as bytes that are still text, with words of the format in wrong places, and lines moved about.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::{Index, select};

use crate::bytes;

#[derive(Debug, Clone)]
enum Edit {
    Word { at: Index, word: &'static str },
    DropLine { at: Index },
    DoubleLine { at: Index, to: Index },
    Indent { at: Index, by: usize },
}

fn edit(words: Vec<&'static str>) -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), select(words)).prop_map(|(at, word)| Edit::Word { at, word }),
        1 => at().prop_map(|at| Edit::DropLine { at }),
        1 => (at(), at()).prop_map(|(at, to)| Edit::DoubleLine { at, to }),
        1 => (at(), 0..6_usize).prop_map(|(at, by)| Edit::Indent { at, by }),
    ]
}

impl Edit {
    fn apply(&self, text: String) -> String {
        if let Self::Word { at, word } = self {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let (head, tail) = text.split_at(places[at.index(places.len())]);
            return format!("{head}{word}{tail}");
        }
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        match self {
            Self::Word { .. } => {}
            Self::DropLine { at } => drop(lines.remove(at.index(lines.len()))),
            Self::DoubleLine { at, to } => {
                let line = lines[at.index(lines.len())].clone();
                lines.insert(to.index(lines.len() + 1), line);
            }
            Self::Indent { at, by } => {
                let line = &mut lines[at.index(text.split('\n').count())];
                *line = format!("{}{}", " ".repeat(*by), line.trim_start());
            }
        }
        lines.join("\n")
    }
}

/// One of these texts with words of the format and lines in wrong places, and some bytes damaged.
///
/// # Panics
/// There are no texts or no words.
pub fn damaged(seeds: Vec<Vec<u8>>, words: &[&'static str]) -> impl Strategy<Value = String> {
    let from = || seeds.clone();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let edits = vec(edit(words.to_vec()), 0..=4);
    let whole = select(from()).prop_map(text);
    let edited = prop_oneof![2 => whole, 1 => bytes::damaged(from()).prop_map(text)];
    (edited, edits).prop_map(|(text, edits)| edits.iter().fold(text, |text, edit| edit.apply(text)))
}

/// Text of these words and any characters, without any form.
pub fn noise(words: &[&'static str], longest: usize) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-z0-9 .-]{0,6}",
    ];
    vec(part, 0..=longest).prop_map(|parts| parts.concat())
}
