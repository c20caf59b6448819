//! The audit log over HTTP and on the command line: every change is in it, and
//! a log that somebody changed is found out.

use serde_json::{Value, json};

use crate::harness::{Client, Place, Reply, on_both_databases};

on_both_databases!(
    every_change_writes_a_line,
    a_line_says_who_did_what_and_by_which_request,
    a_changed_log_is_found_out,
);

fn rows(client: &Client, installation: bool) -> i64 {
    let path = format!("/api/v1/audit/verify?installation={installation}");
    let found = client.get(&path).json();
    assert_eq!(found["ok"], true, "{found}");
    found["rows"].as_i64().unwrap()
}

fn every_change_writes_a_line(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    let person = place.add_person("default", "viewer");
    let admin = live.browser_of(&place.add_person("default", "admin"));
    let lines = || (rows(&live, false), rows(&live, true));
    let count = std::cell::Cell::new(lines());
    let changes = |what: &str, reply: Reply| -> Value {
        assert!(
            [200, 201, 204, 303].contains(&reply.status),
            "{what}: {reply:?}"
        );
        let now = lines();
        assert!(
            now > count.get() && now.0 >= count.get().0 && now.1 >= count.get().1,
            "{what}: no line"
        );
        count.set(now);
        serde_json::from_slice(&reply.body).unwrap_or_default()
    };
    let content = |text: &str| json!({"messages": [{"role": "system", "content": text}]});
    for text in ["one", "two"] {
        let body = json!({"name": "geo", "content": content(text)});
        changes("save", live.post("/api/v1/prompts", &body));
    }
    let label = "/api/v1/prompts/geo/labels/production";
    changes("move", live.put(label, &json!({"version": 1})));
    changes("move", live.put(label, &json!({"version": 2})));
    let rollback = "/api/v1/catalog/prompt/geo/pointers/production/rollback";
    let back = changes("rollback", live.post(rollback, &json!({})));
    let id = back["quarantine"]["id"].as_str().unwrap();
    changes(
        "lift",
        live.post(&format!("/api/v1/quarantines/{id}/lift"), &json!({})),
    );
    changes(
        "environment",
        live.post("/api/v1/environments", &json!({"name": "canary"})),
    );
    let order = json!({"names": ["canary", "dev", "staging", "prod"]});
    changes("order", live.put("/api/v1/environments", &order));
    let rules = json!({"rules": {"approvals": 1, "gates": [{"name": "eval"}]}});
    changes(
        "protect",
        live.put("/api/v1/protections/production", &rules),
    );
    let wanted = json!({"kind": "prompt", "name": "geo", "label": "production", "version": 2});
    let asked = changes("propose", live.post("/api/v1/proposals", &wanted));
    let proposal = format!(
        "/api/v1/proposals/{}",
        asked["proposal"]["id"].as_str().unwrap()
    );
    changes(
        "approve",
        admin.post(&format!("{proposal}/approve"), &json!({})),
    );
    let evidence = json!({"kind": "prompt", "name": "geo", "digest": asked["proposal"]["digest"], "gate": "eval", "outcome": "fail"});
    changes("evidence", live.post("/api/v1/evidence", &evidence));
    changes(
        "withdraw",
        live.post(&format!("{proposal}/withdraw"), &json!({})),
    );

    let key = json!({"name": "app", "environment": "dev"});
    let key = changes("key", live.post("/api/v1/keys", &key));
    changes(
        "revoke",
        live.delete(&format!("/api/v1/keys/{}", key["id"].as_str().unwrap())),
    );
    let provider =
        json!({"name": "second", "protocol": "openai", "base_url": "https://api.example.com/v1"});
    let provider = changes("provider", live.post("/api/v1/providers", &provider));
    changes("test", live.post("/api/v1/providers/fake/test", &json!({})));
    let id = provider["id"].as_str().unwrap_or("second").to_owned();
    changes("remove", live.delete(&format!("/api/v1/providers/{id}")));
    let invite = json!({"email": "new@example.test", "role": "viewer"});
    let invite = changes("invite", live.post("/api/v1/invites", &invite));
    let id = invite["invite"]["id"].as_str().unwrap();
    changes("uninvite", live.delete(&format!("/api/v1/invites/{id}")));
    let member = format!("/api/v1/members/{}", person.id);
    changes("role", live.put(&member, &json!({"role": "editor"})));
    changes("leave", live.delete(&member));
    changes("sign out", admin.form("/sign-out", &[]));

    // No address of a person is in what cannot be changed any more.
    let exported = live.get("/api/v1/audit/export").text();
    assert!(!exported.contains("new@example.test"), "{exported}");
}

fn a_line_says_who_did_what_and_by_which_request(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let [auditor, viewer] =
        ["auditor", "viewer"].map(|role| live.browser_of(&place.add_person("default", role)));
    for text in ["one", "two"] {
        let body =
            json!({"name": "geo", "content": {"messages": [{"role": "system", "content": text}]}});
        live.post("/api/v1/prompts", &body);
    }
    let label = "/api/v1/prompts/geo/labels/production";
    live.put(label, &json!({"version": 1}));
    let moved = live.put(label, &json!({"version": 2, "reason": "shorter"}));
    let found = auditor
        .get("/api/v1/audit?action=prompt.move&limit=1")
        .json();
    let line = &found["items"][0];
    assert_eq!(
        line["request_id"],
        json!(moved.header("x-request-id").unwrap())
    );
    assert_eq!(
        (&line["object"], &line["reason"]),
        (&json!("geo"), &json!("shorter"))
    );
    assert!(line["actor"].as_str().unwrap().starts_with("key:"));
    let digest = moved.json()["digest"].clone();
    assert_eq!(line["after"], digest);
    assert_ne!(line["before"], Value::Null);
    let cursor = found["next_cursor"].as_str().unwrap();
    let next = auditor
        .get(&format!(
            "/api/v1/audit?action=prompt.move&limit=1&cursor={cursor}"
        ))
        .json();
    assert_eq!(next["items"][0]["before"], Value::Null);
    assert_eq!(next["next_cursor"], Value::Null);
    let none = auditor
        .get("/api/v1/audit?actor=operator&action=prompt.*")
        .json();
    assert_eq!(none["items"], json!([]));

    // The export is what the hashes are over: somebody else can check it.
    let exported = auditor.get("/api/v1/audit/export");
    assert_eq!(
        exported.header("content-type").unwrap(),
        "application/jsonl"
    );
    let mut prev = String::new();
    for line in exported.text().lines() {
        let mut fields: Value = serde_json::from_str(line).unwrap();
        let hash = fields.as_object_mut().unwrap().remove("hash").unwrap();
        assert_eq!(fields["prev"], prev);
        prev = base::Digest::of_json(&fields).unwrap().hex();
        assert_eq!(hash, prev);
    }
    let by_command = place.meguri(&["audit", "export"]);
    assert_eq!(by_command.stdout, exported.text());
    let listed = place
        .meguri(&["audit", "list", "--action", "prompt.*", "--json"])
        .json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
    for path in [
        "/api/v1/audit",
        "/api/v1/audit/export",
        "/api/v1/audit/verify",
    ] {
        assert_eq!(viewer.get(path).status, 403, "{path}");
        assert_eq!(live.get(path).status, 403, "{path}");
    }
    let bad = auditor.get("/api/v1/audit/verify?head=nonsense");
    assert_eq!(bad.status, 400, "{bad:?}");
}

fn a_changed_log_is_found_out(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let auditor = live.browser_of(&place.add_person("default", "auditor"));
    let all = place.meguri(&["audit", "verify", "--json"]).json();
    assert_eq!(all["ok"], true);
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let before = auditor.get("/api/v1/audit/verify").json();
    let head = before["head"].as_str().unwrap();
    let args = ["audit", "verify", "--project", "default", "--head", head];
    place.meguri(&args).assert_done();
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        let change = "UPDATE audit SET actor = 'system' WHERE action = 'key.create'";
        db::sqlx::query(change).execute(tx.conn()).await.unwrap();
        tx.commit().await.unwrap();
    });
    let found = auditor.get("/api/v1/audit/verify").json();
    assert_eq!(found["ok"], false, "{found}");
    assert!(found["broken_at"].as_i64().unwrap() > 0);
    let told = place.meguri(&["audit", "verify"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains("default: broken at line"), "{told:?}");
}
