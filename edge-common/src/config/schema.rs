//! JSON Schema of `edge.toml`, made from the types that read it.
//!
//! The same schema drives the first half of the check (`shape`), so that an editor and the daemons refuse the
//! same files.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::file::File;

/// The schema for editors: `edgectl schema` prints it.
#[must_use]
pub fn schema() -> Value {
    let mut schema = working();
    strip_marks(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        root.insert("title".to_owned(), json!("edge.toml"));
    }
    schema
}

/// The schema with our marks still in it: `x-partial` on tables whose missing keys do not hide what else is wrong.
pub(super) fn working() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value();
    tidy(&mut schema);
    schema
}

/// TOML has no null, and `format`s that only name a Rust integer say nothing that the bounds do not.
fn tidy(value: &mut Value) {
    if let Value::Object(object) = value {
        unwrap_nullable(object);
        if object.get("type") == Some(&json!("integer")) {
            object.remove("format");
        }
        // The defaults of a table stand at its keys.
        if object.get("default") == Some(&Value::Null)
            || object.get("type") == Some(&json!("object"))
        {
            object.remove("default");
        }
        gather_required(object);
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(tidy),
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn unwrap_nullable(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get("type") {
        let mut types: Vec<Value> = types
            .iter()
            .filter(|kind| **kind != json!("null"))
            .cloned()
            .collect();
        if types.len() == 1 {
            object.insert("type".to_owned(), types.remove(0));
        }
    }
    let Some(Value::Array(choices)) = object.get("anyOf") else {
        return;
    };
    let mut choices: Vec<Value> = choices
        .iter()
        .filter(|choice| choice["type"] != "null")
        .cloned()
        .collect();
    if choices.len() != 1 {
        return;
    }
    object.remove("anyOf");
    if let Value::Object(only) = choices.remove(0) {
        for (key, value) in only {
            // What is said of the field goes before what is said of its type.
            object.entry(key).or_insert(value);
        }
    }
}

/// Fields that the program can do without for a while, to check the rest, but the operator cannot.
fn gather_required(object: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        return;
    };
    let mut marked: Vec<Value> = Vec::new();
    for (name, property) in properties.iter_mut() {
        let Some(property) = property.as_object_mut() else {
            continue;
        };
        if property.remove("x-required").is_some() {
            property.remove("default");
            marked.push(json!(name));
        }
    }
    if !marked.is_empty() {
        object.insert("required".to_owned(), Value::Array(marked));
        object.insert("x-partial".to_owned(), Value::Bool(true));
    }
}

fn strip_marks(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("x-partial");
            object.values_mut().for_each(strip_marks);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_marks),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
