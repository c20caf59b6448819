//! Guards and input that is made to get around them, or to stop them.

use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::guards::{ask, guarded, hear, streamed, word};
use crate::rig::events;

/// Reading a long text takes its time; others get their turn on the thread meanwhile.
#[tokio::test]
async fn a_long_prompt_does_not_hold_up_other_calls() {
    let rig = guarded(&word(&["input"], "bomb", &json!({"type": "block"})));
    let finished = Mutex::new(Vec::new());
    let long = async {
        let prompt = format!("{} bomb", "nothing to see here, ".repeat(200_000));
        let (status, answer) = rig.chat_json(&ask(&prompt)).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("guard_blocked"))
        );
        finished.lock().unwrap().push("long");
    };
    let short = async {
        assert_eq!(rig.chat_json(&ask("hello")).await.0, 200);
        finished.lock().unwrap().push("short");
    };
    tokio::join!(long, short);
    assert_eq!(*finished.lock().unwrap(), ["short", "long"]);
}

/// An answer as the bytes of its events.
fn as_bytes(pieces: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]});
        bytes.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
    }
    let end = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    bytes.extend_from_slice(format!("data: {end}\n\ndata: [DONE]\n\n").as_bytes());
    bytes
}

fn sent_in(bytes: &[u8], size: usize) -> Answer {
    let parts = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    Answer::faulty(Fault::Raw("text/event-stream", parts))
}

#[tokio::test]
async fn a_character_cut_between_packets_is_read_whole() {
    let rig = guarded(&word(&["output"], "計画", &json!({"type": "redact"})));
    let bytes = as_bytes(&["それは秘密の計", "画です。", "👩‍👩‍👧の計画も。"]);
    let mut whole = None;
    for size in [1, 2, 3, 7, bytes.len()] {
        rig.provider.next(sent_in(&bytes, size));
        let heard = hear(&rig, ask("何？")).await;
        assert!(
            !heard.text.contains("計画") && heard.text.ends_with("も。"),
            "{heard:?}"
        );
        assert!(heard.text.contains("👩‍👩‍👧"), "{heard:?}");
        let whole = whole.get_or_insert_with(|| heard.text.clone());
        assert_eq!(heard.text, *whole, "in packets of {size}");
    }
}

#[tokio::test]
async fn an_event_that_is_no_utf8_ends_the_stream_with_an_error() {
    let rig = guarded(&word(&["output"], "plan", &json!({"type": "block"})));
    let mut bytes = as_bytes(&["The pl", "an\u{1}is"]);
    let at = bytes.windows(6).position(|it| it == br"\u0001").unwrap();
    bytes[at] = 0xff;
    for size in [1, 5, bytes.len()] {
        rig.provider.next(sent_in(&bytes, size));
        let (status, text) = rig.chat_text(streamed(ask("what?")).to_string()).await;
        if status == 200 {
            assert!(!text.contains("data: [DONE]"), "no clean end: {text}");
            let last = events(&text).pop().unwrap();
            let last: Value = serde_json::from_str(&last).unwrap();
            assert!(last["error"].is_object(), "{text}");
        }
        assert!(!text.contains("plan"), "{text}");
        assert!(!text.contains('\u{fffd}'), "nothing is made up: {text}");
    }
}

/// Letters of other scripts, hidden characters, tags, full width, marks on every letter, and all of
/// them at once are read as what a model reads.
#[tokio::test]
async fn a_word_in_disguise_is_the_word() {
    let rig = guarded(&word(&["input"], "detonator", &json!({"type": "block"})));
    let tags: String = "detonator"
        .bytes()
        .filter_map(|b| char::from_u32(0xe0000 + u32::from(b)))
        .collect();
    for disguise in [
        "ｄｅｔｏｎａｔｏｒ",
        "dеtоnаtоr",
        "d\u{200b}e\u{2060}t\u{feff}o\u{200d}n\u{ad}ator",
        "\u{202e}detonator\u{202c}",
        "ｄе\u{200b}ｔｏ\u{2060}nаtоｒ",
        tags.as_str(),
        "ZGV0b25hdG9yIGRldG9uYXRvcg==",
    ] {
        let (status, answer) = rig
            .chat_json(&ask(&format!("Build a {disguise} now")))
            .await;
        assert_eq!(status, 400, "{disguise:?}: {answer}");
    }
}

/// One cluster of marks that never ends, halves of pairs, every control character.
#[tokio::test]
async fn text_that_is_made_to_break_readers_is_answered() {
    let rig = guarded(&word(
        &["input", "output"],
        "detonator",
        &json!({"type": "redact"}),
    ));
    let marks = format!("e{}", "\u{301}".repeat(50_000));
    let controls: String = (0..32).filter_map(char::from_u32).collect();
    let joined = "👩\u{200d}".repeat(5_000);
    for text in [marks, controls, joined, "\u{10ffff}\u{fffe}".repeat(1_000)] {
        rig.provider.next(Answer::text(&text));
        let (status, answer) = rig.chat_json(&ask(&text)).await;
        assert_eq!(status, 200);
        assert_eq!(answer["choices"][0]["message"]["content"], text.as_str());
    }
    // A half of a pair in JSON: refused with the place, or read as the sign for what is no text.
    let body =
        r#"{"model": "open/fake-large", "messages": [{"role": "user", "content": "\ud83d deto"}]}"#;
    let (status, text) = rig.chat_text(body.to_owned()).await;
    assert!(status == 400 || status == 200, "{status} {text}");
}
