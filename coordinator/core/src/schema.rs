//! The JSON schema of the spec file, for editors: made of the types and readers that judge it. Judges nothing itself.

use muster_model::ids::Name;
use muster_model::spec::{PlatformSpec, SPEC_FORMAT, ServiceSpec};
use muster_spec::SERVICES_MAX;
use serde_json::{Map, Value, json};

use crate::kinds::{self, schema_of};

/// The schema (draft 7). It allows every file that is accepted, and some that are not: what only the whole file or the
/// platform can tell is left to `muster plan`.
#[must_use]
pub fn of_spec() -> Value {
    let mut schema = schema_of::<PlatformSpec>();
    let common = schema_of::<ServiceSpec>();
    let mut definitions = Map::new();
    let mut rules = Vec::new();
    for kind in kinds::ALL {
        let Some(settings) = kind.schema() else { continue };
        let name = kind.name();
        definitions.insert(name.to_owned(), service(name, &common, settings));
        rules.push(json!({
            "if": { "properties": { "kind": { "const": name } } },
            "then": { "$ref": format!("#/definitions/{name}") },
        }));
    }
    let names: Vec<&String> = definitions.keys().collect();
    let any = json!({
        "type": "object",
        "required": ["kind"],
        "properties": { "kind": { "enum": names, "description": "What it is." } },
        "allOf": rules,
    });
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("Muster platform");
    schema["properties"]["muster"]["const"] = json!(SPEC_FORMAT);
    let services = &mut schema["properties"]["services"];
    services["propertyNames"] = schema_of::<Name>();
    services["maxProperties"] = json!(SERVICES_MAX);
    services["additionalProperties"] = any;
    if let Some(services) = services.as_object_mut() {
        services.remove("patternProperties");
    }
    schema["definitions"] = Value::Object(definitions);
    schema
}

/// One kind: the fields of every service, and its own.
fn service(kind: &str, common: &Value, mut settings: Value) -> Value {
    let own = settings["properties"].take();
    let mut properties = common["properties"].clone();
    if let (Some(all), Value::Object(own)) = (properties.as_object_mut(), own) {
        all.extend(own);
    }
    properties["kind"] = json!({ "const": kind });
    let required = settings["required"].as_array().cloned().unwrap_or_default();
    let required: Vec<Value> = std::iter::once(json!("kind")).chain(required).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}
