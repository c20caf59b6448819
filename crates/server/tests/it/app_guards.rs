//! Guards of apps over HTTP: pinned by a release, tried in a draft, taken back by a rollback.

use serde_json::{Value, json};

use crate::apps::{cut, save_app};
use crate::harness::{Client, Place, encode, on_both_databases};

on_both_databases!(a_release_pins_its_guards_and_a_rollback_takes_them_back);

fn save_policy(client: &Client, word: &str) {
    let content = json!({"rules": [{"name": "word", "at": ["input"],
        "check": {"type": "words", "list": [word]}, "action": {"type": "block"}}]});
    let path = format!("/api/v1/catalog/guard/{}/versions", encode("house/rules"));
    let saved = client.post(&path, &json!({"content": content}));
    assert_eq!(saved.status, 201, "{saved:?}");
    let to = json!({"version": saved.json()["version"]});
    let path = "/api/v1/catalog/guard/house%2Frules/pointers/production";
    let moved = client.put(path, &to);
    assert!([200, 202].contains(&moved.status), "{moved:?}");
}

fn release(client: &Client, number: u64) {
    let path = "/api/v1/catalog/release/helper/pointers/dev";
    let moved = client.put(path, &json!({"version": number}));
    assert_eq!(moved.status, 200, "{moved:?}");
}

fn ask(client: &Client, text: &str) -> (u16, Value) {
    let call = json!({"model": "helper", "messages": [{"role": "user", "content": text}]});
    let reply = client.post("/v1/chat/completions", &call);
    (reply.status, reply.json())
}

fn a_release_pins_its_guards_and_a_rollback_takes_them_back(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    save_policy(&live, "plan");
    let document = json!({
        "guards": ["guard:house/rules"],
        "steps": [
            {"id": "gate", "type": "guard", "guard": "guard:house/rules@production", "on": "inputs.question", "on_block": "continue"},
            {"id": "say", "type": "prompt", "model": "fake/tiny", "when": "steps.gate.decision == 'passed'",
                "prompt": {"messages": [{"role": "system", "content": "Be brief."}]}},
        ],
        "output": {"value": "steps.gate.decision"},
    });
    save_app(&live, "helper", &document);
    let first = cut(&live, "helper");
    release(&live, 1);
    assert_eq!(ask(&live, "a plan").0, 400, "{first}");
    let (status, answer) = ask(&live, "a secret");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], "passed");

    // The label moves; the release does not, until another is cut.
    save_policy(&live, "secret");
    assert_eq!(ask(&live, "a plan").0, 400);
    assert_eq!(ask(&live, "a secret").0, 200);
    cut(&live, "helper");
    release(&live, 2);
    assert_eq!(ask(&live, "a plan").0, 200);
    assert_eq!(ask(&live, "a secret").0, 400);
    release(&live, 1);
    assert_eq!(ask(&live, "a plan").0, 400);
    assert_eq!(ask(&live, "a secret").0, 200);

    // A draft is tried with what its references point to now.
    let tried = |text: &str| {
        let body = json!({"content": document, "inputs": {"question": text}});
        let reply = live.post("/api/v1/apps/try", &body);
        (reply.status, reply.text())
    };
    let (status, said) = tried("a secret");
    assert!(
        status == 200 && said.contains("refused by the rule"),
        "{status} {said}"
    );
    let (status, said) = tried("a plan");
    assert!(status == 200 && said.contains("passed"), "{status} {said}");
    let mut lost = document.clone();
    lost["guards"] = json!(["guard:nowhere"]);
    let body = json!({"content": lost, "inputs": {"question": "x"}});
    let reply = live.post("/api/v1/apps/try", &body);
    assert_eq!(reply.json()["error"]["at"], "/guards/0", "{reply:?}");
}
