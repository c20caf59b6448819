//! What other products got wrong, tried on this one. Names say whose mistake.
//!
//! More of them stand with the feature that they are about: in `sign_in`,
//! `roles`, `keys`, `providers`, `prompts`, `cli` and `traces`.

use std::time::Instant;

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::harness::{
    Client, Database, Live, NO_ID, Place, SESSION_COOKIE, files_below, on_both_databases, question,
};

on_both_databases!(
    langflow_2026_55423_sign_out_kills,
    openwebui_2026_44553_stale_role,
    litellm_2026_42208_key_is_bound
);

/// One address of each kind of answer, with the method that it takes.
const EVERY_KIND: &[(&str, &str)] = &[
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/api/v1/keys"),
    ("GET", "/api/v1/traces/nothing"),
    ("POST", "/api/v1/query"),
    ("GET", "/default/"),
    ("GET", "/default/keys"),
    ("GET", "/sign-in"),
    ("GET", "/setup"),
    ("GET", "/nothing/at/all"),
    ("GET", "/assets/nothing.js"),
    ("POST", "/sign-in"),
    ("PATCH", "/api/v1/keys"),
];

#[test]
fn security_headers_are_on_every_answer() {
    let place = Place::new();
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "admin"));
    let mut addresses: Vec<(&str, String)> = EVERY_KIND
        .iter()
        .map(|(method, path)| (*method, (*path).to_owned()))
        .collect();
    // A real script and style, as the page names them.
    let page = person.get("/default/").text();
    for part in page.split('"').filter(|part| part.starts_with("/assets/")) {
        addresses.push(("GET", part.to_owned()));
    }
    for client in [&live.anonymous(), &live.with_key(&place.key), &person] {
        for (method, path) in &addresses {
            let reply = client.call(method, path).send();
            let header = |name: &str| {
                reply
                    .header(name)
                    .unwrap_or_else(|| panic!("{method} {path} has no {name}: {reply:?}"))
            };
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(header("referrer-policy"), "same-origin", "{path}");
            assert_eq!(
                header("cross-origin-opener-policy"),
                "same-origin",
                "{path}"
            );
            let policy = header("content-security-policy");
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{path}: {policy}"
            );
            assert!(
                !policy.contains("unsafe-") && !policy.contains('*'),
                "{path}: {policy}"
            );
            let cache = header("cache-control");
            assert!(
                cache == "no-store" || (path.starts_with("/assets/") && reply.status == 200),
                "{path}: {cache}"
            );
            assert!(!header("x-request-id").is_empty());
            assert_eq!(reply.header("server"), None);
            assert_eq!(reply.headers("content-security-policy").len(), 1, "{path}");
        }
    }
    // The nonce is new for each page.
    let policies: Vec<_> = (0..2)
        .map(|_| {
            person
                .get("/default/")
                .header("content-security-policy")
                .unwrap()
        })
        .collect();
    assert_ne!(policies[0], policies[1]);
    assert!(
        policies[0].contains("require-trusted-types-for 'script'"),
        "{}",
        policies[0]
    );
}

fn langflow_2026_55423_sign_out_kills(place: Place) {
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "editor"));
    let cookie = person.cookie(SESSION_COOKIE).unwrap();
    assert_eq!(person.get("/api/v1/prompts").status, 200);
    let mut tail = person.call("GET", "/api/v1/traces/tail").open();
    crate::harness::read_until(&mut tail, ": following");
    person.form("/sign-out", &[]);
    person.set_cookie(SESSION_COOKIE, &cookie);
    assert_eq!(person.get("/api/v1/prompts").status, 401);
    // What was open before closes.
    crate::harness::read_until(&mut tail, "event: end");
}

fn openwebui_2026_44553_stale_role(place: Place) {
    let live = place.start();
    let admin = live.browser_of(&place.add_person("default", "admin"));
    let person = place.add_person("default", "editor");
    let editor = live.browser_of(&person);
    let mut tail = editor.call("GET", "/api/v1/traces/tail").open();
    crate::harness::read_until(&mut tail, ": following");
    assert_eq!(
        admin
            .delete(&format!("/api/v1/members/{}", person.id))
            .status,
        204
    );
    assert_eq!(editor.get("/api/v1/prompts").status, 401);
    crate::harness::read_until(&mut tail, "event: end");
    // A demotion of oneself holds with the next request.
    place.add_person("default", "admin");
    let me = admin.get("/api/v1/members").json();
    let id = me["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["role"] == "admin")
        .unwrap()["user_id"]
        .clone();
    let _ = admin.put(
        &format!("/api/v1/members/{}", id.as_str().unwrap()),
        &json!({"role": "viewer"}),
    );
    let rest: Vec<u16> = ["/api/v1/providers/x/test", "/api/v1/keys"]
        .map(|path| admin.post(path, &json!({})).status)
        .to_vec();
    assert!(
        rest.iter()
            .all(|status| [401, 403, 404, 400].contains(status)),
        "{rest:?}"
    );
}

/// The name in the browser's address bar led to this machine; the server is asked under that name.
#[test]
fn mlflow_2025_14279_dns_rebinding() {
    let place = Place::new();
    let live = place.start();
    let port = live.address.port();
    for host in [
        "evil.test".to_owned(),
        format!("evil.test:{port}"),
        "127.0.0.1.evil.test".to_owned(),
        "localhost.evil.test".to_owned(),
        String::new(),
        "127.0.0.1@evil.test".to_owned(),
    ] {
        for (method, path) in [
            ("GET", "/healthz"),
            ("GET", "/v1/models"),
            ("GET", "/sign-in"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/api/v1/traces"),
        ] {
            let reply = live.call(method, path).with("host", &host).send();
            assert!(
                [421, 400].contains(&reply.status),
                "{host} {method} {path}: {reply:?}"
            );
        }
    }
    let named = live
        .call("GET", "/api/v1/traces")
        .with("host", "evil.test")
        .send();
    assert_eq!(named.refusal(), (421, "unknown_host".to_owned()));
    assert_eq!(
        live.call("GET", "/v1/models")
            .without("host")
            .try_send()
            .map(|reply| reply.status),
        Some(400)
    );
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"] {
        assert_eq!(
            live.call("GET", "/healthz")
                .with("host", &format!("{host}:{port}"))
                .send()
                .status,
            200,
            "{host}"
        );
    }
    // Two Host headers, or a target that names another host, get no further.
    let twice = live
        .call("GET", "/v1/models")
        .header("host", "evil.test")
        .send();
    assert_eq!(twice.refusal(), (421, "unknown_host".to_owned()));
    place.configure("allowed_hosts = [\"Meguri.Example\"]");
    drop(live);
    let live = place.start();
    assert_eq!(
        live.call("GET", "/healthz")
            .with("host", "meguri.example")
            .send()
            .status,
        200
    );
    assert_eq!(
        live.call("GET", "/healthz")
            .with("host", "example")
            .send()
            .status,
        421
    );
}

/// A page of another site sends requests to loopback, with the cookies that the browser holds.
#[test]
fn mlflow_2026_2611_web_page_to_loopback() {
    let place = Place::new();
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "admin"));
    let text = json!({"name": "x", "environment": "dev", "role": "admin"}).to_string();
    for (path, kind) in [
        ("/api/v1/keys", "text/plain"),
        ("/api/v1/keys", "application/json"),
        ("/v1/chat/completions", "text/plain"),
        ("/v1/chat/completions", "application/json"),
    ] {
        for origin in [
            "https://evil.test",
            "null",
            "http://127.0.0.1:1",
            "http://localhost",
            "https://127.0.0.1",
        ] {
            for site in [None, Some("cross-site"), Some("same-site")] {
                let call = person
                    .call("POST", path)
                    .with("origin", origin)
                    .without("sec-fetch-site");
                let call = site
                    .iter()
                    .fold(call, |call, site| call.header("sec-fetch-site", site));
                let reply = call.body(kind, text.as_bytes()).send();
                assert_eq!(
                    reply.refusal(),
                    (403, "cross_site".to_owned()),
                    "{path} {origin} {site:?}"
                );
            }
        }
    }
    assert_eq!(
        person.get("/api/v1/keys").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(place.fake.seen().len(), 0);
}

#[test]
fn langflow_2025_34291_cors() {
    let place = Place::new();
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "admin"));
    for client in [&live.anonymous(), &live.with_key(&place.key), &person] {
        for (method, path) in EVERY_KIND {
            for method in [method, "OPTIONS"] {
                let call = client
                    .call(method, path)
                    .with("origin", "https://evil.test")
                    .with("sec-fetch-site", "cross-site");
                let reply = call
                    .header("access-control-request-method", "POST")
                    .header("access-control-request-headers", "authorization")
                    .send();
                let allowed: Vec<&str> = reply
                    .head
                    .lines()
                    .filter(|line| line.to_ascii_lowercase().starts_with("access-control-"))
                    .collect();
                assert_eq!(allowed, [""; 0], "{method} {path}");
                assert!(
                    method != "OPTIONS" || reply.status >= 400,
                    "{path}: a preflight was answered with {}",
                    reply.status
                );
            }
        }
    }
}

/// Every route that changes something refuses a form of another site, and a cookie without any sign of where it comes from.
#[test]
fn mlflow_2025_1473_cross_site_form() {
    let place = Place::new();
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "admin"));
    let mut tried = 0;
    for route in server::http::routes()
        .iter()
        .filter(|route| route.method != "GET")
    {
        let path = route
            .path
            .replace("{project}", "default")
            .replace(['{', '}'], "");
        let method = route.method.as_str();
        let form = [("name", "x"), ("role", "admin"), ("id", NO_ID)];
        let foreign = person
            .call(method, &path)
            .with("origin", "https://evil.test")
            .with("sec-fetch-site", "cross-site")
            .form(&form)
            .send();
        assert_eq!(foreign.status, 403, "{method} {path}");
        let old_browser = person
            .call(method, &path)
            .with("origin", "https://evil.test")
            .without("sec-fetch-site")
            .form(&form)
            .send();
        assert_eq!(old_browser.status, 403, "{method} {path}");
        let bare = person
            .call(method, &path)
            .without("origin")
            .without("sec-fetch-site")
            .form(&form)
            .send();
        assert_eq!(bare.status, 403, "{method} {path}");
        tried += 1;
    }
    assert!(tried > 20);
    // A plain form cannot reach the JSON routes even from here.
    let typed = person
        .call("POST", "/api/v1/keys")
        .form(&[("name", "x")])
        .send();
    assert_eq!(typed.refusal(), (415, "unsupported_media_type".to_owned()));
    // Nothing that only reads changes anything: HEAD and GET of the routes that act do not exist.
    for path in [
        "/sign-out",
        "/default/keys/revoke",
        "/default/members/remove",
    ] {
        let status = person.get(path).status;
        assert!([404, 405].contains(&status), "{path}: {status}");
    }
    assert_eq!(person.get("/api/v1/keys").status, 200);
}

/// Deep, wide and repeated JSON costs bounded time, and the server goes on.
#[test]
fn mlflow_2025_0453_batch_cost() {
    let place = Place::new();
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let deep = "[".repeat(200_000);
    let objects = "{\"a\":".repeat(50_000);
    let wide = format!(
        "{{\"messages\":[{}]}}",
        vec!["{\"role\":\"user\",\"content\":\"x\"}"; 5_000].join(",")
    );
    let keys: Vec<String> = (0..20_000)
        .map(|index| format!("\"k{index}\":{index}"))
        .collect();
    let keys = format!("{{{}}}", keys.join(","));
    let repeated = format!("{{{}\"name\":\"x\"}}", "\"name\":\"x\",".repeat(10_000));
    let measures =
        json!({"measures": vec!["p95(latency_ms)"; 5_000], "by": vec!["model"; 2_000]}).to_string();
    let filter = json!({"filter": "(".repeat(20_000)}).to_string();
    let ors = json!({"filter": vec!["model = \"x\""; 5_000].join(" or ")}).to_string();
    let template = json!({"name": "t", "content": {"messages": [{"role": "system", "content": "{{ x }}".repeat(50_000)}]}}).to_string();
    let started = Instant::now();
    for (path, bodies) in [
        (
            "/v1/chat/completions",
            vec![&deep, &objects, &keys, &repeated],
        ),
        ("/v1/embeddings", vec![&deep, &objects, &wide, &keys]),
        (
            "/api/v1/query",
            vec![&deep, &objects, &measures, &filter, &ors, &repeated],
        ),
        ("/api/v1/scores", vec![&deep, &keys, &repeated]),
        ("/api/v1/prompts", vec![&deep, &objects, &keys, &template]),
        ("/api/v1/keys", vec![&deep, &repeated]),
    ] {
        for body in bodies {
            let reply = admin
                .call("POST", path)
                .body("application/json", body.as_bytes())
                .send();
            assert!(
                (200..500).contains(&reply.status),
                "{path} {}…: {reply:?}",
                &body[..20]
            );
        }
    }
    for query in [
        format!("filter={}", "(".repeat(20_000)),
        format!("q={}", "a+".repeat(10_000)),
        format!("fields={}", "model,".repeat(5_000)),
        format!("limit={}", "9".repeat(400)),
    ] {
        for path in ["/api/v1/traces", "/api/v1/traces/facets"] {
            let reply = admin.call("GET", &format!("{path}?{query}")).try_send();
            assert!(
                reply
                    .as_ref()
                    .is_none_or(|reply| (200..500).contains(&reply.status)),
                "{path}?{}: {reply:?}",
                &query[..20]
            );
        }
    }
    assert!(
        started.elapsed() < crate::harness::PATIENCE,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(admin.get("/readyz").status, 200);
    live.chat(&question("still here"));
    assert_eq!(place.fake.seen().len(), 1);
}

/// What a database would read as its own language stays a value.
fn litellm_2026_42208_key_is_bound(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    let hostile = [
        "' OR '1'='1",
        "'; DROP TABLE api_keys; --",
        "\" OR \"\"=\"",
        "1) UNION SELECT secret_hash FROM api_keys --",
        "%",
        "_",
        "\\",
        "a' || 'b",
        "$1",
        "?",
    ];
    for text in hostile {
        for header in ["authorization", "x-api-key", "api-key"] {
            let value = if header == "authorization" {
                format!("Bearer {text}")
            } else {
                text.to_owned()
            };
            let reply = live
                .anonymous()
                .call("GET", "/v1/models")
                .header(header, &value)
                .send();
            assert_eq!(reply.status, 401, "{header}: {text}");
            assert_no_database_words(&reply.text());
        }
        let browser = live.browser();
        browser.set_cookie(SESSION_COOKIE, &crate::harness::encode(text));
        assert_eq!(browser.get("/api/v1/keys").status, 401, "{text}");
        let segment = crate::harness::encode(text);
        for path in [
            format!("/api/v1/providers/{segment}"),
            format!("/api/v1/traces/{segment}"),
            format!("/api/v1/prompts/{segment}/versions"),
            format!("/api/v1/prompts?folder={segment}"),
            format!("/api/v1/prompts?cursor={segment}"),
            format!("/api/v1/traces?filter={segment}"),
            format!("/api/v1/traces?q={segment}"),
            format!("/api/v1/traces?cursor={segment}"),
            format!("/api/v1/traces/facets?fields={segment}"),
            format!("/api/v1/scores?trace_id={segment}"),
            format!("/v1/models/{segment}"),
        ] {
            let reply = live.get(&path);
            assert!((200..500).contains(&reply.status), "{path}: {reply:?}");
            assert_no_database_words(&reply.text());
        }
        let reply = live.delete(&format!("/api/v1/keys/{segment}"));
        assert_eq!(reply.status, 404, "{text}");
        let reply = live.post("/v1/chat/completions", &json!({"model": format!("fake/{text}"), "messages": [{"role": "user", "content": text}], "meguri": {"session": text, "tags": {text: text}}}));
        assert_eq!(reply.status, 200, "{text}: {reply:?}");
    }
    assert_eq!(
        live.get("/api/v1/keys").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    live.chat(&question("still here"));
}

fn assert_no_database_words(text: &str) {
    let lower = text.to_lowercase();
    for word in [
        "sqlite",
        "postgres",
        "sqlx",
        "syntax error",
        "no such column",
        "near \"",
    ] {
        assert!(!lower.contains(word), "{word}: {text}");
    }
}

/// Neither a Host header nor the absolute form of a target chooses a handler or a permission.
#[test]
fn starlette_2026_48710_host_never_routes() {
    let place = Place::new();
    let live = place.start();
    let own = format!("http://{}", live.address);
    let stranger = live.anonymous();
    for path in ["/api/v1/keys", "/v1/models", "/default/keys"] {
        let plain = stranger.get(path).status;
        assert_eq!(
            stranger.call("GET", &format!("{own}{path}")).send().status,
            plain,
            "{path}"
        );
        for target in [
            format!("http://evil.test{path}"),
            format!("http://{}@evil.test{path}", live.address),
            "https://evil.test/healthz".to_owned(),
        ] {
            let status = stranger.call("GET", &target).send().status;
            assert!([400, 421].contains(&status), "{target}: {status}");
        }
        for (name, value) in [
            ("x-forwarded-host", "evil.test"),
            ("x-original-url", "/healthz"),
            ("x-rewrite-url", "/healthz"),
            ("x-http-method-override", "GET"),
            ("forwarded", "host=evil.test"),
            ("x-forwarded-prefix", "/healthz"),
        ] {
            assert_eq!(
                stranger.call("GET", path).header(name, value).send().status,
                plain,
                "{name}"
            );
        }
    }
    // The links that the server makes are its own, whatever it was called.
    let person = live.browser_of(&place.add_person("default", "admin"));
    let invited = person
        .call("POST", "/api/v1/invites")
        .with("host", &format!("localhost:{}", live.address.port()));
    let invited = invited.with(
        "origin",
        &format!("http://localhost:{}", live.address.port()),
    );
    let invited = invited
        .json(&json!({"email": "a@example.test", "role": "viewer"}))
        .send();
    assert!(
        invited.json()["link"].as_str().unwrap().starts_with(&own),
        "{invited:?}"
    );
}

/// Spellings of a path reach the same check or nothing.
#[test]
fn langsmith_encoded_slash() {
    let place = Place::new();
    let live = place.start();
    let stranger = live.anonymous();
    for path in [
        "/api%2Fv1%2Fkeys",
        "/api/v1%2Fkeys",
        "/api/v1/%6beys",
        "/API/V1/KEYS",
        "//api/v1/keys",
        "/api//v1/keys",
        "/api/v1/keys/",
        "/api/v1/./keys",
        "/api/v1/../v1/keys",
        "/healthz/../api/v1/keys",
        "/healthz/%2e%2e/api/v1/keys",
        "/healthz/..%2fapi/v1/keys",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e/%2e%2e/Cargo.toml",
        "/assets/..\\Cargo.toml",
        "/assets//etc/passwd",
        "/assets/%2Fetc%2Fpasswd",
        "/api/v1/keys%00",
        "/api/v1/keys;x=/healthz",
        "/healthz%2f..%2fapi/v1/keys",
        "/healthz;/api/v1/keys",
        "/sign-in%2f..%2fdefault%2fkeys",
        "/default%2Fkeys",
        "/api/v1/keys?/healthz",
        "/api/v1/keys#/healthz",
        "/%61pi/v1/keys",
        "/assets/%5c..%5cCargo.toml",
        "/assets/....//Cargo.toml",
    ] {
        let reply = stranger.call("GET", path).send();
        assert!(
            [303, 400, 401, 404, 405].contains(&reply.status),
            "{path}: {reply:?}"
        );
        assert!(
            !reply.text().contains("[package]") && !reply.text().contains("root:"),
            "{path}"
        );
    }
    // An encoded slash stays inside its parameter and changes no check.
    let viewer = live.with_key(&place.make_key("default", "viewer").1);
    for path in [
        "/api/v1/providers/fake%2Ftest",
        "/api/v1/prompts/a%2Fversions/labels/x",
        "/api/v1/keys/..%2f..%2fhealthz",
    ] {
        for method in ["POST", "PUT", "DELETE"] {
            let status = viewer.call(method, path).json(&json!({})).send().status;
            assert!(
                [403, 404, 405].contains(&status),
                "{method} {path}: {status}"
            );
        }
    }
}

/// Seeded secrets are looked for in everything that leaves the server or stays behind.
#[test]
fn canary_secrets_never_leave() {
    let place = Place::on(Database::Sqlite);
    place.configure("[egress]\nallow_private = true\n[log]\nlevel = \"debug\"");
    let place = place.with_key("admin");
    let environment = "canary-of-the-environment";
    let live = place.start_with(|command| {
        command.env("CANARY_KEY", environment);
    });
    let password = "canary of the password";
    let person = live.set_up(&place, "ada@example.test", password);
    let (stored, url) = ("canary-of-the-database", place.fake.openai_url());
    let add = |body: Value| assert_eq!(person.post("/api/v1/providers", &body).status, 201);
    add(json!({"name": "stored", "protocol": "openai", "base_url": url, "api_key": stored}));
    add(json!({"name": "env", "protocol": "openai", "base_url": url, "api_key_env": "CANARY_KEY"}));
    let made = person
        .post(
            "/api/v1/keys",
            &json!({"name": "app", "environment": "dev"}),
        )
        .json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    let session = person.cookie(SESSION_COOKIE).unwrap();
    let setup = place.setup_link().split_once('=').unwrap().1.to_owned();
    let canaries = [stored, environment, password, &secret, &session, &place.key];

    let app = live.with_key(&secret);
    let chat = |model: &str| {
        app.post(
            "/v1/chat/completions",
            &json!({"model": model, "messages": [{"role": "user", "content": "hello"}]}),
        )
    };
    let mut heard = vec![chat("stored/tiny"), chat("env/tiny"), chat("none/tiny")];
    // A provider that echoes its credential in an error.
    for (model, credential) in [("stored/tiny", stored), ("env/tiny", environment)] {
        for status in [400, 401, 429, 500] {
            let words = json!({"error": {"message": format!("wrong key {credential}"), "type": credential, "code": credential}});
            place.fake.always(Answer::status(status, words.to_string()));
            heard.push(chat(model));
            place
                .fake
                .always(Answer::status(status, format!("<p>{credential}</p>")));
            heard.push(chat(model));
        }
        heard.push(person.post(
            &format!("/api/v1/providers/{}/test", &model[..model.len() - 5]),
            &json!({}),
        ));
    }
    let trace = heard[0].header("x-meguri-trace-id").unwrap();
    live.with_key(&place.key)
        .wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    heard.extend(every_page_and_list(&person, &live, &trace));
    for reply in &heard {
        // A session cookie is the one thing that goes back to its owner.
        let text = format!("{reply:?}");
        for canary in canaries {
            assert!(!text.contains(canary), "{canary}: {text}");
        }
    }
    let mut live = live;
    live.signal("-TERM");
    assert_eq!(live.wait(), 0);
    let log = place.log();
    for canary in canaries {
        assert!(!log.contains(canary), "{canary} is in the log: {log}");
    }
    for file in files_below(&place.data()) {
        let bytes = std::fs::read(&file).unwrap();
        for canary in canaries.iter().copied().chain([setup.as_str()]) {
            let found = bytes
                .windows(canary.len())
                .any(|window| window == canary.as_bytes());
            assert!(!found, "{canary} is in {}", file.display());
        }
    }
    for args in [
        &["provider", "list", "--json"][..],
        &["key", "list", "--json"],
        &["doctor", "--json"],
        &["traces", "list", "--json"],
    ] {
        let ended = place.meguri(args);
        for canary in canaries {
            assert!(
                !format!("{ended:?}").contains(canary),
                "{args:?}: {ended:?}"
            );
        }
    }
}

fn every_page_and_list(person: &Client, live: &Live, trace: &str) -> Vec<crate::harness::Reply> {
    let mut replies = Vec::new();
    let fill = |path: &str| {
        path.replace("{project}", "default")
            .replace("{name}", "stored")
            .replace(
                "{id}",
                if path.contains("provider") {
                    "stored"
                } else {
                    trace
                },
            )
    };
    for route in server::http::routes()
        .iter()
        .filter(|route| route.method == "GET" && !route.path.contains("tail"))
    {
        let path = fill(route.path);
        replies.push(person.get(&path));
        replies.push(live.anonymous().get(&path));
    }
    let wrong = person.post(
        "/api/v1/providers",
        &json!({"name": "stored", "protocol": "openai", "base_url": "https://a.example"}),
    );
    replies.extend([
        wrong,
        person.get("/api/v1/providers/none"),
        person
            .call("POST", "/api/v1/keys")
            .body("application/json", b"{")
            .send(),
    ]);
    replies
}

/// The bodies, keys and databases of a data directory are its owner's alone.
#[test]
fn the_data_directory_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::on(Database::Sqlite);
    let fresh = place.beside("fresh");
    let mut command = place.command();
    place
        .run(command.args([
            "key",
            "create",
            "--name",
            "x",
            "--data-dir",
            &fresh.display().to_string(),
        ]))
        .assert_done();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&fresh), 0);
    let key = place.data().join("master.key");
    let _live = place.start();
    assert_eq!(mode(&key), 0);
}

/// Names that are special in a script are data here, in every place that takes names.
#[test]
fn langfuse_otlp_proto_keys() {
    let place = Place::new();
    let live = place.start();
    let names = [
        "__proto__",
        "constructor",
        "prototype",
        "hasOwnProperty",
        "toString",
        "a.b",
        "日本",
        "<script>",
    ];
    let map: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!("polluted")))
        .collect();
    let mut request = question("hello");
    request["meguri"] =
        json!({"tags": map, "metadata": map, "session": "__proto__", "user": "constructor"});
    let trace = live.chat(&request);
    let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    for name in names {
        assert_eq!(
            shown["spans"][0]["tags"][name], "polluted",
            "{name}: {shown}"
        );
        assert_eq!(
            shown["spans"][0]["metadata"][name], "polluted",
            "{name}: {shown}"
        );
    }
    // Twice the same name is one value, and a name of any length is bounded or refused.
    let body = question("x").to_string();
    let body = format!(
        "{},\"meguri\":{{\"tags\":{{\"a\":\"1\",\"a\":\"2\"}}}}}}",
        &body[..body.len() - 1]
    );
    let reply = live
        .call("POST", "/v1/chat/completions")
        .body("application/json", body.as_bytes())
        .send();
    assert!([200, 400].contains(&reply.status), "{reply:?}");
    let mut request = question("x");
    request["meguri"] = json!({"tags": {"k".repeat(100_000): "v"}, "metadata": {"k".repeat(100_000): "v"}, "session": "s".repeat(100_000)});
    let reply = live.post("/v1/chat/completions", &request);
    assert!([200, 400].contains(&reply.status), "{reply:?}");
    if let Some(trace) = reply
        .header("x-meguri-trace-id")
        .filter(|_| reply.status == 200)
    {
        let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
        assert!(shown.to_string().len() < 1 << 20);
        assert!(live.get("/api/v1/traces").body.len() < 1 << 20);
    }
    let person = live.browser_of(&place.add_person("default", "viewer"));
    for path in [
        format!("/default/traces/{trace}"),
        "/default/traces".to_owned(),
        "/default/".to_owned(),
    ] {
        let page = person.get(&path);
        assert_eq!(page.status, 200, "{path}: {page:?}");
        assert!(!page.text().contains("<script>\""), "{path}");
    }
}

/// Jobs have ids too, and stopping one is not for everybody.
#[test]
fn langflow_2026_10560_job_ids() {
    let place = Place::new();
    let live = place.start();
    let path = format!("/api/v1/models/pulls/{NO_ID}");
    assert_eq!(live.anonymous().get(&path).status, 401);
    assert_eq!(live.anonymous().delete(&path).status, 401);
    for role in ["editor", "viewer", "caller"] {
        let client = live.with_key(&place.make_key("default", role).1);
        assert_eq!(client.get(&path).status, 404, "{role}");
        assert_eq!(client.delete(&path).status, 403, "{role}");
        assert_eq!(
            client
                .post("/api/v1/models/pull", &json!({"reference": "hf:a/b"}))
                .status,
            403,
            "{role}"
        );
    }
    let admin = live.with_key(&place.make_key("default", "admin").1);
    assert_eq!(admin.delete(&path).status, 404);
}

/// What a stranger posts to the public addresses runs nowhere and changes nothing.
#[test]
fn langflow_2025_3248_nothing_runs() {
    let place = Place::new();
    let live = place.start();
    let count = || {
        place.database(async |db| {
            let mut counts = Vec::new();
            for text in [
                "SELECT COUNT(*) FROM users",
                "SELECT COUNT(*) FROM sessions",
                "SELECT COUNT(*) FROM members",
                "SELECT COUNT(*) FROM api_keys",
                "SELECT COUNT(*) FROM providers",
                "SELECT COUNT(*) FROM versions",
                "SELECT COUNT(*) FROM setup_links",
            ] {
                let row = db::sqlx::query(text).fetch_one(db.read()).await.unwrap();
                counts.push((text, db::sqlx::Row::get::<i64, _>(&row, 0)));
            }
            counts
        })
    };
    let before = count();
    let stranger = live.anonymous();
    let code = json!({"code": "__import__('os').system('id')", "prompt": "{{ 7 * 7 }}", "data": {"nodes": []}});
    for route in server::http::routes()
        .iter()
        .filter(|route| route.access == server::http::Access::Public)
    {
        for method in ["POST", "PUT", "GET", "DELETE", "PATCH"] {
            for (kind, body) in [
                ("application/json", code.to_string()),
                (
                    "application/x-www-form-urlencoded",
                    "token=x&name=%7B%7B7*7%7D%7D&email=a%40b.test&password=xxxxxxxxxxxx&lang=ja"
                        .to_owned(),
                ),
            ] {
                let path = route.path.replace("{*file}", "x");
                let reply = stranger
                    .call(method, &path)
                    .body(kind, body.as_bytes())
                    .send();
                assert!(reply.status < 500, "{method} {path}: {reply:?}");
                assert!(!reply.text().contains(">49<"), "{method} {path}: {reply:?}");
            }
        }
    }
    assert_eq!(count(), before);
}

/// Behind TLS the cookie is one that only TLS carries, and the two modes do not mix.
#[test]
fn cookies_behind_tls_are_secure() {
    let place = Place::on(Database::Sqlite);
    place.configure("public_url = \"https://meguri.example.test\"");
    let live = place.start();
    let link = place.setup_link();
    let call =
        |method: &str, path: &str| live.call(method, path).with("host", "meguri.example.test");
    let form = [
        ("token", link.split_once('=').unwrap().1),
        ("name", "Ada"),
        ("email", "ada@example.test"),
        ("password", "a long enough password"),
    ];
    let reply = call("POST", "/setup")
        .header("origin", "https://meguri.example.test")
        .form(&form)
        .send();
    assert_eq!(reply.status, 303, "{reply:?}");
    assert_eq!(
        reply.header("strict-transport-security").as_deref(),
        Some("max-age=31536000")
    );
    let cookie = reply
        .headers("set-cookie")
        .into_iter()
        .find(|line| line.starts_with("__Host-meguri="))
        .unwrap();
    assert!(
        cookie.contains("; Secure") && cookie.contains("; Path=/") && !cookie.contains("Domain"),
        "{cookie}"
    );
    let value = cookie.split(['=', ';']).nth(1).unwrap();
    let with = |name: &str| {
        call("GET", "/api/v1/members")
            .without("authorization")
            .header("cookie", &format!("{name}={value}"))
            .send()
            .status
    };
    assert_eq!((with("__Host-meguri"), with(SESSION_COOKIE)), (200, 401));
    let foreign = call("POST", "/sign-out")
        .header("origin", "http://meguri.example.test:1")
        .header("cookie", &format!("__Host-meguri={value}"))
        .send();
    assert_eq!(foreign.status, 403);
    assert_eq!(with("__Host-meguri"), 200);
}
