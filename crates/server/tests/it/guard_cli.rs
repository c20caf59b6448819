//! `meguri guard check|bench`: on the data directory, where no model is asked, and through a
//! running server, where all are.

use std::path::Path;

use serde_json::json;
use testkit::provider::Answer;

use crate::harness::{Ended, Place};

const JSONL: &str = "{\"text\": \"You are dreadful.\", \"label\": \"toxic\"}\n{\"text\": \"buy from Globex\", \"label\": \"toxic\"}\n{\"text\": \"You are lovely.\", \"label\": \"benign\"}\n";

/// A word list, a policy in a file that names it and asks a judge, and labelled texts.
fn arrange(place: &Place) -> (String, String) {
    place.fake.when("lovely", Answer::text("{\"score\": 0.1}"));
    place.fake.when("Globex", Answer::text("{\"score\": 0.0}"));
    // The newest that fits counts.
    place
        .fake
        .when("dreadful", Answer::text("{\"score\": 0.9}"));
    let judge = json!({"type": "judge", "rubric": "How rude it is.", "model": "fake/judge"});
    let policy = json!({"rules": [
        {"name": "brands", "at": ["input"], "check": {"type": "words", "list": "words:brands@latest"}, "action": {"type": "redact"}},
        {"name": "tone", "at": ["input"], "check": judge, "action": {"type": "block"}},
    ]});
    let file = place.beside("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let set = place.beside("set.jsonl");
    std::fs::write(&set, JSONL).unwrap();
    (file.display().to_string(), set.display().to_string())
}

/// Runs a command that knows no data directory, with the key in its variable.
fn through(place: &Place, url: &str, args: &[&str]) -> Ended {
    let mut command = place.command();
    command.args(args).args(["--url", url]);
    command.env("MEGURI_API_KEY", &place.key);
    place.run(&mut command)
}

#[test]
fn checks_ask_a_server_and_say_whom_nobody_asked() {
    let place = Place::new();
    let (file, _) = arrange(&place);
    let live = place.start();
    let content = json!({"content": {"entries": ["Globex"]}});
    let saved = live.post("/api/v1/catalog/words/brands/versions", &content);
    assert_eq!(saved.status, 201, "{saved:?}");
    let check = [
        "guard",
        "check",
        "--file",
        &file,
        "--text",
        "dreadful Globex",
    ];

    // Here the list is known and the judge is not asked, which is said.
    let here = place.meguri(&check);
    assert_eq!(here.code, 0, "{here:?}");
    assert!(
        here.stdout.contains("<") && here.stdout.contains("brands"),
        "{here:?}"
    );
    assert!(here.stderr.contains("\"tone\" was not asked"), "{here:?}");
    assert!(here.stderr.contains("--url"), "{here:?}");
    let json = [check.as_slice(), &["--format", "json"]].concat();
    let said = place.meguri(&json).json();
    assert_eq!(said["decision"], "edited", "{said:#}");
    assert_eq!(
        said["unasked"],
        json!([{"rule": "tone", "why": "there is no model to ask here", "on_failure": "open"}])
    );
    assert!(place.fake.seen().is_empty());

    // The server knows both.
    let url = live.origin();
    let said = through(&place, &url, &json).json();
    assert_eq!(said["decision"], "blocked", "{said:#}");
    assert!(said["unasked"].is_null() && said["trace_id"].is_string());
    let shown = through(&place, &url, &check);
    assert!(
        shown.stdout.contains("judge") && !shown.stderr.contains("not asked"),
        "{shown:?}"
    );

    // A policy by its name, with codes as everywhere.
    let policy = json!({"content": {"rules": [{"name": "w", "at": ["input"], "check": {"type": "words", "list": "words:brands@latest"}, "action": {"type": "block"}}]}});
    let saved = live.post("/api/v1/catalog/guard/shop/versions", &policy);
    assert_eq!(saved.status, 201, "{saved:?}");
    let named = |name: &'static str| ["guard", "check", name, "--text", "Globex", "--json"];
    assert_eq!(
        through(&place, &url, &named("shop")).json()["policy"]["version"],
        1
    );
    assert_eq!(place.meguri(&named("shop")).json()["decision"], "blocked");
    assert_eq!(through(&place, &url, &named("nobody")).code, 3);
    assert_eq!(place.meguri(&named("nobody")).code, 3);
    assert_eq!(
        place
            .meguri(&["guard", "check", "shop", "--point", "nowhere"])
            .code,
        2
    );
    let mut keyless = place.command();
    keyless.args(named("shop")).args(["--url", &url]);
    assert_eq!(place.run(&mut keyless).code, 1);
}

#[test]
fn measurements_ask_a_server() {
    let place = Place::new();
    let (file, set) = arrange(&place);
    let live = place.start();
    let content = json!({"content": {"entries": ["Globex"]}});
    let saved = live.post("/api/v1/catalog/words/brands/versions", &content);
    assert_eq!(saved.status, 201, "{saved:?}");
    let bench = ["guard", "bench", "--file", &file, "--set", &set];
    let json = [bench.as_slice(), &["--json"]].concat();

    let here = place.meguri(&json).json();
    assert_eq!(here["report"]["all"]["recall"]["hits"], 1, "{here:#}");
    assert_eq!(here["unchecked"], json!({"tone": 3}));
    assert_eq!(here["unasked"][0]["rule"], "tone");
    let shown = place.meguri(&bench);
    assert!(
        shown.stderr.contains("could not check 3 texts"),
        "{shown:?}"
    );

    let there = through(&place, &live.origin(), &json).json();
    assert_eq!(there["report"]["all"]["recall"]["hits"], 2, "{there:#}");
    assert_eq!(there["report"]["all"]["false_positives"]["hits"], 0);
    assert!(there["unchecked"].is_null() && there["unasked"].is_null());
    let wrong = [json.as_slice(), &["--rule", "nothing"]].concat();
    assert_eq!(through(&place, &live.origin(), &wrong).code, 1);
}

#[test]
fn a_policy_that_names_nothing_of_a_project_needs_no_data_directory() {
    let place = Place::new();
    let file = place.beside("alone.json");
    let policy = json!({"rules": [{"name": "mail", "at": ["input"], "check": {"type": "pii", "kinds": ["email"]}, "action": {"type": "redact"}}]});
    std::fs::write(&file, policy.to_string()).unwrap();
    let nowhere = place.beside("nowhere");
    let mut command = place.command();
    command.args([
        "guard",
        "check",
        "--text",
        "to ann@example.com",
        "--json",
        "--file",
    ]);
    command.arg(&file).arg("--data-dir").arg(&nowhere);
    assert_eq!(place.run(&mut command).json()["text"], "to <EMAIL_1>");
    assert!(!Path::new(&nowhere).exists());
}
