//! Transforms of datasets, test files of other tools, and how scores are spread.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::harness::{Client, Live, Place, encode, on_both_databases};

on_both_databases!(
    texts_are_prepared_with_a_preview,
    a_test_file_becomes_a_suite_that_runs
);

const NAME: &str = "texts/質問";

fn path(rest: &str) -> String {
    format!("/api/v1/datasets/{}{rest}", encode(NAME))
}

fn example(client: &Client, id: &str) -> Value {
    client.get(&path(&format!("/examples/{id}"))).json()
}

fn make(live: &Live) {
    let filler = |n: usize| json!({"id": format!("f{n}"), "input": {"q": "same as before"}});
    let mut examples = vec![
        json!({"id": "a", "input": {"q": "Ｈｅｌｌｏ　 RUNNING Dogs", "n": 1}, "split": "test"}),
        json!({"id": "b", "input": {"q": "連絡先は 葵@例 ではなく aoi.tanaka@example.co.jp、電話は０９０－１２３４－５６７８です。"}}),
        json!({"id": "c", "input": "no such field"}),
    ];
    examples.extend((0..300).map(filler));
    let made = live.post(
        "/api/v1/datasets",
        &json!({"name": NAME, "examples": examples}),
    );
    assert_eq!(made.status, 201, "{made:?}");
}

fn texts_are_prepared_with_a_preview(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    make(&live);
    let transform = json!({
        "field": "/input/q", "steps": ["nfkc", "lower", "whitespace", "stem:porter"],
        "facts": ["language", "words", "tokens:unicode-word"], "mark": ["email", "phone"],
    });
    let preview = live.post(
        &path("/transform/preview"),
        &json!({"transform": transform, "rows": 2}),
    );
    assert_eq!(preview.status, 200, "{preview:?}");
    let preview = preview.json();
    assert_eq!(
        (&preview["examples"], &preview["with_field"]),
        (&json!(303), &json!(302))
    );
    assert_eq!(preview["items"].as_array().unwrap().len(), 2);
    assert_eq!(preview["items"][0]["after"], "hello run dog");
    assert_eq!(preview["items"][0]["metadata"]["words"], 3);
    assert_eq!(preview["marks"], json!({"email": 1, "phone": 1}));
    assert_eq!(preview["after"]["least"], 13, "{preview:#}");
    // Nothing was changed by looking.
    assert_eq!(live.get(&path("")).json()["version"], 1);

    let saved = live.post(
        &path("/transform"),
        &json!({"transform": transform, "base": 1}),
    );
    assert_eq!(saved.status, 201, "{saved:?}");
    let saved = saved.json();
    assert_eq!(
        (&saved["version"], &saved["changed"]),
        (&json!(2), &json!(302))
    );
    let a = example(&live, "a");
    assert_eq!(a["input"], json!({"q": "hello run dog", "n": 1}));
    assert_eq!(a["split"], "test");
    let history = live.get(&path("/versions")).json();
    let message = history["items"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("/input/q") && message.contains("stem:porter"),
        "{message}"
    );
    assert_eq!(example(&live, "c")["input"], "no such field");

    // Marks alone leave the text as it is, and stand on its characters.
    let marks = json!({"transform": {"field": "/input", "mark": ["email", "phone"]}});
    let before = live.get(&path("/examples/b?version=1")).json();
    let live_b = example(&live, "b");
    let marked: Vec<(String, String)> = live_b["marks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mark| {
            let text = live_b
                .pointer(mark["path"].as_str().unwrap())
                .unwrap()
                .as_str()
                .unwrap();
            let at = |key: &str| usize::try_from(mark[key].as_u64().unwrap()).unwrap();
            let covered = text
                .chars()
                .skip(at("start"))
                .take(at("end") - at("start"))
                .collect();
            (mark["kind"].as_str().unwrap().to_owned(), covered)
        })
        .collect();
    assert_eq!(
        marked[0],
        ("email".to_owned(), "aoi.tanaka@example.co.jp".to_owned())
    );
    assert_eq!(marked[1].0, "phone");
    assert_eq!(
        live_b["metadata"]["personal_data"],
        json!({"email": 1, "phone": 1})
    );
    assert_eq!(before["marks"], Value::Null);
    // What is marked already is not marked twice.
    let again = live.post(&path("/transform/preview"), &marks).json();
    assert_eq!(again["marks"], json!({}), "{again:#}");

    // The text can stay, and its new form go beside it.
    let into = json!({"transform": {"field": "/input/q", "steps": ["cut:3"], "into": "beginning", "split": "test"}});
    assert_eq!(live.post(&path("/transform"), &into).json()["changed"], 1);
    let a = example(&live, "a");
    assert_eq!(
        (&a["metadata"]["beginning"], &a["input"]["q"]),
        (&json!("hel"), &json!("hello run dog"))
    );

    for (wrong, at) in [
        (json!({"field": "input", "steps": ["lower"]}), "field"),
        (json!({"field": "/input", "steps": ["shout"]}), "steps[0]"),
        (json!({"field": "/input", "facts": ["beauty"]}), "facts[0]"),
        (json!({"field": "/input", "mark": ["name"]}), "mark[0]"),
        (
            json!({"field": "/input", "steps": ["tokenise:ja-mecab"]}),
            "steps[0]",
        ),
        (json!({"field": "/input"}), "steps"),
    ] {
        let reply = live.post(&path("/transform"), &json!({"transform": wrong}));
        assert_eq!(
            (reply.status, &reply.json()["error"]["at"]),
            (400, &json!(at)),
            "{reply:?}"
        );
    }
    let late = live.post(
        &path("/transform"),
        &json!({"transform": {"field": "/input", "steps": ["lower"]}, "base": 1}),
    );
    assert_eq!(late.status, 409, "{late:?}");

    let person = live.browser_of(&place.add_person("default", "editor"));
    let page = person.get(&format!(
        "/default/datasets/transform?name={}&field=/input/q&step1=cut:2&mark_email=1",
        encode(NAME)
    ));
    assert_eq!(page.status, 200, "{page:?}");
    assert!(
        page.text().contains("cut:2") && page.text().contains("same as befor<"),
        "{}",
        page.text()
    );
}

const TESTS: &str = r#"
description: capitals
prompts:
  - "What is the capital of {{country}}?"
  - file://other.txt
providers:
  - fake:fake-large
  - exec:./run.sh
defaultTest:
  assert:
    - type: not-icontains
      value: sorry
tests:
  - description: the easy one
    vars: {country: Italy}
    assert:
      - type: icontains
        value: rome
      - type: regex
        value: "^[A-Z]"
      - type: javascript
        value: output.length < 10
      - type: latency
        threshold: 100
  - vars: {country: Japan}
    assert:
      - {type: contains-any, value: [Tokyo, 東京]}
      - {type: equals, value: "The capital of {{country}} is Tokyo (東京)."}
      - {type: llm-rubric, value: is polite}
      - {type: not-is-json}
  - vars: {country: France}
    assert:
      - type: starts-with
        value: Paris
      - type: regex
        value: "(?=x)"
  - vars: {}
"#;

fn wait(client: &Client, id: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let shown = client.get(&format!("/api/v1/evaluations/{id}")).json();
        if shown["evaluation"]["state"] == "done" {
            return shown;
        }
        assert!(Instant::now() < until, "{shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn a_test_file_becomes_a_suite_that_runs(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    place.fake.always(Answer::text("I do not know."));
    place.fake.when("Italy", Answer::text("It is Rome."));
    place.fake.when(
        "Japan",
        Answer::text("The capital of Japan is Tokyo (東京)."),
    );
    place.fake.when("France", Answer::text("Sorry, Paris."));
    let imported = live.post(
        "/api/v1/evaluations/import",
        &json!({"name": "capitals", "text": TESTS}),
    );
    assert_eq!(imported.status, 201, "{imported:?}");
    let imported = imported.json();
    assert_eq!(
        (&imported["examples"], &imported["suite"]),
        (&json!(3), &json!("capitals"))
    );
    assert_eq!(imported["candidates"], json!(["fake/fake-large"]));
    assert_eq!(imported["evaluators"], json!(["assertions", "regex 1"]));
    let places: Vec<&str> = imported["notes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| note["at"].as_str().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "tests[0].assert[2]",
            "tests[0].assert[3]",
            "tests[1].assert[2]",
            "tests[2].assert[1]",
            "tests[3]",
            "providers[1]",
            "prompts[1]",
        ],
        "{imported:#}"
    );

    let started = live.post("/api/v1/evaluations", &json!({"suite": "capitals"}));
    assert_eq!(started.status, 201, "{started:?}");
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let shown = wait(&live, &id);
    let cell = &shown["results"]["evaluators"][0]["cells"][0];
    assert_eq!(
        (&cell["scored"], &cell["unscored"]),
        (&json!(3), &json!(0)),
        "{shown:#}"
    );
    let pattern = &shown["results"]["evaluators"][1]["cells"][0];
    assert_eq!(
        (&pattern["scored"], &pattern["value"]),
        (&json!(3), &json!(1.0))
    );
    // Rome begins with a capital; Tokyo is as it is told; "Sorry" is refused by the default.
    assert!(
        (cell["value"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9,
        "{cell}"
    );

    let spread = live
        .get(&format!("/api/v1/evaluations/{id}/distributions"))
        .json();
    assert_eq!(spread["items"][0]["edges"], json!([0.0, 1.0]));
    assert_eq!(spread["items"][0]["candidates"][0]["counts"], json!([1, 2]));
    let person = live.browser_of(&place.add_person("default", "editor"));
    for (lang, says) in [
        ("en", "3 scored, from 0.000 to 1.000"),
        ("ja", "3 件を採点"),
    ] {
        person.form("/preferences", &[("lang", lang)]);
        let page = person.get(&format!("/default/evaluations/show?id={id}"));
        assert_eq!(page.status, 200, "{page:?}");
        let text = page.text().replace(['\u{2068}', '\u{2069}'], "");
        assert!(text.contains("spread-bar") && text.contains(says), "{text}");
    }
}

/// Rows of OpenAI's files, by the route and by the command line; what cannot be read.
#[test]
fn rows_of_openai_evals_become_a_suite() {
    let place = Place::new().with_key("editor");
    let rows = [
        json!({"input": [{"role": "user", "content": "1+1"}], "ideal": "2"}),
        json!({"input": [{"role": "user", "content": "a (or b)?"}], "ideal": ["a (x)", "b"]}),
        json!({"item": {"input": "2+2", "ground_truth": "4", "level": "easy"}}),
    ];
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let file = place.beside("arithmetic.jsonl");
    std::fs::write(&file, &text).unwrap();
    let ended = place.run(
        place
            .command()
            .args(["eval", "import", "--model", "fake/fake-large", "--json"])
            .arg(&file)
            .args(place.place_args()),
    );
    ended.assert_done();
    let live = place.start();
    place.fake.always(Answer::text("4 of course"));
    place.fake.when("1+1", Answer::text("two"));
    place.fake.when("a (or b)?", Answer::text("a (x), I think"));
    let examples = live.get("/api/v1/datasets/arithmetic/examples").json();
    assert_eq!(examples["items"][2]["expected"], "4");
    assert_eq!(examples["items"][2]["metadata"]["level"], "easy");
    let started = live
        .post("/api/v1/evaluations", &json!({"suite": "arithmetic"}))
        .json();
    let shown = wait(&live, started["id"].as_str().unwrap());
    let cell = &shown["results"]["evaluators"][0]["cells"][0];
    assert!(
        (cell["value"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9,
        "{shown:#}"
    );

    let import = |body: Value| live.post("/api/v1/evaluations/import", &body);
    // The same file again: the same examples under the same ids, and no new version.
    let again =
        import(json!({"name": "arithmetic", "text": text, "model": "fake/fake-large"})).json();
    assert_eq!(
        (&again["dataset_version"], &again["suite_version"]),
        (&json!(1), &json!(1)),
        "{again:#}"
    );
    let contains = import(
        json!({"name": "other", "text": text, "model": "fake/fake-large", "compare": "includes"}),
    )
    .json();
    assert_eq!(contains["evaluators"], json!(["includes"]));
    let bare = import(json!({"name": "bare", "text": text})).json();
    assert_eq!(
        (&bare["suite"], bare["notes"].as_array().unwrap().len()),
        (&Value::Null, 1)
    );
    for (text, code) in [
        ("{\"input\": 1}\nnot json", "unreadable_file"),
        ("tests: []", "no_tests"),
        ("a: [", "unreadable_file"),
        ("tests: file://x.csv", "unreadable_file"),
    ] {
        let reply = import(json!({"name": "bad", "text": text}));
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, code),
            "{text}: {reply:?}"
        );
    }
    assert_eq!(live.get("/api/v1/datasets/bad").status, 404);
}
