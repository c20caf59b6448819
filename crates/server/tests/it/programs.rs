//! Evaluators of a team's own, asked over HTTP: whatever they do wrong is said and is never a
//! number, and their credentials stay secret.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use testkit::provider::{Answer, FakeProvider, Fault};

use crate::harness::{Client, Place, on_both_databases};

on_both_databases!(programs_that_misbehave_are_unscored_and_credentials_stay_secret);

fn make_dataset(client: &Client, inputs: &[&str]) {
    let examples: Vec<Value> = inputs
        .iter()
        .map(|input| json!({"id": input.replace(' ', "-"), "input": input}))
        .collect();
    let body = json!({"name": "questions", "examples": examples});
    let made = client.post("/api/v1/datasets", &body);
    assert_eq!(made.status, 201, "{made:?}");
}

/// Runs evaluators on the dataset and gives the scores of the first example.
fn evaluate(client: &Client, evaluators: &[(&str, Value)]) -> (Value, Value) {
    let used: Vec<Value> = evaluators
        .iter()
        .map(|(name, evaluator)| json!({"name": name, "evaluator": evaluator}))
        .collect();
    let document = json!({
        "dataset": "dataset:questions@latest", "candidates": [{"name": "one", "model": "fake/fake-large"}],
        "evaluators": used, "concurrency": 16, "cache": false, "attempts": 2,
    });
    let started = client.post("/api/v1/evaluations", &json!({"document": document}));
    assert_eq!(started.status, 201, "{started:?}");
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/evaluations/{id}");
    let until = Instant::now() + Duration::from_secs(120);
    let shown = loop {
        let shown = client.get(&path).json();
        if shown["evaluation"]["state"] == "done" {
            break shown;
        }
        assert!(Instant::now() < until, "not done: {shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let detail = client.get(&format!("{path}/examples/0")).json();
    (shown, detail)
}

fn score<'a>(detail: &'a Value, name: &str) -> &'a Value {
    let scores = detail["scores"].as_array().unwrap();
    scores
        .iter()
        .find(|score| score["evaluator"] == name)
        .unwrap()
}

const SECRET: &str = "tool-secret-4f1c9e77";

fn programs_that_misbehave_are_unscored_and_credentials_stay_secret(place: Place) {
    let place = place.add_fake().with_key("editor");
    let programs = FakeProvider::start();
    place.fake.always(Answer::text("right"));
    let raw = |text: &str| {
        Answer::faulty(Fault::Raw(
            "application/json",
            vec![Bytes::from(text.to_owned())],
        ))
    };
    programs.when(
        "/good",
        raw(r#"{"score": 0.5, "label": "fine", "reason": "as told"}"#),
    );
    programs.when("/slow", Answer::faulty(Fault::StallBeforeHeaders));
    programs.when(
        "/huge",
        raw(&format!(
            "{{\"score\": 1, \"reason\": \"{}\"}}",
            "x".repeat(400_000)
        )),
    );
    programs.when("/prose", raw("I would say eight."));
    programs.when("/nan", raw(r#"{"score": NaN}"#));
    programs.when("/word", raw(r#"{"score": "high"}"#));
    programs.when("/refuses", raw(r#"{"unscored": "nothing to judge"}"#));
    programs.when("/fails", Answer::status(500, SECRET));
    programs.when("/forbids", Answer::status(403, "no"));
    let away = vec![("location", format!("{}/elsewhere", programs.url()))];
    programs.when(
        "/moved",
        Answer::faulty(Fault::Status(302, away, String::new())),
    );
    let program = |path: &str| json!({"type": "http", "url": format!("{}{path}", programs.url()), "timeout_ms": 800});
    let unscored = |detail: &Value, name: &str, words: &str| {
        let found = score(detail, name);
        assert_eq!(found["outcome"], "unscored", "{name}: {found:#}");
        let reason = found["reason"].as_str().unwrap();
        assert!(
            !reason.is_empty() && reason.contains(words),
            "{name}: {reason}"
        );
    };

    // An address of this machine or network is refused unless the operator allows it.
    let mut live = place.start();
    make_dataset(&live, &["a question"]);
    let (_, detail) = evaluate(&live, &[("good", program("/good"))]);
    unscored(&detail, "good", "not reached");
    assert!(programs.seen().is_empty(), "{:?}", programs.seen());
    live.signal("-TERM");
    live.wait();

    place.configure("[egress]\nallow_private_tools = true\n");
    let live = place.start_with(|command| {
        command.env("MEGURI_TOOL_JUDGE", SECRET);
    });
    let mut good = program("/good");
    good["credential"] = json!("env:MEGURI_TOOL_JUDGE");
    let mut missing = program("/good?missing");
    missing["credential"] = json!("env:MEGURI_TOOL_NOBODY");
    let mut evaluators = vec![("good", good), ("missing", missing)];
    let wrong = [
        ("slow", "not reached"),
        ("huge", ""),
        ("prose", "not JSON"),
        ("nan", "not JSON"),
        ("word", "no number"),
        ("refuses", "nothing to judge"),
        ("fails", "status 500"),
        ("forbids", "status 403"),
        ("moved", "status 302"),
    ];
    evaluators.extend(wrong.map(|(name, _)| (name, program(&format!("/{name}")))));
    let (shown, detail) = evaluate(&live, &evaluators);
    let found = score(&detail, "good");
    assert_eq!(
        (found["value"].as_f64(), &found["label"], &found["reason"]),
        (Some(0.5), &json!("fine"), &json!("as told")),
        "{found:#}"
    );
    for (name, words) in wrong {
        unscored(&detail, name, words);
    }
    unscored(&detail, "missing", "credential");
    // What was asked, how often: what fails for a moment is tried again, what is wrong is not.
    let seen = programs.seen();
    let asked = |path: &str| seen.iter().filter(|seen| seen.path == path).count();
    assert_eq!(
        (asked("/fails"), asked("/forbids"), asked("/moved")),
        (2, 1, 1)
    );
    assert_eq!((asked("/elsewhere"), asked("/good?missing")), (0, 0));
    let body = seen.iter().find(|seen| seen.path == "/good").unwrap();
    assert_eq!(
        body.headers["authorization"].to_str().unwrap(),
        format!("Bearer {SECRET}")
    );
    let given = body.json();
    assert_eq!(
        (&given["input"], &given["answer"]),
        (&json!("a question"), &json!("right"))
    );
    let others = seen.iter().filter(|seen| seen.path != "/good");
    assert!(
        others
            .clone()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );

    // The credential went out once and is nowhere else.
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let id = shown["evaluation"]["id"].as_str().unwrap();
    let page = browser
        .get(&format!("/default/evaluations/example?id={id}&place=0"))
        .text();
    for (what, text) in [
        ("the detail", detail.to_string()),
        ("the evaluation", shown.to_string()),
        ("the page", page),
        ("the log", place.log()),
    ] {
        assert!(!text.contains(SECRET), "{what} holds the credential");
    }
}
