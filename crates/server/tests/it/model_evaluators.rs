//! Evaluators that use models, over HTTP: Ragas' metrics by a fake judge, and what the
//! real small models of the tests say. And the data that metrics need.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::Embedder;
use eval::bertscore::{BertScore, Encoded, Frequencies, score};
use serde_json::{Value, json};
use server::evaluators::EvaluatorDocument;
use server::evaluators::rag::{
    FactualValue, answer_relevancy, context_precision, factual_correctness, faithfulness,
    object_of, read_statements, read_support,
};
use testkit::provider::Answer;

use crate::harness::{Client, Place, on_both_databases};

on_both_databases!(answers_that_stand_on_retrieved_texts);

fn test_file(name: &str) -> PathBuf {
    let root = std::env::var_os("MEGURI_TEST_MODELS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/test-models"),
        PathBuf::from,
    );
    let path = root.join(name);
    assert!(
        path.exists(),
        "{} is missing: `make test` fetches it",
        path.display()
    );
    path
}

fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!(
        (found - expected).abs() <= tolerance,
        "{what}: {found} is not {expected}"
    );
}

fn start(client: &Client, document: &Value) -> String {
    let reply = client.post("/api/v1/evaluations", &json!({"document": document}));
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn wait(client: &Client, id: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(240);
    loop {
        let shown = client.get(&format!("/api/v1/evaluations/{id}")).json();
        let state = shown["evaluation"]["state"].clone();
        if state == "done" {
            return shown;
        }
        let over = state == "failed" || state == "stopped" || state == "paused";
        assert!(!over && Instant::now() < until, "{shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn make_dataset(client: &Client, examples: &Value) {
    let reply = client.post(
        "/api/v1/datasets",
        &json!({"name": "facts", "examples": examples}),
    );
    assert_eq!(reply.status, 201, "{reply:?}");
}

/// What an evaluator said of an example: outcome, value, detail and all.
fn said(client: &Client, id: &str, place: usize, evaluator: &str) -> Value {
    let path = format!("/api/v1/evaluations/{id}/examples/{place}");
    let shown = client.get(&path).json();
    let scores = shown["scores"].as_array().unwrap();
    let found = scores.iter().find(|one| one["evaluator"] == evaluator);
    found.unwrap_or_else(|| panic!("{shown:#}")).clone()
}

fn rag(metric: &str, more: Value) -> Value {
    let mut evaluator = json!({
        "type": "rag", "metric": metric, "model": "fake/judge-large", "allow_same_family": true,
    });
    for (name, value) in more.as_object().unwrap() {
        evaluator[name] = value.clone();
    }
    json!({"name": metric, "evaluator": evaluator})
}

fn answers_that_stand_on_retrieved_texts(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let row = json!({"provider": "fake", "model": "*", "input_usd": 1.0, "output_usd": 1.0});
    assert!(admin.put("/api/v1/prices", &row).status < 300);
    make_dataset(
        &live,
        &json!([
            {"id": "a", "input": "Where is the tower?", "expected": "The tower is in Paris. It is 330 m high.",
             "context": ["Pancakes are round.", "The tower stands in Paris."]},
            {"id": "b", "input": "塔はどこですか？", "expected": "塔はパリにあります。高さは330メートルです。",
             "context": ["パンケーキは丸い。", "塔はパリに立っています。"]},
            {"id": "c", "input": "A question of its own", "expected": "Something."},
            {"id": "d", "input": "SPEECHLESS", "expected": "Something.", "context": ["A text."]},
        ]),
    );
    let fake = &place.fake;
    fake.always(Answer::text("The tower is in Paris. It is made of cheese."));
    let reply = |text: &str, value: Value| fake.when(text, Answer::text(value.to_string()));
    // The newest rule that fits counts.
    reply(
        "Cut the text into statements",
        json!({"statements": ["The tower is in Paris.", "The tower is made of cheese."]}),
    );
    reply(
        "It is 330 m high",
        json!({"statements": ["The tower is in Paris.", "The tower is 330 m high."]}),
    );
    reply(
        "高さは330メートル",
        json!({"statements": ["塔はパリにある。", "塔の高さは330メートルだ。"]}),
    );
    reply(
        "was of use to arrive",
        json!({"reason": "not needed", "verdict": "no"}),
    );
    reply(
        "tower stands",
        json!({"reason": "says where", "verdict": "yes"}),
    );
    reply(
        "塔はパリに立って",
        json!({"reason": "場所がわかる", "verdict": "はい"}),
    );
    // Not quite JSON: mended.
    fake.when(
        "follows from the source alone",
        Answer::text(
            "Here:\n```json\n{\"verdicts\": [{\"number\": 1, \"reason\": \"r\", \"verdict\": \"yes\"}, \
             {\"number\": 2, \"reason\": \"nobody says so\", \"verdict\": \"no\"},]}\n```",
        ),
    );
    reply(
        "Write the one question",
        json!({"question": "Where is the tower?", "evasive": false}),
    );
    fake.when("SPEECHLESS", Answer::text("I had rather not say."));
    fake.when("rather not say", Answer::text("I had rather not say."));
    let document = json!({
        "dataset": "dataset:facts@latest", "candidates": [{"name": "one", "model": "fake/candidate"}],
        "evaluators": [
            rag("faithfulness", json!({})), rag("context_recall", json!({})),
            rag("context_precision", json!({})), rag("factual_correctness", json!({})),
            rag("answer_relevancy", json!({"embedding_model": "fake/embedder", "questions": 2})),
        ],
        "concurrency": 4, "budget_usd": 5.0,
    });
    let id = start(&live, &document);
    let shown = wait(&live, &id);

    let check = |example: usize, metric: &str, expected: f64| {
        let found = said(&live, &id, example, metric);
        assert_eq!(found["outcome"], "scored", "{example} {metric}: {found:#}");
        let value = found["value"].as_f64().unwrap();
        close(value, expected, 1e-6, &format!("{example} {metric}"));
        found
    };
    for example in [0, 1] {
        let found = check(example, "faithfulness", 0.5);
        assert!(
            found["reason"].as_str().unwrap().contains("cheese"),
            "{found:#}"
        );
        assert_eq!(found["detail"]["replies"][1]["mended"], true, "{found:#}");
        check(example, "context_recall", 0.5);
        // The useful text comes second.
        check(example, "context_precision", 0.5);
        check(example, "factual_correctness", 0.5);
        check(example, "answer_relevancy", 1.0);
    }
    let japanese = said(&live, &id, 1, "context_recall");
    assert_eq!(
        japanese["detail"]["verdicts"][0]["text"], "塔はパリにあります。",
        "{japanese:#}"
    );
    // Nothing was retrieved, so nothing can be said about it; and prose is no verdict.
    let unscored = |example: usize, metric: &str, why: &str| {
        let found = said(&live, &id, example, metric);
        assert_eq!(found["outcome"], "unscored", "{found:#}");
        assert!(found["reason"].as_str().unwrap().contains(why), "{found:#}");
        found
    };
    unscored(2, "faithfulness", "there is no context");
    unscored(2, "context_precision", "there is no context");
    let broken = unscored(3, "faithfulness", "could not be read");
    assert_eq!(
        broken["detail"]["replies"].as_array().unwrap().len(),
        2,
        "{broken:#}"
    );
    unscored(3, "factual_correctness", "could not be read");

    // Every call is a trace under the evaluation's tag, and on its bill.
    let calls = fake
        .seen()
        .iter()
        .filter(|seen| seen.method == "POST")
        .count();
    let filter = crate::harness::encode(&format!("tag.evaluation = \"{id}\""));
    let found = live.wait_for(
        &format!("/api/v1/traces?limit=200&filter={filter}"),
        |found| {
            found["items"]
                .as_array()
                .is_some_and(|items| items.len() >= calls)
        },
    );
    assert_eq!(found["items"].as_array().unwrap().len(), calls);
    let spent = shown["evaluation"]["spent_usd"].as_f64().unwrap();
    assert!(spent > 0.0, "{shown:#}");
    let of_score = said(&live, &id, 0, "faithfulness");
    assert!(of_score["trace"].is_string(), "{of_score:#}");
    let signature = &shown["results"]["evaluators"][0]["signature"];
    assert_eq!(
        signature,
        "rag:faithfulness|model:fake/judge-large|prompt:1"
    );
}

#[test]
fn formulas_of_ragas() {
    let (yes, no) = (true, false);
    assert_eq!(faithfulness(&[yes, no, no, yes]), Some(0.5));
    assert_eq!(faithfulness(&[]), None);
    assert_eq!(context_precision(&[]), None);
    close(
        context_precision(&[yes, no, yes]).unwrap(),
        5.0 / 6.0,
        1e-9,
        "precision",
    );
    assert_eq!(context_precision(&[no, no]), Some(0.0));
    assert_eq!(answer_relevancy(&[0.5, 1.0], false), Some(0.75));
    assert_eq!(answer_relevancy(&[0.5, 1.0], true), Some(0.0));
    assert_eq!(answer_relevancy(&[], true), None);
    // 2 right, 1 wrong, 3 missed: P 2/3, R 2/5, F1 1/2.
    let (ours, theirs) = ([yes, yes, no], [yes, no, no, no]);
    assert_eq!(factual_correctness(&ours, &theirs, FactualValue::F1), 0.5);
    assert_eq!(
        factual_correctness(&ours, &theirs, FactualValue::Precision),
        0.67
    );
    assert_eq!(
        factual_correctness(&ours, &theirs, FactualValue::Recall),
        0.4
    );
    assert_eq!(factual_correctness(&[], &theirs, FactualValue::F1), 0.0);
}

#[test]
fn replies_about_statements() {
    let read = |text: &str, count| {
        let (value, _) = object_of(text)?;
        let verdicts = read_support(&value, count)?;
        Ok::<_, String>(verdicts.iter().map(|one| one.verdict).collect::<Vec<_>>())
    };
    let check = |text: &str, count, expected: Result<&[bool], &str>| match expected {
        Ok(verdicts) => assert_eq!(read(text, count).as_deref(), Ok(verdicts), "{text}"),
        Err(part) => {
            let why = read(text, count).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    };
    check(
        r#"{"verdicts": [{"number": 2, "verdict": "no"}, {"number": 1, "verdict": "Yes."}]}"#,
        2,
        Ok(&[true, false]),
    );
    check(
        r#"{"verdicts": [{"verdict": 1}, {"verdict": false}]}"#,
        2,
        Ok(&[true, false]),
    );
    check(
        r#"{"verdicts": [{"number": 1, "verdict": "yes"}]}"#,
        2,
        Err("statement 2 has no verdict"),
    );
    check(
        r#"{"verdicts": [{"number": 1, "verdict": "yes"}, {"number": 1, "verdict": "no"}]}"#,
        2,
        Err("two verdicts"),
    );
    check(
        r#"{"verdicts": [{"number": 3, "verdict": "yes"}]}"#,
        2,
        Err("no statement 3"),
    );
    check(
        r#"{"verdicts": [{"number": 1, "verdict": "maybe"}]}"#,
        1,
        Err("neither yes nor no"),
    );
    check(
        r#"{"verdicts": [{"number": 1, "verdict": 0.5}]}"#,
        1,
        Err("neither yes nor no"),
    );
    check("all of them", 1, Err("no JSON"));
    check("{}", 1, Err("no list"));
    assert_eq!(
        read_statements(&json!({"statements": [" a ", ""]})),
        Ok(vec!["a".to_owned()])
    );
    assert!(read_statements(&json!({"statements": [1]})).is_err());
    assert!(read_statements(&json!({"statements": vec!["x"; 201]})).is_err());
}

#[test]
fn documents_are_checked() {
    let check = |content: Value, path: &str| {
        let problems = EvaluatorDocument::parse(&content).expect_err(path);
        assert!(
            problems.iter().any(|one| one.path == path),
            "{path}: {problems:?}"
        );
    };
    check(
        json!({"type": "rag", "metric": "answer_relevancy", "model": "a/b"}),
        "/embedding_model",
    );
    check(
        json!({"type": "rag", "metric": "faithfulness", "model": "a/b", "questions": 2}),
        "/questions",
    );
    check(
        json!({"type": "rag", "metric": "faithfulness", "model": "b"}),
        "/model",
    );
    check(
        json!({"type": "rag", "metric": "factual_correctness", "model": "a/b", "contexts": "/c"}),
        "/contexts",
    );
    check(json!({"type": "bertscore", "model": "openai/x"}), "/model");
    check(
        json!({"type": "bertscore", "model": "local/x", "rescale": {"precision": 1.0, "recall": 0.0, "f1": 0.0}}),
        "/rescale/precision",
    );
    check(json!({"type": "perplexity", "model": "fake/x"}), "/model");
    check(
        json!({"type": "embedding", "model": "x", "output": "nope("}),
        "/output",
    );
    let signature = |content: Value| EvaluatorDocument::parse(&content).unwrap().signature();
    assert_eq!(
        signature(json!({"type": "bertscore", "model": "local/minilm", "layer": 6})),
        "bertscore/minilm-L6|idf:no|rescale:no|value:f1|refs:best"
    );
    assert_eq!(
        signature(json!({"type": "perplexity", "model": "local/smollm2"})),
        "perplexity|given:nothing|model:local/smollm2"
    );
}

/// Every starting point is whole as soon as it has a model, in both languages.
#[test]
fn starting_points_are_whole() {
    use server::evaluators::LIBRARY;
    use server::ui::Lang;
    let ids = |lang| -> Vec<&str> {
        LIBRARY
            .templates(lang)
            .iter()
            .map(|one| one.id.as_str())
            .collect()
    };
    assert_eq!(ids(Lang::En), ids(Lang::Ja));
    assert!(ids(Lang::En).contains(&"toxicity"));
    let both = [Lang::En, Lang::Ja].map(|lang| LIBRARY.templates(lang));
    for template in both.into_iter().flatten() {
        let mut document = template.document.clone();
        document["model"] = json!("a/b");
        let parsed = EvaluatorDocument::parse(&document);
        assert!(parsed.is_ok(), "{}: {parsed:?}", template.id);
    }
}

/// Against numpy, with the same weights: `oracle/bertscore/make.py`.
#[test]
fn bertscore_is_that_of_the_reference() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/bertscore.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let model = Embedder::load(&test_file("minilm")).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().unwrap().iter();
        items
            .map(|text| text.as_str().unwrap().trim().to_owned())
            .collect()
    };
    // The dataset: each case's references once.
    let mut idf = Frequencies::default();
    let mut seen = Vec::new();
    for case in cases {
        let key = (case["answer"].clone(), case["references"].clone());
        if !seen.contains(&key) {
            texts(&case["references"])
                .iter()
                .for_each(|text| idf.add(&model.token_ids(text).unwrap()));
            seen.push(key);
        }
    }
    for case in cases {
        let layer = case["layer"].as_u64().map(|layer| layer as usize);
        let answer = case["answer"].as_str().unwrap().trim();
        let answer = model.token_vectors(answer, layer).unwrap();
        let idf = (case["idf"] == true).then_some(&idf);
        let best = texts(&case["references"])
            .iter()
            .map(|text| {
                let expected = model.token_vectors(text, layer).unwrap();
                let side = |of: &engine::TokenVectors| (of.token_ids.clone(), of.vectors.clone());
                let ((ids, vectors), (their_ids, their_vectors)) = (side(&answer), side(&expected));
                let ours = Encoded {
                    ids: &ids,
                    vectors: &vectors,
                };
                let theirs = Encoded {
                    ids: &their_ids,
                    vectors: &their_vectors,
                };
                score(ours, theirs, idf).unwrap()
            })
            .reduce(BertScore::best)
            .unwrap();
        let expected = &case["prf"];
        for (found, expected) in [best.precision, best.recall, best.f1]
            .into_iter()
            .zip(expected.as_array().unwrap())
        {
            close(found, expected.as_f64().unwrap(), 1e-5, &case.to_string());
        }
    }
}

/// With the real small models, installed as anybody would.
#[test]
fn local_models_measure() {
    let place = Place::new();
    for (folder, name) in [
        ("minilm", "minilm"),
        ("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"),
    ] {
        let path = test_file(folder).display().to_string();
        place
            .meguri(&["model", "pull", &path, "--name", name])
            .assert_done();
    }
    let live = place.start();
    make_dataset(
        &live,
        &json!([
            {"id": "a", "input": "FIRST", "expected": ["The cat sat on the mat.", "A dog"]},
            {"id": "b", "input": "SECOND", "expected": "The museum opens at nine."},
            {"id": "c", "input": "THIRD"},
        ]),
    );
    place
        .fake
        .when("FIRST", Answer::text("The cat sat on the mat."));
    place.fake.when(
        "SECOND",
        Answer::text("purple quickly refrigerator of the because"),
    );
    place.fake.when("THIRD", Answer::text("  "));
    let evaluator = |name: &str, document: Value| json!({"name": name, "evaluator": document});
    let document = json!({
        "dataset": "dataset:facts@latest", "candidates": [{"name": "one", "model": "fake/candidate"}],
        "evaluators": [
            evaluator("cosine", json!({"type": "embedding", "model": "local/minilm"})),
            evaluator("bert", json!({"type": "bertscore", "model": "local/minilm", "idf": true})),
            evaluator("ppl", json!({"type": "perplexity", "model": "local/smollm2"})),
            evaluator("given", json!({"type": "perplexity", "model": "local/smollm2", "given": "input"})),
        ],
    });
    let id = start(&live, &document);
    wait(&live, &id);
    let value = |example: usize, name: &str| {
        let found = said(&live, &id, example, name);
        found["value"]
            .as_f64()
            .unwrap_or_else(|| panic!("{found:#}"))
    };
    close(value(0, "cosine"), 1.0, 1e-5, "the same text");
    close(value(0, "bert"), 1.0, 1e-5, "the same text");
    assert!(value(1, "cosine") < 0.5 && value(1, "bert") < 0.8);
    // llama.cpp has 206 and 42,248 with the same weights: a sentence is less of a surprise than
    // words in a heap.
    assert!(value(0, "ppl") < 400.0, "{}", value(0, "ppl"));
    assert!(
        value(1, "ppl") > 10.0 * value(0, "ppl"),
        "{}",
        value(1, "ppl")
    );
    assert!(value(1, "given") > value(0, "given"));
    for name in ["cosine", "bert", "ppl"] {
        assert_eq!(said(&live, &id, 2, name)["outcome"], "unscored", "{name}");
    }
    // The cosine is a call like any other.
    assert!(said(&live, &id, 0, "cosine")["trace"].is_string());
}

#[test]
fn data_for_metrics_is_fetched_whole_or_not_at_all() {
    let place = Place::new();
    let list = || {
        let listed = place.meguri(&["data", "list", "--json"]).json();
        let items = listed["items"].as_array().unwrap().clone();
        let state = |name: &str| {
            let found = items.iter().find(|one| one["name"] == name);
            found.unwrap()["state"].as_str().unwrap().to_owned()
        };
        [state("ja-dictionary"), state("vader")]
    };
    assert_eq!(list(), ["missing", "missing"]);

    // Without a network: what to do, and nothing left behind.
    let offline = |url: &str| {
        let mut command = place.command();
        command
            .args(["data", "pull", "vader"])
            .args(place.place_args());
        command
            .env("PIP_INDEX_URL", url)
            .env("PIP_RETRIES", "0")
            .env("PIP_CONFIG_FILE", "/dev/null");
        place.run(&mut command)
    };
    let ended = offline("http://127.0.0.1:9/simple");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("--from FILE"), "{ended:?}");
    // A registry that has another file under that name.
    let wheel = "vaderSentiment-3.3.2-py2.py3-none-any.whl";
    let html = |body: String| {
        Answer::faulty(testkit::provider::Fault::Raw(
            "text/html",
            vec![body.into()],
        ))
    };
    place.fake.always(html(format!(
        "<!DOCTYPE html><html><body><a href=\"/files/{wheel}\">{wheel}</a></body></html>"
    )));
    place
        .fake
        .when(format!("/files/{wheel}"), html("something else".to_owned()));
    let ended = offline(&format!("{}/simple", place.fake.url()));
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .stderr
            .to_lowercase()
            .contains("do not match the hashes"),
        "{ended:?}"
    );
    assert_eq!(list(), ["missing", "missing"]);

    // From a folder of this machine; a changed file is refused.
    let folder = place.beside("vader");
    std::fs::create_dir(&folder).unwrap();
    for name in ["vader_lexicon.txt", "emoji_utf8_lexicon.txt"] {
        std::fs::copy(test_file("vader").join(name), folder.join(name)).unwrap();
    }
    let from = |set: &str, path: &PathBuf| {
        place.meguri(&["data", "pull", set, "--from", &path.display().to_string()])
    };
    std::fs::write(folder.join("emoji_utf8_lexicon.txt"), "other").unwrap();
    let ended = from("vader", &folder);
    assert!(
        ended.code == 1 && ended.stderr.contains("emoji_utf8_lexicon.txt"),
        "{ended:?}"
    );
    std::fs::copy(
        test_file("vader").join("emoji_utf8_lexicon.txt"),
        folder.join("emoji_utf8_lexicon.txt"),
    )
    .unwrap();
    from("vader", &folder).assert_done();
    let dictionary = test_file("ipadic");
    from("ja-dictionary", &dictionary).assert_done();
    assert_eq!(list(), ["installed", "installed"]);
    assert_eq!(place.meguri(&["data", "pull", "nothing"]).code, 3);

    let live = place.start();
    make_dataset(
        &live,
        &json!([{"id": "a", "input": "Q", "expected": "猫はマットの上に座っていた。"}]),
    );
    place
        .fake
        .always(Answer::text("猫はマットの上に座っていました。"));
    let metric = |name: &str, metric: Value| json!({"name": name, "evaluator": {"type": "metric", "metric": metric}});
    let document = json!({
        "dataset": "dataset:facts@latest", "candidates": [{"name": "one", "model": "fake/candidate"}],
        "evaluators": [
            metric("bleu", json!({"id": "compat:bleu", "tokeniser": "ja-mecab"})),
            metric("vader", json!({"id": "compat:vader"})),
        ],
        "cache": false,
    });
    let id = start(&live, &document);
    wait(&live, &id);
    let bleu = said(&live, &id, 0, "bleu");
    assert!(
        bleu["value"]
            .as_f64()
            .is_some_and(|value| value > 50.0 && value < 100.0),
        "{bleu:#}"
    );
    assert_eq!(said(&live, &id, 0, "vader")["outcome"], "scored");

    // What the disk has changed is not used, and pulling it again mends it.
    let file = place.data().join("resources/ja-dictionary/ipadic.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(list(), ["damaged", "installed"]);
    let id = start(&live, &document);
    wait(&live, &id);
    let bleu = said(&live, &id, 0, "bleu");
    assert_eq!(bleu["outcome"], "unscored", "{bleu:#}");
    assert!(
        bleu["reason"]
            .as_str()
            .unwrap()
            .contains("meguri data pull ja-dictionary"),
        "{bleu:#}"
    );
}
