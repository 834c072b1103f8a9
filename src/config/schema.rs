//! The JSON Schema of a config, for editors: completion and checks while typing.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::spec::Spec;

/// The schema of exactly this version, as JSON.
#[must_use]
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&schema_value()).expect("a schema is JSON");
    text.push('\n');
    text
}

pub(super) fn schema_value() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Spec>().to_value();
    without_nulls(&mut schema);
    schema
}

/// Every field is optional to serde, which shows as `null` in types and defaults; absent is what is meant.
fn without_nulls(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|key, value| !(key == "default" && (value.is_null() || value.is_object())));
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").and_then(Value::as_str) != Some("null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    for (key, value) in only {
                        fields.entry(key).or_insert(value);
                    }
                }
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind.as_str() != Some("null"));
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(values)) = fields.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}
