//! What went wrong with guards elsewhere, each by its name, and that it does not here. The table in
//! `docs/guardrails.md` says where the others are tested.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::guards::{
    ask, guarded, hear, install, judged, mail, policy, records, said_in, streamed, word,
};
use crate::rig::{Rig, events};

/// litellm #41611: a value that came in two events passed.
#[tokio::test]
async fn litellm_41611_a_value_split_over_two_events() {
    let rig = guarded(&mail(&["output"], &json!({"type": "redact"})));
    for pieces in [
        ["It is bob@exa", "mple.org, I", " think."].as_slice(),
        &[
            "It is b",
            "o",
            "b",
            "@",
            "example",
            ".",
            "org",
            ", I think.",
        ],
        &["It is bob@example.org, I think."],
    ] {
        rig.provider.next(said_in(pieces));
        let heard = hear(&rig, ask("whose?")).await;
        assert_eq!(heard.text, "It is <EMAIL_1>, I think.", "{pieces:?}");
        assert_eq!(heard.finish.as_deref(), Some("stop"));
        let (call, _) = records(&rig);
        assert_eq!(call.output[0]["content"], "It is <EMAIL_1>, I think.");
    }
}

/// MLflow skips what should run after the answer where that streams.
#[tokio::test]
async fn mlflow_checks_after_the_answer_are_not_skipped_on_streams() {
    let rig = guarded(&word(&["output"], "secret plan", &json!({"type": "block"})));
    rig.provider.always(Answer {
        pace: std::time::Duration::from_millis(20),
        ..said_in(&[
            "Here is the ",
            "sec",
            "ret pl",
            "an",
            ": first",
            " we",
            " go",
        ])
    });
    let heard = hear(&rig, ask("what?")).await;
    assert_eq!(heard.text, "Here is the ");
    assert_eq!(heard.finish.as_deref(), Some("content_filter"));
    assert!(heard.refusal.unwrap().contains("\"word\""));
    assert!(heard.done);
    rig.provider_is_idle().await;
    let (call, guard) = records(&rig);
    assert_eq!(call.output[0]["content"], "Here is the ");
    assert_eq!(call.finish_reasons, ["content_filter"]);
    assert_eq!(guard.unwrap().guard.unwrap().decision, "blocked");

    // The same words as a whole.
    let (_, answer) = rig.chat_json(&ask("what?")).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Here is the ");
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
}

/// Cloudflare passes a reply by where the request says `stream: true`.
#[tokio::test]
async fn cloudflare_32964_a_streamed_reply_is_not_passed_by() {
    let rig = guarded(&mail(&["output"], &json!({"type": "redact"})));
    rig.provider.always(Answer::text("Ask ann@example.com."));
    let heard = hear(&rig, ask("whom?")).await;
    assert_eq!(heard.text, "Ask <EMAIL_1>.");
    let (_, answer) = rig.chat_json(&ask("whom?")).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        heard.text.as_str()
    );
}

/// LiteLLM #35257: streams of another protocol went by unread, and the log said that all was well.
#[tokio::test]
async fn litellm_35257_streams_of_the_other_protocol_are_read_too() {
    let rig = guarded(&word(&["output"], "secret plan", &json!({"type": "block"})));
    rig.provider
        .always(said_in(&["The sec", "ret pl", "an is this"]));
    let mut request = ask("what?");
    request["model"] = "claude/fake-large".into();
    request["max_tokens"] = 50.into();
    let heard = hear(&rig, request).await;
    assert_eq!(
        (heard.text.as_str(), heard.finish.as_deref()),
        ("The ", Some("content_filter"))
    );
    assert_eq!(records(&rig).1.unwrap().guard.unwrap().decision, "blocked");
}

/// MLflow logs a guard that cannot be loaded and goes on without it.
#[tokio::test]
async fn mlflow_a_guard_that_cannot_be_loaded_is_not_skipped() {
    let rig = Rig::new();
    let document = json!({"applies_to": {"everything": true}, "rules": []});
    let mut broken = policy("broken", &document);
    broken.compiled = Err("the list \"gone\" does not exist".to_owned());
    install(&rig, "dev", broken);
    let (status, answer) = rig.chat_json(&ask("hello")).await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(answer["error"]["code"], "guard_unavailable");
    assert!(rig.provider.seen().is_empty());
}

/// NeMo with `stream_first` and OpenAI's kit, which looks every hundred chunks: text left first and
/// was checked then.
#[tokio::test]
async fn nemo_and_openai_no_text_leaves_before_its_check() {
    let rig = guarded(&word(&["output"], "secret plan", &json!({"type": "block"})));
    let mut pieces: Vec<String> = (0..150).map(|at| format!("word{at} ")).collect();
    pieces.insert(30, "secret ".to_owned());
    pieces.insert(31, "plan ".to_owned());
    rig.provider.always(Answer {
        text: pieces,
        ..Answer::default()
    });
    let (_, text) = rig.chat_text(streamed(ask("go")).to_string()).await;
    assert!(
        !text.contains("secret") && !text.contains("word30"),
        "{text}"
    );
    assert!(text.contains("word29"), "{text}");
}

/// LiteLLM PR #38722 and LangChain4j #4316: with a guard, a stream was no stream any more: the whole
/// reply was kept back.
#[tokio::test]
async fn litellm_38722_langchain4j_4316_quarkus_979_a_guarded_stream_still_streams() {
    let rig = guarded(&mail(&["output"], &json!({"type": "redact"})));
    rig.provider.always(Answer {
        fault: Fault::StallAfter(4),
        ..said_in(&["One word. ", "Another word. ", "A third. ", "A fourth. "])
    });
    let response = rig.chat(streamed(ask("go")).to_string()).await;
    let mut body = response.into_body();
    let mut heard = String::new();
    while !said_by(&heard).starts_with("One word.") {
        let frame = tokio::time::timeout(Duration::from_secs(4), body.frame());
        let frame = frame.await.expect("words come while the model is silent");
        let data = frame.unwrap().unwrap().into_data().unwrap();
        heard.push_str(&String::from_utf8_lossy(&data));
    }
    assert_eq!(rig.provider.open_answers(), 1, "the model has not ended");
}

fn said_by(stream: &str) -> String {
    let chunks = events(stream);
    let chunks = chunks
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let words = chunks.map(|chunk| chunk["choices"][0]["delta"]["content"].clone());
    words
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// LiteLLM PR #38722: a block in a stream was an error in its midst; a client that retries errors
/// asks again and again.
#[tokio::test]
async fn litellm_38722_a_block_ends_a_stream_as_streams_end() {
    let rig = guarded(&word(&["output"], "plan", &json!({"type": "block"})));
    rig.provider.always(said_in(&["The ", "plan", " is"]));
    let (status, text) = rig.chat_text(streamed(ask("go")).to_string()).await;
    assert_eq!(status, 200);
    assert!(!text.contains("\"error\""), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

/// fullsend PR #168: whole text was caught three times of twelve, split text ten: here both the same.
#[tokio::test]
async fn fullsend_168_whole_and_cut_texts_are_found_alike() {
    let text = "Fine so far. Then a secret\u{200b} plan, written as ｓｅｃｒｅｔ ｐｌａｎ too.";
    let rig = guarded(&word(
        &["output"],
        "secret plan",
        &json!({"type": "redact"}),
    ));
    rig.provider.always(Answer::text(text));
    let (_, answer) = rig.chat_json(&ask("x")).await;
    let whole = answer["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        !whole.contains("secret") && !whole.contains('ｓ'),
        "{whole}"
    );
    let letters: Vec<String> = text.chars().map(String::from).collect();
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    rig.provider.always(said_in(&letters));
    assert_eq!(hear(&rig, ask("x")).await.text, whole);
}

/// NeMo #154, #831: a call waited on a judge for as long as that took.
#[tokio::test]
async fn nemo_154_a_judge_has_a_deadline() {
    let mut rules = judged("closed");
    rules[0]["deadline_ms"] = 50.into();
    let rig = guarded(&rules);
    rig.provider
        .when("Score how rude", Answer::faulty(Fault::StallBeforeHeaders));
    rig.provider.always(Answer::text("You are a fool."));
    let heard = hear(&rig, ask("who?")).await;
    assert_eq!(heard.finish.as_deref(), Some("content_filter"));
    let guard = records(&rig).1.unwrap();
    assert!(
        guard.output[0]["reason"]
            .as_str()
            .unwrap()
            .contains("50 ms"),
        "{guard:#?}"
    );
}

/// A tier that fails and counts as nothing found leaves no trace elsewhere; here it is written down,
/// and the rule has said what holds.
#[tokio::test]
async fn a_tier_that_fails_is_never_silent() {
    for (on_failure, finish) in [("open", "stop"), ("closed", "content_filter")] {
        let rig = guarded(&judged(on_failure));
        rig.provider
            .when("Score how rude", Answer::status(400, "{}"));
        rig.provider.always(Answer::text("Hello."));
        let heard = hear(&rig, ask("who?")).await;
        assert_eq!(heard.finish.as_deref(), Some(finish));
        let guard = records(&rig).1.expect("it is written down");
        let found: &Value = &guard.output[0];
        assert_eq!(found["rule_name"], "kind", "{found}");
    }
}
