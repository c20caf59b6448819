//! Apps: steps that feed each other, run as one call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::{Digest, Secret};
use gateway::{
    App, AppDocument, AppVersion, Arm, CallStatus, Experiment, PinnedPrompt, PromptDocument,
    PromptVersion, Record, RecordKind, Release, Target, Unit,
};
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::rig::{Rig, events, read};

pub(crate) fn release(name: &str, number: i64, document: &Value) -> Arc<Release> {
    let document = AppDocument::parse(document).unwrap_or_else(|it| panic!("{it:#?}"));
    let digest = Digest::of(format!("{name}{number}").as_bytes());
    Arc::new(Release {
        name: name.to_owned(),
        number,
        digest,
        app: Arc::new(AppVersion::new(digest, document)),
        prompts: HashMap::new(),
        guards: HashMap::new(),
        credentials: HashMap::new(),
    })
}

pub(crate) fn prompt(number: i64, document: &Value) -> PinnedPrompt {
    let digest = Digest::of(document.to_string().as_bytes());
    let document = PromptDocument::parse(document).unwrap_or_else(|it| panic!("{it:#?}"));
    PinnedPrompt {
        number,
        version: Arc::new(PromptVersion::new(digest, document)),
    }
}

impl Rig {
    /// The environment `dev` runs the first of these; all of them may be used.
    pub(crate) fn put_app(&self, releases: Vec<Arc<Release>>) {
        self.set_project(|project| {
            let first = releases[0].clone();
            let name = first.name.clone();
            let app = App {
                environments: [("dev".to_owned(), first)].into(),
                releases: releases.into_iter().map(|it| (it.number, it)).collect(),
            };
            project.apps.insert(name, Arc::new(app));
        });
    }

    /// Tools may call the fake provider, which is on loopback.
    pub(crate) fn allow_private_tools(&self) {
        self.set_plan(|plan| plan.limits.private_tools = true);
    }

    pub(crate) async fn ask(&self, model: &str, text: &str) -> (u16, Value) {
        let body = json!({"model": model, "messages": [{"role": "user", "content": text}]});
        self.chat_json(&body).await
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.sink.records.lock().unwrap().clone()
    }

    /// The record of a step.
    pub(crate) fn step(&self, id: &str) -> Record {
        let records = self.records();
        let of = |it: &&Record| it.app.as_ref().and_then(|app| app.step.as_deref()) == Some(id);
        records
            .iter()
            .find(of)
            .cloned()
            .unwrap_or_else(|| panic!("no {id}: {records:#?}"))
    }

    pub(crate) fn root(&self) -> Record {
        let records = self.records();
        let root = records.iter().find(|it| it.kind == RecordKind::App);
        root.cloned().unwrap_or_else(|| panic!("{records:#?}"))
    }

    pub(crate) async fn wait_for(&self, what: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if what(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not happen: {:#?}", self.records());
    }
}

pub(crate) fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

pub(crate) fn inline(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

/// "Who is the prime minister, where were they born, how far is that from London?"
pub(crate) fn minister(url: &str) -> Value {
    json!({
        "description": "Answers a question in three parts.",
        "models": {"small": ["open/fake-large"]},
        "tools": {"distance": {
            "type": "http", "description": "Kilometres between two places.",
            "url": format!("{url}/distance/{{from}}/{{to}}?unit=km"), "credential": "env:MEGURI_TOOL_MAPS",
            "parameters": {"type": "object", "required": ["from", "to"], "properties": {
                "from": {"type": "string", "minLength": 1}, "to": {"type": "string"}}},
            "dry": {"km": 1},
        }},
        "steps": [
            {"id": "who", "type": "prompt", "prompt": "prompt:geo/who@production", "model": "small",
                "variables": {"country": "inputs.country"}},
            {"id": "born", "type": "prompt", "model": "small", "variables": {"name": "steps.who.json.name"},
                "prompt": inline("Where was {{ name }} born?")},
            {"id": "far", "type": "tool", "tool": "distance",
                "arguments": {"from": "steps.born.text.trim()", "to": "'London'"}},
            {"id": "answer", "type": "prompt", "model": "small",
                "variables": {"name": "steps.who.json.name", "town": "steps.born.text", "km": "steps.far.json.km"},
                "prompt": inline("Say: {{ name }} was born in {{ town }}, {{ km }} km from London.")},
        ],
        "inputs": {"type": "object", "required": ["country"], "additionalProperties": false,
            "properties": {"country": {"type": "string"}}},
    })
}

fn minister_rig() -> Rig {
    let rig = Rig::new();
    let mut release =
        Arc::into_inner(release("geo/minister", 4, &minister(&rig.provider.url()))).unwrap();
    let who = json!({
        "messages": [{"role": "user", "content": "Who leads {{ country }}?"}],
        "response_format": {"type": "json_object"},
    });
    release
        .prompts
        .insert("prompt:geo/who@production".to_owned(), prompt(7, &who));
    let secret = Secret::new("tool-secret-42".to_owned());
    release
        .credentials
        .insert("env:MEGURI_TOOL_MAPS".to_owned(), secret);
    rig.put_app(vec![Arc::new(release)]);
    rig.allow_private_tools();
    rig.provider.when(
        "Who leads Japan?",
        Answer::text("```json\n{\"name\": \"Sanae\"}\n```"),
    );
    rig.provider
        .when("Where was Sanae born?", Answer::text(" Nara "));
    rig.provider.when(
        "/distance/Nara/London?unit=km",
        Answer::json(&json!({"km": 9500})),
    );
    rig.provider.when(
        "Say: Sanae",
        Answer::text("Sanae was born in Nara, 9500 km away."),
    );
    rig
}

#[tokio::test]
async fn one_question_becomes_steps_that_feed_each_other() {
    let rig = minister_rig();
    let response = rig
        .chat(
            json!({"model": "geo/minister", "messages": [{"role": "user", "content": "Japan"}], "user": "u1",
                "meguri": {"session": "s1", "tags": ["team=a"]}})
            .to_string(),
        )
        .await;
    assert_eq!(response.headers()["x-meguri-release"], "geo/minister@4");
    assert!(
        response.headers()["x-meguri-release-digest"]
            .to_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let (status, text) = read(response).await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text_of(&answer), "Sanae was born in Nara, 9500 km away.");
    assert_eq!(answer["model"], "geo/minister");
    assert_eq!(answer["object"], "chat.completion");

    let records = rig.records();
    assert_eq!(records.len(), 5);
    let root = rig.root();
    assert_eq!(root.parent, None);
    assert_eq!((root.usage, root.cost), (None, None), "its steps have them");
    assert_eq!(root.app.as_ref().unwrap().release, Some(4));
    assert_eq!(
        root.output[0]["content"],
        "Sanae was born in Nara, 9500 km away."
    );
    let mut tokens = 0;
    for id in ["who", "born", "far", "answer"] {
        let step = rig.step(id);
        assert_eq!(step.parent, Some(root.span_id), "{id}");
        assert_eq!(step.trace_id, root.trace_id);
        assert_eq!(step.status, CallStatus::Ok);
        assert_eq!(step.session.as_deref(), Some("s1"));
        assert_eq!(step.tags["team"], "a");
        assert_eq!(step.app.as_ref().unwrap().release, Some(4));
        tokens += step.usage.map_or(0, |usage| usage.input);
    }
    assert_eq!(answer["usage"]["prompt_tokens"], tokens);
    let who = rig.step("who");
    let used = who.prompt.unwrap();
    assert_eq!((used.name.as_str(), used.version), ("geo/who", 7));
    assert!(who.cost.is_some());
    let far = rig.step("far");
    assert_eq!(far.kind, RecordKind::Tool);
    assert_eq!(far.input, [json!({"from": "Nara", "to": "London"})]);
    assert_eq!(far.output, [json!({"km": 9500})]);
    let seen = rig.provider.seen();
    let called = seen
        .iter()
        .find(|it| it.path.starts_with("/distance"))
        .unwrap();
    assert_eq!(called.headers["authorization"], "Bearer tool-secret-42");
    assert!(!format!("{records:?}").contains("tool-secret-42"));
}

#[tokio::test]
async fn the_last_step_streams_under_the_apps_name() {
    let rig = minister_rig();
    let body = json!({"model": "app/geo/minister", "stream": true, "stream_options": {"include_usage": true},
        "messages": [], "metadata": {"inputs": "{\"country\": \"Japan\"}"}});
    let (status, text) = rig.chat_text(body.to_string()).await;
    assert_eq!(status, 200, "{text}");
    let events = events(&text);
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let said: String = chunks
        .iter()
        .filter_map(|it| it["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(said, "Sanae was born in Nara, 9500 km away.");
    let ids: BTreeSet<String> = chunks.iter().map(|it| it["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    assert!(chunks.iter().all(|it| it["model"] == "geo/minister"));
    let tokens: u64 = ["who", "born", "answer"]
        .iter()
        .map(|id| rig.step(id).usage.unwrap().input)
        .sum();
    assert_eq!(chunks.last().unwrap()["usage"]["prompt_tokens"], tokens);
    let root = rig.root();
    assert_eq!((root.status, root.streamed), (CallStatus::Ok, true));
    assert_eq!(
        root.output[0]["content"],
        "Sanae was born in Nara, 9500 km away."
    );
    assert!(rig.step("answer").streamed && !rig.step("who").streamed);
}

#[tokio::test]
async fn inputs_come_from_four_places_and_missing_ones_are_named() {
    let rig = minister_rig();
    for body in [
        json!({"model": "geo/minister", "messages": [{"role": "user", "content": [{"type": "text", "text": "Japan"}]}]}),
        json!({"model": "geo/minister", "messages": [], "prompt_variables": {"country": "Japan"}}),
        json!({"model": "geo/minister", "messages": [], "metadata": {"inputs": {"country": "Japan"}}}),
        json!({"model": "geo/minister", "meguri": {"variables": {"country": "Japan"}}}),
    ] {
        let (status, answer) = rig.chat_json(&body).await;
        assert_eq!(status, 200, "{body}: {answer}");
    }
    let refused = |body: Value, param: &'static str, part: &'static str| {
        let rig = &rig;
        async move {
            let (status, answer) = rig.chat_json(&body).await;
            assert_eq!(status, 400, "{answer}");
            assert_eq!(answer["error"]["param"], param, "{answer}");
            assert!(
                answer["error"]["message"].as_str().unwrap().contains(part),
                "{answer}"
            );
        }
    };
    let app = "geo/minister";
    refused(
        json!({"model": app, "messages": []}),
        "inputs.country",
        "\"country\"",
    )
    .await;
    refused(
        json!({"model": app, "metadata": {"inputs": {"country": 5}}}),
        "inputs.country",
        "5",
    )
    .await;
    refused(
        json!({"model": app, "metadata": {"inputs": {"country": "a", "town": "b"}}}),
        "inputs",
        "town",
    )
    .await;
    refused(
        json!({"model": app, "metadata": {"inputs": "[1]"}}),
        "metadata.inputs",
        "object",
    )
    .await;
    refused(
        json!({"model": app, "prompt_variables": []}),
        "prompt_variables",
        "object",
    )
    .await;
}

#[tokio::test]
async fn names_of_apps_yield_to_providers_and_are_listed() {
    let rig = Rig::new();
    let document = json!({"steps": [{"id": "a", "type": "prompt", "prompt": inline("{{ q }}"),
        "variables": {"q": "inputs.question"}, "model": "open/fake-large"}]});
    rig.put_app(vec![release("open/app", 1, &document)]);
    rig.put_app(vec![release("helper", 1, &document)]);
    let (status, answer) = rig.ask("open/app", "x").await;
    assert_eq!(
        (status, &answer["model"]),
        (200, &json!("app")),
        "the provider's"
    );
    assert_eq!(rig.ask("app/open/app", "x").await.1["model"], "open/app");
    assert_eq!(rig.ask("helper", "x").await.1["model"], "helper");
    let (status, answer) = rig.ask("helpr", "x").await;
    assert_eq!(status, 404);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("\"helper\""),
        "{answer}"
    );
    let listed = rig.gateway.models(&rig.gateway.plan(), &rig.principal);
    let app = listed.iter().find(|it| it.id == "helper").unwrap();
    assert_eq!(app.owned_by, "app");
    let mut stranger = rig.principal.clone();
    stranger.environment = "prod".to_owned();
    let body =
        json!({"model": "helper", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let response = rig
        .gateway
        .chat_completions(&rig.gateway.plan(), &stranger, rig.context(), body.into())
        .await;
    let (status, text) = read(response).await;
    assert_eq!(status, 404);
    assert!(
        text.contains("app_not_released") && text.contains("it is in dev"),
        "{text}"
    );
}

#[tokio::test]
async fn independent_steps_run_together_and_going_away_settles_each_once() {
    let rig = Rig::new();
    let step = |id: &str| json!({"id": id, "type": "prompt", "prompt": inline(&format!("stall {id}")), "model": "open/fake-large"});
    let document = json!({"steps": [step("a"), step("b"), {"id": "c", "type": "chain", "steps": [step("d")]},
        {"id": "last", "type": "prompt", "model": "open/fake-large", "prompt": inline("{{ x }}"),
            "variables": {"x": "steps.a.text + steps.b.text + steps.c.text"}}]});
    rig.put_app(vec![release("wide", 1, &document)]);
    rig.provider
        .when("stall", Answer::faulty(Fault::StallBeforeHeaders));
    let asked = rig.ask("wide", "x");
    let seen = rig.wait_for(|rig| rig.provider.open_answers() == 3);
    tokio::select! {
        answer = asked => panic!("{answer:?}"),
        () = seen => {}
    }
    rig.provider_is_idle().await;
    let records = rig.records();
    let mut settled: Vec<String> = records
        .iter()
        .map(|it| {
            format!(
                "{} {:?}",
                it.app.as_ref().unwrap().step.as_deref().unwrap_or("-"),
                it.status
            )
        })
        .collect();
    settled.sort();
    assert_eq!(
        settled,
        [
            "- Cancelled",
            "a Cancelled",
            "b Cancelled",
            "c Cancelled",
            "d Cancelled"
        ]
    );
}

#[tokio::test]
async fn going_away_in_the_last_steps_stream_cancels_both_records() {
    let rig = Rig::new();
    let document = json!({"steps": [{"id": "a", "type": "prompt", "prompt": inline("x"), "model": "open/fake-large"}]});
    rig.put_app(vec![release("short", 1, &document)]);
    rig.provider.always(Answer::faulty(Fault::StallAfter(3)));
    let body =
        json!({"model": "short", "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let response = rig.chat(body.to_string()).await;
    assert_eq!(response.status(), 200);
    drop(response);
    rig.provider_is_idle().await;
    let statuses: Vec<CallStatus> = rig.records().iter().map(|it| it.status).collect();
    assert_eq!(statuses, [CallStatus::Cancelled, CallStatus::Cancelled]);
    rig.provider.always(Answer::faulty(Fault::DieAfter(3)));
    let (_, text) = rig.chat_text(body.to_string()).await;
    assert!(
        text.contains("provider_died") && !text.contains("[DONE]"),
        "{text}"
    );
    let statuses: Vec<CallStatus> = rig.records().iter().map(|it| it.status).skip(2).collect();
    assert_eq!(statuses, [CallStatus::Error, CallStatus::Error]);
}

#[tokio::test]
async fn conditions_skip_and_lists_are_mapped_in_order() {
    let rig = Rig::new();
    let document = json!({
        "inputs": {"type": "object", "properties": {"towns": {"type": "array"}, "loud": {"type": "boolean", "default": false}}},
        "steps": [
            {"id": "each", "type": "chain", "for_each": "inputs.towns", "steps": [
                {"id": "one", "type": "prompt", "model": "open/fake-large", "prompt": inline("town {{ n }} {{ name }}"),
                    "variables": {"name": "item", "n": "index"}}]},
            {"id": "loud", "type": "prompt", "when": "inputs.loud", "model": "open/fake-large", "prompt": inline("loud")},
        ],
        "output": {"type": "json", "value": "{'towns': steps.each.json, 'skipped': steps.loud.skipped, 'text': steps.loud.text}"},
    });
    rig.put_app(vec![release("map", 1, &document)]);
    for (at, name) in ["Nara", "Kobe", "Otsu"].iter().enumerate() {
        rig.provider.when(
            format!("town {at} {name}"),
            Answer::text(format!("{name}!")),
        );
    }
    let body = json!({"model": "map", "metadata": {"inputs": {"towns": ["Nara", "Kobe", "Otsu"]}}});
    let (status, answer) = rig.chat_json(&body).await;
    assert_eq!(status, 200, "{answer}");
    let said: Value = serde_json::from_str(text_of(&answer)).unwrap();
    assert_eq!(
        said,
        json!({"towns": ["Nara!", "Kobe!", "Otsu!"], "skipped": true, "text": ""})
    );
    let chain = rig.step("each");
    assert_eq!(chain.kind, RecordKind::Chain);
    assert_eq!(rig.step("one").parent, Some(chain.span_id));
    assert_eq!(rig.records().len(), 5, "a skipped step leaves no record");

    let body = json!({"model": "map", "stream": true, "metadata": {"inputs": {"towns": []}}});
    let (_, text) = rig.chat_text(body.to_string()).await;
    assert!(
        text.ends_with("data: [DONE]\n\n") && text.contains("chat.completion.chunk"),
        "{text}"
    );
    let many = json!({"model": "map", "metadata": {"inputs": {"towns": vec![1; 101]}}});
    let (_, answer) = rig.chat_json(&many).await;
    assert_eq!(answer["error"]["code"], "expression_failed", "{answer}");
    assert_eq!(answer["error"]["param"], "steps.each");
}

#[tokio::test]
async fn a_model_that_fails_gives_way_to_the_next() {
    let rig = Rig::with(|provider| provider.retry.attempts = 1);
    let document = json!({"models": {"smart": ["nobody/x", "open/fake-large", "claude/fake-large"]},
        "steps": [{"id": "a", "type": "prompt", "prompt": inline("x"), "model": "smart"}]});
    rig.put_app(vec![release("fall", 1, &document)]);
    for stream in [false, true] {
        rig.provider.next(Answer::status(503, "{}"));
        rig.provider.next(Answer::text("from claude"));
        let body = json!({"model": "fall", "stream": stream, "messages": [{"role": "user", "content": "x"}]});
        let (status, text) = rig.chat_text(body.to_string()).await;
        assert_eq!(status, 200);
        assert!(text.contains("from claude"), "{text}");
        let records = std::mem::take(&mut *rig.sink.records.lock().unwrap());
        let ended: Vec<(Option<&str>, CallStatus)> = records
            .iter()
            .map(|it| (it.provider.as_deref(), it.status))
            .collect();
        let (ok, error) = (CallStatus::Ok, CallStatus::Error);
        assert_eq!(
            ended,
            [
                (None, error),
                (Some("open"), error),
                (Some("claude"), ok),
                (None, ok)
            ]
        );
    }
    // What is wrong with the request is wrong for every model.
    rig.provider.next(Answer::status(
        400,
        r#"{"error": {"message": "bad", "code": "too_bad"}}"#,
    ));
    let (status, answer) = rig.ask("fall", "x").await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("too_bad")));
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("step \"a\": "),
        "{answer}"
    );
    assert_eq!(rig.root().status, CallStatus::Error);
}

#[tokio::test]
async fn tools_never_reach_what_they_may_not() {
    let rig = Rig::new();
    let url = rig.provider.url();
    let document = json!({
        "tools": {"t": {"type": "http", "method": "POST", "url": format!("{url}/t/{{place}}"), "headers": {"x-kind": "test"},
            "parameters": {"type": "object", "required": ["place"], "properties": {
                "place": {"type": "string", "maxLength": 50}, "n": {"type": "integer"}}}}},
        "steps": [{"id": "call", "type": "tool", "tool": "t", "arguments": {"place": "inputs.question", "n": "1 + 1"}}],
    });
    rig.put_app(vec![release("tool", 1, &document)]);
    let code = |answer: &Value| {
        answer["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (status, answer) = rig.ask("tool", "x").await;
    assert_eq!(
        (status, code(&answer).as_str()),
        (502, "tool_refused"),
        "{answer}"
    );
    assert!(!answer.to_string().contains("127.0.0.1"), "{answer}");
    assert!(rig.provider.seen().is_empty());
    let record = rig.step("call");
    assert!(
        record
            .error
            .unwrap()
            .message
            .contains("not a public address")
    );

    rig.allow_private_tools();
    rig.provider
        .when("/t/", Answer::json(&json!({"fine": true})));
    let (status, answer) = rig.ask("tool", "a/../b?c=世").await;
    assert_eq!((status, text_of(&answer)), (200, "{\"fine\":true}"));
    let seen = rig.provider.seen();
    assert_eq!(seen[0].path, "/t/a%2F%2E%2E%2Fb%3Fc%3D%E4%B8%96");
    assert_eq!(
        (seen[0].json(), seen[0].method.as_str()),
        (json!({"n": 2}), "POST")
    );
    assert_eq!(seen[0].headers["x-kind"], "test");
    for (place, expected) in [
        ("..", "tool_arguments_invalid"),
        (&*"x".repeat(51), "tool_arguments_invalid"),
    ] {
        let (status, answer) = rig.ask("tool", place).await;
        assert_eq!(
            (status, code(&answer).as_str()),
            (400, expected),
            "{answer}"
        );
    }
    rig.provider.when(
        "/t/big",
        Answer::faulty(Fault::Raw("text/plain", vec![vec![b'x'; 300 << 10].into()])),
    );
    assert_eq!(
        code(&rig.ask("tool", "big").await.1),
        "tool_answer_too_large"
    );
    rig.provider.when("/t/bad", Answer::status(500, "no luck"));
    let (_, answer) = rig.ask("tool", "bad").await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("answered 500: no luck"),
        "{answer}"
    );
    rig.provider.when(
        "/t/away",
        Answer::faulty(Fault::Status(
            302,
            vec![("location", format!("{url}/x"))],
            String::new(),
        )),
    );
    assert_eq!(
        code(&rig.ask("tool", "away").await.1),
        "tool_error",
        "redirects are not followed"
    );
    rig.provider.when(
        "/t/plain",
        Answer::faulty(Fault::Raw("text/plain", vec!["just text".into()])),
    );
    assert_eq!(text_of(&rig.ask("tool", "plain").await.1), "just text");
}

pub(crate) fn agent(url: &str, limits: &Value) -> Value {
    json!({
        "tools": {"weather": {"type": "http", "description": "The weather.", "url": format!("{url}/weather?q={{town}}"),
            "parameters": {"type": "object", "required": ["town"], "properties": {"town": {"type": "string"}}}}},
        "steps": [{"id": "helper", "type": "agent", "prompt": {"messages": [{"role": "system", "content": "Help."}]},
            "model": "open/fake-large", "tools": ["weather"], "limits": limits}],
    })
}

pub(crate) fn call(town: &str) -> (String, Value) {
    ("weather".to_owned(), json!({ "town": town }))
}

pub(crate) fn asks(calls: &[(String, Value)], text: &str) -> Answer {
    Answer {
        text: if text.is_empty() {
            Vec::new()
        } else {
            vec![text.to_owned()]
        },
        tools: calls.to_vec(),
        ..Answer::default()
    }
}

#[tokio::test]
async fn an_agent_calls_tools_until_it_knows() {
    for model in ["open/fake-large", "claude/fake-large"] {
        let rig = Rig::new();
        let mut document = agent(&rig.provider.url(), &json!({}));
        document["steps"][0]["model"] = model.into();
        rig.put_app(vec![release("agent", 1, &document)]);
        rig.allow_private_tools();
        rig.provider
            .when("/weather?q=Nara", Answer::json(&json!({"sun": true})));
        rig.provider
            .when("/weather?q=Kobe", Answer::status(500, "broken"));
        rig.provider.next(asks(
            &[call("Nara"), call("Kobe"), ("other".to_owned(), json!({}))],
            "",
        ));
        rig.provider.next(Answer::text("Sunny in Nara."));
        let (status, answer) = rig.ask("agent", "How is it in Nara and Kobe?").await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(text_of(&answer), "Sunny in Nara.");
        let span = rig
            .records()
            .iter()
            .find(|it| it.kind == RecordKind::Agent)
            .unwrap()
            .clone();
        let inside: Vec<(RecordKind, CallStatus)> = rig
            .records()
            .iter()
            .filter(|it| it.parent == Some(span.span_id))
            .map(|it| (it.kind, it.status))
            .collect();
        assert_eq!(inside.len(), 4, "two turns and two calls: {inside:?}");
        assert_eq!(
            inside.iter().filter(|it| it.0 == RecordKind::Tool).count(),
            2
        );
        let turns: Vec<Value> = rig
            .provider
            .seen()
            .iter()
            .filter(|it| !it.body.is_empty())
            .map(|it| it.json())
            .collect();
        let told = turns[1]["messages"].to_string();
        assert!(
            told.contains("sun") && told.contains("answered 500") && told.contains("no tool"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn an_agent_stops_at_its_limits() {
    let check = |limits: Value, always: Answer, expected: &'static str| async move {
        let rig = Rig::new();
        rig.put_app(vec![release(
            "agent",
            1,
            &agent(&rig.provider.url(), &limits),
        )]);
        rig.allow_private_tools();
        rig.provider.when("/weather", Answer::json(&json!({})));
        rig.provider.always(always);
        let (status, answer) = rig.ask("agent", "x").await;
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (502, Some("agent_limit")),
            "{answer}"
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(expected) && message.contains("\"helper\""),
            "{message}"
        );
    };
    let same = asks(&[call("Nara")], "");
    check(json!({"steps": 2}), same.clone(), "2 times").await;
    check(json!({"steps": 20}), same.clone(), "again and again").await;
    check(json!({"cost_usd": 0.000001}), same, "cost").await;
    check(json!({}), asks(&vec![call("Nara"); 40], ""), "40 calls").await;
    check(
        json!({"seconds": 1}),
        Answer::faulty(Fault::StallBeforeHeaders),
        "1 s",
    )
    .await;

    let rig = Rig::new();
    rig.put_app(vec![release(
        "agent",
        1,
        &agent(&rig.provider.url(), &json!({"steps": 1})),
    )]);
    let tool = json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"town\": \"Nara\"}"}});
    let message = json!({"role": "assistant", "content": "Let me look.", "tool_calls": [tool]});
    rig.provider.always(Answer::json(
        &json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}),
    ));
    let (status, answer) = rig.ask("agent", "x").await;
    assert_eq!((status, text_of(&answer)), (200, "Let me look."));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn steps_that_are_not_there_yet_say_so() {
    let rig = Rig::new();
    let document = json!({"steps": [{"id": "look", "type": "retrieve", "index": "index:docs", "query": "inputs.question"}]});
    rig.put_app(vec![release("search", 1, &document)]);
    let (status, answer) = rig.ask("search", "x").await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (501, Some("step_not_available"))
    );
    assert_eq!(answer["error"]["param"], "steps.look");
}

#[tokio::test]
async fn an_answer_that_is_not_the_promised_json_is_one_error() {
    let rig = Rig::new();
    let document = json!({"steps": [
        {"id": "a", "type": "prompt", "prompt": inline("x"), "model": "open/fake-large", "parameters": {"response_format": {"type": "json_object"}}},
        {"id": "b", "type": "prompt", "prompt": inline("{{ x }}"), "variables": {"x": "steps.a.json.x"}, "model": "open/fake-large"}]});
    rig.put_app(vec![release("strict", 1, &document)]);
    let (status, answer) = rig.ask("strict", "x").await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (502, Some("step_output_not_json")),
        "{answer}"
    );
    assert_eq!(answer["error"]["param"], "steps.a");
    rig.provider.next(Answer::text("{\"y\": 1}"));
    let (_, answer) = rig.ask("strict", "x").await;
    assert_eq!(answer["error"]["code"], "expression_failed");
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("step \"b\": the expression of \"x\""),
        "{answer}"
    );
}

fn says(number: i64) -> Arc<Release> {
    let document = json!({"steps": [{"id": "a", "type": "prompt", "prompt": inline(&format!("release {number}")), "model": "open/fake-large"}]});
    release("talk", number, &document)
}

async fn release_of(rig: &Rig, session: Option<&str>) -> String {
    let mut body = json!({"model": "talk", "messages": [{"role": "user", "content": "x"}]});
    if let Some(session) = session {
        body["meguri"] = json!({ "session": session });
    }
    let response = rig.chat(body.to_string()).await;
    assert_eq!(response.status(), 200);
    response.headers()["x-meguri-release"]
        .to_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn conversations_stay_on_their_release_while_it_may_be_used() {
    let rig = Rig::new();
    rig.put_app(vec![says(1)]);
    assert_eq!(release_of(&rig, Some("s")).await, "talk@1");
    rig.put_app(vec![says(2), says(1)]);
    assert_eq!(release_of(&rig, Some("s")).await, "talk@1");
    assert_eq!(release_of(&rig, Some("t")).await, "talk@2");
    assert_eq!(release_of(&rig, None).await, "talk@2");
    rig.put_app(vec![says(3), says(2)]);
    assert_eq!(
        release_of(&rig, Some("s")).await,
        "talk@3",
        "1 was taken away"
    );
    assert_eq!(release_of(&rig, Some("t")).await, "talk@2");
}

fn experiment(arms: &[(i64, f64)], shadows: &[i64]) -> Arc<Experiment> {
    let arm = |number: i64, weight: f64| Arm {
        name: format!("arm{number}"),
        number,
        digest: Digest::of(b"x"),
        weight,
    };
    Arc::new(Experiment {
        name: "which".to_owned(),
        version: 3,
        unit: Unit::User,
        key: [5; 32],
        arms: arms
            .iter()
            .map(|(number, weight)| arm(*number, *weight))
            .collect(),
        shadows: shadows.iter().map(|number| arm(*number, 1.0)).collect(),
    })
}

fn run_experiment(rig: &Rig, experiment: Arc<Experiment>) {
    let target = Target::App {
        name: "talk".to_owned(),
        environment: "dev".to_owned(),
    };
    rig.set_project(|project| {
        project.experiments.insert(target, experiment);
    });
}

#[tokio::test]
async fn experiments_choose_the_release() {
    let rig = Rig::new();
    rig.put_app(vec![says(1), says(2)]);
    run_experiment(&rig, experiment(&[(1, 1.0), (2, 1.0)], &[]));
    let mut chosen = BTreeSet::new();
    for user in 0..12 {
        let body = json!({"model": "talk", "user": format!("u{user}"), "messages": [{"role": "user", "content": "x"}]});
        let mut of_user = BTreeSet::new();
        for _ in 0..2 {
            let response = rig.chat(body.to_string()).await;
            let used = response.headers()["x-meguri-release"]
                .to_str()
                .unwrap()
                .to_owned();
            of_user.insert(used.clone());
            chosen.insert(used);
        }
        assert_eq!(of_user.len(), 1, "a user stays");
    }
    assert_eq!(chosen.len(), 2);
    let root = rig.root();
    let arm = root.arm.unwrap();
    assert_eq!(
        arm.arm,
        format!("arm{}", root.app.unwrap().release.unwrap())
    );
    assert!((arm.propensity - 0.5).abs() < 1e-9 && !arm.shadow);
}

#[tokio::test]
async fn shadows_are_recorded_and_never_returned() {
    let rig = Rig::new();
    let document = json!({
        "tools": {"mail": {"type": "http", "url": format!("{}/mail", rig.provider.url()), "dry": {"sent": "dry"}}},
        "steps": [
            {"id": "send", "type": "tool", "tool": "mail"},
            {"id": "a", "type": "prompt", "prompt": inline("shadow {{ s }}"), "variables": {"s": "steps.send.json.sent"}, "model": "open/fake-large"}],
    });
    rig.put_app(vec![says(1), release("talk", 2, &document)]);
    rig.allow_private_tools();
    run_experiment(&rig, experiment(&[(1, 1.0)], &[2]));
    rig.provider.when("release 1", Answer::text("served"));
    rig.provider.when("shadow dry", Answer::text("unseen"));
    for stream in [false, true] {
        rig.sink.records.lock().unwrap().clear();
        let body = json!({"model": "talk", "stream": stream, "messages": [{"role": "user", "content": "x"}]});
        let (status, text) = rig.chat_text(body.to_string()).await;
        assert_eq!(status, 200);
        assert!(
            text.contains("served") && !text.contains("unseen"),
            "{text}"
        );
        rig.wait_for(|rig| rig.records().len() == 5).await;
        let records = rig.records();
        let shadow = records
            .iter()
            .find(|it| it.arm.as_ref().is_some_and(|arm| arm.shadow))
            .unwrap();
        assert_eq!(shadow.output[0]["content"], "unseen");
        assert_eq!(shadow.app.as_ref().unwrap().release, Some(2));
        let served = records
            .iter()
            .find(|it| it.arm.as_ref().is_some_and(|arm| !arm.shadow))
            .unwrap();
        assert_eq!(shadow.parent, Some(served.span_id));
        assert_eq!(shadow.trace_id, served.trace_id);
    }
    assert!(
        rig.provider.seen().iter().all(|it| it.path != "/mail"),
        "tools are dry"
    );
    // Copies that run when the gateway closes are ended, and settle.
    rig.provider
        .when("shadow dry", Answer::faulty(Fault::StallBeforeHeaders));
    rig.sink.records.lock().unwrap().clear();
    assert_eq!(rig.ask("talk", "x").await.0, 200);
    rig.wait_for(|rig| rig.provider.open_answers() == 1).await;
    rig.gateway.close().await;
    let cancelled = rig
        .records()
        .iter()
        .filter(|it| it.status == CallStatus::Cancelled)
        .count();
    assert_eq!(cancelled, 2, "the copy and its step");
    assert_eq!(
        rig.ask("talk", "x").await.0,
        200,
        "calls go on, copies do not"
    );
    assert_eq!(rig.provider.open_answers(), 0);
}

#[tokio::test]
async fn a_draft_runs_without_a_number() {
    let rig = Rig::new();
    let body =
        json!({"model": "whatever", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let plan = rig.gateway.plan();
    let context = rig.context();
    let trace = context.trace_id;
    let response = rig
        .gateway
        .run_draft(&plan, &rig.principal, context, says(9), body.into())
        .await;
    assert_eq!(response.headers()["x-meguri-release"], "talk@draft");
    assert_eq!(response.headers()["x-meguri-trace-id"], trace.to_string());
    assert_eq!(read(response).await.0, 200);
    assert_eq!(rig.root().app.unwrap().release, None);
    assert_eq!(rig.root().trace_id, trace);
}

#[tokio::test]
async fn prompts_without_a_question_get_the_conversation() {
    let rig = Rig::new();
    let document = json!({"steps": [
        {"id": "a", "type": "prompt", "prompt": {"messages": [{"role": "system", "content": "Be kind."}]}, "model": "open/fake-large"}]});
    rig.put_app(vec![release("kind", 1, &document)]);
    rig.ask("kind", "Hello there").await;
    let sent = rig.provider.seen()[0].json();
    assert_eq!(
        sent["messages"],
        json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there"}])
    );
}
