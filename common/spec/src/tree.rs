//! A YAML document as plain data, and where each of its fields stands.

use std::collections::BTreeMap;
use std::fmt;

use muster_model::view::Diagnostic;
use serde::Deserialize;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use crate::limits::{KEY_LEN_MAX, TEXT_SHOWN};

/// A value with its place, read from YAML.
#[derive(Debug)]
pub(crate) struct Tree {
    place: Location,
    node: Node,
}

#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Tree>),
    Entries(Vec<(Spanned<String>, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { place: spanned.referenced, node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            list.push(entry);
        }
        Ok(Node::Entries(list))
    }
}

/// Where each field of a file stands, found by a path such as `services.pg.ports.0.port`.
///
/// A tree like the file itself: its size is bounded by the file's, however deep and long the keys are.
#[derive(Debug, Clone, Default)]
pub struct Places {
    line: u64,
    column: u64,
    below: BTreeMap<String, Self>,
}

impl Places {
    /// A diagnostic at the place of `path`, or of the nearest field around it. Line and column count from 1.
    #[must_use]
    pub fn diagnostic(&self, path: &str, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        let place = self.find(path);
        let (line, column) = (place.line.max(1), place.column.max(1));
        Diagnostic { line, column, path: shorten(path), message: shorten(&message.into()), help: help.into() }
    }

    /// Line of a field, counted from 1; absent = it is not written.
    #[must_use]
    pub fn line_of(&self, path: &str) -> Option<u64> {
        let (place, rest) = self.walk_to(path);
        rest.is_empty().then_some(place.line.max(1))
    }

    fn find(&self, path: &str) -> &Self {
        self.walk_to(path).0
    }

    /// Keys may hold dots (labels do), so the longest key that fits is taken at each step.
    /// Returns the place that was reached, and what of the path is not below it.
    fn walk_to<'p>(&self, path: &'p str) -> (&Self, &'p str) {
        let ends = (0..=path.len().min(KEY_LEN_MAX)).rev();
        let keys = ends.filter(|end| *end == path.len() || path.as_bytes()[*end] == b'.');
        for end in keys {
            if let Some(below) = path.get(..end).and_then(|key| self.below.get(key)) {
                return below.walk_to(path.get(end + 1..).unwrap_or_default());
            }
        }
        (self, path)
    }
}

/// A text for operators that may hold what they wrote, cut to a readable length.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(TEXT_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl Tree {
    /// The document as JSON, the places of its fields, and what is wrong with its keys and values as such.
    pub(crate) fn into_value(self) -> (Value, Places, Vec<Diagnostic>) {
        let mut wrong = Vec::new();
        let mut places = Places { line: self.place.line(), column: self.place.column(), ..Places::default() };
        let value = self.walk(&mut places, &mut wrong);
        (value, places, wrong)
    }

    fn walk(self, here: &mut Places, wrong: &mut Vec<Diagnostic>) -> Value {
        match self.node {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let mut list = Vec::new();
                for (index, item) in items.into_iter().enumerate() {
                    if matches!(item.node, Node::Scalar(Value::Null)) {
                        let help = "write it, or remove the `-`";
                        wrong.push(at(&item.place, "an element without a value".to_owned(), help));
                    }
                    list.push(item.step(index.to_string(), None, here, wrong));
                }
                Value::Array(list)
            }
            Node::Entries(entries) => {
                let mut map = Map::new();
                for (key, item) in entries {
                    if let Some(found) = judge_entry(&key, &item) {
                        wrong.push(found);
                        continue;
                    }
                    let value = item.step(key.value.clone(), Some(&key.referenced), here, wrong);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }

    fn step(
        self,
        key: String,
        place: Option<&Location>,
        around: &mut Places,
        wrong: &mut Vec<Diagnostic>,
    ) -> Value {
        let place = place.unwrap_or(&self.place);
        let mut here = Places { line: place.line(), column: place.column(), ..Places::default() };
        let value = self.walk(&mut here, wrong);
        around.below.insert(key, here);
        value
    }
}

fn at(place: &Location, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        line: place.line().max(1),
        column: place.column().max(1),
        path: String::new(),
        message,
        help: help.to_owned(),
    }
}

/// What no key of any file may be. An empty value is refused, because nobody can tell whether it means nothing, the
/// default, or a value that was forgotten.
fn judge_entry(key: &Spanned<String>, item: &Tree) -> Option<Diagnostic> {
    let name = &key.value;
    let found = |message: String, help: &str| Some(at(&key.referenced, message, help));
    if name.len() > KEY_LEN_MAX {
        let message = format!("a key of {} bytes, the limit is {KEY_LEN_MAX}", name.len());
        return found(message, "write a shorter key");
    }
    if name.is_empty() {
        return found("an empty key".to_owned(), "write a key before the `:`");
    }
    if name == "<<" {
        return found("merge keys are not supported".to_owned(), "write the fields here");
    }
    if name.chars().any(char::is_control) {
        return found("a key with a control character".to_owned(), "write the key in plain characters");
    }
    if matches!(item.node, Node::Scalar(Value::Null)) {
        return found(format!("`{name}` has no value"), "write a value, or leave the field out");
    }
    None
}
