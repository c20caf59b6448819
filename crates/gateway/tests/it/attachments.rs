//! What callers attach: sessions, tags, prompts by name; and what models there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Digest;
use gateway::{ApiError, CallContext, Prompt, PromptDocument, PromptVersion};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::rig::{Rig, request, sorted};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn with_prompt(rig: &Rig) {
    let version = |template: &str| {
        let digest = Digest::of(template.as_bytes());
        Arc::new(PromptVersion::new(
            digest,
            PromptDocument::of_system(template),
        ))
    };
    let versions = BTreeMap::from([
        (1, version("Be brief.")),
        (2, version("Answer {{ name }} in {{ language }}.")),
    ]);
    let labels = BTreeMap::from([("production".to_owned(), 1), ("next".to_owned(), 2)]);
    rig.set_project(|project| {
        project.prompts.insert(
            "support/answer".to_owned(),
            Arc::new(Prompt { versions, labels }),
        );
    });
}

#[tokio::test]
async fn headers_and_the_extension_object_attach_the_same_things() {
    let rig = Rig::new();
    let given = headers(&[
        ("x-meguri-session", "s1"),
        ("x-meguri-step", "3"),
        ("x-meguri-user", "花子"),
        ("x-meguri-tags", "team=a, beta"),
        ("x-meguri-metadata", r#"{"page":{"n":1}}"#),
    ]);
    let context = CallContext::from_headers(rig.context().trace_id, &given).unwrap();
    rig.chat_with(context.clone(), request("local/parrot"))
        .await;
    let record = rig.last_record();
    assert_eq!(record.trace_id, context.trace_id);
    assert_eq!(
        (
            record.session.as_deref(),
            record.step,
            record.user.as_deref()
        ),
        (Some("s1"), Some(3), Some("花子"))
    );
    assert_eq!(
        (sorted(&record.tags), &record.metadata["page"]),
        ("beta=true,team=a".to_owned(), &json!({"n": 1}))
    );

    // The body wins over headers, and the extension does not reach the provider.
    let body = json!({
        "model": "open/m",
        "meguri": {"session": "s2", "tags": {"team": "b"}, "metadata": {"k": 1}, "step": 4},
        "user": "u", "metadata": {"order": "7"},
        "messages": [{"role": "user", "content": "x"}],
    });
    rig.chat_with(context, body.to_string()).await;
    let record = rig.last_record();
    assert_eq!(
        (
            record.session.as_deref(),
            record.step,
            record.user.as_deref()
        ),
        (Some("s2"), Some(4), Some("花子"))
    );
    assert_eq!(sorted(&record.tags), "beta=true,team=b");
    assert_eq!(
        Value::from(record.metadata),
        json!({"page": {"n": 1}, "k": 1, "order": "7"})
    );
    let mut expected = body.clone();
    expected.as_object_mut().unwrap().shift_remove("meguri");
    expected["model"] = "m".into();
    assert_eq!(rig.provider.seen()[0].json(), expected);
}

#[tokio::test]
async fn headers_that_mean_nothing_are_errors() {
    let rig = Rig::new();
    let param = |pairs: &[(&'static str, &str)]| {
        let result: Result<_, ApiError> =
            CallContext::from_headers(rig.context().trace_id, &headers(pairs));
        result.unwrap_err().param.unwrap()
    };
    assert_eq!(param(&[("x-meguri-step", "x")]), "x-meguri-step");
    assert_eq!(param(&[("x-meguri-metadata", "[1]")]), "x-meguri-metadata");
}

#[tokio::test]
async fn callers_that_trace_on_their_own_keep_their_trace() {
    let given = headers(&[(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )]);
    let (trace, span) = gateway::traceparent(&given).unwrap();
    let context = CallContext::from_headers(trace, &given).unwrap();
    assert_eq!(
        (
            context.trace_id.to_string().as_str(),
            context.parent_span_id
        ),
        ("0af7651916cd43dd8448eb211c80319c", Some(span))
    );
    for bad in [
        "",
        "00-0-0-0",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    ] {
        assert_eq!(
            gateway::traceparent(&headers(&[("traceparent", bad)])),
            None,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_prompt_stands_before_the_messages() {
    let rig = Rig::new();
    with_prompt(&rig);
    let by_header = headers(&[("x-meguri-prompt", "support/answer")]);
    let context = CallContext::from_headers(rig.context().trace_id, &by_header).unwrap();
    rig.chat_with(context, request("open/m")).await;
    let messages = rig.provider.seen()[0].json()["messages"].clone();
    assert_eq!(
        messages,
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    );
    let record = rig.last_record();
    let used = record.prompt.clone().unwrap();
    assert_eq!(
        (used.name.as_str(), used.version, used.label.as_deref()),
        ("support/answer", 1, Some("production"))
    );
    assert_eq!(Value::from(record.input), messages);

    for (reference, label) in [
        (json!("support/answer@next"), Some("next")),
        (json!("support/answer@2"), None),
        (json!({"name": "support/answer", "version": 2}), None),
    ] {
        let body = json!({
            "model": "claude/m",
            "meguri": {"prompt": reference, "variables": {"name": "\"Aki\"", "language": "日本語"}},
            "messages": [{"role": "user", "content": "x"}],
        });
        let (status, _) = rig.chat_json(&body).await;
        assert_eq!(status, 200);
        let seen = rig.provider.seen().last().unwrap().json();
        assert_eq!(
            seen["system"],
            json!([{"type": "text", "text": "Answer \"Aki\" in 日本語."}])
        );
        let used = rig.last_record().prompt.unwrap();
        assert_eq!((used.version, used.label.as_deref()), (2, label));
    }
}

#[tokio::test]
async fn prompts_that_cannot_be_used_are_errors() {
    let rig = Rig::new();
    with_prompt(&rig);
    for (reference, status, part) in [
        ("support/anwser", 404, "did you mean \"support/answer\""),
        ("support/answer@old", 404, "has no label \"old\""),
        ("support/answer@9", 404, "has no version 9"),
        ("support/answer@2", 400, "undefined"),
    ] {
        let body = json!({"model": "open/m", "meguri": {"prompt": reference}, "messages": [{"role": "user", "content": "x"}]});
        let (got, answer) = rig.chat_json(&body).await;
        assert_eq!(
            (got, &answer["error"]["param"]),
            (status, &json!("prompt")),
            "{answer}"
        );
        assert!(
            answer["error"]["message"].as_str().unwrap().contains(part),
            "{answer}"
        );
    }
    assert!(rig.provider.seen().is_empty());
}

#[tokio::test]
async fn models_are_listed_and_a_foreign_project_sees_none() {
    let rig = Rig::new();
    let plan = rig.gateway.plan();
    let ids = |principal| {
        rig.gateway
            .models(&plan, principal)
            .into_iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&rig.principal),
        [
            "local/parrot",
            "local/broken",
            "local/vectors",
            "claude/fake-large",
            "open/fake-large"
        ]
    );
    let foreign = gateway::Principal {
        project: base::Id::from_uuid_bytes([9; 16]),
        ..rig.principal.clone()
    };
    assert_eq!(
        ids(&foreign),
        ["local/parrot", "local/broken", "local/vectors"]
    );
    let body = request("open/fake-large").into();
    let answer = rig
        .gateway
        .chat_completions(&plan, &foreign, rig.context(), body)
        .await;
    assert_eq!(
        answer.status(),
        404,
        "another project's provider does not exist"
    );
}
