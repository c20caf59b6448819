//! Anthropic both ways, and how tokens of caches are priced.

use bytes::Bytes;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::rig::{Rig, events, stream_request};

/// What Anthropic gets for a chat completion request.
async fn sent(body: Value) -> Value {
    let rig = Rig::new();
    let (status, answer) = rig.chat_json(&body).await;
    assert_eq!(status, 200, "{answer}");
    let seen = rig.provider.seen().remove(0);
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.headers["anthropic-version"], "2023-06-01");
    assert_eq!(seen.headers["x-api-key"], crate::rig::SECRET);
    assert!(!seen.headers.contains_key("authorization"));
    seen.json()
}

#[tokio::test]
async fn a_plain_request() {
    let body = json!({
        "model": "claude/fake-large",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": "Hello."},
            {"role": "developer", "content": [{"type": "text", "text": "Now be brief.", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
            ]},
        ],
        "temperature": 1.7, "top_p": 0.9, "top_k": 40, "stop": "END", "user": "u1", "seed": 5,
        "n": 1, "presence_penalty": 0, "logprobs": false, "response_format": {"type": "text"}, "metadata": {"a": "b"},
    });
    insta::assert_json_snapshot!("anthropic_request", sent(body).await);
}

#[tokio::test]
async fn a_request_with_tools_and_thinking() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}});
    let body = json!({
        "model": "claude/fake-large",
        "max_completion_tokens": 2000,
        "messages": [
            {"role": "user", "content": "Weather in 京都 and Paris?"},
            {"role": "assistant", "content": null,
             "thinking_blocks": [{"type": "thinking", "thinking": "two calls", "signature": "sig=="}],
             "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"京都\"}"}},
                {"id": "b", "type": "function", "function": {"name": "weather", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "sun"}]},
            {"role": "user", "content": "So?"},
        ],
        "tools": [function("weather"), {"type": "function", "function": {"name": "clock"}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": false,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    });
    insta::assert_json_snapshot!("anthropic_request_tools", sent(body).await);
}

#[tokio::test]
async fn tool_choices() {
    let choice = |choice: Value, parallel: Option<bool>| async move {
        let mut body = json!({
            "model": "claude/m", "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": choice,
        });
        if let Some(parallel) = parallel {
            body["parallel_tool_calls"] = parallel.into();
        }
        sent(body).await["tool_choice"].clone()
    };
    assert_eq!(choice(json!("auto"), None).await, json!({"type": "auto"}));
    assert_eq!(
        choice(json!("none"), Some(false)).await,
        json!({"type": "none"})
    );
    assert_eq!(
        choice(json!("required"), Some(true)).await,
        json!({"type": "any"})
    );
    assert_eq!(
        choice(Value::Null, Some(false)).await,
        json!({"type": "auto", "disable_parallel_tool_use": true})
    );
}

#[tokio::test]
async fn what_has_no_counterpart_is_refused_by_name() {
    let rig = Rig::new();
    let cases = [
        (json!({"n": 2}), "n"),
        (json!({"logprobs": true}), "logprobs"),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format",
        ),
        (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
        (json!({"logit_bias": {"1": 1}}), "logit_bias"),
        (json!({"reasoning_effort": "high"}), "reasoning_effort"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"made_up": true}), "made_up"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (
            json!({"messages": [{"role": "robot", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages[0].tool_call_id",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ];
    for (extra, param) in cases {
        let mut body = json!({"model": "claude/m", "messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let (status, answer) = rig.chat_json(&body).await;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(param)),
            "{extra}: {answer}"
        );
    }
    assert!(rig.provider.seen().is_empty());
}

/// An answer with thinking, text, parallel tools and a cache, whole and as a stream.
#[tokio::test]
async fn answers() {
    let rig = Rig::new();
    let whole = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
            {"type": "redacted_thinking", "data": "xxxx"},
            {"type": "text", "text": "Let me look. 天気"},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "京都"}},
            {"type": "tool_use", "id": "t2", "name": "clock", "input": {}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 3000, "output_tokens": 50},
    });
    rig.provider.next(Answer::faulty(Fault::Raw(
        "application/json",
        vec![Bytes::from(whole.to_string())],
    )));
    let (_, mut answer) = rig
        .chat_json(&json!({"model": "claude/m", "messages": [{"role": "user", "content": "x"}]}))
        .await;
    answer["created"] = "[time]".into();
    insta::assert_json_snapshot!("anthropic_answer", answer);
    let recorded = rig.last_record();

    let stream = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 10, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 3000, "output_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig=="}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "xxxx"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Let me look. "}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "天気"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}}),
        json!({"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{\"city\":"}}),
        json!({"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "\"京都\"}"}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "content_block_start", "index": 4, "content_block": {"type": "tool_use", "id": "t2", "name": "clock", "input": {}}}),
        json!({"type": "content_block_stop", "index": 4}),
        json!({"type": "something_new", "x": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 50}}),
        json!({"type": "message_stop"}),
    ];
    let bytes: String = stream
        .iter()
        .map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap()))
        .collect();
    // Seven bytes at a time, through the middle of characters.
    let chunks = bytes
        .as_bytes()
        .chunks(7)
        .map(Bytes::copy_from_slice)
        .collect();
    rig.provider
        .next(Answer::faulty(Fault::Raw("text/event-stream", chunks)));
    let body = stream_request("claude/m").replace(
        "\"stream\":true",
        "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
    );
    let (_, text) = rig.chat_text(body).await;
    let mut chunks = events(&text);
    assert_eq!(chunks.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|chunk| {
            let mut chunk: Value = serde_json::from_str(chunk).unwrap();
            chunk["created"] = "[time]".into();
            chunk
        })
        .collect();
    insta::assert_json_snapshot!("anthropic_stream", chunks);

    // Both ways of asking leave the same record.
    let streamed = rig.last_record();
    assert_eq!(streamed.output, recorded.output);
    assert_eq!(
        (streamed.usage, streamed.cost),
        (recorded.usage, recorded.cost)
    );
    assert_eq!(streamed.finish_reasons, ["tool_calls"]);
}

#[tokio::test]
async fn stop_reasons() {
    let rig = Rig::new();
    for (theirs, ours) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
    ] {
        let whole =
            json!({"id": "m", "model": "x", "content": [], "stop_reason": theirs, "usage": {}});
        rig.provider.next(Answer::faulty(Fault::Raw(
            "application/json",
            vec![Bytes::from(whole.to_string())],
        )));
        let (_, answer) = rig
            .chat_json(
                &json!({"model": "claude/m", "messages": [{"role": "user", "content": "x"}]}),
            )
            .await;
        assert_eq!(answer["choices"][0]["finish_reason"], ours, "{theirs}");
    }
}

/// Cached tokens cost their own price, and none is counted twice.
#[tokio::test]
async fn tokens_of_caches_have_their_own_price() {
    let rig = Rig::new();
    let cases = [
        // OpenAI counts cached tokens among the prompt's.
        (
            "open",
            json!({"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 600}, "completion_tokens_details": {"reasoning_tokens": 4}}),
            (1000, 10, 600, 0, 4),
            400 * 2000 + 600 * 500 + 10 * 8000,
        ),
        // DeepSeek has its own word for them.
        (
            "open",
            json!({"prompt_tokens": 1000, "completion_tokens": 10, "prompt_cache_hit_tokens": 600, "prompt_cache_miss_tokens": 400}),
            (1000, 10, 600, 0, 0),
            400 * 2000 + 600 * 500 + 10 * 8000,
        ),
        (
            "open",
            json!({"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": null}),
            (7, 1, 0, 0, 0),
            7 * 2000 + 8000,
        ),
        // Anthropic counts them apart.
        (
            "claude",
            json!({"input_tokens": 100, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 300, "output_tokens": 10}),
            (600, 10, 300, 200, 0),
            100 * 3000 + 200 * 3750 + 300 * 300 + 10 * 15_000,
        ),
        (
            "claude",
            json!({"input_tokens": 100, "output_tokens": 10}),
            (100, 10, 0, 0, 0),
            100 * 3000 + 10 * 15_000,
        ),
    ];
    for (provider, usage, counts, nanos) in cases {
        rig.provider.next(Answer {
            usage: Some(usage.clone()),
            ..Answer::default()
        });
        rig.chat_text(crate::rig::request(&format!("{provider}/fake-large")))
            .await;
        let record = rig.last_record();
        let used = record.usage.unwrap();
        assert_eq!(
            (
                used.input,
                used.output,
                used.cache_read,
                used.cache_write,
                used.reasoning
            ),
            counts,
            "{usage}"
        );
        assert_eq!(record.cost.unwrap().0, nanos, "{usage}");
    }
}
