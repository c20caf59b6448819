//! Agents that are heard while they work: the streams of apps that end in one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use gateway::{CallStatus, Record, RecordKind};
use http_body_util::BodyExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::apps::{agent, asks, call, release};
use crate::random::{consume, fault};
use crate::rig::{Rig, events};

/// An agent with one tool that works.
fn rig_with(limits: &Value, change: impl FnOnce(&mut Value)) -> Rig {
    let rig = Rig::with(|provider| provider.retry.attempts = 1);
    let mut document = agent(&rig.provider.url(), limits);
    change(&mut document);
    rig.put_app(vec![release("agent", 1, &document)]);
    rig.allow_private_tools();
    rig.provider
        .when("/weather", Answer::json(&json!({"sun": true})));
    rig
}

fn request() -> String {
    json!({"model": "agent", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "How is it in Nara?"}]})
    .to_string()
}

/// The events of an OpenAI stream with this text and these calls of the tool.
fn wire(texts: &[&str], calls: bool) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        format!("data: {chunk}\n\n")
    };
    let mut events = vec![chunk(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    events.extend(
        texts
            .iter()
            .map(|text| chunk(json!({ "content": text }), Value::Null)),
    );
    if calls {
        let function = json!({"name": "weather", "arguments": "{\"town\""});
        let first = json!([{"index": 0, "id": "t1", "type": "function", "function": function}]);
        events.push(chunk(json!({ "tool_calls": first }), Value::Null));
        let rest = json!([{"index": 0, "function": {"arguments": ": \"Nara\"}"}}]);
        events.push(chunk(json!({ "tool_calls": rest }), Value::Null));
    }
    let finish = if calls { "tool_calls" } else { "stop" };
    events.push(chunk(json!({}), finish.into()));
    let usage = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}});
    events.push(format!("data: {usage}\n\n"));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn raw(events: &[String]) -> Answer {
    let chunks = events.iter().map(|event| Bytes::from(event.clone()));
    Answer::faulty(Fault::Raw("text/event-stream", chunks.collect()))
}

/// What a client reads of a stream: the text, why it ended, how it ended.
#[derive(Debug)]
struct Told {
    text: String,
    finish: Option<String>,
    usage: Value,
    error: Option<String>,
    done: bool,
}

fn told(stream: &str) -> Told {
    let mut told = Told {
        text: String::new(),
        finish: None,
        usage: Value::Null,
        error: None,
        done: false,
    };
    for event in events(stream) {
        assert!(!told.done, "nothing comes after the end: {stream}");
        if event == "[DONE]" {
            told.done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(&event).unwrap();
        if let Some(code) = chunk["error"]["code"].as_str() {
            told.error = Some(code.to_owned());
            continue;
        }
        assert_eq!(chunk["model"], "agent", "{stream}");
        assert_eq!(chunk["object"], "chat.completion.chunk");
        let choice = &chunk["choices"][0];
        assert!(
            choice["delta"]["tool_calls"].is_null(),
            "the tools are the app's own: {stream}"
        );
        told.text
            .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(finish) = choice["finish_reason"].as_str() {
            told.finish = Some(finish.to_owned());
        }
        if chunk["usage"].is_object() {
            told.usage = chunk["usage"].clone();
        }
    }
    told
}

fn ends(records: &[Record]) -> Vec<String> {
    let end = |record: &Record| format!("{:?} {:?}", record.kind, record.status);
    let mut ends: Vec<String> = records.iter().map(end).collect();
    ends.sort();
    ends
}

/// Reads until this text was heard, and gives what was read.
async fn hear(body: &mut gateway::GatewayBody, text: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(text) {
        let frame = body.frame().await.unwrap().unwrap();
        heard.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    heard
}

#[tokio::test]
async fn an_agents_words_come_while_it_works() {
    for model in ["open/fake-large", "claude/fake-large"] {
        let rig = rig_with(&json!({}), |document| {
            document["steps"][0]["model"] = model.into();
        });
        let first = match model {
            "open/fake-large" => raw(&wire(&["Let me", " look."], true)),
            _ => asks(&[call("Nara")], "Let me look."),
        };
        rig.provider.next(first);
        rig.provider.next(Answer {
            text: vec!["Sunny".to_owned(), " in Nara.".to_owned()],
            fault: Fault::StallAfter(3),
            ..Answer::default()
        });
        // The answer is heard although its model has not ended it.
        let response = rig.chat(request()).await;
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut heard = hear(&mut body, "Sunny").await;
        assert_eq!(rig.provider.open_answers(), 1, "{heard}");
        drop(body);
        rig.provider_is_idle().await;
        let root = rig.root();
        let text = told(&heard).text;
        assert_eq!(text, "Let me look.\n\nSunny");
        assert_eq!(
            root.output[0]["content"], text,
            "what was said is kept: {root:?}"
        );
        assert!(root.first_token_at.is_some() && root.streamed);
        assert_eq!(
            ends(&rig.records()),
            [
                "Agent Cancelled",
                "App Cancelled",
                "Chat Cancelled",
                "Chat Ok",
                "Tool Ok"
            ]
        );

        rig.sink.records.lock().unwrap().clear();
        rig.provider.next(asks(&[call("Nara")], ""));
        rig.provider.next(Answer::text("Sunny in Nara."));
        heard = rig.chat_text(request()).await.1;
        let end = told(&heard);
        assert_eq!(
            (end.text.as_str(), end.finish.as_deref(), end.done),
            ("Sunny in Nara.", Some("stop"), true)
        );
        let turns: Vec<Record> = rig
            .records()
            .into_iter()
            .filter(|it| it.kind == RecordKind::Chat)
            .collect();
        let input: u64 = turns.iter().map(|it| it.usage.unwrap().input).sum();
        assert_eq!(end.usage["prompt_tokens"], input, "{heard}");
        let agent = rig
            .records()
            .into_iter()
            .find(|it| it.kind == RecordKind::Agent);
        let agent = agent.unwrap();
        assert!(
            turns
                .iter()
                .all(|it| it.parent == Some(agent.span_id) && it.streamed)
        );
        assert_eq!(agent.output[0]["content"], "Sunny in Nara.");
        let told_model = rig.provider.seen().pop().unwrap().json();
        assert!(
            told_model["messages"].to_string().contains("sun"),
            "{told_model}"
        );
    }
}

#[tokio::test]
async fn it_does_not_matter_how_the_provider_cuts_its_stream() {
    let first = wire(&["Let me 見る", " 👀."], true).concat();
    let second = wire(&["晴れ in ", "Nara."], false).concat();
    let rig = rig_with(&json!({}), |_| {});
    let cut = |text: &str, at: usize| {
        let bytes = Bytes::from(text.to_owned());
        let parts = vec![bytes.slice(..at), bytes.slice(at..)];
        Answer::faulty(Fault::Raw("text/event-stream", parts))
    };
    for at in 1..first.len().max(second.len()) {
        if at < first.len() {
            rig.provider.next(cut(&first, at));
        } else {
            rig.provider.next(cut(&first, 1));
        }
        rig.provider.next(cut(&second, at.min(second.len() - 1)));
        let (status, text) = rig.chat_text(request()).await;
        let told = told(&text);
        assert_eq!(
            (status, told.text.as_str(), told.done),
            (200, "Let me 見る 👀.\n\n晴れ in Nara.", true),
            "cut at {at}: {text}"
        );
        assert_eq!(told.usage["total_tokens"], 28);
        let ended = std::mem::take(&mut *rig.sink.records.lock().unwrap());
        assert_eq!(
            ends(&ended),
            ["Agent Ok", "App Ok", "Chat Ok", "Chat Ok", "Tool Ok"],
            "cut at {at}"
        );
    }
}

#[tokio::test]
async fn an_agent_may_keep_to_itself_what_is_no_answer() {
    let rig = rig_with(&json!({}), |document| {
        document["steps"][0]["stream"] = "answer".into();
    });
    rig.provider.next(raw(&wire(&["Let me look."], true)));
    rig.provider
        .next(raw(&wire(&["Sunny", " in Nara."], false)));
    let told_text = told(&rig.chat_text(request()).await.1);
    assert_eq!(
        (told_text.text.as_str(), told_text.done),
        ("Sunny in Nara.", true)
    );
    assert_eq!(rig.root().output[0]["content"], "Sunny in Nara.");
    // Without a stream that is the answer for every agent.
    rig.provider.next(raw(&wire(&["Sunny"], false)));
    // Without tools there is nothing to keep.
    let rig = rig_with(&json!({}), |document| {
        document["steps"][0]["stream"] = "answer".into();
        document["steps"][0]["tools"] = json!([]);
    });
    rig.provider.next(Answer::faulty(Fault::StallAfter(2)));
    let mut body = rig.chat(request()).await.into_body();
    hear(&mut body, "Hello").await;
}

#[tokio::test]
async fn a_provider_that_dies_is_never_a_clean_end() {
    for model in ["open/fake-large", "claude/fake-large"] {
        for fault in [
            Fault::DieAfter(4),
            Fault::EndAfter(4),
            Fault::HalfAfter(4),
            Fault::GarbageAfter(4),
            Fault::ErrorAfter(4),
        ] {
            let rig = rig_with(&json!({}), |document| {
                document["steps"][0]["model"] = model.into();
            });
            rig.provider.next(asks(&[call("Nara")], ""));
            rig.provider.next(Answer::faulty(fault.clone()));
            let (status, text) = rig.chat_text(request()).await;
            let told = told(&text);
            assert_eq!((status, told.done), (200, false), "{fault:?}: {text}");
            assert!(
                told.error.is_some() && !told.text.is_empty() && told.finish.is_none(),
                "{fault:?}: {text}"
            );
            assert_eq!(
                ends(&rig.records()),
                [
                    "Agent Error",
                    "App Error",
                    "Chat Error",
                    "Chat Ok",
                    "Tool Ok"
                ],
                "{fault:?}"
            );
            let root = rig.root();
            assert_eq!(root.output[0]["content"], told.text);
            assert_eq!(root.error.unwrap().kind, told.error.unwrap());
        }
    }
    // Before the first word a failure is a whole response.
    let rig = rig_with(&json!({}), |_| {});
    rig.provider.next(raw(&wire(&[], true)));
    rig.provider.next(Answer::status(500, "{}"));
    let (status, text) = rig.chat_text(request()).await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("step \\\"helper\\\": "), "{text}");
    // After one it is said in the stream, also by a turn that had not begun.
    rig.provider.next(raw(&wire(&["Let me look."], true)));
    rig.provider.next(Answer::status(500, "{}"));
    let (status, text) = rig.chat_text(request()).await;
    let told = told(&text);
    assert_eq!(
        (status, told.text.as_str(), told.error.as_deref(), told.done),
        (200, "Let me look.", Some("provider_error"), false),
        "{text}"
    );
}

#[tokio::test]
async fn another_model_goes_on_where_one_has_not_begun() {
    let rig = rig_with(&json!({}), |document| {
        document["models"] = json!({"smart": ["open/fake-large", "claude/fake-large"]});
        document["steps"][0]["model"] = "smart".into();
    });
    rig.provider.next(raw(&wire(&["Let me look."], true)));
    rig.provider.next(Answer::status(503, "{}"));
    rig.provider.next(Answer::text("Sunny."));
    let (_, text) = rig.chat_text(request()).await;
    let told = told(&text);
    assert_eq!(
        (told.text.as_str(), told.done),
        ("Let me look.\n\nSunny.", true),
        "{text}"
    );
}

#[tokio::test]
async fn a_limit_ends_the_answer_where_it_is() {
    // Time, in the middle of a word.
    let rig = rig_with(&json!({"seconds": 1}), |_| {});
    rig.provider.next(Answer::faulty(Fault::StallAfter(3)));
    let (_, text) = rig.chat_text(request()).await;
    let end = told(&text);
    assert_eq!(
        (end.text.as_str(), end.finish.as_deref(), end.done),
        ("Hello from", Some("length"), true)
    );
    assert!(end.usage["completion_tokens"].as_u64().unwrap() > 0);
    assert_eq!(
        ends(&rig.records()),
        ["Agent Ok", "App Ok", "Chat Cancelled"]
    );
    rig.provider_is_idle().await;

    // Time, while a tool works.
    let rig = rig_with(&json!({"seconds": 1}), |_| {});
    rig.provider
        .when("/weather", Answer::faulty(Fault::StallBeforeHeaders));
    rig.provider.next(raw(&wire(&["Let me look."], true)));
    let (_, text) = rig.chat_text(request()).await;
    let end = told(&text);
    assert_eq!(
        (end.text.as_str(), end.finish.as_deref(), end.done),
        ("Let me look.", Some("length"), true)
    );

    // Turns and cost, between them; without a word a limit is an error.
    for limits in [json!({"steps": 1}), json!({"cost_usd": 0.000001})] {
        let rig = rig_with(&limits, |_| {});
        rig.provider.next(raw(&wire(&["Let me look."], true)));
        let (_, text) = rig.chat_text(request()).await;
        let end = told(&text);
        assert_eq!(
            (end.text.as_str(), end.finish.as_deref(), end.done),
            ("Let me look.", Some("length"), true),
            "{limits}"
        );
        rig.provider.next(raw(&wire(&[], true)));
        let (status, text) = rig.chat_text(request()).await;
        assert!(status == 502 && text.contains("agent_limit"), "{text}");
    }
    // An agent that keeps its words for itself says the last ones then.
    let rig = rig_with(&json!({"steps": 1}), |document| {
        document["steps"][0]["stream"] = "answer".into();
    });
    rig.provider.next(raw(&wire(&["Let me look."], true)));
    let end = told(&rig.chat_text(request()).await.1);
    assert_eq!(
        (end.text.as_str(), end.finish.as_deref()),
        ("Let me look.", Some("length"))
    );
    // More than anybody reads.
    let rig = rig_with(&json!({}), |_| {});
    let long = "x".repeat(3 << 20);
    rig.provider.next(raw(&wire(&[long.as_str(); 6], false)));
    let end = told(&rig.chat_text(request()).await.1);
    assert_eq!(
        (end.text.len(), end.finish.as_deref(), end.done),
        (15 << 20, Some("length"), true)
    );
}

#[tokio::test]
async fn skipped_and_silent_agents_end_well() {
    let rig = rig_with(&json!({}), |document| {
        document["steps"][0]["when"] = "inputs.question == 'go'".into();
    });
    let (status, text) = rig.chat_text(request()).await;
    let end = told(&text);
    assert_eq!((status, end.text.as_str(), end.done), (200, "", true));
    let rig = rig_with(&json!({}), |_| {});
    rig.provider.next(raw(&wire(&[], false)));
    let end = told(&rig.chat_text(request()).await.1);
    assert_eq!((end.text.as_str(), end.done), ("", true));
    assert_eq!(ends(&rig.records()), ["Agent Ok", "App Ok", "Chat Ok"]);
}

#[tokio::test]
async fn every_record_of_an_agent_is_settled_exactly_once() {
    let rig = Rig::with(|provider| {
        provider.retry.attempts = 1;
        provider.timeouts.headers = Duration::from_millis(40);
        provider.timeouts.first_token = Duration::from_millis(40);
        provider.timeouts.idle = Duration::from_millis(40);
    });
    let url = rig.provider.url();
    for model in ["open", "claude"] {
        let mut document = agent(&url, &json!({"steps": 4}));
        document["steps"][0]["model"] = format!("{model}/fake-large").into();
        rig.put_app(vec![release(model, 1, &document)]);
    }
    rig.set_project(|project| {
        // The apps under names that no provider has.
        for name in ["open", "claude"] {
            let app = project.apps.remove(name).unwrap();
            project.apps.insert(format!("{name}-agent"), app);
        }
    });
    rig.allow_private_tools();
    rig.provider
        .when("/weather", Answer::json(&json!({"sun": true})));
    let mut kinds = std::collections::BTreeMap::<&str, u32>::new();
    for seed in 0..250 {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..random.random_range(0..3) {
            rig.provider.next(asks(&[call("Nara")], "Let me look."));
        }
        let fault = fault(&mut random);
        rig.provider.always(Answer {
            pace: Duration::from_micros(random.random_range(0..2000)),
            fault: fault.clone(),
            ..Answer::default()
        });
        let model = ["open-agent", "claude-agent"][random.random_range(0..2)];
        let body =
            json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "x"}]});
        let frames = if random.random_bool(0.3) {
            random.random_range(0..6)
        } else {
            usize::MAX
        };
        let patience = Duration::from_micros(if random.random_bool(0.3) {
            random.random_range(0..20_000)
        } else {
            10_000_000
        });
        let read = tokio::time::timeout(patience, consume(&rig, body.to_string(), frames));
        let read = read.await.ok().flatten();
        let about = format!("seed {seed}, {model}, {fault:?}");
        let records = rig.sink.records.lock().unwrap();
        let admitted = rig.sink.admitted.load(Ordering::SeqCst);
        assert_eq!(records.len(), admitted, "{about}");
        let Some(root) = records.iter().rev().find(|it| it.kind == RecordKind::App) else {
            continue;
        };
        if let Some(text) = read {
            let done = text.ends_with("[DONE]\n\n");
            assert_eq!(root.status == CallStatus::Ok, done, "{about}: {text}");
            assert!(!(text.contains("\"error\"") && done), "{about}: {text}");
        }
        *kinds.entry(root.status.as_str()).or_default() += 1;
        drop(records);
        // What is queued and was not asked for belongs to nobody.
        rig.provider.forget_next();
    }
    rig.provider_is_idle().await;
    assert!(
        kinds.len() == 3 && kinds.values().all(|count| *count > 10),
        "every kind of end must happen: {kinds:?}"
    );
}
