//! The OpenAPI document: up to date, complete, and about the routes that there are.

use std::{fs, path::Path};

use serde_json::{Value, json};

fn printed() -> String {
    let output = crate::gateway()
        .arg("openapi")
        .output()
        .expect("the program");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

fn document() -> Value {
    serde_json::from_str(&printed()).expect("JSON")
}

/// Every operation of the document, with its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations");
            methods
                .iter()
                .map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

#[test]
fn the_committed_document_is_the_one_that_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed = fs::read_to_string(path).expect("openapi/openapi.json");
    assert!(
        committed == printed(),
        "openapi/openapi.json is out of date: cargo run -- openapi > openapi/openapi.json"
    );
}

#[test]
fn every_operation_has_an_id_a_tag_a_summary_and_an_error_of_its_own() {
    let document = document();
    let operations = operations(&document);
    assert!(operations.len() >= 10, "{}", operations.len());
    for (name, operation) in operations {
        for member in ["operationId", "summary"] {
            assert!(operation[member].is_string(), "{name} has no {member}");
        }
        assert_eq!(
            operation["tags"].as_array().map(Vec::len),
            Some(1),
            "{name}"
        );
        assert!(
            operation["responses"]["500"].is_object(),
            "{name} cannot fail"
        );
    }
}

#[test]
fn every_response_has_a_description_and_every_document_an_example() {
    let document = document();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let description = response["description"].as_str().unwrap_or_default();
            assert!(
                !description.is_empty(),
                "{name} {status} has no description"
            );
            if status == "204" {
                continue;
            }
            for (kind, content) in response["content"].as_object().expect("content") {
                let is_text = kind == "application/openmetrics-text";
                let has_example = !content["example"].is_null() || !content["examples"].is_null();
                assert!(
                    is_text || has_example,
                    "{name} {status} {kind} has no example"
                );
            }
        }
    }
}

#[test]
fn every_parameter_and_every_member_has_a_description() {
    let document = document();
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{name}: {parameter}");
        }
    }
    for (schema, body) in document["components"]["schemas"]
        .as_object()
        .expect("schemas")
    {
        for (member, value) in body["properties"].as_object().into_iter().flatten() {
            let variants = value["oneOf"].as_array().into_iter().flatten();
            let described = value["description"].is_string()
                || variants
                    .into_iter()
                    .any(|variant| variant["description"].is_string());
            assert!(described, "{schema}.{member} has no description");
        }
    }
}

#[test]
fn everything_that_is_referred_to_is_there() {
    let document = document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(
            document.pointer(pointer).is_some(),
            "{pointer} leads nowhere"
        );
    }
}

#[test]
fn the_services_that_a_request_may_name_are_those_of_the_catalogue() {
    let document = document();
    let known: Vec<String> = migration_gateway::upstream::catalogue()
        .iter()
        .map(|service| service.name.to_string())
        .collect();
    let mut found = 0;
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if parameter["name"] == "service" {
                assert_eq!(parameter["schema"]["enum"], json!(known), "{name}");
                found += 1;
            }
        }
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn every_link_leads_to_an_operation_and_fills_in_its_parameters() {
    let document = document();
    let operations = operations(&document);
    let mut found = 0;
    for (name, operation) in &operations {
        for response in operation["responses"]
            .as_object()
            .expect("responses")
            .values()
        {
            for link in response["links"]
                .as_object()
                .into_iter()
                .flat_map(|all| all.values())
            {
                let (_, target) = operations
                    .iter()
                    .find(|(_, target)| target["operationId"] == link["operationId"])
                    .unwrap_or_else(|| panic!("{name}: {link} leads nowhere"));
                let known = target["parameters"].as_array().expect("parameters");
                for parameter in link["parameters"].as_object().expect("parameters").keys() {
                    assert!(
                        known.iter().any(|one| one["name"] == parameter.as_str()),
                        "{name}: {link} fills in {parameter}"
                    );
                }
                found += 1;
            }
        }
    }
    assert!(found >= 10, "{found}");
}
