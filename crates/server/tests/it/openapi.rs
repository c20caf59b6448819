//! The OpenAPI document: locked by a golden, and sound in itself.
//!
//! `src/openapi.json` is what the server answers and what the UI's types are
//! made from, so it is committed. `UPDATE_GOLDEN=1` writes it anew; the version
//! is left out, because each release would be a difference.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Database, Place};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/openapi.json");

fn document() -> Value {
    let place = Place::on(Database::Sqlite);
    let reply = place.start().anonymous().get("/openapi.json");
    assert_eq!(
        (reply.status, reply.header("content-type").as_deref()),
        (200, Some("application/json"))
    );
    reply.json()
}

#[test]
fn the_committed_document_is_what_the_routes_say() {
    let now = server::openapi::document(&server::http::routes());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, format!("{now:#}\n")).unwrap();
    }
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(GOLDEN).unwrap()).unwrap();
    let lines = (format!("{now:#}"), format!("{committed:#}"));
    let differs = std::iter::zip(lines.0.lines(), lines.1.lines())
        .enumerate()
        .find(|(_, (now, before))| now != before);
    assert!(
        now == committed,
        "the API has changed, first at {differs:?}: look at all of it after UPDATE_GOLDEN=1"
    );
}

#[test]
fn the_server_answers_the_committed_document_with_its_version() {
    let mut now = document();
    assert_eq!(now["info"]["version"], env!("CARGO_PKG_VERSION"));
    now["info"]["version"] = json!("0.0.0");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(GOLDEN).unwrap()).unwrap();
    assert!(now == committed, "built before the document was renewed");
}

/// Every object in the document, with the way to it.
fn walk<'a>(value: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, value);
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| walk(value, &format!("{path}/{key}"), visit)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| walk(value, &format!("{path}/{index}"), visit)),
        _ => {}
    }
}

#[test]
fn the_document_is_sound() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let told = format!("{method} {path}: {operation}");
            assert!(
                ["get", "put", "post", "patch", "delete"].contains(&method.as_str()),
                "{told}"
            );
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "used twice: {told}"
            );
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{told}");
            // Each `{name}` of the path is one declared parameter, and no other is in the path.
            let wanted: BTreeSet<&str> = path
                .split('{')
                .skip(1)
                .map(|rest| rest.split('}').next().unwrap())
                .collect();
            let parameters = operation["parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let declared: BTreeSet<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(wanted, declared, "{told}");
            for parameter in &parameters {
                assert!(
                    parameter["description"].is_string() || parameter.get("description").is_none(),
                    "{told}"
                );
                assert!(parameter["schema"].is_object(), "{told}");
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.contains_key("default")
                    && responses.keys().any(|status| status.starts_with('2')),
                "{told}"
            );
        }
    }
    // Every reference leads somewhere.
    walk(&document, "", &mut |path, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{path}: {reference}"));
            assert!(document.pointer(pointer).is_some(), "{path}: {reference}");
        }
    });
    // Who may call is said for each, and the public list is as short here as in the route table.
    let public: Vec<&String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, item)| item["get"]["security"] == json!([]))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(public, ["/healthz", "/readyz", "/openapi.json"]);
}
