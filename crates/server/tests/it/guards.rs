//! Guard policies over HTTP and the command line: kept, refused with their places, tried out.

use serde_json::{Value, json};

use crate::harness::{Client, Place, Reply, encode, on_both_databases};

on_both_databases!(policies_are_kept_and_refused_with_their_places);

fn save(client: &Client, name: &str, content: &Value) -> Reply {
    let path = format!("/api/v1/catalog/guard/{}/versions", encode(name));
    client.post(&path, &json!({"content": content}))
}

/// A rule with this check and action at the input.
fn rule(name: &str, check: Value, action: Value) -> Value {
    json!({"name": name, "at": ["input"], "check": check, "action": action})
}

fn policies_are_kept_and_refused_with_their_places(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let injection = json!({"type": "injection", "threshold": 0.3});
    let policy = json!({"rules": [rule("no-attacks", injection, json!({"type": "block"}))]});
    let saved = save(&live, "support/input", &policy);
    assert_eq!(saved.status, 201, "{saved:?}");

    // Defaults that are spelled out are the same version, and numbers stay as they were written.
    let mut spelled = policy.clone();
    spelled["description"] = json!("");
    spelled["applies_to"] = json!({"everything": false, "apps": []});
    spelled["rules"][0]["shadow"] = json!(false);
    spelled["rules"][0]["on_failure"] = json!("open");
    let again = save(&live, "support/input", &spelled);
    assert_eq!(
        again.json()["version"],
        saved.json()["version"],
        "{again:?}"
    );
    let kept = live.get("/api/v1/catalog/guard/support%2Finput/versions/latest");
    assert_eq!(kept.json()["content"], policy);

    let refused = |document: Value, at: &str| {
        let reply = save(&live, "bad", &document);
        assert_eq!(
            reply.refusal(),
            (400, "invalid_document".to_owned()),
            "{document}"
        );
        assert_eq!(reply.json()["error"]["at"], at, "{reply:?}");
    };
    let flag = || json!({"type": "flag"});
    let good = || rule("good", json!({"type": "empty"}), flag());
    let unknown_check = rule("b", json!({"type": "feelings"}), flag());
    refused(json!({"rules": [good(), unknown_check]}), "/rules/1/check");
    let unknown_field = rule("b", json!({"type": "empty", "much": true}), flag());
    refused(json!({"rules": [unknown_field]}), "/rules/0/check");
    let unknown_action = rule("b", json!({"type": "empty"}), json!({"type": "explode"}));
    refused(
        json!({"rules": [good(), good(), unknown_action]}),
        "/rules/2/action",
    );
    let mut everywhere = good();
    everywhere["at"] = json!(["everywhere"]);
    refused(json!({"rules": [everywhere]}), "/rules/0");
}

#[test]
fn the_digest_of_a_policy_does_not_change_with_releases() {
    let policy = json!({
        "description": "what stays",
        "applies_to": {"apps": ["support"], "models": ["openai/*"]},
        "rules": [
            {"name": "pii", "at": ["input", "output"], "check": {"type": "pii", "kinds": ["email", "jp_my_number"]},
             "action": {"type": "redact", "reversible": true}, "on_failure": "closed", "deadline_ms": 50},
            {"name": "attack", "at": ["retrieved"], "check": {"type": "injection", "threshold": 0.7},
             "action": {"type": "block"}, "shadow": true},
            {"name": "leak", "at": ["output"], "check": {"type": "prompt_leak"}, "action": {"type": "flag"}},
        ],
    });
    let normal = (server::guards::kind().normal)(&policy);
    assert_eq!(
        normal, policy,
        "the normal form leaves defaults out and keeps numbers"
    );
    let digest = base::Digest::of_json(&normal).unwrap().to_string();
    insta::assert_snapshot!(digest, @"sha256:eb10546ecfe94427a0c6415549858241bf8205fd7135c94daaa7081e8dbb6c89");
}

#[test]
fn every_starting_policy_holds_as_it_is() {
    use server::guards::{compile, library};
    use server::ui::Lang;

    let [english, japanese] = [Lang::En, Lang::Ja].map(library::templates);
    let ids = |list: &[library::Template]| -> Vec<String> {
        list.iter().map(|template| template.id.clone()).collect()
    };
    assert_eq!(ids(english), ids(japanese));
    assert_eq!(english.len(), 6);
    for template in english.iter().chain(japanese) {
        let problems = compile(&template.document).map(drop);
        assert_eq!(problems, Ok(()), "{}", template.id);
    }
}
