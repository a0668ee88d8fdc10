//! A YAML document as plain data, and where each of its fields stands.

use std::collections::BTreeMap;
use std::fmt;

use muster_model::view::Diagnostic;
use serde::Deserialize;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

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

/// Where each field of a file stands: path such as `services.pg.ports.0.port` -> line and column from 1.
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<String, (u64, u64)>);

impl Places {
    /// A diagnostic at the place of `path`, or of the nearest field around it.
    #[must_use]
    pub fn diagnostic(&self, path: &str, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        let (line, column) = self.find(path);
        Diagnostic { line, column, path: path.to_owned(), message: message.into(), help: help.into() }
    }

    fn find(&self, path: &str) -> (u64, u64) {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return *place;
            }
            match path.rsplit_once('.') {
                Some((around, _)) => path = around,
                None => return (1, 1),
            }
        }
    }
}

impl Tree {
    /// The document as JSON, the places of its fields, and the number of its nodes.
    pub(crate) fn into_value(self) -> (Value, Places) {
        let mut places = Places::default();
        let value = self.walk("", &mut places);
        (value, places)
    }

    fn walk(self, path: &str, places: &mut Places) -> Value {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        places.0.entry(path.to_owned()).or_insert_with(|| (self.place.line(), self.place.column()));
        match self.node {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let walk = |(index, item): (usize, Self)| item.walk(&below(&index.to_string()), places);
                Value::Array(items.into_iter().enumerate().map(walk).collect())
            }
            Node::Entries(entries) => {
                let mut map = Map::new();
                for (key, item) in entries {
                    let path = below(&key.value);
                    places.0.insert(path.clone(), (key.referenced.line(), key.referenced.column()));
                    let value = item.walk(&path, places);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }
}
