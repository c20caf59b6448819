//! Calibration of judges over HTTP, with figures computed by hand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::harness::{Client, Live, Person, Place, encode, on_both_databases};

on_both_databases!(
    an_evaluations_judge_beside_gold_labels,
    versions_of_a_judge_beside_people_on_traces
);

fn verdict(verdict: &Value) -> Answer {
    Answer::text(json!({"reason": "because", "verdict": verdict}).to_string())
}

fn judge(mode: &str, more: Value) -> Value {
    let mut document = json!({
        "type": "judge", "model": "fake/fake-judge", "mode": mode, "allow_same_family": true,
        "criteria": [{"name": "quality", "description": "how good it is"}],
    });
    for (field, value) in more.as_object().unwrap() {
        document[field] = value.clone();
    }
    document
}

/// Runs a suite to its end.
fn evaluate(client: &Client, document: &Value) -> String {
    let reply = client.post("/api/v1/evaluations", &json!({"document": document}));
    assert_eq!(reply.status, 201, "{reply:?}");
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let shown = client.get(&format!("/api/v1/evaluations/{id}")).json();
        if shown["evaluation"]["state"] == "done" {
            return id;
        }
        assert!(Instant::now() < until, "not done: {shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn close(found: &Value, expected: f64) {
    let number = found.as_f64().unwrap_or(f64::NAN);
    assert!(
        (number - expected).abs() < 1e-6,
        "{found} is not {expected}"
    );
}

fn calibration(client: &Client, query: &str) -> Value {
    let reply = client.get(&format!("/api/v1/calibration?{query}"));
    assert_eq!(reply.status, 200, "{query}: {reply:?}");
    reply.json()
}

/// People said yes to five and no to five of what the judge saw; it disagrees once each.
/// Four more only the judge saw: three yes, one no.
fn an_evaluations_judge_beside_gold_labels(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let said = [
        "yes", "yes", "yes", "yes", "no", "yes", "no", "no", "no", "no", "yes", "yes", "yes", "no",
    ];
    place.fake.always(verdict(&json!("B")));
    let mut examples = Vec::new();
    for (index, judged) in said.iter().enumerate() {
        place
            .fake
            .when(format!("Q{index}?"), verdict(&json!(judged)));
        let mut example =
            json!({"id": format!("e{index}"), "input": format!("Q{index}?"), "metadata": {}});
        if index < 10 {
            example["metadata"]["human"] = json!(if index < 5 { "yes" } else { "no" });
        }
        examples.push(example);
    }
    // Whoever asks about pairs is answered that the first is better, whatever stands there.
    place.fake.when("how fair it is", verdict(&json!("A")));
    let made = live.post(
        "/api/v1/datasets",
        &json!({"name": "gold", "examples": examples}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let mut fair = judge("pairwise", json!({}));
    fair["criteria"][0]["description"] = json!("how fair it is");
    let document = json!({
        "dataset": "dataset:gold@latest",
        "candidates": [{"name": "one", "model": "fake/fake-large"}, {"name": "two", "model": "fake/fake-small"}],
        "evaluators": [
            {"name": "polite", "evaluator": judge("classify", json!({"labels": {"yes": 1, "no": 0}}))},
            {"name": "fair", "evaluator": fair},
        ],
    });
    let id = evaluate(&live, &document);
    let of = format!("evaluation={id}&evaluator=polite&against=metadata.human");
    let found = calibration(&live, &of);
    assert_eq!(found["scale"]["kind"], "labels", "{found:#}");
    assert_eq!(found["scale"]["categories"], json!(["no", "yes"]));
    let version = &found["versions"][0];
    // Both candidates got the same verdicts: every pair is there twice.
    assert_eq!(
        (&version["pairs"], &version["judged"]),
        (&json!(20), &json!(28)),
        "{found:#}"
    );
    assert_eq!(version["confusion"], json!([[8, 2], [2, 8]]));
    // p_o = 0.8, p_e = 0.5: κ = 0.6.
    close(&version["agreement"]["value"], 0.8);
    close(&version["kappa"]["value"], 0.6);
    assert!(version["kappa"]["low"].as_f64().unwrap() < 0.6);
    // 40 values, 20 of each label, 4 of 20 pairs differ: α = 1 − 39·4/(20·20).
    close(&version["alpha"], 1.0 - 39.0 * 4.0 / 400.0);
    close(&version["bias"]["value"], 0.0);
    assert_eq!(version["is_baseline"], false, "20 pairs are too few");
    // Raw 8/14. λ = (1.5/9)/((1 + 10/4)·(24/7)/13), and 0.5 + λ·(0.75 − 0.5).
    let headline = &version["headlines"][0];
    assert_eq!(
        (
            &headline["candidate"],
            &headline["labelled"],
            &headline["unlabelled"]
        ),
        (&json!("one"), &json!(10), &json!(4))
    );
    close(&headline["raw"]["value"], 8.0 / 14.0);
    close(&headline["people"]["value"], 0.5);
    let trust = (1.5 / 9.0) / (3.5 * (24.0 / 7.0 / 13.0));
    close(&headline["trust"], trust);
    close(&headline["corrected"]["value"], 0.5 + trust * 0.25);
    assert!(headline["corrected"]["low"].as_f64().unwrap() < 0.5);

    // A judge of pairs that prefers the first place: no pair is the same both times.
    let pairs = calibration(
        &live,
        &format!("evaluation={id}&evaluator=fair&against=expected"),
    );
    let swap = &pairs["versions"][0]["swap"];
    assert_eq!(
        (
            &swap["pairs"],
            &swap["consistent"],
            &swap["first_place"],
            &swap["second_place"]
        ),
        (&json!(14), &json!(0), &json!(14), &json!(0)),
        "{pairs:#}"
    );
    close(&swap["place_p_value"], 2.0 * 0.5_f64.powi(14));

    refusals(&place, &live, &id);
    let browser = live.browser_of(&place.add_person("default", "viewer"));
    for query in [
        of.as_str(),
        &format!("evaluation={id}"),
        "evaluator=fair",
        &of.replace("polite", "fair"),
    ] {
        let page = browser.get(&format!("/default/calibration?{query}"));
        assert_eq!(page.status, 200, "{query}: {}", page.text());
    }
    let page = browser.get(&format!("/default/calibration?{of}")).text();
    assert!(
        page.contains("0.60") && page.contains("55") && page.contains("80 %"),
        "{page}"
    );
    let linked = browser
        .get(&format!("/default/evaluations/show?id={id}"))
        .text();
    let linked = linked.replace("&#x2f;", "/");
    assert!(
        linked.contains("/default/calibration?evaluation="),
        "{linked}"
    );
}

fn refusals(place: &Place, live: &Live, id: &str) {
    let status = |query: &str| live.get(&format!("/api/v1/calibration?{query}")).refusal();
    let wrong = |code: &str| (400, code.to_owned());
    assert_eq!(status("evaluator=a&against=score:"), wrong("bad_against"));
    assert_eq!(status("evaluator=a&against=expected"), wrong("bad_against"));
    assert_eq!(
        status(&format!("evaluation={id}&evaluator=none&against=expected")),
        wrong("no_such_evaluator")
    );
    assert_eq!(
        status("evaluation=none&evaluator=polite&against=expected").0,
        404
    );
    assert_eq!(
        status("evaluator=a&against=score:x&judge_at_least=NaN").0,
        400
    );
    place.add_project("other");
    let other = live.with_key(&place.make_key("other", "admin").1);
    let query = format!("/api/v1/calibration?evaluation={id}&evaluator=polite&against=expected");
    assert_eq!(other.get(&query).status, 404);
    let empty = calibration(&other, "evaluator=polite&against=score:quality");
    assert_eq!(empty["versions"], json!([]));
}

fn rate(live: &Live, person: &Person, trace: &str, name: &str, value: i64) {
    let browser = live.browser_of(person);
    let body = json!({"trace_id": trace, "name": name, "value": value});
    let call = browser
        .call("POST", "/api/v1/scores")
        .header("x-meguri-project", "default");
    let reply = call.json(&body).send();
    assert_eq!(reply.status, 201, "{reply:?}");
}

/// The judge gives 5, 4, 2, 1. Two people give 5 5, 3 3, 2 –, 1 2.
fn versions_of_a_judge_beside_people_on_traces(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let people = [
        place.add_person("default", "editor"),
        place.add_person("default", "editor"),
    ];
    place.fake.always(verdict(&json!("B")));
    let grades = [5, 4, 2, 1];
    let mut examples = Vec::new();
    for (index, grade) in grades.iter().enumerate() {
        place
            .fake
            .when(format!("Q{index}?"), verdict(&json!(grade)));
        examples.push(json!({"id": format!("e{index}"), "input": format!("Q{index}?")}));
    }
    let made = live.post(
        "/api/v1/datasets",
        &json!({"name": "open", "examples": examples}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let name = "quality/judge";
    let save = |more: Value| {
        let path = format!("/api/v1/catalog/evaluator/{}/versions", encode(name));
        let reply = live.post(&path, &json!({"content": judge("score", more)}));
        assert!(reply.status < 300, "{reply:?}");
    };
    save(json!({"scale": {"min": 1, "max": 5}}));
    let document = json!({
        "dataset": "dataset:open@latest", "candidates": [{"name": "one", "model": "fake/fake-large"}],
        "evaluators": [format!("evaluator:{name}@latest")],
    });
    let id = evaluate(&live, &document);
    let traces: Vec<String> = (0..4)
        .map(|place| {
            let shown = live
                .get(&format!("/api/v1/evaluations/{id}/examples/{place}"))
                .json();
            shown["answers"][0]["trace"].as_str().unwrap().to_owned()
        })
        .collect();
    for (trace, grade) in traces.iter().zip([5, 3, 2, 1]) {
        rate(&live, &people[0], trace, "quality", grade);
    }
    // The first thought does not count: people may change their mind.
    rate(&live, &people[1], &traces[0], "quality", 1);
    for (at, grade) in [(0, 5), (1, 3), (3, 2)] {
        rate(&live, &people[1], &traces[at], "quality", grade);
    }
    let of = format!("evaluator={}&against=score:quality", encode(name));
    let found = calibration(&live, &of);
    assert_eq!(found["scale"]["kind"], "grades", "{found:#}");
    let version = &found["versions"][0];
    assert_eq!(
        (
            &version["version"],
            &version["current"],
            &version["pairs"],
            &version["raters"]
        ),
        (&json!(1), &json!(true), &json!(4), &json!(2)),
        "{found:#}"
    );
    // People: 5, 3, 2 and 2 (of 1 and 2 the higher); p_o = 2/4, p_e = (1·1 + 2·1)/16.
    close(&version["agreement"]["value"], 0.5);
    close(
        &version["kappa"]["value"],
        (0.5 - 3.0 / 16.0) / (1.0 - 3.0 / 16.0),
    );
    // Squares: 1 + 1 observed, 64/4 expected.
    close(&version["weighted_kappa"]["value"], 1.0 - 2.0 / 16.0);
    // Judge less the people's mean: 0, 1, 0, −½.
    close(&version["bias"]["value"], 0.125);
    // Everything is labelled: there is nothing to infer.
    let headline = &version["headlines"][0];
    close(&headline["raw"]["value"], 3.0);
    close(
        &headline["corrected"]["value"],
        (5.0 + 3.0 + 2.0 + 1.5) / 4.0,
    );
    // People among themselves: three traces with two.
    assert!(
        version["alpha_people"].as_f64().unwrap() > 0.7,
        "{version:#}"
    );

    // Thumbs are another language: yes and no, with thresholds. A thumb taken back is none.
    for (trace, thumb) in traces.iter().zip([1, 1, -1, 1]) {
        rate(&live, &people[0], trace, "thumbs", thumb);
    }
    let taken = live.post(
        "/api/v1/scores",
        &json!({"trace_id": traces[0], "name": "thumbs", "value": 0}),
    );
    assert_eq!(taken.status, 201, "{taken:?}");
    let thumbs = calibration(
        &live,
        &format!("evaluator={}&against=score:thumbs", encode(name)),
    );
    assert_eq!(
        (
            &thumbs["scale"]["kind"],
            &thumbs["scale"]["judge_at_least"],
            &thumbs["scale"]["people_at_least"]
        ),
        (&json!("pass"), &json!(3.0), &json!(0.0)),
        "{thumbs:#}"
    );
    // Rows are people, columns the judge: no/no 1, yes/no 1, yes/yes 2; p_o = ¾, p_e = ½.
    assert_eq!(thumbs["versions"][0]["confusion"], json!([[1, 0], [1, 2]]));
    close(&thumbs["versions"][0]["kappa"]["value"], 0.5);
    let strict = calibration(
        &live,
        &format!(
            "evaluator={}&against=score:thumbs&judge_at_least=5",
            encode(name)
        ),
    );
    assert_eq!(strict["versions"][0]["confusion"], json!([[1, 0], [2, 1]]));

    // A changed judge begins anew, and the old baseline stands beside it.
    save(json!({"scale": {"min": 1, "max": 5}, "anchors": {"5": "complete"}}));
    let beside = calibration(&live, &of);
    let versions = beside["versions"].as_array().unwrap();
    let numbers: Vec<&Value> = versions.iter().map(|one| &one["version"]).collect();
    assert_eq!(numbers, [&json!(2), &json!(1)], "{beside:#}");
    assert_eq!(
        (
            &versions[0]["pairs"],
            &versions[0]["current"],
            &versions[0]["kappa"]
        ),
        (&json!(0), &json!(true), &Value::Null)
    );
    assert_eq!(versions[1]["pairs"], 4);
    assert_ne!(versions[0]["digest"], versions[1]["digest"]);
    let again = evaluate(&live, &document);
    let both = calibration(
        &live,
        &format!(
            "evaluation={again}&evaluator={}&against=score:quality",
            encode(name)
        ),
    );
    let versions = both["versions"].as_array().unwrap();
    assert_eq!(
        (
            versions.len(),
            &versions[0]["version"],
            &versions[1]["version"]
        ),
        (2, &json!(2), &json!(1)),
        "{both:#}"
    );

    let browser = live.browser_of(&people[0]);
    let page = browser.get(&format!("/default/calibration?{of}"));
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("0 of the 30 pairs"), "{}", page.text());
    let editor = browser
        .get(&format!("/default/evaluators/edit?name={}", encode(name)))
        .text();
    assert!(
        editor
            .replace("&#x2f;", "/")
            .contains("/default/calibration?evaluator="),
        "{editor}"
    );
}
