//! What the documentation says of apps is what they do.

use std::collections::HashMap;
use std::sync::Arc;

use base::{Digest, Secret};
use gateway::{AppDocument, AppVersion, Release};
use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::rig::Rig;

/// The fenced blocks of a page that are JSON.
fn blocks(page: &str) -> Vec<Value> {
    let parts = page.split("\n```json\n").skip(1);
    let texts = parts.map(|part| part.split("\n```").next().unwrap());
    let read = |text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    texts.map(read).collect()
}

fn documents() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/apps.md");
    blocks(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn every_document_on_the_page_is_an_app() {
    let documents = documents();
    assert_eq!(documents.len(), 5);
    for document in documents {
        AppDocument::parse(&document).unwrap_or_else(|problems| panic!("{problems:#?}"));
    }
}

#[tokio::test]
async fn the_example_on_the_page_answers() {
    let mut document = documents().swap_remove(0);
    let rig = Rig::new();
    let url = document["tools"]["distance"]["url"].as_str().unwrap();
    let url = url.replace("https://maps.example.com", &rig.provider.url());
    document["tools"]["distance"]["url"] = url.into();
    document["models"]["small"] = json!(["nobody/gpt-5-mini", "open/fake-large"]);
    let parsed = AppDocument::parse(&document).unwrap();
    let digest = Digest::of(b"minister");
    let secret = Secret::new("maps".to_owned());
    rig.put_app(vec![Arc::new(Release {
        name: "geo/minister".to_owned(),
        number: 4,
        digest,
        app: Arc::new(AppVersion::new(digest, parsed)),
        prompts: HashMap::new(),
        guards: HashMap::new(),
        credentials: HashMap::from([("env:MEGURI_TOOL_MAPS".to_owned(), secret)]),
    })]);
    rig.allow_private_tools();
    for (asked, said) in [
        ("prime minister of Japan", "{\"name\": \"Sanae\"}"),
        ("was Sanae born", " Nara\n"),
        (
            "Sanae was born in  Nara\\n, 9500 km",
            "Sanae was born 9500 km from London.",
        ),
    ] {
        rig.provider.when(asked, Answer::text(said));
    }
    rig.provider.when(
        "/distance/Nara/London?unit=km",
        Answer::json(&json!({"km": 9500})),
    );
    let (status, answer) = rig.ask("geo/minister", "Japan").await;
    assert_eq!(status, 200, "{answer}");
    let said = &answer["choices"][0]["message"]["content"];
    assert_eq!(said, "Sanae was born 9500 km from London.");
}
