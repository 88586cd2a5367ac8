//! The OpenAPI document: committed, complete, and the one that the code makes.

#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path};

use serde_json::Value;

/// Rewritten by `UPDATE_OPENAPI=1 cargo test --workspace --test openapi`.
#[test]
fn the_committed_document_is_the_codes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut made = serde_json::to_string_pretty(&document()).unwrap();
    made.push('\n');
    if env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == made,
        "docs/openapi.json is not what the code makes: set UPDATE_OPENAPI=1 and run this again"
    );
}

#[test]
fn everything_in_it_says_what_it_is() {
    let document = document();
    let mut silent = Vec::new();
    for (path, operations) in entries(&document["paths"]) {
        for (method, operation) in entries(operations) {
            let name = format!("{method} {path}");
            let says = |field: &Value| field.as_str().is_some_and(|text| !text.is_empty());
            if !says(&operation["summary"]) || operation["security"][0].is_null() {
                silent.push(name.clone());
            }
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            for parameter in parameters.filter(|one| !says(&one["description"])) {
                silent.push(format!("{name}: {}", parameter["name"]));
            }
        }
    }
    for (name, schema) in entries(&document["components"]["schemas"]) {
        for (field, property) in entries(&schema["properties"]) {
            let described = property["description"].is_string() || property["$ref"].is_string();
            if !described {
                silent.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(silent.is_empty(), "without a description: {silent:#?}");
}

fn document() -> Value {
    serde_json::from_str(&herald_api::openapi()).unwrap()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
