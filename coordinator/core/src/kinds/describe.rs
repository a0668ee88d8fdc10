//! What a kind's reader asks for, noted as JSON schema while it reads: reader and schema cannot differ. Judges nothing.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::settings::Fields;

/// What one mapping may hold, as far as it was read.
#[derive(Debug, Default)]
pub struct Notes {
    properties: Map<String, Value>,
    required: BTreeSet<&'static str>,
}

impl Notes {
    /// A field with a value of this type.
    pub fn value<T: JsonSchema>(&mut self, key: &str, help: &str) {
        self.field(key, schema_of::<T>(), help);
    }

    /// A field with this schema.
    pub fn field(&mut self, key: &str, mut schema: Value, help: &str) {
        // `true` is the schema of anything; there is no room for a description in it.
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(help));
        }
        self.properties.insert(key.to_owned(), schema);
    }

    /// Bounds of a number that was noted.
    pub fn bounds(&mut self, key: &str, least: u64, most: u64) {
        if let Some(schema) = self.properties.get_mut(key).and_then(Value::as_object_mut) {
            schema.insert("minimum".to_owned(), json!(least));
            schema.insert("maximum".to_owned(), json!(most));
        }
    }

    /// A field that must be there.
    pub fn require(&mut self, key: &'static str) {
        self.required.insert(key);
    }

    /// The mapping's schema.
    pub fn into_schema(self) -> Value {
        let mut schema =
            json!({ "type": "object", "properties": self.properties, "additionalProperties": false });
        if !self.required.is_empty() {
            schema["required"] = json!(self.required);
        }
        schema
    }

    /// Allows what either of the two allows.
    fn widen(&mut self, other: Self) {
        self.required = self.required.intersection(&other.required).copied().collect();
        for (key, new) in other.properties {
            let Some(present) = self.properties.get_mut(&key) else {
                self.properties.insert(key, new);
                continue;
            };
            let number = |schema: &Value, bound: &str| schema[bound].as_u64();
            if let (Some(a), Some(b)) = (number(present, "minimum"), number(&new, "minimum")) {
                present["minimum"] = json!(a.min(b));
            }
            if let (Some(a), Some(b)) = (number(present, "maximum"), number(&new, "maximum")) {
                if a != b {
                    present["description"] = json!("a whole number; its bounds depend on other fields");
                }
                present["maximum"] = json!(a.max(b));
            }
        }
    }
}

/// The schema of a kind's settings, from its reader.
///
/// What a reader asks for may depend on what is written: it is run without anything, with each value of each choice, and
/// with the largest numbers. The result allows what any of these runs allows, so it is never stricter than the reader.
pub fn describe(read: impl Fn(&mut Fields<'_>)) -> Value {
    let run = |map: Map<String, Value>| {
        let mut fields = Fields::describing(&map);
        read(&mut fields);
        fields.into_notes()
    };
    let mut notes = run(Map::new());
    let mut others = Vec::new();
    let mut largest = Map::new();
    for (key, schema) in &notes.properties {
        others.extend(choices(schema).into_iter().map(|value| Map::from_iter([(key.clone(), value)])));
        largest.extend(schema.get("maximum").map(|most| (key.clone(), most.clone())));
    }
    others.push(largest);
    for map in others {
        notes.widen(run(map));
    }
    notes.into_schema()
}

/// The schema of a type, everything in place.
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut generator =
        SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.subschema_for::<T>().to_value();
    drop_formats(&mut schema);
    schema
}

/// Names such as `uint16` are of Rust and tell an editor nothing.
fn drop_formats(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, value| key != "format" || !value.is_string());
            map.values_mut().for_each(drop_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_formats),
        _ => {}
    }
}

/// The values of an enumeration.
fn choices(schema: &Value) -> Vec<Value> {
    let plain = schema["enum"].as_array().into_iter().flatten().cloned();
    let told = schema["oneOf"].as_array().into_iter().flatten();
    plain.chain(told.flat_map(|one| one["const"].as_str().map(Value::from))).collect()
}

/// Some value of a type, with which a reader goes on to the next field.
pub fn sample<T: DeserializeOwned + JsonSchema>() -> Option<T> {
    let plain = [json!("a"), json!(1), json!(true), json!([]), json!({}), json!("1s")];
    let candidates = choices(&schema_of::<T>()).into_iter().chain(plain);
    candidates.into_iter().find_map(|value| serde_json::from_value(value).ok())
}
