//! Broken requests and broken providers: each gets a clear error in the
//! client's own protocol, and the server goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::harness::{Database, Live, Place, Reply, question, read_until};

/// An error as OpenAI's clients read it.
fn assert_openai(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{reply:?}");
    let error = reply.json()["error"].clone();
    for field in ["message", "type", "code"] {
        assert!(
            error[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {reply:?}"
        );
    }
    assert!(error.get("param").is_some(), "{reply:?}");
    assert!(reply.header("x-meguri-trace-id").is_some(), "{reply:?}");
    error
}

/// An error of our own API.
fn assert_own(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{reply:?}");
    let error = reply.json()["error"].clone();
    assert!(
        error["code"].is_string() && error["message"].is_string(),
        "{reply:?}"
    );
    assert_eq!(
        error["request_id"].as_str(),
        reply.header("x-request-id").as_deref()
    );
    error
}

fn assert_alive(place: &Place, live: &Live) {
    place.fake.always(Answer::default());
    live.chat(&question("still here"));
    assert_eq!(live.get("/readyz").status, 200);
}

#[test]
fn broken_bodies() {
    let place = Place::new();
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b"\"text\"",
        b"{\"a\": 1}}",
        b"{\"name\": \"\xff\xfe\"}",
        b"\xef\xbb\xbf{}",
    ];
    for body in bodies {
        for path in ["/v1/chat/completions", "/v1/embeddings"] {
            assert_openai(
                &admin
                    .call("POST", path)
                    .body("application/json", body)
                    .send(),
                400,
            );
        }
        for path in [
            "/api/v1/scores",
            "/api/v1/keys",
            "/api/v1/prompts",
            "/api/v1/providers",
            "/api/v1/invites",
            "/api/v1/query",
        ] {
            let error = assert_own(
                &admin
                    .call("POST", path)
                    .body("application/json", body)
                    .send(),
                400,
            );
            assert_eq!(error["code"], "invalid_json", "{path}: {error}");
            assert!(
                error["at"].as_str().unwrap().starts_with("line "),
                "{path}: {error}"
            );
        }
    }
    for body in [
        json!({}),
        json!({"model": 3, "messages": []}),
        json!({"model": "fake/tiny"}),
        json!({"model": "fake/tiny", "messages": "hello"}),
        json!({"model": "fake/tiny", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}),
        json!({"model": "fake/tiny", "messages": [{"role": "user", "content": "x"}], "meguri": {"sesion": "x"}}),
        json!({"model": "fake/tiny", "messages": [{"role": "user", "content": "x"}], "meguri": []}),
    ] {
        assert_openai(&admin.post("/v1/chat/completions", &body), 400);
    }
    for (path, body) in [
        ("/api/v1/scores", json!({"trace_id": 3})),
        (
            "/api/v1/keys",
            json!({"name": "x", "environment": "dev", "colour": "red"}),
        ),
        (
            "/api/v1/invites",
            json!({"email": "a@example.test", "role": "root"}),
        ),
        ("/api/v1/query", json!({"measure": ["count"]})),
    ] {
        assert_own(&admin.post(path, &body), 400);
    }
    // The wrong type, and none.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ] {
        let reply = admin.call("POST", "/api/v1/keys").body(kind, b"{}").send();
        assert_eq!(assert_own(&reply, 415)["code"], "unsupported_media_type");
    }
    // Nothing of it reached the provider, and fields that we do not know do.
    assert_eq!(place.fake.seen().len(), 0);
    let mut request = question("hello");
    request["a_field_of_next_year"] = json!({"x": [1, null]});
    live.chat(&request);
    assert_eq!(
        place.fake.seen()[0].json()["a_field_of_next_year"],
        json!({"x": [1, null]})
    );
    assert_alive(&place, &live);
}

#[test]
fn broken_forms_and_queries() {
    let place = Place::new();
    let live = place.start();
    let person = live.browser_of(&place.add_person("default", "admin"));
    for (path, body) in [
        ("/default/keys", &b"name=x&environment=dev&role=root"[..]),
        (
            "/default/keys",
            b"name=x&environment=dev&role=caller&colour=red",
        ),
        ("/default/keys", b"%ff%fe=%zz&&&=="),
        ("/default/members/role", b"user_id=nobody&role=viewer"),
        ("/preferences", b"theme=light&theme=dark&x=y"),
    ] {
        let reply = person
            .call("POST", path)
            .body("application/x-www-form-urlencoded", body)
            .send();
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
        assert!(
            reply
                .header("content-type")
                .unwrap()
                .starts_with("text/html"),
            "{reply:?}"
        );
        assert!(
            reply
                .text()
                .contains(&reply.header("x-request-id").unwrap())
        );
    }
    for query in [
        "limit=-1",
        "limit=x",
        "folder=%00",
        "cursor=%ff",
        "colour=red",
    ] {
        assert_own(&live.get(&format!("/api/v1/prompts?{query}")), 400);
    }
    assert_alive(&place, &live);
}

#[test]
fn too_large_bodies() {
    let place = Place::new();
    place.configure("[limits]\ninference_body_bytes = 100000");
    let live = place.start();
    let admin = live.with_key(&place.make_key("default", "admin").1);
    // Declared too large: refused before it is sent.
    let head = |path: &str, length: u64| {
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n",
            live.address, place.key
        );
        live.raw(text.as_bytes()).unwrap()
    };
    assert_openai(&head("/v1/chat/completions", 100_001), 413);
    assert_openai(&head("/v1/chat/completions", 1 << 60), 413);
    assert_own(&head("/api/v1/scores", 256 * 1024 + 1), 413);
    // Not declared: refused when it has become too large.
    let mut chunks = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n", live.address, place.key).into_bytes();
    for _ in 0..11 {
        chunks.extend_from_slice(b"2710\r\n");
        chunks.extend(std::iter::repeat_n(b' ', 10_000));
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    assert_openai(&live.raw(&chunks).unwrap(), 413);
    // A length and chunks at once, and lengths that contradict, are how requests are smuggled.
    let start = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
        live.address, place.key
    );
    for lengths in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: -1\r\n",
        "content-length: x\r\n",
        "transfer-encoding: chunked, identity\r\n",
    ] {
        let reply = live.raw(format!("{start}{lengths}\r\n{{}}").as_bytes());
        assert!(reply.is_none_or(|reply| reply.status >= 400), "{lengths}");
    }
    assert_eq!(admin.get("/v1/models").status, 200);
    assert_eq!(place.fake.seen().len(), 0);
    assert_alive(&place, &live);
}

/// Clients send the body in a second write and keep the connection: a refusal that
/// needed only the head must not end it unsaid.
#[test]
fn a_refusal_before_the_body_keeps_the_connection() {
    let place = Place::new();
    let live = place.start();
    let head = |length: usize| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer mgr_dev_nothing\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            live.address
        )
    };
    let mut stream = live.connect();
    for _ in 0..3 {
        stream.write_all(head(2000).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(&[b' '; 2000]).unwrap();
        let answer = read_one(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(
            !answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
    // A long one, and one that asks first, are not read: the answer says that the connection ends.
    for more in [
        head(5 << 20),
        head(2000).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n"),
    ] {
        let mut stream = live.connect();
        stream.write_all(more.as_bytes()).unwrap();
        let answer = read_one(&mut stream).to_lowercase();
        assert!(answer.starts_with("http/1.1 401 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

/// One answer of a connection that stays open: its head and its body.
fn read_one(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "the connection ended: {:?}",
            String::from_utf8_lossy(&text)
        );
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .map(str::to_owned)
        })
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head
}

#[test]
fn broken_http() {
    let place = Place::new();
    let live = place.start();
    let host = format!("host: {}\r\n", live.address);
    let many: String = (0..200).map(|index| format!("x-{index}: y\r\n")).collect();
    let long = "a".repeat(100_000);
    for (what, request) in [
        (
            "many headers",
            format!("GET /healthz HTTP/1.1\r\n{host}{many}\r\n"),
        ),
        (
            "a long header",
            format!("GET /healthz HTTP/1.1\r\n{host}x: {long}\r\n\r\n"),
        ),
        (
            "a long target",
            format!("GET /{long} HTTP/1.1\r\n{host}\r\n"),
        ),
        ("no HTTP", "hello there\r\n\r\n".to_owned()),
        (
            "a TLS greeting",
            "\u{16}\u{3}\u{1}\u{0}\u{5}hello".to_owned(),
        ),
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        (
            "a header without a name",
            format!("GET /healthz HTTP/1.1\r\n{host}: y\r\n\r\n"),
        ),
        (
            "a folded header",
            format!("GET /healthz HTTP/1.1\r\n{host}x: y\r\n z\r\n\r\n"),
        ),
        (
            "a NUL",
            format!("GET /healthz HTTP/1.1\r\n{host}x: \u{0}\r\n\r\n"),
        ),
        (
            "another version",
            format!("GET /healthz HTTP/9.9\r\n{host}\r\n"),
        ),
    ] {
        let mut stream = live.connect();
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{what}: {answer}"
        );
    }
    // Headers whose bytes are no text.
    for (name, value) in [
        ("authorization", &b"Bearer \xff\xfe"[..]),
        ("x-api-key", b"\xff"),
        ("cookie", b"\xff=\xfe"),
        ("x-meguri-session", b"\xff\xfe"),
        ("accept-language", b"\xff"),
    ] {
        let call = live.anonymous();
        let reply = call
            .call("POST", "/v1/chat/completions")
            .header_bytes(name, value)
            .json(&question("hello"))
            .send();
        // A cookie that comes from nowhere is refused as such.
        assert!(
            [400, 401].contains(&reply.status) || (name == "cookie" && reply.status == 403),
            "{name}: {reply:?}"
        );
    }
    let call = live
        .call("POST", "/v1/chat/completions")
        .header_bytes("x-meguri-session", b"\xff\xfe");
    assert_openai(&call.json(&question("hello")).send(), 400);
    for (name, value) in [
        ("x-meguri-step", "third"),
        ("x-meguri-metadata", "{"),
        ("x-meguri-metadata", "[]"),
    ] {
        assert_openai(
            &live
                .call("POST", "/v1/chat/completions")
                .header(name, value)
                .json(&question("hello"))
                .send(),
            400,
        );
    }
    for value in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "", "mgr_dev_x"] {
        assert_openai(
            &live
                .anonymous()
                .call("GET", "/v1/models")
                .header("authorization", value)
                .send(),
            401,
        );
    }
    assert_alive(&place, &live);
}

/// Clients that connect and say little do not keep others out. The time-out
/// itself is longer than a test.
#[test]
fn slow_clients_wait_alone() {
    let place = Place::new();
    let live = place.start();
    let mut slow = Vec::new();
    for index in 0..100 {
        let mut stream = live.connect();
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
            live.address, place.key
        );
        // Some stop in the headers, some in the body.
        let part = if index % 2 == 0 { &text[..40] } else { &text };
        stream.write_all(part.as_bytes()).unwrap();
        slow.push(stream);
    }
    assert_alive(&place, &live);
    drop(slow);
    assert_alive(&place, &live);
}

#[test]
fn unknown_things() {
    let place = Place::new();
    let live = place.start();
    for model in [
        "",
        "none/tiny",
        "tiny",
        "local/none",
        "/",
        "fake/",
        "../x",
        "モデル",
    ] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        let reply = live.post("/v1/chat/completions", &body);
        assert!([400, 404].contains(&reply.status), "{model}: {reply:?}");
        assert_openai(&reply, reply.status);
        let reply = live.post("/v1/embeddings", &json!({"model": model, "input": "x"}));
        assert!([400, 404].contains(&reply.status), "{model}: {reply:?}");
    }
    assert_eq!(
        assert_openai(&live.get("/v1/models/none/tiny"), 404)["code"],
        "model_not_found"
    );
    let wrong = live.with_key("mgr_dev_wrong");
    assert_eq!(
        assert_openai(&wrong.post("/v1/chat/completions", &question("x")), 401)["code"],
        "invalid_api_key"
    );
    assert_own(&wrong.get("/api/v1/traces"), 401);
    assert_openai(&live.get("/v1/nothing"), 404);
    assert_own(&live.get("/api/v1/nothing"), 404);
    let person = live.browser_of(&place.add_person("default", "viewer"));
    let page = person.get("/nowhere/traces");
    assert!(
        page.status == 404
            && page
                .header("content-type")
                .unwrap()
                .starts_with("text/html"),
        "{page:?}"
    );
    assert_own(
        &person
            .call("GET", "/api/v1/traces")
            .header("x-meguri-project", "nowhere")
            .send(),
        404,
    );
    assert_own(&live.delete("/api/v1/traces"), 404);
}

#[test]
fn broken_providers() {
    let place = Place::new();
    let live = place.start();
    for (fault, status) in [
        (Fault::Status(500, vec![], "on fire".to_owned()), 502),
        (Fault::Status(503, vec![], String::new()), 503),
        (
            Fault::Status(
                401,
                vec![],
                json!({"error": {"message": "bad key"}}).to_string(),
            ),
            502,
        ),
        (
            Fault::Status(429, vec![("retry-after", "7".to_owned())], "{}".to_owned()),
            429,
        ),
        (Fault::Raw("application/json", vec!["not json".into()]), 502),
        (Fault::Raw("text/html", vec!["<h1>hello</h1>".into()]), 502),
        (Fault::Raw("application/json", vec!["".into()]), 502),
        (
            Fault::Raw(
                "application/json",
                vec![bytes(
                    b"{\"choices\": [{\"message\": {\"content\": \"\xff\"}}]}",
                )],
            ),
            502,
        ),
        (Fault::DieAfter(0), 502),
    ] {
        place.fake.always(Answer::faulty(fault.clone()));
        let reply = live.post("/v1/chat/completions", &question("hello"));
        let error = assert_openai(&reply, status);
        assert!(
            !reply.text().contains("on fire") || error["code"] == "provider_error",
            "{fault:?}: {reply:?}"
        );
        let trace = reply.header("x-meguri-trace-id").unwrap();
        let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
        assert_eq!(shown["status"], "error", "{fault:?}: {shown}");
    }
    assert_alive(&place, &live);
}

fn bytes(bytes: &'static [u8]) -> bytes::Bytes {
    bytes::Bytes::from_static(bytes)
}

/// A stream that dies never ends as if it were whole.
#[test]
fn broken_streams() {
    let place = Place::new();
    let live = place.start();
    let mut request = question("hello");
    request["stream"] = json!(true);
    for fault in [
        Fault::DieAfter(3),
        Fault::EndAfter(3),
        Fault::HalfAfter(3),
        Fault::GarbageAfter(3),
        Fault::ErrorAfter(3),
    ] {
        place.fake.next(Answer::faulty(fault.clone()));
        let reply = live.post("/v1/chat/completions", &request);
        assert_eq!(reply.status, 200, "{fault:?}: {reply:?}");
        let text = reply.text();
        assert!(text.contains("\"error\""), "{fault:?}: {text}");
        assert!(!text.contains("[DONE]"), "{fault:?}: {text}");
        let trace = reply.header("x-meguri-trace-id").unwrap();
        let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
        assert_eq!(shown["status"], "error", "{fault:?}: {shown}");
    }
    // The client that leaves stops the provider, and the call is recorded.
    place.fake.next(Answer::faulty(Fault::StallAfter(2)));
    let mut stream = live
        .call("POST", "/v1/chat/completions")
        .json(&request)
        .open();
    let head = read_until(&mut stream, "\"Hello\"");
    let trace = head
        .lines()
        .find_map(|line| line.strip_prefix("x-meguri-trace-id: "))
        .unwrap()
        .trim()
        .to_owned();
    drop(stream);
    let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    assert_ne!(shown["status"], "ok", "{shown}");
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while place.fake.open_answers() > 0 {
        assert!(
            std::time::Instant::now() < until,
            "the provider still answers nobody"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_alive(&place, &live);
}

#[test]
fn a_provider_that_is_down() {
    let place = Place::on(Database::Sqlite).with_key("editor");
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{gone}/v1");
    for (name, protocol) in [("down", "openai"), ("away", "anthropic")] {
        place
            .meguri(&[
                "provider",
                "add",
                name,
                "--protocol",
                protocol,
                "--base-url",
                &url,
            ])
            .assert_done();
    }
    let live = place.start();
    for model in ["down/tiny", "away/tiny"] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        let reply = live.post("/v1/chat/completions", &body);
        let error = assert_openai(&reply, 502);
        assert_eq!(error["code"], "provider_unreachable", "{reply:?}");
        // What stands in our network is not the client's business.
        assert!(!reply.text().contains("127.0.0.1"), "{reply:?}");
    }
    assert_eq!(live.get("/readyz").status, 200);
}
