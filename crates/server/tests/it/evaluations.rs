//! Evaluations over HTTP: started, scored, compared, held, killed, gone on with, gated.

use std::time::{Duration, Instant};

use bytes::Bytes;
use db::sqlx::{Row as _, query};
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::apps;
use crate::harness::{Client, Live, Place, encode, on_both_databases};

on_both_databases!(
    candidates_are_compared_and_their_gates_tell_the_board,
    what_a_killed_worker_had_paid_for_is_not_paid_again,
    an_evaluation_is_held_let_go_on_and_stopped,
    a_budget_holds_and_a_provider_is_given_its_time,
    judges_that_fail_say_nothing_and_biased_ones_tie,
    answers_are_kept_and_repetitions_are_not,
    an_app_is_a_candidate_by_its_release,
    documents_are_checked_where_they_are_wrong
);

const DATASET: &str = "support/questions";

/// A dataset of this many questions, whose answer is `right`; every second one is hard.
fn make_dataset(client: &Client, count: usize) {
    let examples: Vec<Value> = (0..count)
        .map(|index| {
            let level = if index % 2 == 0 { "easy" } else { "hard" };
            json!({
                "id": format!("e{index}"), "input": format!("Q{index}? {level}"), "expected": "right",
                "metadata": {"level": level}, "split": if index % 4 == 3 { "train" } else { "test" },
            })
        })
        .collect();
    let reply = client.post(
        "/api/v1/datasets",
        &json!({"name": DATASET, "examples": examples}),
    );
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn exact() -> Value {
    json!({"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}})
}

fn model(name: &str, model: &str) -> Value {
    json!({"name": name, "model": model})
}

fn suite(candidates: Value, evaluators: Value) -> Value {
    json!({"dataset": format!("dataset:{DATASET}@latest"), "candidates": candidates, "evaluators": evaluators})
}

fn start(client: &Client, document: &Value) -> String {
    let reply = client.post("/api/v1/evaluations", &json!({"document": document}));
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn path(id: &str, rest: &str) -> String {
    format!("/api/v1/evaluations/{id}{rest}")
}

/// Waits until the evaluation is in this state.
fn wait(client: &Client, id: &str, state: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let shown = client.get(&path(id, "")).json();
        let now = &shown["evaluation"];
        if now["state"] == state {
            return shown;
        }
        let over = ["failed", "stopped", "done"]
            .iter()
            .any(|end| now["state"] == *end);
        assert!(!over && Instant::now() < until, "not {state}: {shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn close(value: &Value, expected: f64) {
    let found = value.as_f64().unwrap_or(f64::NAN);
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

/// How often the provider was asked a question.
fn asked(place: &Place, question: &str) -> usize {
    let seen = place.fake.seen();
    let holds =
        |seen: &&testkit::provider::Seen| String::from_utf8_lossy(&seen.body).contains(question);
    seen.iter().filter(holds).count()
}

fn candidates_are_compared_and_their_gates_tell_the_board(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 40);
    place.fake.always(Answer::text("right"));
    place.fake.when("Answer badly", Answer::text("wrong"));
    // The newest rule counts: the bad prompt answers easy questions well.
    for index in (0..40).step_by(2) {
        place
            .fake
            .when(format!("Q{index}? easy"), Answer::text("right"));
    }
    for (name, text) in [("good", "Answer well."), ("bad", "Answer badly.")] {
        let content =
            json!({"messages": [{"role": "system", "content": text}], "model": "fake/fake-large"});
        let reply = live.post(
            "/api/v1/prompts",
            &json!({"name": name, "content": content}),
        );
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let mut document = suite(
        json!([{"name": "good", "prompt": "prompt:good@1"}, {"name": "bad", "prompt": "prompt:bad@1"}]),
        json!([exact()]),
    );
    document["gate"] = json!([{"evaluator": "exact", "not_worse_by": 0.1}, {"evaluator": "exact", "candidate": "good", "at_least": 0.8}]);
    document["concurrency"] = json!(8);
    let saved = live.post(
        &format!(
            "/api/v1/catalog/suite/{}/versions",
            encode("support/quality")
        ),
        &json!({"content": document}),
    );
    assert!(saved.status == 201 || saved.status == 200, "{saved:?}");
    let started = live.post("/api/v1/evaluations", &json!({"suite": "support/quality"}));
    assert_eq!(started.status, 201, "{started:?}");
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let shown = wait(&live, &id, "done");

    let counters = &shown["evaluation"]["counters"];
    assert_eq!(
        (&counters["answers_ok"], &counters["scores_ok"]),
        (&json!(80), &json!(80)),
        "{shown:#}"
    );
    let cells = &shown["results"]["evaluators"][0]["cells"];
    close(&cells[0]["value"], 1.0);
    close(&cells[1]["value"], 0.5);
    assert_eq!(cells[0]["interval"], "wilson");
    close(&cells[1]["coverage"], 1.0);
    assert_eq!(cells[1]["comparison"]["verdict"], "worse", "{cells:#}");
    close(&cells[1]["comparison"]["difference"], -0.5);
    let figures = &shown["results"]["candidates"][0];
    assert_eq!(figures["answers"], 40);
    assert!(figures["p95_latency_ms"].as_f64().unwrap() > 0.0);

    // The gates: the bad prompt fails, the good one holds, and the board hears of both.
    let gates = &shown["evaluation"]["gates"];
    assert_eq!(gates[0]["outcome"], "fail", "{gates:#}");
    assert_eq!(gates[1]["outcome"], "pass", "{gates:#}");
    let evidence = live.get("/api/v1/evidence?kind=prompt&name=bad").json();
    let found = &evidence["items"][0];
    assert_eq!(
        (&found["gate"], &found["outcome"]),
        (&json!("support/quality"), &json!("fail")),
        "{evidence:#}"
    );
    assert!(
        found["detail"]["evaluators"][0]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );

    // The worst examples come first, with both traces; the score stands on the trace.
    let examples = live.get(&path(&id, "/examples?candidate=bad")).json();
    assert_eq!(examples["total"], 40);
    assert_eq!(
        (
            &examples["items"][0]["gain"],
            &examples["items"][0]["place"]
        ),
        (&json!(-1.0), &json!(1))
    );
    let detail = live.get(&path(&id, "/examples/1")).json();
    assert_eq!(detail["answers"].as_array().unwrap().len(), 2);
    let bad = detail["answers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|answer| answer["candidate"] == "bad")
        .unwrap();
    assert_eq!(
        (&bad["text"], &bad["attempts"]),
        (&json!("wrong"), &json!(1))
    );
    let trace = bad["trace"].as_str().unwrap();
    let scores = live.get(&format!("/api/v1/scores?trace_id={trace}")).json();
    assert_eq!(scores["items"][0]["name"], "exact", "{scores:#}");
    close(&scores["items"][0]["value"], 0.0);
    let found = live
        .get(&format!(
            "/api/v1/traces?filter={}",
            encode(&format!("tag.evaluation = \"{id}\""))
        ))
        .json();
    assert!(!found["items"].as_array().unwrap().is_empty(), "{found:#}");

    // Slices tell where it is worse; other projects' people see nothing.
    let slices = live.get(&path(&id, "/slices?field=level")).json();
    let slice = |value: &str| {
        slices["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|slice| slice["value"] == value)
            .unwrap()
    };
    close(&slice("hard")["means"][1], 0.0);
    close(&slice("easy")["means"][1], 1.0);
    assert_eq!(slice("hard")["comparisons"][1]["verdict"], "worse");
    place.add_project("other");
    let other = live.with_key(&place.make_key("other", "admin").1);
    assert_eq!(other.get(&path(&id, "")).status, 404);
    assert_eq!(other.get(&path(&id, "/examples/1")).status, 404);

    // The pages, for people.
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let text = |path: &str| {
        let reply = browser.get(path);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        // Templates escape slashes too.
        reply.text().replace("&#x2f;", "/")
    };
    assert!(text("/default/evaluations").contains("support/quality"));
    let page = text(&format!("/default/evaluations/show?id={id}&field=level"));
    assert!(page.contains("Worse by") && page.contains("hard"), "{page}");
    assert!(
        text(&format!(
            "/default/evaluations/example?id={id}&place=1&candidate=bad"
        ))
        .contains("Q1? hard")
    );
    assert!(text("/default/evaluations/new").contains("support/quality"));
    assert!(text("/default/evaluators/edit?type=judge").contains("criterion1"));
    let begun = browser.form(
        "/default/evaluations",
        &[
            ("action", "start"),
            ("dataset", DATASET),
            ("limit", "2"),
            ("name1", "one"),
            ("model1", "fake/fake-large"),
            ("e1", "metric:exact-match"),
        ],
    );
    assert_eq!(begun.status, 303, "{}", begun.text());
}

/// Makes the lease of every running job end now, as if its worker had died long ago.
fn end_leases(place: &Place) {
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        query("UPDATE jobs SET lease_until = 0 WHERE state = 'leased'")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    });
}

/// Waits until the provider was asked this often.
fn wait_for_calls(place: &Place, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while place.fake.seen().len() < count {
        assert!(
            Instant::now() < until,
            "{} calls came",
            place.fake.seen().len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn what_a_killed_worker_had_paid_for_is_not_paid_again(place: Place) {
    let place = place.add_fake().with_key("editor");
    let mut live = place.start();
    make_dataset(&live, 12);
    place.fake.always(Answer::text("right"));
    // One call never comes back, so that the worker dies in the middle of it.
    place
        .fake
        .when("Q5?", Answer::faulty(Fault::StallBeforeHeaders));
    let mut document = suite(json!([model("one", "fake/fake-large")]), json!([exact()]));
    document["concurrency"] = json!(2);
    // Only telemetry can know what was paid for.
    document["cache"] = json!(false);
    let id = start(&live, &document);
    wait_for_calls(&place, 12);
    live.wait_for(&path(&id, ""), |shown| {
        shown["evaluation"]["counters"]["answers_ok"] == 11
    });
    live.signal("-KILL");
    live.wait();
    // As if the last results had reached telemetry, but not the database any more.
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        for table in ["evaluation_answers", "evaluation_scores"] {
            let statement = match table {
                "evaluation_answers" => "DELETE FROM evaluation_answers WHERE place >= 8",
                _ => "DELETE FROM evaluation_scores WHERE place >= 6",
            };
            query(statement).execute(tx.conn()).await.unwrap();
        }
        query("UPDATE evaluations SET answers_ok = 7, scores_ok = 5")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    });
    end_leases(&place);
    place.fake.when("Q5?", Answer::text("right"));
    let live = place.start();
    let shown = wait(&live, &id, "done");
    assert_eq!(
        shown["evaluation"]["counters"]["answers_ok"], 12,
        "{shown:#}"
    );
    assert_eq!(shown["evaluation"]["counters"]["scores_ok"], 12);
    assert_eq!(shown["results"]["evaluators"][0]["cells"][0]["scored"], 12);
    for index in 0..12 {
        // Only the call that nobody knows the end of was made again.
        let times = if index == 5 { 2 } else { 1 };
        assert_eq!(asked(&place, &format!("Q{index}?")), times, "Q{index}");
    }
    let detail = live.get(&path(&id, "/examples/9")).json();
    assert_eq!(detail["answers"][0]["text"], "right");

    // Two workers on one evaluation: the lease of a living one is taken away. Clocks decided
    // that; the fence decides whose results count, and each cell counts once.
    place
        .fake
        .when("Q7?", Answer::faulty(Fault::StallBeforeHeaders));
    let before = place.fake.seen().len();
    let second = start(&live, &document);
    wait_for_calls(&place, before + 12);
    end_leases(&place);
    place.fake.when("Q7?", Answer::text("right"));
    let shown = wait(&live, &second, "done");
    assert_eq!(
        shown["evaluation"]["counters"]["answers_ok"], 12,
        "{shown:#}"
    );
    assert_eq!(shown["evaluation"]["counters"]["scores_ok"], 12);
}

fn an_evaluation_is_held_let_go_on_and_stopped(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 30);
    place.fake.always(Answer {
        pace: Duration::from_millis(50),
        ..Answer::text("right")
    });
    place
        .fake
        .when("Q3?", Answer::faulty(Fault::StallBeforeHeaders));
    let mut document = suite(json!([model("one", "fake/fake-large")]), json!([exact()]));
    document["concurrency"] = json!(1);
    let id = start(&live, &document);
    wait_for_calls(&place, 4);
    let held = live.post(&path(&id, "/pause"), &json!({"reason": "too early"}));
    assert_eq!(held.json()["state"], "paused", "{held:?}");
    assert_eq!(
        live.post(&path(&id, "/pause"), &json!({})).refusal(),
        (409, "wrong_state".to_owned())
    );
    // While it is held the dataset and its name go away; what was pinned stays.
    assert_eq!(
        live.delete(&format!("/api/v1/datasets/{}", encode(DATASET)))
            .status,
        204
    );
    assert_eq!(place.fake.seen().len(), 4, "nothing more was begun");
    place.fake.when("Q3?", Answer::text("right"));
    // The call that hangs is given up by its worker's end; the others go on after it.
    end_leases(&place);
    let resumed = live.post(&path(&id, "/resume"), &json!({}));
    assert_eq!(resumed.status, 200, "{resumed:?}");
    let shown = wait(&live, &id, "done");
    assert_eq!(
        shown["evaluation"]["counters"]["answers_ok"], 30,
        "{shown:#}"
    );
    assert_eq!(asked(&place, "Q2?"), 1);
    assert_eq!(
        live.post(&path(&id, "/stop"), &json!({})).refusal(),
        (409, "wrong_state".to_owned())
    );
    assert_eq!(live.post(&path("none", "/stop"), &json!({})).status, 404);

    // Progress is told as it happens, and its end too.
    let mut stream = live.call("GET", &path(&id, "/events")).open();
    let told = crate::harness::read_until(&mut stream, "event: end");
    assert!(told.contains("\"state\":\"done\""), "{told}");

    make_dataset_again(&live);
    place
        .fake
        .when("again", Answer::faulty(Fault::StallBeforeHeaders));
    let document = suite(json!([model("one", "fake/fake-large")]), json!([exact()]));
    let id = start(&live, &document);
    let stopped = live.post(&path(&id, "/stop"), &json!({"reason": "a mistake"}));
    assert_eq!(
        (&stopped.json()["state"], &stopped.json()["reason"]),
        (&json!("stopped"), &json!("a mistake"))
    );
}

fn make_dataset_again(client: &Client) {
    let examples = json!([{"id": "x", "input": "again", "expected": "right"}]);
    let reply = client.post(
        "/api/v1/datasets",
        &json!({"name": DATASET, "examples": examples}),
    );
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn a_budget_holds_and_a_provider_is_given_its_time(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 10);
    place.fake.always(Answer::text("right"));
    let mut document = suite(json!([model("one", "fake/fake-large")]), json!([exact()]));
    document["budget_usd"] = json!(0.05);
    // Nobody knows the price: a budget cannot be kept, and that is said.
    let id = start(&live, &document);
    let shown = wait(&live, &id, "paused");
    assert!(
        shown["evaluation"]["reason"]
            .as_str()
            .unwrap()
            .contains("price"),
        "{shown:#}"
    );
    assert_eq!(live.post(&path(&id, "/stop"), &json!({})).status, 200);

    let admin = live.with_key(&place.make_key("default", "admin").1);
    // 12 prompt tokens cost 1.2 cents, the completion's token 0.1.
    let row = json!({"provider": "fake", "model": "*", "input_usd": 1000.0, "output_usd": 1000.0});
    let set = admin.put("/api/v1/prices", &row);
    assert!(set.status < 300, "{set:?}");
    document["cache"] = json!(false);
    let before = place.fake.seen().len();
    let id = start(&live, &document);
    let shown = wait(&live, &id, "paused");
    let evaluation = &shown["evaluation"];
    assert!(
        evaluation["reason"].as_str().unwrap().contains("budget"),
        "{shown:#}"
    );
    let spent = evaluation["spent_usd"].as_f64().unwrap();
    assert!(spent > 0.0 && spent <= 0.05, "{spent}");
    let made = place.fake.seen().len() - before;
    assert!((2..=3).contains(&made), "{made} calls at 1.3 cents each");

    // Told to wait, the worker waits and loses nothing.
    for _ in 0..3 {
        let wait = vec![("retry-after", "1".to_owned())];
        place
            .fake
            .next(Answer::faulty(Fault::Status(429, wait, "{}".to_owned())));
    }
    // What fails for a moment is tried again; what is wrong for good is an error, and no score.
    place.fake.when(
        "Q9?",
        Answer::status(400, r#"{"error": {"message": "no"}}"#),
    );
    let resumed = live.post(&path(&id, "/resume"), &json!({"budget_usd": 5.0}));
    assert_eq!(resumed.status, 200, "{resumed:?}");
    let shown = wait(&live, &id, "done");
    let counters = &shown["evaluation"]["counters"];
    assert_eq!(
        (&counters["answers_ok"], &counters["answers_failed"]),
        (&json!(9), &json!(1)),
        "{shown:#}"
    );
    assert_eq!(
        (&counters["scores_ok"], &counters["scores_error"]),
        (&json!(9), &json!(1))
    );
    let cell = &shown["results"]["evaluators"][0]["cells"][0];
    close(&cell["value"], 1.0);
    close(&cell["coverage"], 0.9);
}

/// A judge by the fake provider.
fn judge(name: &str, mode: &str, more: Value) -> Value {
    let mut evaluator = json!({
        "type": "judge", "model": "fake/fake-judge", "mode": mode, "allow_same_family": true,
        "criteria": [{"name": name, "description": format!("how {name} it is")}],
    });
    for (field, value) in more.as_object().unwrap() {
        evaluator[field] = value.clone();
    }
    json!({"name": name, "evaluator": evaluator})
}

fn judges_that_fail_say_nothing_and_biased_ones_tie(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 3);
    place.fake.always(Answer::text("right"));
    let verdict =
        |verdict: &str| Answer::text(json!({"reason": "because", "verdict": verdict}).to_string());
    place.fake.when("how kind it is", verdict("H"));
    place
        .fake
        .when("how vague it is", Answer::text("I would say an eight."));
    place.fake.when("how better it is", verdict("A"));
    place.fake.when(
        "how polite it is",
        Answer::text("```json\n{\"reason\": \"r\", \"verdict\": \"yes\"}\n```"),
    );
    // The probabilities of the verdict's token are worth more than the token.
    let tokens = json!({"content": [
        {"token": "{\"verdict\": \"", "logprob": 0.0, "top_logprobs": []},
        {"token": "4", "logprob": -0.69, "top_logprobs": [{"token": "4", "logprob": -std::f64::consts::LN_2}, {"token": "2", "logprob": -std::f64::consts::LN_2}]},
        {"token": "\"}", "logprob": 0.0, "top_logprobs": []},
    ]});
    let choice = json!({"index": 0, "finish_reason": "stop", "logprobs": tokens,
        "message": {"role": "assistant", "content": "{\"verdict\": \"4\"}"}});
    let whole = json!({"id": "x", "object": "chat.completion", "model": "judge", "choices": [choice],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}});
    place.fake.when(
        "how sure it is",
        Answer::faulty(Fault::Raw(
            "application/json",
            vec![Bytes::from(whole.to_string())],
        )),
    );
    let evaluators = json!([
        judge("kind", "score", json!({})),
        judge("vague", "score", json!({})),
        judge("better", "pairwise", json!({})),
        judge("polite", "classify", json!({"labels": {"yes": 1, "no": 0}})),
        judge("sure", "score", json!({"scale": {"min": 1, "max": 5}})),
    ]);
    let document = suite(
        json!([
            model("one", "fake/fake-large"),
            model("two", "fake/fake-small")
        ]),
        evaluators,
    );
    let id = start(&live, &document);
    let shown = wait(&live, &id, "done");
    let cells = |name: &str| {
        let evaluators = shown["results"]["evaluators"].as_array().unwrap();
        evaluators.iter().find(|one| one["name"] == name).unwrap()["cells"].clone()
    };
    close(&cells("kind")[0]["value"], 8.0);
    // Prose is no score: asked again, then left out; the raw reply is kept.
    assert_eq!(
        (&cells("vague")[0]["scored"], &cells("vague")[0]["unscored"]),
        (&json!(0), &json!(3)),
        "{shown:#}"
    );
    assert_eq!(cells("vague")[0]["value"], Value::Null);
    close(&cells("polite")[1]["value"], 1.0);
    // A call that another worker finds in its record has lost its probabilities: then the grade counts.
    for place in 0..3 {
        let detail = live.get(&path(&id, &format!("/examples/{place}"))).json();
        let scores = detail["scores"].as_array().unwrap();
        for score in scores.iter().filter(|score| score["evaluator"] == "sure") {
            let known = &score["detail"]["replies"][0]["grades"];
            close(&score["value"], if known.is_null() { 4.0 } else { 3.0 });
        }
    }
    // Whoever is shown first wins: that is no win, and it is told how often the orders agreed.
    close(&cells("better")[1]["value"], 0.5);
    close(&cells("better")[1]["swap_consistency"], 0.0);
    assert_eq!(
        shown["evaluation"]["warnings"].as_array().unwrap().len(),
        10,
        "{shown:#}"
    );
    let detail = live.get(&path(&id, "/examples/0")).json();
    let scores = detail["scores"].as_array().unwrap();
    let vague = scores
        .iter()
        .find(|score| score["evaluator"] == "vague")
        .unwrap();
    assert_eq!(vague["outcome"], "unscored");
    let replies = vague["detail"]["replies"].as_array().unwrap();
    assert_eq!(
        (replies.len(), &replies[0]["reply"]),
        (2, &json!("I would say an eight."))
    );
    // No judge was told whose answer it was.
    for seen in place.fake.seen() {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(
            !body.contains("fake-small\"") || !body.contains("material to judge"),
            "{body}"
        );
    }
    // A judge's call is a trace of its own.
    let trace = vague["trace"].as_str().unwrap();
    assert_eq!(live.get(&format!("/api/v1/traces/{trace}")).status, 200);
}

fn answers_are_kept_and_repetitions_are_not(place: Place) {
    let place = place.add_fake().with_key("editor");
    let mut live = place.start();
    make_dataset(&live, 4);
    place.fake.always(Answer::text("right"));
    let kind = judge("kind", "score", json!({}));
    let reply = json!({"reason": "because", "verdict": "J"}).to_string();
    place.fake.when("how kind it is", Answer::text(reply));
    let mut document = suite(
        json!([model("one", "fake/fake-large")]),
        json!([exact(), kind]),
    );
    let first = wait(&live, &start(&live, &document), "done");
    assert_eq!(first["evaluation"]["counters"]["answers_cached"], 0);
    assert_eq!(place.fake.seen().len(), 8);
    // The same again costs nothing and shows the same.
    let second = wait(&live, &start(&live, &document), "done");
    assert_eq!(place.fake.seen().len(), 8);
    assert_eq!(
        second["evaluation"]["counters"]["answers_cached"], 4,
        "{second:#}"
    );
    assert_eq!(
        first["results"]["evaluators"],
        second["results"]["evaluators"]
    );
    // Another parameter is another candidate.
    document["candidates"][0]["parameters"] = json!({"temperature": 0.5});
    wait(&live, &start(&live, &document), "done");
    assert_eq!(
        place.fake.seen().len(),
        12,
        "the answers are new, the judge has seen the same text"
    );
    document["repeats"] = json!(3);
    let repeated = wait(&live, &start(&live, &document), "done");
    assert_eq!(
        place.fake.seen().len(),
        12 + 24,
        "repetitions are never taken from the cache"
    );
    let cell = &repeated["results"]["evaluators"][0]["cells"][0];
    close(&cell["pass_at_k"], 1.0);
    assert_eq!(cell["scored"], 12);
    // What is very old stands in for no call.
    live.signal("-TERM");
    assert_eq!(live.wait(), 0);
    let count = |place: &Place| -> i64 {
        place.database(async |db| {
            let row = query("SELECT COUNT(*) FROM evaluation_cache")
                .fetch_one(db.read())
                .await
                .unwrap();
            row.try_get(0).unwrap()
        })
    };
    let kept = count(&place);
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        query("UPDATE evaluation_cache SET at = 0")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    });
    let _live = place.start();
    let until = Instant::now() + Duration::from_secs(30);
    while count(&place) > 0 {
        assert!(
            Instant::now() < until,
            "of {kept} there are {}",
            count(&place)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn an_app_is_a_candidate_by_its_release(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 4);
    place.fake.always(Answer::text("wrong"));
    place.fake.when("Answer well.", Answer::text("right"));
    apps::save_prompt(&live, "desk/answer", "Answer badly.");
    let document = apps::answering("prompt:desk/answer@latest");
    apps::save_app(&live, "desk", &document);
    apps::cut(&live, "desk");
    apps::save_prompt(&live, "desk/answer", "Answer well.");
    apps::cut(&live, "desk");
    let app = |name: &str, release: &str| {
        json!({
            "name": name, "app": "desk", "release": release,
            "variables": {"question": "example.input"},
        })
    };
    let document = suite(json!([app("now", "1"), app("next", "2")]), json!([exact()]));
    let shown = wait(&live, &start(&live, &document), "done");
    let cells = &shown["results"]["evaluators"][0]["cells"];
    close(&cells[0]["value"], 0.0);
    close(&cells[1]["value"], 1.0);
    let id = shown["evaluation"]["id"].as_str().unwrap();
    let detail = live.get(&path(id, "/examples/0")).json();
    let trace = detail["answers"][1]["trace"].as_str().unwrap();
    let trace = live.get(&format!("/api/v1/traces/{trace}")).json();
    assert!(trace["spans"].as_array().unwrap().len() >= 2, "{trace:#}");
    // A release that is not there is told before anything is called.
    let lost = suite(json!([app("lost", "9")]), json!([exact()]));
    let refused = live.post("/api/v1/evaluations", &json!({"document": lost}));
    assert!((400..500).contains(&refused.status), "{refused:?}");
}

fn documents_are_checked_where_they_are_wrong(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 2);
    let check = |change: &dyn Fn(&mut Value), status: u16, code: &str, at: &str| {
        let mut document = suite(json!([model("one", "fake/fake-large")]), json!([exact()]));
        change(&mut document);
        let reply = live.post("/api/v1/evaluations", &json!({"document": document}));
        assert_eq!(reply.refusal(), (status, code.to_owned()), "{reply:?}");
        assert_eq!(reply.json()["error"]["at"], at, "{reply:?}");
    };
    let invalid = "invalid_document";
    check(
        &|d| d["candidates"] = json!([]),
        400,
        invalid,
        "/candidates",
    );
    check(
        &|d| d["candidates"][0] = json!({"name": "x"}),
        400,
        invalid,
        "/candidates/0/model",
    );
    check(
        &|d| d["candidates"][0]["variables"] = json!({"a": "nope.b"}),
        400,
        invalid,
        "/candidates/0/variables/a",
    );
    check(
        &|d| d["evaluators"][0]["evaluator"]["metric"]["id"] = json!("nope"),
        400,
        invalid,
        "/evaluators/0/evaluator/metric/id",
    );
    check(
        &|d| d["gate"] = json!([{"evaluator": "exact"}]),
        400,
        invalid,
        "/gate/0/at_least",
    );
    check(
        &|d| d["budget_usd"] = json!(-1),
        400,
        invalid,
        "/budget_usd",
    );
    check(
        &|d| d["dataset"] = json!("dataset:none@latest"),
        400,
        "unresolved_reference",
        "/dataset",
    );
    check(
        &|d| d["split"] = json!("none"),
        400,
        "no_examples",
        "/dataset",
    );
    check(
        &|d| d["candidates"][0]["model"] = json!("nobody/x"),
        400,
        "unknown_model",
        "/candidates/0/model",
    );
    let mut judged = suite(
        json!([model("one", "fake/fake-large")]),
        json!([judge("kind", "score", json!({}))]),
    );
    judged["evaluators"][0]["evaluator"]["allow_same_family"] = json!(false);
    let reply = live.post("/api/v1/evaluations", &json!({"document": judged}));
    assert_eq!(reply.refusal(), (400, "same_family".to_owned()));

    // Documents of the catalog are refused in the same words.
    let save = |kind: &str, content: Value| {
        live.post(
            &format!("/api/v1/catalog/{kind}/x/versions"),
            &json!({"content": content}),
        )
    };
    let wrong = save(
        "evaluator",
        json!({"type": "judge", "model": "a/b", "criteria": [], "scale": {"min": 5, "max": 1}}),
    );
    assert_eq!(wrong.refusal(), (400, invalid.to_owned()));
    let wrong = save(
        "evaluator",
        json!({"type": "http", "url": "https://x.test/", "credential": "env:PATH"}),
    );
    assert_eq!(wrong.json()["error"]["at"], "/credential", "{wrong:?}");
    let saved = save(
        "evaluator",
        json!({"type": "metric", "metric": {"id": "exact-match"}}),
    );
    assert!(saved.status < 300, "{saved:?}");
    let mut named = suite(
        json!([model("one", "fake/fake-large")]),
        json!(["evaluator:x@latest"]),
    );
    named["limit"] = json!(1);
    place.fake.always(Answer::text("right"));
    let shown = wait(&live, &start(&live, &named), "done");
    assert_eq!(shown["results"]["evaluators"][0]["name"], "x");
    assert!(
        shown["results"]["evaluators"][0]["signature"]
            .as_str()
            .unwrap()
            .starts_with("exact-match|")
    );
}

/// The server is the same for both.
#[test]
fn a_suite_runs_from_the_command_line() {
    let place = Place::new();
    let live: Live = place.start();
    make_dataset(&live, 20);
    place.fake.always(Answer::text("right"));
    let file = place.beside("suite.toml");
    let text = format!(
        "dataset = \"dataset:{DATASET}@latest\"\n[[candidates]]\nname = \"one\"\nmodel = \"fake/fake-large\"\n\
         [[evaluators]]\nname = \"exact\"\n[evaluators.evaluator]\ntype = \"metric\"\n[evaluators.evaluator.metric]\nid = \"exact-match\"\n\
         [[gate]]\nevaluator = \"exact\"\nat_least = 0.8\n"
    );
    std::fs::write(&file, text).unwrap();
    let run = |more: &[&str]| {
        let mut command = place.command();
        command
            .args([
                "eval",
                "run",
                file.to_str().unwrap(),
                "--url",
                &live.origin(),
            ])
            .args(more);
        command.env("MEGURI_API_KEY", &place.key);
        place.run(&mut command)
    };
    let done = run(&["--format", "markdown"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.contains("| exact |") && done.stdout.contains("1.000"),
        "{done:?}"
    );
    let junit = run(&["--format", "junit"]);
    assert!(
        junit.code == 0 && junit.stdout.contains("<testsuite "),
        "{junit:?}"
    );
    assert_eq!(
        run(&["--format", "json"]).json()["evaluation"]["state"],
        "done"
    );
    // A bound that is not reached ends with 4.
    let failed = run(&["--fail-under", "exact=1.5"]);
    assert_eq!(failed.code, 4, "{failed:?}");
    let wrong = run(&["--fail-under", "nothing=1"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.stderr.contains("/gate/1/evaluator"), "{wrong:?}");
    // The key may be in a file; without one the command says where it looked.
    let key = place.beside("key");
    std::fs::write(&key, format!("{}\n", place.key)).unwrap();
    let bare = |more: &[&str]| {
        let mut command = place.command();
        command.args([
            "eval",
            "run",
            file.to_str().unwrap(),
            "--url",
            &live.origin(),
        ]);
        place.run(command.args(more))
    };
    assert_eq!(bare(&["--key-file", key.to_str().unwrap()]).code, 0);
    let keyless = bare(&[]);
    assert!(
        keyless.code == 1 && keyless.stderr.contains("MEGURI_API_KEY"),
        "{keyless:?}"
    );
}

#[test]
fn two_versions_are_compared_where_no_server_runs() {
    let place = Place::new();
    let mut live = place.start();
    make_dataset(&live, 20);
    place.fake.always(Answer::text("wrong"));
    place.fake.when("Answer well.", Answer::text("right"));
    for text in ["Answer badly.", "Answer anyhow."] {
        apps::save_prompt(&live, "desk/answer", text);
    }
    let suite = place.beside("suite.json");
    let mut document = suite_of_versions();
    document["candidates"][0]["variables"] = json!({"question": "example.input"});
    std::fs::write(&suite, document.to_string()).unwrap();
    let head = place.beside("head.toml");
    std::fs::write(
        &head,
        "[[messages]]\nrole = \"user\"\ncontent = \"Answer well. {{ question }}\"\n",
    )
    .unwrap();
    let run = |more: &[&str]| {
        let args = ["eval", "run", suite.to_str().unwrap()];
        place.meguri(&[&args, more].concat())
    };
    // The running server has the data directory.
    let busy = run(&[]);
    assert!(busy.code == 1 && busy.stderr.contains("--url"), "{busy:?}");
    live.signal("-TERM");
    assert_eq!(live.wait(), 0);
    let base = "prompt:desk/answer@1";
    let done = run(&[
        "--base",
        base,
        "--head",
        head.to_str().unwrap(),
        "--format",
        "json",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    let shown = done.json();
    assert_eq!(shown["results"]["baseline"], "base");
    let cells = &shown["results"]["evaluators"][0]["cells"];
    close(&cells[0]["value"], 0.0);
    close(&cells[1]["value"], 1.0);
    assert_eq!(cells[1]["comparison"]["verdict"], "better", "{shown:#}");
    // The other way round it is worse, and a gate on the new version says so.
    let worse = run(&[
        "--base",
        base,
        "--head",
        "prompt:desk/answer@2",
        "--fail-under",
        "exact=0.5",
    ]);
    assert_eq!(worse.code, 4, "{worse:?}");
    assert!(worse.stdout.contains("fail: head exact"), "{worse:?}");
}

fn suite_of_versions() -> Value {
    suite(json!([model("any", "fake/fake-large")]), json!([exact()]))
}
