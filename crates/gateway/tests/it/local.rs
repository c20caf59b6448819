//! Local models in OpenAI's shape.

use serde_json::{Value, json};

use crate::rig::{Rig, events};

fn body(extra: Value) -> Value {
    let mut body = json!({"model": "local/parrot", "messages": [{"role": "user", "content": "one two three"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

fn redacted(mut answer: Value) -> Value {
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_i64().unwrap() > 1_700_000_000);
    answer["id"] = "[id]".into();
    answer["created"] = "[time]".into();
    answer
}

#[tokio::test]
async fn whole_answers() {
    let rig = Rig::new();
    let (status, answer) = rig
        .chat_json(&body(
            json!({"n": 2, "max_tokens": 2, "logprobs": true, "top_logprobs": 1}),
        ))
        .await;
    assert_eq!(status, 200);
    insta::assert_json_snapshot!("local_whole", redacted(answer));
    let record = rig.record();
    assert_eq!(
        (record.provider.as_deref(), record.finish_reasons.len()),
        (Some("local"), 2)
    );
    assert_eq!(record.usage.unwrap().output, 4);
}

#[tokio::test]
async fn streams() {
    let rig = Rig::new();
    let (_, text) = rig
        .chat_text(
            body(json!({"stream": true, "stream_options": {"include_usage": true}})).to_string(),
        )
        .await;
    let mut chunks = events(&text);
    assert_eq!(chunks.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|chunk| redacted(serde_json::from_str(chunk).unwrap()))
        .collect();
    insta::assert_json_snapshot!("local_stream", chunks);

    let (_, text) = rig
        .chat_text(body(json!({"stream": true})).to_string())
        .await;
    assert!(
        !text.contains("usage") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
}

#[tokio::test]
async fn parameters_are_checked_by_name() {
    let rig = Rig::new();
    let cases = [
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": -1}), "top_p"),
        (json!({"n": 0}), "n"),
        (json!({"n": 99}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (
            json!({"max_completion_tokens": 1.5}),
            "max_completion_tokens",
        ),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": 7}), "stop"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": "yes"}), "logprobs"),
        (json!({"seed": "x"}), "seed"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (
            json!({"response_format": {"type": "json_object"}}),
            "response_format",
        ),
        (json!({"logit_bias": {"50": 1}}), "logit_bias"),
        (json!({"made_up": 1}), "made_up"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0]",
        ),
    ];
    for (extra, param) in cases {
        let (status, answer) = rig.chat_json(&body(extra.clone())).await;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(param)),
            "{extra}: {answer}"
        );
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let fine = json!({"temperature": 0, "top_p": 1, "top_k": 5, "seed": -1, "stop": "x", "user": "u", "frequency_penalty": 0.5, "max_completion_tokens": 2, "tool_choice": "none"});
    let (status, answer) = rig.chat_json(&body(fine)).await;
    assert_eq!(
        (status, &answer["choices"][0]["message"]["content"]),
        (200, &json!("one two "))
    );
    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
    assert_eq!(
        rig.chat_json(&body(parts)).await.1["choices"][0]["message"]["content"],
        "ab"
    );
}

#[tokio::test]
async fn unknown_wrong_and_broken_models() {
    let rig = Rig::new();
    let (status, answer) = rig.chat_json(&body(json!({"model": "local/parot"}))).await;
    assert_eq!(status, 404);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("did you mean \"local/parrot\""),
        "{answer}"
    );
    assert_eq!(
        rig.chat_json(&body(json!({"model": "local/vectors"})))
            .await
            .0,
        400
    );
    let (status, answer) = rig.chat_json(&body(json!({"model": "local/broken"}))).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (500, &json!("local_model_failed"))
    );
    let (_, text) = rig
        .chat_text(body(json!({"model": "local/broken", "stream": true})).to_string())
        .await;
    assert!(
        text.contains("no memory") && !text.contains("[DONE]"),
        "{text}"
    );
}

#[tokio::test]
async fn embeddings_as_numbers_and_as_base64() {
    let rig = Rig::new();
    let (status, answer) = rig
        .embed_json(&json!({"model": "local/vectors", "input": ["a", "b"]}))
        .await;
    assert_eq!(status, 200);
    insta::assert_json_snapshot!("local_embeddings", answer);
    let (_, answer) = rig
        .embed_json(&json!({"model": "local/vectors", "input": "a", "encoding_format": "base64"}))
        .await;
    assert_eq!(answer["data"][0]["embedding"], "AACAPwAAAL8=");
    for (extra, param) in [
        (json!([]), "input"),
        (json!([1, 2]), "input"),
        (json!(""), "input"),
        (json!(["a", ""]), "input"),
    ] {
        let (status, answer) = rig
            .embed_json(&json!({"model": "local/vectors", "input": extra}))
            .await;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(param)),
            "{answer}"
        );
    }
    let (status, _) = rig
        .embed_json(&json!({"model": "local/vectors", "input": "a", "dimensions": 1}))
        .await;
    assert_eq!(status, 400);
    assert_eq!(
        rig.embed_json(&json!({"model": "local/parrot", "input": "a"}))
            .await
            .0,
        400
    );
}
