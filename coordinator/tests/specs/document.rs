//! A YAML document as a tree that can be edited, and its text with one field a line. Judges nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// A value. Scalars and keys hold YAML text as it is written, so that wrong text can be written too.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Scalar(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

/// Positions from the root.
pub type Path = Vec<usize>;

/// A text of YAML: plain where that is certainly this text, quoted otherwise.
pub fn text(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/')
        && text.chars().all(plain)
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if safe { text.to_owned() } else { Value::from(text).to_string() }
}

impl Node {
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(map) => Self::Map(map.iter().map(|(k, v)| (text(k), Self::of(v))).collect()),
            Value::String(string) => Self::Scalar(text(string)),
            other => Self::Scalar(other.to_string()),
        }
    }

    pub fn at(&self, path: &[usize]) -> &Self {
        path.iter().fold(self, |node, step| match node {
            Self::List(items) => &items[*step],
            Self::Map(entries) => &entries[*step].1,
            Self::Scalar(_) => panic!("no path below a scalar"),
        })
    }

    pub fn at_mut(&mut self, path: &[usize]) -> &mut Self {
        path.iter().fold(self, |node, step| match node {
            Self::List(items) => &mut items[*step],
            Self::Map(entries) => &mut entries[*step].1,
            Self::Scalar(_) => panic!("no path below a scalar"),
        })
    }

    /// All paths below, parents first.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        let below: Vec<&Self> = match self {
            Self::Scalar(_) => Vec::new(),
            Self::List(items) => items.iter().collect(),
            Self::Map(entries) => entries.iter().map(|(_, node)| node).collect(),
        };
        for (step, node) in below.into_iter().enumerate() {
            found.push(vec![step]);
            found.extend(node.paths().into_iter().map(|path| [vec![step], path].concat()));
        }
        found
    }

    /// The path in words, for example `services.web.ports.0`.
    pub fn words(&self, path: &[usize]) -> String {
        let mut words = Vec::new();
        for depth in 0..path.len() {
            words.push(match self.at(&path[..depth]) {
                Self::Map(entries) => entries[path[depth]].0.trim_matches('"').to_owned(),
                _ => path[depth].to_string(),
            });
        }
        words.join(".")
    }

    /// The text, and the line from 1 of each path.
    pub fn write(&self) -> (String, BTreeMap<Path, u64>) {
        let mut page = Page::default();
        page.lines.insert(Vec::new(), 1);
        page.below(self, 0, &mut Vec::new());
        (page.text, page.lines)
    }
}

#[derive(Default)]
struct Page {
    text: String,
    line: u64,
    lines: BTreeMap<Path, u64>,
}

impl Page {
    /// Writes what is below `node`; the cursor stands where its first line begins.
    fn below(&mut self, node: &Node, indent: usize, path: &mut Path) {
        match node {
            Node::Scalar(scalar) => self.end(scalar),
            Node::List(items) if items.is_empty() => self.end("[]"),
            Node::Map(entries) if entries.is_empty() => self.end("{}"),
            Node::List(items) => {
                for (step, item) in items.iter().enumerate() {
                    path.push(step);
                    self.start(indent, step);
                    self.lines.insert(path.clone(), self.line + 1);
                    self.text.push_str("- ");
                    self.below(item, indent + 2, path);
                    path.pop();
                }
            }
            Node::Map(entries) => {
                for (step, (key, value)) in entries.iter().enumerate() {
                    path.push(step);
                    self.start(indent, step);
                    self.lines.insert(path.clone(), self.line + 1);
                    self.text.push_str(key);
                    self.text.push(':');
                    match value {
                        Node::List(items) if !items.is_empty() => self.nested(value, indent, path),
                        Node::Map(entries) if !entries.is_empty() => self.nested(value, indent, path),
                        _ => {
                            self.text.push(' ');
                            self.below(value, indent, path);
                        }
                    }
                    path.pop();
                }
            }
        }
    }

    fn nested(&mut self, value: &Node, indent: usize, path: &mut Path) {
        self.end("");
        self.text.push_str(&" ".repeat(indent + 2));
        self.below(value, indent + 2, path);
    }

    /// The first entry of a block stands where the cursor is; the others begin a line.
    fn start(&mut self, indent: usize, step: usize) {
        if step > 0 {
            self.text.push_str(&" ".repeat(indent));
        }
    }

    fn end(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.line += 1;
    }
}
