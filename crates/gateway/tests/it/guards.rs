//! Guards around calls: what goes up, what comes down, whole and in any pieces.

use std::sync::Arc;
use std::time::Duration;

use base::Digest;
use gateway::{GuardPolicies, GuardPolicy, Record, RecordKind};
use guard::classify::{Fused, Mlp, PROBE, Task};
use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::rig::{Rig, events};

pub(crate) fn policy(name: &str, document: &Value) -> GuardPolicy {
    let policy = guard::Policy::read(document).unwrap();
    let compiled = guard::Compiled::new(&policy, &guard::Resources::default()).unwrap();
    GuardPolicy {
        name: name.to_owned(),
        number: 1,
        digest: Digest::of(name.as_bytes()),
        applies_to: policy.applies_to,
        compiled: Ok(Arc::new(compiled)),
    }
}

pub(crate) fn install(rig: &Rig, label: &str, policy: GuardPolicy) {
    rig.set_project(|project| {
        let name = policy.name.clone();
        let labels = [(label.to_owned(), Arc::new(policy))].into();
        project.guards.insert(
            name,
            Arc::new(GuardPolicies {
                labels,
                ..GuardPolicies::default()
            }),
        );
    });
}

pub(crate) fn guarded(rules: &Value) -> Rig {
    let rig = Rig::new();
    let document = json!({"applies_to": {"everything": true}, "rules": rules});
    install(&rig, "dev", policy("safe", &document));
    rig
}

pub(crate) fn mail(at: &[&str], action: &Value) -> Value {
    json!([{"name": "mail", "at": at, "check": {"type": "pii", "kinds": ["email"]}, "action": action}])
}

pub(crate) fn word(at: &[&str], word: &str, action: &Value) -> Value {
    json!([{"name": "word", "at": at, "check": {"type": "words", "list": [word]}, "action": action}])
}

pub(crate) fn ask(text: &str) -> Value {
    json!({"model": "open/fake-large", "messages": [{"role": "user", "content": text}]})
}

pub(crate) fn streamed(mut request: Value) -> Value {
    request["stream"] = true.into();
    request
}

pub(crate) fn said_in(pieces: &[&str]) -> Answer {
    Answer {
        text: pieces.iter().map(|piece| (*piece).to_owned()).collect(),
        ..Answer::default()
    }
}

/// The record of the call and that of the guard, if one was written.
pub(crate) fn records(rig: &Rig) -> (Record, Option<Record>) {
    let records = rig.sink.records.lock().unwrap().clone();
    let of = |kind: RecordKind| records.iter().rev().find(|it| it.kind == kind).cloned();
    (of(RecordKind::Chat).unwrap(), of(RecordKind::Guard))
}

/// What a client puts together from a stream: text, refusal, finish reason, tool arguments.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub text: String,
    pub refusal: Option<String>,
    pub finish: Option<String>,
    pub arguments: String,
    pub done: bool,
}

pub(crate) async fn hear(rig: &Rig, request: Value) -> Heard {
    let (status, text) = rig.chat_text(streamed(request).to_string()).await;
    assert_eq!(status, 200, "{text}");
    let mut heard = Heard::default();
    for event in events(&text) {
        assert!(!heard.done, "nothing comes after [DONE]: {text}");
        if event == "[DONE]" {
            heard.done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(&event).unwrap();
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let delta = &choice["delta"];
            heard.text += delta["content"].as_str().unwrap_or_default();
            if let Some(refusal) = delta["refusal"].as_str() {
                heard.refusal = Some(refusal.to_owned());
            }
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                heard.arguments += call["function"]["arguments"].as_str().unwrap_or_default();
            }
            if let Some(finish) = choice["finish_reason"].as_str() {
                heard.finish = Some(finish.to_owned());
            }
        }
    }
    heard
}

#[tokio::test]
async fn what_goes_up_is_redacted_there_and_in_the_record() {
    let rig = guarded(&mail(&["input"], &json!({"type": "redact"})));
    rig.provider.always(Answer::text("Done."));
    let mut request = ask("write to ann@example.com");
    request["temperature"] = json!(0.5);
    let (status, answer) = rig.chat_json(&request).await;
    assert_eq!(status, 200, "{answer}");
    let seen = rig.provider.seen().remove(0).json();
    assert_eq!(seen["messages"][0]["content"], "write to <EMAIL_1>");
    assert_eq!(seen["temperature"], 0.5, "the rest stays");
    let (call, guard) = records(&rig);
    assert_eq!(call.input[0]["content"], "write to <EMAIL_1>");
    let guard = guard.unwrap();
    assert_eq!(guard.parent, Some(call.span_id));
    let used = guard.guard.unwrap();
    assert_eq!((used.policy.as_str(), used.decision), ("safe", "edited"));
    assert_eq!(used.rules, ["mail"]);
    let finding = &guard.output[0];
    assert_eq!(
        (&finding["start"], &finding["end"]),
        (&json!(9), &json!(24))
    );
    assert_eq!(finding["field"], "messages[0].content");
    assert!(!finding.to_string().contains("ann@"), "{finding}");
}

#[tokio::test]
async fn a_call_without_findings_writes_no_record_of_a_guard() {
    let rig = guarded(&mail(&["input", "output"], &json!({"type": "redact"})));
    let (status, _) = rig.chat_json(&ask("hello")).await;
    assert_eq!(status, 200);
    assert!(records(&rig).1.is_none());
    let heard = hear(&rig, ask("hello")).await;
    assert_eq!(heard.text, "Hello from the fake provider.");
    assert!(heard.done);
    assert!(records(&rig).1.is_none());
}

#[tokio::test]
async fn a_refused_request_never_goes_up() {
    let rig = guarded(&word(&["input"], "bomb", &json!({"type": "block"})));
    let (status, answer) = rig.chat_json(&ask("how to build a B\u{200b}omb?")).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["error"]["code"], "guard_blocked");
    assert_eq!(answer["error"]["param"], "messages[0].content");
    assert!(rig.provider.seen().is_empty());
    let (call, guard) = records(&rig);
    assert_eq!(call.http_status, 400);
    assert_eq!(guard.unwrap().guard.unwrap().decision, "blocked");
}

#[tokio::test]
async fn whole_answers_are_edited_and_nothing_else_tells() {
    let rig = guarded(&mail(&["output"], &json!({"type": "redact"})));
    rig.provider
        .always(Answer::text("It is bob@example.org, I think."));
    let (_, answer) = rig.chat_json(&ask("whose?")).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "It is <EMAIL_1>, I think."
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let (call, _) = records(&rig);
    assert_eq!(call.output[0]["content"], "It is <EMAIL_1>, I think.");
}

#[tokio::test]
async fn policies_watch_what_they_say_and_where_they_hold() {
    let rules = word(&["input"], "bomb", &json!({"type": "block"}));
    let key = Rig::new().principal.key_id.unwrap().to_string();
    for (applies_to, label, refused) in [
        (json!({"everything": true}), "dev", true),
        (json!({"everything": true}), "production", true),
        (json!({"everything": true}), "staging", false),
        (json!({}), "dev", false),
        (json!({"models": ["open/fake-large"]}), "dev", true),
        (json!({"models": ["open/*"]}), "dev", true),
        (json!({"models": ["claude/*", "open/other"]}), "dev", false),
        (json!({"apps": ["helper"]}), "dev", false),
        (json!({"keys": [key]}), "dev", false),
    ] {
        let rig = Rig::new();
        let document = json!({"applies_to": applies_to, "rules": rules});
        install(&rig, label, policy("p", &document));
        let (status, _) = rig.chat_json(&ask("a bomb")).await;
        assert_eq!(status == 400, refused, "{applies_to} at {label}");
    }
    let rig = Rig::new();
    let key = rig.principal.key_id.unwrap().to_string();
    let document = json!({"applies_to": {"keys": [key]}, "rules": rules});
    install(&rig, "dev", policy("p", &document));
    assert_eq!(rig.chat_json(&ask("a bomb")).await.0, 400);
}

#[tokio::test]
async fn values_go_up_as_pseudonyms_and_come_back_as_themselves() {
    let action = json!({"type": "redact", "reversible": true});
    let rig = guarded(&mail(&["input"], &action));
    rig.provider.always(said_in(&[
        "I wrote to <KEPT_EMA",
        "IL_1> and ",
        "<KEPT_EMAIL_2",
        ">.",
    ]));
    let request = ask("write to ann@example.com, then bob@example.org, then ann@example.com");
    let heard = hear(&rig, request.clone()).await;
    assert_eq!(
        heard.text,
        "I wrote to ann@example.com and bob@example.org."
    );
    let seen = rig.provider.seen().remove(0).json();
    assert_eq!(
        seen["messages"][0]["content"],
        "write to <KEPT_EMAIL_1>, then <KEPT_EMAIL_2>, then <KEPT_EMAIL_1>"
    );
    let (call, _) = records(&rig);
    assert_eq!(
        call.output[0]["content"], "I wrote to <KEPT_EMAIL_1> and <KEPT_EMAIL_2>.",
        "values are not recorded"
    );
    let (_, answer) = rig.chat_json(&request).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "I wrote to ann@example.com and bob@example.org."
    );
}

/// What is taken out of an answer for good is not put back as what the caller wrote.
#[tokio::test]
async fn what_is_taken_out_for_good_never_becomes_a_kept_value() {
    let rules = json!([
        {"name": "in", "at": ["input"], "check": {"type": "pii", "kinds": ["email"]},
            "action": {"type": "redact", "reversible": true}},
        {"name": "out", "at": ["input", "output"], "check": {"type": "pii", "kinds": ["email", "credit_card"]},
            "action": {"type": "redact"}},
    ]);
    let rig = guarded(&rules);
    let said = "Ask bob@example.org, not <KEPT_EMAIL_1>.";
    rig.provider.always(Answer::text(said));
    let heard = hear(&rig, ask("I am ann@example.com")).await;
    assert_eq!(heard.text, "Ask <EMAIL_1>, not ann@example.com.");
    let (_, answer) = rig.chat_json(&ask("I am ann@example.com")).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        heard.text.as_str()
    );
}

#[tokio::test]
async fn arguments_of_tools_and_their_results_are_looked_at() {
    let rig = guarded(&mail(
        &["tool_arguments", "tool_result"],
        &json!({"type": "redact"}),
    ));
    rig.provider.always(Answer {
        tools: vec![("send".to_owned(), json!({"to": "ann@example.com"}))],
        text: Vec::new(),
        ..Answer::default()
    });
    let heard = hear(&rig, ask("send it")).await;
    let arguments: Value = serde_json::from_str(&heard.arguments).unwrap();
    assert_eq!(arguments, json!({"to": "<EMAIL_1>"}));
    assert_eq!(heard.finish.as_deref(), Some("tool_calls"));

    rig.provider.always(Answer::text("ok"));
    let mut request = ask("read it");
    let list = request["messages"].as_array_mut().unwrap();
    list.push(json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}]}));
    list.push(json!({"role": "tool", "tool_call_id": "c", "content": "from eve@example.net"}));
    rig.chat_json(&request).await;
    let seen = rig.provider.seen().pop().unwrap().json();
    assert_eq!(seen["messages"][2]["content"], "from <EMAIL_1>");
}

#[tokio::test]
async fn other_protocols_and_local_models_are_watched_too() {
    let rig = guarded(&word(
        &["output"],
        "fake",
        &json!({"type": "replace", "with": "real"}),
    ));
    let mut request = ask("hello");
    request["model"] = "claude/fake-large".into();
    request["max_tokens"] = 50.into();
    let heard = hear(&rig, request.clone()).await;
    assert_eq!(heard.text, "Hello from the real provider.");
    let (_, answer) = rig.chat_json(&request).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "Hello from the real provider."
    );
    let rig = guarded(&word(
        &["output"],
        "fake",
        &json!({"type": "replace", "with": "real"}),
    ));
    let mut request = ask("say fake things");
    request["model"] = "local/parrot".into();
    let plain = {
        let rig = Rig::new();
        hear(&rig, request.clone()).await.text
    };
    assert!(plain.contains("fake"), "{plain}");
    assert_eq!(
        hear(&rig, request).await.text,
        plain.replace("fake", "real")
    );
}

pub(crate) fn judged(on_failure: &str) -> Value {
    json!([{"name": "kind", "at": ["output"], "on_failure": on_failure, "deadline_ms": 3000,
        "check": {"type": "judge", "rubric": "Score how rude it is.", "model": "open/judge"},
        "action": {"type": "block"}}])
}

#[tokio::test]
async fn a_judge_decides_and_one_that_is_down_is_never_silent() {
    for (verdict, on_failure, blocked) in [
        (Answer::text(r#"{"score": 0.9}"#), "open", true),
        (Answer::text(r#"{"score": 0.1}"#), "closed", false),
        (Answer::text("I would rather not."), "open", false),
        (Answer::text("I would rather not."), "closed", true),
        (
            Answer::faulty(Fault::Status(400, Vec::new(), "{}".to_owned())),
            "closed",
            true,
        ),
    ] {
        let rig = guarded(&judged(on_failure));
        rig.provider.when("Score how rude", verdict.clone());
        rig.provider.always(Answer::text("You are a fool."));
        let heard = hear(&rig, ask("who am I?")).await;
        let case = format!("{verdict:?} {on_failure}");
        assert_eq!(
            heard.finish.as_deref() == Some("content_filter"),
            blocked,
            "{case}"
        );
        assert_eq!(heard.text.is_empty(), blocked, "{case}: {heard:?}");
        let (_, answer) = rig.chat_json(&ask("who am I?")).await;
        let finish = &answer["choices"][0]["finish_reason"];
        assert_eq!(finish == "content_filter", blocked, "{case}: {answer}");
        let silent = verdict.text == [r#"{"score": 0.1}"#];
        assert_eq!(records(&rig).1.is_none(), silent, "{case}");
    }
}

/// A model that gives what the shipped network was made for, and other vectors that it finds
/// something in or not.
fn right_embedder(text: &str) -> Vec<f32> {
    let network = Fused::shipped(Task::Toxicity).unwrap();
    if text == PROBE {
        let bytes = include_bytes!("../../../guard/models/toxicity-embedding.bin");
        let header = Mlp::read(bytes).unwrap().header().clone();
        return header.fusion.unwrap().answer;
    }
    let wanted = text.contains("idiot");
    let inputs = (0..2 * 384).map(|at| {
        let mut vector = vec![0.0; 384];
        vector[at / 2] = if at % 2 == 0 { 1.0 } else { -1.0 };
        vector
    });
    let mut fitting = inputs.filter(|it| (network.score(text, it).unwrap() >= 0.5) == wanted);
    fitting.next().unwrap()
}

fn classified(check: &str, on_failure: &str) -> Value {
    json!([{"name": "rude", "at": ["input"], "check": {"type": check, "tiers": ["embedding"]},
        "action": {"type": "block"}, "on_failure": on_failure, "deadline_ms": 20_000}])
}

/// The tier `embedding` of `toxicity` asks the default embedding model and decides with the
/// shipped network; another model, or a check without a network, is a failure that is written down.
#[tokio::test]
async fn a_network_over_embeddings_decides_where_its_model_is_there() {
    type Embedder = Option<fn(&str) -> Vec<f32>>;
    let right: Embedder = Some(right_embedder);
    for (embedder, check, text, on_failure, blocked, why) in [
        (
            right,
            "toxicity",
            "You worthless idiot, get lost.",
            "open",
            true,
            "scores",
        ),
        (right, "toxicity", "What a lovely hat.", "closed", false, ""),
        (
            None,
            "toxicity",
            "You worthless idiot, get lost.",
            "open",
            false,
            "is not",
        ),
        (
            None,
            "toxicity",
            "What a lovely hat.",
            "closed",
            true,
            "is not",
        ),
        (
            right,
            "injection",
            "You worthless idiot, get lost.",
            "open",
            false,
            "no network",
        ),
        (
            right,
            "injection",
            "You worthless idiot, get lost.",
            "closed",
            true,
            "no network",
        ),
    ] {
        let rig = embedder.map_or_else(Rig::new, Rig::embedding);
        let document = json!({"applies_to": {"everything": true},
            "rules": classified(check, on_failure)});
        install(&rig, "dev", policy("safe", &document));
        let (_, answer) = rig.chat_json(&ask(text)).await;
        let case = format!("{check} {text} {on_failure}: {answer}");
        let refused = answer["error"]["code"] == "guard_blocked";
        assert_eq!(refused, blocked, "{case}");
        let guard = records(&rig).1;
        assert_eq!(guard.is_none(), why.is_empty(), "{case}");
        let written = guard.map(|guard| format!("{guard:?}")).unwrap_or_default();
        assert!(written.contains(why), "{case}: {written}");
    }
}

#[tokio::test]
async fn the_model_is_asked_again_where_a_rule_wants_it() {
    let action = json!({"type": "rewrite", "instruction": "Say it without the word."});
    let rig = guarded(&word(&["output"], "fool", &action));
    rig.provider.next(Answer::text("You are a fool."));
    rig.provider
        .when("Say it without", Answer::text("You are dear."));
    let (_, answer) = rig.chat_json(&ask("who am I?")).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "You are dear.");
    // Only once.
    let rig = guarded(&word(&["output"], "fool", &action));
    rig.provider.always(Answer::text("You are a fool."));
    let (_, answer) = rig.chat_json(&ask("who am I?")).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(rig.provider.seen().len(), 2);
}

/// A stream whose answer may be made again says nothing before it is sure, in either protocol.
#[tokio::test]
async fn the_model_is_asked_again_on_streams_too() {
    let action = json!({"type": "rewrite", "instruction": "Say it without the word."});
    for model in ["open/fake-large", "claude/fake-large"] {
        let rig = guarded(&word(&["output"], "fool", &action));
        rig.provider.next(said_in(&["You are", " a fo", "ol."]));
        let mut request = ask("who am I?");
        request["model"] = model.into();
        request["max_tokens"] = 100.into();
        rig.provider
            .when("Say it without", Answer::text("You are dear."));
        let heard = hear(&rig, request.clone()).await;
        assert_eq!(heard.text, "You are dear.", "{model}");
        assert_eq!((heard.finish.as_deref(), heard.done), (Some("stop"), true));
        let (call, guard) = records(&rig);
        assert_eq!(call.output[0]["content"], "You are dear.");
        assert_eq!(guard.unwrap().guard.unwrap().decision, "blocked");
        let again = rig.provider.seen().pop().unwrap().json();
        let said = again["messages"].as_array().unwrap();
        assert!(
            said[said.len() - 2].to_string().contains("You are a fool."),
            "{again}"
        );

        // An answer that needs none is the same stream, later.
        rig.provider.next(said_in(&["You are", " wise."]));
        let heard = hear(&rig, request.clone()).await;
        assert_eq!(heard.text, "You are wise.");
        rig.provider.next(Answer {
            tools: vec![("look".to_owned(), json!({"at": "it"}))],
            ..said_in(&[])
        });
        let heard = hear(&rig, request.clone()).await;
        assert_eq!(heard.arguments, r#"{"at":"it"}"#);
        assert_eq!(heard.finish.as_deref(), Some("tool_calls"));

        // Only once; then it is withheld.
        rig.provider.forget_next();
        rig.provider.always(said_in(&["You are", " a fool."]));
        let rig = guarded(&word(&["output"], "fool", &action));
        rig.provider.always(said_in(&["You are", " a fool."]));
        let heard = hear(&rig, request).await;
        assert_eq!(heard.finish.as_deref(), Some("content_filter"), "{heard:?}");
        assert!(heard.refusal.is_some() && heard.done);
        assert!(!heard.text.contains("fool"));
    }
}

/// A caller who goes away while an answer is held leaves nothing of it in the record.
#[tokio::test]
async fn what_was_held_when_the_caller_left_is_not_recorded() {
    let action = json!({"type": "rewrite"});
    let rig = guarded(&word(&["output"], "fool", &action));
    rig.provider.always(Answer {
        pace: std::time::Duration::from_millis(300),
        ..said_in(&["You are a fool", " and", " more"])
    });
    let response = rig.chat(streamed(ask("who?")).to_string()).await;
    drop(response);
    rig.provider_is_idle().await;
    let (call, _) = records(&rig);
    assert!(!format!("{:?}", call.output).contains("fool"), "{call:#?}");
    assert_eq!(call.status, gateway::CallStatus::Cancelled);
}

/// The mark of a call, from what went up.
fn mark_in(text: &str) -> String {
    let at = text.find("mark-").unwrap_or_else(|| panic!("{text}"));
    text[at..at + "mark-".len() + 32].to_owned()
}

#[tokio::test]
async fn a_mark_in_the_instructions_is_found_in_any_form_and_recorded_in_none() {
    let canary = |action: &str| json!([{"name": "aloud", "at": ["output", "tool_arguments"], "check": {"type": "canary"}, "action": {"type": action}}]);
    let call = |model: &str, told: &str| json!({"model": model, "messages": [{"role": "system", "content": told}]});
    // The local model says its last message: here its instructions.
    for (told, action, finish) in [
        ("Say this.", "block", "content_filter"),
        ("Say this in base64.", "block", "content_filter"),
        ("Say this.", "flag", "stop"),
        ("Say this.", "redact", "stop"),
    ] {
        let rig = guarded(&canary(action));
        let heard = hear(&rig, call("local/parrot", told)).await;
        assert_eq!(
            heard.finish.as_deref(),
            Some(finish),
            "{told} {action}: {heard:?}"
        );
        let (_, answer) = rig.chat_json(&call("local/parrot", told)).await;
        assert_eq!(answer["choices"][0]["finish_reason"], finish, "{answer}");
        let guard = records(&rig).1.unwrap();
        assert_eq!(guard.output[0]["rule_name"], "aloud", "{guard:#?}");
        if action == "flag" {
            let (one, other) = (mark_in(&heard.text), mark_in(&answer.to_string()));
            assert_ne!(one, other, "each call has its own");
        } else {
            assert!(!heard.text.contains("mark-"), "{heard:?}");
        }
        for record in rig.sink.records.lock().unwrap().iter() {
            assert!(!format!("{record:?}").contains("mark-"), "{record:#?}");
        }
    }
    // It goes up at the end of the instructions, in every protocol, and changes nothing else.
    for model in ["open/fake-large", "claude/fake-large"] {
        let rig = guarded(&canary("block"));
        let mut request = call(model, "Be brief.");
        request["max_tokens"] = 20.into();
        request["messages"]
            .as_array_mut()
            .unwrap()
            .push(json!({"role": "user", "content": "Hi"}));
        let (status, answer) = rig.chat_json(&request).await;
        assert_eq!(status, 200, "{answer}");
        let seen = rig.provider.seen().remove(0).json().to_string();
        let told = format!("Be brief.\\n\\n{} is a mark", mark_in(&seen));
        assert!(seen.contains(&told), "{seen}");
        assert_eq!(
            records(&rig).0.input,
            *request["messages"].as_array().unwrap()
        );
    }
    // Nothing is hidden where nobody looks for it.
    let rig = guarded(&mail(&["output"], &json!({"type": "redact"})));
    rig.chat_json(&call("open/fake-large", "Be brief.")).await;
    let seen = rig.provider.seen().remove(0).json();
    assert_eq!(seen["messages"][0]["content"], "Be brief.");
}

#[tokio::test]
async fn texts_to_embed_are_input_too() {
    let rules = json!([
        mail(&["input"], &json!({"type": "redact"}))[0],
        word(&["input"], "bomb", &json!({"type": "block"}))[0]
    ]);
    let rig = guarded(&rules);
    rig.provider.always(Answer::json(&json!({"object": "list", "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})));
    for (input, sent) in [
        (json!("to ann@example.com"), json!("to <EMAIL_1>")),
        (json!(["to ann@example.com"]), json!(["to <EMAIL_1>"])),
        (
            json!(["x", "to ann@example.com"]),
            json!(["x", "to <EMAIL_1>"]),
        ),
        (json!(["x"]), json!(["x"])),
    ] {
        let (status, answer) = rig
            .embed_json(&json!({"model": "open/embed", "input": input, "dimensions": 2}))
            .await;
        assert_eq!(status, 200, "{answer}");
        let seen = rig.provider.seen().pop().unwrap().json();
        assert_eq!(
            (&seen["input"], &seen["dimensions"]),
            (&sent, &json!(2)),
            "{input}"
        );
    }
    let sent = rig.provider.seen().len();
    for (input, code, param) in [
        (json!(["x", "a bomb"]), "guard_blocked", "input[1]"),
        (json!("a bomb"), "guard_blocked", "input"),
        (json!([1, 2, 3]), "guard_unreadable", "input[0]"),
        (json!([[1, 2], [3]]), "guard_unreadable", "input[0]"),
    ] {
        let (status, answer) = rig
            .embed_json(&json!({"model": "open/embed", "input": input}))
            .await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["param"]),
            (&json!(code), &json!(param))
        );
    }
    assert_eq!(rig.provider.seen().len(), sent);
    let (status, _) = rig
        .embed_json(&json!({"model": "local/vectors", "input": "a bomb"}))
        .await;
    assert_eq!(status, 400);
    let records = rig.sink.records.lock().unwrap();
    assert!(records.iter().all(|it| !format!("{it:?}").contains("ann@")));
}

/// Two versions of a policy share the callers of a label; everybody stays with one.
#[tokio::test]
async fn an_experiment_splits_calls_between_versions_of_a_policy() {
    let version = |number: i64, stop: &str| {
        let rules = word(&["input"], stop, &json!({"type": "block"}));
        let document = json!({"applies_to": {"everything": true}, "rules": rules});
        Arc::new(GuardPolicy {
            number,
            digest: Digest::of(stop.as_bytes()),
            ..policy("safe", &document)
        })
    };
    let (one, two) = (version(1, "plan"), version(2, "secret"));
    let arm = |name: &str, policy: &GuardPolicy| gateway::Arm {
        name: name.to_owned(),
        number: policy.number,
        digest: policy.digest,
        weight: 1.0,
    };
    let experiment = gateway::Experiment {
        name: "stricter".to_owned(),
        version: 1,
        unit: gateway::Unit::User,
        key: [7; 32],
        arms: vec![arm("control", &one), arm("candidate", &two)],
        shadows: Vec::new(),
    };
    let rig = Rig::new();
    rig.set_project(|project| {
        let policies = GuardPolicies {
            labels: [("production".to_owned(), one.clone())].into(),
            versions: [(1, one.clone()), (2, two.clone())].into(),
        };
        project.guards.insert("safe".to_owned(), Arc::new(policies));
        let target = gateway::Target::Guard {
            name: "safe".to_owned(),
            label: "production".to_owned(),
        };
        project.experiments.insert(target, Arc::new(experiment));
    });
    let mut arms = std::collections::BTreeMap::new();
    for user in 0..40 {
        let mut blocked = Vec::new();
        for text in ["a plan", "a secret", "a plan"] {
            let mut request = ask(text);
            request["user"] = format!("user {user}").into();
            let (status, _) = rig.chat_json(&request).await;
            blocked.push(status == 400);
            let used = records(&rig).0.arm.unwrap();
            assert_eq!(
                (used.experiment.as_str(), used.propensity),
                ("stricter", 0.5)
            );
            let expected = match used.arm.as_str() {
                "control" => text == "a plan",
                _ => text == "a secret",
            };
            assert_eq!(status == 400, expected, "{user} {text} {used:?}");
            *arms.entry(used.arm).or_insert(0) += 1;
        }
        assert_eq!(blocked[0], blocked[2], "{user} stays");
    }
    assert!(arms.values().all(|calls| *calls >= 30), "{arms:?}");

    // In an app the app's own call is the one that counts, and its steps agree with it.
    let document = json!({"steps": [{"id": "say", "type": "prompt", "model": "open/fake-large",
        "prompt": {"messages": [{"role": "system", "content": "Be brief."}]}}]});
    rig.put_app(vec![crate::apps::release("helper", 1, &document)]);
    for user in 0..6 {
        rig.sink.records.lock().unwrap().clear();
        let mut request = ask("a secret");
        request["model"] = "helper".into();
        request["user"] = format!("user {user}").into();
        let (status, answer) = rig.chat_json(&request).await;
        let records = rig.sink.records.lock().unwrap().clone();
        let marked: Vec<_> = records.iter().filter(|it| it.arm.is_some()).collect();
        assert_eq!(marked.len(), 1, "{records:#?}");
        assert_eq!(marked[0].kind, RecordKind::App);
        let is_candidate = marked[0].arm.as_ref().unwrap().arm == "candidate";
        assert_eq!(status == 400, is_candidate, "{answer}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// However a provider cuts its answer, the client and the record get the same.
    #[test]
    fn any_cut_of_an_answer_is_the_same(
        parts in prop::collection::vec(prop_oneof![
            Just("ann@example.com"), Just(" "), Just("secret plan"), Just("secret"), Just(" plan"),
            Just("が"), Just("か\u{3099}"), Just("090-1234-5678"), Just("。"), Just("x@y"), Just("\u{200d}"),
        ], 1..12),
        cuts in prop::collection::vec(0_usize..80, 0..12),
    ) {
        let text = parts.concat();
        let mut at: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary((*cut).min(text.len()))).map(|cut| cut.min(text.len())).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces: Vec<&str> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).filter(|piece| !piece.is_empty()).collect();
        let rules = json!([
            {"name": "pii", "at": ["output"], "check": {"type": "pii"}, "action": {"type": "redact"}},
            {"name": "plan", "at": ["output"], "check": {"type": "words", "list": ["secret plan"]}, "action": {"type": "block"}},
        ]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = guarded(&rules);
            rig.provider.always(said_in(&pieces));
            let heard = hear(&rig, ask("x")).await;
            let (_, answer) = rig.chat_json(&ask("x")).await;
            let whole = &answer["choices"][0];
            assert_eq!(whole["message"]["content"].as_str().unwrap_or_default(), heard.text, "{pieces:?}");
            assert_eq!(whole["finish_reason"].as_str(), heard.finish.as_deref(), "{pieces:?}");
        });
    }
}

/// Examples of topics are the same for every passage of every call: embedded once.
#[tokio::test]
async fn examples_of_topics_are_embedded_once() {
    let check = json!({"type": "topics", "deny": ["Where is my delivery?", "Tell me about stocks"], "threshold": 0.9});
    let rig = guarded(&json!([{"name": "topics", "at": ["input"], "check": check,
        "action": {"type": "block"}, "on_failure": "closed", "deadline_ms": 20_000}]));
    let mut asked = Vec::new();
    for text in ["Where is my delivery?", "I want a refund"] {
        rig.sink.records.lock().unwrap().clear();
        let _ = rig.chat_json(&ask(text)).await;
        let records = rig.sink.records.lock().unwrap().clone();
        let embedded = records.iter().filter(|it| it.kind == RecordKind::Embedding);
        asked.push(embedded.map(|it| it.input.len()).collect::<Vec<_>>());
    }
    assert_eq!(asked, [vec![2, 1], vec![1]]);
}

/// While a second answer is awaited the stream says that it lives, and nothing else.
#[tokio::test]
async fn a_stream_whose_answer_is_made_again_says_that_it_lives() {
    let action = json!({"type": "rewrite", "instruction": "Say it without the word."});
    let rig = Rig::with(|provider| {
        provider.timeouts.headers = Duration::from_millis(400);
        provider.retry.attempts = 1;
    });
    rig.set_plan(|plan| plan.limits.sign_of_life = Duration::from_millis(20));
    let rules = word(&["output"], "fool", &action);
    let document = json!({"applies_to": {"everything": true}, "rules": rules});
    install(&rig, "dev", policy("safe", &document));
    rig.provider.next(said_in(&["You are", " a fo", "ol."]));
    let stalls = Answer::faulty(Fault::StallBeforeHeaders);
    rig.provider.when("Say it without", stalls);
    let request = streamed(ask("who am I?")).to_string();
    let (_, text) = rig.chat_text(request).await;
    let (waiting, said) = text.split_once("data:").unwrap();
    assert!(waiting.matches(": checking\n\n").count() >= 2, "{text}");
    assert_eq!(
        waiting.replace(": checking\n\n", ""),
        "",
        "no text leaves before"
    );
    assert!(
        said.contains("content_filter") && !said.contains("fool"),
        "{said}"
    );
    assert!(said.ends_with("[DONE]\n\n"), "{said}");
}
