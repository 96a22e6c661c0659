//! As much of JSON Schema as the OpenAPI document uses: enough to tell that an answer keeps what
//! the document promises.

use serde_json::Value;

/// Says what is wrong with a value, by its path; nothing if it keeps to the schema. Members that
/// the schema does not name are wrong too: whoever reads the document would not know of them.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        let target = document.pointer(pointer).expect("a schema that is there");
        return faults(document, target, value, path);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[choice].as_array() {
            let fits = |one: &&Value| faults(document, one, value, path).is_empty();
            return match schemas.iter().filter(fits).count() {
                0 => vec![format!("{path}: fits no choice of {schema}: {value}")],
                _ => Vec::new(),
            };
        }
    }
    let mut found = Vec::new();
    if !has_type(&schema["type"], value) {
        found.push(format!("{path}: {value} is not {}", schema["type"]));
    }
    if let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        for (name, member) in members {
            let path = format!("{path}/{name}");
            match properties.get(name) {
                Some(schema) => found.extend(faults(document, schema, member, &path)),
                None => found.push(format!("{path}: not in the document")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            if !members.contains_key(name) {
                found.push(format!("{path}/{name}: missing"));
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}/{index}");
        found.extend(faults(document, &schema["items"], item, &path));
    }
    found
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    };
    match (wanted.as_str(), wanted.as_array()) {
        (Some(name), _) => is(name),
        (None, Some(names)) => names.iter().filter_map(Value::as_str).any(is),
        (None, None) => true,
    }
}
