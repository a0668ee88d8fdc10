//! Reads a kind's settings field by field, so that every mistake is told with its path and remedy. Knows no kind.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Problem;
use super::describe::{self, Notes};

/// Longest text that a setting may have, in bytes, unless it says otherwise.
pub const TEXT_LEN_MAX: usize = 4096;

/// One mapping of the settings, and the mistakes found in it so far.
pub struct Fields<'a> {
    at: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
    /// What is asked for, if nothing is judged and only that is wanted.
    notes: Option<Notes>,
}

impl<'a> Fields<'a> {
    /// The settings of a service.
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self::below(String::new(), map)
    }

    fn below(at: String, map: &'a Map<String, Value>) -> Self {
        Self { at, map, known: Vec::new(), problems: Vec::new(), notes: None }
    }

    /// Settings that only show what is asked for.
    pub fn describing(map: &'a Map<String, Value>) -> Self {
        Self { notes: Some(Notes::default()), ..Self::new(map) }
    }

    /// What was asked for.
    pub fn into_notes(self) -> Notes {
        self.notes.unwrap_or_default()
    }

    fn path(&self, key: &str) -> String {
        if self.at.is_empty() || key.is_empty() {
            format!("{}{key}", self.at)
        } else {
            format!("{}.{key}", self.at)
        }
    }

    /// The field is written.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Notes a mistake in the field `key`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem { path: self.path(key), message: message.into(), help: help.into() });
    }

    /// The field's value; nothing if it is not written, or wrong.
    pub fn get<T: DeserializeOwned + JsonSchema>(&mut self, key: &'static str, help: &str) -> Option<T> {
        self.known.push(key);
        if let Some(notes) = &mut self.notes {
            notes.value::<T>(key, help);
        }
        let value = self.map.get(key)?;
        if let Value::String(text) = value
            && text.len() > TEXT_LEN_MAX
            && key != "content"
        {
            self.problem(key, format!("longer than {TEXT_LEN_MAX} bytes"), help);
            return None;
        }
        match serde_path_to_error::deserialize(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let below = error.path().to_string().replace('[', ".").replace(']', "");
                let below = below.trim_start_matches('.');
                let path = if below.is_empty() { key.to_owned() } else { format!("{key}.{below}") };
                self.problem(&path, error.into_inner().to_string(), help);
                None
            }
        }
    }

    /// The value of a field that must be written.
    pub fn required<T: DeserializeOwned + JsonSchema>(&mut self, key: &'static str, help: &str) -> Option<T> {
        if let Some(notes) = &mut self.notes {
            notes.value::<T>(key, help);
            notes.require(key);
            return describe::sample();
        }
        if !self.map.contains_key(key) {
            self.known.push(key);
            match self.map.keys().find(|written| muster_spec::nearest(written, [key]).is_some()) {
                Some(near) => {
                    self.problem(near, format!("unknown field `{near}`"), format!("did you mean `{key}`?"));
                }
                None => self.problem(key, format!("`{key}` is missing"), help),
            }
            return None;
        }
        self.get(key, help)
    }

    /// The field's value, which must lie within these bounds.
    pub fn number(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let help = format!("write a whole number from {least} to {most}");
        let value: Option<u64> = self.get(key, &help);
        if let Some(notes) = &mut self.notes {
            notes.bounds(key, least, most);
        }
        let value = value?;
        if (least..=most).contains(&value) {
            return Some(value);
        }
        self.problem(key, format!("{value} is out of range"), help);
        None
    }

    /// A number within these bounds that must be written.
    pub fn required_number(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        if self.map.contains_key(key) {
            return self.number(key, least, most);
        }
        let value = self.required(key, &format!("write a whole number from {least} to {most}"));
        if let Some(notes) = &mut self.notes {
            notes.bounds(key, least, most);
        }
        value
    }

    /// A mapping below `key`.
    pub fn section<T>(
        &mut self,
        key: &'static str,
        help: &str,
        read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        if let Some(notes) = &mut self.notes {
            let map = Map::new();
            let mut fields = Fields::describing(&map);
            let value = read(&mut fields);
            notes.field(key, fields.into_notes().into_schema(), help);
            return value;
        }
        match self.map.get(key)? {
            Value::Object(map) => {
                let mut fields = Fields::below(self.path(key), map);
                let value = read(&mut fields);
                self.problems.extend(fields.end(value.is_some()));
                value
            }
            _ => {
                self.problem(key, "not a mapping", help);
                None
            }
        }
    }

    /// A list of mappings below `key`, of at most `most` elements.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        help: &str,
        mut read: impl FnMut(&mut Fields<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.known.push(key);
        if let Some(notes) = &mut self.notes {
            let map = Map::new();
            let mut fields = Fields::describing(&map);
            let value = read(&mut fields);
            let items = fields.into_notes().into_schema();
            notes.field(key, json!({ "type": "array", "items": items, "maxItems": most }), help);
            return value.into_iter().collect();
        }
        let elements = match self.map.get(key) {
            None => return Vec::new(),
            Some(Value::Array(elements)) if elements.len() <= most => elements,
            Some(Value::Array(_)) => {
                self.problem(key, format!("more than {most} elements"), help);
                return Vec::new();
            }
            Some(_) => {
                self.problem(key, "not a list", help);
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let at = self.path(&format!("{key}.{index}"));
            if let Value::Object(map) = element {
                let mut fields = Fields::below(at, map);
                let value = read(&mut fields);
                self.problems.extend(fields.end(value.is_some()));
                values.extend(value);
            } else {
                self.problems.push(Problem {
                    path: at,
                    message: "not a mapping".to_owned(),
                    help: help.to_owned(),
                });
            }
        }
        values
    }

    /// The mistakes in a mapping below; after one that ended the reading, unread fields are not unknown ones.
    fn end(self, read_to_the_end: bool) -> Vec<Problem> {
        if read_to_the_end || self.problems.is_empty() { self.finish() } else { self.problems }
    }

    /// The mistakes, fields that nobody asked for among them.
    pub fn finish(mut self) -> Vec<Problem> {
        for key in self.map.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let help = match muster_spec::nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let short: String = key.chars().take(80).collect();
            self.problems.push(Problem {
                path: self.path(key),
                message: format!("unknown field `{short}`"),
                help,
            });
        }
        self.problems
    }
}
