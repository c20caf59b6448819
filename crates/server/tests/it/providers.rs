//! Providers over HTTP: who may name which address, and credentials that go in
//! and never come out.

use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::harness::{Database, Place, on_both_databases, question};

on_both_databases!(a_provider_is_added_changed_and_removed);

fn a_provider_is_added_changed_and_removed(place: Place) {
    place.configure("[egress]\nallow_private = true");
    let place = place.with_key("admin");
    let live = place.start();
    let body = json!({"name": "mine", "protocol": "openai", "base_url": place.fake.openai_url(), "api_key": "sk-first"});
    let made = live.post("/api/v1/providers", &body);
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(
        (&made["credential"], &made["credential_ref"]),
        (&json!("stored"), &json!(""))
    );
    let chat = |model: &str| {
        live.chat(&json!({"model": model, "messages": [{"role": "user", "content": "hello"}]}));
        place.fake.seen().pop().unwrap().headers["authorization"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(chat("mine/tiny"), "Bearer sk-first");
    assert_eq!(
        live.post("/api/v1/providers", &body).refusal(),
        (409, "name_taken".to_owned())
    );

    // Without a credential it keeps its own, under a new name too.
    let path = format!("/api/v1/providers/{}", made["id"].as_str().unwrap());
    let renamed =
        json!({"name": "ours", "protocol": "openai", "base_url": place.fake.openai_url()});
    assert_eq!(live.put(&path, &renamed).json()["credential"], "stored");
    assert_eq!(chat("ours/tiny"), "Bearer sk-first");
    let changed = json!({"name": "ours", "protocol": "openai", "base_url": place.fake.openai_url(), "api_key": "sk-second"});
    assert_eq!(live.put(&path, &changed).status, 200);
    assert_eq!(chat("ours/tiny"), "Bearer sk-second");

    let tested = live.post(&format!("{path}/test"), &json!({})).json();
    assert_eq!(tested["state"], "ok");
    assert!(live.get("/v1/models").text().contains("ours/"), "{tested}");
    assert_eq!(live.delete("/api/v1/providers/ours").status, 204);
    assert_eq!(live.get(&path).status, 404);
    let gone = json!({"model": "ours/tiny", "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(
        live.post("/v1/chat/completions", &gone).refusal(),
        (404, "model_not_found".to_owned())
    );
}

#[test]
fn wrong_fields_are_named() {
    let place = Place::new();
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let good = json!({"name": "x", "protocol": "openai", "base_url": "https://api.example.com/v1"});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        admin.post("/api/v1/providers", &body)
    };
    for (field, value) in [
        ("name", json!("local")),
        ("name", json!("A")),
        ("name", json!("a/b")),
        ("name", json!("")),
        ("base_url", json!("not a url")),
        ("base_url", json!("file:///etc/passwd")),
        ("base_url", json!("https://user:pass@api.example.com/")),
        ("api_key_env", json!("A B")),
    ] {
        let reply = with(field, value.clone());
        assert_eq!(
            (reply.status, &reply.json()["error"]["at"]),
            (400, &json!(field)),
            "{value}: {reply:?}"
        );
    }
    for (field, value) in [
        ("protocol", json!("telnet")),
        ("allow_private", json!(true)),
        ("name", json!(3)),
        ("base_url", Value::Null),
    ] {
        assert_eq!(
            with(field, value.clone()).refusal(),
            (400, "invalid_json".to_owned()),
            "{field} {value}"
        );
    }
    let both = json!({"name": "x", "protocol": "openai", "base_url": "https://a.example", "api_key": "k", "api_key_env": "K"});
    assert_eq!(admin.post("/api/v1/providers", &both).status, 400);
    assert_eq!(
        admin.get("/api/v1/providers").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// Every spelling of an address that is not the public internet's.
#[test]
fn private_addresses_need_the_operator() {
    let place = Place::on(Database::Sqlite).with_key("admin");
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "admin"));
    let port = place
        .fake
        .openai_url()
        .split(':')
        .nth(2)
        .unwrap()
        .to_owned();
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "a.localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "[fc00::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "127.0.0.1.",
        "localhost.",
        "①②⑦.⓪.⓪.①",
    ] {
        let url = format!("http://{host}:{port}");
        let reply = live.post(
            "/api/v1/providers",
            &json!({"name": "x", "protocol": "openai", "base_url": url}),
        );
        let code = reply.code();
        assert!(
            reply.status == 400 && ["private_address", "bad_url"].contains(&code.as_str()),
            "{host}: {reply:?}"
        );
        let form = [
            ("name", "x"),
            ("protocol", "openai"),
            ("base_url", &url),
            ("credential", "none"),
        ];
        assert_eq!(
            person.form("/default/providers", &form).status,
            422,
            "{host}"
        );
    }
    // A name is resolved when it is connected to, and what it leads to is checked then.
    let named = json!({"name": "named", "protocol": "openai", "base_url": format!("http://localtest.invalid:{port}")});
    assert_eq!(live.post("/api/v1/providers", &named).status, 201);
    let tested = live.post("/api/v1/providers/named/test", &json!({})).json();
    assert_eq!(tested["state"], "error");
    assert_eq!(place.fake.connections(), 0);

    // What the operator has opened stays open, but nobody can move it from here.
    let url = place.fake.openai_url();
    place
        .meguri(&[
            "provider",
            "add",
            "opened",
            "--protocol",
            "openai",
            "--base-url",
            &url,
        ])
        .assert_done();
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    let chat = json!({"model": "opened/tiny", "messages": [{"role": "user", "content": "hello"}]});
    while live.post("/v1/chat/completions", &chat).status != 200 {
        assert!(std::time::Instant::now() < until);
    }
    let moved =
        json!({"name": "opened", "protocol": "openai", "base_url": "http://127.0.0.1:1/v1"});
    assert_eq!(
        live.put("/api/v1/providers/opened", &moved).refusal(),
        (400, "private_address".to_owned())
    );
    let public =
        json!({"name": "opened", "protocol": "openai", "base_url": "https://api.example.com/v1"});
    assert_eq!(
        live.put("/api/v1/providers/opened", &public).json()["allow_private"],
        false
    );
}

/// `litellm_2026_42271_test_connection`: testing is privileged and says whether
/// something answers, never what it said.
#[test]
fn litellm_2026_42271_test_connection() {
    let place = Place::new();
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    for role in ["editor", "viewer", "caller"] {
        let key = place.make_key("default", role).1;
        assert_eq!(
            live.with_key(&key)
                .post("/api/v1/providers/fake/test", &json!({}))
                .status,
            403,
            "{role}"
        );
    }
    place
        .fake
        .next(Answer::status(403, "the metadata service's secret"));
    let refused = admin.post("/api/v1/providers/fake/test", &json!({}));
    assert_eq!(refused.json()["state"], "error");
    assert!(!refused.text().contains("secret"), "{refused:?}");
    place.fake.next(Answer::faulty(Fault::Raw(
        "text/html",
        vec!["<h1>a secret page</h1>".into()],
    )));
    let refused = admin.post("/api/v1/providers/fake/test", &json!({}));
    assert_eq!(refused.json()["state"], "error");
    assert!(!refused.text().contains("secret"), "{refused:?}");
    for target in [
        "stdio:///bin/sh",
        "unix:///var/run/docker.sock",
        "file:///etc/passwd",
        "sh -c id",
        "gopher://127.0.0.1/",
    ] {
        let body = json!({"name": "x", "protocol": "openai", "base_url": target});
        assert_eq!(
            admin.post("/api/v1/providers", &body).status,
            400,
            "{target}"
        );
    }
}

/// A redirect is not followed: it would lead around the check of the address.
#[test]
fn openwebui_2026_45401_redirect() {
    let place = Place::new();
    let live = place.start();
    let target = format!("{}/stolen", place.fake.url());
    place.fake.next(Answer::faulty(Fault::Status(
        302,
        vec![("location", target)],
        String::new(),
    )));
    let reply = live.post("/v1/chat/completions", &question("hello"));
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(
        place
            .fake
            .seen()
            .iter()
            .all(|seen| !seen.path.contains("stolen"))
    );
}
