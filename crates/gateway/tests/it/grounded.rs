//! Answers that are held to what the model was shown: sentence by sentence, by a judge that names
//! the passage, whole and while they stream.

use gateway::Record;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::apps::{inline, release, text_of};
use crate::guards::{ask, guarded, hear, install, policy, records, said_in};
use crate::rig::Rig;

const JUDGE: &str = "You compare one sentence";

fn rules(action: &Value, on_failure: &str, sources: &Value) -> Value {
    json!([{"name": "borne out", "at": ["output"], "on_failure": on_failure, "deadline_ms": 3000,
        "check": {"type": "grounded", "model": "open/judge", "sources": sources},
        "action": action}])
}

fn verdict(verdict: &str, passage: &Value) -> Answer {
    Answer::text(json!({"verdict": verdict, "passage": passage, "sure": 0.9}).to_string())
}

/// A question whose answer a tool has told.
fn told(result: &str) -> Value {
    let mut request = ask("When does it open, and what does it cost?");
    let list = request["messages"].as_array_mut().unwrap();
    list.push(json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}));
    list.push(json!({"role": "tool", "tool_call_id": "c", "content": result}));
    request
}

/// What judges were shown, in the order in which they were asked.
fn shown(rig: &Rig) -> Vec<Value> {
    let asked = rig.provider.seen().into_iter().map(|seen| seen.json());
    let asked = asked.filter(|it| it["messages"][0]["content"].as_str().is_some_and(is_judge));
    asked
        .map(|it| serde_json::from_str(it["messages"][1]["content"].as_str().unwrap()).unwrap())
        .collect()
}

fn is_judge(text: &str) -> bool {
    text.starts_with(JUDGE)
}

/// The judge's verdict on a sentence that begins so.
fn when_asked_about(rig: &Rig, sentence: &str, answer: Answer) {
    rig.provider
        .when(format!(r#"\"sentence\":\"{sentence}"#), answer);
}

fn finds(record: &Record) -> Vec<&Value> {
    record.output.iter().collect()
}

const OPENS: &str = "The museum opens at nine. Entry costs 300 yen.";

#[tokio::test]
async fn what_a_passage_contradicts_ends_the_answer_and_the_find_names_the_passage() {
    let block = json!({"type": "block"});
    for streams in [true, false] {
        let rig = guarded(&rules(&block, "closed", &json!([])));
        rig.provider.always(said_in(&[
            "Hello there! The mus",
            "eum opens at nine. Entry co",
            "sts 500 yen. It has a garden. Anything else?",
        ]));
        when_asked_about(
            &rig,
            "Hello there! The museum",
            verdict("entailed", &json!(1)),
        );
        when_asked_about(&rig, "The museum", verdict("entailed", &json!(1)));
        when_asked_about(&rig, "Entry", verdict("contradicted", &json!(1)));
        when_asked_about(&rig, "It has", verdict("not_mentioned", &json!(null)));
        let text = match streams {
            true => {
                let heard = hear(&rig, told(OPENS)).await;
                assert_eq!(heard.finish.as_deref(), Some("content_filter"));
                heard.text
            }
            false => {
                let (_, answer) = rig.chat_json(&told(OPENS)).await;
                text_of(&answer).to_owned()
            }
        };
        assert_eq!(text, "Hello there! The museum opens at nine.", "{streams}");
        let shown = shown(&rig);
        let passages = json!([{"number": 1, "text": OPENS}]);
        assert!(
            shown.iter().all(|it| it["passages"] == passages),
            "{shown:#?}"
        );
        let sentence = |it: &Value| it["sentence"].as_str().unwrap().to_owned();
        let sentences: Vec<String> = shown.iter().map(sentence).collect();
        assert!(
            !sentences.iter().any(|it| it.contains("Anything")),
            "{sentences:?}"
        );
        let guard = records(&rig).1.unwrap();
        let find = finds(&guard)[0];
        assert_eq!(find["grounds"]["relation"], "contradicted");
        let cited = json!({"passage": 1, "field": "messages[2].content", "start": 0, "end": 46});
        assert_eq!(find["grounds"]["cited"], cited);
        assert!(
            find["reason"]
                .as_str()
                .unwrap()
                .contains("contradicted by passage 1")
        );
        let recorded = json!(guard.output).to_string();
        assert!(!recorded.contains("yen"), "places, never texts: {recorded}");
    }
}

#[tokio::test]
async fn japanese_is_held_sentence_by_sentence_too() {
    let rig = guarded(&rules(&json!({"type": "flag"}), "open", &json!([])));
    let said = "こんにちは！ご質問ありがとうございます。美術館は午前九時に開館します。入館料は五百円です。\
                庭園には池があります。ほかに知りたいことはありますか？";
    rig.provider.always(Answer::text(said));
    rig.provider.when(JUDGE, verdict("entailed", &json!(1)));
    when_asked_about(&rig, "庭園", verdict("not_mentioned", &json!(null)));
    when_asked_about(&rig, "入館料は五百円", verdict("contradicted", &json!(1)));
    let heard = hear(&rig, told("開館は午前九時、入館料は三百円。")).await;
    assert_eq!(heard.text, said, "what only flags changes nothing");
    let shown = shown(&rig);
    let sentences: Vec<&str> = shown
        .iter()
        .filter_map(|it| it["sentence"].as_str())
        .collect();
    assert_eq!(
        sentences,
        [
            "美術館は午前九時に開館します。",
            "入館料は五百円です。庭園には池があります。"
        ]
    );
    let guard = records(&rig).1.unwrap();
    let finds = finds(&guard);
    assert_eq!(finds.len(), 1, "{finds:#?}");
    assert_eq!(finds[0]["grounds"]["relation"], "contradicted");
    let place = finds[0]["start"].as_u64().unwrap();
    assert_eq!(
        usize::try_from(place).unwrap(),
        said.find("入館料").unwrap()
    );
}

#[tokio::test]
async fn a_judge_that_is_down_or_talks_nonsense_is_recorded_and_the_rule_decides() {
    for nonsense in [
        Answer::text("It is fine."),
        verdict("perhaps", &json!(1)),
        verdict("entailed", &json!(7)),
        verdict("contradicted", &json!(null)),
        Answer::faulty(Fault::Status(400, Vec::new(), "{}".to_owned())),
    ] {
        for (on_failure, kept) in [("open", "The museum opens at ten."), ("closed", "")] {
            let rig = guarded(&rules(&json!({"type": "block"}), on_failure, &json!([])));
            rig.provider.when(JUDGE, nonsense.clone());
            rig.provider
                .always(Answer::text("The museum opens at ten."));
            let heard = hear(&rig, told(OPENS)).await;
            assert_eq!(
                (heard.text.as_str(), heard.done),
                (kept, true),
                "{nonsense:?}"
            );
            let (_, answer) = rig.chat_json(&told(OPENS)).await;
            assert_eq!(text_of(&answer), kept, "{nonsense:?}");
            let guard = records(&rig).1.unwrap();
            let find = finds(&guard)[0];
            assert!(
                find["reason"]
                    .as_str()
                    .unwrap()
                    .contains("could not be checked")
            );
            assert_eq!(find["grounds"], Value::Null);
        }
    }
}

#[tokio::test]
async fn with_nothing_to_hold_it_to_the_rule_decides_once_and_nobody_is_asked() {
    let said = "The museum opens at ten. It costs nothing on Sundays.";
    for (on_failure, kept) in [("open", said), ("closed", "")] {
        let rig = guarded(&rules(&json!({"type": "block"}), on_failure, &json!([])));
        rig.provider.always(Answer::text(said));
        let heard = hear(&rig, ask("When does it open?")).await;
        assert_eq!(heard.text, kept, "{on_failure}");
        assert!(shown(&rig).is_empty());
        let guard = records(&rig).1.unwrap();
        let finds = finds(&guard);
        assert_eq!(finds.len(), 1, "{finds:#?}");
        let reason = finds[0]["reason"].as_str().unwrap();
        assert!(
            reason.contains("no retrieved text, no results of tools"),
            "{reason}"
        );

        rig.provider
            .always(Answer::text("Hello! How can I help you?"));
        let heard = hear(&rig, ask("Hi")).await;
        assert_eq!(
            heard.text, "Hello! How can I help you?",
            "it claims nothing"
        );
    }
}

/// Who puts the passages into the prompt says so in the rule.
#[tokio::test]
async fn a_rule_says_whose_texts_count() {
    let sources = json!(["instructions", "input"]);
    let rig = guarded(&rules(&json!({"type": "flag"}), "open", &sources));
    rig.provider.when(JUDGE, verdict("entailed", &json!(2)));
    rig.provider
        .always(Answer::text("The museum opens at nine."));
    let mut request = told("From a tool: it opens at eight.");
    let list = request["messages"].as_array_mut().unwrap();
    list.insert(
        0,
        json!({"role": "system", "content": format!("Passages: {OPENS}")}),
    );
    rig.chat_json(&request).await;
    let shown = shown(&rig).remove(0);
    let passages = shown["passages"].as_array().unwrap();
    let texts: Vec<&str> = passages
        .iter()
        .filter_map(|it| it["text"].as_str())
        .collect();
    let question = "When does it open, and what does it cost?";
    assert_eq!(texts, [format!("Passages: {OPENS}").as_str(), question]);
}

#[tokio::test]
async fn of_a_long_context_a_judge_is_shown_the_passages_that_matter() {
    let rig = guarded(&rules(&json!({"type": "flag"}), "open", &json!([])));
    let filler = "Nothing at all was decided by the committee on that day. ".repeat(1_500);
    let long = format!("{filler}Parking costs 300 yen per hour for visitors. {filler}");
    rig.provider
        .always(Answer::text("Visitors pay 500 yen per hour for parking."));
    rig.provider
        .when(JUDGE, verdict("not_mentioned", &json!(null)));
    let heard = hear(&rig, told(&long)).await;
    assert!(heard.done);
    let shown = shown(&rig).remove(0);
    let passages = shown["passages"].as_array().unwrap();
    assert!(shown.to_string().len() < 12_000 && passages.len() > 5);
    let parking = passages
        .iter()
        .find(|it| it["text"].as_str().unwrap().contains("Parking"));
    assert!(
        parking.unwrap()["number"].as_u64().unwrap() > 100,
        "numbers are of the whole"
    );
    let guard = records(&rig).1.unwrap();
    let reason = finds(&guard)[0]["reason"].as_str().unwrap().to_owned();
    let read = format!("none of {} passages", passages.len());
    assert!(reason.contains(&read), "{reason}");
}

#[tokio::test]
async fn what_a_model_thinks_is_not_held_to_anything() {
    let rig = guarded(&rules(&json!({"type": "block"}), "closed", &json!([])));
    let message = json!({"role": "assistant", "content": "Hello! How can I help you?",
        "reasoning_content": "The user wants the opening hours. The museum opens at ten."});
    rig.provider.always(Answer::json(&json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "fake-large",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    })));
    let (_, answer) = rig.chat_json(&ask("Hi")).await;
    assert_eq!(answer["choices"][0]["message"], message);
    assert!(records(&rig).1.is_none());
}

/// Values that were taken out are placeholders in what a judge reads, on both sides.
#[tokio::test]
async fn evidence_is_what_the_model_was_shown() {
    let mut all = rules(&json!({"type": "flag"}), "open", &json!([]));
    all.as_array_mut()
        .unwrap()
        .push(json!({"name": "mail", "at": ["tool_result"],
        "check": {"type": "pii", "kinds": ["email"]}, "action": {"type": "redact"}}));
    let rig = guarded(&all);
    rig.provider.when(JUDGE, verdict("entailed", &json!(1)));
    rig.provider
        .always(Answer::text("The curator can be reached at <EMAIL_1>."));
    rig.chat_json(&told("Write to the curator: ann@example.com"))
        .await;
    let shown = shown(&rig).remove(0);
    assert_eq!(
        shown["passages"],
        json!([{"number": 1, "text": "Write to the curator: <EMAIL_1>"}])
    );
}

/// In an app answers are held to what its tools and steps told, wherever that was.
#[tokio::test]
async fn an_apps_answer_is_held_to_what_its_steps_retrieved() {
    let rig = Rig::new();
    let document = json!({"applies_to": {"apps": ["helper"]},
        "rules": rules(&json!({"type": "block"}), "closed", &json!([]))});
    install(&rig, "dev", policy("held", &document));
    let step = json!({
        "inputs": {"type": "object", "properties":
            {"question": {"type": "string"}, "found": {"type": "string"}}},
        "steps": [
            {"id": "passages", "type": "guard", "guard": "guard:safe@production",
                "on": "inputs.found", "point": "retrieved"},
            {"id": "answer", "type": "prompt", "model": "open/fake-large",
                "prompt": inline("{{ q }} Use this: {{ found }}"),
                "variables": {"q": "inputs.question", "found": "steps.passages.text"}},
        ],
        "output": {"value": "steps.answer.text + ' Entry costs 500 yen.'"},
    });
    let safe = json!({"rules": [{"name": "word", "at": ["retrieved"],
        "check": {"type": "words", "list": ["bomb"]}, "action": {"type": "block"}}]});
    let mut release = std::sync::Arc::into_inner(release("helper", 1, &step)).unwrap();
    let safe = std::sync::Arc::new(policy("safe", &safe));
    release
        .guards
        .insert("guard:safe@production".to_owned(), safe);
    rig.put_app(vec![std::sync::Arc::new(release)]);
    rig.provider
        .always(Answer::text("The museum opens at nine."));
    rig.provider.when(JUDGE, verdict("entailed", &json!(1)));
    when_asked_about(&rig, "Entry", verdict("contradicted", &json!(1)));
    let request = json!({"model": "helper", "messages": [{"role": "user", "content": "When?"}],
        "metadata": {"inputs": {"question": "When?", "found": OPENS}}});
    let (status, answer) = rig.chat_json(&request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(text_of(&answer), "The museum opens at nine.", "{answer}");
    for one in shown(&rig) {
        assert_eq!(one["passages"], json!([{"number": 1, "text": OPENS}]));
    }
    let (_, guard) = records_of_guard(&rig);
    let cited = &guard.output[0]["grounds"]["cited"];
    assert_eq!(cited["field"], "steps.passages");
}

fn records_of_guard(rig: &Rig) -> (usize, Record) {
    let records = rig.sink.records.lock().unwrap().clone();
    let guards = records
        .into_iter()
        .filter(|it| it.kind == gateway::RecordKind::Guard && it.request_model == "held");
    let all: Vec<Record> = guards.collect();
    (all.len(), all.last().unwrap().clone())
}
