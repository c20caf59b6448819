//! API keys: made, listed, used, revoked, expired; who may hand out what.

use serde_json::{Value, json};

use crate::harness::{Client, Place, on_both_databases, question};

on_both_databases!(
    a_key_is_made_used_and_revoked,
    keys_of_owners_roll_back_and_keys_of_auditors_read,
    the_command_line_revokes_beside_a_running_server
);

fn a_key_is_made_used_and_revoked(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    let made = live.post(
        "/api/v1/keys",
        &json!({"name": "東京のアプリ", "environment": "prod"}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let (id, secret) = (
        made["id"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    assert!(
        secret.starts_with("mgr_prod_") && secret.len() > 45,
        "{secret}"
    );
    assert_eq!(
        (&made["key"]["role"], &made["key"]["name"]),
        (&json!("caller"), &json!("東京のアプリ"))
    );

    let row = |listed: &Value| {
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["id"] == id)
            .unwrap()
            .clone()
    };
    let listed = live.get("/api/v1/keys");
    assert!(!listed.text().contains(secret), "{listed:?}");
    assert_eq!(row(&listed.json())["last_used_at"], Value::Null);
    let app = live.with_key(secret);
    app.chat(&question("hello"));
    assert_eq!(
        app.get("/api/v1/keys").refusal(),
        (403, "forbidden".to_owned())
    );
    // Written down within seconds, not on the request path.
    live.wait_for("/api/v1/keys", |listed| {
        row(listed)["last_used_at"].is_i64()
    });

    assert_eq!(live.delete(&format!("/api/v1/keys/{id}")).status, 204);
    let refused = app.post("/v1/chat/completions", &question("hello"));
    assert_eq!(
        (refused.status, refused.json()["error"]["type"].clone()),
        (401, json!("authentication_error")),
        "{refused:?}"
    );
    assert!(row(&live.get("/api/v1/keys").json())["revoked_at"].is_i64());
    // Twice is no error, and another project's or no key is none.
    assert_eq!(live.delete(&format!("/api/v1/keys/{id}")).status, 204);
    assert_eq!(
        live.delete("/api/v1/keys/nothing").refusal(),
        (404, "not_found".to_owned())
    );
    assert_eq!(place.fake.seen().len(), 1);
}

#[test]
fn a_key_ends_when_its_time_is_over() {
    let place = Place::new();
    let live = place.start();
    let (id, secret) = place.make_key("default", "editor");
    let app = live.with_key(&secret);
    assert_eq!(app.get("/v1/models").status, 200);
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        let update = "UPDATE api_keys SET expires_at = $2 WHERE id = $1";
        db::sqlx::query(update)
            .bind(&id)
            .bind(db.now_us() - 1)
            .execute(tx.conn())
            .await
            .unwrap();
        tx.bump_plan().await.unwrap();
        tx.commit().await.unwrap();
    });
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while app.get("/v1/models").status != 401 {
        assert!(
            std::time::Instant::now() < until,
            "an expired key still works"
        );
    }
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let past = json!({"name": "x", "environment": "dev", "expires_at": 1});
    let refused = admin.post("/api/v1/keys", &past);
    assert_eq!(
        (refused.status, refused.json()["error"]["at"].clone()),
        (400, json!("expires_at"))
    );
}

#[test]
fn a_wrong_key_request_says_what_is_wrong() {
    let place = Place::new();
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    for (body, at) in [
        (json!({"name": "", "environment": "dev"}), json!("name")),
        (
            json!({"name": "a\u{202e}b", "environment": "dev"}),
            json!("name"),
        ),
        (
            json!({"name": "x".repeat(101), "environment": "dev"}),
            json!("name"),
        ),
        (
            json!({"name": "x", "environment": "moon"}),
            json!("environment"),
        ),
    ] {
        let reply = admin.post("/api/v1/keys", &body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["at"]),
            (400, &at),
            "{reply:?}"
        );
    }
    for body in [
        json!({"name": "x", "environment": "dev", "rolle": "admin"}),
        json!({"name": "x", "environment": "dev", "role": "root"}),
    ] {
        assert_eq!(
            admin.post("/api/v1/keys", &body).refusal(),
            (400, "invalid_json".to_owned())
        );
    }
}

/// Pipelines roll back with a key of a product owner and archive the log with one of an auditor.
fn keys_of_owners_roll_back_and_keys_of_auditors_read(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    // Made by the API, by the command line and by the form, which offers every role.
    let made = |role: &str| {
        let body = json!({"name": role, "environment": "dev", "role": role});
        let made = admin.post("/api/v1/keys", &body);
        assert_eq!(made.json()["key"]["role"], role, "{made:?}");
        live.with_key(made.json()["secret"].as_str().unwrap())
    };
    let (owner, auditor) = (made("product_owner"), made("auditor"));
    let by_command = live.with_key(&place.make_key("default", "auditor").1);
    let person = live.browser_of(&place.add_person("default", "admin"));
    let page = person.get("/default/keys").text();
    for role in ["product_owner", "auditor"] {
        assert!(
            page.contains(&format!("<option value=\"{role}\">")),
            "{page}"
        );
        let form = [("name", "by hand"), ("environment", "dev"), ("role", role)];
        assert_eq!(person.form("/default/keys", &form).status, 200, "{role}");
    }

    // The owner watches and rolls back, and writes nothing.
    let prompt = |text: &str| json!({"name": "geo", "content": {"messages": [{"role": "system", "content": text}]}});
    for text in ["one", "two"] {
        assert_eq!(live.post("/api/v1/prompts", &prompt(text)).status, 201);
    }
    let label = "/api/v1/prompts/geo/labels/production";
    assert_eq!(live.put(label, &json!({"version": 1})).status, 200);
    let rules = json!({"rules": {"approvals": 1, "approver_roles": ["product_owner"]}});
    let protected = admin.put("/api/v1/protections/production", &rules);
    assert_eq!(protected.status, 200, "{protected:?}");
    let wanted = json!({"kind": "prompt", "name": "geo", "label": "production", "version": 2});
    let asked = live.post("/api/v1/proposals", &wanted).json();
    let proposal = format!(
        "/api/v1/proposals/{}",
        asked["proposal"]["id"].as_str().unwrap()
    );
    let approve = format!("{proposal}/approve");
    let others: [&Client; 2] = [&live, &auditor];
    for other in others {
        assert_eq!(other.post(&approve, &json!({})).status, 403);
    }
    // Whoever made a key could approve their own work with it: people decide, in that role.
    let refused = owner.post(&approve, &json!({}));
    assert_eq!(refused.refusal(), (403, "not_a_person".to_owned()));
    let deciding = live.browser_of(&place.add_person("default", "product_owner"));
    let approved = deciding.post(&approve, &json!({"reason": "read it"}));
    assert_eq!(approved.status, 200, "{approved:?}");
    assert_eq!(approved.json()["moved"]["version"], 2);
    for (what, refused) in [
        ("save", owner.post("/api/v1/prompts", &prompt("three"))),
        ("move", owner.put(label, &json!({"version": 1}))),
        ("propose", owner.post("/api/v1/proposals", &wanted)),
        (
            "protect",
            owner.put("/api/v1/protections/production", &rules),
        ),
    ] {
        assert_eq!(refused.refusal(), (403, "forbidden".to_owned()), "{what}");
    }
    let back = "/api/v1/catalog/prompt/geo/pointers/production/rollback";
    let rolled = owner.post(back, &json!({"reason": "wrong answers"}));
    assert_eq!(rolled.json()["pointer"]["version"], 1, "{rolled:?}");
    assert_eq!(owner.get("/api/v1/audit?limit=1").status, 200);

    // The auditor reads all of that, and changes nothing.
    for reader in [&auditor, &by_command] {
        let lines = reader.get("/api/v1/audit?action=prompt.rollback").json();
        assert_eq!(lines["items"][0]["reason"], "wrong answers", "{lines}");
        assert_eq!(reader.get("/api/v1/audit/verify").json()["ok"], true);
        let moves = reader.get("/api/v1/catalog/prompt/geo/moves").json();
        assert_eq!(moves["items"][0]["action"], "rollback", "{moves}");
        assert_eq!(reader.get("/api/v1/audit/export").status, 200);
    }
    for (what, refused) in [
        ("save", auditor.post("/api/v1/prompts", &prompt("three"))),
        ("roll back", auditor.post(back, &json!({}))),
        (
            "call",
            auditor.post("/v1/chat/completions", &question("hello")),
        ),
        (
            "make a key",
            auditor.post("/api/v1/keys", &json!({"name": "x", "environment": "dev"})),
        ),
    ] {
        assert_eq!(refused.status, 403, "{what}: {refused:?}");
    }
}

/// Nobody hands out more than they have. Today only administrators make keys at
/// all; the page and the API both hold it.
#[test]
fn keys_are_not_above_their_makers_role() {
    let place = Place::new();
    let live = place.start();
    for role in ["editor", "viewer"] {
        let person = live.browser_of(&place.add_person("default", role));
        let program = live.with_key(&place.make_key("default", role).1);
        for wanted in ["admin", "editor", "viewer", "caller"] {
            let body = json!({"name": "x", "environment": "dev", "role": wanted});
            assert_eq!(
                person.post("/api/v1/keys", &body).status,
                403,
                "{role} {wanted}"
            );
            assert_eq!(
                program.post("/api/v1/keys", &body).status,
                403,
                "{role} {wanted}"
            );
            let form = [("name", "x"), ("environment", "dev"), ("role", wanted)];
            assert_eq!(
                person.form("/default/keys", &form).status,
                403,
                "{role} {wanted}"
            );
        }
    }
}

#[test]
fn the_page_shows_a_secret_once() {
    let place = Place::new();
    let live = place.start();
    let admin = live.browser_of(&place.add_person("default", "admin"));
    let form = [
        ("name", "from the page"),
        ("environment", "staging"),
        ("role", "caller"),
        ("expires", "30d"),
    ];
    let made = admin.form("/default/keys", &form);
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(made.header("cache-control").as_deref(), Some("no-store"));
    let text = made.text();
    let secret: String = text[text.find("mgr_staging_").unwrap()..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c))
        .collect();
    assert_eq!(live.with_key(&secret).get("/v1/models").status, 200);
    let page = admin.get("/default/keys");
    assert!(page.text().contains("from the page") && !page.text().contains(&secret));
    let wrong = admin.form(
        "/default/keys",
        &[("name", ""), ("environment", "staging"), ("role", "caller")],
    );
    assert_eq!(wrong.status, 422, "{wrong:?}");
}

fn the_command_line_revokes_beside_a_running_server(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    // Made while the server runs: it works with the next call.
    let (id, secret) = place.make_key("default", "caller");
    let app = live.with_key(&secret);
    app.chat(&question("hello"));
    place.meguri(&["key", "revoke", &id]).assert_done();
    // At once means: within the quarter of a second in which a server follows its database.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while app.get("/v1/models").status != 401 {
        assert!(
            std::time::Instant::now() < until,
            "a revoked key still works"
        );
    }
}

/// One key, whatever header carries it: the same principal, so the same limits.
#[test]
fn openwebui_2026_45339_same_limits_any_header() {
    let place = Place::new();
    let live = place.start();
    let (id, secret) = place.make_key("default", "caller");
    let mut traces = Vec::new();
    for (name, value) in [
        ("authorization", format!("Bearer {secret}")),
        ("authorization", format!("bearer {secret}")),
        ("x-api-key", secret.clone()),
        ("api-key", secret.clone()),
    ] {
        let call = live.anonymous();
        let reply = call
            .call("POST", "/v1/chat/completions")
            .header(name, &value)
            .json(&question("hello"))
            .send();
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        traces.push(reply.header("x-meguri-trace-id").unwrap());
    }
    for trace in &traces {
        let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
        assert!(shown.to_string().contains(&id), "{shown}");
    }
    // It ends in every header at once.
    place.meguri(&["key", "revoke", &id]).assert_done();
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while live.with_key(&secret).get("/v1/models").status != 401 {
        assert!(std::time::Instant::now() < until);
    }
    for name in ["x-api-key", "api-key"] {
        assert_eq!(
            live.anonymous()
                .call("GET", "/v1/models")
                .header(name, &secret)
                .send()
                .status,
            401,
            "{name}"
        );
    }
    // A good header beside a bad one does not decide by chance: `authorization` counts.
    let mixed = live.anonymous();
    let reply = mixed
        .call("GET", "/v1/models")
        .header("authorization", "Bearer wrong")
        .header("x-api-key", &place.key)
        .send();
    assert_eq!(reply.status, 401);
}
