//! Examples that an embedding model chooses, and what becomes of calls without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Digest;
use gateway::{CallStatus, Prompt, PromptDocument, PromptVersion, Record, RecordKind};
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::apps::release;
use crate::rig::Rig;

/// Letters say the second example is the nearest to it, meaning the first.
const QUESTION: &str = "The package has not come";
const BY_MEANING: &str = "Where is my delivery?";
const BY_LETTERS: &str = "The invoice has not come";

fn sorting(select: &Value) -> Value {
    let example =
        |text: &str, output: &str| json!({"inputs": {"question": text}, "output": output});
    json!({
        "messages": [{"role": "user", "content": "{{ question }}"}],
        "examples": {"items": [example(BY_MEANING, "shipping"), example(BY_LETTERS, "billing")], "select": select},
    })
}

fn by_embedding(model: Option<&str>) -> Value {
    let mut select = json!({"k": 1, "by": "embedding", "input": "question"});
    if let Some(model) = model {
        select["model"] = model.into();
    }
    sorting(&select)
}

fn rig(document: &Value) -> Rig {
    let rig = Rig::with(|provider| provider.retry.attempts = 1);
    rig.put_prompt("sort", document);
    rig
}

impl Rig {
    fn put_prompt(&self, name: &str, document: &Value) {
        let parsed = PromptDocument::parse(document).unwrap_or_else(|it| panic!("{it:?}"));
        let digest = Digest::of_json(document).unwrap();
        let prompt = Prompt {
            versions: BTreeMap::from([(1, Arc::new(PromptVersion::new(digest, parsed)))]),
            labels: BTreeMap::from([("production".to_owned(), 1)]),
        };
        self.set_project(|project| {
            project.prompts.insert(name.to_owned(), Arc::new(prompt));
        });
    }

    /// The example that a call was shown, and the records of the call.
    async fn shown(&self, question: &str) -> (String, Vec<Record>) {
        self.sink.records.lock().unwrap().clear();
        let body = json!({"model": "open/fake-large", "prompt_id": "sort", "prompt_variables": {"question": question}});
        let (status, answer) = self.chat_json(&body).await;
        assert_eq!(status, 200, "{answer}");
        let records = self.records();
        let call = records.iter().find(|it| it.kind == RecordKind::Chat);
        let first = &call.unwrap().input[0]["content"];
        (first.as_str().unwrap().to_owned(), records)
    }
}

fn of_kind(records: &[Record], kind: RecordKind) -> Vec<Record> {
    let found = records.iter().filter(|it| it.kind == kind);
    found.cloned().collect()
}

fn note(records: &[Record]) -> Option<String> {
    let call = of_kind(records, RecordKind::Chat).pop().unwrap();
    let note = call.metadata.get("meguri.examples")?;
    Some(note.as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_nearest_by_meaning_is_shown_and_examples_are_embedded_once() {
    let rig = rig(&by_embedding(None));
    let (shown, records) = rig.shown(QUESTION).await;
    assert_eq!((shown.as_str(), note(&records)), (BY_MEANING, None));
    let call = of_kind(&records, RecordKind::Chat).remove(0);
    let embedded = of_kind(&records, RecordKind::Embedding);
    let inputs: Vec<usize> = embedded.iter().map(|it| it.input.len()).collect();
    assert_eq!(inputs, [2, 1], "the examples, and the question");
    for record in &embedded {
        assert_eq!(record.parent, Some(call.span_id));
        assert_eq!(record.trace_id, call.trace_id);
        assert_eq!(record.request_model, "local/vectors");
        assert_eq!(record.prompt.as_ref().unwrap().name, "sort");
        assert!(record.usage.is_some());
    }
    let (shown, records) = rig.shown("I want a refund").await;
    assert_eq!(shown, BY_LETTERS);
    assert_eq!(of_kind(&records, RecordKind::Embedding).len(), 1);
    // The same plan later: a version stays what it is.
    rig.set_project(|_| {});
    assert_eq!(
        of_kind(&rig.shown(QUESTION).await.1, RecordKind::Embedding).len(),
        1
    );
    // Another version has examples of its own.
    let mut other = by_embedding(None);
    other["description"] = "another".into();
    rig.put_prompt("sort", &other);
    assert_eq!(
        of_kind(&rig.shown(QUESTION).await.1, RecordKind::Embedding).len(),
        2
    );
    // Without the input the question of the conversation counts, and similarity is as it was.
    rig.put_prompt(
        "sort",
        &sorting(&json!({"k": 1, "by": "similarity", "input": "question"})),
    );
    let (shown, records) = rig.shown(QUESTION).await;
    assert_eq!((shown.as_str(), records.len()), (BY_LETTERS, 1));
}

#[tokio::test]
async fn many_at_once_embed_the_examples_once() {
    let rig = rig(&by_embedding(None));
    let body = json!({"model": "open/fake-large", "prompt_id": "sort", "prompt_variables": {"question": QUESTION}});
    let calls = (0..8).map(|_| rig.chat_json(&body));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    let embedded = of_kind(&rig.records(), RecordKind::Embedding);
    let of_examples = embedded.iter().filter(|it| it.input.len() == 2).count();
    assert_eq!((of_examples, embedded.len()), (1, 9));
}

#[tokio::test]
async fn a_providers_model_chooses_too_whatever_the_order_of_its_answer() {
    let rig = rig(&by_embedding(Some("open/embed")));
    let row = |index: usize, vector: [f32; 2]| json!({"index": index, "embedding": vector});
    let answer = |rows: Value| {
        Answer::json(&json!({"data": rows, "usage": {"prompt_tokens": 9, "total_tokens": 9}}))
    };
    rig.provider
        .next(answer(json!([row(1, [0.1, 0.9]), row(0, [3.0, 0.3])])));
    rig.provider.next(answer(json!([row(0, [5.0, 0.1])])));
    let (shown, records) = rig.shown(QUESTION).await;
    assert_eq!((shown.as_str(), note(&records)), (BY_MEANING, None));
    let embedded = of_kind(&records, RecordKind::Embedding);
    assert_eq!(embedded[0].provider.as_deref(), Some("open"));
    assert_eq!(embedded[0].usage.unwrap().input, 9);
    assert_eq!(rig.provider.seen()[0].path, "/v1/embeddings");
    assert_eq!(
        rig.provider.seen()[0].json(),
        json!({"model": "embed", "input": [BY_MEANING, BY_LETTERS]})
    );
    // Somebody put another model behind the name: said once, and begun anew.
    rig.provider
        .next(answer(json!([{"index": 0, "embedding": [1.0]}])));
    let (shown, records) = rig.shown(QUESTION).await;
    assert_eq!(shown, BY_LETTERS);
    assert!(note(&records).unwrap().contains("different lengths"));
    let (_, records) = rig.shown(QUESTION).await;
    assert_eq!(of_kind(&records, RecordKind::Embedding)[0].input.len(), 2);
}

#[tokio::test]
async fn a_model_that_fails_is_said_and_letters_choose() {
    for (answer, part, rests) in [
        (Answer::status(503, "{}"), "503", true),
        (
            Answer::status(400, r#"{"error": {"message": "too odd"}}"#),
            "too odd",
            false,
        ),
        (
            Answer::json(&json!({"data": []})),
            "did not answer every text",
            true,
        ),
        (
            Answer::json(&json!({"data": [{"embedding": "AAAA"}]})),
            "sent no embeddings",
            true,
        ),
        (Answer::faulty(Fault::DieAfter(0)), "broke", true),
    ] {
        let rig = rig(&by_embedding(Some("open/embed")));
        rig.provider.when("/v1/embeddings", answer);
        let (shown, records) = rig.shown(QUESTION).await;
        assert_eq!(shown, BY_LETTERS, "{part}");
        let said = note(&records).unwrap();
        assert!(
            said.starts_with("chosen by similarity instead of by embedding: ")
                && said.contains(part),
            "{said}"
        );
        let call = of_kind(&records, RecordKind::Chat).remove(0);
        assert_eq!(call.status, CallStatus::Ok);
        // One that is down is left alone for a while.
        let asked = |rig: &Rig| {
            let seen = rig.provider.seen();
            seen.iter().filter(|it| it.path == "/v1/embeddings").count()
        };
        let before = asked(&rig);
        let (_, records) = rig.shown(QUESTION).await;
        assert!(note(&records).is_some());
        assert_eq!(asked(&rig) == before, rests, "{part}");
    }
    for (model, part) in [
        ("local/nothing", "does not exist"),
        ("nobody/embed", "does not exist"),
        ("local/parrot", "not a model for this kind of call"),
        ("claude/embed", "no embeddings"),
    ] {
        let rig = rig(&by_embedding(Some(model)));
        let (shown, records) = rig.shown(QUESTION).await;
        assert_eq!(shown, BY_LETTERS, "{model}");
        assert!(note(&records).unwrap().contains(part), "{records:#?}");
        let embedded = of_kind(&records, RecordKind::Embedding);
        assert_eq!(embedded[0].status, CallStatus::Error, "{model}");
    }
}

#[tokio::test]
async fn partials_and_steps_of_apps_choose_too() {
    let rig = rig(&json!({
        "partials": {"shown": "prompt:shown"},
        "messages": [{"role": "user", "content": "{{ partials.shown }}: {{ question }}"}],
    }));
    let mut partial = by_embedding(None);
    partial["type"] = "text".into();
    partial["template"] = "{% for it in examples %}{{ it.inputs.question }}{% endfor %}".into();
    partial.as_object_mut().unwrap().remove("messages");
    rig.put_prompt("shown", &partial);
    let (shown, records) = rig.shown(QUESTION).await;
    assert_eq!(shown, format!("{BY_MEANING}: {QUESTION}"));
    assert_eq!(records.len(), 3);

    let step = |model: &str| {
        json!({"steps": [{"id": "a", "type": "prompt", "model": "open/fake-large", "prompt": by_embedding(Some(model)),
            "variables": {"question": "inputs.question"}}]})
    };
    for (model, expected) in [("local/vectors", BY_MEANING), ("local/nothing", BY_LETTERS)] {
        for stream in [false, true] {
            rig.put_app(vec![release("sorter", 1, &step(model))]);
            rig.sink.records.lock().unwrap().clear();
            let body = json!({"model": "sorter", "stream": stream, "messages": [{"role": "user", "content": QUESTION}]});
            let (status, text) = rig.chat_text(body.to_string()).await;
            assert_eq!(status, 200, "{text}");
            let records = rig.records();
            let call = of_kind(&records, RecordKind::Chat).remove(0);
            assert_eq!(call.input[0]["content"], expected, "{model}");
            assert_eq!(note(&records).is_some(), expected == BY_LETTERS);
            let embedded = of_kind(&records, RecordKind::Embedding).remove(0);
            assert_eq!(embedded.app.unwrap().step.as_deref(), Some("a"));
            assert_eq!(embedded.parent, Some(rig.root().span_id));
        }
    }
}

#[test]
fn what_a_choice_cannot_be() {
    let check = |select: Value, path: &str, part: &str| {
        let problems = PromptDocument::parse(&sorting(&select)).unwrap_err();
        assert!(
            problems[0].path == path && problems[0].message.contains(part),
            "{problems:?}"
        );
    };
    let at = "/examples/select/model";
    check(
        json!({"k": 1, "by": "similarity", "model": "local/x"}),
        at,
        "only a choice by",
    );
    check(
        json!({"k": 1, "by": "embedding", "model": "x"}),
        at,
        "local/NAME",
    );
    check(json!({"k": 1, "by": "embedding", "model": 7}), at, "string");
    check(
        json!({"k": 1, "by": "meaning"}),
        "/examples/select/by",
        "embedding",
    );
    check(
        json!({"k": 1, "by": "embedding", "modle": "x"}),
        "/examples/select/modle",
        "",
    );
}
