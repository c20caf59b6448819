//! Copies of calls of plain prompts for a version that stands in the shadow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Digest;
use gateway::{
    Arm, CallStatus, Experiment, Prompt, PromptDocument, PromptVersion, Record, Target, Unit,
};
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::rig::Rig;

/// The prompt `greet`: version 1 is in production, version 2 stands in its shadow
/// for this share of the calls.
fn rig(share: f64) -> Rig {
    let rig = Rig::with(|provider| provider.retry.attempts = 1);
    let version = |text: &str| {
        let tool = json!({"type": "function", "function": {"name": "mail", "parameters": {"type": "object"}}});
        let value = json!({"messages": [{"role": "system", "content": text}], "tools": [tool]});
        let document = PromptDocument::parse(&value).unwrap_or_else(|it| panic!("{it:?}"));
        Arc::new(PromptVersion::new(
            Digest::of_json(&value).unwrap(),
            document,
        ))
    };
    let (served, shadow) = (version("served version"), version("shadow version"));
    let arm = |name: &str, number: i64, version: &PromptVersion, weight: f64| Arm {
        name: name.to_owned(),
        number,
        digest: version.digest,
        weight,
    };
    let experiment = Experiment {
        name: "careful".to_owned(),
        version: 1,
        unit: Unit::Request,
        key: [9; 32],
        arms: vec![arm("control", 1, &served, 1.0)],
        shadows: vec![arm("candidate", 2, &shadow, share)],
    };
    let target = Target::Prompt {
        name: "greet".to_owned(),
        label: "production".to_owned(),
    };
    let prompt = Prompt {
        versions: BTreeMap::from([(1, served), (2, shadow)]),
        labels: BTreeMap::from([("production".to_owned(), 1)]),
    };
    rig.set_project(|project| {
        project.prompts.insert("greet".to_owned(), Arc::new(prompt));
        project.experiments.insert(target, Arc::new(experiment));
    });
    rig.provider.when("served version", Answer::text("served"));
    rig.provider.when("shadow version", Answer::text("unseen"));
    rig
}

fn request(stream: bool) -> Value {
    json!({"model": "open/fake-large", "prompt_id": "greet", "stream": stream,
        "messages": [{"role": "user", "content": "Hi"}]})
}

/// The served call's record and its copy's.
fn both(records: &[Record]) -> (Record, Record) {
    assert_eq!(records.len(), 2, "{records:#?}");
    let is_copy = |it: &Record| it.arm.as_ref().is_some_and(|arm| arm.shadow);
    let copy = records.iter().find(|it| is_copy(it)).unwrap();
    let served = records.iter().find(|it| !is_copy(it)).unwrap();
    (served.clone(), copy.clone())
}

async fn recorded(rig: &Rig, count: usize) -> Vec<Record> {
    rig.wait_for(|rig| rig.records().len() >= count).await;
    std::mem::take(&mut *rig.sink.records.lock().unwrap())
}

#[tokio::test]
async fn the_candidates_answer_is_recorded_and_never_returned() {
    let rig = rig(1.0);
    for stream in [false, true] {
        for answer in [
            Answer::text("unseen"),
            // Tools of a plain prompt are the caller's to run; a copy has no caller.
            Answer {
                tools: vec![("mail".to_owned(), json!({"to": "unseen"}))],
                ..Answer::default()
            },
        ] {
            let calls_tools = !answer.tools.is_empty();
            rig.provider.when("shadow version", answer);
            let (status, text) = rig.chat_text(request(stream).to_string()).await;
            assert_eq!(status, 200);
            assert!(
                text.contains("served") && !text.contains("unseen"),
                "{text}"
            );
            let (served, copy) = both(&recorded(&rig, 2).await);
            assert_eq!(copy.status, CallStatus::Ok);
            assert_eq!(copy.parent, Some(served.span_id));
            assert_eq!(copy.trace_id, served.trace_id);
            assert_eq!(copy.prompt.unwrap().version, 2);
            assert_eq!(served.prompt.unwrap().version, 1);
            assert_eq!(copy.input[0]["content"], "shadow version");
            assert!(copy.cost.is_some(), "what a copy costs is counted");
            let (served, copied) = (served.arm.unwrap(), copy.arm.unwrap());
            assert_eq!((served.arm.as_str(), served.shadow), ("control", false));
            assert_eq!((copied.arm.as_str(), copied.shadow), ("candidate", true));
            let said = copy.output[0].to_string();
            assert!(said.contains("unseen"), "{said}");
            assert_eq!(said.contains("tool_calls"), calls_tools);
        }
    }
    let seen = rig.provider.seen();
    assert_eq!(seen.len(), 8, "nothing but the calls and their copies");
    assert!(seen.iter().all(|it| it.path == "/v1/chat/completions"));
}

#[tokio::test]
async fn what_happens_to_a_copy_never_reaches_the_caller() {
    let rig = rig(1.0);
    for fault in [
        Fault::Status(500, vec![], "{}".to_owned()),
        Fault::Status(401, vec![], "unseen".to_owned()),
        Fault::DieAfter(2),
        Fault::GarbageAfter(1),
        Fault::ErrorAfter(1),
    ] {
        rig.provider
            .when("shadow version", Answer::faulty(fault.clone()));
        let (status, text) = rig.chat_text(request(true).to_string()).await;
        assert_eq!(status, 200, "{fault:?}");
        assert!(
            text.contains("served") && text.ends_with("[DONE]\n\n") && !text.contains("error"),
            "{fault:?}: {text}"
        );
        let (served, copy) = both(&recorded(&rig, 2).await);
        assert_eq!(
            (served.status, copy.status),
            (CallStatus::Ok, CallStatus::Error),
            "{fault:?}"
        );
    }
    // A copy of a version that is not there any more.
    rig.set_project(|project| {
        let mut prompt = (*project.prompts["greet"]).clone();
        prompt.versions.remove(&2);
        project.prompts.insert("greet".to_owned(), Arc::new(prompt));
    });
    assert_eq!(rig.chat_json(&request(false)).await.0, 200);
    let (_, copy) = both(&recorded(&rig, 2).await);
    assert_eq!(copy.error.unwrap().kind, "prompt_not_found");

    // A caller that goes away takes nothing from the copy.
    let rig = rig_of_slow_served();
    let asked = rig.chat(request(true).to_string());
    let seen = rig.wait_for(|rig| rig.provider.seen().len() == 2);
    tokio::select! {
        _ = asked => panic!("the served model says nothing"),
        () = seen => {}
    }
    let (served, copy) = both(&recorded(&rig, 2).await);
    assert_eq!(
        (served.status, copy.status),
        (CallStatus::Cancelled, CallStatus::Ok)
    );
}

fn rig_of_slow_served() -> Rig {
    let rig = rig(1.0);
    rig.provider
        .when("served version", Answer::faulty(Fault::StallBeforeHeaders));
    rig
}

#[tokio::test]
async fn copies_are_bounded_and_end_with_the_gateway() {
    let rig = rig(1.0);
    rig.provider
        .when("shadow version", Answer::faulty(Fault::StallBeforeHeaders));
    for _ in 0..40 {
        assert_eq!(rig.chat_json(&request(false)).await.0, 200);
    }
    rig.wait_for(|rig| rig.provider.open_answers() == 16).await;
    assert_eq!(
        rig.records().len(),
        40,
        "no more than 16 copies run, and none has ended"
    );
    tokio::time::timeout(Duration::from_secs(20), rig.gateway.close())
        .await
        .unwrap();
    rig.provider_is_idle().await;
    let records = rig.records();
    let cancelled = records
        .iter()
        .filter(|it| it.status == CallStatus::Cancelled);
    assert_eq!((records.len(), cancelled.count()), (56, 16));
}

#[tokio::test]
async fn only_calls_that_go_by_the_label_are_copied() {
    let check = |share: f64, id: &'static str, copied: bool| async move {
        let rig = rig(share);
        let mut body = request(false);
        body["prompt_id"] = id.into();
        assert_eq!(rig.chat_json(&body).await.0, 200, "{id}");
        rig.gateway.close().await;
        assert_eq!(rig.records().len(), 1 + usize::from(copied), "{id} {share}");
    };
    check(1.0, "greet", true).await;
    check(1.0, "greet@production", true).await;
    check(1.0, "greet@1", false).await;
    check(0.0, "greet", false).await;
}
