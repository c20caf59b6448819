//! Choosing a model over HTTP: shortlist, rounds, finalists, other weights, evidence, limits,
//! budget, a kill between rounds.

use std::time::{Duration, Instant};

use db::sqlx::query;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::harness::{Client, Live, Place, encode, on_both_databases};

on_both_databases!(
    the_planted_best_wins_and_nobody_is_dropped_without_proof,
    limits_leave_out_and_drop,
    a_budget_holds_a_choice_and_a_larger_one_lets_it_go_on,
    a_killed_server_goes_on_where_it_was,
    an_own_entry_is_written_in_a_form,
    mistakes_are_said_before_anything_is_asked,
    what_is_known_of_models_is_whole_and_what_is_not_known_is_not_met,
);

const DATASET: &str = "support/questions";
const WORDS: [&str; 10] = [
    "ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibex", "jay",
];

/// A dataset of this many questions; the answer to each is one of ten words.
fn make_dataset(client: &Client, count: usize) {
    let examples: Vec<Value> = (0..count)
        .map(|index| {
            json!({"id": format!("e{index}"), "input": format!("Q{index}?"), "expected": WORDS[index % 10]})
        })
        .collect();
    let reply = client.post(
        "/api/v1/datasets",
        &json!({"name": DATASET, "examples": examples}),
    );
    assert_eq!(reply.status, 201, "{reply:?}");
}

/// A model that knows so many of the words, and costs so much for a million tokens.
fn add_model(place: &Place, client: &Client, name: &str, words: usize, usd: f64) {
    let mut answer = Answer::text(WORDS[..words].join(" "));
    answer.usage =
        Some(json!({"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200}));
    answer_as(place, name, answer);
    let price = json!({"provider": "fake", "model": name, "input_usd": usd, "output_usd": usd});
    assert_eq!(client.put("/api/v1/prices", &price).status, 200);
}

fn answer_as(place: &Place, name: &str, answer: Answer) {
    place.fake.when(format!("\"model\":\"{name}\""), answer);
}

fn task(models: &[&str]) -> Value {
    let models: Vec<String> = models.iter().map(|name| format!("fake/{name}")).collect();
    json!({
        "dataset": format!("dataset:{DATASET}@latest"), "models": models,
        "evaluators": [{"name": "it", "evaluator": {"type": "metric", "metric": {"id": "contains"}}}],
        "weights": {"quality": 1.0, "speed": 0.0, "cost": 0.0}, "finalists": 2,
    })
}

fn start(client: &Client, name: &str, task: &Value) -> String {
    let reply = client.post("/api/v1/choices", &json!({"name": name, "task": task}));
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn path(id: &str, rest: &str) -> String {
    format!("/api/v1/choices/{id}{rest}")
}

/// Waits until the choice is in this state.
fn wait(client: &Client, id: &str, state: &str) -> Value {
    wait_until(client, id, |choice| choice["state"] == state)
}

fn wait_until(client: &Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let shown = client.get(&path(id, "")).json();
        if wanted(&shown["choice"]) {
            return shown;
        }
        let over = ["failed", "stopped", "done"];
        let over = over.iter().any(|end| shown["choice"]["state"] == *end);
        assert!(!over && Instant::now() < until, "{shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn dropped(round: &Value) -> Vec<(&str, &str)> {
    let all = round["dropped"].as_array().unwrap().iter();
    let mut all: Vec<_> = all
        .map(|one| (one["model"].as_str().unwrap(), one["why"].as_str().unwrap()))
        .collect();
    all.sort_unstable();
    all
}

fn the_planted_best_wins_and_nobody_is_dropped_without_proof(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_dataset(&live, 120);
    let admin = live.with_key(&place.make_key("default", "admin").1);
    for (name, words, usd) in [
        ("best", 10, 5.0),
        ("good", 9, 0.5),
        ("poor", 1, 0.1),
        ("poorer", 1, 0.2),
        ("useless", 0, 9.0),
    ] {
        add_model(&place, &admin, name, words, usd);
    }
    let all = ["useless", "good", "poor", "best", "poorer"];
    let id = start(&live, "support/model", &task(&all));
    let shown = wait(&live, &id, "done");
    let choice = &shown["choice"];
    let rounds = choice["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2, "{shown:#}");
    // The first sample shows who is worse; each was beaten by both that stay.
    let expected = [
        ("fake/poor", "worse"),
        ("fake/poorer", "worse"),
        ("fake/useless", "worse"),
    ];
    assert_eq!(dropped(&rounds[0]), expected, "{shown:#}");
    assert_eq!(
        (&rounds[0]["examples"], &rounds[0]["compared"]),
        (&json!(20), &json!(20))
    );
    for one in rounds[0]["dropped"].as_array().unwrap() {
        assert!(one["bound"].as_f64().unwrap() < 0.025 / 12.0, "{one}");
    }
    assert_eq!(
        (&rounds[1]["final"], &rounds[1]["compared"]),
        (&json!(true), &json!(120))
    );
    // 5 models on 20 examples, 2 on the other 100: nothing was paid for twice.
    assert_eq!(place.fake.seen().len(), 5 * 20 + 2 * 100);

    let result = &shown["result"];
    assert_eq!(result["recommended"], "fake/best", "{result:#}");
    assert_eq!(result["is_clear"], true);
    let first = &result["finalists"][0];
    assert_eq!(first["figures"]["quality"], 1.0);
    // 200 tokens at 5 dollars a million.
    let cost = first["figures"]["usd_per_1000"].as_f64().unwrap();
    assert!((cost - 1.0).abs() < 1e-9, "{cost}");
    assert!(first["probability"].as_f64().unwrap() > 0.95);
    let second = &result["finalists"][1];
    assert!((second["figures"]["quality"].as_f64().unwrap() - 0.9).abs() < 1e-9);
    assert_eq!(
        (&first["on_front"], &second["on_front"]),
        (&json!(true), &json!(true))
    );

    // Other weights ask nobody again; a limit takes the dear one out.
    let other = live.get(&path(&id, "?quality=1&speed=0&cost=1")).json();
    assert_eq!(other["result"]["recommended"], "fake/good", "{other:#}");
    let limited = live.get(&path(&id, "?usd_per_1000=0.5")).json();
    assert_eq!(limited["result"]["recommended"], "fake/good");
    assert_eq!(limited["result"]["finalists"][1]["breaks"], json!(["cost"]));
    assert_eq!(
        live.get(&path(&id, "?quality=0&speed=0&cost=0")).status,
        400
    );
    let nobody = live.get(&path(&id, "?usd_per_1000=0.0001")).json();
    assert_eq!(
        (
            &nobody["result"]["recommended"],
            &nobody["result"]["is_clear"]
        ),
        (&Value::Null, &json!(false)),
        "{nobody:#}"
    );
    assert_eq!(place.fake.seen().len(), 300);

    cited(&place, &live, &id);
    pages_show_it(&place, &live, &id);
}

/// The result is a document, and evidence for what uses the models.
fn cited(place: &Place, live: &Live, id: &str) {
    let versions = live.get(&format!(
        "/api/v1/catalog/choice/{}/versions/1",
        encode("support/model")
    ));
    assert_eq!(versions.status, 200, "{versions:?}");
    assert_eq!(
        versions.json()["content"]["result"]["recommended"],
        "fake/best"
    );
    // Nobody writes one by hand.
    let content = versions.json()["content"].clone();
    let forged = live.post(
        &format!(
            "/api/v1/catalog/choice/{}/versions",
            encode("support/forged")
        ),
        &json!({"content": content}),
    );
    assert!((400..500).contains(&forged.status), "{forged:?}");
    for (name, model, expected) in [
        ("uses-best", "fake/best", "pass"),
        ("uses-good", "fake/good", "inconclusive"),
        ("uses-poor", "fake/poor", "fail"),
    ] {
        let content =
            json!({"messages": [{"role": "system", "content": "Answer."}], "model": model});
        let reply = live.post(
            "/api/v1/prompts",
            &json!({"name": name, "content": content}),
        );
        assert_eq!(reply.status, 201, "{reply:?}");
        let subject = json!({"kind": "prompt", "name": name});
        let reply = live.post(&path(id, "/evidence"), &subject);
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.json()["outcome"], expected, "{reply:?}");
        let evidence = live
            .get(&format!("/api/v1/evidence?kind=prompt&name={name}"))
            .json();
        let found = &evidence["items"][0];
        assert_eq!(
            (&found["gate"], &found["outcome"]),
            (&json!("support/model"), &json!(expected))
        );
        assert_eq!(found["detail"]["recommended"], "fake/best");
    }
    let content =
        json!({"messages": [{"role": "system", "content": "Answer."}], "model": "fake/new"});
    live.post(
        "/api/v1/prompts",
        &json!({"name": "uses-new", "content": content}),
    );
    let reply = live.post(
        &path(id, "/evidence"),
        &json!({"kind": "prompt", "name": "uses-new"}),
    );
    assert_eq!(reply.refusal(), (400, "not_measured".to_owned()));
    place.add_project("other");
    let other = live.with_key(&place.make_key("other", "admin").1);
    assert_eq!(other.get(&path(id, "")).status, 404);
    assert_eq!(other.post(&path(id, "/stop"), &json!({})).status, 404);
}

fn pages_show_it(place: &Place, live: &Live, id: &str) {
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let text = |path: &str| {
        let reply = browser.get(path);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        // Templates escape slashes too.
        reply.text().replace("&#x2f;", "/")
    };
    assert!(text("/default/choices").contains("support/model"));
    let page = text(&format!("/default/choices/show?id={id}"));
    for wanted in [
        "<svg",
        "fake/best",
        "fake/useless",
        "Is the best",
        "uses-best",
        // The chart: one mark each, and the front that both are on.
        "class=\"mark best\"",
        "class=\"mark front\"",
        "class=\"front\" d=\"M",
    ] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    assert!(!page.contains("class=\"limit\""), "{page}");
    let page = text(&format!("/default/choices/show?id={id}&usd_per_1000=0.5"));
    for wanted in ["class=\"limit\"", "class=\"mark out\""] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    let page = text(&format!(
        "/default/choices/show?id={id}&quality=1&speed=0&cost=1"
    ));
    assert!(
        page.contains("other weights") && page.contains("fake/good is the best"),
        "{page}"
    );
    let page = text(&format!("/default/choices/show?id={id}&quality=much"));
    assert!(page.contains("is no number"), "{page}");
    let models = text("/default/choices/models?vendor=OpenAI&sort=-context");
    assert!(
        models.contains("gpt-4.1") && !models.contains("claude"),
        "{models}"
    );
    let again = text(&format!("/default/choices/new?like={id}"));
    assert!(
        again.contains("fake/best") && again.contains("metric:contains"),
        "{again}"
    );
    let refused = browser.form("/default/choices", &[("name", "x"), ("dataset", DATASET)]);
    assert_eq!(refused.status, 422, "{refused:?}");
}

fn limits_leave_out_and_drop(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    make_dataset(&live, 60);
    for (name, words, usd) in [
        ("fit", 8, 1.0),
        ("dear", 10, 50.0),
        ("bad", 1, 1.0),
        ("closed", 10, 1.0),
        ("spare", 8, 2.0),
    ] {
        add_model(&place, &live, name, words, usd);
    }
    let price = json!({"provider": "fake", "model": "broken", "input_usd": 1.0, "output_usd": 1.0});
    live.put("/api/v1/prices", &price);
    answer_as(
        &place,
        "broken",
        Answer::status(400, "{\"error\": {\"message\": \"no\"}}"),
    );
    // What is known of the models: one is closed, of one nobody said anything.
    for (name, card) in [
        (
            "team/ours",
            json!({"model": "fake/*", "open": true, "regions": ["eu"], "licence": "MIT"}),
        ),
        (
            "team/closed",
            json!({"model": "fake/closed", "open": false}),
        ),
    ] {
        let at = format!("/api/v1/catalog/model_card/{}/versions", encode(name));
        let reply = live.post(&at, &json!({"content": card}));
        assert!([200, 201].contains(&reply.status), "{reply:?}");
    }
    let known = live.get("/api/v1/model-catalog?q=gpt-4o-mini").json();
    let mini = &known["items"][0];
    assert_eq!(mini["properties"]["context_tokens"], 128_000, "{known:#}");
    assert_eq!(
        (&mini["callable"], &mini["price"]["input_usd"]),
        (&json!(false), &json!(0.15))
    );
    assert!(!mini["properties"]["sources"].as_array().unwrap().is_empty());
    let local = live
        .get("/api/v1/model-catalog?open=true&callable=false")
        .json();
    assert!(
        local["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["properties"]["open"] == true)
    );

    let mut task = task(&["fit", "dear", "bad", "closed", "spare", "broken"]);
    task["limits"] = json!({
        "usd_per_1000": 2.0, "quality": 0.7, "p95_latency_ms": 600_000.0,
        "properties": {"open": true, "regions": ["EU", "japan"]},
    });
    task["attempts"] = json!(1);
    task["finalists"] = json!(1);
    task["weights"] = json!({"quality": 1.0, "speed": 0.0, "cost": 1.0});
    let id = start(&live, "limited", &task);
    let shown = wait(&live, &id, "done");
    let choice = &shown["choice"];
    assert_eq!(
        choice["excluded"],
        json!([{"model": "fake/closed", "unmet": ["open", "region"]}]),
        "{shown:#}"
    );
    let first = dropped(&choice["rounds"][0]);
    for expected in [
        ("fake/bad", "too_bad"),
        ("fake/broken", "unreliable"),
        ("fake/dear", "too_dear"),
    ] {
        assert!(first.contains(&expected), "{expected:?}: {shown:#}");
    }
    assert_eq!(shown["result"]["recommended"], "fake/fit", "{shown:#}");
    let closed = place
        .fake
        .seen()
        .iter()
        .any(|seen| seen.json()["model"] == "closed");
    assert!(!closed, "a model that was left out was asked");
}

fn a_budget_holds_a_choice_and_a_larger_one_lets_it_go_on(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    make_dataset(&live, 40);
    // A call costs 2 milli-dollars: 200 tokens at 10 dollars a million.
    for (name, words) in [("one", 9), ("two", 8), ("three", 1)] {
        add_model(&place, &live, name, words, 10.0);
    }
    let mut task = task(&["one", "two", "three"]);
    task["budget_usd"] = json!(0.05);
    let id = start(&live, "dear", &task);
    let shown = wait(&live, &id, "paused");
    let reason = shown["choice"]["reason"].as_str().unwrap();
    assert!(reason.contains("budget"), "{shown:#}");
    assert!(
        place.fake.seen().len() <= 25,
        "{} calls",
        place.fake.seen().len()
    );
    let refused = live.post(&path(&id, "/resume"), &json!({"budget_usd": -1.0}));
    assert_eq!(refused.status, 400, "{refused:?}");
    let reply = live.post(&path(&id, "/resume"), &json!({"budget_usd": 5.0}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let shown = wait(&live, &id, "done");
    // 3 models on 20 examples, two on the other 20.
    assert_eq!(place.fake.seen().len(), 60 + 40, "{shown:#}");
    let spent = shown["choice"]["spent_usd"].as_f64().unwrap();
    assert!((spent - 0.2).abs() < 1e-9, "{spent}");
    assert_eq!(
        live.post(&path(&id, "/pause"), &json!({})).refusal(),
        (409, "wrong_state".to_owned())
    );
}

/// Makes the lease of every running job end now, as if its worker had died long ago.
fn end_leases(place: &Place, forget_rounds: bool) {
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        query("UPDATE jobs SET lease_until = 0 WHERE state = 'leased'")
            .execute(tx.conn())
            .await
            .unwrap();
        if forget_rounds {
            let row = query("SELECT progress FROM choices")
                .fetch_one(tx.conn())
                .await
                .unwrap();
            let text: String = db::sqlx::Row::get(&row, 0);
            let mut progress: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(progress["rounds"].as_array().unwrap().len(), 1);
            progress["rounds"] = json!([]);
            query("UPDATE choices SET progress = $1")
                .bind(progress.to_string())
                .execute(tx.conn())
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    });
}

fn a_killed_server_goes_on_where_it_was(place: Place) {
    let place = place.add_fake().with_key("admin");
    let mut live = place.start();
    make_dataset(&live, 60);
    for (name, words) in [("one", 10), ("two", 9), ("three", 1)] {
        add_model(&place, &live, name, words, 1.0);
    }
    // One call never comes back, so that the server dies in the middle of the first round.
    let stalled = Answer::faulty(Fault::StallBeforeHeaders);
    answer_as(&place, "three", stalled);
    let mut task = task(&["one", "two", "three"]);
    task["concurrency"] = json!(2);
    let id = start(&live, "killed", &task);
    wait_until(&live, &id, |choice| {
        choice["rounds"].as_array().unwrap().len() == 1
    });
    let until = Instant::now() + Duration::from_secs(60);
    while place.fake.open_answers() < 2 {
        assert!(Instant::now() < until, "nothing stalls");
        std::thread::sleep(Duration::from_millis(20));
    }
    live.signal("-KILL");
    live.wait();
    // As if the kill had come between starting the evaluation and writing it down.
    end_leases(&place, true);
    add_answer(&place, "three", 1);
    let live = place.start();
    let shown = wait(&live, &id, "done");
    assert_eq!(
        shown["choice"]["rounds"].as_array().unwrap().len(),
        2,
        "{shown:#}"
    );
    assert_eq!(shown["result"]["recommended"], "fake/one");
    let evaluations = live.get("/api/v1/evaluations").json();
    assert_eq!(
        evaluations["items"].as_array().unwrap().len(),
        2,
        "{evaluations:#}"
    );
    // Only the calls that nobody knows the end of were made again.
    let calls = |model: &str| {
        let seen = place.fake.seen();
        seen.iter()
            .filter(|seen| seen.json()["model"] == model)
            .count()
    };
    assert_eq!((calls("one"), calls("two")), (60, 60));
    assert!((21..=24).contains(&calls("three")), "{}", calls("three"));
}

fn add_answer(place: &Place, name: &str, words: usize) {
    answer_as(place, name, Answer::text(WORDS[..words].join(" ")));
}

fn mistakes_are_said_before_anything_is_asked(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    make_dataset(&live, 12);
    for name in ["one", "two"] {
        add_model(&place, &live, name, 5, 1.0);
    }
    let refused = |change: &dyn Fn(&mut Value), place: &str| {
        let mut task = task(&["one", "two"]);
        change(&mut task);
        let reply = live.post("/api/v1/choices", &json!({"name": "wrong", "task": task}));
        assert!((400..500).contains(&reply.status), "{place}: {reply:?}");
        assert!(reply.text().contains(place), "{place}: {}", reply.text());
    };
    refused(
        &|task| task["dataset"] = json!("dataset:none@latest"),
        "/dataset",
    );
    refused(&|task| task["models"] = json!(["fake/one"]), "/models");
    refused(
        &|task| task["models"] = json!(["fake/one", "fake/one"]),
        "/models/1",
    );
    refused(
        &|task| task["models"] = json!(["fake/one", "two"]),
        "/models/1",
    );
    refused(
        &|task| task["models"] = json!(["fake/one", "fake/unpriced"]),
        "unpriced_model",
    );
    refused(
        &|task| task["models"] = json!(["fake/one", "nobody/gpt-4o"]),
        "/candidates/1/model",
    );
    refused(
        &|task| task["quality"] = json!({"other": 1.0}),
        "/quality/other",
    );
    refused(
        &|task| task["weights"] = json!({"quality": 0.0, "speed": 0.0, "cost": 0.0}),
        "/weights",
    );
    refused(
        &|task| task["limits"] = json!({"usd_per_1000": -1.0}),
        "/limits/usd_per_1000",
    );
    refused(
        &|task| task["limits"] = json!({"properties": {"open": true}}),
        "nothing_to_choose",
    );
    refused(&|task| task["first_sample"] = json!(3), "/first_sample");
    refused(&|task| task["evaluators"] = json!([]), "/evaluators");
    refused(&|task| task["colour"] = json!("red"), "colour");
    let judge = json!([{"name": "pairs", "evaluator": {
        "type": "judge", "model": "other/judge", "mode": "pairwise",
        "criteria": [{"name": "good", "description": "how good it is"}],
    }}]);
    refused(&|task| task["evaluators"] = judge.clone(), "/evaluators/0");
    let reply = live.post(
        "/api/v1/choices",
        &json!({"name": "wrong/", "task": task(&["one", "two"])}),
    );
    assert_eq!(reply.refusal(), (400, "bad_name".to_owned()));
    assert!(place.fake.seen().is_empty(), "somebody was asked");
    assert_eq!(live.get(&path("nothing", "")).status, 404);
    // A small dataset is no sample of itself: everybody is measured on all of it.
    let id = start(&live, "small", &task(&["one", "two"]));
    let shown = wait(&live, &id, "done");
    assert_eq!(
        shown["choice"]["rounds"].as_array().unwrap().len(),
        1,
        "{shown:#}"
    );
    assert_eq!(shown["result"]["is_clear"], false);
    let shares = shown["result"]["finalists"].as_array().unwrap().iter();
    let sum: f64 = shares.map(|one| one["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
}

/// What a form says of a model stands over the catalog that comes with the program.
fn an_own_entry_is_written_in_a_form(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let editor = live.browser_of(&place.add_person("default", "editor"));
    let at = "/default/choices/models/edit";
    let fields = [
        ("name", "fake/large"),
        ("model", "fake/fake-large"),
        ("vendor", "夢工房"),
        ("open", "no"),
        ("task", "chat"),
        ("context_tokens", "128,000"),
        ("languages", "en, ja"),
        ("input.text", "on"),
        ("input.image", "on"),
        ("input.other", "point cloud"),
        ("regions", "japan-east"),
        ("notes", "</textarea><script>alert(1)</script>"),
        (
            "sources",
            "https://example.test/a\r\nhttps://example.test/b",
        ),
        ("read_on", "2026-11-21"),
    ];
    let saved = editor.form(at, &fields);
    assert_eq!(saved.status, 303, "{saved:?}");
    let listed = live.get("/api/v1/model-catalog").json();
    let listed = listed["items"].as_array().unwrap();
    let model = listed.iter().find(|model| model["id"] == "fake/fake-large");
    let model = model.unwrap();
    assert_eq!(model["own_entry"], "fake/large", "{model}");
    let properties = &model["properties"];
    assert_eq!(
        (
            &properties["vendor"],
            &properties["open"],
            &properties["context_tokens"]
        ),
        (&json!("夢工房"), &json!(false), &json!(128_000)),
        "{model}"
    );
    assert_eq!(properties["input"], json!(["text", "image", "point cloud"]));
    assert_eq!(properties["sources"][1], "https://example.test/b");

    // The form shows what was saved, and saving it again changes nothing.
    let shown = editor.get(&format!("{at}?name=fake%2Flarge")).text();
    for text in ["夢工房", "point cloud", "example.test", "2026-11-21"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains("<script>alert"), "{shown}");
    assert_eq!(editor.form(at, &fields).status, 303);
    let versions = live
        .get("/api/v1/catalog/model_card/fake%2Flarge/versions")
        .json();
    assert_eq!(versions["items"].as_array().unwrap().len(), 1, "{versions}");

    // What is wrong is said where it is, and nothing that was typed is lost.
    let wrong = editor.form(
        at,
        &[
            ("name", "a card"),
            ("model", "*"),
            ("vendor", "Kept"),
            ("context_tokens", "many"),
        ],
    );
    assert_eq!(wrong.status, 422);
    let text = wrong.text();
    for part in ["h-name", "h-context_tokens", "Kept", "many"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(editor.get(&format!("{at}?name=nobody")).status, 404);
}

fn what_is_known_of_models_is_whole_and_what_is_not_known_is_not_met(place: Place) {
    let place = place.with_key("admin");
    let live = place.start();
    let known = |query: &str| {
        let found = live.get(&format!("/api/v1/model-catalog{query}")).json();
        found["items"].as_array().unwrap().clone()
    };
    let shipped = known("?callable=false");
    assert_eq!(shipped.len(), 14, "as many cards as the program brings");
    for model in &shipped {
        let card = &model["properties"];
        assert!(!card["sources"].as_array().unwrap().is_empty(), "{model:#}");
        for field in ["read_on", "licence", "open"] {
            assert!(!card[field].is_null(), "{field}: {model:#}");
        }
    }
    for wish in [
        "language=tlh",
        "region=mars",
        "context_tokens=1000000000000",
    ] {
        assert!(known(&format!("?{wish}")).is_empty(), "{wish}");
    }
    let wrong = |card: &Value, path: &str| {
        let at = "/api/v1/catalog/model_card/wrong/versions";
        let reply = live.post(at, &json!({"content": card}));
        assert!((400..500).contains(&reply.status), "{path}: {reply:?}");
        assert!(reply.text().contains(path), "{path}: {reply:?}");
    };
    wrong(&json!({"model": "*"}), "/model");
    wrong(&json!({"model": "a", "colour": "red"}), "colour");
    let card = json!({
        "model": "a", "read_on": "2026-13-01", "sources": ["http://a"], "context_tokens": 0,
        "title": " ", "languages": [""],
    });
    for path in [
        "/read_on",
        "/sources/0",
        "/context_tokens",
        "/title",
        "/languages",
    ] {
        wrong(&card, path);
    }
}
