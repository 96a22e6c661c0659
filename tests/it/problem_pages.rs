//! `GET /problems/{slug}`: a page for every error, and nothing but errors that there are.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::gateway::Place;

const SECTIONS: [&str; 4] = [
    "## What happened",
    "## What it means for the task",
    "## As a caller",
    "## As an operator",
];

/// The types that the OpenAPI document lists.
fn types() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let text = fs::read_to_string(path).expect("openapi/openapi.json");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
        .as_array()
        .expect("types")
        .iter()
        .map(|kind| kind.as_str().expect("a text").to_owned())
        .collect()
}

/// Every page, with the type that its file is named after.
fn pages() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/problems");
    fs::read_dir(folder)
        .expect("docs/problems")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let slug = path.file_stem().expect("a name").to_string_lossy();
            let text = fs::read_to_string(&path).expect("a page");
            (format!("/problems/{slug}"), text)
        })
        .collect()
}

#[test]
fn every_type_of_problem_leads_to_its_page_without_credentials() {
    let place = Place::new();
    let gateway = place.start();
    let types = types();
    assert!(types.len() > 20, "{types:?}");
    for kind in types {
        let answer = gateway.stranger().get(&kind);
        assert_eq!(answer.status, 200, "{kind}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(answer.header("cache-control"), Some("max-age=300"));
        assert!(answer.text.contains(&kind), "{kind}: {}", answer.text);
        let head = gateway.stranger().request("HEAD", &kind);
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{kind}");
    }
}

#[test]
fn a_type_that_does_not_exist_has_no_page() {
    let place = Place::new();
    let gateway = place.start();
    for path in ["/problems/made-up", "/problems/not-found.md", "/problems/"] {
        let answer = gateway.stranger().get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.problem(), "not-found", "{path}");
    }
}

#[test]
fn pages_and_types_belong_together_one_to_one() {
    let pages: BTreeSet<String> = pages().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(pages, types());
}

#[test]
fn pages_name_no_type_that_does_not_exist() {
    let types = types();
    for (page, text) in pages() {
        for rest in text.split("/problems/").skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
            let named = format!("/problems/{}", &rest[..end.unwrap_or(rest.len())]);
            assert!(types.contains(&named), "{page} names {named}");
        }
    }
}

#[test]
fn every_page_has_the_same_sections_each_with_something_in_it_and_is_short() {
    for (page, text) in pages() {
        let sections: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        assert_eq!(sections, SECTIONS, "{page}");
        for section in text.split("\n## ").skip(1) {
            let (name, body) = section.split_once('\n').expect("a body");
            assert!(body.trim().len() > 20, "{page}: {name} is empty");
        }
        let lines = text.lines().count();
        assert!((15..=35).contains(&lines), "{page} has {lines} lines");
    }
}
