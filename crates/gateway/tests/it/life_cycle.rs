//! Each row of the life cycle: what fails, what the client sees, what is recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gateway::{CallStatus, Protocol, Provider};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::rig::{Rig, SECRET, events, request, stream_request};

#[tokio::test]
async fn a_whole_answer_passes_byte_for_byte() {
    let rig = Rig::new();
    let body = r#"{ "messages":[{"role":"user","content":"\u0048i"}],  "model" : "open/org/fake-large", "temperature":1.0,
        "x_unknown":{"deep":[1.50,12345678901234567890123]}, "stream":false}"#;
    let (status, text) = rig.chat_text(body).await;
    assert_eq!(status, 200, "{text}");

    let seen = rig.provider.seen().remove(0);
    let expected = body.replace("\"open/org/fake-large\"", "\"org/fake-large\"");
    assert_eq!(std::str::from_utf8(&seen.body).unwrap(), expected);
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.headers["authorization"], format!("Bearer {SECRET}"));

    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        answer["echo"]["x_unknown"]["deep"][0], 1.5,
        "fields that we do not know come back as well"
    );
    let record = rig.record();
    assert_eq!(record.status, CallStatus::Ok);
    assert_eq!(
        record.output,
        [json!({"role": "assistant", "content": "Hello from the fake provider."})]
    );
    assert_eq!(record.finish_reasons, ["stop"]);
    assert_eq!(
        (
            record.request_model.as_str(),
            record.response_model.as_deref()
        ),
        ("open/org/fake-large", Some("org/fake-large"))
    );
    assert_eq!(
        (record.provider.as_deref(), record.protocol),
        (Some("open"), Some("openai"))
    );
    assert_eq!(
        record.provider_request_id.as_deref(),
        Some("fake-request-1")
    );
    assert_eq!(record.request_bytes, body.len() as u64);
    assert_eq!(record.response_bytes, text.len() as u64);
    assert_eq!(record.parameters["x_unknown"]["deep"][0], 1.5);
    assert_eq!(
        (record.cost, record.attempts),
        (None, 1),
        "an unknown price is not zero"
    );
    assert_eq!(record.plan_revision, "r1");
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte_and_hides_the_usage_that_we_asked_for() {
    let rig = Rig::new();
    let (status, text) = rig.chat_text(stream_request("open/fake-large")).await;
    assert_eq!(status, 200);
    let seen = rig.provider.seen().remove(0).json();
    assert_eq!(seen["stream_options"], json!({"include_usage": true}));
    let chunks = events(&text);
    assert_eq!(chunks.len(), 8, "role, five words, finish, [DONE]: {text}");
    assert!(!text.contains("\"usage\""), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));

    let record = rig.record();
    let usage = record.usage.unwrap();
    assert_eq!((usage.input, usage.output, usage.estimated), (12, 5, false));
    assert_eq!(record.cost.unwrap().0, 12 * 2000 + 5 * 8000);
    assert_eq!(record.price_version.as_deref(), Some("2026-11"));
    assert_eq!((record.generated_chunks, record.delivered_chunks), (6, 6));
    assert!(
        record.first_token_at.unwrap() >= record.started_at
            && record.ended_at >= record.first_token_at.unwrap()
    );
    assert_eq!(record.response_bytes, text.len() as u64);

    let asked = stream_request("open/fake-large").replace(
        "\"stream\":true",
        "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
    );
    let (_, text) = rig.chat_text(asked).await;
    assert!(text.contains("\"completion_tokens\":5"), "{text}");
}

#[tokio::test]
async fn connections_are_used_again() {
    fn can_run_on_any_thread<T: Send>(_: &T) {}
    let rig = Rig::new();
    can_run_on_any_thread(&rig.chat(""));
    for _ in 0..5 {
        rig.chat_text(request("open/fake-large")).await;
        rig.chat_text(stream_request("open/fake-large")).await;
    }
    assert_eq!(rig.provider.connections(), 1);
}

#[tokio::test]
async fn tool_calls_are_recorded_whole() {
    let rig = Rig::new();
    let tools = vec![
        ("weather".to_owned(), json!({"city": "京都"})),
        ("clock".to_owned(), json!({})),
    ];
    rig.provider.next(Answer {
        tools,
        ..Answer::default()
    });
    rig.chat_text(stream_request("open/fake-large")).await;
    let record = rig.record();
    let calls = &record.output[0]["tool_calls"];
    assert_eq!(
        calls[0]["function"],
        json!({"name": "weather", "arguments": "{\"city\":\"京都\"}"})
    );
    assert_eq!(calls[1]["id"], "call_1");
    assert_eq!(record.finish_reasons, ["tool_calls"]);
}

/// After the first token: an error event in the client's protocol, and never `[DONE]`.
#[tokio::test]
async fn a_stream_that_goes_wrong_never_ends_well() {
    let rig = Rig::with(|provider| provider.timeouts.idle = Duration::from_millis(150));
    let cases = [
        (Fault::DieAfter(3), "provider_died"),
        (Fault::EndAfter(3), "provider_died"),
        (Fault::HalfAfter(3), "provider_died"),
        (Fault::GarbageAfter(3), "provider_garbage"),
        (Fault::ErrorAfter(3), "provider_overloaded"),
        (Fault::StallAfter(3), "provider_timeout"),
    ];
    for model in ["open/fake-large", "claude/fake-large"] {
        for (fault, code) in &cases {
            rig.provider.next(Answer::faulty(fault.clone()));
            let (status, text) = rig.chat_text(stream_request(model)).await;
            assert_eq!(status, 200, "{model} {fault:?}");
            assert!(!text.contains("[DONE]"), "{model} {fault:?}: {text}");
            let last: Value = serde_json::from_str(events(&text).last().unwrap()).unwrap();
            assert_eq!(last["error"]["code"], *code, "{model} {fault:?}: {text}");
            assert!(
                text.contains("Hello"),
                "what came before is delivered: {text}"
            );
            let record = rig.last_record();
            assert_eq!(
                (record.status, record.error.unwrap().kind.as_str()),
                (CallStatus::Error, *code),
                "{model} {fault:?}"
            );
            let usage = record.usage.unwrap();
            assert!(
                usage.estimated && usage.input > 0 && usage.output > 0,
                "{model} {fault:?} {usage:?}"
            );
            assert_eq!(
                record.attempts, 1,
                "never another answer after the first token"
            );
            rig.provider_is_idle().await;
        }
    }
    assert_eq!(rig.sink.records.lock().unwrap().len(), 12);
}

/// Before the first token the same faults are tried again, and nobody notices.
#[tokio::test]
async fn what_fails_before_the_first_token_is_tried_again() {
    let rig = Rig::new();
    let faults = [
        Fault::DieAfter(0),
        Fault::DieAfter(1),
        Fault::EndAfter(1),
        Fault::Status(503, vec![], String::new()),
    ];
    for fault in faults {
        rig.provider.next(Answer::faulty(fault.clone()));
        let (status, text) = rig.chat_text(stream_request("open/fake-large")).await;
        assert_eq!(status, 200, "{fault:?}: {text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{fault:?}: {text}");
        let record = rig.last_record();
        assert_eq!(
            (record.status, record.attempts),
            (CallStatus::Ok, 2),
            "{fault:?}"
        );
        assert_eq!(
            record.output[0]["content"], "Hello from the fake provider.",
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn time_outs_before_the_first_token_are_errors() {
    let rig = Rig::with(|provider| {
        provider.timeouts.headers = Duration::from_millis(100);
        provider.timeouts.first_token = Duration::from_millis(100);
    });
    for fault in [
        Fault::StallBeforeHeaders,
        Fault::NeverReal,
        Fault::StallAfter(1),
    ] {
        rig.provider.next(Answer::faulty(fault.clone()));
        let (status, text) = rig.chat_text(stream_request("open/fake-large")).await;
        assert_eq!(status, 504, "{fault:?}: {text}");
        assert!(text.contains("provider_timeout"), "{text}");
        rig.provider_is_idle().await;
    }
}

#[tokio::test]
async fn the_whole_call_has_a_limit() {
    let rig = Rig::with(|provider| provider.timeouts.total = Duration::from_millis(1500));
    let text = vec!["word".to_owned(); 1000];
    rig.provider.next(Answer {
        text,
        pace: Duration::from_millis(20),
        ..Answer::default()
    });
    let (status, text) = rig.chat_text(stream_request("open/fake-large")).await;
    assert_eq!(status, 200);
    assert!(
        text.contains("did not finish its answer in time") && !text.contains("[DONE]"),
        "{text}"
    );
    rig.provider_is_idle().await;
}

#[tokio::test]
async fn connecting_has_a_limit() {
    // Takes the connection and never says a word of TLS.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let config = gateway::EgressConfig {
        connect_timeout: Duration::from_millis(100),
        ..Default::default()
    };
    let target = base::net::parse_base_url(&url).unwrap();
    let egress = gateway::Egress::new(config);
    let answer = egress.get(
        &target,
        Default::default(),
        gateway::Allow::Private,
        Duration::from_secs(5),
    );
    assert_eq!(
        answer.await.unwrap_err(),
        gateway::EgressError::ConnectTimeout("127.0.0.1".to_owned())
    );
}

#[tokio::test]
async fn errors_of_the_provider_come_in_the_clients_protocol() {
    let rig = Rig::with(|provider| provider.retry.attempts = 1);
    let openai = format!(
        r#"{{"error":{{"message":"no {SECRET} here","type":"t","param":"messages","code":"c"}}}}"#
    );
    let cases = [
        (400, openai.as_str(), 400, "c"),
        (401, openai.as_str(), 502, "upstream_credentials_rejected"),
        (403, "forbidden", 502, "upstream_credentials_rejected"),
        (404, "{}", 404, "model_not_found"),
        (413, "", 413, "provider_rejected"),
        (422, r#"{"detail":"bad"}"#, 422, "provider_rejected"),
        (429, openai.as_str(), 429, "c"),
        (500, "<html>oops</html>", 502, "provider_error"),
        (503, "", 503, "provider_overloaded"),
        (529, "", 503, "provider_overloaded"),
    ];
    for model in ["open/fake-large", "claude/fake-large"] {
        for (status, body, expected_status, expected_code) in cases {
            rig.provider.next(Answer::status(status, body));
            let (got, text) = rig.chat_text(request(model)).await;
            let error = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
            assert_eq!(
                (got, error["code"].as_str().unwrap()),
                (expected_status, expected_code),
                "{status}: {text}"
            );
            assert!(!text.contains(SECRET), "{status}: {text}");
            let record = rig.last_record();
            assert!(!format!("{record:?}").contains(SECRET), "{status}");
            assert_eq!(
                (record.status, record.http_status),
                (CallStatus::Error, expected_status)
            );
            assert_eq!(record.usage, None, "nothing was generated");
        }
    }
    rig.provider.next(Answer::status(400, openai.as_str()));
    let (_, answer) = rig
        .chat_json(&json!({"model": "open/m", "messages": [{"role": "user", "content": "x"}]}))
        .await;
    insta::assert_json_snapshot!("provider_error", answer);
}

#[tokio::test]
async fn retry_after_is_honoured_or_handed_on() {
    let rig = Rig::new();
    let limited = |seconds: &str| {
        Answer::faulty(Fault::Status(
            429,
            vec![("retry-after", seconds.to_owned())],
            "{}".to_owned(),
        ))
    };
    rig.provider.next(limited("0"));
    assert_eq!(rig.chat(request("open/m")).await.status(), 200);
    assert_eq!(rig.last_record().attempts, 2);

    rig.provider.next(limited("30"));
    let response = rig.chat(request("open/m")).await;
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["retry-after"]
        ),
        (429, &"30".parse().unwrap())
    );
    assert_eq!(
        rig.last_record().attempts,
        1,
        "half a minute is the client's to wait"
    );

    for _ in 0..3 {
        rig.provider.next(limited("0"));
    }
    assert_eq!(rig.chat(request("open/m")).await.status(), 429);
    assert_eq!(rig.last_record().attempts, 3);
}

#[tokio::test]
async fn whole_answers_that_go_wrong_are_errors() {
    let rig = Rig::with(|provider| {
        provider.retry.attempts = 1;
        provider.timeouts.idle = Duration::from_millis(100);
    });
    let cases = [
        (Fault::DieAfter(0), 502),
        (Fault::EndAfter(0), 502),
        (Fault::GarbageAfter(0), 502),
        (Fault::StallAfter(0), 504),
        (Fault::Huge(65 << 20), 502),
        (
            Fault::Raw("application/json", vec![Bytes::from_static(b"{}")]),
            502,
        ),
    ];
    for model in ["open/fake-large", "claude/fake-large"] {
        for (fault, expected) in &cases {
            rig.provider.next(Answer::faulty(fault.clone()));
            let (status, text) = rig.chat_text(request(model)).await;
            assert_eq!(status, *expected, "{model} {fault:?}: {text}");
            rig.provider_is_idle().await;
        }
    }
}

#[tokio::test]
async fn an_event_without_end_is_cut_off() {
    let rig = Rig::new();
    rig.provider.next(Answer::faulty(Fault::Huge(5 << 20)));
    let (_, text) = rig.chat_text(stream_request("open/fake-large")).await;
    assert!(
        text.contains("provider_garbage") && !text.contains("[DONE]"),
        "{text}"
    );
}

#[tokio::test]
async fn a_stream_answered_with_something_else_is_an_error() {
    let rig = Rig::with(|provider| provider.retry.attempts = 1);
    rig.provider.next(Answer::faulty(Fault::Raw(
        "application/json",
        vec![Bytes::from_static(b"{\"choices\":[]}")],
    )));
    assert_eq!(rig.chat_text(stream_request("open/m")).await.0, 502);
    let crlf = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xe6\x97";
    let rest = b"\xa5\"},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: [DONE]\r\n\r\n";
    rig.provider.next(Answer::faulty(Fault::Raw(
        "text/event-stream",
        vec![Bytes::from_static(crlf), Bytes::from_static(rest)],
    )));
    let (status, text) = rig.chat_text(stream_request("open/m")).await;
    assert_eq!(
        (status, text.as_bytes()),
        (200, [&crlf[..], rest].concat().as_slice()),
        "any split of the bytes is fine"
    );
    assert_eq!(rig.last_record().output[0]["content"], "日");
}

#[tokio::test]
async fn quirk_no_done_accepts_a_clean_end_after_a_finish_reason() {
    let rig = Rig::with(|provider| provider.quirks.no_done = true);
    let chunk = Bytes::from_static(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n");
    rig.provider.next(Answer::faulty(Fault::Raw(
        "text/event-stream",
        vec![chunk.clone()],
    )));
    let (_, text) = rig.chat_text(stream_request("open/m")).await;
    assert_eq!(text.as_bytes(), chunk, "nothing is invented");
    assert_eq!(rig.record().status, CallStatus::Ok);
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_provider_at_once() {
    let rig = Rig::new();
    // Before the headers: the future is dropped.
    rig.provider.next(Answer::faulty(Fault::StallBeforeHeaders));
    let call = rig.chat(stream_request("open/fake-large"));
    let left = tokio::time::timeout(Duration::from_millis(100), call).await;
    assert!(left.is_err());
    rig.provider_is_idle().await;
    let record = rig.last_record();
    assert_eq!(
        (record.status, record.http_status, record.attempts),
        (CallStatus::Cancelled, 499, 1)
    );
    assert!(record.usage.unwrap().estimated);

    // In the stream: the body is dropped.
    for model in ["open/fake-large", "claude/fake-large"] {
        rig.provider.next(Answer::faulty(Fault::StallAfter(4)));
        let mut body = rig.chat(stream_request(model)).await.into_body();
        let mut delivered = 0;
        while delivered < 3 {
            delivered += usize::from(
                !body
                    .frame()
                    .await
                    .unwrap()
                    .unwrap()
                    .into_data()
                    .unwrap()
                    .is_empty(),
            );
        }
        drop(body);
        rig.provider_is_idle().await;
        let record = rig.last_record();
        assert_eq!(record.status, CallStatus::Cancelled);
        let usage = record.usage.unwrap();
        assert!(usage.estimated && usage.output > 0, "{usage:?}");
        assert!(record.cost.is_some(), "a cancelled call costs too");
        assert!(record.generated_chunks >= record.delivered_chunks);
    }
    assert_eq!(rig.sink.records.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn hanging_up_at_done_is_a_good_end() {
    let rig = Rig::new();
    let mut body = rig
        .chat(stream_request("open/fake-large"))
        .await
        .into_body();
    loop {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        if frame.starts_with(b"data: [DONE]") {
            break;
        }
    }
    drop(body);
    assert_eq!(rig.record().status, CallStatus::Ok);
}

#[tokio::test]
async fn without_a_place_for_the_record_there_is_no_call() {
    let rig = Rig::new();
    rig.sink.full.store(true, Ordering::SeqCst);
    let response = rig.chat(request("open/m")).await;
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["retry-after"]
        ),
        (503, &"7".parse().unwrap())
    );
    assert!(rig.provider.seen().is_empty());
}

#[tokio::test]
async fn a_call_waits_a_moment_for_the_place_of_its_record() {
    let rig = Rig::new();
    rig.sink.full.store(true, Ordering::SeqCst);
    let freed = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.sink.full.store(false, Ordering::SeqCst);
    };
    let (response, ()) = tokio::join!(rig.chat(request("open/m")), freed);
    assert_eq!(response.status().as_u16(), 200);
}

#[tokio::test]
async fn a_panic_is_recorded() {
    let rig = Rig::new();
    let call = rig.chat(request("local/parrot").replace("Hi", "panic"));
    assert!(
        std::panic::AssertUnwindSafe(call)
            .catch_unwind()
            .await
            .is_err()
    );
    let record = rig.record();
    assert_eq!(
        (record.status, record.error.unwrap().kind.as_str()),
        (CallStatus::Error, "panic")
    );
}

#[tokio::test]
async fn a_provider_that_is_down_or_forbidden_is_said_to_be() {
    let rig = Rig::new();
    let add = |name: &str, change: fn(&mut Provider), url: &str| {
        let mut provider = rig.describe(name, Protocol::OpenAi, url);
        change(&mut provider);
        rig.set_project(|project| {
            project
                .providers
                .insert(name.to_owned(), Arc::new(provider));
        });
    };
    add("down", |_| {}, "http://127.0.0.1:1/v1");
    add(
        "inside",
        |provider| provider.allow_private = false,
        &rig.provider.openai_url(),
    );
    let (status, text) = rig.chat_text(request("down/m")).await;
    assert_eq!(status, 502, "{text}");
    assert!(
        text.contains("provider_unreachable") && !text.contains("127.0.0.1"),
        "{text}"
    );
    assert_eq!(rig.last_record().attempts, 3);
    let (status, text) = rig.chat_text(request("inside/m")).await;
    assert!(
        status == 502 && text.contains("provider_refused") && !text.contains("127.0.0.1"),
        "{text}"
    );
    let record = rig.last_record();
    assert!(
        record.error.unwrap().message.contains("127.0.0.1"),
        "the record says more than the client may know"
    );
    assert!(rig.provider.seen().is_empty());
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_is_sent() {
    let rig = Rig::new();
    let user = r#"[{"role":"user","content":"x"}]"#;
    let cases = [
        (r"{".to_owned(), 400, "invalid_json", Value::Null),
        (
            "{\"messages\":[]}".to_owned(),
            400,
            "invalid_value",
            json!("model"),
        ),
        (
            "{\"model\":7}".to_owned(),
            400,
            "invalid_value",
            json!("model"),
        ),
        (
            "{\"model\":\"open/m\"}".to_owned(),
            400,
            "invalid_value",
            json!("messages"),
        ),
        (
            "{\"model\":\"open/m\",\"messages\":[]}".to_owned(),
            400,
            "invalid_value",
            json!("messages"),
        ),
        (
            format!("{{\"model\":\"open/m\",\"messages\":{user},\"stream\":\"yes\"}}"),
            400,
            "invalid_value",
            json!("stream"),
        ),
        (
            format!("{{\"model\":\"open/m\",\"messages\":{user},\"meguri\":{{\"sesion\":1}}}}"),
            400,
            "invalid_value",
            json!("meguri"),
        ),
        (
            format!("{{\"model\":\"nowhere/m\",\"messages\":{user}}}"),
            404,
            "model_not_found",
            json!("model"),
        ),
        (
            format!("{{\"model\":\"fake-lrge\",\"messages\":{user}}}"),
            404,
            "model_not_found",
            json!("model"),
        ),
    ];
    for (body, expected, code, param) in cases {
        let (status, text) = rig.chat_text(body.clone()).await;
        let error = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
        assert_eq!(
            (status, error["code"].as_str().unwrap(), &error["param"]),
            (expected, code, &param),
            "{body}: {text}"
        );
        assert_eq!(rig.last_record().status, CallStatus::Error);
    }
    let (_, text) = rig
        .chat_text(format!("{{\"model\":\"fake-lrge\",\"messages\":{user}}}"))
        .await;
    assert!(
        text.contains("did you mean \\\"open/fake-large\\\"")
            || text.contains("did you mean \\\"claude/fake-large\\\""),
        "{text}"
    );
    assert!(rig.provider.seen().is_empty());
}

#[tokio::test]
async fn embeddings_pass_byte_for_byte() {
    let rig = Rig::new();
    let body = json!({"model": "open/fake-large", "input": ["a", "b"], "dimensions": 2, "x": 1});
    let (status, answer) = rig.embed_json(&body).await;
    assert_eq!((status, &answer["echo"]["x"]), (200, &json!(1)));
    let record = rig.record();
    assert_eq!(
        (
            record.kind.as_str(),
            record.usage.unwrap().input,
            record.input.len()
        ),
        ("embedding", 6, 2)
    );
    let (status, answer) = rig
        .embed_json(&json!({"model": "claude/m", "input": "a"}))
        .await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("model")));
}

#[tokio::test]
async fn providers_can_be_tested() {
    let rig = Rig::new();
    for (protocol, url) in [
        (Protocol::OpenAi, rig.provider.openai_url()),
        (Protocol::Anthropic, rig.provider.url()),
    ] {
        let provider = rig.describe("p", protocol, &url);
        assert_eq!(
            rig.gateway.test_provider(&provider).await.unwrap(),
            ["fake-large", "fake-small"]
        );
        rig.provider.next(Answer::status(401, SECRET));
        assert_eq!(
            rig.gateway.test_provider(&provider).await.unwrap_err(),
            "it does not accept the credential"
        );
    }
    let mut provider = rig.describe("p", Protocol::OpenAi, "http://127.0.0.1:1");
    assert_eq!(
        rig.gateway.test_provider(&provider).await.unwrap_err(),
        "it cannot be reached"
    );
    provider.allow_private = false;
    assert_eq!(
        rig.gateway.test_provider(&provider).await.unwrap_err(),
        "its address may not be called from here"
    );
}
